//! Reading the catalogue back, whole, when the program starts.

use std::fmt::Display;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use crate::catalogue::rows::{CatalogueRows, PerformanceRow, Poster, TimetableRow, VenueRow};
use crate::domain::ids::{PerformanceId, TimetableId, UserId, VenueId};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

impl SqliteStore {
    pub(crate) async fn load_catalogue(&self) -> Result<CatalogueRows, StoreError> {
        let venues = sqlx::query("SELECT * FROM venue ORDER BY id");
        let venues = venues.fetch_all(&self.readers).await?;
        let performances = sqlx::query("SELECT * FROM performance ORDER BY id");
        let performances = performances.fetch_all(&self.readers).await?;
        let timetables = sqlx::query("SELECT * FROM timetable ORDER BY id");
        let timetables = timetables.fetch_all(&self.readers).await?;
        let categories = sqlx::query_scalar("SELECT slug FROM category ORDER BY slug");
        Ok(CatalogueRows {
            version: 0,
            venues: venues.iter().map(venue_of).collect::<Result<_, _>>()?,
            performances: performances
                .iter()
                .map(performance_of)
                .collect::<Result<_, _>>()?,
            timetables: timetables
                .iter()
                .map(timetable_of)
                .collect::<Result<_, _>>()?,
            categories: categories.fetch_all(&self.readers).await?,
        })
    }

    pub(crate) async fn load_poster(
        &self,
        id: PerformanceId,
    ) -> Result<Option<Poster>, StoreError> {
        let sql = "SELECT version, media_type, bytes FROM poster WHERE performance_id = ?";
        let row = sqlx::query(sql)
            .bind(id.0)
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| {
            Ok(Poster {
                version: row.try_get("version")?,
                media_type: row.try_get("media_type")?,
                bytes: Bytes::from(row.try_get::<Vec<u8>, _>("bytes")?),
            })
        })
        .transpose()
    }
}

pub(super) fn venue_of(row: &SqliteRow) -> Result<VenueRow, StoreError> {
    Ok(VenueRow {
        id: VenueId(row.try_get("id")?),
        owner: UserId(row.try_get("owner")?),
        name: row.try_get("name")?,
        time_zone: row.try_get("time_zone")?,
        sections: from_json(row.try_get("sections")?)?,
        capacity: row.try_get("capacity")?,
        created_at: Timestamp(row.try_get("created_at")?),
    })
}

pub(super) fn performance_of(row: &SqliteRow) -> Result<PerformanceRow, StoreError> {
    let currency: &str = row.try_get("currency")?;
    let queue: Option<&str> = row.try_get("queue")?;
    let deleted_at: Option<i64> = row.try_get("deleted_at")?;
    Ok(PerformanceRow {
        id: PerformanceId(row.try_get("id")?),
        owner: UserId(row.try_get("owner")?),
        venue_id: VenueId(row.try_get("venue_id")?),
        title: row.try_get("title")?,
        category: row.try_get("category")?,
        cast: from_json(row.try_get("cast_names")?)?,
        description: row.try_get("description")?,
        poster_url: row.try_get("poster_url")?,
        currency: currency.parse().map_err(unreadable)?,
        grades: from_json(row.try_get("grades")?)?,
        opens_at: Timestamp(row.try_get("opens_at")?),
        closes_at: Timestamp(row.try_get("closes_at")?),
        limits: from_json(row.try_get("limits")?)?,
        queue: queue.map(from_json).transpose()?,
        draft: row.try_get("draft")?,
        created_at: Timestamp(row.try_get("created_at")?),
        deleted_at: deleted_at.map(Timestamp),
    })
}

pub(super) fn timetable_of(row: &SqliteRow) -> Result<TimetableRow, StoreError> {
    let cancelled_at: Option<i64> = row.try_get("cancelled_at")?;
    Ok(TimetableRow {
        id: TimetableId(row.try_get("id")?),
        performance_id: PerformanceId(row.try_get("performance_id")?),
        starts_at: Timestamp(row.try_get("starts_at")?),
        doors_at: Timestamp(row.try_get("doors_at")?),
        created_at: Timestamp(row.try_get("created_at")?),
        cancelled_at: cancelled_at.map(Timestamp),
    })
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(unreadable)
}

fn unreadable(error: impl Display) -> StoreError {
    StoreError::Unreadable(format!("the catalogue: {error}"))
}
