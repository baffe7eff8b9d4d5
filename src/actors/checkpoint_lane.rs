//! The write lanes of the checkpoints, and what an entity keeps for them.
//!
//! Nothing here is needed for correctness: what a checkpoint doesn't get, the
//! database does. So a write that fails is not repeated. The tier is given up
//! for all entities at once ([`Health`]), whatever waits is dropped, and replies
//! leave when the database has their decisions. Once the checkpoints are back
//! and fenced, each entity's first write carries all of its rows, and only that
//! write opens its gate again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::lane::{Decided, Entry, Lane, Parcel, Sink, Writer};
use super::node::Node;
use crate::clock::monotonic;
use crate::domain::decision::Tier;
use crate::domain::ids::{Epoch, Seq, ShardId};
use crate::persistence::StoreError;
use crate::persistence::checkpoint::rows::{Checkpointed, RowChange, RowChanges};
use crate::persistence::checkpoint::{Base, CheckpointError, Checkpoints, Delta, Outcome, RowId};
use crate::telemetry::{self, FlushMetrics};

/// How long a write may take, with a new connection and redirections.
const WRITE_MAX: Duration = Duration::from_millis(1_500);

/// How many rows that aren't needed any more a decision has removed: more than
/// it adds, and few enough for one script.
const TRIMMED_MAX: usize = 256;

/// How often lost checkpoints are looked for: first, and at most.
const BACKOFF_MIN_MS: u64 = 50;
const BACKOFF_MAX_MS: u64 = 1_000;

impl Parcel for Delta {
    fn begin(decided: &Decided) -> Self {
        Self::new(decided.entity, Base::After(decided.before), decided.after)
    }

    fn extend(&mut self, decided: &Decided) {
        self.after = decided.after;
    }

    fn rows(&self) -> usize {
        1 + self.len()
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

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
    pub(super) fn lose(&self, why: &dyn std::fmt::Display) {
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
    fn regain(&self) {
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

/// Writes batches to the checkpoints.
pub struct CheckpointWriter {
    checkpoints: Arc<Checkpoints>,
    health: Arc<Health>,
    metrics: FlushMetrics,
}

impl CheckpointWriter {
    /// A writer to `checkpoints` that keeps `health` up to date.
    #[must_use]
    pub fn new(checkpoints: Arc<Checkpoints>, health: Arc<Health>, metrics: FlushMetrics) -> Self {
        Self {
            checkpoints,
            health,
            metrics,
        }
    }

    async fn write_all(&self, deltas: &[Delta]) -> Result<Vec<Outcome>, CheckpointError> {
        let begun = monotonic();
        let written = tokio::time::timeout(WRITE_MAX, self.checkpoints.write(deltas))
            .await
            .unwrap_or_else(|_| {
                Err(CheckpointError::Unavailable(
                    "a write takes too long".into(),
                ))
            });
        match &written {
            Ok(_) => {
                #[cfg(feature = "sabotage")]
                crate::sabotage::pass(crate::sabotage::Point::Checkpointed);
                let rows = deltas.iter().map(Parcel::rows).sum();
                self.metrics.flushed(begun.elapsed(), rows);
            }
            Err(_) => self.metrics.failed("unavailable"),
        }
        written
    }

    fn tell(&self, delta: &Delta, sink: &dyn Sink, outcome: Outcome) {
        let (entity, activation) = (delta.entity, delta.after.activation);
        match outcome {
            Outcome::Written => sink.durable(entity, activation, Tier::Checkpoint, delta.after.seq),
            Outcome::Fenced => {
                tracing::warn!(entity.id = %entity.id, entity.kind = entity.kind.as_str(), "a checkpoint was fenced");
                self.metrics.fenced();
                sink.lost(entity, activation);
            }
            Outcome::NoBase => sink.rebase(entity, activation),
            Outcome::NoFence => self.health.lose(&"the fences are gone"),
        }
    }
}

impl Writer<Delta> for CheckpointWriter {
    async fn write(&self, lane: &Lane<Delta>, batch: Vec<Entry<Delta>>) {
        let (deltas, sinks): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|entry| (entry.parcel, entry.sink))
            .unzip();
        if self.health.usable().is_some() {
            match self.write_all(&deltas).await {
                Ok(outcomes) => {
                    for ((delta, sink), outcome) in deltas.iter().zip(&sinks).zip(outcomes) {
                        self.tell(delta, sink.as_ref(), outcome);
                    }
                }
                Err(error) => self.health.lose(&error),
            }
        }
        for delta in &deltas {
            lane.done(delta);
        }
    }
}

/// Where an entity writes its checkpoints.
#[derive(Clone, Debug)]
pub struct CheckpointPen {
    /// Its lane.
    pub lane: Lane<Delta>,
    /// Whether it can be used.
    pub health: Arc<Health>,
}

/// A row that goes once the database has the decision.
struct Spent {
    seq: Seq,
    row: RowId,
    /// What it says until then, if not what it said before.
    over: Option<Vec<u8>>,
}

/// What an entity keeps for its checkpoints.
pub struct Checkpointing {
    pen: CheckpointPen,
    /// In which generation all of its rows were last written.
    complete_in: Option<Generation>,
    /// In the order of the decisions; bounded by what may wait for the database.
    spent: VecDeque<Spent>,
}

impl Checkpointing {
    /// Of an entity that has written nothing yet.
    #[must_use]
    pub fn new(pen: CheckpointPen) -> Self {
        Self {
            pen,
            complete_in: None,
            spent: VecDeque::new(),
        }
    }

    /// Has a decision written, of which `events` were applied to `machine`;
    /// the database has everything up to `stored`. `false` if checkpoints can't
    /// be used.
    pub fn submit<M: Checkpointed>(
        &mut self,
        machine: &M,
        decided: Decided,
        events: &[(Seq, M::Event)],
        stored: Seq,
        sink: &Arc<dyn Sink>,
    ) -> bool {
        let mut changes = RowChanges::new();
        for (_, event) in events {
            machine.checkpoint(event, &mut changes);
        }
        let mut gone: Vec<RowId> = Vec::new();
        while gone.len() < TRIMMED_MAX
            && let Some(spent) = self.spent.pop_front_if(|spent| spent.seq <= stored)
        {
            gone.push(spent.row);
        }
        for (row, change) in &changes {
            let over = match change {
                RowChange::Put(_) => continue,
                RowChange::Over(body) => Some(body.clone()),
                RowChange::Spent => None,
            };
            let (seq, row) = (decided.after.seq, row.clone());
            self.spent.push_back(Spent { seq, row, over });
        }
        let usable = self.pen.health.usable();
        let is_complete = usable.is_some() && usable == self.complete_in;
        self.complete_in = usable;
        if usable.is_none() {
            return false;
        }
        let spent = &self.spent;
        self.pen.lane.submit(decided, sink, |delta| {
            if is_complete {
                put(delta, changes, gone);
            } else {
                put_whole(delta, machine, spent);
            }
        });
        true
    }

    /// The next write carries all rows.
    pub fn forget(&mut self) {
        self.complete_in = None;
    }
}

fn put(delta: &mut Delta, changes: RowChanges, gone: Vec<RowId>) {
    for (row, change) in changes {
        match change {
            RowChange::Put(body) | RowChange::Over(body) => delta.put(row, body),
            RowChange::Spent => {}
        }
    }
    for row in gone {
        delta.remove(row);
    }
}

fn put_whole<M: Checkpointed>(delta: &mut Delta, machine: &M, spent: &VecDeque<Spent>) {
    delta.restart_whole();
    for (row, body) in machine.checkpoint_whole() {
        delta.put(row, body);
    }
    for Spent { row, over, .. } in spent {
        if let Some(body) = over {
            delta.put(row.clone(), body.clone());
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::lane::Lane;
    use crate::domain::decision::{Machine as _, step};
    use crate::domain::ids::{Activation, EntityId, PerformanceId, QueueTicketId, Stamp, UserId};
    use crate::domain::queue::policy::QueuePolicy;
    use crate::domain::queue::{Command, Queue, QueuePlan};
    use crate::domain::time::Timestamp;
    use crate::persistence::checkpoint::MemoryCheckpoints;
    use uuid::Uuid;

    const NOW: Timestamp = Timestamp(1_000_000);

    struct Nobody;

    impl Sink for Nobody {
        fn durable(&self, _: EntityId, _: Activation, _: Tier, _: Seq) {}
        fn rebase(&self, _: EntityId, _: Activation) {}
        fn lost(&self, _: EntityId, _: Activation) {}
    }

    struct Scene {
        checkpoints: Arc<Checkpoints>,
        checkpointing: Checkpointing,
        lane: Lane<Delta>,
        entity: EntityId,
        queue: Queue,
        before: Stamp,
    }

    impl Scene {
        async fn new() -> Self {
            let id = PerformanceId(Uuid::now_v7());
            let plan = QueuePlan {
                performance_id: id,
                policy: QueuePolicy {
                    max_active: Some(1),
                    ..QueuePolicy::PLAIN
                },
                opens_at: Timestamp(0),
                closes_at: Timestamp(i64::MAX),
                capacity: 10,
                places_max: 100_000,
                withdrawn: false,
            };
            let entity = EntityId::from(id);
            let checkpoints = Arc::new(Checkpoints::Memory(MemoryCheckpoints::default()));
            let fence = [(entity.shard(), Epoch(1))];
            checkpoints.raise_fences(&fence).await.unwrap();
            let health = Arc::new(Health::new());
            health.regain();
            let metrics = FlushMetrics::of_lane("checkpoint", 0);
            let writer =
                CheckpointWriter::new(Arc::clone(&checkpoints), Arc::clone(&health), metrics);
            let lane = Lane::start(writer, 512);
            let pen = CheckpointPen {
                lane: lane.clone(),
                health,
            };
            Self {
                checkpoints,
                checkpointing: Checkpointing::new(pen),
                lane,
                entity,
                queue: Queue::new(Arc::new(plan)),
                before: Stamp::default(),
            }
        }

        /// Somebody joins; the database has everything up to `stored`. Returns
        /// how many rows are kept then.
        async fn join(&mut self, stored: Seq) -> usize {
            let join = Command::Join {
                user: UserId(Uuid::now_v7()),
                ticket: QueueTicketId(Uuid::now_v7()),
                claim: None,
            };
            let mut seq = self.before.seq;
            let done = step(&mut self.queue, &mut seq, NOW, join);
            let after = Stamp {
                epoch: Epoch(1),
                activation: Activation(1),
                seq,
            };
            let decided = Decided {
                entity: self.entity,
                before: self.before,
                after,
                at: NOW,
                urgent: true,
            };
            self.queue.settle(stored);
            let sink: Arc<dyn Sink> = Arc::new(Nobody);
            let machine = &self.queue;
            let taken = self
                .checkpointing
                .submit(machine, decided, &done.events, stored, &sink);
            assert!(taken);
            self.before = after;
            self.lane.settled(self.entity).await;
            let kept = self.checkpoints.read(self.entity).await.unwrap().unwrap();
            assert_eq!(kept.upto, after);
            kept.rows.len()
        }
    }

    #[tokio::test]
    async fn of_a_queue_only_what_the_database_lacks_is_kept() {
        let mut scene = Scene::new().await;
        for joined in 1..=600 {
            assert_eq!(scene.join(Seq(0)).await, joined);
        }
        // The database has caught up: a few go with each decision.
        let stored = scene.before.seq;
        let mut kept = Vec::new();
        for _ in 0..4 {
            kept.push(scene.join(stored).await);
        }
        assert_eq!(kept, [601 - TRIMMED_MAX, 602 - 2 * TRIMMED_MAX, 3, 4]);
        // All rows again, after a gap: no more than those either.
        scene.checkpointing.forget();
        assert_eq!(scene.join(stored).await, 5);
    }
}
