//! What is measured of sales: attempts by outcome, seats by status, events on
//! their way.

use metrics::{Counter, Gauge, counter, gauge};

use super::names::*;
use super::recorder;
use crate::domain::time::Timestamp;

/// How an attempt ended, counted by outcome. Outcomes are few and fixed:
/// `"ok"` or the code of a problem.
#[derive(Debug)]
pub struct Outcomes {
    name: &'static str,
    ok: Counter,
}

impl Outcomes {
    /// Those of holds.
    #[must_use]
    pub fn of_holds() -> Self {
        Self::new(HOLDS_TOTAL)
    }

    /// Those of orders.
    #[must_use]
    pub fn of_orders() -> Self {
        Self::new(ORDERS_TOTAL)
    }

    /// Those of cancels.
    #[must_use]
    pub fn of_cancels() -> Self {
        Self::new(CANCELS_TOTAL)
    }

    /// Those of claims of coupons.
    #[must_use]
    pub fn of_claims() -> Self {
        Self::new(COUPON_CLAIMS_TOTAL)
    }

    fn new(name: &'static str) -> Self {
        recorder();
        Self {
            name,
            ok: counter!(name, "outcome" => "ok"),
        }
    }

    /// Counts a success.
    pub fn ok(&self) {
        self.ok.increment(1);
    }

    /// Counts a refusal by its problem's code.
    pub fn refused(&self, code: &'static str) {
        counter!(self.name, "outcome" => code).increment(1);
    }
}

/// The seats of all loaded timetables by status. Not by timetable, of which
/// there may be any number.
#[derive(Clone, Debug)]
pub struct SeatMetrics {
    /// Seats anyone may hold.
    pub available: Gauge,
    /// Seats held.
    pub held: Gauge,
    /// Seats sold.
    pub sold: Gauge,
    /// Seats off sale.
    pub blocked: Gauge,
}

impl SeatMetrics {
    /// The gauges.
    #[must_use]
    pub fn new() -> Self {
        recorder();
        Self {
            available: gauge!(SEATS, "status" => "available"),
            held: gauge!(SEATS, "status" => "held"),
            sold: gauge!(SEATS, "status" => "sold"),
            blocked: gauge!(SEATS, "status" => "blocked"),
        }
    }
}

impl Default for SeatMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// What waits in the outbox, and since when.
#[allow(clippy::cast_precision_loss, reason = "a metric")]
pub fn outbox(events: u64, oldest: Option<Timestamp>, now: Timestamp) {
    let age_ms = oldest.map_or(0, |oldest| now.since(oldest).0.max(0));
    gauge!(OUTBOX_EVENTS).set(events as f64);
    gauge!(OUTBOX_AGE_SECONDS).set(age_ms as f64 / 1000.0);
}

/// How many live sockets this node has, and takes.
#[allow(clippy::cast_precision_loss, reason = "metrics")]
pub fn sockets(open: usize, limit: usize) {
    gauge!(SOCKETS).set(open as f64);
    gauge!(SOCKETS_LIMIT).set(limit as f64);
}

/// The bus begins: nothing is behind a hole, and no event of `topics` has died.
pub fn bus_began(topics: &[&'static str]) {
    recorder();
    gauge!(OUTBOX_BEHIND_EVENTS).set(0.0);
    for topic in topics {
        counter!(DEAD_LETTERS_TOTAL, "topic" => *topic).increment(0);
    }
}

/// An event died.
pub fn dead_letter(topic: &str) {
    counter!(DEAD_LETTERS_TOTAL, "topic" => topic.to_owned()).increment(1);
}

/// Counts a request that was refused for want of room.
pub fn shed(reason: &'static str) {
    counter!(SHED_TOTAL, "reason" => reason).increment(1);
}

/// Counts a broken invariant.
pub fn invariant_violated(id: &'static str) {
    counter!(INVARIANT_VIOLATIONS_TOTAL, "id" => id).increment(1);
}
