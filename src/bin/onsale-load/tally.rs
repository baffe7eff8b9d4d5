//! What happened to the buyers, and how long each step took.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

/// The longest time that is told apart, in microseconds.
pub(crate) const LATENCY_MAX_US: u64 = 120_000_000;

/// What one buyer came away with.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Outcome {
    /// Seats and their tickets.
    Bought,
    /// The same, and gave some or all of it back.
    Cancelled,
    /// The server said no, by the rules.
    Refused(Refused),
    /// The server had too much to do, however often it was asked.
    Shed,
    /// The time of the run was up before the buyer's turn.
    OutOfTime,
    /// What should not happen, in a line.
    Failed(String),
}

/// Why the server said no.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Refused {
    /// Others were faster, each time.
    Taken,
    /// Nothing was left.
    SoldOut,
    /// The buyer has as many seats as one may have.
    Limit,
    /// Another problem, by its code.
    Other(String),
}

impl Outcome {
    fn label(&self) -> String {
        match self {
            Self::Bought => "bought".to_owned(),
            Self::Cancelled => "bought, then cancelled".to_owned(),
            Self::Refused(Refused::Taken) => "refused: taken".to_owned(),
            Self::Refused(Refused::SoldOut) => "refused: sold out".to_owned(),
            Self::Refused(Refused::Limit) => "refused: limit".to_owned(),
            Self::Refused(Refused::Other(code)) => format!("refused: {code}"),
            Self::Shed => "shed".to_owned(),
            Self::OutOfTime => "out of time".to_owned(),
            Self::Failed(why) => format!("failed: {why}"),
        }
    }
}

/// A request that a buyer makes, or the wait for the tickets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// `POST /performances/{id}/queue`
    Join,
    /// `GET /performances/{id}/queue`
    Poll,
    /// `DELETE /performances/{id}/queue`
    Leave,
    /// `GET /timetables/{id}/seats?since=`
    Map,
    /// `POST /timetables/{id}/holds`
    Hold,
    /// `DELETE /holds/{id}`
    Release,
    /// `POST /orders`
    Order,
    /// `GET /orders/{id}`
    LookUp,
    /// `GET /tickets/{id}`
    Ticket,
    /// `POST /orders/{id}/cancel`
    Cancel,
    /// From the order's answer until its tickets were seen.
    Issued,
}

/// Percentiles of one step, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) step: Step,
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

/// Everything that is counted. Shared by all buyers.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    outcomes: BTreeMap<Outcome, u64>,
    steps: BTreeMap<Step, Histogram<u64>>,
    /// Answers 429 and 503.
    shed_answers: u64,
    /// Holds that others were faster for.
    lost_races: u64,
    /// The order of each seat that was sold to a buyer of this run.
    sold: HashMap<String, String>,
    sold_twice: Vec<String>,
    orders: u64,
    revenue: i64,
    tickets: u64,
    cancels: u64,
    seats_back: u64,
    first_request: Option<Instant>,
    last_order: Option<Instant>,
}

/// The counts at one moment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) latencies: Vec<Latency>,
    pub(crate) orders: u64,
    pub(crate) seats: u64,
    pub(crate) tickets: u64,
    /// Less what was refunded.
    pub(crate) revenue: i64,
    pub(crate) cancels: u64,
    /// Those that were cancelled, and perhaps sold again.
    pub(crate) seats_back: u64,
    /// From the first request to the last order's answer.
    pub(crate) selling_seconds: f64,
    pub(crate) orders_per_second: f64,
    pub(crate) shed_answers: u64,
    pub(crate) lost_races: u64,
    pub(crate) failed: u64,
    /// Seats that were acknowledged to two orders: there must be none.
    pub(crate) sold_twice: Vec<String>,
}

impl Tally {
    pub(crate) fn took(&self, step: Step, took: Duration) {
        let mut counts = self.0.lock();
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        counts
            .steps
            .entry(step)
            .or_insert_with(histogram)
            .saturating_record(us.clamp(1, LATENCY_MAX_US));
        if counts.first_request.is_none() {
            let now = Instant::now();
            counts.first_request = Some(now.checked_sub(took).unwrap_or(now));
        }
    }

    pub(crate) fn shed(&self) {
        self.0.lock().shed_answers += 1;
    }

    pub(crate) fn lost_race(&self) {
        self.0.lock().lost_races += 1;
    }

    /// An order was confirmed. Each seat may be in one of them only.
    pub(crate) fn sold<'a>(
        &self,
        order: &str,
        amount: i64,
        seats: impl Iterator<Item = &'a String>,
    ) {
        let mut counts = self.0.lock();
        counts.orders += 1;
        counts.revenue += amount;
        counts.last_order = Some(Instant::now());
        for seat in seats {
            let before = counts.sold.insert(seat.clone(), order.to_owned());
            if before.is_some_and(|before| before != order) {
                counts.sold_twice.push(seat.clone());
            }
        }
    }

    /// These seats are about to be cancelled: somebody else may have them from now on.
    pub(crate) fn gives_back<'a>(&self, seats: impl Iterator<Item = &'a String>) {
        let mut counts = self.0.lock();
        for seat in seats {
            counts.sold.remove(seat);
        }
    }

    /// So many seats were cancelled.
    pub(crate) fn cancelled(&self, seats: usize, refunded: i64) {
        let mut counts = self.0.lock();
        counts.cancels += 1;
        counts.seats_back += seats as u64;
        counts.revenue -= refunded;
    }

    pub(crate) fn issued(&self, tickets: usize) {
        self.0.lock().tickets += tickets as u64;
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        *self.0.lock().outcomes.entry(outcome).or_default() += 1;
    }

    /// Seats sold and orders so far.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let counts = self.0.lock();
        (counts.sold.len() as u64, counts.orders)
    }

    pub(crate) fn summary(&self) -> Summary {
        let counts = self.0.lock();
        let selling = match (counts.first_request, counts.last_order) {
            (Some(first), Some(last)) => last.saturating_duration_since(first).as_secs_f64(),
            _ => 0.0,
        };
        let failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed(_));
        let outcomes = &counts.outcomes;
        Summary {
            outcomes: outcomes.iter().map(|(o, n)| (o.label(), *n)).collect(),
            latencies: counts.steps.iter().map(|(s, h)| latency(*s, h)).collect(),
            orders: counts.orders,
            seats: counts.sold.len() as u64,
            tickets: counts.tickets,
            revenue: counts.revenue,
            cancels: counts.cancels,
            seats_back: counts.seats_back,
            selling_seconds: selling,
            orders_per_second: if selling > 0.0 {
                counts.orders as f64 / selling
            } else {
                0.0
            },
            shed_answers: counts.shed_answers,
            lost_races: counts.lost_races,
            failed: outcomes
                .iter()
                .filter(|(o, _)| failed(o))
                .map(|(_, n)| n)
                .sum(),
            sold_twice: counts.sold_twice.clone(),
        }
    }
}

#[expect(clippy::expect_used, reason = "the bounds are constants")]
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("1 < max, and 3 digits are allowed")
}

fn latency(step: Step, histogram: &Histogram<u64>) -> Latency {
    let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Latency {
        step,
        count: histogram.len(),
        p50_ms: ms(0.5),
        p90_ms: ms(0.9),
        p99_ms: ms(0.99),
        p999_ms: ms(0.999),
        max_ms: histogram.max() as f64 / 1e3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_that_is_acknowledged_to_two_orders_is_found() {
        let tally = Tally::default();
        let seats = ["A-1-1".to_owned(), "A-1-2".to_owned()];
        tally.sold("one", 200, seats.iter());
        // The same order, learnt again after a lost answer.
        tally.sold("one", 200, seats.iter());
        assert!(tally.summary().sold_twice.is_empty());
        tally.sold("two", 100, seats.iter().take(1));
        assert_eq!(tally.summary().sold_twice, ["A-1-1"]);
    }

    #[test]
    fn a_seat_that_was_given_back_may_be_sold_again() {
        let tally = Tally::default();
        let seats = ["A-1-1".to_owned(), "A-1-2".to_owned()];
        tally.sold("one", 200, seats.iter());
        tally.gives_back(seats.iter().take(1));
        // Before its cancel is answered.
        tally.sold("two", 100, seats.iter().take(1));
        tally.cancelled(1, 100);
        let summary = tally.summary();
        assert!(summary.sold_twice.is_empty());
        assert_eq!(
            (summary.seats, summary.revenue, summary.seats_back),
            (2, 200, 1)
        );
        tally.sold("three", 100, seats.iter());
        assert_eq!(tally.summary().sold_twice.len(), 2);
    }

    #[test]
    fn only_failures_count_as_failed() {
        let tally = Tally::default();
        for outcome in [
            Outcome::Bought,
            Outcome::Refused(Refused::Taken),
            Outcome::Refused(Refused::Other("sale-closed".to_owned())),
            Outcome::Shed,
            Outcome::OutOfTime,
            Outcome::Failed("POST /orders: 500".to_owned()),
        ] {
            tally.ended(outcome);
        }
        let summary = tally.summary();
        assert_eq!(summary.failed, 1);
        assert_eq!(summary.outcomes["refused: sale-closed"], 1);
    }
}
