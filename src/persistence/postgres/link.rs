//! One piece of work on a connection, in a task of its own.

use std::borrow::Cow;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnection, PgPool};
use sqlx::query::Query;

use super::CONNECTION_WAIT_MAX;
use crate::persistence::StoreError;

/// A connection, for as long as one piece of work has it.
#[derive(Debug)]
pub(crate) struct Link {
    connection: PoolConnection<Postgres>,
    /// Whether statements may be prepared by name.
    pub(super) persistent: bool,
}

impl Link {
    /// A statement for this connection.
    pub(crate) fn sql(&self, sql: &'static str) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(sql).persistent(self.persistent)
    }

    /// What runs it.
    pub(crate) fn on(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    async fn simple(&mut self, sql: &str) -> Result<(), StoreError> {
        // All of them are made here, of constants and of a checked name.
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(self.on()).await?;
        Ok(())
    }

    /// Closes the connection, without a word: what state it is in is unknown.
    fn discard(self) {
        drop(self.connection.detach());
    }
}

/// Runs `work` on a connection of `pool` within `limit`, in a task of its own.
pub(super) async fn run<T, F>(
    pool: &PgPool,
    pooled: bool,
    begin: Option<Cow<'static, str>>,
    limit: Duration,
    work: F,
) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut Link) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
{
    let pool = pool.clone();
    let task = tokio::spawn(async move {
        let mut link = connect(&pool, pooled, begin.as_deref()).await?;
        let ended = tokio::time::timeout(limit, async {
            let value = work(&mut link).await?;
            if begin.is_some() {
                link.simple("COMMIT").await?;
            }
            Ok(value)
        })
        .await
        .unwrap_or_else(|_| Err(hung()));
        match &ended {
            Ok(_) => {}
            Err(error) if error.is_transient() => link.discard(),
            Err(_) => give_back(link, begin.is_some()).await,
        }
        ended
    });
    task.await
        .unwrap_or_else(|_| Err(StoreError::Unavailable(sqlx::Error::WorkerCrashed)))
}

/// A connection on which `begin` was answered. One that turns out to be dead
/// (the server was restarted) is replaced: nothing had begun on it.
async fn connect(pool: &PgPool, pooled: bool, begin: Option<&str>) -> Result<Link, StoreError> {
    let mut dead = 0;
    loop {
        let mut link = Link {
            connection: pool.acquire().await?,
            persistent: !pooled,
        };
        let Some(begin) = begin else { return Ok(link) };
        let begun = tokio::time::timeout(CONNECTION_WAIT_MAX, link.simple(begin)).await;
        match begun {
            Ok(Ok(())) => return Ok(link),
            Ok(Err(error)) => {
                link.discard();
                dead += 1;
                if !error.is_transient() || dead > pool.options().get_max_connections() {
                    return Err(error);
                }
            }
            Err(_) => {
                link.discard();
                return Err(hung());
            }
        }
    }
}

/// Ends the transaction of work that failed; the connection is good for more
/// only if that succeeds.
async fn give_back(mut link: Link, is_in_transaction: bool) {
    if is_in_transaction {
        let rolled_back = tokio::time::timeout(CONNECTION_WAIT_MAX, link.simple("ROLLBACK")).await;
        if !matches!(rolled_back, Ok(Ok(()))) {
            link.discard();
        }
    }
}

pub(super) fn hung() -> StoreError {
    let error = std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the database did not answer in time",
    );
    StoreError::Unavailable(error.into())
}
