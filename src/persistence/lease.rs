//! What nodes tell each other through the database: who lives, and who owns
//! which shard. [`super::postgres::lease`] keeps it; a lone node on SQLite has
//! the lock of its data folder instead.

use std::sync::Arc;

use crate::actors::ownership::Owner;
use crate::domain::ids::{Epoch, Incarnation, NodeId, SHARDS, ShardId};
use crate::domain::time::{Millis, Timestamp};

/// How long a node's word is good without a renewal, on the database's clock.
pub const LEASE_TTL: Millis = Millis(2_000);

/// By how much its holder stops earlier, by its own clock.
pub const LEASE_MARGIN: Millis = Millis(300);

/// Whether a node wants shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeState {
    /// It serves.
    Up,
    /// It hands over what it has, and ends.
    Draining,
}

impl NodeState {
    /// As in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
        }
    }
}

/// A node, as the database knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Which life of which node, and where it can be reached.
    pub owner: Owner,
    /// Whether it wants shards.
    pub state: NodeState,
    /// What was left of its lease when this was read; below zero if it has run
    /// out.
    pub lease_left: Millis,
}

impl Member {
    /// Whether its lease has not run out.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.lease_left > Millis(0)
    }
}

/// Who owned a shard when this was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assigned {
    /// The node, in which of its lives; `None` if nobody ever did.
    pub to: Option<(NodeId, Incarnation)>,
    /// In which epoch.
    pub epoch: Epoch,
}

/// What the database said when the lease was renewed.
#[derive(Clone, Debug)]
pub struct View {
    /// The database's time when it was read.
    pub now: Timestamp,
    /// All nodes that ever were.
    pub members: Vec<Member>,
    /// All shards, by their number.
    pub shards: Vec<Assigned>,
}

impl View {
    /// The member of this name.
    #[must_use]
    pub fn member(&self, node: &NodeId) -> Option<&Member> {
        self.members
            .iter()
            .find(|member| member.owner.node == *node)
    }

    /// Every shard with its assignment.
    pub fn assigned(&self) -> impl Iterator<Item = (ShardId, &Assigned)> {
        (0..SHARDS).map(ShardId).zip(&self.shards)
    }

    /// The nodes that live and want shards.
    pub fn live(&self) -> impl Iterator<Item = &Member> {
        let live = |member: &&Member| member.lives() && member.state == NodeState::Up;
        self.members.iter().filter(live)
    }
}

/// What a node is registered as.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Its name.
    pub node: NodeId,
    /// Which of its lives this is.
    pub incarnation: Incarnation,
    /// The last sign of life of the one before.
    pub alive_before: Option<Timestamp>,
}

impl Registered {
    /// Whether this very life of this node is meant.
    #[must_use]
    pub fn is(&self, other: &(NodeId, Incarnation)) -> bool {
        (&self.node, self.incarnation) == (&other.0, other.1)
    }
}

/// Why shards may be taken from whoever has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ground {
    /// Its lease has run out; checked again in the transaction that takes them.
    Expired,
    /// It is an earlier life of this very node, whose lock we hold, nobody yet,
    /// or a process of which the kernel says that it is gone.
    ///
    /// That last one may be wrong (its port may be closed while it lives), and
    /// is safe nevertheless: from the commit that takes a shard on, none of the
    /// old owner's batches is written (the fence of SQL), and none of its
    /// checkpoints is accepted (the fence of Redis, which has to be raised, where
    /// there is one). What it may still answer for up to one renewal are reads.
    Gone,
}

/// Shards to be taken, from one owner.
#[derive(Clone, Debug)]
pub struct Claim {
    /// From whom; `None` from nobody.
    pub from: Option<(NodeId, Incarnation)>,
    /// Why that is right.
    pub ground: Ground,
    /// Which, each with the epoch that it must still be in, and the lowest that
    /// it may get: one above the checkpoint store's fence.
    pub shards: Vec<(ShardId, Epoch, Epoch)>,
}

/// The name by which the database's connections of one life of a node are
/// known, so that another node can end them.
#[must_use]
pub fn application_name(node: &NodeId, incarnation: Incarnation) -> Arc<str> {
    format!("onsale {node} {}", incarnation.0).into()
}
