//! How many seats a timetable has.

use std::collections::HashMap;

use uuid::Uuid;

use super::report::{Book, Rule};
use super::snapshot::Snapshot;
use crate::domain::ids::TimetableId;
use crate::domain::layout::{Layout, SectionSpec};
use crate::persistence::StoreError;
use crate::persistence::stored::reader::Reader as _;

/// How many seats each venue has, by its layout.
#[derive(Default)]
pub(super) struct Capacities {
    of_venue: HashMap<Uuid, u32>,
}

impl Capacities {
    /// `None` if the catalogue doesn't have the timetable.
    pub(super) async fn of(
        &mut self,
        c: &mut Snapshot,
        id: TimetableId,
        book: &mut Book,
    ) -> Result<Option<u32>, StoreError> {
        let row = c
            .one(
                "SELECT venue.id, venue.sections, venue.capacity FROM timetable \
             JOIN performance ON performance.id = performance_id \
             JOIN venue ON venue.id = venue_id WHERE timetable.id = $1",
                &[id.0.into()],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let venue: Uuid = row.get(0)?;
        if let Some(capacity) = self.of_venue.get(&venue) {
            return Ok(Some(*capacity));
        }
        let layout = serde_json::from_str::<Vec<SectionSpec>>(row.get(1)?)
            .map_err(|error| error.to_string())
            .and_then(|specs| Layout::build(&specs).map_err(|error| error.to_string()));
        let stored = row.seats(2)?;
        let problem = match &layout {
            Ok(layout) if layout.capacity() == stored => None,
            Ok(layout) => Some(format!("has {} seats, not {stored}", layout.capacity())),
            Err(error) => Some(format!("has no layout: {error}")),
        };
        if let Some(problem) = problem {
            book.found(Rule::SeatsAreDistinct, || {
                format!("venue {venue} {problem}")
            });
        }
        let capacity = layout.map_or(stored, |layout| layout.capacity());
        self.of_venue.insert(venue, capacity);
        Ok(Some(capacity))
    }
}
