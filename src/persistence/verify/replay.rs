//! What the journal of a timetable says, event by event.
//!
//! This is not the state machine: that one believes what it decided. This
//! replay believes nothing, and knows of each event only what must have been
//! true before it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::domain::ids::{HoldId, OrderId, TimetableId, UserId};
use crate::domain::money::Money;
use crate::domain::order::{Cancel, CancelNo, Order, OrderStatus, PricedSeats, paid};
use crate::domain::seat::SeatIndex;
use crate::domain::time::Timestamp;
use crate::domain::timetable::{Event, HoldEnd};

use super::report::{Book, Rule};

/// A hold, as the journal leaves it and as the store keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct HeldSeats {
    pub(super) user: UserId,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) under_pass: bool,
    pub(super) seats: PricedSeats,
}

/// What a seat is, if it isn't free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    Held(HoldId),
    Sold(OrderId),
    Blocked,
}

/// What the journal of one timetable leads to.
#[derive(Debug)]
pub(super) struct Replay {
    timetable: TimetableId,
    seats: HashMap<SeatIndex, Taken>,
    pub(super) holds: HashMap<HoldId, HeldSeats>,
    pub(super) orders: HashMap<OrderId, Arc<Order>>,
    pub(super) disowned: HashSet<OrderId>,
    /// Cancels whose refund is known to have come in, and when.
    pub(super) refunded: HashMap<(OrderId, CancelNo), Timestamp>,
}

impl Replay {
    pub(super) fn new(timetable: TimetableId) -> Self {
        Self {
            timetable,
            seats: HashMap::new(),
            holds: HashMap::new(),
            orders: HashMap::new(),
            disowned: HashSet::new(),
            refunded: HashMap::new(),
        }
    }

    /// The seats that are off sale.
    pub(super) fn blocked(&self) -> HashSet<SeatIndex> {
        let is_blocked =
            |(seat, taken): (&SeatIndex, &Taken)| (*taken == Taken::Blocked).then_some(*seat);
        self.seats.iter().filter_map(is_blocked).collect()
    }

    pub(super) fn apply(&mut self, at: Timestamp, event: &Event, book: &mut Book) {
        match event {
            Event::Held {
                hold,
                user,
                seats,
                created_at,
                expires_at,
                under_pass,
                restores: _,
            } => {
                let held = HeldSeats {
                    user: *user,
                    created_at: *created_at,
                    expires_at: *expires_at,
                    under_pass: *under_pass,
                    seats: PricedSeats::new(),
                };
                if self.holds.insert(*hold, held).is_some() {
                    self.contradiction(book, || format!("hold {hold} began twice"));
                }
                self.hold_seats(*hold, seats, book);
            }
            Event::SeatsAdded { hold, seats } => self.hold_seats(*hold, seats, book),
            Event::SeatsDropped { hold, seats } => {
                for seat in seats {
                    self.leave(*hold, *seat);
                }
                match self.holds.get_mut(hold) {
                    Some(held) => held.seats.retain(|priced| !seats.contains(&priced.seat)),
                    None => self.contradiction(book, || format!("hold {hold} shrank, unknown")),
                }
            }
            Event::HoldEnded {
                hold,
                user,
                end,
                free_at: _,
            } => {
                self.end_hold(at, *hold, *user, *end, book);
            }
            Event::HoldProlonged {
                hold, expires_at, ..
            } => match self.holds.get_mut(hold) {
                Some(held) => {
                    let is_later = *expires_at >= held.expires_at;
                    held.expires_at = *expires_at;
                    book.expect(Rule::HoldsLast, is_later, || {
                        format!("hold {hold} was cut short")
                    });
                }
                None => self.contradiction(book, || format!("hold {hold} was prolonged, unknown")),
            },
            Event::OrderConfirmed { order } => self.sell(order, book),
            Event::OrderDisowned { order } => {
                self.disowned.insert(*order);
                if self.orders.contains_key(order) {
                    self.contradiction(book, || {
                        format!("order {order} was confirmed and disowned")
                    });
                }
            }
            Event::SeatsBlocked { seats } => {
                for seat in seats {
                    self.take(*seat, Taken::Blocked, book);
                }
            }
            Event::SeatsUnblocked { seats } => {
                for seat in seats {
                    let was = self.seats.remove(seat);
                    book.expect(
                        Rule::JournalSeatsAreDistinct,
                        was == Some(Taken::Blocked),
                        || self.seat_story(*seat, "was put on sale", was),
                    );
                }
            }
            Event::SeatsCancelled { order, cancel, .. } => self.cancel(*order, cancel, book),
            Event::RefundPaid { order, no } => {
                let cancel = self.cancel_of(*order, *no);
                let of = self.orders.get(order);
                let is_owed = cancel.zip(of).is_some_and(|(cancel, of)| of.owes(cancel));
                let is_new = self.refunded.insert((*order, *no), at).is_none();
                book.expect(Rule::CancelFollowsSale, is_owed && is_new, || {
                    format!("cancel {no} of order {order} was refunded, unknown or again")
                });
            }
            Event::OrderOpened { .. } | Event::OrderAborted { .. } | Event::SeatsCooled { .. } => {
                self.contradiction(book, || "an event that is never stored was".to_owned());
            }
        }
    }

    /// The journal tells something that can't follow what it told before.
    fn contradiction(&self, book: &mut Book, what: impl FnOnce() -> String) {
        book.found(Rule::SaleFollowsHold, || {
            format!("the journal of timetable {}: {}", self.timetable, what())
        });
    }

    fn seat_story(&self, seat: SeatIndex, what: &str, was: Option<Taken>) -> String {
        let was = match was {
            None => "free".to_owned(),
            Some(Taken::Held(hold)) => format!("held by {hold}"),
            Some(Taken::Sold(order)) => format!("sold to {order}"),
            Some(Taken::Blocked) => "blocked".to_owned(),
        };
        format!(
            "seat {} of timetable {} {what} when it was {was}",
            seat.0, self.timetable
        )
    }

    fn take(&mut self, seat: SeatIndex, by: Taken, book: &mut Book) {
        let was = self.seats.insert(seat, by);
        let is_of_a_hold = matches!(was, Some(Taken::Held(_)));
        book.expect(
            Rule::JournalSeatsAreDistinct,
            was.is_none() || is_of_a_hold,
            || self.seat_story(seat, "was taken", was),
        );
        book.expect(Rule::HoldsLast, !is_of_a_hold, || {
            self.seat_story(seat, "was taken", was)
        });
    }

    fn hold_seats(&mut self, hold: HoldId, seats: &PricedSeats, book: &mut Book) {
        for priced in seats {
            self.take(priced.seat, Taken::Held(hold), book);
        }
        match self.holds.get_mut(&hold) {
            Some(held) => held.seats.extend(seats.iter().copied()),
            None => self.contradiction(book, || format!("hold {hold} grew, unknown")),
        }
    }

    /// Frees a seat that is still this hold's.
    fn leave(&mut self, hold: HoldId, seat: SeatIndex) {
        if self.seats.get(&seat) == Some(&Taken::Held(hold)) {
            self.seats.remove(&seat);
        }
    }

    fn end_hold(&mut self, at: Timestamp, id: HoldId, user: UserId, end: HoldEnd, book: &mut Book) {
        let Some(held) = self.holds.remove(&id) else {
            return self.contradiction(book, || format!("hold {id} ended, unknown"));
        };
        for priced in &held.seats {
            self.leave(id, priced.seat);
        }
        let is_its_time = match end {
            HoldEnd::Expired => at >= held.expires_at,
            HoldEnd::Released | HoldEnd::Restored(_) => user == held.user,
        };
        book.expect(Rule::HoldsLast, is_its_time, || {
            format!(
                "hold {id} ended ({end:?}) at {at}, its deadline was {}",
                held.expires_at
            )
        });
    }

    fn cancel_of(&self, order: OrderId, no: CancelNo) -> Option<&Cancel> {
        let order = self.orders.get(&order)?;
        order.cancels.iter().find(|cancel| cancel.no == no)
    }

    fn cancel(&mut self, id: OrderId, cancel: &Cancel, book: &mut Book) {
        let Some(order) = self.orders.get_mut(&id) else {
            return self.contradiction(book, || format!("order {id} was cancelled, unknown"));
        };
        let paid = paid(&order.seats, order.discount);
        let of_these = order.seats.iter().zip(paid);
        let of_these = of_these.filter(|(priced, _)| cancel.seats.contains(&priced.seat));
        let refund: Money = of_these.map(|(_, paid)| paid).sum();
        let last = order.cancels.last().map_or(0, |last| last.no.0);
        let is_right = cancel.no.0 == last + 1
            && !cancel.seats.is_empty()
            && cancel.refund == refund
            && !order.cancels.iter().any(|c| c.request == cancel.request);
        Arc::make_mut(order).cancel(cancel.clone());
        let mut was_sold = true;
        for seat in &cancel.seats {
            was_sold &= self.seats.remove(seat) == Some(Taken::Sold(id));
        }
        book.expect(Rule::CancelFollowsSale, is_right && was_sold, || {
            format!("order {id}: {cancel:?}, paid for these seats was {refund}")
        });
    }

    fn sell(&mut self, order: &Arc<Order>, book: &mut Book) {
        let hold = self.holds.remove(&order.hold);
        let problem = match &hold {
            _ if self.disowned.contains(&order.id) => Some("after it was disowned"),
            _ if order.status != OrderStatus::Confirmed => Some("with another status"),
            None => Some("without a live hold"),
            Some(held) if held.user != order.user => Some("from somebody else's hold"),
            Some(held) if !same_seats(&held.seats, &order.seats) => {
                Some("with other seats than its hold's")
            }
            // Before its beginning may happen: the system's clock was set back
            // between two starts.
            Some(held) if order.created_at >= held.expires_at => Some("opened after its hold"),
            Some(_) => None,
        };
        book.expect(Rule::SaleFollowsHold, problem.is_none(), || {
            let what = problem.unwrap_or_default();
            format!(
                "order {} was confirmed {what} (hold {})",
                order.id, order.hold
            )
        });
        for priced in hold.iter().flat_map(|held| &held.seats) {
            self.leave(order.hold, priced.seat);
        }
        for priced in &order.seats {
            let was = self.seats.insert(priced.seat, Taken::Sold(order.id));
            book.expect(
                Rule::JournalSellsOnce,
                !matches!(was, Some(Taken::Sold(_))),
                || self.seat_story(priced.seat, &format!("was sold to {}", order.id), was),
            );
            let is_anothers = matches!(was, Some(Taken::Held(_) | Taken::Blocked));
            book.expect(Rule::JournalSeatsAreDistinct, !is_anothers, || {
                self.seat_story(priced.seat, &format!("was sold to {}", order.id), was)
            });
        }
        if self.orders.insert(order.id, Arc::clone(order)).is_some() {
            self.contradiction(book, || format!("order {} was confirmed twice", order.id));
        }
    }
}

/// Whether these are the same seats at the same prices, in whatever order.
fn same_seats(left: &PricedSeats, right: &PricedSeats) -> bool {
    let sorted = |seats: &PricedSeats| {
        let mut seats: Vec<_> = seats
            .iter()
            .map(|priced| (priced.seat, priced.price))
            .collect();
        seats.sort_unstable();
        seats
    };
    sorted(left) == sorted(right)
}
