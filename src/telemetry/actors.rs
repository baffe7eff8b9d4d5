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
}

impl ActorMetrics {
    /// Those of the actors of `kind`.
    #[must_use]
    pub fn for_kind(kind: &'static str) -> Self {
        recorder();
        Self {
            messages: counter!(ACTOR_MESSAGES_TOTAL, "kind" => kind),
            handling_seconds: histogram!(ACTOR_HANDLING_SECONDS, "kind" => kind),
            mailbox: gauge!(ACTOR_MAILBOX_MESSAGES, "kind" => kind),
            live: gauge!(ACTORS_LIVE, "kind" => kind),
            restarts: counter!(ACTOR_RESTARTS_TOTAL, "kind" => kind),
            quarantined: gauge!(ENTITIES_QUARANTINED, "kind" => kind),
        }
    }
}

/// How long replies waited in gates until `tier` had been reached.
pub fn gate_wait(tier: &'static str) -> Histogram {
    recorder();
    histogram!(GATE_WAIT_SECONDS, "tier" => tier)
}

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

    /// Counts a failed write, by the class of its error.
    pub fn failed(&self, class: &'static str) {
        counter!(FLUSH_FAILURES_TOTAL, "tier" => self.tier, "class" => class).increment(1);
    }
}

/// Changes that wait to be written to the database, in bytes.
pub fn dirty_bytes(bytes: usize) {
    recorder();
    #[allow(clippy::cast_precision_loss, reason = "a metric")]
    gauge!(DIRTY_BYTES).set(bytes as f64);
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
