//! How a timetable comes back from the store.

use std::sync::Arc;

use smallvec::SmallVec;

use super::command::Event;
use super::{Hold, Seat, Timetable};
use crate::domain::ids::OrderId;
use crate::domain::order::Order;
use crate::domain::plan::Plan;
use crate::domain::seat::SeatIndex;
use crate::domain::time::{Millis, Timestamp};

/// What a live hold gets at least after an outage, so that a restart doesn't
/// steal it; never more than this above its own deadline.
pub const RESTART_GRACE: Millis = Millis::from_secs(5);

/// The rows of one timetable at one version.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Live holds, and those whose end was not written.
    pub holds: Vec<Hold>,
    /// Confirmed orders, all their seats sold.
    pub orders: Vec<Order>,
    /// Orders that can't be opened any more.
    pub aborted: Vec<OrderId>,
    /// Seats off sale.
    pub blocked: Vec<SeatIndex>,
}

impl Timetable {
    /// The timetable as the store has it. A sold seat wins over a hold on it.
    #[must_use]
    pub fn restore(plan: Arc<Plan>, stored: Stored) -> Self {
        let mut timetable = Self::new(plan);
        for seat in stored.blocked {
            timetable.set_seat(seat, Seat::Blocked);
        }
        for order in stored.orders {
            let order = Arc::new(order);
            timetable.count_for(order.user, &order.seats);
            for priced in &order.seats {
                timetable.set_seat(priced.seat, Seat::Sold(order.id));
            }
            timetable.confirmed.insert(order);
        }
        for hold in stored.holds {
            let is_free = |seat: SeatIndex| timetable.seat(seat) == Some(Seat::Free);
            if hold.seats.iter().all(|priced| is_free(priced.seat)) {
                timetable.apply_held(hold);
            }
        }
        timetable.aborted.extend(stored.aborted);
        timetable.changed.clear();
        timetable
    }

    /// Prolongs the holds that ended, or soon end, while nobody could use them:
    /// those whose deadline is later than `alive_at`, the last sign of life of
    /// the owner before this one. Earlier ones are over.
    #[must_use]
    pub fn grace_after_outage(&self, now: Timestamp, alive_at: Timestamp) -> SmallVec<[Event; 8]> {
        self.holds
            .values()
            .filter(|hold| hold.expires_at > alive_at)
            .filter_map(|hold| {
                let grace = now
                    .plus(RESTART_GRACE)
                    .min(hold.deadline.plus(RESTART_GRACE));
                (grace > hold.expires_at).then_some(Event::HoldProlonged {
                    hold: hold.id,
                    expires_at: grace,
                    deadline: hold.deadline,
                })
            })
            .collect()
    }

    /// Counts again what each user has, after the limits by grade changed.
    pub(super) fn recount_users(&mut self) {
        self.users.clear();
        let holds: Vec<_> = self
            .holds
            .values()
            .map(|hold| (hold.user, hold.seats.clone()))
            .collect();
        let orders: Vec<_> = self
            .confirmed
            .iter()
            .map(|order| (order.user, order.seats.clone()))
            .collect();
        for (user, seats) in holds.into_iter().chain(orders) {
            self.count_for(user, &seats);
        }
    }
}
