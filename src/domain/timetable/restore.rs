//! How a timetable comes back from the store.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::command::{Event, HoldEnd};
use super::{Hold, Seat, Timetable};
use crate::domain::ids::{HoldId, OrderId, UserId};
use crate::domain::order::{Cancel, CancelNo, Order, PricedSeats};
use crate::domain::plan::Plan;
use crate::domain::seat::{SeatIndex, Seats};
use crate::domain::time::{Millis, Timestamp};

/// What a live hold gets at least after an outage, so that a restart doesn't
/// steal it; never more than this above its own deadline.
pub const RESTART_GRACE: Millis = Millis::from_secs(5);

/// The rows of one timetable at one version.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Live holds, and those whose end was not written.
    pub holds: Vec<Hold>,
    /// Orders that were confirmed, as they were then.
    pub orders: Vec<Order>,
    /// What was cancelled of them since, in the order of each one's numbers.
    pub cancels: Vec<(OrderId, Cancel)>,
    /// Those whose refund may not have reached its wallet yet.
    pub refunds_due: Vec<(OrderId, CancelNo)>,
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
        let mut cancels: HashMap<OrderId, Vec<Cancel>, RandomState> = HashMap::default();
        for (order, cancel) in stored.cancels {
            cancels.entry(order).or_default().push(cancel);
        }
        for mut order in stored.orders {
            for cancel in cancels.remove(&order.id).into_iter().flatten() {
                order.cancel(cancel);
            }
            let order = Arc::new(order);
            let kept = order.kept();
            timetable.count_for(order.user, kept.iter().map(|priced| priced.seat));
            for priced in &kept {
                timetable.set_seat(priced.seat, Seat::Sold(order.id));
            }
            timetable.confirmed.insert(order);
        }
        timetable.refunds_due.extend(stored.refunds_due);
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
        let seats_of = |seats: &PricedSeats| seats.iter().map(|priced| priced.seat).collect();
        let holds = self.holds.values();
        let orders = self.confirmed.iter();
        let unsettled = self.unsettled.iter();
        let counted: Vec<(UserId, Seats)> = holds
            .map(|hold| (hold.user, seats_of(&hold.seats)))
            .chain(orders.map(|order| (order.user, seats_of(&order.kept()))))
            .chain(unsettled.filter_map(|one| Some((one.counted_for?, one.seats.clone()))))
            .collect();
        for (user, seats) in counted {
            self.count_for(user, seats.into_iter());
        }
    }
}

/// What is known of a hold besides the store, from where it is as durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownHold {
    /// Which one.
    pub id: HoldId,
    /// What became of it.
    pub state: HoldState,
}

/// What became of a hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HoldState {
    /// It lives, and is so.
    Live(Hold),
    /// It is over.
    Ended {
        /// Whose it was.
        user: UserId,
        /// How it ended.
        end: HoldEnd,
    },
}

impl Timetable {
    /// Told once, right after [`Timetable::restore`], what is known of holds
    /// besides: newer than the store's rows, oldest first. Returns the events
    /// that make it so, to be applied in order.
    ///
    /// A sold seat wins over a hold on it. Of two holds on one seat the newer
    /// wins: the older must have ended, even if the word of that was lost.
    pub fn recover_holds(&mut self, known: Vec<KnownHold>) -> Vec<Event> {
        let mut recovery = Recovery::default();
        for KnownHold { id, state } in &known {
            match state {
                HoldState::Live(_) => {
                    recovery.alive.insert(*id);
                }
                HoldState::Ended { user, end } if self.holds.contains_key(id) => {
                    recovery.end(*id, *user, *end);
                }
                // It came and went unknown to the store: no more than its end is
                // worth remembering, so that no token restores it.
                HoldState::Ended { user, end } => self.remember_end(*id, *user, *end),
            }
        }
        for KnownHold { id, state } in known.into_iter().rev() {
            let HoldState::Live(hold) = state else {
                continue;
            };
            debug_assert_eq!(id, hold.id);
            if self.can_be_held(&hold, &recovery) {
                self.make_room_for(&hold, &mut recovery);
                self.bring_back(hold, &mut recovery);
            } else if let Some(stored) = self.holds.get(&id)
                && stored
                    .seats
                    .iter()
                    .any(|priced| recovery.taken.contains(&priced.seat))
            {
                recovery.end(id, stored.user, HoldEnd::Released);
            }
        }
        let Recovery {
            freeing, taking, ..
        } = recovery;
        freeing.into_iter().chain(taking).collect()
    }

    fn can_be_held(&self, hold: &Hold, recovery: &Recovery) -> bool {
        let is_free = |seat: SeatIndex| {
            let could_be = matches!(self.seat(seat), Some(Seat::Free | Seat::Held(_)));
            could_be && !recovery.taken.contains(&seat)
        };
        !hold.seats.is_empty() && hold.seats.iter().all(|priced| is_free(priced.seat))
    }

    /// Ends what the store still has on the seats of `hold`.
    fn make_room_for(&self, hold: &Hold, recovery: &mut Recovery) {
        for priced in &hold.seats {
            recovery.taken.insert(priced.seat);
            let Some(Seat::Held(other)) = self.seat(priced.seat) else {
                continue;
            };
            // One that lives has dropped the seat: its own row says so.
            if recovery.alive.contains(&other) {
                continue;
            }
            let Some(older) = self.holds.get(&other) else {
                continue;
            };
            let was_over = older.expires_at <= hold.created_at;
            let end = if was_over {
                HoldEnd::Expired
            } else {
                HoldEnd::Released
            };
            recovery.end(other, older.user, end);
        }
    }

    /// The events by which `hold` is as it is known to be.
    fn bring_back(&self, hold: Hold, recovery: &mut Recovery) {
        let Some(stored) = self.holds.get(&hold.id) else {
            recovery.taking.push(Event::Held {
                hold: hold.id,
                user: hold.user,
                seats: hold.seats,
                created_at: hold.created_at,
                expires_at: hold.deadline,
                under_pass: hold.under_pass,
                restores: None,
            });
            if hold.expires_at > hold.deadline {
                recovery
                    .taking
                    .push(prolonged(hold.id, hold.expires_at, hold.deadline));
            }
            return;
        };
        let has = |seats: &PricedSeats, seat| seats.iter().any(|priced| priced.seat == seat);
        let dropped: Seats = stored
            .seats
            .iter()
            .map(|priced| priced.seat)
            .filter(|seat| !has(&hold.seats, *seat))
            .collect();
        let added: PricedSeats = hold
            .seats
            .iter()
            .filter(|priced| !has(&stored.seats, priced.seat))
            .copied()
            .collect();
        if !dropped.is_empty() {
            let (hold, seats) = (hold.id, dropped);
            recovery.freeing.push(Event::SeatsDropped { hold, seats });
        }
        if !added.is_empty() {
            let (hold, seats) = (hold.id, added);
            recovery.taking.push(Event::SeatsAdded { hold, seats });
        }
        if hold.expires_at > stored.expires_at || hold.deadline > stored.deadline {
            recovery
                .taking
                .push(prolonged(hold.id, hold.expires_at, hold.deadline));
        }
    }
}

fn prolonged(hold: HoldId, expires_at: Timestamp, deadline: Timestamp) -> Event {
    Event::HoldProlonged {
        hold,
        expires_at,
        deadline,
    }
}

/// The events of a recovery, so far: what frees seats comes first.
#[derive(Default)]
struct Recovery {
    freeing: Vec<Event>,
    taking: Vec<Event>,
    ended: HashSet<HoldId, RandomState>,
    /// Those that are known to live.
    alive: HashSet<HoldId, RandomState>,
    taken: HashSet<SeatIndex, RandomState>,
}

impl Recovery {
    fn end(&mut self, hold: HoldId, user: UserId, end: HoldEnd) {
        if self.ended.insert(hold) {
            self.freeing.push(Event::HoldEnded {
                hold,
                user,
                end,
                free_at: None,
            });
        }
    }
}
