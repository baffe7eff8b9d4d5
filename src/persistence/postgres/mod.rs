//! The store of a cluster: Postgres.
//!
//! * A batch of a write lane fences first, then writes set-based statements
//!   (`commit.rs`).
//! * Whatever touches a connection runs in a task of its own that goes on to its
//!   end: a future that is dropped inside `BEGIN` would give its connection back
//!   inside a transaction (sqlx 0.9.0), and one that is dropped inside a
//!   statement would leave its answer to the next.
//! * Who lives, and who owns which shard, is kept over connections of its own
//!   ([`lease`]).
//! * Everything has a deadline here, because a server that hangs can't keep its
//!   own (`statement_timeout`). A connection on which one passed, or that failed,
//!   is closed and never used again.
//! * Rows are locked in one order: shards by number, then entities by shard and
//!   id.
//!
//! sqlx sets no socket options, so that a peer which is gone without a word is
//! found by those deadlines on our side, and on the server's by
//! `tcp_user_timeout` and its keepalives, which each direct connection asks for.
//!
//! **Through PgBouncer** (`store.pooled`, transaction mode) no statement is
//! prepared by name, and every read is a transaction, because its parse and its
//! execution must reach the same server; migrations go over `store.direct_url`.
//!
//! **The replica** (`store.replica_url`) is asked for the catalogue and for the
//! numbers of the rankings. Its rule: an answer shows everything that was
//! committed before the question. The primary is asked how far it has written,
//! and if the replica has not replayed that within `REPLICA_WAIT_MAX`, the
//! primary answers. So nobody ever reads less than they wrote, whichever store
//! answers; what belongs to one user (orders, wallet, tickets, sessions) is never
//! asked of it at all.

mod accounts;
#[cfg(feature = "sabotage")]
mod broken;
mod cancels;
mod catalogue;
pub(crate) mod changes;
mod commit;
mod coupons;
mod dead_letters;
mod entities;
pub mod lease;
mod link;
mod orders;
mod outbox;
mod queues;
mod replica;
mod rows;
mod sessions;
mod shards;
mod statement;
mod views;

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

pub(crate) use self::link::Link;
use self::link::{hung, run};
use self::replica::Replica;
use super::StoreError;
use crate::config;

/// How long a read waits for a free connection, or for a new one.
const CONNECTION_WAIT_MAX: Duration = Duration::from_secs(2);

/// How long a transaction that writes may take: beyond it, its outcome is
/// unknown and its connection closed. The server's own limit is shorter, so
/// that a slow statement ends there, definitely.
const WRITE_MAX: Duration = Duration::from_secs(4);

/// The server's limit of a statement in it, as in [`BEGIN_WRITE`].
const STATEMENT_MAX: Duration = Duration::from_secs(3);

/// What it begins with. `idle_in_transaction…`: an owner that freezes inside a
/// batch must not block its taker for longer. `enable_…`: rows are found, and so
/// locked, in the order of the arrays; and a plan that was made while a table
/// was small never reads the whole of it later. `plan_cache_mode`: so one plan
/// will do, whatever the arrays hold, and it is made once.
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
    SET LOCAL synchronous_commit = on; \
    SET LOCAL statement_timeout = '3s'; \
    SET LOCAL idle_in_transaction_session_timeout = '1s'; \
    SET LOCAL enable_seqscan = off; \
    SET LOCAL enable_hashjoin = off; \
    SET LOCAL enable_mergejoin = off; \
    SET LOCAL plan_cache_mode = force_generic_plan";

/// The same for a connection on which each statement is a transaction of its own.
const WRITE_SETTINGS: [(&str, &str); 8] = [
    ("default_transaction_isolation", "read committed"),
    ("synchronous_commit", "on"),
    ("statement_timeout", "3s"),
    ("idle_in_transaction_session_timeout", "1s"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// How long a read may take.
const READ_MAX: Duration = Duration::from_secs(6);

/// What it begins with where it has to be a transaction.
const BEGIN_READ: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = '5s'; \
    SET LOCAL idle_in_transaction_session_timeout = '5s'";

/// How long entities, or the catalogue, may take to load.
const LOAD_MAX: Duration = Duration::from_secs(30);

/// What a load begins with: one snapshot over all its statements.
const BEGIN_LOAD: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SET LOCAL statement_timeout = '29s'; \
    SET LOCAL idle_in_transaction_session_timeout = '5s'";

/// How long an answer of the replica waits for it to have caught up.
const REPLICA_WAIT_MAX: Duration = Duration::from_millis(250);

/// Connections that write besides the lanes: catalogue, accounts, the relay,
/// signs of life.
const WRITERS_EXTRA: u32 = 4;

/// How many statements a connection keeps prepared; there are fewer.
const STATEMENTS_KEPT: usize = 200;

/// The store of a cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    /// For what is one statement.
    batches: PgPool,
    writers: PgPool,
    readers: PgPool,
    replica: Option<Replica>,
    pooled: bool,
    /// Past PgBouncer.
    direct_url: String,
    /// What a transaction that writes begins with, once this life of this node
    /// has a name: others end its connections by it.
    begin_named: Arc<OnceLock<String>>,
}

impl PostgresStore {
    /// Opens the database of `settings.url`, and applies the migrations if
    /// `settings.migrate`.
    ///
    /// # Errors
    /// If it can't be reached, doesn't keep what it acknowledges
    /// ([`StoreError::Unfit`]), or the migrations don't apply.
    pub async fn open(settings: &config::Store) -> Result<Self, StoreError> {
        prepare_database(settings.direct_url(), settings.migrate).await?;
        let pooled = settings.pooled;
        let options = options(&settings.url, pooled)?;
        let lanes = u32::try_from(settings.lanes()).unwrap_or(u32::MAX - WRITERS_EXTRA);
        let pool = |max: u32| {
            PgPoolOptions::new()
                .max_connections(max)
                .acquire_timeout(CONNECTION_WAIT_MAX)
                // What begins a transaction finds out by itself.
                .test_before_acquire(false)
        };
        let batches = pool(lanes).connect_lazy_with(if pooled {
            options.clone()
        } else {
            options.clone().options(WRITE_SETTINGS)
        });
        let writers = pool(lanes + WRITERS_EXTRA).connect_lazy_with(options.clone());
        let readers = pool(settings.readers)
            .test_before_acquire(true)
            .connect_lazy_with(options);
        let replica = match settings.replica_url.as_str() {
            "" => None,
            url => Some(Replica::new(
                pool(settings.readers)
                    .test_before_acquire(true)
                    .connect_lazy_with(self::options(url, pooled)?),
            )),
        };
        Ok(Self {
            batches,
            writers,
            readers,
            replica,
            pooled,
            direct_url: settings.direct_url().to_owned(),
            begin_named: Arc::default(),
        })
    }

    /// From here on, what is open for writing is known to the server by `name`
    /// (letters, digits, and what a node may be called besides).
    pub(crate) fn name_writers(&self, name: &str) {
        debug_assert!(
            !name.contains(['\'', '\\']),
            "{name} would have to be quoted"
        );
        let begin = format!("{BEGIN_WRITE}; SET LOCAL application_name = '{name}'");
        // Set once: a life of a node has one name.
        let _ = self.begin_named.set(begin);
        let options = self.batches.connect_options();
        self.batches
            .set_connect_options((*options).clone().application_name(name));
    }

    /// Runs `work`, which is one statement and a transaction, in a task of its own
    /// like [`PostgresStore::transaction`].
    ///
    /// # Errors
    /// Those of `work`; nothing was written then, or, where
    /// [`StoreError::is_transient`], the outcome may be unknown.
    pub(crate) async fn statement<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Link) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        // Through PgBouncer, settings last for a transaction only.
        let begin = self.pooled.then(|| self.begin_write());
        run(&self.batches, self.pooled, begin, WRITE_MAX, work).await
    }

    fn begin_write(&self) -> Cow<'static, str> {
        match self.begin_named.get() {
            Some(named) => Cow::Owned(named.clone()),
            None => Cow::Borrowed(BEGIN_WRITE),
        }
    }

    /// Runs `work` in one transaction, in a task of its own: if the caller goes
    /// away, it still ends with a commit or a rollback. When this returns `Ok`,
    /// the commit is on disk.
    ///
    /// # Errors
    /// Those of `work` and of the commit; nothing was written then, or, where
    /// [`StoreError::is_transient`], the outcome may be unknown.
    pub(crate) async fn transaction<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Link) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        self.transaction_of(Duration::ZERO, work).await
    }

    /// The same with so much more time for each statement and the whole.
    ///
    /// # Errors
    /// Those of [`PostgresStore::transaction`].
    pub(crate) async fn transaction_of<T, F>(
        &self,
        extra: Duration,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Link) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        let mut begin = self.begin_write();
        if !extra.is_zero() {
            let statement = (STATEMENT_MAX + extra).as_millis();
            begin = format!("{begin}; SET LOCAL statement_timeout = '{statement}ms'").into();
        }
        let limit = WRITE_MAX + extra;
        run(&self.writers, self.pooled, Some(begin), limit, work).await
    }

    /// Runs `work`, which reads what is committed: each of its statements for
    /// itself.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Link) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        let begin = self.pooled.then_some(Cow::Borrowed(BEGIN_READ));
        run(&self.readers, self.pooled, begin, READ_MAX, work).await
    }

    /// Runs `work`, which reads: all in one snapshot.
    pub(crate) async fn load<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Link) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        run(
            &self.readers,
            self.pooled,
            Some(Cow::Borrowed(BEGIN_LOAD)),
            LOAD_MAX,
            work,
        )
        .await
    }

    /// Closes the connections.
    pub(crate) async fn close(&self) {
        let replica = async {
            if let Some(replica) = &self.replica {
                replica.close().await;
            }
        };
        // A server that hangs is not waited for.
        let (batches, writers, readers) = (&self.batches, &self.writers, &self.readers);
        let closing =
            async { tokio::join!(batches.close(), writers.close(), readers.close(), replica) };
        let _ = tokio::time::timeout(CONNECTION_WAIT_MAX, closing).await;
    }
}

/// Checks that the database keeps what it acknowledges, and brings its schema
/// up to date.
async fn prepare_database(url: &str, migrate: bool) -> Result<(), StoreError> {
    let mut connection = connect_once(url).await?;
    let fsync: String = sqlx::query_scalar("SHOW fsync")
        .fetch_one(&mut connection)
        .await?;
    if fsync != "on" {
        return Err(StoreError::Unfit(format!(
            "its fsync is {fsync}: what it acknowledges would not survive a loss of power"
        )));
    }
    if migrate {
        sqlx::migrate!("migrations/postgres")
            .run(&mut connection)
            .await
            .map_err(|error| StoreError::Unreadable(error.to_string()))?;
    }
    // It was only for this.
    let _ = connection.close().await;
    Ok(())
}

/// A connection outside of the pools, for what is done once.
///
/// # Errors
/// If the database can't be reached in time.
pub(crate) async fn connect_once(url: &str) -> Result<PgConnection, StoreError> {
    let connecting = options(url, false)?;
    tokio::time::timeout(READ_MAX, connecting.connect())
        .await
        .unwrap_or_else(|_| {
            let timed_out = std::io::ErrorKind::TimedOut;
            Err(std::io::Error::from(timed_out).into())
        })
        .map_err(StoreError::from)
}

fn options(url: &str, pooled: bool) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url)?
        .application_name("onsale")
        .log_statements(tracing::log::LevelFilter::Trace)
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(5));
    if pooled {
        // PgBouncer refuses settings that it doesn't know at the start of a
        // connection, and a statement's name means nothing to the next server.
        return Ok(options.extra_float_digits(None).statement_cache_capacity(0));
    }
    Ok(options.statement_cache_capacity(STATEMENTS_KEPT).options([
        ("statement_timeout", "30s"),
        ("idle_in_transaction_session_timeout", "30s"),
        ("tcp_user_timeout", "5s"),
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "1"),
        ("tcp_keepalives_count", "3"),
    ]))
}

/// What an SQLSTATE means to us
/// (<https://www.postgresql.org/docs/15/errcodes-appendix.html>).
pub(super) enum Class {
    /// [`StoreError::Unavailable`]
    Unavailable,
    /// [`StoreError::Constraint`]
    Constraint(String),
    /// [`StoreError::Defect`]
    Defect,
}

pub(super) fn classify(error: &PgDatabaseError) -> Class {
    /// We were too slow within a transaction; the server fails over; a lock was
    /// not to be had.
    const TRANSIENT: [&str; 3] = ["25P03", "25006", "55P03"];
    let code = error.code();
    match &code[..code.len().min(2)] {
        // Connection, rollback (deadlock), resources, an operator, the system.
        "08" | "40" | "53" | "57" | "58" => Class::Unavailable,
        _ if TRANSIENT.contains(&code) => Class::Unavailable,
        "23" => Class::Constraint(error.constraint().unwrap_or(error.message()).to_owned()),
        _ => Class::Defect,
    }
}
