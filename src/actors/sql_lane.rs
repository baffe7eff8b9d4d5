//! The write lane of the database: a batch is one transaction, repeated for as
//! long as the store is unavailable, and bisected down to the culprit if the
//! store refuses it. Where some of it is tied to more of it, the batch is first
//! tried as a whole, and else those that are tied come last.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::lane::{Decided, Entry, Lane, Parcel, Sink, Writer};
use crate::clock::monotonic;
use crate::domain::decision::Tier;
use crate::domain::ids::EntityId;
use crate::domain::invariant::Invariant;
use crate::persistence::batch::{Contribution, Tie};
use crate::persistence::constraints::{A_BALANCE_IS_NEVER_BELOW_ZERO, A_SEAT_IS_SOLD_ONCE};
use crate::persistence::store::commit::Verdict;
use crate::persistence::{Store, StoreError};
#[cfg(feature = "sabotage")]
use crate::sabotage::{self, Point, Switch};
use crate::telemetry::{self, FlushMetrics};
use crate::trace::{Kind, Span};

/// How many rows of one entity are written at once, about: a crowd that joined a
/// queue while the store was away would be one statement that takes longer than
/// any may, and nobody else's writes would get through meanwhile.
const PARCEL_ROWS_MAX: usize = 16_384;

/// The first wait after a failed write, and the longest.
const BACKOFF_MIN_MS: u64 = 20;
const BACKOFF_MAX_MS: u64 = 1_000;

/// A write that takes so long may never end: the store is unavailable.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// For so long after its last good write a lane takes work that doesn't wait
/// for the database.
pub const OUTAGE_MAX: Duration = Duration::from_secs(30);

/// By how much a build that tells of passes too early does so, at least.
#[cfg(feature = "sabotage")]
const REVEALED_BEFORE: Duration = Duration::from_millis(50);

impl Parcel for Contribution {
    fn begin(decided: &Decided) -> Self {
        Self::new(decided.entity, decided.before, decided.after, decided.at)
    }

    fn extend(&mut self, decided: &Decided) {
        self.after = decided.after;
        self.at = decided.at;
    }

    fn leads_to(&self, decided: &Decided) -> bool {
        self.after == decided.before
    }

    fn is_full(&self) -> bool {
        Self::rows(self) >= PARCEL_ROWS_MAX
    }

    fn ties(&self) -> &[Tie] {
        &self.ties
    }

    fn rows(&self) -> usize {
        Self::rows(self)
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

/// How the writes of a lane have gone lately.
#[derive(Debug)]
pub struct Condition {
    healthy: AtomicBool,
    /// It has been unhealthy for [`OUTAGE_MAX`].
    worn_out: AtomicBool,
}

impl Condition {
    /// Of a lane that has written nothing yet: good.
    #[must_use]
    pub fn new() -> Self {
        Self {
            healthy: AtomicBool::new(true),
            worn_out: AtomicBool::new(false),
        }
    }

    /// Whether the last write succeeded, and none hangs.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Whether nothing could be written for [`OUTAGE_MAX`].
    #[must_use]
    pub fn is_worn_out(&self) -> bool {
        self.worn_out.load(Ordering::Relaxed)
    }

    /// Awaits `writing`, noting when it takes too long.
    async fn watch<T>(&self, writing: impl Future<Output = T>) -> T {
        let mut writing = std::pin::pin!(writing);
        let begun = monotonic();
        for (limit, note) in [(STALLED_AFTER, &self.healthy), (OUTAGE_MAX, &self.worn_out)] {
            match tokio::time::timeout_at(begun + limit, &mut writing).await {
                Ok(written) => return written,
                Err(_elapsed) => {
                    note.store(limit == OUTAGE_MAX, Ordering::Relaxed);
                    tracing::warn!(
                        duration_ms = limit.as_millis(),
                        "nothing could be written to the store for so long"
                    );
                }
            }
        }
        writing.await
    }

    fn failed(&self, error: &StoreError) {
        if self.healthy.swap(false, Ordering::Relaxed) {
            tracing::warn!(%error, "the store is unavailable, writing will be retried");
        }
    }

    fn succeeded(&self) {
        self.worn_out.store(false, Ordering::Relaxed);
        if !self.healthy.swap(true, Ordering::Relaxed) {
            tracing::info!("the store is available again");
        }
    }
}

impl Default for Condition {
    fn default() -> Self {
        Self::new()
    }
}

/// Commits batches.
pub struct SqlWriter {
    store: Store,
    condition: Arc<Condition>,
    /// Told after each batch that had something to publish.
    outbox: Arc<tokio::sync::Notify>,
    metrics: FlushMetrics,
}

impl SqlWriter {
    /// A writer to `store`, which tells `outbox` when there may be events to
    /// publish and keeps `condition` up to date.
    #[must_use]
    pub fn new(
        store: Store,
        condition: Arc<Condition>,
        outbox: Arc<tokio::sync::Notify>,
        metrics: FlushMetrics,
    ) -> Self {
        Self {
            store,
            condition,
            outbox,
            metrics,
        }
    }

    /// Commits; repeats the very same batch for as long as the store is
    /// unavailable.
    async fn commit(
        &self,
        contributions: &Arc<Vec<Contribution>>,
    ) -> Result<Vec<Verdict>, StoreError> {
        let mut backoff_ms = BACKOFF_MIN_MS;
        loop {
            let begun = self.begin().await;
            let result = self.store.commit(Arc::clone(contributions)).await;
            match result {
                Ok(verdicts) => {
                    self.succeeded(contributions, begun);
                    return Ok(verdicts);
                }
                Err(StoreError::Broken(error)) => {
                    tracing::error!(%error, "the store's file failed; ending, to recover on the next start");
                    std::process::exit(74);
                }
                Err(error) if error.is_transient() => {
                    self.metrics.failed("unavailable");
                    self.condition.failed(&error);
                    let jitter =
                        u64::from(uuid::Uuid::new_v4().as_bytes()[0]) % (backoff_ms / 2 + 1);
                    tokio::time::sleep(Duration::from_millis(backoff_ms / 2 + jitter)).await;
                    backoff_ms = (backoff_ms * 2).min(BACKOFF_MAX_MS);
                }
                Err(error) => {
                    self.metrics.failed("refused");
                    // It answered.
                    self.condition.succeeded();
                    return Err(error);
                }
            }
        }
    }

    /// Commits all of it, or nothing; tries once. Whether it is known to be written.
    async fn commit_together(&self, contributions: &Arc<Vec<Contribution>>) -> bool {
        let begun = self.begin().await;
        match self.store.commit_together(Arc::clone(contributions)).await {
            Ok(()) => {
                self.succeeded(contributions, begun);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "what is tied could not be written together");
                false
            }
        }
    }

    async fn begin(&self) -> Instant {
        let begun = monotonic();
        #[cfg(feature = "sabotage")]
        sabotage::pass(Point::Flush);
        #[cfg(feature = "sabotage")]
        if sabotage::is_on(Switch::RevealEarly) {
            // Else a kill would rarely come between.
            tokio::time::sleep(REVEALED_BEFORE).await;
        }
        begun
    }

    fn succeeded(&self, contributions: &[Contribution], begun: Instant) {
        #[cfg(feature = "sabotage")]
        sabotage::pass(Point::Committed);
        self.condition.succeeded();
        let rows = contributions.iter().map(Contribution::rows).sum();
        self.metrics.flushed(begun.elapsed(), rows);
        trace_write(contributions, begun.elapsed(), rows);
    }

    fn tell(&self, lane: &Lane<Contribution>, part: &Part, verdicts: &[Verdict]) {
        let mut publishes = false;
        for ((contribution, sink), verdict) in part.each().zip(verdicts) {
            let Contribution { entity, after, .. } = contribution;
            match verdict {
                Verdict::Written => {
                    lane.done(contribution);
                    publishes |= !contribution.outbox.is_empty();
                    sink.durable(*entity, after.activation, Tier::Database, after.seq);
                }
                Verdict::Fenced => {
                    tracing::warn!(entity.id = %entity.id, entity.kind = entity.kind.as_str(), "a write was fenced");
                    self.metrics.fenced();
                    lose(lane, contribution, sink);
                }
            }
        }
        if publishes {
            self.outbox.notify_one();
        }
    }

    /// Writes those of `part` that are tied to others of it in one commit with them,
    /// or, where that can't be, after them. The parts that are left to write, last
    /// one first.
    async fn write_tied(&self, lane: &Lane<Contribution>, part: Part) -> Vec<Part> {
        if self.commit_together(&part.contributions).await {
            self.tell(lane, &part, &vec![Verdict::Written; part.sinks.len()]);
            return Vec::new();
        }
        let (tied, free) = part.split(|contribution| !contribution.ties.is_empty());
        vec![tied, free]
    }
}

impl Writer<Contribution> for SqlWriter {
    async fn write(&self, lane: &Lane<Contribution>, batch: Vec<Entry<Contribution>>) {
        let mut parts = vec![Part::of(batch)];
        while let Some(part) = parts.pop() {
            let part = without_cut_off(lane, part);
            if part.sinks.is_empty() {
                continue;
            }
            if part.has_ties_within() {
                let left = self.condition.watch(self.write_tied(lane, part)).await;
                parts.extend(left);
                continue;
            }
            let committed = self.condition.watch(self.commit(&part.contributions)).await;
            match committed {
                Ok(verdicts) => self.tell(lane, &part, &verdicts),
                Err(error) if part.sinks.len() == 1 => give_up(lane, &part, &error),
                Err(error) => {
                    tracing::warn!(%error, rows = part.sinks.len(), "a batch was refused, bisecting it");
                    let mut left = part.sinks.len() / 2;
                    let (first, second) = part.split(|_| {
                        let is_first = left > 0;
                        left = left.saturating_sub(1);
                        is_first
                    });
                    parts.extend([second, first]);
                }
            }
        }
    }
}

/// A part of a batch, and who is told what became of each contribution.
struct Part {
    contributions: Arc<Vec<Contribution>>,
    sinks: Vec<Arc<dyn Sink>>,
}

impl Part {
    fn of(batch: Vec<Entry<Contribution>>) -> Self {
        let (contributions, sinks): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|entry| (entry.parcel, entry.sink))
            .unzip();
        Self {
            contributions: Arc::new(contributions),
            sinks,
        }
    }

    fn each(&self) -> impl Iterator<Item = (&Contribution, &Arc<dyn Sink>)> {
        self.contributions.iter().zip(&self.sinks)
    }

    fn has_ties_within(&self) -> bool {
        let mut ties = self.contributions.iter().flat_map(|c| &c.ties).peekable();
        if ties.peek().is_none() {
            return false;
        }
        let within: HashSet<EntityId, RandomState> =
            self.contributions.iter().map(|c| c.entity).collect();
        ties.any(|tie| within.contains(&tie.entity))
    }

    /// Those for which `is_first` holds, and the others.
    fn split(self, mut is_first: impl FnMut(&Contribution) -> bool) -> (Self, Self) {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let contributions = Arc::unwrap_or_clone(self.contributions);
        for (parcel, sink) in contributions.into_iter().zip(self.sinks) {
            let into = if is_first(&parcel) {
                &mut first
            } else {
                &mut second
            };
            into.push(Entry {
                entity: parcel.entity,
                parcel,
                sink,
            });
        }
        (Self::of(first), Self::of(second))
    }
}

/// What is tied to something that was lost can't be true: its entity starts again
/// from what is stored.
fn without_cut_off(lane: &Lane<Contribution>, part: Part) -> Part {
    if !part.contributions.iter().any(|c| lane.has_lost(&c.ties)) {
        return part;
    }
    let (cut_off, rest) = part.split(|contribution| lane.has_lost(&contribution.ties));
    for (contribution, sink) in cut_off.each() {
        let entity = contribution.entity;
        tracing::error!(
            entity.id = %entity.id,
            entity.kind = entity.kind.as_str(),
            "what a contribution was tied to is lost; its entity is discarded and reloaded"
        );
        lose(lane, contribution, sink);
    }
    rest
}

/// It will never be written.
fn lose(lane: &Lane<Contribution>, contribution: &Contribution, sink: &Arc<dyn Sink>) {
    let (entity, activation) = (contribution.entity, contribution.after.activation);
    lane.done(contribution);
    lane.lose(Tie { entity, activation });
    sink.lost(entity, activation);
}

/// Tells the traces of what was written how long that took.
fn trace_write(contributions: &[Contribution], took: Duration, rows: usize) {
    for trace in contributions.iter().flat_map(|written| &written.traces) {
        let mut span = Span::begin("commit", Kind::Internal, Some(trace)).since(took);
        span.tell("onsale.part", "lane");
        span.tell("onsale.rows", i64::try_from(rows).unwrap_or(i64::MAX));
    }
}

/// One entity's contribution can't be written, ever: the others went through,
/// and it starts again from what is stored.
fn give_up(lane: &Lane<Contribution>, part: &Part, error: &StoreError) {
    for (contribution, sink) in part.each() {
        let entity = contribution.entity;
        tracing::error!(
            %error,
            entity.id = %entity.id,
            entity.kind = entity.kind.as_str(),
            "a contribution was refused; its entity is discarded and reloaded"
        );
        let broken = match error {
            StoreError::Constraint { constraint } if constraint == A_SEAT_IS_SOLD_ONCE => {
                Invariant::I1
            }
            StoreError::Constraint { constraint }
                if constraint == A_BALANCE_IS_NEVER_BELOW_ZERO =>
            {
                Invariant::I7
            }
            _ => Invariant::I9,
        };
        telemetry::invariant_violated(broken.id());
        lose(lane, contribution, sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_write_that_hangs_is_noticed_and_in_the_end_nothing_more_is_taken() {
        let condition = Arc::new(Condition::new());
        let watched = Arc::clone(&condition);
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let writing = tokio::spawn(async move { watched.watch(finished).await });
        let mut seen = Vec::new();
        for seconds in [1, 1, 27, 2] {
            tokio::time::sleep(Duration::from_secs(seconds) - Duration::from_millis(1)).await;
            seen.push((condition.is_healthy(), condition.is_worn_out()));
        }
        assert_eq!(
            seen,
            [(true, false), (false, false), (false, false), (false, true)]
        );
        finish.send(()).unwrap();
        writing.await.unwrap().unwrap();
        condition.succeeded();
        assert!(condition.is_healthy() && !condition.is_worn_out());
    }
}
