//! The rows of the catalogue.

use bytes::Bytes;

use super::row::StoredRow;
use crate::catalogue::rows::{PerformanceRow, Poster, TimetableRow, VenueRow};
use crate::domain::ids::{PerformanceId, TimetableId, UserId, VenueId};
use crate::persistence::StoreError;

pub(in crate::persistence) fn venue(row: &impl StoredRow) -> Result<VenueRow, StoreError> {
    Ok(VenueRow {
        id: VenueId(row.cell("id")?),
        owner: UserId(row.cell("owner")?),
        name: row.cell("name")?,
        time_zone: row.cell("time_zone")?,
        sections: row.json("sections")?,
        capacity: row.unsigned("capacity")?,
        created_at: row.time("created_at")?,
    })
}

pub(in crate::persistence) fn performance(
    row: &impl StoredRow,
) -> Result<PerformanceRow, StoreError> {
    let currency: String = row.cell("currency")?;
    let queue: Option<String> = row.cell("queue")?;
    let queue = queue.map(|queue| serde_json::from_str(&queue));
    Ok(PerformanceRow {
        id: PerformanceId(row.cell("id")?),
        owner: UserId(row.cell("owner")?),
        venue_id: VenueId(row.cell("venue_id")?),
        title: row.cell("title")?,
        category: row.cell("category")?,
        cast: row.json("cast_names")?,
        description: row.cell("description")?,
        poster_url: row.cell("poster_url")?,
        currency: currency.parse().map_err(unreadable)?,
        grades: row.json("grades")?,
        opens_at: row.time("opens_at")?,
        closes_at: row.time("closes_at")?,
        limits: row.json("limits")?,
        queue: queue.transpose().map_err(unreadable)?,
        draft: row.cell("draft")?,
        created_at: row.time("created_at")?,
        deleted_at: row.time_if_any("deleted_at")?,
    })
}

pub(in crate::persistence) fn timetable(row: &impl StoredRow) -> Result<TimetableRow, StoreError> {
    Ok(TimetableRow {
        id: TimetableId(row.cell("id")?),
        performance_id: PerformanceId(row.cell("performance_id")?),
        starts_at: row.time("starts_at")?,
        doors_at: row.time("doors_at")?,
        created_at: row.time("created_at")?,
        cancelled_at: row.time_if_any("cancelled_at")?,
    })
}

pub(in crate::persistence) fn poster(row: &impl StoredRow) -> Result<Poster, StoreError> {
    Ok(Poster {
        version: row.cell("version")?,
        media_type: row.cell("media_type")?,
        bytes: Bytes::from(row.cell::<Vec<u8>>("bytes")?),
    })
}

fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unreadable(format!("the catalogue: {error}"))
}
