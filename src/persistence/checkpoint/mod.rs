//! Checkpoints: what has been decided and may not be in the database yet, kept
//! where it outlives the process. Rebuildable: whatever is lost here, recovery
//! from the database alone is correct, and only what was acknowledged by a
//! checkpoint and not yet committed is gone.
//!
//! An entity's checkpoint is a set of rows, each with an identity, the version
//! ([`Stamp`]) at which it was written, and a body that only the entity's kind
//! understands ([`rows`]); and `upto`, the version that all of them together
//! are of. A shard has a *fence*: the lowest epoch that may still write.
//!
//! What recovery may use is decided by the rows' stamps: those at or below the
//! version that the database has are old news.

mod memory;
mod redis;
pub mod rows;

use std::collections::HashMap;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use crate::domain::ids::{EntityId, Epoch, ShardId, Stamp};
pub use memory::MemoryCheckpoints;
pub use redis::RedisCheckpoints;

/// Estimated bytes of a waiting row besides its body.
const ROW_BYTES: usize = 64;

/// Which row of an entity: for a hold, its id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RowId(pub SmallVec<[u8; 16]>);

/// What an entity has decided since its last write, as rows.
#[derive(Clone, Debug)]
pub struct Delta {
    /// Whose.
    pub entity: EntityId,
    /// What it is written on top of.
    pub base: Base,
    /// The version that the checkpoint gets.
    pub after: Stamp,
    rows: HashMap<RowId, Option<Vec<u8>>, RandomState>,
    body_bytes: usize,
}

/// What a write needs to find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// Nothing: it carries all rows, and replaces what there is.
    Whole,
    /// A checkpoint of exactly this version.
    After(Stamp),
}

impl Delta {
    /// Nothing yet, on top of `base`.
    #[must_use]
    pub fn new(entity: EntityId, base: Base, after: Stamp) -> Self {
        Self {
            entity,
            base,
            after,
            rows: HashMap::default(),
            body_bytes: 0,
        }
    }

    /// From now on it carries everything: what it had is forgotten.
    pub fn restart_whole(&mut self) {
        self.base = Base::Whole;
        self.rows.clear();
        self.body_bytes = 0;
    }

    /// A row is now so.
    pub fn put(&mut self, row: RowId, body: Vec<u8>) {
        self.body_bytes += body.len();
        let before = self.rows.insert(row, Some(body));
        self.forget(before);
    }

    /// A row isn't needed any more.
    pub fn remove(&mut self, row: RowId) {
        let before = self.rows.insert(row, None);
        self.forget(before);
    }

    fn forget(&mut self, body: Option<Option<Vec<u8>>>) {
        self.body_bytes -= body.flatten().map_or(0, |body| body.len());
    }

    /// The rows: `None` for one that goes.
    pub fn rows(&self) -> impl Iterator<Item = (&RowId, Option<&[u8]>)> {
        self.rows.iter().map(|(row, body)| (row, body.as_deref()))
    }

    /// How many rows it writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether only the version changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How much memory it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (1 + self.rows.len()) * ROW_BYTES + self.body_bytes
    }
}

/// What became of a [`Delta`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The checkpoint is at its version or, from the same life of the entity,
    /// at a later one: by this call or by an earlier one whose answer was lost.
    Written,
    /// The shard's fence is above its epoch, or a later life of the entity has
    /// written: nothing of it was written, and nothing of this life ever will.
    Fenced,
    /// The shard has no fence, because the checkpoints were lost: nothing was
    /// written. A write never makes a fence, since it can't know whether its
    /// epoch is still the last.
    NoFence,
    /// The checkpoint isn't at the version that it is to be written on top of:
    /// nothing was written. All rows are wanted ([`Base::Whole`]).
    NoBase,
}

/// A row as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Which one.
    pub id: RowId,
    /// The version at which it was written.
    pub stamp: Stamp,
    /// What it says.
    pub body: Vec<u8>,
}

/// The checkpoint of one entity as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The version of all rows together.
    pub upto: Stamp,
    /// All of them, oldest first.
    pub rows: Vec<Row>,
}

impl Checkpoint {
    /// The rows that say more than a database that is at `watermark`: those
    /// strictly above it, oldest first.
    #[must_use]
    pub fn above(self, watermark: Stamp) -> Vec<Row> {
        let mut rows = self.rows;
        rows.retain(|row| row.stamp > watermark);
        rows
    }
}

/// Why the checkpoints did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// They can't now, and may later. The outcome is unknown; the same call is
    /// safe to repeat.
    #[error("the checkpoints are unavailable: {0}")]
    Unavailable(String),
    /// What is stored can't be understood.
    #[error("a checkpoint is unreadable: {0}")]
    Unreadable(String),
}

/// Where checkpoints are kept.
#[derive(Debug)]
pub enum Checkpoints {
    /// In this process: they outlive an entity's actor, and nothing else.
    Memory(MemoryCheckpoints),
    /// In Redis, a single server or a cluster.
    Redis(Box<RedisCheckpoints>),
}

impl Checkpoints {
    /// Writes `deltas`, which are of different entities. When this returns `Ok`,
    /// each has its outcome, in the order given; those of one entity are all or
    /// nothing.
    ///
    /// # Errors
    /// [`CheckpointError::Unavailable`]: some may be written, some not.
    pub async fn write(&self, deltas: &[Delta]) -> Result<Vec<Outcome>, CheckpointError> {
        match self {
            Self::Memory(memory) => Ok(memory.write(deltas)),
            Self::Redis(redis) => redis.write(deltas).await,
        }
    }

    /// The checkpoint of `entity`; `None` if there is none.
    ///
    /// # Errors
    /// [`CheckpointError`]
    pub async fn read(&self, entity: EntityId) -> Result<Option<Checkpoint>, CheckpointError> {
        match self {
            Self::Memory(memory) => Ok(memory.read(entity)),
            Self::Redis(redis) => redis.read(entity).await,
        }
    }

    /// The entities of `shards` that may have a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError`]
    pub async fn entities(&self, shards: &[ShardId]) -> Result<Vec<EntityId>, CheckpointError> {
        match self {
            Self::Memory(memory) => Ok(memory.entities(shards)),
            Self::Redis(redis) => redis.entities(shards).await,
        }
    }

    /// Raises the fences of `shards`, each to at least the epoch given, made if
    /// missing, never lowered. When this returns `Ok`, no write of a lower epoch
    /// will be taken. Returns the fences as they are now, in the order given: a
    /// higher one than asked for means that somebody else is ahead.
    ///
    /// To be called by who has just taken the shards in the database, before
    /// anything is loaded, and by an owner who has checked there that it still
    /// is.
    ///
    /// # Errors
    /// [`CheckpointError::Unavailable`]: some may be raised, some not.
    pub async fn raise_fences(
        &self,
        shards: &[(ShardId, Epoch)],
    ) -> Result<Vec<Epoch>, CheckpointError> {
        match self {
            Self::Memory(memory) => Ok(memory.raise_fences(shards)),
            Self::Redis(redis) => redis.raise_fences(shards).await,
        }
    }

    /// The fences of `shards`, in the order given; `None` where there is none.
    /// A taker's epoch must be above them.
    ///
    /// # Errors
    /// [`CheckpointError`]
    pub async fn fences(&self, shards: &[ShardId]) -> Result<Vec<Option<Epoch>>, CheckpointError> {
        match self {
            Self::Memory(memory) => Ok(memory.fences(shards)),
            Self::Redis(redis) => redis.fences(shards).await,
        }
    }
}
