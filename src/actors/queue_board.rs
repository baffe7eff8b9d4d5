//! What a waiting room publishes: who is where in the line, whose passes are
//! over, its figures.
//!
//! The actor writes it before any reply leaves; readers never reach the actor.
//! On a node that doesn't own the queue it has a copy of the passes that are
//! over, which knows its age.

pub mod copy;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::ids::{Activation, Epoch, PerformanceId, ShardSet, UserId, shard_of};
use crate::domain::queue::line::{Line, LineDelta, TicketNumber};
use crate::domain::queue::revoked::Revoked;
use crate::domain::queue::{News, Pace, Queue, Summary};
use crate::domain::time::{Millis, Timestamp};

/// How many changes of the line, and how many lists of news, are kept for
/// followers; who is further behind takes the whole.
const KEPT_MAX: usize = 128;

/// The bits of a line's version that count within an epoch, and those of the
/// epoch: it rises over restarts and take-overs, and stays below 2^53.
const COUNTER_BITS: u32 = 32;
const EPOCH_MASK: u64 = (1 << 21) - 1;

/// How often passes that have ended by themselves are looked for.
const PRUNE_EVERY: Millis = Millis::from_secs(10);

/// One life of a queue in memory: its versions begin anew with each.
pub type Life = (Epoch, Activation);

/// What followers of a queue are told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Of which life.
    pub life: Life,
    /// One more each time.
    pub version: u64,
    /// The figures, as of then.
    pub summary: Summary,
    /// What waits are foretold by; `None` if nobody enters.
    pub pace: Option<Pace>,
    /// The last changes of the line, oldest first, each following on the one
    /// before it.
    pub deltas: VecDeque<Arc<LineDelta>>,
    /// Who stands otherwise than before, with the version that told it, oldest
    /// first.
    pub news: VecDeque<(u64, Arc<News>)>,
}

/// Passes that are over before the time that is signed into them.
#[derive(Debug, Default)]
struct Passes {
    source: Source,
    life: Life,
    version: u64,
    /// The version that each came with, and when it would have ended.
    over: HashMap<(UserId, TicketNumber), (u64, Timestamp), RandomState>,
    pruned_at: Timestamp,
}

/// Where the set of passes comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Source {
    /// The queue isn't in memory here: nothing is known.
    #[default]
    Cold,
    /// From the queue itself.
    Here,
    /// From the node that owns it, at this moment.
    Copied(Instant),
}

/// What another node has of the set.
pub type Known = (Life, u64);

/// Passes that are over, on their way to another node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PassesCopy {
    life: Life,
    version: u64,
    /// These are all, not only those since the version that was asked about.
    whole: bool,
    over: Vec<Revoked>,
}

/// What one queue publishes.
#[derive(Debug)]
pub struct QueueBoard {
    id: PerformanceId,
    /// Held while a copy is fetched from the owner.
    pub copying: tokio::sync::Mutex<()>,
    passes: RwLock<Passes>,
    line: RwLock<Line>,
    /// `None` until the queue is loaded here.
    told: watch::Sender<Option<Arc<Told>>>,
    /// Something may have happened since it was last told.
    stirred: AtomicBool,
}

impl QueueBoard {
    fn cold(id: PerformanceId) -> Self {
        Self {
            id,
            copying: tokio::sync::Mutex::default(),
            passes: RwLock::default(),
            line: RwLock::default(),
            told: watch::Sender::new(None),
            stirred: AtomicBool::new(false),
        }
    }

    /// Of which performance.
    #[must_use]
    pub fn id(&self) -> PerformanceId {
        self.id
    }

    /// The queue was loaded, and begins a new life; the versions of its line go
    /// on.
    pub fn load(&self, queue: &mut Queue, life: Life, now: Timestamp) {
        let over = queue.revoked().since(0);
        let over = over.map(|pass| ((pass.user, pass.number), (pass.version, pass.until)));
        *self.passes.write() = Passes {
            source: Source::Here,
            life,
            version: queue.revoked().version(),
            over: over.collect(),
            pruned_at: now,
        };
        let _ = queue.take_delta();
        let _ = queue.take_news();
        let mut line = self.line.write();
        // Above all that an earlier life has told, in this epoch, too.
        let (epoch, _) = life;
        let first = (u64::from(epoch.0) & EPOCH_MASK) << COUNTER_BITS;
        queue.number_line_from(first.max(line.seq() + 1));
        *line = queue.line().snapshot().into();
        drop(line);
        self.stirred.store(false, Ordering::Relaxed);
        let told = Told {
            life,
            version: 0,
            summary: queue.summary(now),
            pace: queue.pace(now),
            deltas: VecDeque::new(),
            news: VecDeque::new(),
        };
        self.told.send_replace(Some(Arc::new(told)));
    }

    /// The queue may have changed: passes that are over now are so for everyone
    /// when this returns. The rest is told by [`QueueBoard::tell`].
    pub fn stir(&self, queue: &Queue, now: Timestamp) {
        self.stirred.store(true, Ordering::Relaxed);
        let revoked = queue.revoked();
        if self.passes.read().version == revoked.version() {
            return;
        }
        let mut passes = self.passes.write();
        let since = passes.version;
        passes.take(revoked.since(since).copied(), revoked.version(), now);
    }

    /// Tells followers all that has happened since it was last told.
    pub fn tell(&self, queue: &mut Queue, now: Timestamp) {
        // What becomes durable later is told then.
        self.stirred.store(queue.is_settling(), Ordering::Relaxed);
        let Some(before) = self.told.borrow().clone() else {
            return;
        };
        let mut told = Told::clone(&before);
        told.version += 1;
        told.summary = queue.summary(now);
        told.pace = queue.pace(now);
        if let Some(delta) = queue.take_delta() {
            let mut line = self.line.write();
            if line.follow(&delta).is_err() {
                *line = queue.line().snapshot().into();
                told.deltas.clear();
            }
            drop(line);
            push_bounded(&mut told.deltas, Arc::new(delta));
        }
        let news = queue.take_news();
        if news.all || !news.users.is_empty() {
            push_bounded(&mut told.news, (told.version, Arc::new(news)));
        }
        self.told.send_replace(Some(Arc::new(told)));
    }

    /// Whether something may have happened that was not told yet.
    #[must_use]
    pub fn is_stirred(&self) -> bool {
        self.stirred.load(Ordering::Relaxed)
    }

    /// What was told last, and when more is; `None` until the queue is loaded
    /// on this node.
    #[must_use]
    pub fn told(&self) -> watch::Receiver<Option<Arc<Told>>> {
        self.told.subscribe()
    }

    /// The figures, if the queue lives on this node.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        let is_here = self.is_loaded();
        let told = self.told.borrow();
        told.as_ref().filter(|_| is_here).map(|told| told.summary)
    }

    /// Which of its lives the queue is in, if it lives on this node.
    #[must_use]
    pub fn life(&self) -> Option<Life> {
        let passes = self.passes.read();
        (passes.source == Source::Here).then_some(passes.life)
    }

    /// Looks something up in the line as it was last told.
    pub fn with_line<T>(&self, look: impl FnOnce(&Line) -> T) -> T {
        look(&self.line.read())
    }

    /// Whether the queue itself keeps it up to date.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.passes.read().source == Source::Here
    }

    /// The queue is another node's, or comes anew: nothing is known.
    pub fn cool(&self) {
        self.passes.write().source = Source::Cold;
    }

    /// Whether the passes of a user's place are over before their time; `None`
    /// if the queue doesn't live on this node.
    #[must_use]
    pub fn is_over(&self, user: UserId, number: TicketNumber) -> Option<bool> {
        let passes = self.passes.read();
        let is_known = passes.source == Source::Here;
        is_known.then(|| passes.over.contains_key(&(user, number)))
    }

    /// The same, by a copy that was taken less than `age` ago.
    #[must_use]
    pub fn is_over_in_copy(
        &self,
        user: UserId,
        number: TicketNumber,
        age: Duration,
    ) -> Option<bool> {
        let passes = self.passes.read();
        let is_known = matches!(passes.source, Source::Copied(at) if at.elapsed() < age);
        is_known.then(|| passes.over.contains_key(&(user, number)))
    }

    /// What a node without the queue has, to ask its owner for the rest.
    #[must_use]
    pub fn known(&self) -> Option<Known> {
        let passes = self.passes.read();
        matches!(passes.source, Source::Copied(_)).then_some((passes.life, passes.version))
    }

    /// The passes for another node that has `known`.
    #[must_use]
    pub fn copy_since(&self, known: Option<Known>) -> PassesCopy {
        let passes = self.passes.read();
        let since =
            known.filter(|(life, version)| *life == passes.life && *version <= passes.version);
        let from = since.map_or(0, |(_, version)| version);
        let newer = passes.over.iter();
        let newer = newer.filter(|(_, (version, _))| *version > from);
        PassesCopy {
            life: passes.life,
            version: passes.version,
            whole: since.is_none(),
            over: newer
                .map(|(&(user, number), &(version, until))| Revoked {
                    version,
                    user,
                    number,
                    until,
                })
                .collect(),
        }
    }

    /// Takes the copy that the owner gave at `at`, for who has `known`. `false`
    /// if it doesn't fit: then the whole is needed.
    pub fn copy(
        &self,
        known: Option<Known>,
        copy: PassesCopy,
        at: Instant,
        now: Timestamp,
    ) -> bool {
        let mut passes = self.passes.write();
        if passes.source == Source::Here {
            // It has come here meanwhile.
            return true;
        }
        if copy.whole {
            passes.over.clear();
        } else if known != Some((passes.life, passes.version)) {
            return false;
        }
        passes.life = copy.life;
        passes.source = Source::Copied(at);
        passes.take(copy.over.into_iter(), copy.version, now);
        true
    }
}

impl Passes {
    fn take(&mut self, over: impl Iterator<Item = Revoked>, version: u64, now: Timestamp) {
        let over = over.map(|pass| ((pass.user, pass.number), (pass.version, pass.until)));
        self.over.extend(over);
        self.version = version;
        if now.since(self.pruned_at) >= PRUNE_EVERY {
            self.pruned_at = now;
            self.over.retain(|_, (_, until)| *until > now);
        }
    }
}

fn push_bounded<T>(into: &mut VecDeque<T>, value: T) {
    if into.len() >= KEPT_MAX {
        into.pop_front();
    }
    into.push_back(value);
}

/// What all queues publish.
#[derive(Debug, Default)]
pub struct QueueBoards(DashMap<PerformanceId, Arc<QueueBoard>, RandomState>);

impl QueueBoards {
    /// What the queue of a performance publishes.
    #[must_use]
    pub fn open(&self, id: PerformanceId) -> Arc<QueueBoard> {
        if let Some(board) = self.0.get(&id) {
            return Arc::clone(&board);
        }
        let board = self.0.entry(id);
        Arc::clone(&board.or_insert_with(|| Arc::new(QueueBoard::cold(id))))
    }

    /// The queues of `shards` are another node's, or come anew.
    pub fn cool(&self, shards: &ShardSet) {
        for board in &self.0 {
            if shards.contains(shard_of(board.id.0)) {
                board.cool();
            }
        }
    }

    /// The figures of the queues that live on this node.
    #[must_use]
    pub fn summaries(&self) -> Vec<(PerformanceId, Summary)> {
        let boards = self.0.iter();
        boards
            .filter_map(|board| Some((board.id, board.summary()?)))
            .collect()
    }
}

#[cfg(test)]
mod tests;
