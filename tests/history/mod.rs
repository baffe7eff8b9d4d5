//! What clients did and were told, and the check of it against what the server
//! says later.
//!
//! A call is recorded when it is sent and again when its outcome is known; a
//! call whose answer never came may or may not have happened. From that
//! follows what a server that keeps its promises may show, and everything else
//! is a [`Finding`]. The check knows nothing of how the server works.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Index of a customer.
pub(crate) type User = usize;

/// A hold that is acknowledged from memory is written within milliseconds; one
/// that was acknowledged so long before a crash must have survived it.
pub(crate) const WRITTEN_BEHIND_LIMIT: Duration = Duration::from_secs(1);

/// What a customer asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Money into the wallet.
    Charge { amount: i64 },
    /// To buy the seats of a hold.
    Order {
        hold_id: String,
        /// Sent along where the server lost the hold.
        hold_token: Option<String>,
        seats: BTreeSet<String>,
    },
}

/// What the customer was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The charge was taken.
    Charged,
    /// The order was confirmed.
    Ordered { order_id: String, amount: i64 },
    /// A refusal that is final for its key, by its code.
    Refused { code: String },
    /// No answer, or one that says nothing about what happened.
    Unknown,
}

/// One call under an idempotency key. The same key may be sent many times.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) user: User,
    pub(crate) key: String,
    pub(crate) request: Request,
    pub(crate) outcome: Outcome,
}

/// A hold that was acknowledged and neither ordered nor released since.
#[derive(Clone, Debug)]
pub(crate) struct HeldSeats {
    pub(crate) user: User,
    pub(crate) hold_id: String,
    pub(crate) hold_token: String,
    pub(crate) seats: BTreeSet<String>,
    pub(crate) acknowledged_at: Instant,
}

/// Everything that the customers did.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    records: Vec<Record>,
}

/// An order as the server shows it.
#[derive(Clone, Debug)]
pub(crate) struct SeenOrder {
    pub(crate) order_id: String,
    pub(crate) status: String,
    pub(crate) amount: i64,
    pub(crate) seats: BTreeSet<String>,
    /// The seats that have a ticket.
    pub(crate) ticketed: BTreeSet<String>,
}

/// What the server shows while nobody does anything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observation {
    pub(crate) balances: BTreeMap<User, i64>,
    pub(crate) orders: BTreeMap<User, Vec<SeenOrder>>,
    /// The map's count of sold seats.
    pub(crate) sold: usize,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Finding {
    /// An order was acknowledged and isn't there, or is another one.
    LostOrder { user: User, order_id: String },
    /// A seat belongs to two orders.
    SoldTwice { seat: String },
    /// The money in a wallet can't be what the acknowledged calls made of it.
    WrongBalance {
        user: User,
        balance: i64,
        expected: i64,
    },
    /// One key had two outcomes.
    TwoOutcomes { user: User, key: String },
    /// An order that nobody can have made.
    UnknownOrder { user: User, order_id: String },
    /// The map and the orders count differently.
    WrongSoldCount { map: usize, orders: usize },
    /// A confirmed order has a seat without a ticket.
    MissingTicket { user: User, order_id: String },
    /// A customer has more seats than anybody may have.
    OverLimit {
        user: User,
        seats: usize,
        limit: usize,
    },
    /// A hold that had long been acknowledged was gone after the crash.
    LostHold { user: User, hold_id: String },
    /// A lost hold didn't come back by its token.
    HoldNotRestored { user: User, hold_id: String },
}

impl History {
    pub(crate) fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    /// How many acknowledged charges and orders there are, each key once.
    pub(crate) fn acknowledged(&self) -> usize {
        self.settled()
            .values()
            .filter(|record| !matches!(record.outcome, Outcome::Refused { .. } | Outcome::Unknown))
            .count()
    }

    /// Each key once, with its outcome if one is known.
    pub(crate) fn settled(&self) -> BTreeMap<(User, &str), &Record> {
        let mut settled: BTreeMap<(User, &str), &Record> = BTreeMap::new();
        for record in &self.records {
            let best = settled
                .entry((record.user, record.key.as_str()))
                .or_insert(record);
            if best.outcome == Outcome::Unknown {
                *best = record;
            }
        }
        settled
    }

    /// What nobody knows the outcome of.
    pub(crate) fn unknown(&self) -> Vec<Record> {
        self.settled()
            .into_values()
            .filter(|record| record.outcome == Outcome::Unknown)
            .cloned()
            .collect()
    }

    /// Every promise that `seen` breaks, but for tickets, which come later.
    pub(crate) fn check(&self, seen: &Observation) -> BTreeSet<Finding> {
        let mut findings = self.two_outcomes();
        findings.extend(self.lost_orders(seen));
        findings.extend(self.unknown_orders(seen));
        findings.extend(sold_twice(seen));
        findings.extend(self.wrong_balances(seen));
        let orders = confirmed(seen).map(|(_, order)| order.seats.len()).sum();
        if orders != seen.sold {
            findings.insert(Finding::WrongSoldCount {
                map: seen.sold,
                orders,
            });
        }
        findings
    }

    fn two_outcomes(&self) -> BTreeSet<Finding> {
        let mut outcomes: BTreeMap<(User, &str), &Outcome> = BTreeMap::new();
        let mut findings = BTreeSet::new();
        for record in &self.records {
            if record.outcome == Outcome::Unknown {
                continue;
            }
            let first = outcomes
                .entry((record.user, record.key.as_str()))
                .or_insert(&record.outcome);
            if **first != record.outcome {
                findings.insert(Finding::TwoOutcomes {
                    user: record.user,
                    key: record.key.clone(),
                });
            }
        }
        findings
    }

    fn lost_orders(&self, seen: &Observation) -> BTreeSet<Finding> {
        let mut findings = BTreeSet::new();
        for record in &self.records {
            let (Request::Order { seats, .. }, Outcome::Ordered { order_id, amount }) =
                (&record.request, &record.outcome)
            else {
                continue;
            };
            let there = orders_of(seen, record.user).iter().any(|order| {
                order.order_id == *order_id
                    && order.seats == *seats
                    && order.amount == *amount
                    && order.status == "confirmed"
            });
            if !there {
                findings.insert(Finding::LostOrder {
                    user: record.user,
                    order_id: order_id.clone(),
                });
            }
        }
        findings
    }

    /// Orders that were neither acknowledged nor asked for with an unknown
    /// outcome; an unknown request explains one order.
    fn unknown_orders(&self, seen: &Observation) -> BTreeSet<Finding> {
        let mut acknowledged: BTreeSet<(User, &str)> = BTreeSet::new();
        let mut open: Vec<(User, &BTreeSet<String>)> = Vec::new();
        for record in self.settled().into_values() {
            match (&record.request, &record.outcome) {
                (_, Outcome::Ordered { order_id, .. }) => {
                    acknowledged.insert((record.user, order_id));
                }
                (Request::Order { seats, .. }, Outcome::Unknown) => open.push((record.user, seats)),
                _ => {}
            }
        }
        let mut findings = BTreeSet::new();
        for (user, order) in confirmed(seen) {
            if acknowledged.contains(&(user, order.order_id.as_str())) {
                continue;
            }
            match open.iter().position(|open| *open == (user, &order.seats)) {
                Some(index) => drop(open.swap_remove(index)),
                None => {
                    findings.insert(Finding::UnknownOrder {
                        user,
                        order_id: order.order_id.clone(),
                    });
                }
            }
        }
        findings
    }

    /// A balance must be the acknowledged charges, and any of the unknown ones,
    /// less the orders that are there.
    fn wrong_balances(&self, seen: &Observation) -> BTreeSet<Finding> {
        let mut findings = BTreeSet::new();
        let settled = self.settled();
        for (&user, &balance) in &seen.balances {
            let spent: i64 = orders_of(seen, user)
                .iter()
                .filter(|order| order.status == "confirmed")
                .map(|order| order.amount)
                .sum();
            let mut charged = 0;
            let mut possible = BTreeSet::from([0]);
            for record in settled.values().filter(|record| record.user == user) {
                let Request::Charge { amount } = record.request else {
                    continue;
                };
                match record.outcome {
                    Outcome::Charged => charged += amount,
                    Outcome::Unknown => {
                        let with: Vec<i64> = possible.iter().map(|sum| sum + amount).collect();
                        possible.extend(with);
                    }
                    Outcome::Refused { .. } | Outcome::Ordered { .. } => {}
                }
            }
            let expected = charged - spent;
            if !possible.contains(&(balance - expected)) {
                findings.insert(Finding::WrongBalance {
                    user,
                    balance,
                    expected,
                });
            }
        }
        findings
    }
}

/// Confirmed orders with a seat that has no ticket.
pub(crate) fn missing_tickets(seen: &Observation) -> BTreeSet<Finding> {
    confirmed(seen)
        .filter(|(_, order)| order.ticketed != order.seats)
        .map(|(user, order)| Finding::MissingTicket {
            user,
            order_id: order.order_id.clone(),
        })
        .collect()
}

/// Customers who own more than `limit` seats.
pub(crate) fn over_limit(seen: &Observation, limit: usize) -> BTreeSet<Finding> {
    let mut owned: BTreeMap<User, usize> = BTreeMap::new();
    for (user, order) in confirmed(seen) {
        *owned.entry(user).or_default() += order.seats.len();
    }
    owned
        .into_iter()
        .filter(|(_, seats)| *seats > limit)
        .map(|(user, seats)| Finding::OverLimit { user, seats, limit })
        .collect()
}

/// Whether a hold may have been lost in the crash at `killed_at`.
pub(crate) fn may_be_lost(hold: &HeldSeats, killed_at: Instant) -> bool {
    hold.acknowledged_at + WRITTEN_BEHIND_LIMIT > killed_at
}

fn sold_twice(seen: &Observation) -> BTreeSet<Finding> {
    let mut sold = BTreeSet::new();
    let mut findings = BTreeSet::new();
    for (_, order) in confirmed(seen) {
        for seat in &order.seats {
            if !sold.insert(seat) {
                findings.insert(Finding::SoldTwice { seat: seat.clone() });
            }
        }
    }
    findings
}

fn orders_of(seen: &Observation, user: User) -> &[SeenOrder] {
    seen.orders.get(&user).map_or(&[], Vec::as_slice)
}

fn confirmed(seen: &Observation) -> impl Iterator<Item = (User, &SeenOrder)> {
    seen.orders
        .iter()
        .flat_map(|(&user, orders)| orders.iter().map(move |order| (user, order)))
        .filter(|(_, order)| order.status == "confirmed")
}
