//! What is measured of actors, gates and write lanes.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::names::*;
use super::recorder;

/// What is measured of the actors of one kind.
#[derive(Clone, Debug)]
pub struct ActorMetrics {
    /// Messages handled.
    pub messages: Counter,
    /// Time to handle one, in seconds.
    pub handling_seconds: Histogram,
    /// Messages in the mailboxes.
    pub mailbox: Gauge,
    /// Actors that live.
    pub live: Gauge,
    /// Actors discarded and loaded anew.
    pub restarts: Counter,
    /// Entities whose gate stays broken.
    pub quarantined: Gauge,
    /// Requests under way at all actors.
    pub permits_used: Gauge,
    /// Requests under way at the fullest actor.
    pub permits_used_fullest: Gauge,
    /// Requests that may be under way at one actor.
    pub permits_limit: Gauge,
}

impl ActorMetrics {
    /// Those of the actors of `kind`.
    #[must_use]
    pub fn for_kind(kind: &'static str) -> Self {
        recorder();
        counter!(SHED_TOTAL, "reason" => kind).increment(0);
        Self {
            messages: counter!(ACTOR_MESSAGES_TOTAL, "kind" => kind),
            handling_seconds: histogram!(ACTOR_HANDLING_SECONDS, "kind" => kind),
            mailbox: gauge!(ACTOR_MAILBOX_MESSAGES, "kind" => kind),
            live: gauge!(ACTORS, "kind" => kind),
            restarts: counter!(ACTOR_RESTARTS_TOTAL, "kind" => kind),
            quarantined: gauge!(QUARANTINED_ENTITIES, "kind" => kind),
            permits_used: gauge!(PERMITS_USED, "kind" => kind),
            permits_used_fullest: gauge!(PERMITS_USED_FULLEST, "kind" => kind),
            permits_limit: gauge!(PERMITS_LIMIT, "kind" => kind),
        }
    }
}

/// How long replies waited in gates until `tier` had been reached.
pub fn gate_wait(tier: &'static str) -> Histogram {
    recorder();
    histogram!(GATE_WAIT_SECONDS, "tier" => tier)
}

/// The classes of errors of a write: it will be repeated, or not.
const FAILURE_CLASSES: [&str; 2] = ["unavailable", "refused"];

/// What is measured of a write lane.
#[derive(Clone, Debug)]
pub struct FlushMetrics {
    tier: &'static str,
    seconds: Histogram,
    rows: Histogram,
}

impl FlushMetrics {
    /// Those of lane `number` of a tier.
    #[must_use]
    pub fn of_lane(tier: &'static str, number: usize) -> Self {
        recorder();
        counter!(FENCED_WRITES_TOTAL, "tier" => tier).increment(0);
        for class in FAILURE_CLASSES {
            counter!(FLUSH_FAILURES_TOTAL, "tier" => tier, "class" => class).increment(0);
        }
        let lane = number.to_string();
        Self {
            tier,
            seconds: histogram!(FLUSH_SECONDS, "tier" => tier, "lane" => lane.clone()),
            rows: histogram!(FLUSH_ROWS, "tier" => tier, "lane" => lane),
        }
    }

    /// A write of so many rows took so long.
    pub fn flushed(&self, took: Duration, rows: usize) {
        self.seconds.record(took.as_secs_f64());
        #[allow(clippy::cast_precision_loss, reason = "a metric")]
        self.rows.record(rows as f64);
    }

    /// Counts a write that another life of its entity has forestalled.
    pub fn fenced(&self) {
        counter!(FENCED_WRITES_TOTAL, "tier" => self.tier).increment(1);
    }

    /// Counts a failed write, by the class of its error.
    pub fn failed(&self, class: &'static str) {
        counter!(FLUSH_FAILURES_TOTAL, "tier" => self.tier, "class" => class).increment(1);
    }
}

/// Changes that wait to be written to the database: their bytes, how many there
/// may be, and how long the oldest has waited.
#[allow(clippy::cast_precision_loss, reason = "metrics")]
pub fn dirty(bytes: usize, limit: usize, age: Duration) {
    recorder();
    gauge!(DIRTY_BYTES).set(bytes as f64);
    gauge!(DIRTY_LIMIT_BYTES).set(limit as f64);
    gauge!(DIRTY_AGE_SECONDS).set(age.as_secs_f64());
}

/// Whether checkpoints can be used.
pub fn checkpoint_usable(usable: bool) {
    recorder();
    gauge!(CHECKPOINT_USABLE).set(if usable { 1.0 } else { 0.0 });
}

/// Counts a reply of tier checkpoint that waits for the database instead.
pub fn checkpoint_fallback() {
    counter!(CHECKPOINT_FALLBACKS_TOTAL).increment(1);
}

/// Counts an entity whose checkpoint could not be read.
pub fn recovered_without_checkpoint() {
    counter!(CHECKPOINT_UNREAD_TOTAL).increment(1);
}
