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
    /// To give seats of an order back; `None`: all that it has.
    Cancel {
        order_id: String,
        seats: Option<BTreeSet<String>>,
    },
}

/// What the customer was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The charge was taken.
    Charged,
    /// The order was confirmed.
    Ordered { order_id: String, amount: i64 },
    /// Seats were given back: all those of the order that are by now, and what
    /// was refunded for them.
    Cancelled {
        cancelled: BTreeSet<String>,
        refunded: i64,
    },
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
    /// All that were bought, for the same price each.
    pub(crate) seats: BTreeSet<String>,
    /// Those of them that were given back.
    pub(crate) cancelled: BTreeSet<String>,
    pub(crate) refunded: i64,
    /// The seats that have a valid ticket.
    pub(crate) ticketed: BTreeSet<String>,
}

impl SeenOrder {
    /// The seats that are its buyer's still.
    fn kept(&self) -> BTreeSet<String> {
        self.seats.difference(&self.cancelled).cloned().collect()
    }

    /// Whether status, seats and refund say the same.
    fn agrees(&self) -> bool {
        let (gone, all) = (self.cancelled.len(), self.seats.len());
        let is_over = self.status == "cancelled";
        let refund = i128::from(self.amount) * gone as i128 / all.max(1) as i128;
        self.cancelled.is_subset(&self.seats)
            && is_over == (gone == all)
            && i128::from(self.refunded) == refund
    }
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
    /// An order has a seat without a valid ticket, or a valid ticket without a seat.
    WrongTickets { user: User, order_id: String },
    /// A cancel was acknowledged, and its seats are still sold.
    LostCancel { user: User, order_id: String },
    /// Seats were given back that nobody can have given back.
    UnknownCancel { user: User, order_id: String },
    /// Status, seats and refund of an order contradict each other.
    HalfCancelled { user: User, order_id: String },
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

    /// The acknowledged orders of a user, with their seats.
    pub(crate) fn orders_of(&self, user: User) -> Vec<(&str, &BTreeSet<String>)> {
        let of_user = self.records.iter().filter(|record| record.user == user);
        of_user
            .filter_map(|record| match (&record.request, &record.outcome) {
                (Request::Order { seats, .. }, Outcome::Ordered { order_id, .. }) => {
                    Some((order_id.as_str(), seats))
                }
                _ => None,
            })
            .collect()
    }

    /// How many acknowledged charges, orders and cancels there are, each key once.
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
        findings.extend(self.wrong_cancels(seen));
        findings.extend(sold_twice(seen));
        findings.extend(self.wrong_balances(seen));
        let orders = made(seen).map(|(_, order)| order.kept().len()).sum();
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
                    && was_made(order)
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
        for (user, order) in made(seen) {
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

    /// What was given back must be what the acknowledged cancels say, and any that
    /// those with an unknown outcome asked for.
    fn wrong_cancels(&self, seen: &Observation) -> BTreeSet<Finding> {
        type Told<'a> = (BTreeSet<&'a String>, BTreeSet<&'a String>, bool);
        // By order: given back for sure, perhaps, perhaps all.
        let mut told: BTreeMap<(User, &str), Told> = BTreeMap::new();
        for record in self.settled().into_values() {
            let Request::Cancel { order_id, seats } = &record.request else {
                continue;
            };
            let (sure, perhaps, all) = told.entry((record.user, order_id.as_str())).or_default();
            match &record.outcome {
                Outcome::Cancelled { cancelled, .. } => sure.extend(cancelled),
                Outcome::Unknown => {
                    perhaps.extend(seats.iter().flatten());
                    *all |= seats.is_none();
                }
                Outcome::Refused { .. } | Outcome::Charged | Outcome::Ordered { .. } => {}
            }
        }
        let mut findings = BTreeSet::new();
        for (user, order) in made(seen) {
            let order_id = order.order_id.clone();
            if !order.agrees() {
                let order_id = order_id.clone();
                findings.insert(Finding::HalfCancelled { user, order_id });
            }
            let none = Told::default();
            let (sure, perhaps, all) = told.get(&(user, order_id.as_str())).unwrap_or(&none);
            if !sure.iter().all(|seat| order.cancelled.contains(*seat)) {
                let order_id = order_id.clone();
                findings.insert(Finding::LostCancel { user, order_id });
            }
            let is_explained =
                |seat: &String| *all || sure.contains(seat) || perhaps.contains(seat);
            if !order.cancelled.iter().all(is_explained) {
                findings.insert(Finding::UnknownCancel { user, order_id });
            }
        }
        findings
    }

    /// A balance must be the acknowledged charges, and any of the unknown ones,
    /// less what the orders that are there cost in the end.
    fn wrong_balances(&self, seen: &Observation) -> BTreeSet<Finding> {
        let mut findings = BTreeSet::new();
        let settled = self.settled();
        for (&user, &balance) in &seen.balances {
            let spent: i64 = orders_of(seen, user)
                .iter()
                .filter(|order| was_made(order))
                .map(|order| order.amount - order.refunded)
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
                    Outcome::Refused { .. }
                    | Outcome::Ordered { .. }
                    | Outcome::Cancelled { .. } => {}
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

/// Orders whose valid tickets aren't those of the seats that they still have.
pub(crate) fn wrong_tickets(seen: &Observation) -> BTreeSet<Finding> {
    made(seen)
        .filter(|(_, order)| order.ticketed != order.kept())
        .map(|(user, order)| Finding::WrongTickets {
            user,
            order_id: order.order_id.clone(),
        })
        .collect()
}

/// Customers who own more than `limit` seats.
pub(crate) fn over_limit(seen: &Observation, limit: usize) -> BTreeSet<Finding> {
    let mut owned: BTreeMap<User, usize> = BTreeMap::new();
    for (user, order) in made(seen) {
        *owned.entry(user).or_default() += order.kept().len();
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
    for (_, order) in made(seen) {
        for seat in order.kept() {
            if !sold.insert(seat.clone()) {
                findings.insert(Finding::SoldTwice { seat });
            }
        }
    }
    findings
}

fn orders_of(seen: &Observation, user: User) -> &[SeenOrder] {
    seen.orders.get(&user).map_or(&[], Vec::as_slice)
}

/// The orders whose seats were sold, whatever became of them since.
fn made(seen: &Observation) -> impl Iterator<Item = (User, &SeenOrder)> {
    seen.orders
        .iter()
        .flat_map(|(&user, orders)| orders.iter().map(move |order| (user, order)))
        .filter(|(_, order)| was_made(order))
}

fn was_made(order: &SeenOrder) -> bool {
    matches!(order.status.as_str(), "confirmed" | "cancelled")
}
