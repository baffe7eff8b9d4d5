//! A write lane: one write in flight, and the next takes all that waits.
//!
//! There is no timer: an idle lane writes at once, and under load batches grow
//! by themselves, because more waits when the write before is done. What waits
//! coalesces by entity. Where it is written to is the [`Writer`]'s business:
//! [`super::sql_lane`] or [`super::checkpoint_lane`].

mod ties;

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::ties::Losses;
use crate::clock::monotonic;
use crate::domain::decision::Tier;
use crate::domain::ids::{Activation, EntityId, Seq, ShardSet, Stamp};
use crate::domain::invariant::Invariant;
use crate::domain::time::Timestamp;
use crate::persistence::batch::Tie;
use crate::telemetry;

/// How long decisions that nobody waits for may wait for company: a hold that
/// is given back meanwhile is never written.
const LINGER: Duration = Duration::from_millis(25);

/// Who is told what became of what an entity decided.
pub trait Sink: Send + Sync {
    /// All decisions up to `upto` are as durable as `tier` says.
    fn durable(&self, entity: EntityId, activation: Activation, tier: Tier, upto: Seq);
    /// It will never be: the entity's memory must be discarded.
    fn lost(&self, entity: EntityId, activation: Activation);
    /// The checkpoint doesn't have what this was to be added to: it wants all
    /// rows of the entity.
    fn rebase(&self, entity: EntityId, activation: Activation);
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

/// What a lane carries: all that one entity has decided since its last write.
pub trait Parcel: Send + Sync + 'static {
    /// An empty one, of the decisions from `decided` on.
    fn begin(decided: &Decided) -> Self;
    /// `decided` goes in, too.
    fn extend(&mut self, decided: &Decided);
    /// Whether `decided` is the next after what is in it, as far as it can tell.
    fn leads_to(&self, _decided: &Decided) -> bool {
        true
    }
    /// Whether it is enough for one write: what its entity decides next begins
    /// another, for a later one.
    fn is_full(&self) -> bool {
        false
    }
    /// What must not be written later than it.
    fn ties(&self) -> &[Tie] {
        &[]
    }
    /// How many rows it will write, about.
    fn rows(&self) -> usize;
    /// How much memory it takes, about, in bytes.
    fn bytes(&self) -> usize;
}

/// Where a lane writes to.
pub trait Writer<P: Parcel>: Send + Sync + 'static {
    /// Writes a batch to its end: when this returns, every sink has been told,
    /// or nobody needs to hear, and [`Lane::done`] was called for each parcel.
    fn write(&self, lane: &Lane<P>, batch: Vec<Entry<P>>) -> impl Future<Output = ()> + Send;
}

/// A parcel and who is told what became of it.
pub struct Entry<P> {
    /// Whose.
    pub entity: EntityId,
    /// What waits.
    pub parcel: P,
    /// Who is told.
    pub sink: Arc<dyn Sink>,
}

struct Waiting<P> {
    /// What each entity adds to.
    entries: HashMap<EntityId, Entry<P>, RandomState>,
    /// Parcels that are full, oldest first: before what their entity adds to.
    full: VecDeque<Entry<P>>,
    /// The entities in the order in which they began to wait, and since when.
    order: VecDeque<(EntityId, Instant)>,
    /// Since when the oldest of what is being written has waited.
    writing_since: Option<Instant>,
    in_flight: HashSet<EntityId, RandomState>,
    losses: Losses,
    /// Somebody waits for something in it.
    urgent: bool,
}

impl<P> Waiting<P> {
    /// The entities of which something waits or is being written.
    fn unwritten(&self) -> impl Iterator<Item = &EntityId> {
        let full = self.full.iter().map(|entry| &entry.entity);
        self.entries.keys().chain(full).chain(&self.in_flight)
    }

    /// Whether something of `entity` waits or is being written.
    fn has(&self, entity: EntityId) -> bool {
        self.entries.contains_key(&entity)
            || self.in_flight.contains(&entity)
            || self.full.iter().any(|entry| entry.entity == entity)
    }

    fn oldest_of(&mut self, entity: EntityId) -> Option<Entry<P>> {
        let is_its = |entry: &Entry<P>| entry.entity == entity;
        match self.full.iter().position(is_its) {
            Some(at) => self.full.remove(at),
            None => self.entries.remove(&entity),
        }
    }
}

struct Shared<P> {
    waiting: Mutex<Waiting<P>>,
    dirty_bytes: AtomicUsize,
    wake: Notify,
    /// Told after each batch.
    written: Notify,
    batch_rows_max: usize,
}

/// A write lane. Cheap to clone.
pub struct Lane<P> {
    shared: Arc<Shared<P>>,
}

impl<P> Clone for Lane<P> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<P> std::fmt::Debug for Lane<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field(
                "dirty_bytes",
                &self.shared.dirty_bytes.load(Ordering::Relaxed),
            )
            .finish_non_exhaustive()
    }
}

impl<P: Parcel> Lane<P> {
    /// Starts a lane that writes with `writer` for the rest of the process, in
    /// batches that are closed once they have `batch_rows_max` rows.
    #[must_use]
    pub fn start(writer: impl Writer<P>, batch_rows_max: usize) -> Self {
        let lane = Self::new(batch_rows_max);
        let running = tokio::spawn(lane.clone().run(writer));
        tokio::spawn(async move {
            if running.await.is_err_and(|error| error.is_panic()) {
                // Nothing would ever be durable again: recover on the next start.
                tracing::error!("a write lane panicked; ending");
                std::process::exit(70);
            }
        });
        lane
    }

    fn new(batch_rows_max: usize) -> Self {
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Waiting {
                entries: HashMap::default(),
                full: VecDeque::new(),
                order: VecDeque::new(),
                writing_since: None,
                in_flight: HashSet::default(),
                losses: Losses::default(),
                urgent: false,
            }),
            dirty_bytes: AtomicUsize::new(0),
            wake: Notify::new(),
            written: Notify::new(),
            batch_rows_max,
        });
        Self { shared }
    }

    /// Adds a decision to what waits; `record` puts the rows in. A decision that
    /// is not the next after what waits of its entity is of a twin (I9): it is
    /// not written, and its sink learns that it is lost.
    pub fn submit(&self, decided: Decided, sink: &Arc<dyn Sink>, record: impl FnOnce(&mut P)) {
        let mut waiting = self.shared.waiting.lock();
        let wake = waiting.order.is_empty() || (decided.urgent && !waiting.urgent);
        waiting.urgent |= decided.urgent;
        let Waiting {
            entries,
            full,
            order,
            losses,
            ..
        } = &mut *waiting;
        let begin = || Entry {
            entity: decided.entity,
            parcel: P::begin(&decided),
            sink: Arc::clone(sink),
        };
        let mut bytes = 0;
        let entry = match entries.entry(decided.entity) {
            Slot::Occupied(slot) => {
                let entry = slot.into_mut();
                if !entry.parcel.leads_to(&decided) {
                    telemetry::invariant_violated(Invariant::I9.id());
                    let (entity, activation) = (decided.entity, decided.after.activation);
                    losses.add(Tie { entity, activation });
                    return sink.lost(entity, activation);
                }
                if entry.parcel.is_full() {
                    full.push_back(std::mem::replace(entry, begin()));
                } else {
                    bytes = entry.parcel.bytes();
                }
                entry
            }
            Slot::Vacant(slot) => {
                order.push_back((decided.entity, monotonic()));
                slot.insert(begin())
            }
        };
        entry.parcel.extend(&decided);
        record(&mut entry.parcel);
        let now = entry.parcel.bytes();
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
    }

    /// Returns once nothing of `entity` waits or is being written.
    pub async fn settled(&self, entity: EntityId) {
        self.until(|waiting| !waiting.has(entity)).await;
    }

    /// Returns once nothing of the entities of `shards` waits or is being
    /// written.
    pub async fn settled_shards(&self, shards: &ShardSet) {
        self.until(|waiting| !waiting.unwritten().any(|of| shards.contains(of.shard())))
            .await;
    }

    /// Returns once nothing waits or is being written.
    pub async fn drained(&self) {
        self.until(|waiting| waiting.unwritten().next().is_none())
            .await;
    }

    async fn until(&self, is_done: impl Fn(&Waiting<P>) -> bool) {
        self.hurry();
        loop {
            let written = self.shared.written.notified();
            if is_done(&self.shared.waiting.lock()) {
                return;
            }
            written.await;
        }
    }

    /// Has what waits written now, if anything does.
    pub fn hurry(&self) {
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

    /// How long the oldest of what is not written yet has waited.
    #[must_use]
    pub fn dirty_age(&self) -> Duration {
        let waiting = self.shared.waiting.lock();
        let oldest = waiting.order.front().map(|(_, since)| *since);
        let oldest = waiting.writing_since.or(oldest);
        oldest.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Told by the writer, before its sink is: not all that `life` has decided is
    /// written, or ever will be.
    pub fn lose(&self, life: Tie) {
        self.shared.waiting.lock().losses.add(life);
    }

    /// Whether one of `ties` is to what was lost.
    #[must_use]
    pub fn has_lost(&self, ties: &[Tie]) -> bool {
        !ties.is_empty() && self.shared.waiting.lock().losses.any(ties)
    }

    /// Told by the writer: `parcel` takes no memory any more.
    pub fn done(&self, parcel: &P) {
        self.shared
            .dirty_bytes
            .fetch_sub(parcel.bytes(), Ordering::Relaxed);
    }

    async fn run(self, writer: impl Writer<P>) {
        loop {
            self.gather().await;
            let batch = self.take();
            if batch.is_empty() {
                continue;
            }
            writer.write(&self, batch).await;
            self.written();
            self.shared.written.notify_waiters();
        }
    }

    /// Nothing is in flight any more.
    fn written(&self) {
        let mut waiting = self.shared.waiting.lock();
        waiting.in_flight.clear();
        waiting.writing_since = None;
    }

    /// Returns once there is something to write: at once if somebody waits for
    /// it, else after a moment. A wake-up only says that what waits has changed:
    /// it may be of what the batch before took.
    async fn gather(&self) {
        while self.shared.waiting.lock().order.is_empty() {
            self.shared.wake.notified().await;
        }
        let lingered = tokio::time::sleep(LINGER);
        tokio::pin!(lingered);
        while !self.shared.waiting.lock().urgent {
            tokio::select! {
                () = &mut lingered => return,
                () = self.shared.wake.notified() => {}
            }
        }
    }

    /// Takes what waits, oldest entities first, up to the size of a batch.
    fn take(&self) -> Vec<Entry<P>> {
        let mut waiting = self.shared.waiting.lock();
        let (mut batch, mut again) = (Vec::new(), Vec::new());
        let mut rows = 0;
        while rows < self.shared.batch_rows_max {
            let Some((entity, since)) = waiting.order.pop_front() else {
                break;
            };
            if waiting.in_flight.contains(&entity) {
                // A write has one parcel of each; the others are next.
                again.push((entity, since));
                continue;
            }
            let Some(entry) = waiting.oldest_of(entity) else {
                continue;
            };
            if waiting.entries.contains_key(&entity) {
                again.push((entity, since));
            }
            rows += entry.parcel.rows();
            waiting.writing_since.get_or_insert(since);
            waiting.in_flight.insert(entity);
            batch.push(entry);
        }
        waiting.order.extend(again);
        waiting.keep_ties(&mut batch);
        // What didn't fit is next, whoever waits for it.
        waiting.urgent = !waiting.order.is_empty();
        batch
    }
}

#[cfg(test)]
mod tests;
