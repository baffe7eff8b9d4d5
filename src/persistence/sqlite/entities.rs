//! How entities come back from the store.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::SqliteStore;
use super::rows::{hex, json};
use crate::domain::account::{Account, CREDITED_MAX};
use crate::domain::ids::{OrderId, TimetableId, UserId};
use crate::domain::order::CancelNo;
use crate::domain::time::Timestamp;
use crate::domain::timetable::restore::Stored;
use crate::persistence::StoreError;
use crate::persistence::store::entities::Loaded;
use crate::persistence::stored::SETTLED_LOADED_MAX;
use crate::persistence::stored::entities::{self as stored, Accounts};

impl SqliteStore {
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
        let rows = sqlx::query(
            "SELECT timetable_id FROM hold \
             UNION SELECT timetable_id FROM cancellation WHERE refunded_at IS NULL",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| Ok(TimetableId(row.try_get(0)?)))
            .collect()
    }

    pub(crate) async fn accounts_in_doubt(&self) -> Result<Vec<UserId>, StoreError> {
        let rows = sqlx::query("SELECT DISTINCT user_id FROM prepare WHERE state = 'prepared'")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Ok(UserId(row.try_get(0)?))).collect()
    }

    pub(crate) async fn seat_counts(&self) -> Result<Vec<(TimetableId, u32, u32)>, StoreError> {
        let rows = sqlx::query(
            "SELECT timetable_id, sum(sold), sum(blocked) FROM ( \
                 SELECT timetable_id, count(*) AS sold, 0 AS blocked FROM sold_seat GROUP BY 1 \
                 UNION ALL \
                 SELECT timetable_id, 0, count(*) FROM blocked_seat GROUP BY 1) GROUP BY 1",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                Ok((
                    TimetableId(row.try_get(0)?),
                    row.try_get(1)?,
                    row.try_get(2)?,
                ))
            })
            .collect()
    }

    pub(crate) async fn seat_counts_of(
        &self,
        timetables: &[TimetableId],
    ) -> Result<Vec<(TimetableId, u32, u32)>, StoreError> {
        let wanted: Vec<String> = timetables.iter().map(|id| hex(id.0)).collect();
        let rows = sqlx::query(
            "SELECT id, (SELECT count(*) FROM sold_seat WHERE timetable_id = id), \
                    (SELECT count(*) FROM blocked_seat WHERE timetable_id = id) \
             FROM (SELECT unhex(value) AS id FROM json_each(?1))",
        );
        let rows = rows.bind(json(&wanted)?).fetch_all(&self.readers).await?;
        rows.iter()
            .map(|row| {
                let id = TimetableId(row.try_get(0)?);
                Ok((id, row.try_get(1)?, row.try_get(2)?))
            })
            .collect()
    }

    pub(crate) async fn is_credited(
        &self,
        user: UserId,
        order: OrderId,
        no: CancelNo,
    ) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT 1 FROM credit WHERE user_id = ?1 AND order_id = ?2 AND no = ?3)",
        );
        let found = found.bind(user.0).bind(order.0).bind(no.0);
        Ok(found.fetch_one(&self.readers).await?)
    }

    pub(crate) async fn stored_answer(
        &self,
        user: UserId,
        key: &str,
    ) -> Result<Option<(u16, String)>, StoreError> {
        let row = sqlx::query(
            "SELECT status, body FROM idempotency \
             WHERE user_id = ?1 AND key = ?2 AND status IS NOT NULL",
        )
        .bind(user.0)
        .bind(key)
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .transpose()
    }

    pub(crate) async fn forget_keys(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.transaction(move |connection| {
            Box::pin(async move {
                let done = sqlx::query(
                    "DELETE FROM idempotency WHERE (user_id, key) IN \
                     (SELECT user_id, key FROM idempotency WHERE at < ?1 LIMIT ?2)",
                )
                .bind(before.0)
                .bind(limit)
                .execute(connection)
                .await?;
                Ok(done.rows_affected())
            })
        })
        .await
    }
}

async fn load_accounts(
    c: &mut SqliteConnection,
    users: Vec<UserId>,
    now: Timestamp,
) -> Result<HashMap<UserId, Loaded<Account>>, StoreError> {
    let ids: Vec<String> = users.iter().map(|user| hex(user.0)).collect();
    let ids = json(&ids)?;
    let mut accounts = Accounts::of(users.iter().copied());
    let versions = sqlx::query(
        "SELECT entity.id, entity.epoch, entity.activation, entity.seq FROM json_each(?1) \
         JOIN entity ON entity.id = unhex(value) AND entity.kind = 'account'",
    );
    for row in versions.bind(&ids).fetch_all(&mut *c).await? {
        accounts.version(&row)?;
    }
    let balances = sqlx::query(
        "SELECT user_id, balance FROM json_each(?1) JOIN wallet ON wallet.user_id = unhex(value)",
    );
    for row in balances.bind(&ids).fetch_all(&mut *c).await? {
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
    c: &mut SqliteConnection,
    ids: &str,
    accounts: &mut Accounts,
) -> Result<(), StoreError> {
    let in_doubt = sqlx::query(
        "SELECT user_id, order_id, timetable_id, amount, at FROM json_each(?1) \
         JOIN prepare ON prepare.user_id = unhex(value) AND prepare.state = 'prepared'",
    );
    for row in in_doubt.bind(ids).fetch_all(&mut *c).await? {
        accounts.prepared(&row)?;
    }
    let settled = sqlx::query(
        "SELECT user_id, order_id, state FROM json_each(?1) AS wanted \
         JOIN prepare ON prepare.user_id = unhex(wanted.value) AND prepare.order_id IN ( \
             SELECT order_id FROM prepare WHERE user_id = unhex(wanted.value) \
             AND state <> 'prepared' ORDER BY order_id DESC LIMIT ?2)",
    );
    for row in settled
        .bind(ids)
        .bind(SETTLED_LOADED_MAX)
        .fetch_all(&mut *c)
        .await?
    {
        accounts.settled(&row)?;
    }
    Ok(())
}

async fn read_credits(
    c: &mut SqliteConnection,
    ids: &str,
    accounts: &mut Accounts,
) -> Result<(), StoreError> {
    let credits = sqlx::query(
        "SELECT user_id, order_id, no FROM json_each(?1) AS wanted \
         JOIN credit ON credit.user_id = unhex(wanted.value) AND credit.seq IN ( \
             SELECT seq FROM credit WHERE user_id = unhex(wanted.value) \
             ORDER BY seq DESC LIMIT ?2) \
         ORDER BY credit.seq",
    );
    for row in credits
        .bind(ids)
        .bind(CREDITED_MAX as i64)
        .fetch_all(&mut *c)
        .await?
    {
        accounts.credited(&row)?;
    }
    Ok(())
}

async fn read_keys(
    c: &mut SqliteConnection,
    ids: &str,
    now: Timestamp,
    accounts: &mut Accounts,
) -> Result<(), StoreError> {
    let keys = sqlx::query(
        "SELECT user_id, idempotency.key, fingerprint, at, order_id, timetable_id, status \
         FROM json_each(?1) JOIN idempotency ON idempotency.user_id = unhex(value) \
         WHERE at > ?2 ORDER BY at",
    );
    let since = now.0 - crate::domain::account::KEY_LIFE.0;
    for row in keys.bind(ids).bind(since).fetch_all(&mut *c).await? {
        accounts.key(&row)?;
    }
    Ok(())
}
