//! The seam to the store of truth: what it promises, whichever runs behind it.
//!
//! Every method says what is true once it returns; `tests/store_conformance`
//! checks those very sentences over SQLite in memory, SQLite on disk, and
//! Postgres. "On disk" means that the commit has reached the disk of the
//! store: it survives the loss of power.
//!
//! A method can be dropped at any point (a client hangs up): what it had begun
//! to write still ends, with a commit or a rollback.

/// Runs a method of the back end. Its arguments are the same everywhere.
macro_rules! on_backend {
    ($store:expr, $method:ident($($argument:expr),*)) => {
        match $store {
            Store::Sqlite(store) => store.$method($($argument),*).await,
            Store::Postgres(store) => store.$method($($argument),*).await,
        }
    };
}

pub mod accounts;
pub mod catalogue;
pub mod changes;
pub mod commit;
pub mod coupons;
pub mod dead_letters;
pub mod entities;
pub mod export;
pub mod orders;
pub mod outbox;
pub mod queues;
pub mod sessions;
pub mod shards;

use super::StoreError;
use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use crate::config;

/// The store, picked once by `store.url`. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Store {
    /// The embedded one: `sqlite://PATH`, or `sqlite::memory:`.
    Sqlite(SqliteStore),
    /// That of a cluster: `postgres://…`.
    Postgres(PostgresStore),
}

impl Store {
    /// Opens the store. SQLite's file and folder are made if they are missing;
    /// `sqlite::memory:` is a new one each time, which ends with the last clone
    /// of what this returns. A database of Postgres has to exist. Unless
    /// `store.migrate` is off, the schema is up to date when this returns.
    ///
    /// # Errors
    /// If it can't be opened, would forget what it acknowledged (Postgres with
    /// `fsync = off`), or the migrations don't apply.
    pub async fn open(settings: &config::Store) -> Result<Self, StoreError> {
        if settings.is_server() {
            return PostgresStore::open(settings).await.map(Self::Postgres);
        }
        let config::Store {
            url,
            readers,
            migrate,
            ..
        } = settings;
        let store = SqliteStore::open(url, *readers, *migrate).await?;
        Ok(Self::Sqlite(store))
    }

    /// From here on, the database knows what this life of a node has open for
    /// writing by `name`, so that others can end it. Nothing on SQLite, which
    /// has no others.
    pub fn name_writers(&self, name: &str) {
        match self {
            Self::Sqlite(_) => {}
            Self::Postgres(store) => store.name_writers(name),
        }
    }

    /// Closes all connections; what was committed stays.
    pub async fn close(&self) {
        on_backend!(self, close());
    }

    /// The embedded store, for tests that look or tamper below the seam.
    ///
    /// # Panics
    /// If it is another one.
    #[cfg(test)]
    pub(crate) fn sqlite(&self) -> &SqliteStore {
        match self {
            Self::Sqlite(store) => store,
            Self::Postgres(_) => panic!("not the embedded store"),
        }
    }
}
