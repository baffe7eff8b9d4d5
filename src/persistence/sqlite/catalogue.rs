//! Venues, performances and their dates. They are few and change rarely; all
//! reads of the public are answered from memory ([`crate::catalogue`]).

mod read;
mod views;

use futures_util::future::BoxFuture;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::SqliteStore;
use super::rows::{hex, json};
use crate::catalogue::rows::{IdemKey, Insertion, PerformanceRow, Poster, TimetableRow, VenueRow};
use crate::domain::account::KEY_LIFE;
use crate::domain::ids::{PerformanceId, TimetableId};
use crate::domain::time::{Millis, Timestamp};
use crate::persistence::StoreError;
use crate::persistence::store::catalogue::Update;
use crate::persistence::stored::catalogue as stored;

impl SqliteStore {
    pub(crate) async fn insert_venue(
        &self,
        venue: VenueRow,
        idem: Option<IdemKey>,
    ) -> Result<Insertion<VenueRow>, StoreError> {
        let sections = json(&venue.sections)?;
        self.transaction(move |c| {
            Box::pin(async move {
                let (user, key) = columns(idem);
                free_old_key(c, FREE_VENUE_KEY, user, key.as_deref(), venue.created_at).await?;
                let made = sqlx::query(
                    "INSERT INTO venue
                       (id, owner, name, time_zone, sections, capacity, created_at, idem_user, idem_key)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (idem_user, idem_key) DO NOTHING",
                )
                .bind(venue.id.0)
                .bind(venue.owner.0)
                .bind(&venue.name)
                .bind(&venue.time_zone)
                .bind(sections)
                .bind(venue.capacity)
                .bind(venue.created_at.0)
                .bind(user)
                .bind(&key)
                .execute(&mut *c)
                .await?;
                if made.rows_affected() > 0 {
                    return Ok(Insertion::Inserted(venue));
                }
                let first = sqlx::query("SELECT * FROM venue WHERE idem_user = ? AND idem_key = ?");
                let row = first.bind(user).bind(key).fetch_one(c).await?;
                Ok(Insertion::Existing(stored::venue(&row)?))
            })
        })
        .await
    }

    pub(crate) async fn insert_performance(
        &self,
        performance: PerformanceRow,
        timetables: Vec<TimetableRow>,
        idem: Option<IdemKey>,
    ) -> Result<Insertion<PerformanceId>, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let (user, key) = columns(idem);
                let now = performance.created_at;
                free_old_key(c, FREE_PERFORMANCE_KEY, user, key.as_deref(), now).await?;
                if !insert_performance(c, &performance, user, key.as_deref()).await? {
                    let sql = "SELECT id FROM performance WHERE idem_user = ? AND idem_key = ?";
                    let first = sqlx::query_scalar(sql).bind(user).bind(key);
                    return Ok(Insertion::Existing(PerformanceId(
                        first.fetch_one(c).await?,
                    )));
                }
                keep_category(c, &performance.category, performance.created_at).await?;
                insert_timetables(c, &timetables).await?;
                Ok(Insertion::Inserted(performance.id))
            })
        })
        .await
    }

    pub(crate) async fn insert_timetable(
        &self,
        timetable: TimetableRow,
        idem: Option<IdemKey>,
    ) -> Result<Insertion<TimetableRow>, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let (user, key) = columns(idem);
                let now = timetable.created_at;
                free_old_key(c, FREE_TIMETABLE_KEY, user, key.as_deref(), now).await?;
                let made = sqlx::query(
                    "INSERT INTO timetable
                       (id, performance_id, starts_at, doors_at, created_at, idem_user, idem_key)
                     VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (idem_user, idem_key) DO NOTHING",
                )
                .bind(timetable.id.0)
                .bind(timetable.performance_id.0)
                .bind(timetable.starts_at.0)
                .bind(timetable.doors_at.0)
                .bind(timetable.created_at.0)
                .bind(user)
                .bind(&key)
                .execute(&mut *c)
                .await?;
                if made.rows_affected() > 0 {
                    return Ok(Insertion::Inserted(timetable));
                }
                let sql = "SELECT * FROM timetable WHERE idem_user = ? AND idem_key = ?";
                let row = sqlx::query(sql).bind(user).bind(key).fetch_one(c).await?;
                Ok(Insertion::Existing(stored::timetable(&row)?))
            })
        })
        .await
    }

    pub(crate) async fn update_performance(
        &self,
        performance: PerformanceRow,
        keeps_poster: bool,
        before_first_sale: bool,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                if before_first_sale && has_orders(c, performance.id).await? {
                    return Ok(Update::HasOrders);
                }
                keep_category(c, &performance.category, now).await?;
                if !keeps_poster {
                    let dropped = sqlx::query("DELETE FROM poster WHERE performance_id = ?");
                    dropped.bind(performance.id.0).execute(&mut *c).await?;
                }
                update_performance(c, &performance).await?;
                Ok(Update::Done)
            })
        })
        .await
    }

    pub(crate) async fn has_orders(&self, id: PerformanceId) -> Result<bool, StoreError> {
        let mut reader = self.readers.acquire().await?;
        has_orders(&mut reader, id).await
    }

    pub(crate) async fn store_poster(
        &self,
        performance: PerformanceRow,
        poster: Poster,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO poster (performance_id, version, media_type, bytes, created_at)
                     VALUES (?, ?, ?, ?, ?)
                     ON CONFLICT (performance_id) DO UPDATE SET version = excluded.version,
                       media_type = excluded.media_type, bytes = excluded.bytes,
                       created_at = excluded.created_at",
                )
                .bind(performance.id.0)
                .bind(poster.version)
                .bind(poster.media_type)
                .bind(poster.bytes.to_vec())
                .bind(now.0)
                .execute(&mut *c)
                .await?;
                update_performance(c, &performance).await
            })
        })
        .await
    }

    pub(crate) async fn cancel_timetable(
        &self,
        id: TimetableId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let sql =
                    "UPDATE timetable SET cancelled_at = ? WHERE id = ? AND cancelled_at IS NULL";
                sqlx::query(sql).bind(now.0).bind(id.0).execute(c).await?;
                Ok(())
            })
        })
        .await
    }

    pub(crate) async fn rename_category(
        &self,
        from: String,
        to: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let gone = sqlx::query("DELETE FROM category WHERE slug = ?");
                gone.bind(&from).execute(&mut *c).await?;
                keep_category(c, &to, now).await?;
                let moved = sqlx::query("UPDATE performance SET category = ? WHERE category = ?");
                moved.bind(to).bind(from).execute(c).await?;
                Ok(())
            })
        })
        .await
    }

    pub(crate) async fn delete_category(&self, slug: String) -> Result<(), StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let gone = sqlx::query("DELETE FROM category WHERE slug = ?");
                gone.bind(slug).execute(c).await?;
                Ok(())
            })
        })
        .await
    }
}

const FREE_VENUE_KEY: &str = "UPDATE venue SET idem_user = NULL, idem_key = NULL \
     WHERE idem_user = ?1 AND idem_key = ?2 AND created_at <= ?3";
const FREE_PERFORMANCE_KEY: &str = "UPDATE performance SET idem_user = NULL, idem_key = NULL \
     WHERE idem_user = ?1 AND idem_key = ?2 AND created_at <= ?3";
const FREE_TIMETABLE_KEY: &str = "UPDATE timetable SET idem_user = NULL, idem_key = NULL \
     WHERE idem_user = ?1 AND idem_key = ?2 AND created_at <= ?3";

/// A row keeps the key that it was made under; once [`KEY_LIFE`] is over, the
/// key is free for another request, like one that the account has forgotten.
/// Nothing has to be swept: the key is taken from its row when it is used again.
async fn free_old_key(
    connection: &mut SqliteConnection,
    sql: &'static str,
    user: Option<Uuid>,
    key: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(key) = key else { return Ok(()) };
    sqlx::query(sql)
        .bind(user)
        .bind(key)
        .bind(now.plus(Millis(-KEY_LIFE.0)).0)
        .execute(connection)
        .await?;
    Ok(())
}

/// The columns of an idempotency key: both null without one, which is unique
/// to SQLite as often as it comes.
fn columns(idem: Option<IdemKey>) -> (Option<Uuid>, Option<String>) {
    match idem {
        Some(idem) => (Some(idem.user.0), Some(idem.key)),
        None => (None, None),
    }
}

async fn keep_category(
    c: &mut SqliteConnection,
    slug: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO category (slug, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(slug)
        .bind(now.0)
        .execute(c)
        .await?;
    Ok(())
}

/// Whether a seat of the performance was ever sold. In a transaction: batches
/// of orders go through the same connection, so the answer holds until its end.
async fn has_orders(c: &mut SqliteConnection, id: PerformanceId) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM timetable AS t JOIN orders AS o ON o.timetable_id = t.id
                        WHERE t.performance_id = ? AND o.status IN ('confirmed', 'cancelled'))",
    );
    Ok(row.bind(id.0).fetch_one(c).await?.try_get(0)?)
}

/// Returns whether it was made.
async fn insert_performance(
    c: &mut SqliteConnection,
    row: &PerformanceRow,
    idem_user: Option<Uuid>,
    idem_key: Option<&str>,
) -> Result<bool, StoreError> {
    let made = sqlx::query(
        "INSERT INTO performance
           (id, owner, venue_id, title, category, cast_names, description, poster_url, currency,
            grades, opens_at, closes_at, limits, queue, draft, created_at, deleted_at,
            idem_user, idem_key)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (idem_user, idem_key) DO NOTHING",
    )
    .bind(row.id.0)
    .bind(row.owner.0)
    .bind(row.venue_id.0)
    .bind(&row.title)
    .bind(&row.category)
    .bind(json(&row.cast)?)
    .bind(&row.description)
    .bind(&row.poster_url)
    .bind(row.currency.as_str())
    .bind(json(&row.grades)?)
    .bind(row.opens_at.0)
    .bind(row.closes_at.0)
    .bind(json(&row.limits)?)
    .bind(row.queue.as_ref().map(json).transpose()?)
    .bind(row.draft)
    .bind(row.created_at.0)
    .bind(row.deleted_at.map(|at| at.0))
    .bind(idem_user)
    .bind(idem_key)
    .execute(c)
    .await?;
    Ok(made.rows_affected() > 0)
}

/// All that can change: neither the owner nor the venue.
async fn update_performance(
    c: &mut SqliteConnection,
    row: &PerformanceRow,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE performance SET title = ?, category = ?, cast_names = ?, description = ?,
           poster_url = ?, currency = ?, grades = ?, opens_at = ?, closes_at = ?, limits = ?,
           queue = ?, draft = ?, deleted_at = ?
         WHERE id = ?",
    )
    .bind(&row.title)
    .bind(&row.category)
    .bind(json(&row.cast)?)
    .bind(&row.description)
    .bind(&row.poster_url)
    .bind(row.currency.as_str())
    .bind(json(&row.grades)?)
    .bind(row.opens_at.0)
    .bind(row.closes_at.0)
    .bind(json(&row.limits)?)
    .bind(row.queue.as_ref().map(json).transpose()?)
    .bind(row.draft)
    .bind(row.deleted_at.map(|at| at.0))
    .bind(row.id.0)
    .execute(c)
    .await?;
    Ok(())
}

fn insert_timetables<'c>(
    c: &'c mut SqliteConnection,
    rows: &[TimetableRow],
) -> BoxFuture<'c, Result<(), StoreError>> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let performance = hex(row.performance_id.0);
            (
                hex(row.id.0),
                performance,
                row.starts_at.0,
                row.doors_at.0,
                row.created_at.0,
            )
        })
        .collect();
    Box::pin(async move {
        sqlx::query(
            "INSERT INTO timetable (id, performance_id, starts_at, doors_at, created_at)
             SELECT unhex(value ->> 0), unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4
             FROM json_each(?)",
        )
        .bind(json(&rows)?)
        .execute(c)
        .await?;
        Ok(())
    })
}
