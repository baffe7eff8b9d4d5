//! How often performances are viewed and sold.

use sqlx::Row;
use uuid::Uuid;

use super::PostgresStore;
use crate::catalogue::rows::{DayViews, View};
use crate::domain::ids::{PerformanceId, TimetableId};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::stored::first_id_at;

impl PostgresStore {
    pub(crate) async fn count_views(&self, views: Vec<View>) -> Result<Vec<DayViews>, StoreError> {
        let mut views = views;
        // In the order of the key: two nodes count the same viewers.
        views.sort_unstable_by_key(|view| (view.day, view.performance_id.0, view.viewer));
        let last_day = views.iter().map(|view| view.day).max().unwrap_or(0);
        self.transaction(move |c| {
            Box::pin(async move {
                let viewers = views.iter().map(|view| view.viewer.cast_signed());
                let rows = c.sql(
                    "WITH new AS ( \
                         INSERT INTO performance_view (day, performance_id, viewer) \
                         SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::bigint[]) \
                         ON CONFLICT DO NOTHING RETURNING day, performance_id), \
                     counts AS ( \
                         SELECT performance_id, day, count(*) AS views FROM new \
                         GROUP BY 1, 2 ORDER BY 1, 2), \
                     sums AS ( \
                         INSERT INTO performance_day AS d (performance_id, day, views) \
                         SELECT * FROM counts ON CONFLICT (performance_id, day) \
                         DO UPDATE SET views = d.views + excluded.views) \
                     SELECT performance_id, day, views FROM counts",
                );
                let rows = rows
                    .bind(views.iter().map(|view| view.day).collect::<Vec<_>>())
                    .bind(
                        views
                            .iter()
                            .map(|view| view.performance_id.0)
                            .collect::<Vec<_>>(),
                    )
                    .bind(viewers.collect::<Vec<_>>())
                    .fetch_all(c.on())
                    .await?;
                // A view may be flushed just after midnight, hence the day
                // before is kept.
                let old = c.sql("DELETE FROM performance_view WHERE day < $1");
                old.bind(last_day - 1).execute(c.on()).await?;
                rows.iter().map(day_views).collect()
            })
        })
        .await
    }

    pub(crate) async fn views_by_day(&self, from: i64) -> Result<Vec<DayViews>, StoreError> {
        self.load_anywhere(move |c| {
            Box::pin(async move {
                let rows = c.sql(
                    "SELECT performance_id, greatest(day, $1 - 1) AS d, \
                            CAST(sum(views) AS bigint) \
                     FROM performance_day GROUP BY performance_id, d",
                );
                let rows = rows.bind(from).fetch_all(c.on()).await?;
                rows.iter().map(day_views).collect()
            })
        })
        .await
    }

    pub(crate) async fn viewers_of_day(
        &self,
        day: i64,
        limit: u32,
    ) -> Result<Vec<View>, StoreError> {
        self.load_anywhere(move |c| {
            Box::pin(async move {
                let rows = c.sql(
                    "SELECT performance_id, viewer FROM performance_view WHERE day = $1 LIMIT $2",
                );
                let rows = rows
                    .bind(day)
                    .bind(i64::from(limit))
                    .fetch_all(c.on())
                    .await?;
                rows.iter()
                    .map(|row| {
                        Ok(View {
                            performance_id: PerformanceId(row.try_get(0)?),
                            day,
                            viewer: row.try_get::<i64, _>(1)?.cast_unsigned(),
                        })
                    })
                    .collect()
            })
        })
        .await
    }

    pub(crate) async fn seats_sold_since(
        &self,
        from: Timestamp,
    ) -> Result<Vec<(TimetableId, u64)>, StoreError> {
        self.load_anywhere(move |c| {
            Box::pin(async move {
                // Ids of orders begin with their time, so that their key bounds it.
                let rows = c.sql(
                    "SELECT timetable_id, \
                            CAST(sum(json_array_length(CAST(seats AS json)) \
                                 - json_array_length(CAST(cancelled AS json))) AS bigint) \
                     FROM orders WHERE id >= $1 AND status = 'confirmed' GROUP BY timetable_id",
                );
                let rows = rows.bind(first_id_at(from)).fetch_all(c.on()).await?;
                rows.iter()
                    .map(|row| {
                        let sold: i64 = row.try_get(1)?;
                        Ok((TimetableId(row.try_get(0)?), sold.unsigned_abs()))
                    })
                    .collect()
            })
        })
        .await
    }
}

fn day_views(row: &sqlx::postgres::PgRow) -> Result<DayViews, StoreError> {
    Ok(DayViews {
        performance_id: PerformanceId(row.try_get::<Uuid, _>(0)?),
        day: row.try_get(1)?,
        views: row.try_get::<i64, _>(2)?.unsigned_abs(),
    })
}
