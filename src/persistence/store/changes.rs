//! What other nodes change of that which every node keeps in memory.

use super::Store;
use crate::persistence::StoreError;
use crate::persistence::postgres::changes::Listener;

/// What has changed, and is to be read again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A venue, a performance, a date, a category.
    Catalogue,
    /// Somebody was signed out, or has other roles.
    Access,
}

/// Changes as they are committed.
#[derive(Debug)]
pub struct Changes(Listener);

impl Changes {
    /// The next changes, one at least. `None` once nobody listens any more: what
    /// came after the last ones is not told.
    ///
    /// # Errors
    /// If the connection failed, which means the same.
    pub async fn next(&mut self) -> Result<Option<Vec<Change>>, StoreError> {
        self.0.next().await
    }
}

impl Store {
    /// Listens: when this returns, every change that is committed from now on,
    /// by any node, will be told. `None` where there are no other nodes.
    ///
    /// # Errors
    /// If the store can't be reached.
    pub async fn changes(&self) -> Result<Option<Changes>, StoreError> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(store) => Ok(Some(Changes(store.changes().await?))),
        }
    }

    /// The version of the catalogue: each transaction that changes it raises it
    /// by one. 0 where only this process can.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn catalogue_version(&self) -> Result<i64, StoreError> {
        match self {
            Self::Sqlite(_) => Ok(0),
            Self::Postgres(store) => store.catalogue_version().await,
        }
    }
}
