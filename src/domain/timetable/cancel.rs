//! How seats that were sold come back.
//!
//! The commit of `Cancel` is the one point at which it becomes true: from there on
//! the seats are on their way to the public and the refund to the wallet, whatever
//! happens. Until the wallet has it, the refund is *due*: whoever loads the
//! timetable takes it up again.

use std::sync::Arc;

use super::apply::Unsettled;
use super::command::{CancelledBy, Event, NamedSeats, NotCancellable, Refusal, Reply};
use super::{Seat, Timetable};
use crate::domain::decision::Decision;
use crate::domain::ids::{OrderId, Seq};
use crate::domain::money::Money;
use crate::domain::order::{Cancel, CancelNo, CancelRequest, Order, OrderStatus};
use crate::domain::seat::Seats;
use crate::domain::time::Timestamp;

type Decided = Result<Decision<Event, Reply>, Refusal>;

impl CancelledBy {
    fn sees(self, order: &Order) -> bool {
        match self {
            Self::Buyer(user) => user == order.user,
            Self::Organizer => true,
        }
    }
}

impl Timetable {
    /// What was done for a request is told again, however late. Then the order of
    /// the checks: the order, its status, the time, the seats' names, the seats.
    pub(super) fn cancel(
        &self,
        now: Timestamp,
        id: OrderId,
        by: CancelledBy,
        wanted: Option<&NamedSeats>,
        request: CancelRequest,
    ) -> Decided {
        let order = self.order_of(id, by)?;
        if let Some(done) = order.cancels.iter().find(|c| c.request == request) {
            let (order, no) = (Arc::clone(order), done.no);
            return Ok(Decision::unchanged(Reply::Cancelled { order, no }));
        }
        // Nobody can know of a sale that isn't durable.
        if self.is_selling(id) {
            return Err(Refusal::NotCancellable(NotCancellable::NotConfirmed));
        }
        if order.status == OrderStatus::Cancelled {
            let seats = order.seats.iter().map(|priced| priced.seat).collect();
            return Err(Refusal::NotCancellable(NotCancellable::Cancelled { seats }));
        }
        let until = self.plan.cancellable_until();
        if matches!(by, CancelledBy::Buyer(_)) && now > until {
            return Err(Refusal::NotCancellable(NotCancellable::TooLate { until }));
        }
        let seats = seats_to_cancel(order, wanted)?;
        // I1: what is the buyer's still is sold to this very order.
        debug_assert!(
            seats
                .iter()
                .all(|seat| self.seat(*seat) == Some(Seat::Sold(id))),
            "I1: the seats of a confirmed order are sold to it"
        );
        let no = CancelNo(order.cancels.last().map_or(1, |last| last.no.0 + 1));
        let (_, random) = id.0.as_u64_pair();
        let cancel = Cancel {
            no,
            request,
            refund: refund_of(order, &seats),
            seats,
            at: now,
        };
        let mut after = (**order).clone();
        after.cancel(cancel.clone());
        let event = Event::SeatsCancelled {
            order: id,
            cancel,
            free_at: self.free_at(now, (random >> 16) as u16),
        };
        let order = Arc::new(after);
        Ok(Decision::one(event, Reply::Cancelled { order, no }))
    }

    fn order_of(&self, id: OrderId, by: CancelledBy) -> Result<&Arc<Order>, Refusal> {
        if let Some(order) = self.confirmed.get(id).filter(|order| by.sees(order)) {
            return Ok(order);
        }
        match self.open.get(&id).filter(|order| by.sees(order)) {
            Some(_) => Err(Refusal::NotCancellable(NotCancellable::NotConfirmed)),
            None => Err(Refusal::OrderNotFound),
        }
    }

    pub(super) fn note_refund(&self, order: OrderId, no: CancelNo) -> Decision<Event, Reply> {
        if self.refunds_due.contains(&(order, no)) {
            Decision::one(Event::RefundPaid { order, no }, Reply::RefundNoted)
        } else {
            Decision::unchanged(Reply::RefundNoted)
        }
    }

    /// The cancels whose refunds may not have reached their wallets yet.
    pub fn refunds_due(&self) -> impl Iterator<Item = (&Arc<Order>, &Cancel)> {
        self.refunds_due.iter().filter_map(|(order, no)| {
            let order = self.confirmed.get(*order)?;
            let cancel = order.cancels.iter().find(|cancel| cancel.no == *no)?;
            Some((order, cancel))
        })
    }

    pub(super) fn apply_cancelled(
        &mut self,
        seq: Seq,
        id: OrderId,
        cancel: &Cancel,
        free_at: Option<Timestamp>,
    ) {
        let Some(order) = self.confirmed.cancel(id, cancel.clone()) else {
            return;
        };
        let (user, is_owed) = (order.user, order.owes(cancel));
        for seat in &cancel.seats {
            self.set_seat(*seat, Seat::Releasing);
        }
        // So does what the limit has room for again: a hold that took that room is
        // not to outlive the cancel that made it.
        self.unsettled.push_back(Unsettled {
            seq,
            seats: cancel.seats.clone(),
            free_at,
            counted_for: Some(user),
        });
        if is_owed {
            self.refunds_due.insert((id, cancel.no));
        }
    }
}

/// The wanted seats of an order, in its order: each is its buyer's still.
fn seats_to_cancel(order: &Order, wanted: Option<&NamedSeats>) -> Result<Seats, Refusal> {
    let Some(wanted) = wanted else {
        return Ok(order.kept().iter().map(|priced| priced.seat).collect());
    };
    let is_its = |seat: &_| order.seats.iter().any(|priced| priced.seat == *seat);
    let strangers: Seats = wanted
        .seats
        .iter()
        .copied()
        .filter(|s| !is_its(s))
        .collect();
    if !strangers.is_empty() || !wanted.unknown.is_empty() || wanted.seats.is_empty() {
        return Err(Refusal::UnknownSeat {
            names: wanted.unknown.clone(),
            seats: strangers,
        });
    }
    let seats = order.seats.iter().map(|priced| priced.seat);
    let seats: Seats = seats.filter(|seat| wanted.seats.contains(seat)).collect();
    let gone: Seats = seats
        .iter()
        .copied()
        .filter(|seat| order.is_cancelled(*seat))
        .collect();
    if gone.is_empty() {
        Ok(seats)
    } else {
        let gone = NotCancellable::Cancelled { seats: gone };
        Err(Refusal::NotCancellable(gone))
    }
}

/// What was paid for these seats of an order.
fn refund_of(order: &Order, seats: &Seats) -> Money {
    let paid = order.seats.iter().zip(order.paid());
    let of_these = paid.filter(|(priced, _)| seats.contains(&priced.seat));
    of_these.map(|(_, paid)| paid).sum()
}
