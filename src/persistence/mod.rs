//! Everything that outlives the process.
//!
//! * [`batch`]: what the actors hand over, and how it coalesces while it waits.
//! * [`store`]: the seam to the store of truth, and what it promises.
//! * [`checkpoint`]: what has been decided and may not be in the store yet.
//! * [`sqlite`]: the embedded store, the truth on one machine.
//! * [`postgres`]: the store of a cluster.
//! * [`lock`]: the lock that makes one server the owner of a data folder.
//! * [`bus`]: the in-process event bus and the consumers on it.
//! * [`verify`]: the audit of a store by the named invariants.

pub mod batch;
pub mod bus;
pub mod checkpoint;
pub mod constraints;
pub mod lease;
pub mod lock;
pub mod postgres;
pub mod rows;
pub mod sqlite;
pub mod store;
mod stored;
pub mod verify;

pub use store::Store;

use sqlx::postgres::PgDatabaseError;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't now, and may later: busy, full, out of reach. Nothing was
    /// written, and the same call may be repeated.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// A named constraint refused a row; nothing was written. Those of
    /// [`constraints`] have the same name in every store.
    #[error("the constraint {constraint} refused a row")]
    Constraint {
        /// The name of the constraint; where it has no meaning above the store,
        /// what the store tells of it.
        constraint: String,
    },
    /// It doesn't keep what it acknowledges, so that nothing may be sold on it.
    #[error("the store can't be used: {0}")]
    Unfit(String),
    /// A file of the store can't be read or written. The process ends and
    /// recovers on the next start, because what is in its memory may no longer
    /// be what is on disk.
    #[error("the store's file failed: {0}")]
    Broken(#[source] sqlx::Error),
    /// What was to be written together can't be: some of it is fenced, or takes
    /// several statements. Nothing was written.
    #[error("it can't be written together")]
    Apart,
    /// A defect: a statement or a row that should not be possible.
    #[error("the store refused a statement: {0}")]
    Defect(#[source] sqlx::Error),
    /// What is stored can't be understood: a defect, or another version's data.
    #[error("stored data is unreadable: {0}")]
    Unreadable(String),
}

impl StoreError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
                Some(refused) => match postgres::classify(refused) {
                    postgres::Class::Unavailable => Self::Unavailable(error),
                    postgres::Class::Constraint(constraint) => Self::Constraint { constraint },
                    postgres::Class::Defect => Self::Defect(error),
                },
                None => sqlite::classify(database.as_ref()).unwrap_or_else(|| Self::Defect(error)),
            },
            E::Io(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
                Self::Unavailable(error)
            }
            _ => Self::Defect(error),
        }
    }
}
