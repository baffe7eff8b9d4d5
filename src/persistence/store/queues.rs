//! How queues come back from the store, and what is left of them in it.

use super::Store;
use super::entities::Loaded;
use crate::domain::ids::{PerformanceId, ShardSet};
use crate::domain::queue::restore::QueueState;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

/// What the store can tell of a queue whose places are not loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QueueFigures {
    /// How many wait, the entrants of a draw included.
    pub waiting: u32,
    /// How many have a pass that hasn't ended, or are about to.
    pub active: u32,
    /// How many ever had one.
    pub admitted_total: u64,
    /// Nobody enters, by an operator's word.
    pub paused: bool,
    /// No newcomers are taken, by an operator's word.
    pub draining: bool,
}

impl Store {
    /// The queue of a performance at its version, read in one snapshot, without
    /// the places that don't matter any more at `now`
    /// ([`matters`](crate::domain::queue::restore::PlaceRow::matters)); a new
    /// one if it was never written.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn load_queue(
        &self,
        id: PerformanceId,
        now: Timestamp,
    ) -> Result<Loaded<QueueState>, StoreError> {
        on_backend!(self, load_queue(id, now))
    }

    /// The figures of a queue at `now`, as of all that was committed before the
    /// call; all zero if it was never written.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn queue_figures(
        &self,
        id: PerformanceId,
        now: Timestamp,
    ) -> Result<QueueFigures, StoreError> {
        on_backend!(self, queue_figures(id, now))
    }

    /// The queues of `shards` that have something to do without being asked:
    /// somebody waits in them, or has a pass.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn queues_with_people(
        &self,
        shards: &ShardSet,
    ) -> Result<Vec<PerformanceId>, StoreError> {
        on_backend!(self, queues_with_people(shards))
    }

    /// Deletes places that don't matter any more at `now`, at most `limit` of
    /// them, those that ended first before others. Returns how many.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn forget_places(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        on_backend!(self, forget_places(now, limit))
    }
}
