//! A read replica that never answers with less than was committed.

use std::borrow::Cow;

use futures_util::future::BoxFuture;
use sqlx::postgres::PgPool;
use sqlx::{Row, query_scalar};

use super::{BEGIN_LOAD, LOAD_MAX, Link, PostgresStore, REPLICA_WAIT_MAX, run};
use crate::clock::monotonic;
use crate::persistence::StoreError;

/// How long to wait before the replica is asked again how far it is.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_millis(5);

/// A server that follows the primary.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pool: PgPool,
}

impl Replica {
    pub(super) fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// Whether it has, or soon has, all that is before `position` in the
    /// primary's log.
    async fn has_replayed(&self, position: &str) -> Result<bool, StoreError> {
        let until = monotonic() + REPLICA_WAIT_MAX;
        loop {
            let has = query_scalar(
                "SELECT coalesce(pg_last_wal_replay_lsn() >= CAST($1 AS pg_lsn), false)",
            );
            // Its name means nothing behind PgBouncer.
            let has: bool = has
                .bind(position)
                .persistent(false)
                .fetch_one(&self.pool)
                .await?;
            if has || monotonic() >= until {
                return Ok(has);
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

impl PostgresStore {
    /// Runs `work`, which reads all in one snapshot, on the replica if there is
    /// one and it has everything that was committed before this call; else on
    /// the primary.
    pub(super) async fn load_anywhere<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut Link) -> BoxFuture<'c, Result<T, StoreError>>
            + Clone
            + Send
            + 'static,
    {
        if let Some(replica) = &self.replica {
            match self.ask_replica(replica, work.clone()).await {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => tracing::debug!("the replica is behind, the primary answers"),
                Err(error) => {
                    tracing::debug!(%error, "the replica does not answer, the primary does");
                }
            }
        }
        self.load(work).await
    }

    async fn ask_replica<T, F>(&self, replica: &Replica, work: F) -> Result<Option<T>, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Link) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        let position: String = self
            .read(|c| {
                Box::pin(async move {
                    let position = c.sql("SELECT CAST(pg_current_wal_lsn() AS text)");
                    Ok(position.fetch_one(c.on()).await?.try_get(0)?)
                })
            })
            .await?;
        let asked = tokio::time::timeout(2 * REPLICA_WAIT_MAX, replica.has_replayed(&position));
        if !asked.await.unwrap_or(Ok(false))? {
            return Ok(None);
        }
        let begin = Some(Cow::Borrowed(BEGIN_LOAD));
        run(&replica.pool, self.pooled, begin, LOAD_MAX, work)
            .await
            .map(Some)
    }
}
