//! The write lanes of a node: a few for each tier, each shard in exactly one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::checkpoint_lane::{CheckpointPen, CheckpointWriter, Health};
use super::lane::Lane;
use super::sql_lane::{Condition, SqlWriter};
use crate::domain::ids::{EntityId, ShardId, ShardSet};
use crate::persistence::Store;
use crate::persistence::batch::Contribution;
use crate::persistence::checkpoint::{Checkpoints, Delta};
use crate::telemetry::FlushMetrics;

/// How many lanes to the checkpoints there are.
const CHECKPOINT_LANES: usize = 4;

/// How the lanes are set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many there are to the database.
    pub lanes: usize,
    /// A batch is closed once it has so many rows.
    pub batch_rows_max: usize,
    /// No new work is taken at the door while so many bytes wait, over all
    /// lanes; of one, while half of them wait.
    pub dirty_bytes_max: usize,
}

/// A write lane to the database.
#[derive(Clone, Debug)]
pub struct SqlLane {
    /// What waits.
    pub lane: Lane<Contribution>,
    condition: Arc<Condition>,
}

impl SqlLane {
    /// Whether its last write succeeded, and none hangs.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.condition.is_healthy()
    }
}

/// The write lanes to the checkpoints.
#[derive(Debug)]
struct CheckpointLanes {
    checkpoints: Arc<Checkpoints>,
    lanes: Vec<Lane<Delta>>,
    health: Arc<Health>,
}

/// All write lanes.
#[derive(Debug)]
pub struct Lanes {
    sql: Vec<SqlLane>,
    checkpoint: Option<CheckpointLanes>,
    lane_bytes_max: usize,
    dirty_bytes_max: usize,
}

impl Lanes {
    /// Starts lanes that write to `store`, and to `checkpoints` where there are
    /// any, for the rest of the process. `outbox` is told when there may be
    /// events to publish.
    #[must_use]
    pub fn start(
        store: &Store,
        checkpoints: Option<Checkpoints>,
        options: Options,
        outbox: &Arc<Notify>,
    ) -> Self {
        let count = options.lanes.max(1);
        let start = |number| {
            let condition = Arc::new(Condition::new());
            let writer = SqlWriter::new(
                store.clone(),
                Arc::clone(&condition),
                Arc::clone(outbox),
                FlushMetrics::of_lane("database", number),
            );
            SqlLane {
                lane: Lane::start(writer, options.batch_rows_max),
                condition,
            }
        };
        let share = if count == 1 { 1 } else { 2 };
        Self {
            sql: (0..count).map(start).collect(),
            checkpoint: checkpoints.map(|to| CheckpointLanes::start(to, options.batch_rows_max)),
            lane_bytes_max: options.dirty_bytes_max / share,
            dirty_bytes_max: options.dirty_bytes_max,
        }
    }

    /// The one lane of `shard`.
    #[must_use]
    pub fn of(&self, shard: ShardId) -> &SqlLane {
        &self.sql[self.number_of(shard)]
    }

    /// Whether what is decided of these two shards may be tied to each other: one
    /// lane writes both.
    #[must_use]
    pub fn are_one(&self, one: ShardId, other: ShardId) -> bool {
        self.number_of(one) == self.number_of(other)
    }

    fn number_of(&self, shard: ShardId) -> usize {
        // There is at least one, so that the remainder is one of them.
        usize::from(shard.0) % self.sql.len()
    }

    /// Whether `lane` takes more: not while too much waits, and not after an
    /// outage of [`super::sql_lane::OUTAGE_MAX`].
    #[must_use]
    pub fn has_room(&self, lane: &SqlLane) -> bool {
        let has_room = lane.lane.dirty_bytes() < self.lane_bytes_max;
        has_room
            && !lane.condition.is_worn_out()
            && (self.sql.len() == 1 || self.dirty_bytes() < self.dirty_bytes_max)
    }

    /// How many bytes wait to be written, about, over all lanes.
    #[must_use]
    pub fn dirty_bytes(&self) -> usize {
        self.sql.iter().map(|sql| sql.lane.dirty_bytes()).sum()
    }

    /// How many bytes may wait before new work is refused.
    #[must_use]
    pub fn dirty_bytes_max(&self) -> usize {
        self.dirty_bytes_max
    }

    /// How long the oldest of what waits to be written has waited.
    #[must_use]
    pub fn dirty_age(&self) -> Duration {
        let ages = self.sql.iter().map(|sql| sql.lane.dirty_age());
        ages.max().unwrap_or_default()
    }

    /// Whether the last write of every lane succeeded.
    #[must_use]
    pub fn are_healthy(&self) -> bool {
        self.sql.iter().all(SqlLane::is_healthy)
    }

    /// Whether every lane takes more.
    #[must_use]
    pub fn have_room(&self) -> bool {
        self.sql.iter().all(|lane| self.has_room(lane))
    }

    /// Returns once nothing of `entity` waits or is being written.
    pub async fn settled(&self, entity: EntityId) {
        let shard = entity.shard();
        self.of(shard).lane.settled(entity).await;
        if let Some(checkpoint) = self.checkpoint_of(shard) {
            checkpoint.lane.settled(entity).await;
        }
    }

    /// Where the entities of `shard` write their checkpoints, if anywhere.
    #[must_use]
    pub fn checkpoint_of(&self, shard: ShardId) -> Option<CheckpointPen> {
        let CheckpointLanes { lanes, health, .. } = self.checkpoint.as_ref()?;
        Some(CheckpointPen {
            lane: lanes.get(usize::from(shard.0) % lanes.len())?.clone(),
            health: Arc::clone(health),
        })
    }

    /// The checkpoints themselves, if there are any, and whether they can be
    /// used.
    #[must_use]
    pub fn checkpoints(&self) -> Option<(&Checkpoints, &Arc<Health>)> {
        let checkpoint = self.checkpoint.as_ref()?;
        Some((&checkpoint.checkpoints, &checkpoint.health))
    }

    /// Has what waits for the database written now.
    pub fn hurry(&self) {
        for sql in &self.sql {
            sql.lane.hurry();
        }
    }

    /// Returns once nothing of the entities of `shards` waits or is being
    /// written.
    pub async fn settled_shards(&self, shards: &ShardSet) {
        for sql in &self.sql {
            sql.lane.settled_shards(shards).await;
        }
    }

    /// Returns once nothing waits or is being written.
    pub async fn drained(&self) {
        for sql in &self.sql {
            sql.lane.drained().await;
        }
    }
}

impl CheckpointLanes {
    fn start(checkpoints: Checkpoints, batch_rows_max: usize) -> Self {
        let (checkpoints, health) = (Arc::new(checkpoints), Arc::new(Health::new()));
        let start = |number| {
            let writer = CheckpointWriter::new(
                Arc::clone(&checkpoints),
                Arc::clone(&health),
                FlushMetrics::of_lane("checkpoint", number),
            );
            Lane::start(writer, batch_rows_max)
        };
        Self {
            lanes: (0..CHECKPOINT_LANES).map(start).collect(),
            checkpoints,
            health,
        }
    }
}
