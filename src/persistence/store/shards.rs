//! Ownership on one machine: the node takes all shards at each start, with a
//! new epoch, so that nothing of an earlier process can still be written.

use std::collections::HashMap;

use super::Store;
use crate::domain::ids::{Epoch, ShardId};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

/// What a node took over.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The epoch of all shards from now on.
    pub epoch: Epoch,
    /// How often this node has started.
    pub incarnation: u32,
    /// The last sign of life of the owner before; `None` at the very first
    /// start.
    pub alive_at: Option<Timestamp>,
}

impl Store {
    /// Takes all shards for `node`. When this returns, the new epoch is on
    /// disk, and no contribution of an older one will be written.
    ///
    /// The caller holds the lock of the data folder.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn claim_all_shards(
        &self,
        node: String,
        address: String,
        now: Timestamp,
    ) -> Result<Claim, StoreError> {
        self.claim_all_shards_above(node, address, now, Epoch(0))
            .await
    }

    /// [`Store::claim_all_shards`], in an epoch higher than `above`.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn claim_all_shards_above(
        &self,
        node: String,
        address: String,
        now: Timestamp,
        above: Epoch,
    ) -> Result<Claim, StoreError> {
        on_backend!(self, claim_all_shards(node, address, now, above))
    }

    /// The epochs of the shards that somebody has taken.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn epochs(&self) -> Result<HashMap<ShardId, Epoch>, StoreError> {
        on_backend!(self, epochs())
    }

    /// The newest key of a purpose: its name and its private form.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn signing_key(
        &self,
        purpose: &str,
    ) -> Result<Option<(String, Vec<u8>)>, StoreError> {
        on_backend!(self, signing_key(purpose))
    }

    /// Stores a key, unless its purpose has one: of two nodes that start together
    /// the first one's stays. When this returns, that one is on disk.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn add_signing_key(
        &self,
        purpose: &'static str,
        kid: String,
        private: Vec<u8>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        on_backend!(self, add_signing_key(purpose, kid, private, now))
    }

    /// Notes that `node` lives at `now`: deadlines up to here were the owner's
    /// to keep, later ones get a grace after a restart.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn note_alive(&self, node: String, now: Timestamp) -> Result<(), StoreError> {
        on_backend!(self, note_alive(node, now))
    }
}
