//! What each event does to the state. It can't fail, and asks no clock: recovery
//! and production do the same.

use std::sync::Arc;

use super::command::HoldEnd;
use super::{ENDED_HOLDS_MAX, Hold, Seat, Timetable};
use crate::domain::ids::{HoldId, OrderId, Seq, UserId};
use crate::domain::order::{Method, Order, PricedSeats};
use crate::domain::seat::{SeatIndex, Seats};
use crate::domain::time::Timestamp;

/// Seats of a decision that isn't in the database yet.
#[derive(Clone, Debug)]
pub(super) struct Unsettled {
    pub(super) seq: Seq,
    pub(super) seats: Seats,
    /// Those that come back don't before this.
    pub(super) free_at: Option<Timestamp>,
    /// Against whose limit they count until then.
    pub(super) counted_for: Option<UserId>,
}

impl Timetable {
    pub(super) fn count_for(&mut self, user: UserId, seats: impl Iterator<Item = SeatIndex>) {
        let entry = self.users.entry(user).or_default();
        for seat in seats {
            entry.total += 1;
            let Some(grade) = self.plan.grade_index(seat) else {
                continue;
            };
            if self
                .plan
                .grade(grade)
                .is_none_or(|grade| grade.max_per_user.is_none())
            {
                continue;
            }
            let counts = entry.by_grade.get_or_insert_default();
            match counts.iter_mut().find(|(index, _)| *index == grade) {
                Some((_, count)) => *count += 1,
                None => counts.push((grade, 1)),
            }
        }
    }

    pub(super) fn discount_from(&mut self, user: UserId, seats: &[SeatIndex]) {
        let Some(entry) = self.users.get_mut(&user) else {
            return;
        };
        for seat in seats {
            entry.total = entry.total.saturating_sub(1);
            let Some(grade) = self.plan.grade_index(*seat) else {
                continue;
            };
            let mut counts = entry
                .by_grade
                .iter_mut()
                .flat_map(|counts| counts.iter_mut());
            if let Some((_, count)) = counts.find(|(index, _)| *index == grade) {
                *count = count.saturating_sub(1);
            }
        }
        if entry.total == 0 {
            self.users.remove(&user);
        }
    }

    pub(super) fn remember_end(&mut self, hold: HoldId, user: UserId, end: HoldEnd) {
        if self.ended_order.len() >= ENDED_HOLDS_MAX
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        self.ended.insert(hold, (user, end));
        self.ended_order.push_back(hold);
    }

    pub(super) fn apply_hold_ended(
        &mut self,
        id: HoldId,
        end: HoldEnd,
        free_at: Option<Timestamp>,
    ) {
        let Some(hold) = self.holds.remove(&id) else {
            return;
        };
        self.deadlines.remove(&(hold.expires_at, id));
        let seats: Seats = hold.seats.iter().map(|priced| priced.seat).collect();
        self.discount_from(hold.user, &seats);
        for seat in seats {
            match free_at {
                None => self.set_seat(seat, Seat::Free),
                Some(at) => {
                    self.cooling.insert((at, seat));
                    self.set_seat(seat, Seat::Releasing);
                }
            }
        }
        self.remember_end(id, hold.user, end);
    }

    pub(super) fn apply_confirmed(&mut self, seq: Seq, order: &Arc<Order>) {
        self.open.remove(&order.id);
        self.open_since.remove(&(order.created_at, order.id));
        if let Some(hold) = self.holds.remove(&order.hold) {
            self.deadlines.remove(&(hold.expires_at, hold.id));
        }
        let seats: Seats = order.seats.iter().map(|priced| priced.seat).collect();
        for seat in &seats {
            self.set_seat(*seat, Seat::Selling(order.id));
        }
        self.unsettle(seq, seats);
        self.confirmed.insert(Arc::clone(order));
    }

    pub(super) fn apply_blocks(&mut self, seq: Seq, seats: &Seats, blocked: bool) {
        for seat in seats {
            self.set_seat(
                *seat,
                if blocked {
                    Seat::Blocked
                } else {
                    Seat::Releasing
                },
            );
        }
        if !blocked {
            self.unsettle(seq, seats.clone());
        }
    }

    /// What becomes of `seats` waits until decision `seq` is in the database.
    pub(super) fn unsettle(&mut self, seq: Seq, seats: Seats) {
        self.unsettled.push_back(Unsettled {
            seq,
            seats,
            free_at: None,
            counted_for: None,
        });
    }

    pub(super) fn apply_seats_dropped(&mut self, id: HoldId, seats: &Seats) {
        let Some(hold) = self.holds.get_mut(&id) else {
            return;
        };
        let user = hold.user;
        hold.seats.retain(|priced| !seats.contains(&priced.seat));
        self.discount_from(user, seats);
        for seat in seats {
            self.set_seat(*seat, Seat::Free);
        }
    }

    pub(super) fn apply_seats_added(&mut self, id: HoldId, seats: &PricedSeats) {
        let Some(hold) = self.holds.get_mut(&id) else {
            return;
        };
        let user = hold.user;
        hold.seats.extend(seats.iter().copied());
        self.count_for(user, seats.iter().map(|priced| priced.seat));
        for priced in seats {
            self.set_seat(priced.seat, Seat::Held(id));
        }
    }

    pub(super) fn apply_held(&mut self, hold: Hold) {
        self.count_for(hold.user, hold.seats.iter().map(|priced| priced.seat));
        for priced in &hold.seats {
            self.set_seat(priced.seat, Seat::Held(hold.id));
        }
        self.deadlines.insert((hold.expires_at, hold.id));
        self.holds.insert(hold.id, hold);
    }

    pub(super) fn apply_pinned(&mut self, order: &Order) {
        if let Some(hold) = self.holds.get_mut(&order.hold) {
            hold.order = Some(order.id);
            self.deadlines.remove(&(hold.expires_at, hold.id));
        }
        self.open.insert(order.id, order.clone());
        if order.method == Method::Wallet {
            self.open_since.insert((order.created_at, order.id));
        }
    }

    pub(super) fn apply_unpinned(&mut self, order: OrderId) {
        let Some(order) = self.open.remove(&order) else {
            return;
        };
        self.open_since.remove(&(order.created_at, order.id));
        if let Some(hold) = self.holds.get_mut(&order.hold) {
            hold.order = None;
            self.deadlines.insert((hold.expires_at, hold.id));
        }
    }

    pub(super) fn apply_prolonged(
        &mut self,
        id: HoldId,
        expires_at: Timestamp,
        deadline: Timestamp,
    ) {
        let Some(hold) = self.holds.get_mut(&id) else {
            return;
        };
        hold.grace_used |= deadline != hold.deadline;
        hold.deadline = deadline;
        let was = std::mem::replace(&mut hold.expires_at, expires_at);
        if self.deadlines.remove(&(was, id)) {
            self.deadlines.insert((expires_at, id));
        }
    }
}
