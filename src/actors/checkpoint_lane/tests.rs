use super::*;
use crate::domain::decision::{Machine as _, step};
use crate::domain::ids::{
    Activation, EntityId, Epoch, PerformanceId, QueueTicketId, Stamp, UserId,
};
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
        let writer = CheckpointWriter::new(Arc::clone(&checkpoints), Arc::clone(&health), metrics);
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
