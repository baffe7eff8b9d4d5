//! How entities come back from the store: each load is one snapshot.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{Link, PostgresStore};
use crate::domain::account::{Account, CREDITED_MAX};
use crate::domain::ids::{EntityId, OrderId, Stamp, TimetableId, UserId};
use crate::domain::order::CancelNo;
use crate::domain::seat::SeatIndex;
use crate::domain::time::Timestamp;
use crate::domain::timetable::restore::Stored;
use crate::persistence::StoreError;
use crate::persistence::rows::ORDERS_TOPIC;
use crate::persistence::store::entities::Loaded;
use crate::persistence::stored::SETTLED_LOADED_MAX;
use crate::persistence::stored::entities::{self as stored, Accounts};

impl PostgresStore {
    pub(crate) async fn load_timetable(
        &self,
        id: TimetableId,
    ) -> Result<Loaded<Stored>, StoreError> {
        self.load(move |c| Box::pin(load_timetable(c, id))).await
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

/// A column with the index of a seat.
pub(super) fn seat(row: &PgRow, at: usize) -> Result<SeatIndex, StoreError> {
    Ok(SeatIndex(row.try_get::<i32, _>(at)?.cast_unsigned()))
}

/// The version of an entity's rows.
pub(super) async fn version(c: &mut Link, entity: EntityId) -> Result<Option<Stamp>, StoreError> {
    let row = c.sql("SELECT epoch, activation, seq FROM entity WHERE id = $1 AND kind = $2");
    let row = row
        .bind(entity.id)
        .bind(entity.kind.as_str())
        .fetch_optional(c.on())
        .await?;
    row.map(|row| stored::stamp(&row, 0)).transpose()
}

fn seat_count(row: &PgRow) -> Result<(TimetableId, u32, u32), StoreError> {
    let count = |at: usize| -> Result<u32, StoreError> {
        let count: i64 = row.try_get(at)?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    };
    Ok((TimetableId(row.try_get(0)?), count(1)?, count(2)?))
}

async fn load_timetable(c: &mut Link, id: TimetableId) -> Result<Loaded<Stored>, StoreError> {
    let stamp = version(c, id.into()).await?.unwrap_or_default();
    let holds = c.sql(
        "SELECT id, user_id, created_at, expires_at, under_pass, seats, deadline FROM hold \
         WHERE timetable_id = $1",
    );
    let holds = holds.bind(id.0).fetch_all(c.on()).await?;
    let orders = c.sql(
        "SELECT id, user_id, hold_id, payment_id, method, discount, created_at, seats, \
         coupon_id FROM orders \
         WHERE timetable_id = $1",
    );
    let orders = orders.bind(id.0).fetch_all(c.on()).await?;
    let cancels = c.sql(
        "SELECT order_id, no, request, seats, refund, at, refunded_at FROM cancellation \
         WHERE timetable_id = $1 ORDER BY order_id, no",
    );
    let cancels = cancels.bind(id.0).fetch_all(c.on()).await?;
    let disowned = c.sql("SELECT id FROM disowned_order WHERE timetable_id = $1");
    let disowned = disowned.bind(id.0).fetch_all(c.on()).await?;
    let blocked = c.sql("SELECT seat FROM blocked_seat WHERE timetable_id = $1");
    let blocked = blocked.bind(id.0).fetch_all(c.on()).await?;
    let last = c.sql("SELECT max(event_seq) FROM outbox WHERE entity = $1 AND topic = $2");
    let last: Option<i64> = last
        .bind(id.0)
        .bind(ORDERS_TOPIC)
        .fetch_one(c.on())
        .await?
        .try_get(0)?;
    let state = Stored {
        holds: holds.iter().map(stored::hold).collect::<Result<_, _>>()?,
        orders: orders.iter().map(stored::order).collect::<Result<_, _>>()?,
        cancels: cancels
            .iter()
            .map(stored::cancel)
            .collect::<Result<_, _>>()?,
        refunds_due: stored::refunds_due(&cancels)?,
        aborted: disowned
            .iter()
            .map(|row| Ok(OrderId(row.try_get(0)?)))
            .collect::<Result<_, StoreError>>()?,
        blocked: blocked
            .iter()
            .map(|row| seat(row, 0))
            .collect::<Result<_, StoreError>>()?,
    };
    Ok(Loaded {
        state,
        stamp,
        last_event_seq: last.unwrap_or(0).cast_unsigned(),
    })
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
