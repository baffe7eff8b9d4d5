//! How entities come back from the store: each load is one snapshot.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{Link, PostgresStore};
use crate::domain::account::{Account, CREDITED_MAX};
use crate::domain::ids::{OrderId, TimetableId, UserId};
use crate::domain::order::CancelNo;
use crate::domain::time::Timestamp;
use crate::domain::timetable::restore::Stored;
use crate::persistence::StoreError;
use crate::persistence::store::entities::Loaded;
use crate::persistence::stored::SETTLED_LOADED_MAX;
use crate::persistence::stored::entities::{self as stored, Accounts};

impl PostgresStore {
    pub(crate) async fn load_timetable(
        &self,
        id: TimetableId,
    ) -> Result<Loaded<Stored>, StoreError> {
        self.load(move |c| Box::pin(stored::load_timetable(c, id)))
            .await
    }

    pub(crate) async fn load_accounts(
        &self,
        users: &[UserId],
        now: Timestamp,
    ) -> Result<HashMap<UserId, Loaded<Account>>, StoreError> {
        let users = users.to_vec();
        self.load(move |c| Box::pin(load_accounts(c, users, now)))
            .await
    }

    pub(crate) async fn timetables_to_wake(&self) -> Result<Vec<TimetableId>, StoreError> {
        self.load(|c| {
            Box::pin(async move {
                let rows = c.sql(
                    "SELECT timetable_id FROM hold \
                     UNION SELECT timetable_id FROM cancellation WHERE refunded_at IS NULL",
                );
                let rows = rows.fetch_all(c.on()).await?;
                rows.iter()
                    .map(|row| Ok(TimetableId(row.try_get(0)?)))
                    .collect()
            })
        })
        .await
    }

    pub(crate) async fn accounts_in_doubt(&self) -> Result<Vec<UserId>, StoreError> {
        self.load(|c| {
            Box::pin(async move {
                let rows = c.sql("SELECT DISTINCT user_id FROM prepare WHERE state = 'prepared'");
                let rows = rows.fetch_all(c.on()).await?;
                rows.iter().map(|row| Ok(UserId(row.try_get(0)?))).collect()
            })
        })
        .await
    }

    pub(crate) async fn seat_counts(&self) -> Result<Vec<(TimetableId, u32, u32)>, StoreError> {
        self.load(|c| {
            Box::pin(async move {
                let rows = c.sql(
                    "SELECT timetable_id, CAST(sum(sold) AS bigint), CAST(sum(blocked) AS bigint) \
                     FROM ( \
                         SELECT timetable_id, count(*) AS sold, 0 AS blocked \
                         FROM sold_seat GROUP BY 1 \
                         UNION ALL \
                         SELECT timetable_id, 0, count(*) FROM blocked_seat GROUP BY 1) AS c \
                     GROUP BY 1",
                );
                let rows = rows.fetch_all(c.on()).await?;
                rows.iter().map(seat_count).collect()
            })
        })
        .await
    }

    pub(crate) async fn seat_counts_of(
        &self,
        timetables: &[TimetableId],
    ) -> Result<Vec<(TimetableId, u32, u32)>, StoreError> {
        let wanted: Vec<Uuid> = timetables.iter().map(|id| id.0).collect();
        self.load(move |c| {
            Box::pin(async move {
                let rows = c.sql(
                    "SELECT id, (SELECT count(*) FROM sold_seat WHERE timetable_id = id), \
                            (SELECT count(*) FROM blocked_seat WHERE timetable_id = id) \
                     FROM unnest($1::uuid[]) AS wanted (id)",
                );
                let rows = rows.bind(wanted).fetch_all(c.on()).await?;
                rows.iter().map(seat_count).collect()
            })
        })
        .await
    }

    pub(crate) async fn is_credited(
        &self,
        user: UserId,
        order: OrderId,
        no: CancelNo,
    ) -> Result<bool, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let found = c.sql(
                    "SELECT EXISTS (SELECT 1 FROM credit \
                     WHERE user_id = $1 AND order_id = $2 AND no = $3)",
                );
                let no = no.0.cast_signed();
                let found = found.bind(user.0).bind(order.0).bind(no);
                Ok(found.fetch_one(c.on()).await?.try_get(0)?)
            })
        })
        .await
    }

    pub(crate) async fn stored_answer(
        &self,
        user: UserId,
        key: &str,
    ) -> Result<Option<(u16, String)>, StoreError> {
        let key = key.to_owned();
        self.read(move |c| {
            Box::pin(async move {
                let row = c.sql(
                    "SELECT status, body FROM idempotency \
                     WHERE user_id = $1 AND key = $2 AND status IS NOT NULL",
                );
                let row = row.bind(user.0).bind(key).fetch_optional(c.on()).await?;
                let Some(row) = row else { return Ok(None) };
                let status: i32 = row.try_get(0)?;
                let status = u16::try_from(status)
                    .map_err(|_| StoreError::Unreadable(format!("status {status}")))?;
                Ok(Some((status, row.try_get(1)?)))
            })
        })
        .await
    }

    pub(crate) async fn forget_keys(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                // Those that a batch writes just now are not old any more.
                let done = c.sql(
                    "DELETE FROM idempotency WHERE (user_id, key) IN ( \
                         SELECT user_id, key FROM idempotency WHERE at < $1 \
                         ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)",
                );
                let done = done
                    .bind(before.0)
                    .bind(i64::from(limit))
                    .execute(c.on())
                    .await?;
                Ok(done.rows_affected())
            })
        })
        .await
    }
}

fn seat_count(row: &PgRow) -> Result<(TimetableId, u32, u32), StoreError> {
    let count = |at: usize| -> Result<u32, StoreError> {
        let count: i64 = row.try_get(at)?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    };
    Ok((TimetableId(row.try_get(0)?), count(1)?, count(2)?))
}

async fn load_accounts(
    c: &mut Link,
    users: Vec<UserId>,
    now: Timestamp,
) -> Result<HashMap<UserId, Loaded<Account>>, StoreError> {
    let ids: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    let mut accounts = Accounts::of(users.iter().copied());
    let versions = c.sql(
        "SELECT id, epoch, activation, seq FROM entity WHERE id = ANY($1) AND kind = 'account'",
    );
    for row in versions.bind(&ids).fetch_all(c.on()).await? {
        accounts.version(&row)?;
    }
    let balances = c.sql("SELECT user_id, balance FROM wallet WHERE user_id = ANY($1)");
    for row in balances.bind(&ids).fetch_all(c.on()).await? {
        accounts.balance(&row)?;
    }
    read_prepares(c, &ids, &mut accounts).await?;
    read_credits(c, &ids, &mut accounts).await?;
    read_keys(c, &ids, now, &mut accounts).await?;
    let rows = accounts.into_rows();
    Ok(rows
        .map(|(user, rows)| (user, rows.into_loaded()))
        .collect())
}

async fn read_prepares(
    c: &mut Link,
    ids: &[Uuid],
    accounts: &mut Accounts,
) -> Result<(), StoreError> {
    let in_doubt = c.sql(
        "SELECT user_id, order_id, timetable_id, amount, at FROM prepare \
         WHERE user_id = ANY($1) AND state = 'prepared'",
    );
    for row in in_doubt.bind(ids).fetch_all(c.on()).await? {
        accounts.prepared(&row)?;
    }
    let settled = c.sql(
        "SELECT p.user_id, p.order_id, p.state FROM unnest($1::uuid[]) AS wanted (id) \
         CROSS JOIN LATERAL ( \
             SELECT user_id, order_id, state FROM prepare \
             WHERE user_id = wanted.id AND state <> 'prepared' \
             ORDER BY order_id DESC LIMIT $2) AS p",
    );
    let settled = settled.bind(ids).bind(SETTLED_LOADED_MAX);
    for row in settled.fetch_all(c.on()).await? {
        accounts.settled(&row)?;
    }
    Ok(())
}

async fn read_credits(
    c: &mut Link,
    ids: &[Uuid],
    accounts: &mut Accounts,
) -> Result<(), StoreError> {
    let credits = c.sql(
        "SELECT n.user_id, n.order_id, n.no FROM unnest($1::uuid[]) AS wanted (id) \
         CROSS JOIN LATERAL ( \
             SELECT user_id, order_id, no, seq FROM credit WHERE user_id = wanted.id \
             ORDER BY seq DESC LIMIT $2) AS n \
         ORDER BY n.seq",
    );
    let credits = credits.bind(ids).bind(CREDITED_MAX as i64);
    for row in credits.fetch_all(c.on()).await? {
        accounts.credited(&row)?;
    }
    Ok(())
}

async fn read_keys(
    c: &mut Link,
    ids: &[Uuid],
    now: Timestamp,
    accounts: &mut Accounts,
) -> Result<(), StoreError> {
    let keys = c.sql(
        "SELECT user_id, key, fingerprint, at, order_id, timetable_id FROM idempotency \
         WHERE user_id = ANY($1) AND at > $2 ORDER BY at",
    );
    let since = now.0 - crate::domain::account::KEY_LIFE.0;
    for row in keys.bind(ids).bind(since).fetch_all(c.on()).await? {
        accounts.key(&row)?;
    }
    Ok(())
}
