//! Whether checkpoints can be used; how they come back after a loss.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::actors::node::Node;
use crate::domain::ids::{Epoch, ShardId};
use crate::persistence::StoreError;
use crate::persistence::checkpoint::CheckpointError;
use crate::telemetry;

/// How often lost checkpoints are looked for: first, and at most.
const BACKOFF_MIN_MS: u64 = 50;
const BACKOFF_MAX_MS: u64 = 1_000;

/// Whether checkpoints can be used, and since when without a gap.
#[derive(Debug)]
pub struct Health {
    /// Odd while they can; each change is one more.
    generation: AtomicU64,
    lost: Notify,
    regained: Notify,
}

/// A time without a gap in which checkpoints could be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Generation(u64);

impl Health {
    /// They can't be used yet.
    #[must_use]
    pub fn new() -> Self {
        telemetry::checkpoint_usable(false);
        Self {
            generation: AtomicU64::new(0),
            lost: Notify::new(),
            regained: Notify::new(),
        }
    }

    /// The present generation; `None` while checkpoints can't be used.
    #[must_use]
    pub fn usable(&self) -> Option<Generation> {
        let generation = self.generation.load(Ordering::Acquire);
        (generation % 2 == 1).then_some(Generation(generation))
    }

    /// They can't be used any more, because of `why`.
    pub(in crate::actors) fn lose(&self, why: &dyn std::fmt::Display) {
        let lost =
            self.generation
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |generation| {
                    (generation % 2 == 1).then_some(generation + 1)
                });
        if lost.is_ok() {
            tracing::warn!(%why, "checkpoints can't be used: replies wait for the database");
            telemetry::checkpoint_usable(false);
            self.lost.notify_one();
        }
    }

    /// They can be used again.
    pub(super) fn regain(&self) {
        let regained =
            self.generation
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |generation| {
                    (generation % 2 == 0).then_some(generation + 1)
                });
        if regained.is_ok() {
            tracing::info!("checkpoints can be used");
            telemetry::checkpoint_usable(true);
            self.regained.notify_waiters();
        }
    }

    /// Returns once checkpoints can be used.
    pub async fn until_usable(&self) {
        loop {
            let regained = self.regained.notified();
            if self.usable().is_some() {
                return;
            }
            regained.await;
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes checkpoints usable, and again after each loss, for as long as the node
/// lives.
pub async fn keep_usable(node: Weak<Node>, health: Arc<Health>) {
    let mut backoff_ms = BACKOFF_MIN_MS;
    loop {
        if health.usable().is_some() {
            health.lost.notified().await;
            backoff_ms = BACKOFF_MIN_MS;
        }
        let Some(node) = node.upgrade() else { return };
        // Replies that waited for a checkpoint wait for the database now.
        node.lanes.hurry();
        match raise_fences(&node).await {
            Ok(()) => {
                health.regain();
                node.rewrite_checkpoints();
                continue;
            }
            Err(error) => tracing::debug!(%error, "checkpoints can't be used yet"),
        }
        drop(node);
        let jitter = u64::from(uuid::Uuid::new_v4().as_bytes()[0]) % (backoff_ms / 2 + 1);
        tokio::time::sleep(Duration::from_millis(backoff_ms / 2 + jitter)).await;
        backoff_ms = (backoff_ms * 2).min(BACKOFF_MAX_MS);
    }
}

/// Why checkpoints can't be used yet.
#[derive(Debug, thiserror::Error)]
enum NotYet {
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the fence of shard {0} is above the epoch that the store knows")]
    Ahead(ShardId),
}

/// Returns once every shard of the node is fenced in its epoch. Where a fence
/// is another, only the database knows whether the epoch is still the last.
async fn raise_fences(node: &Node) -> Result<(), NotYet> {
    let Some((checkpoints, _)) = node.lanes.checkpoints() else {
        return Ok(());
    };
    let owned = node.ownership.owned();
    let shards: Vec<ShardId> = owned.iter().map(|(shard, _)| *shard).collect();
    let fences = checkpoints.fences(&shards).await?;
    let is_fenced =
        |(fence, (_, epoch)): (&Option<Epoch>, &(ShardId, Epoch))| *fence == Some(*epoch);
    if fences.iter().zip(&owned).all(is_fenced) {
        return Ok(());
    }
    // An epoch is one owner's alone.
    let epochs = node.store.epochs().await?;
    let mut confirmed = owned;
    confirmed.retain(|(shard, epoch)| epochs.get(shard) == Some(epoch));
    let raised = checkpoints.raise_fences(&confirmed).await?;
    // Then these checkpoints aren't of this store, or somebody is about to take
    // the shard: what is written there would be refused.
    let mut shards = confirmed.iter().zip(raised);
    let ahead = shards.find(|((_, epoch), fence)| fence > epoch);
    ahead.map_or(Ok(()), |((shard, _), _)| Err(NotYet::Ahead(*shard)))
}
