//! Rows of a queue: who has joined, and whose place is over, as far as the
//! database doesn't know it yet. Then the row goes, so that a million who wait
//! are no million rows here. Numbers that were reserved, passes and draws are
//! the database's alone.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use uuid::Uuid;

use super::{Checkpointed, RowChange, RowChanges};
use crate::domain::ids::{QueueTicketId, UserId};
use crate::domain::queue::line::TicketNumber;
use crate::domain::queue::restore::{PlaceRow, PlaceState};
use crate::domain::queue::{End, Event, Queue};
use crate::domain::time::Timestamp;
use crate::persistence::batch::PlaceEnd;
use crate::persistence::checkpoint::{Row, RowId};

/// A row of a queue. Its version is that of the enum's variant: add, never
/// change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Told {
    Joined {
        user: UserId,
        number: Option<TicketNumber>,
        at: Timestamp,
    },
    Ended {
        user: UserId,
        number: Option<TicketNumber>,
        end: End,
        at: Timestamp,
    },
}

impl Told {
    /// A place has one row of each kind at most, each written once.
    fn of(self, ticket: QueueTicketId) -> (RowId, RowChange) {
        let mut id = SmallVec::from_slice(ticket.0.as_bytes());
        id.push(match self {
            Self::Joined { .. } => b'j',
            Self::Ended { .. } => b'e',
        });
        // Plain numbers: postcard refuses none of them.
        let body = postcard::to_stdvec(&self).unwrap_or_default();
        (RowId(id), RowChange::Over(body))
    }
}

fn told(row: &Row) -> Option<(QueueTicketId, Told)> {
    let (_, ticket) = row.id.0.split_last()?;
    let ticket = QueueTicketId(Uuid::from_slice(ticket).ok()?);
    Some((ticket, postcard::from_bytes(&row.body).ok()?))
}

impl Checkpointed for Queue {
    const HAS_CHECKPOINTS: bool = true;

    fn checkpoint(&self, event: &Event, into: &mut RowChanges) {
        match *event {
            Event::Joined {
                user,
                ticket,
                number,
                at,
            } => into.push(Told::Joined { user, number, at }.of(ticket)),
            Event::Ended {
                user,
                ticket,
                number,
                end,
                at,
                ..
            } => into.push(
                Told::Ended {
                    user,
                    number,
                    end,
                    at,
                }
                .of(ticket),
            ),
            Event::Reserved { .. }
            | Event::Admitted { .. }
            | Event::Opened { .. }
            | Event::Extended { .. }
            | Event::Paused(_)
            | Event::Drained(_)
            | Event::SeedChosen(_)
            | Event::Drawn { .. }
            | Event::Seen { .. }
            | Event::Turned { .. }
            | Event::Sifted { .. }
            | Event::SeatsTold(_) => {}
        }
    }

    /// None: those that the database doesn't have yet are all there is.
    fn checkpoint_whole(&self) -> impl Iterator<Item = (RowId, Vec<u8>)> {
        std::iter::empty()
    }

    fn recover(&mut self, rows: &[Row]) -> Vec<Event> {
        let known: Vec<_> = rows.iter().filter_map(told).collect();
        if known.len() < rows.len() {
            tracing::warn!(
                rows = rows.len() - known.len(),
                "rows of a checkpoint can't be understood; they are left out"
            );
        }
        let mut places: HashMap<QueueTicketId, PlaceRow, RandomState> = HashMap::default();
        for (ticket, told) in &known {
            if let Told::Joined { user, number, at } = *told {
                let place = PlaceRow {
                    ticket: *ticket,
                    user,
                    number,
                    entrant: number.is_none(),
                    joined_at: at,
                    state: PlaceState::Waiting,
                };
                places.insert(*ticket, place);
            }
        }
        for (ticket, told) in &known {
            if let Told::Ended {
                user,
                number,
                end,
                at,
            } = *told
            {
                let ended = PlaceEnd { number, end, at };
                let stored = || self.place_row(user).filter(|place| place.ticket == *ticket);
                if let Some(place) = places.get_mut(ticket) {
                    ended.put_into(place);
                } else if let Some(mut place) = stored() {
                    ended.put_into(&mut place);
                    places.insert(*ticket, place);
                }
            }
        }
        // Those of one write have one version: their numbers tell their order,
        // and of one user's the time.
        let mut places: Vec<PlaceRow> = places.into_values().collect();
        places.sort_unstable_by_key(|place| (place.joined_at, place.number, place.ticket));
        Queue::recover(self, &places)
    }
}
