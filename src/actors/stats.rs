//! What is counted of one actor: for operators, and for nothing else.
//!
//! The actor alone writes it, between two messages, so that an increment is a
//! load and a store of its own cache line, without a lock or an allocation;
//! anybody may read it at any time. Only the depth of the mailbox is counted by
//! senders, too.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::monotonic;

/// Times below this many nanoseconds share the first bucket.
const FIRST_NS: u64 = 256;

/// The power of two of [`FIRST_NS`].
const FIRST_BITS: u32 = FIRST_NS.trailing_zeros();

/// So many buckets between a power of two and the next: what is read from them
/// is at most a quarter too high.
const STEPS: usize = 4;

/// The powers of two between [`FIRST_NS`] and 17 s, beyond which nothing is
/// told apart.
const OCTAVES: usize = 26;

const BUCKETS: usize = 1 + STEPS * OCTAVES;

/// How long messages took, in buckets that widen with the time.
#[derive(Debug)]
struct Times([AtomicU64; BUCKETS]);

impl Times {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    fn record(&self, ns: u64) {
        increment(&self.0[bucket_of(ns)], 1);
    }

    /// The time that `share` of all were done within; 0 without any.
    fn quantile_ns(&self, share: f64) -> u64 {
        let counts: Vec<u64> = self.0.iter().map(|b| b.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count, for people to read"
        )]
        let wanted = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                return upper_bound_ns(index);
            }
        }
        0
    }
}

fn bucket_of(ns: u64) -> usize {
    if ns < FIRST_NS {
        return 0;
    }
    let octave = ns.ilog2() - FIRST_BITS;
    // The two bits below the highest say which of the four steps.
    let step = (ns >> (ns.ilog2() - STEPS.trailing_zeros())) as usize % STEPS;
    (1 + octave as usize * STEPS + step).min(BUCKETS - 1)
}

fn upper_bound_ns(bucket: usize) -> u64 {
    let Some(index) = bucket.checked_sub(1) else {
        return FIRST_NS;
    };
    let octave = FIRST_NS << (index / STEPS);
    let steps = (index % STEPS + 1) as u64;
    octave + octave / STEPS as u64 * steps
}

/// What is counted of one actor.
#[derive(Debug)]
pub struct ActorStats {
    /// Requests in the mailbox: written by who sends them, too.
    depth: AtomicUsize,
    messages: AtomicU64,
    busy_ns: AtomicU64,
    times: Times,
    restarts: AtomicU32,
    entities: AtomicUsize,
    loading: AtomicUsize,
    quarantined: AtomicUsize,
    began: Instant,
}

impl ActorStats {
    /// Of an actor that begins now, in the place of one that had restarted so
    /// often.
    #[must_use]
    pub fn new(restarts: u32) -> Self {
        Self {
            depth: AtomicUsize::new(0),
            messages: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            times: Times::new(),
            restarts: AtomicU32::new(restarts),
            entities: AtomicUsize::new(0),
            loading: AtomicUsize::new(0),
            quarantined: AtomicUsize::new(0),
            began: monotonic(),
        }
    }

    /// A request is put into the mailbox.
    pub fn sent(&self) {
        self.depth.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was taken out of it, or did not get in.
    pub fn taken(&self) {
        self.depth.fetch_sub(1, Ordering::Relaxed);
    }

    /// A message was handled in so long; so many entities are in memory now.
    pub fn handled(&self, took: Duration, entities: usize) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        increment(&self.messages, 1);
        increment(&self.busy_ns, ns);
        self.times.record(ns);
        self.entities.store(entities, Ordering::Relaxed);
    }

    /// An entity is being read.
    pub fn loading(&self) {
        let loading = self.loading.load(Ordering::Relaxed);
        self.loading.store(loading + 1, Ordering::Relaxed);
    }

    /// An entity has been read, or could not be.
    pub fn loaded(&self) {
        let loading = self.loading.load(Ordering::Relaxed);
        self.loading
            .store(loading.saturating_sub(1), Ordering::Relaxed);
    }

    /// An entity was discarded, to be read again.
    pub fn restarted(&self) {
        let restarts = self.restarts.load(Ordering::Relaxed);
        self.restarts
            .store(restarts.saturating_add(1), Ordering::Relaxed);
    }

    /// An entity is not read again.
    pub fn quarantined(&self) {
        let quarantined = self.quarantined.load(Ordering::Relaxed);
        self.quarantined.store(quarantined + 1, Ordering::Relaxed);
    }

    /// How many requests are in the mailbox.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    /// How often an entity of it was discarded.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// How many messages it has handled, and in how many nanoseconds.
    #[must_use]
    pub fn work(&self) -> (u64, u64) {
        let messages = self.messages.load(Ordering::Relaxed);
        (messages, self.busy_ns.load(Ordering::Relaxed))
    }

    /// All of it, as it is now.
    #[must_use]
    pub fn read(&self) -> Reading {
        let (messages, busy_ns) = self.work();
        Reading {
            depth: self.depth(),
            messages,
            busy_ns,
            mean_ns: busy_ns.checked_div(messages).unwrap_or(0),
            p50_ns: self.times.quantile_ns(0.5),
            p99_ns: self.times.quantile_ns(0.99),
            restarts: self.restarts(),
            entities: self.entities.load(Ordering::Relaxed),
            loading: self.loading.load(Ordering::Relaxed),
            quarantined: self.quarantined.load(Ordering::Relaxed),
            uptime: self.began.elapsed(),
        }
    }
}

/// What was counted, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Requests in the mailbox.
    pub depth: usize,
    /// Messages handled.
    pub messages: u64,
    /// Time spent on them.
    pub busy_ns: u64,
    /// The mean of it.
    pub mean_ns: u64,
    /// The time that half of them were done within; at most a quarter too high.
    pub p50_ns: u64,
    /// The time that 99 % of them were done within; at most a quarter too high.
    pub p99_ns: u64,
    /// How often an entity was discarded and read again, or the actor started
    /// anew.
    pub restarts: u32,
    /// Entities in memory, or on their way there.
    pub entities: usize,
    /// Those of them that are being read.
    pub loading: usize,
    /// Entities that aren't read again until the process starts anew.
    pub quarantined: usize,
    /// Since it began.
    pub uptime: Duration,
}

/// There is one writer, so that nothing is lost between the two.
fn increment(counter: &AtomicU64, by: u64) {
    let value = counter.load(Ordering::Relaxed).wrapping_add(by);
    counter.store(value, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_bucket_that_is_at_most_a_quarter_too_high() {
        let mut last = 0;
        for ns in (0..40).flat_map(|bits| {
            let power = 1u64 << bits;
            [power, power + power / 3, power + power / 2, 2 * power - 1]
        }) {
            let bucket = bucket_of(ns);
            assert!(bucket >= last && bucket < BUCKETS, "{ns}");
            last = bucket;
            if (FIRST_NS..FIRST_NS << OCTAVES).contains(&ns) {
                let bound = upper_bound_ns(bucket);
                assert!(bound > ns && bound - ns <= ns.div_ceil(4), "{ns}: {bound}");
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn what_was_handled_is_told_by_its_count_its_mean_and_its_quantiles() {
        let stats = ActorStats::new(2);
        assert_eq!(stats.read().p99_ns, 0);
        for micros in 1..=100 {
            stats.handled(Duration::from_micros(micros), 7);
        }
        stats.restarted();
        let read = stats.read();
        assert_eq!((read.messages, read.entities, read.restarts), (100, 7, 3));
        assert_eq!(read.mean_ns, 50_500);
        assert!((50_000..=62_500).contains(&read.p50_ns), "{}", read.p50_ns);
        assert!((99_000..=123_750).contains(&read.p99_ns), "{}", read.p99_ns);
    }
}
