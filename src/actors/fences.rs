//! The fences of the checkpoints, as shards change hands.
//!
//! A taker raises them before it loads anything: from then on the owner before,
//! however late it learns of its loss, gets no checkpoint accepted, and so
//! acknowledges no hold that the new owner doesn't know.

use std::time::Duration;

use super::node::Node;
use crate::domain::ids::{EntityId, Epoch, ShardId};
use crate::persistence::checkpoint::{CheckpointError, Checkpoints};
use crate::persistence::lease::{Claim, Ground};

/// How long fences may take to be raised or read. They are for all shards of a
/// node at once.
const FENCES_MAX: Duration = Duration::from_secs(1);

impl Node {
    /// Raises the fences of the shards in `claim`, and the epochs that it asks
    /// for above them. `false` if the claim is only safe with fences, and they
    /// can't be raised: that of a process that may yet live.
    pub(super) async fn fence_before(&self, claim: &mut Claim) -> bool {
        let Some((checkpoints, _)) = self.lanes.checkpoints() else {
            return true;
        };
        let fenced = tokio::time::timeout(FENCES_MAX, raise(checkpoints, claim)).await;
        let why = match fenced {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "it takes too long".to_owned(),
        };
        tracing::warn!(
            why,
            "the fences of shards that are to be taken can't be raised"
        );
        let of_another = claim
            .from
            .as_ref()
            .is_some_and(|(node, _)| *node != self.name);
        !(claim.ground == Ground::Gone && of_another)
    }

    /// Raises the fences of `shards`, which are this node's in the database. If
    /// they can't be, nothing is lost: checkpoints that can't be reached can't
    /// be used either, until `keep_usable` has raised them.
    pub(super) async fn fence(&self, shards: &[(ShardId, Epoch)]) {
        let Some((checkpoints, health)) = self.lanes.checkpoints() else {
            return;
        };
        let raising = checkpoints.raise_fences(shards);
        match tokio::time::timeout(FENCES_MAX, raising).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => health.lose(&error),
            Err(_elapsed) => health.lose(&"raising fences takes too long"),
        }
    }

    /// The entities of `shards` whose checkpoint may have something that the
    /// database doesn't have yet: holds, places.
    pub async fn with_checkpoints(&self, shards: &[ShardId]) -> Vec<EntityId> {
        let Some((checkpoints, _)) = self.lanes.checkpoints() else {
            return Vec::new();
        };
        let listing = tokio::time::timeout(FENCES_MAX, checkpoints.entities(shards)).await;
        let why = match listing {
            Ok(Ok(entities)) => return entities,
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "it takes too long".to_owned(),
        };
        tracing::warn!(
            why,
            "the checkpoints can't be listed; resuming from the store alone"
        );
        Vec::new()
    }
}

async fn raise(checkpoints: &Checkpoints, claim: &mut Claim) -> Result<(), CheckpointError> {
    let shards: Vec<ShardId> = claim.shards.iter().map(|(shard, _, _)| *shard).collect();
    let fences = checkpoints.fences(&shards).await?;
    let lowest = |(fence, (shard, at, _)): (Option<Epoch>, &(ShardId, Epoch, Epoch))| {
        let next = Epoch(at.0 + 1);
        // A fence at the next epoch is another taker's, whom this claim either
        // finds gone ahead (and fails), or forestalls. One above is of an epoch
        // that the database has forgotten.
        let above = |fence: Epoch| Epoch(fence.0 + 1);
        let fence = fence.filter(|fence| *fence > next);
        (*shard, fence.map_or(next, above))
    };
    let wanted: Vec<(ShardId, Epoch)> = fences.into_iter().zip(&claim.shards).map(lowest).collect();
    let raised = checkpoints.raise_fences(&wanted).await?;
    for ((_, _, to), fence) in claim.shards.iter_mut().zip(raised) {
        *to = fence;
    }
    Ok(())
}
