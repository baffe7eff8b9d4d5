//! The embedded store: SQLite in WAL mode with `synchronous=FULL`, so that a
//! commit has reached the disk when it returns.
//!
//! There is one writing connection, shared by the write lanes' batches and the
//! catalogue's and accounts' transactions; readers see the last commit.
//! A transaction never begins inside a request's future: dropping such a
//! future would leave the connection inside it (sqlx 0.9.0), and everything
//! acknowledged afterwards would be invisible to others. [`SqliteStore::transaction`]
//! therefore runs its work in a task that goes on to its end whoever waits.

mod accounts;
mod cancels;
mod catalogue;
mod commit;
mod coupons;
mod dead_letters;
mod entities;
mod orders;
mod outbox;
mod queues;
mod rows;
mod shards;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::ConnectOptions;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use tokio::sync::Mutex;

use super::{StoreError, constraints};

/// How long a connection waits for another process's lock (`onsale verify`
/// reads beside a live server) before the statement fails as busy.
const BUSY_TIMEOUT_MS: u64 = 5_000;

/// The url of a store in memory, a new one each time that it is opened.
pub const MEMORY_URL: &str = "sqlite::memory:";

/// The size of a page of the database, in bytes.
const PAGE_BYTES: u32 = 2_048;

/// After how many pages in the WAL (32 MiB) they are copied to the database.
const CHECKPOINT_PAGES: &str = "16384";

/// How long a read waits for a free connection before it is shed.
const READER_WAIT_MAX_MS: u64 = 2_000;

/// The embedded store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pub(crate) readers: SqlitePool,
    writer: Arc<Mutex<SqliteConnection>>,
}

impl SqliteStore {
    /// Opens the file at `url` (`sqlite://path`), with its folder and itself
    /// made if they are missing, or a new store in memory (`sqlite::memory:`),
    /// and applies the migrations if `migrate`.
    ///
    /// # Errors
    /// If the file can't be opened, or the migrations don't apply.
    pub async fn open(url: &str, readers: u32, migrate: bool) -> Result<Self, StoreError> {
        let options = options(url)?.create_if_missing(true);
        if url != MEMORY_URL
            && let Some(folder) = file_of(url)?.parent()
        {
            std::fs::create_dir_all(folder).map_err(|e| StoreError::Unavailable(e.into()))?;
        }
        let mut writer = options.clone().connect().await?;
        if migrate {
            sqlx::migrate!("migrations/sqlite")
                .run(&mut writer)
                .await
                .map_err(|e| StoreError::Unreadable(e.to_string()))?;
        }
        let readers = SqlitePoolOptions::new()
            .max_connections(readers)
            .acquire_timeout(Duration::from_millis(READER_WAIT_MAX_MS))
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self {
            readers,
            writer: Arc::new(Mutex::new(writer)),
        })
    }

    /// Opens an existing file for reading only, beside a live server or after
    /// a crash.
    ///
    /// # Errors
    /// If there is no such file, or it can't be read.
    pub async fn open_read_only(url: &str) -> Result<SqliteConnection, StoreError> {
        let options = options(url)?.create_if_missing(false).read_only(true);
        Ok(options.connect().await?)
    }

    /// Runs `work` in one transaction of the writing connection, in a task of
    /// its own: if the caller goes away, it still ends with a commit or a
    /// rollback. When this returns `Ok`, the commit is on disk.
    ///
    /// # Errors
    /// Those of `work` and of the commit; nothing was written then.
    pub async fn transaction<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>>
            + Send
            + 'static,
    {
        let writer = Arc::clone(&self.writer);
        let task = tokio::spawn(async move {
            let mut connection = writer.lock().await;
            run_transaction(&mut connection, work).await
        });
        task.await
            .unwrap_or_else(|_| Err(StoreError::Unavailable(sqlx::Error::WorkerCrashed)))
    }

    /// Runs `work`, which reads: all in one snapshot, in a task of its own, so
    /// that the snapshot ends even if the caller goes away.
    pub(crate) async fn load<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>>
            + Send
            + 'static,
    {
        let readers = self.readers.clone();
        let task = tokio::spawn(async move {
            let mut snapshot = readers.acquire().await?;
            sqlx::query("BEGIN").execute(&mut *snapshot).await?;
            let loaded = work(&mut snapshot).await;
            sqlx::query("COMMIT").execute(&mut *snapshot).await?;
            loaded
        });
        task.await
            .unwrap_or_else(|_| Err(StoreError::Unavailable(sqlx::Error::WorkerCrashed)))
    }

    /// Closes the connections; the last one checkpoints the WAL.
    pub async fn close(&self) {
        self.readers.close().await;
        let mut writer = self.writer.lock().await;
        // Best effort: the WAL is replayed at the next open otherwise.
        let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&mut *writer)
            .await;
    }
}

async fn run_transaction<T, F>(connection: &mut SqliteConnection, work: F) -> Result<T, StoreError>
where
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>>,
{
    begin(connection).await?;
    match work(connection).await {
        Ok(value) => match sqlx::query("COMMIT").execute(&mut *connection).await {
            Ok(_) => Ok(value),
            Err(error) => {
                rollback(connection).await;
                Err(error.into())
            }
        },
        Err(error) => {
            rollback(connection).await;
            Err(error)
        }
    }
}

/// Begins a writing transaction. If the one before it panicked, it is still
/// open: then it is rolled back first.
async fn begin(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let begun = sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut *connection)
        .await;
    if let Err(error) = begun {
        if !error.to_string().contains("within a transaction") {
            return Err(error.into());
        }
        rollback(connection).await;
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn rollback(connection: &mut SqliteConnection) {
    // Fails only if SQLite has rolled back by itself, e.g. when the disk is
    // full.
    let _ = sqlx::query("ROLLBACK").execute(connection).await;
}

/// Which file a url names, or which memory.
fn place(url: &str) -> Result<SqliteConnectOptions, StoreError> {
    /// How many stores in memory this process has made.
    static MEMORIES: AtomicU64 = AtomicU64::new(0);
    if url != MEMORY_URL {
        return Ok(SqliteConnectOptions::from_str(url)?);
    }
    // Not a shared cache: there, a reader fails as locked beside a writer,
    // instead of waiting for it. This file system keeps a file in memory while
    // it is open, and shares those whose name begins with a slash.
    let number = MEMORIES.fetch_add(1, Ordering::Relaxed);
    Ok(SqliteConnectOptions::new()
        .filename(format!("/onsale-{number}"))
        .vfs("memdb"))
}

fn options(url: &str) -> Result<SqliteConnectOptions, StoreError> {
    Ok(place(url)?
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))
        .foreign_keys(true)
        .statement_cache_capacity(200)
        // A batch touches one page of each table for each of many users. The
        // smaller the page, the less of it is written for nothing; the later
        // the checkpoint, the fewer times the same page goes to the database.
        .page_size(PAGE_BYTES)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        // 64 MiB of page cache on the writer's side keeps hot indexes in memory.
        .pragma("cache_size", "-65536")
        .log_statements(tracing::log::LevelFilter::Trace)
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(5)))
}

/// The file behind a `sqlite://` url.
///
/// # Errors
/// If it isn't one.
pub fn file_of(url: &str) -> Result<PathBuf, StoreError> {
    Ok(SqliteConnectOptions::from_str(url)?
        .get_filename()
        .to_path_buf())
}

/// The folder of the file behind a `sqlite://` url.
///
/// # Errors
/// If the url isn't one.
pub fn folder_of(url: &str) -> Result<PathBuf, StoreError> {
    Ok(file_of(url)?
        .parent()
        .unwrap_or(Path::new("."))
        .to_path_buf())
}

/// Sorts SQLite's result codes (<https://www.sqlite.org/rescode.html>).
/// `None`: not one that has a meaning to us, i.e. a defect.
pub(crate) fn classify(error: &dyn sqlx::error::DatabaseError) -> Option<StoreError> {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    const NOMEM: u32 = 7;
    // The file, its folder or the whole file system was made read-only, or the
    // WAL index can't be opened for writing: for an administrator to mend, and
    // then the same call goes through.
    const READONLY: u32 = 8;
    const IOERR: u32 = 10;
    const FULL: u32 = 13;
    const CANTOPEN: u32 = 14;
    const CONSTRAINT: u32 = 19;
    // The shared-memory file can't grow: the disk is full, and nothing of the
    // database was touched.
    const IOERR_SHMSIZE: u32 = IOERR | (19 << 8);
    let extended: u32 = error.code()?.parse().ok()?;
    let own = || sqlx::Error::Protocol(error.message().to_owned());
    match (extended & 0xff, extended) {
        (BUSY | LOCKED | NOMEM | READONLY | FULL | CANTOPEN, _) | (_, IOERR_SHMSIZE) => {
            Some(StoreError::Unavailable(own()))
        }
        (IOERR, _) => Some(StoreError::Broken(own())),
        (CONSTRAINT, _) => {
            let of = error.message().rsplit(": ").next().unwrap_or_default();
            Some(StoreError::Constraint {
                constraint: constraints::of_columns(of).to_owned(),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_was_made_read_only_is_unavailable_and_no_defect() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("it.db").display());
        let store = SqliteStore::open(&url, 1, true).await.unwrap();
        let write = async || {
            store
                .transaction(|connection| {
                    Box::pin(async move {
                        sqlx::query("UPDATE shard SET epoch = epoch")
                            .execute(connection)
                            .await?;
                        Ok(())
                    })
                })
                .await
        };
        // Answered with SQLITE_READONLY, like a file system that turned read-only.
        let set = async |on: &'static str| {
            let mut writer = store.writer.lock().await;
            sqlx::query(on).execute(&mut *writer).await.unwrap();
        };
        set("PRAGMA query_only = ON").await;
        let error = write().await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        // The same call goes through when it was mended.
        set("PRAGMA query_only = OFF").await;
        write().await.unwrap();
    }

    #[tokio::test]
    async fn a_store_in_memory_is_one_for_its_readers_and_its_writer_and_for_nobody_else() {
        let store = SqliteStore::open(MEMORY_URL, 2, true).await.unwrap();
        let other = SqliteStore::open(MEMORY_URL, 2, true).await.unwrap();
        let insert = store.transaction(|c| {
            Box::pin(async move {
                sqlx::query("INSERT INTO category (slug, created_at) VALUES ('here', 1)")
                    .execute(c)
                    .await?;
                Ok(())
            })
        });
        insert.await.unwrap();
        let count = |pool: SqlitePool| async move {
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM category")
                .fetch_one(&pool)
                .await
                .unwrap();
            count
        };
        assert_eq!(count(store.readers.clone()).await, 1);
        assert_eq!(count(other.readers.clone()).await, 0);
    }
}
