//! A write lane: one write in flight, and the next takes all that waits.
//!
//! There is no timer: an idle lane writes at once, and under load batches grow
//! by themselves, because more waits when the write before is done. What waits
//! coalesces by entity.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::monotonic;
use crate::domain::ids::{Activation, EntityId, Seq, Stamp};
use crate::domain::invariant::Invariant;
use crate::domain::time::Timestamp;
use crate::persistence::batch::Contribution;
use crate::persistence::sqlite::commit::Verdict;
use crate::persistence::{Store, StoreError};
use crate::telemetry::{self, FlushMetrics};

/// How long decisions that nobody waits for may wait for company: a hold that
/// is given back meanwhile is never written.
const LINGER: Duration = Duration::from_millis(10);

/// The first wait after a failed write, and the longest.
const BACKOFF_MIN_MS: u64 = 20;
const BACKOFF_MAX_MS: u64 = 1_000;

/// Who is told what became of an entity's contribution.
pub trait Sink: Send + Sync {
    /// It is in the database.
    fn durable(&self, entity: EntityId, activation: Activation, upto: Seq);
    /// It will never be: the entity's memory must be discarded.
    fn lost(&self, entity: EntityId, activation: Activation);
}

/// What an entity has decided.
#[derive(Clone, Copy, Debug)]
pub struct Decided {
    /// Which entity.
    pub entity: EntityId,
    /// The version that its stored rows have if nothing of it waits.
    pub before: Stamp,
    /// The version that they get.
    pub after: Stamp,
    /// When.
    pub at: Timestamp,
    /// A reply waits for it: it is written at once.
    pub urgent: bool,
}

/// How a lane is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A batch is closed once it has so many rows.
    pub batch_rows_max: usize,
    /// No new work is taken at the door while so many bytes wait.
    pub dirty_bytes_max: usize,
}

struct Entry {
    contribution: Contribution,
    sink: Arc<dyn Sink>,
}

#[derive(Default)]
struct Waiting {
    entries: HashMap<EntityId, Entry, RandomState>,
    /// The entities in the order in which they began to wait.
    order: VecDeque<EntityId>,
    in_flight: HashSet<EntityId, RandomState>,
    /// Somebody waits for something in it.
    urgent: bool,
}

struct Shared {
    waiting: Mutex<Waiting>,
    dirty_bytes: AtomicUsize,
    /// The last write did not fail.
    healthy: AtomicBool,
    wake: Notify,
    /// Told after each batch.
    written: Notify,
    /// Told after each batch that had something to publish.
    outbox: Arc<Notify>,
    options: Options,
    metrics: FlushMetrics,
}

/// A write lane. Cheap to clone.
#[derive(Clone)]
pub struct Lane {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("dirty_bytes", &self.dirty_bytes())
            .finish_non_exhaustive()
    }
}

impl Lane {
    /// Starts a lane that writes to `store` for the rest of the process.
    /// `outbox` is told when there may be events to publish.
    #[must_use]
    pub fn start(store: Store, options: Options, outbox: Arc<Notify>) -> Self {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            dirty_bytes: AtomicUsize::new(0),
            healthy: AtomicBool::new(true),
            wake: Notify::new(),
            written: Notify::new(),
            outbox,
            options,
            metrics: FlushMetrics::new(),
        });
        let lane = Self { shared };
        let running = tokio::spawn(lane.clone().run(store));
        tokio::spawn(async move {
            if running.await.is_err_and(|error| error.is_panic()) {
                // Nothing would ever be durable again: recover on the next start.
                tracing::error!("the write lane panicked; ending");
                std::process::exit(70);
            }
        });
        lane
    }

    /// Adds a decision to what waits; `record` puts the rows in.
    pub fn submit(
        &self,
        decided: Decided,
        sink: &Arc<dyn Sink>,
        record: impl FnOnce(&mut Contribution),
    ) {
        let Decided {
            entity,
            before,
            after,
            at,
            urgent,
        } = decided;
        let mut waiting = self.shared.waiting.lock();
        let wake = waiting.order.is_empty() || (urgent && !waiting.urgent);
        waiting.urgent |= urgent;
        let Waiting { entries, order, .. } = &mut *waiting;
        let mut bytes = 0;
        let entry = match entries.entry(entity) {
            Slot::Occupied(slot) => {
                let entry = slot.into_mut();
                bytes = entry.contribution.bytes();
                entry
            }
            Slot::Vacant(slot) => {
                order.push_back(entity);
                slot.insert(Entry {
                    contribution: Contribution::new(entity, before, after, at),
                    sink: Arc::clone(sink),
                })
            }
        };
        entry.contribution.after = after;
        entry.contribution.at = at;
        record(&mut entry.contribution);
        let now = entry.contribution.bytes();
        // Coalescing may have made it smaller. Under the lock, so that nothing is
        // taken off before it is added.
        let dirty = &self.shared.dirty_bytes;
        if now >= bytes {
            dirty.fetch_add(now - bytes, Ordering::Relaxed);
        } else {
            dirty.fetch_sub(bytes - now, Ordering::Relaxed);
        }
        drop(waiting);
        if wake {
            self.shared.wake.notify_one();
        }
        #[cfg(feature = "sabotage")]
        if std::env::var("ONSALE_SABOTAGE").as_deref() == Ok("ack-before-commit") {
            sink.durable(entity, after.activation, after.seq);
        }
    }

    /// Returns once nothing of `entity` waits or is being written.
    pub async fn settled(&self, entity: EntityId) {
        self.hurry();
        loop {
            let written = self.shared.written.notified();
            {
                let waiting = self.shared.waiting.lock();
                if !waiting.entries.contains_key(&entity) && !waiting.in_flight.contains(&entity) {
                    return;
                }
            }
            written.await;
        }
    }

    /// Returns once nothing waits or is being written.
    pub async fn drained(&self) {
        self.hurry();
        loop {
            let written = self.shared.written.notified();
            {
                let waiting = self.shared.waiting.lock();
                if waiting.entries.is_empty() && waiting.in_flight.is_empty() {
                    return;
                }
            }
            written.await;
        }
    }

    /// Has what waits written now, if anything does.
    fn hurry(&self) {
        let mut waiting = self.shared.waiting.lock();
        if !waiting.order.is_empty() {
            waiting.urgent = true;
            self.shared.wake.notify_one();
        }
    }

    /// How many bytes wait to be written, about.
    #[must_use]
    pub fn dirty_bytes(&self) -> usize {
        self.shared.dirty_bytes.load(Ordering::Relaxed)
    }

    /// Whether there is room for more.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.dirty_bytes() < self.shared.options.dirty_bytes_max
    }

    /// Whether the last write succeeded.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Relaxed)
    }

    async fn run(self, store: Store) {
        loop {
            self.gather().await;
            let batch = self.take();
            if batch.is_empty() {
                continue;
            }
            self.write(&store, batch).await;
            self.shared.waiting.lock().in_flight.clear();
            self.shared.written.notify_waiters();
        }
    }

    /// Returns once there is something to write: at once if somebody waits for
    /// it, else after a moment.
    async fn gather(&self) {
        let (waits, urgent) = {
            let waiting = self.shared.waiting.lock();
            (!waiting.order.is_empty(), waiting.urgent)
        };
        if !waits {
            self.shared.wake.notified().await;
        }
        if !urgent && !self.shared.waiting.lock().urgent {
            // Woken early only by something urgent.
            let _ = tokio::time::timeout(LINGER, self.shared.wake.notified()).await;
        }
    }

    /// Takes what waits, oldest entities first, up to the size of a batch.
    fn take(&self) -> Vec<Entry> {
        let mut waiting = self.shared.waiting.lock();
        let mut batch = Vec::new();
        let mut rows = 0;
        while rows < self.shared.options.batch_rows_max {
            let Some(entity) = waiting.order.pop_front() else {
                break;
            };
            let Some(entry) = waiting.entries.remove(&entity) else {
                continue;
            };
            rows += entry.contribution.rows();
            waiting.in_flight.insert(entity);
            batch.push(entry);
        }
        // What didn't fit is next, whoever waits for it.
        waiting.urgent = !waiting.order.is_empty();
        batch
    }

    /// Writes a batch, and what a bisection makes of it, to its end.
    async fn write(&self, store: &Store, batch: Vec<Entry>) {
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            let (contributions, sinks): (Vec<_>, Vec<_>) = part
                .into_iter()
                .map(|entry| (entry.contribution, entry.sink))
                .unzip();
            let contributions = Arc::new(contributions);
            match self.commit(store, &contributions).await {
                Ok(verdicts) => self.tell(&contributions, &sinks, &verdicts),
                Err(error) if contributions.len() == 1 => {
                    self.give_up(&contributions, &sinks, &error);
                }
                Err(error) => {
                    tracing::warn!(%error, rows = contributions.len(), "a batch was refused, bisecting it");
                    let contributions = Arc::unwrap_or_clone(contributions);
                    let mut halves: Vec<Entry> = contributions
                        .into_iter()
                        .zip(sinks)
                        .map(|(contribution, sink)| Entry { contribution, sink })
                        .collect();
                    let second = halves.split_off(halves.len() / 2);
                    parts.push(second);
                    parts.push(halves);
                }
            }
        }
    }

    /// Commits; repeats the very same batch for as long as the store is
    /// unavailable.
    async fn commit(
        &self,
        store: &Store,
        contributions: &Arc<Vec<Contribution>>,
    ) -> Result<Vec<Verdict>, StoreError> {
        let mut backoff_ms = BACKOFF_MIN_MS;
        loop {
            let begun = monotonic();
            let result = store.commit(Arc::clone(contributions)).await;
            match result {
                Ok(verdicts) => {
                    if !self.shared.healthy.swap(true, Ordering::Relaxed) {
                        tracing::info!("the store is available again");
                    }
                    let rows: usize = contributions.iter().map(Contribution::rows).sum();
                    let metrics = &self.shared.metrics;
                    metrics.seconds.record(begun.elapsed().as_secs_f64());
                    #[allow(clippy::cast_precision_loss, reason = "a metric")]
                    metrics.rows.record(rows as f64);
                    return Ok(verdicts);
                }
                Err(StoreError::Broken(error)) => {
                    tracing::error!(%error, "the store's file failed; ending, to recover on the next start");
                    std::process::exit(74);
                }
                Err(error) if error.is_transient() => {
                    self.shared.metrics.failed("unavailable");
                    if self.shared.healthy.swap(false, Ordering::Relaxed) {
                        tracing::warn!(%error, "the store is unavailable, writing will be retried");
                    }
                    let jitter =
                        u64::from(uuid::Uuid::new_v4().as_bytes()[0]) % (backoff_ms / 2 + 1);
                    tokio::time::sleep(Duration::from_millis(backoff_ms / 2 + jitter)).await;
                    backoff_ms = (backoff_ms * 2).min(BACKOFF_MAX_MS);
                }
                Err(error) => {
                    self.shared.metrics.failed("refused");
                    return Err(error);
                }
            }
        }
    }

    fn tell(&self, contributions: &[Contribution], sinks: &[Arc<dyn Sink>], verdicts: &[Verdict]) {
        let mut bytes = 0;
        let mut publishes = false;
        for ((contribution, sink), verdict) in contributions.iter().zip(sinks).zip(verdicts) {
            let Contribution { entity, after, .. } = contribution;
            bytes += contribution.bytes();
            publishes |= !contribution.outbox.is_empty();
            match verdict {
                Verdict::Written => sink.durable(*entity, after.activation, after.seq),
                Verdict::Fenced => {
                    tracing::warn!(entity.id = %entity.id, entity.kind = entity.kind.as_str(), "a write was fenced");
                    sink.lost(*entity, after.activation);
                }
            }
        }
        self.shared.dirty_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if publishes {
            self.shared.outbox.notify_one();
        }
    }

    /// One entity's contribution can't be written, ever: the others went
    /// through, and it starts again from what is stored.
    fn give_up(&self, contributions: &[Contribution], sinks: &[Arc<dyn Sink>], error: &StoreError) {
        for (contribution, sink) in contributions.iter().zip(sinks) {
            let Contribution { entity, after, .. } = contribution;
            tracing::error!(
                %error,
                entity.id = %entity.id,
                entity.kind = entity.kind.as_str(),
                "a contribution was refused; its entity is discarded and reloaded"
            );
            let broken = match error {
                StoreError::Constraint { constraint } if constraint.contains("sold_seat") => {
                    Invariant::I1
                }
                StoreError::Constraint { constraint } if constraint.contains("balance") => {
                    Invariant::I7
                }
                _ => Invariant::I9,
            };
            telemetry::invariant_violated(broken.id());
            self.shared
                .dirty_bytes
                .fetch_sub(contribution.bytes(), Ordering::Relaxed);
            sink.lost(*entity, after.activation);
        }
    }
}
