//! Venues, performances and their dates. They are few and change rarely; all
//! reads of the public are answered from memory ([`crate::catalogue`]).

use std::fmt::Display;

use serde::Serialize;
use sqlx::Row;
use uuid::Uuid;

use super::{Link, PostgresStore};
use crate::catalogue::rows::{
    CatalogueRows, IdemKey, Insertion, PerformanceRow, Poster, TimetableRow, VenueRow,
};
use crate::domain::account::KEY_LIFE;
use crate::domain::ids::{PerformanceId, TimetableId, shard_of};
use crate::domain::time::{Millis, Timestamp};
use crate::persistence::StoreError;
use crate::persistence::store::catalogue::Update;
use crate::persistence::stored::catalogue as stored;

impl PostgresStore {
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
                let made = c.sql(
                    "INSERT INTO venue \
                       (id, owner, name, time_zone, sections, capacity, created_at, idem_user, \
                        idem_key) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                     ON CONFLICT (idem_user, idem_key) DO NOTHING",
                );
                let made = made
                    .bind(venue.id.0)
                    .bind(venue.owner.0)
                    .bind(&venue.name)
                    .bind(&venue.time_zone)
                    .bind(sections)
                    .bind(venue.capacity.cast_signed())
                    .bind(venue.created_at.0)
                    .bind(user)
                    .bind(&key)
                    .execute(c.on())
                    .await?;
                if made.rows_affected() > 0 {
                    return Ok(Insertion::Inserted(venue));
                }
                let first = c.sql("SELECT * FROM venue WHERE idem_user = $1 AND idem_key = $2");
                let row = first.bind(user).bind(key).fetch_one(c.on()).await?;
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
                    let first =
                        c.sql("SELECT id FROM performance WHERE idem_user = $1 AND idem_key = $2");
                    let row = first.bind(user).bind(key).fetch_one(c.on()).await?;
                    return Ok(Insertion::Existing(PerformanceId(row.try_get(0)?)));
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
                let made = c.sql(
                    "INSERT INTO timetable \
                       (id, performance_id, starts_at, doors_at, created_at, idem_user, idem_key) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7) \
                     ON CONFLICT (idem_user, idem_key) DO NOTHING",
                );
                let made = made
                    .bind(timetable.id.0)
                    .bind(timetable.performance_id.0)
                    .bind(timetable.starts_at.0)
                    .bind(timetable.doors_at.0)
                    .bind(timetable.created_at.0)
                    .bind(user)
                    .bind(&key)
                    .execute(c.on())
                    .await?;
                if made.rows_affected() > 0 {
                    return Ok(Insertion::Inserted(timetable));
                }
                let first = c.sql("SELECT * FROM timetable WHERE idem_user = $1 AND idem_key = $2");
                let row = first.bind(user).bind(key).fetch_one(c.on()).await?;
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
                if before_first_sale {
                    lock_sales(c, performance.id).await?;
                    if has_orders(c, performance.id).await? {
                        return Ok(Update::HasOrders);
                    }
                }
                keep_category(c, &performance.category, now).await?;
                if !keeps_poster {
                    let dropped = c.sql("DELETE FROM poster WHERE performance_id = $1");
                    dropped.bind(performance.id.0).execute(c.on()).await?;
                }
                update_performance(c, &performance).await?;
                Ok(Update::Done)
            })
        })
        .await
    }

    pub(crate) async fn has_orders(&self, id: PerformanceId) -> Result<bool, StoreError> {
        self.read(move |c| Box::pin(has_orders(c, id))).await
    }

    pub(crate) async fn store_poster(
        &self,
        performance: PerformanceRow,
        poster: Poster,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                c.sql(
                    "INSERT INTO poster (performance_id, version, media_type, bytes, created_at) \
                     VALUES ($1, $2, $3, $4, $5) \
                     ON CONFLICT (performance_id) DO UPDATE SET version = excluded.version, \
                       media_type = excluded.media_type, bytes = excluded.bytes, \
                       created_at = excluded.created_at",
                )
                .bind(performance.id.0)
                .bind(poster.version)
                .bind(poster.media_type)
                .bind(poster.bytes.to_vec())
                .bind(now.0)
                .execute(c.on())
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
                c.sql(
                    "UPDATE timetable SET cancelled_at = $1 \
                     WHERE id = $2 AND cancelled_at IS NULL",
                )
                .bind(now.0)
                .bind(id.0)
                .execute(c.on())
                .await?;
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
                let gone = c.sql("DELETE FROM category WHERE slug = $1");
                gone.bind(&from).execute(c.on()).await?;
                keep_category(c, &to, now).await?;
                let moved = c.sql("UPDATE performance SET category = $1 WHERE category = $2");
                moved.bind(to).bind(from).execute(c.on()).await?;
                Ok(())
            })
        })
        .await
    }

    pub(crate) async fn delete_category(&self, slug: String) -> Result<(), StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let gone = c.sql("DELETE FROM category WHERE slug = $1");
                gone.bind(slug).execute(c.on()).await?;
                Ok(())
            })
        })
        .await
    }

    pub(crate) async fn load_catalogue(&self) -> Result<CatalogueRows, StoreError> {
        self.load_anywhere(|c| {
            Box::pin(async move {
                let version = c.sql("SELECT version FROM catalogue_version");
                let version = version.fetch_one(c.on()).await?.try_get(0)?;
                let venues = c.sql("SELECT * FROM venue ORDER BY id");
                let venues = venues.fetch_all(c.on()).await?;
                let performances = c.sql("SELECT * FROM performance ORDER BY id");
                let performances = performances.fetch_all(c.on()).await?;
                let timetables = c.sql("SELECT * FROM timetable ORDER BY id");
                let timetables = timetables.fetch_all(c.on()).await?;
                let categories = c.sql("SELECT slug FROM category ORDER BY slug COLLATE \"C\"");
                let categories = categories.fetch_all(c.on()).await?;
                Ok(CatalogueRows {
                    version,
                    venues: venues.iter().map(stored::venue).collect::<Result<_, _>>()?,
                    performances: performances
                        .iter()
                        .map(stored::performance)
                        .collect::<Result<_, _>>()?,
                    timetables: timetables
                        .iter()
                        .map(stored::timetable)
                        .collect::<Result<_, _>>()?,
                    categories: categories
                        .iter()
                        .map(|row| Ok(row.try_get(0)?))
                        .collect::<Result<_, StoreError>>()?,
                })
            })
        })
        .await
    }

    pub(crate) async fn load_poster(
        &self,
        id: PerformanceId,
    ) -> Result<Option<Poster>, StoreError> {
        self.load_anywhere(move |c| {
            Box::pin(async move {
                let row = c
                    .sql("SELECT version, media_type, bytes FROM poster WHERE performance_id = $1");
                let row = row.bind(id.0).fetch_optional(c.on()).await?;
                row.as_ref().map(stored::poster).transpose()
            })
        })
        .await
    }
}

const FREE_VENUE_KEY: &str = "UPDATE venue SET idem_user = NULL, idem_key = NULL \
     WHERE idem_user = $1 AND idem_key = $2 AND created_at <= $3";
const FREE_PERFORMANCE_KEY: &str = "UPDATE performance SET idem_user = NULL, idem_key = NULL \
     WHERE idem_user = $1 AND idem_key = $2 AND created_at <= $3";
const FREE_TIMETABLE_KEY: &str = "UPDATE timetable SET idem_user = NULL, idem_key = NULL \
     WHERE idem_user = $1 AND idem_key = $2 AND created_at <= $3";

/// A row keeps the key that it was made under; once [`KEY_LIFE`] is over, the
/// key is free for another request, like one that the account has forgotten.
/// Nothing has to be swept: the key is taken from its row when it is used again.
async fn free_old_key(
    c: &mut Link,
    sql: &'static str,
    user: Option<Uuid>,
    key: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(key) = key else { return Ok(()) };
    c.sql(sql)
        .bind(user)
        .bind(key)
        .bind(now.plus(Millis(-KEY_LIFE.0)).0)
        .execute(c.on())
        .await?;
    Ok(())
}

/// The columns of an idempotency key: both null without one, which is unique
/// as often as it comes.
fn columns(idem: Option<IdemKey>) -> (Option<Uuid>, Option<String>) {
    match idem {
        Some(idem) => (Some(idem.user.0), Some(idem.key)),
        None => (None, None),
    }
}

async fn keep_category(c: &mut Link, slug: &str, now: Timestamp) -> Result<(), StoreError> {
    c.sql("INSERT INTO category (slug, created_at) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(slug)
        .bind(now.0)
        .execute(c.on())
        .await?;
    Ok(())
}

/// No order on the dates of the performance commits until the end of this
/// transaction: batches lock the rows of their shards for sharing, in this
/// order too.
async fn lock_sales(c: &mut Link, id: PerformanceId) -> Result<(), StoreError> {
    let dates = c.sql("SELECT id FROM timetable WHERE performance_id = $1");
    let dates = dates.bind(id.0).fetch_all(c.on()).await?;
    let shards: Vec<i16> = dates
        .iter()
        .map(|row| Ok(shard_of(row.try_get(0)?).0.cast_signed()))
        .collect::<Result<_, StoreError>>()?;
    c.sql("SELECT id FROM shard WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE")
        .bind(shards)
        .execute(c.on())
        .await?;
    Ok(())
}

/// Whether a seat of the performance was ever sold.
async fn has_orders(c: &mut Link, id: PerformanceId) -> Result<bool, StoreError> {
    let row = c.sql(
        "SELECT EXISTS (SELECT 1 FROM timetable AS t JOIN orders AS o ON o.timetable_id = t.id \
                        WHERE t.performance_id = $1 AND o.status IN ('confirmed', 'cancelled'))",
    );
    Ok(row.bind(id.0).fetch_one(c.on()).await?.try_get(0)?)
}

/// Returns whether it was made.
async fn insert_performance(
    c: &mut Link,
    row: &PerformanceRow,
    idem_user: Option<Uuid>,
    idem_key: Option<&str>,
) -> Result<bool, StoreError> {
    let made = c.sql(
        "INSERT INTO performance \
           (id, owner, venue_id, title, category, cast_names, description, poster_url, currency, \
            grades, opens_at, closes_at, limits, queue, draft, created_at, deleted_at, \
            idem_user, idem_key) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
            $18, $19) \
         ON CONFLICT (idem_user, idem_key) DO NOTHING",
    );
    let made = made
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
        .execute(c.on())
        .await?;
    Ok(made.rows_affected() > 0)
}

/// All that can change: neither the owner nor the venue.
async fn update_performance(c: &mut Link, row: &PerformanceRow) -> Result<(), StoreError> {
    c.sql(
        "UPDATE performance SET title = $1, category = $2, cast_names = $3, description = $4, \
           poster_url = $5, currency = $6, grades = $7, opens_at = $8, closes_at = $9, \
           limits = $10, queue = $11, draft = $12, deleted_at = $13 \
         WHERE id = $14",
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
    .execute(c.on())
    .await?;
    Ok(())
}

async fn insert_timetables(c: &mut Link, rows: &[TimetableRow]) -> Result<(), StoreError> {
    let times =
        |of: fn(&TimetableRow) -> Timestamp| rows.iter().map(|row| of(row).0).collect::<Vec<i64>>();
    c.sql(
        "INSERT INTO timetable (id, performance_id, starts_at, doors_at, created_at) \
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])",
    )
    .bind(rows.iter().map(|row| row.id.0).collect::<Vec<_>>())
    .bind(
        rows.iter()
            .map(|row| row.performance_id.0)
            .collect::<Vec<_>>(),
    )
    .bind(times(|row| row.starts_at))
    .bind(times(|row| row.doors_at))
    .bind(times(|row| row.created_at))
    .execute(c.on())
    .await?;
    Ok(())
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(unreadable)
}

fn unreadable(error: impl Display) -> StoreError {
    StoreError::Unreadable(format!("the catalogue: {error}"))
}
