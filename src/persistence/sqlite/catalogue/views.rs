//! How often performances are viewed and sold.

use std::collections::HashMap;

use sqlx::Row;
use uuid::Uuid;

use super::SqliteStore;
use super::{hex, json};
use crate::catalogue::rows::{DayViews, View};
use crate::domain::ids::{PerformanceId, TimetableId};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::stored::first_id_at;

impl SqliteStore {
    pub(crate) async fn count_views(&self, views: Vec<View>) -> Result<Vec<DayViews>, StoreError> {
        let rows: Vec<_> = views
            .iter()
            .map(|view| {
                (
                    view.day,
                    hex(view.performance_id.0),
                    view.viewer.cast_signed(),
                )
            })
            .collect();
        let rows = json(&rows)?;
        let last_day = views.iter().map(|view| view.day).max().unwrap_or(0);
        self.transaction(move |c| {
            Box::pin(async move {
                let new: Vec<(i64, Uuid)> = sqlx::query_as(
                    "INSERT INTO performance_view (day, performance_id, viewer)
                     SELECT value ->> 0, unhex(value ->> 1), value ->> 2 FROM json_each(?)
                     WHERE true ON CONFLICT DO NOTHING RETURNING day, performance_id",
                )
                .bind(rows)
                .fetch_all(&mut *c)
                .await?;
                let counts = summed(&new);
                let rows: Vec<_> = counts
                    .iter()
                    .map(|count| (hex(count.performance_id.0), count.day, count.views))
                    .collect();
                sqlx::query(
                    "INSERT INTO performance_day (performance_id, day, views)
                     SELECT unhex(value ->> 0), value ->> 1, value ->> 2 FROM json_each(?)
                     WHERE true ON CONFLICT (performance_id, day)
                     DO UPDATE SET views = views + excluded.views",
                )
                .bind(json(&rows)?)
                .execute(&mut *c)
                .await?;
                // A view may be flushed just after midnight, hence the day
                // before is kept.
                let old = sqlx::query("DELETE FROM performance_view WHERE day < ?");
                old.bind(last_day - 1).execute(c).await?;
                Ok(counts)
            })
        })
        .await
    }

    pub(crate) async fn views_by_day(&self, from: i64) -> Result<Vec<DayViews>, StoreError> {
        let rows: Vec<(Uuid, i64, i64)> = sqlx::query_as(
            "SELECT performance_id, max(day, ?1 - 1) AS d, sum(views) FROM performance_day
             GROUP BY performance_id, d",
        )
        .bind(from)
        .fetch_all(&self.readers)
        .await?;
        let day_views = |(id, day, views): (Uuid, i64, i64)| DayViews {
            performance_id: PerformanceId(id),
            day,
            views: views.unsigned_abs(),
        };
        Ok(rows.into_iter().map(day_views).collect())
    }

    pub(crate) async fn viewers_of_day(
        &self,
        day: i64,
        limit: u32,
    ) -> Result<Vec<View>, StoreError> {
        let sql = "SELECT performance_id, viewer FROM performance_view WHERE day = ? LIMIT ?";
        let rows = sqlx::query_as(sql)
            .bind(day)
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        let view = |(id, viewer): (Uuid, i64)| View {
            performance_id: PerformanceId(id),
            day,
            viewer: viewer.cast_unsigned(),
        };
        Ok(rows.into_iter().map(view).collect())
    }

    pub(crate) async fn seats_sold_since(
        &self,
        from: Timestamp,
    ) -> Result<Vec<(TimetableId, u64)>, StoreError> {
        // Ids of orders begin with their time, so that their key bounds it.
        let first = sqlx::query(
            "SELECT timetable_id, sum(json_array_length(seats) - json_array_length(cancelled)) FROM orders
             WHERE id >= ? AND status = 'confirmed' GROUP BY timetable_id",
        );
        let rows = first
            .bind(first_id_at(from))
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                let sold: i64 = row.try_get(1)?;
                Ok((TimetableId(row.try_get(0)?), sold.unsigned_abs()))
            })
            .collect()
    }
}

fn summed(new: &[(i64, Uuid)]) -> Vec<DayViews> {
    let mut counts: HashMap<(i64, Uuid), u64> = HashMap::new();
    for view in new {
        *counts.entry(*view).or_default() += 1;
    }
    let day_views = |((day, id), views): ((i64, Uuid), u64)| DayViews {
        performance_id: PerformanceId(id),
        day,
        views,
    };
    counts.into_iter().map(day_views).collect()
}
