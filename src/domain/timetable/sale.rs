//! How orders are decided: the timetable's part of the saga.
//!
//! `OpenOrder` pins the hold, in memory only. `Sell` is the one point where a
//! purchase becomes true: seats sold and order confirmed are one decision, and
//! so one commit. Who doubts what became of an order asks `Resolve`, whose
//! answer about an unknown order is *aborted*, for ever (presumed abort).

use std::sync::Arc;

use super::command::{Event, OrderTerms, Redeemed, Refusal, Reply, Resolution};
use super::{OPEN_ORDERS_MAX, Seat, Timetable};
use crate::domain::decision::{Decision, Events};
use crate::domain::ids::{HoldId, OrderId, PaymentId, UserId};
use crate::domain::money::Money;
use crate::domain::order::{Method, Order, OrderStatus};
use crate::domain::seat::Seats;
use crate::domain::time::{Millis, Timestamp};

type Decided = Result<Decision<Event, Reply>, Refusal>;

/// What a hold has left at least after a failed payment (the HTTP contract).
const GRACE: Millis = Millis::from_secs(60);

impl Timetable {
    pub(super) fn open_order(
        &self,
        now: Timestamp,
        id: OrderId,
        payment: PaymentId,
        hold: HoldId,
        user: UserId,
        method: Method,
    ) -> Decided {
        if self.aborted.contains(&id) {
            return Err(Refusal::OrderNotOpen);
        }
        let hold = self.unpinned_hold_of(hold, user)?;
        if self.open.len() >= OPEN_ORDERS_MAX {
            return Err(Refusal::TooManyOpenOrders);
        }
        let order = Order {
            id,
            user,
            hold: hold.id,
            payment,
            method,
            status: OrderStatus::AwaitingPayment,
            seats: hold.seats.clone(),
            discount: Money::ZERO,
            coupon: None,
            created_at: now,
            cancels: Vec::new(),
        };
        let terms = OrderTerms {
            amount: order.amount(),
            under_pass: hold.under_pass,
        };
        Ok(Decision::one(
            Event::OrderOpened {
                order: Arc::new(order),
            },
            Reply::Opened(terms),
        ))
    }

    pub(super) fn sell(&self, id: OrderId, coupon: Option<Redeemed>) -> Decided {
        if let Some(order) = self.confirmed.get(id) {
            return Ok(Decision::unchanged(Reply::Order(Arc::clone(order))));
        }
        let order = self.open.get(&id).ok_or(Refusal::OrderNotOpen)?;
        // I1 and I3: its hold has kept the seats for it.
        debug_assert!(
            order
                .seats
                .iter()
                .all(|priced| self.seat(priced.seat) == Some(Seat::Held(order.hold))),
            "I3: the seats of an open order are in its hold"
        );
        let order = Arc::new(Order {
            status: OrderStatus::Confirmed,
            // Never below zero.
            discount: coupon.map_or(Money::ZERO, |c| c.discount.min(order.subtotal())),
            coupon: coupon.map(|redeemed| redeemed.coupon),
            ..order.clone()
        });
        Ok(Decision::one(
            Event::OrderConfirmed {
                order: Arc::clone(&order),
            },
            Reply::Order(order),
        ))
    }

    pub(super) fn abort(&self, now: Timestamp, id: OrderId) -> Decision<Event, Reply> {
        let Some(order) = self.open.get(&id) else {
            return Decision::unchanged(Reply::Aborted);
        };
        let mut events = Events::new();
        events.push(Event::OrderAborted { order: id });
        if let Some(hold) = self.holds.get(&order.hold).filter(|hold| !hold.grace_used) {
            let cap = Millis::from_secs(self.plan.limits.hold_max_seconds);
            let grace = now.plus(GRACE).min(hold.created_at.plus(cap));
            if grace > hold.expires_at {
                events.push(Event::HoldProlonged {
                    hold: hold.id,
                    expires_at: grace,
                    deadline: grace,
                });
            }
        }
        Decision {
            events,
            reply: Reply::Aborted,
        }
    }

    pub(super) fn resolve(&self, id: OrderId) -> Decision<Event, Reply> {
        if let Some(order) = self.confirmed.get(id) {
            return Decision::unchanged(Reply::Resolved(Resolution::Confirmed(Arc::clone(order))));
        }
        if self.open.contains_key(&id) {
            return Decision::unchanged(Reply::Resolved(Resolution::Undecided));
        }
        let reply = Reply::Resolved(Resolution::Aborted);
        if self.aborted.contains(&id) {
            return Decision::unchanged(reply);
        }
        Decision::one(Event::OrderDisowned { order: id }, reply)
    }

    /// Only free seats can be blocked: what is held or sold has an owner.
    pub(super) fn block(&self, seats: &Seats) -> Decided {
        let known: Seats = self.existing(seats)?;
        let taken: Seats = known
            .iter()
            .copied()
            .filter(|seat| !matches!(self.seat(*seat), Some(Seat::Free | Seat::Blocked)))
            .collect();
        if !taken.is_empty() {
            return Err(Refusal::SeatUnavailable { seats: taken });
        }
        let fresh = self.those(&known, Seat::Free);
        if fresh.is_empty() {
            return Ok(Decision::unchanged(Reply::Blocked));
        }
        Ok(Decision::one(
            Event::SeatsBlocked { seats: fresh },
            Reply::Blocked,
        ))
    }

    pub(super) fn unblock(&self, seats: &Seats) -> Decided {
        let known = self.existing(seats)?;
        let blocked = self.those(&known, Seat::Blocked);
        if blocked.is_empty() {
            return Ok(Decision::unchanged(Reply::Blocked));
        }
        Ok(Decision::one(
            Event::SeatsUnblocked { seats: blocked },
            Reply::Blocked,
        ))
    }

    fn those(&self, seats: &Seats, state: Seat) -> Seats {
        seats
            .iter()
            .copied()
            .filter(|seat| self.seat(*seat) == Some(state))
            .collect()
    }

    fn existing(&self, seats: &Seats) -> Result<Seats, Refusal> {
        let strangers: Seats = seats
            .iter()
            .copied()
            .filter(|seat| self.seat(*seat).is_none())
            .collect();
        if strangers.is_empty() {
            Ok(seats.clone())
        } else {
            Err(Refusal::UnknownSeat {
                names: vec![],
                seats: strangers,
            })
        }
    }
}
