//! A timetable: one date of a performance, with its seats, the holds on them
//! and the orders of them. The one place where it is decided who gets a seat.
//!
//! * [`command`]: what it can be asked, what can happen, what it answers.
//! * `apply`: what events do to it.
//! * `cancel`: how seats that were sold come back.
//! * `hold`: how holds are decided.
//! * `orders`: those that are confirmed.
//! * `sale`: how orders are decided.
//! * `seats`: what a seat can be.
//! * [`restore`]: how it comes back from the store.

mod apply;
mod cancel;
pub mod command;
mod hold;
mod orders;
pub mod restore;
mod sale;
mod seats;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

pub use seats::{Seat, SeatCounts};

pub use command::{
    CancelledBy, Choice, Command, Event, HoldEnd, HoldView, NamedSeats, NotCancellable, OrderTerms,
    Refusal, Reply, Resolution,
};

use super::best_available::FreeSeats;
use super::decision::{Decision, Events, Machine, Tier};
use super::ids::{HoldId, OrderId, Seq, UserId};
use super::order::{CancelNo, Order, PricedSeats};
use super::plan::{GradeIndex, Plan};
use super::seat::{SeatIndex, SeatStatus};
use super::time::{Millis, Timestamp};

use apply::Unsettled;
use orders::Orders;

type Map<K, V> = HashMap<K, V, RandomState>;

/// How many ended holds are remembered, so that a second release is answered
/// like the first and a late order is told what became of the hold.
pub const ENDED_HOLDS_MAX: usize = 8_192;

/// How many orders may be unfinished at once; further ones are shed.
pub const OPEN_ORDERS_MAX: usize = 4_096;

/// How long an order that is paid from the wallet may be open: a saga is over
/// long before, unless the node that ran it is gone, or the store is. One that
/// comes later finds its order closed, and gives the money back. (A card has all
/// the time that its payment has.)
pub const OPEN_FOR_MAX: Millis = Millis::from_secs(30);

/// How many holds are ended by one decision, so that a thousand holds that end
/// in the same instant don't make one giant write.
const DUE_MAX: usize = 256;

/// Seats that one user has taken for a while.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Which one.
    pub id: HoldId,
    /// Whose.
    pub user: UserId,
    /// What is held, at the price of that moment.
    pub seats: PricedSeats,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ends, unless an order pins it.
    pub expires_at: Timestamp,
    /// When it would end without the grace after restarts, which never adds up.
    pub deadline: Timestamp,
    /// It was made with a pass of the waiting room.
    pub under_pass: bool,
    /// The order that pins it.
    pub order: Option<OrderId>,
    /// Its one prolongation after a failed payment is used up.
    pub grace_used: bool,
}

type GradeCounts = SmallVec<[(GradeIndex, u32); 1]>;

/// What one user holds and owns.
#[derive(Clone, Debug, Default)]
struct UserSeats {
    total: u32,
    /// Only of grades that have a limit of their own; few have any, and a map
    /// of all buyers has no room for the others.
    by_grade: Option<Box<GradeCounts>>,
}

impl UserSeats {
    fn of_grade(&self, grade: GradeIndex) -> u32 {
        self.by_grade
            .iter()
            .flat_map(|counts| counts.iter())
            .find(|(index, _)| *index == grade)
            .map_or(0, |(_, count)| *count)
    }
}

/// The state of one timetable.
#[derive(Clone, Debug)]
pub struct Timetable {
    plan: Arc<Plan>,
    seats: Vec<Seat>,
    free: FreeSeats,
    counts: SeatCounts,
    holds: Map<HoldId, Hold>,
    deadlines: BTreeSet<(Timestamp, HoldId)>,
    ended: Map<HoldId, (UserId, HoldEnd)>,
    ended_order: VecDeque<HoldId>,
    users: Map<UserId, UserSeats>,
    /// Orders whose money is on its way. Volatile: recovery presumes them
    /// aborted.
    open: Map<OrderId, Order>,
    /// Since when each of them that is paid from the wallet is open.
    open_since: BTreeSet<(Timestamp, OrderId)>,
    confirmed: Orders,
    /// Orders that were asked about and that nobody knew: they can't be opened
    /// any more.
    aborted: HashSet<OrderId, RandomState>,
    /// Refunds of cancels that may not have reached their wallets yet.
    refunds_due: BTreeSet<(OrderId, CancelNo)>,
    /// Seats that change their status once their decision is in the database.
    unsettled: VecDeque<Unsettled>,
    /// Seats that come back at a moment of their own (release jitter).
    cooling: BTreeSet<(Timestamp, SeatIndex)>,
    /// Seats whose status changed since [`Timetable::take_changes`].
    changed: Vec<SeatIndex>,
}

impl Timetable {
    /// A timetable with all seats free.
    #[must_use]
    pub fn new(plan: Arc<Plan>) -> Self {
        let capacity = plan.layout.capacity();
        Self {
            free: FreeSeats::new(&plan.layout),
            seats: vec![Seat::Free; capacity as usize],
            counts: SeatCounts {
                available: capacity,
                ..SeatCounts::default()
            },
            holds: Map::default(),
            deadlines: BTreeSet::new(),
            ended: Map::default(),
            ended_order: VecDeque::new(),
            users: Map::default(),
            open: Map::default(),
            open_since: BTreeSet::new(),
            confirmed: Orders::default(),
            aborted: HashSet::default(),
            refunds_due: BTreeSet::new(),
            unsettled: VecDeque::new(),
            cooling: BTreeSet::new(),
            changed: Vec::new(),
            plan,
        }
    }

    /// What it decides by.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Decides by `plan` from now on. Holds and orders keep their prices.
    pub fn replan(&mut self, plan: Arc<Plan>) {
        self.plan = plan;
        self.recount_users();
    }

    /// How many seats are in which status.
    #[must_use]
    pub fn counts(&self) -> SeatCounts {
        self.counts
    }

    /// The public status of every seat, in layout order.
    pub fn statuses(&self) -> impl Iterator<Item = SeatStatus> + '_ {
        self.seats.iter().map(|seat| seat.status())
    }

    /// The seats whose status may have changed since this was last called, with
    /// the status they have now.
    pub fn take_changes(&mut self) -> impl Iterator<Item = (SeatIndex, SeatStatus)> + '_ {
        let seats = &self.seats;
        self.changed
            .drain(..)
            .filter_map(|index| seats.get(index.offset()).map(|seat| (index, seat.status())))
    }

    /// A live hold.
    #[must_use]
    pub fn hold(&self, id: HoldId) -> Option<&Hold> {
        self.holds.get(&id)
    }

    /// All live holds.
    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values()
    }

    /// A confirmed order.
    #[must_use]
    pub fn order(&self, id: OrderId) -> Option<&Arc<Order>> {
        self.confirmed.get(id)
    }

    /// Whether it can be unloaded: nothing would have to happen by itself, and
    /// nobody waits for anything.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
            && self.unsettled.is_empty()
            && self.refunds_due.is_empty()
            && self.next_deadline().is_none()
    }

    /// How many orders wait for their money.
    #[must_use]
    pub fn open_orders(&self) -> usize {
        self.open.len()
    }

    /// Whether the sale of an order isn't in the database yet.
    fn is_selling(&self, order: OrderId) -> bool {
        let selling = Some(Seat::Selling(order));
        let seats = self.confirmed.get(order).map(|order| order.seats.iter());
        seats.is_some_and(|mut seats| seats.any(|priced| self.seat(priced.seat) == selling))
    }

    fn seat(&self, index: SeatIndex) -> Option<Seat> {
        self.seats.get(index.offset()).copied()
    }

    /// The only place where a seat changes: keeps counts, the free map and the
    /// list of changes in step.
    fn set_seat(&mut self, index: SeatIndex, to: Seat) {
        let Some(seat) = self.seats.get_mut(index.offset()) else {
            return;
        };
        let from = std::mem::replace(seat, to);
        if from.status() != to.status() {
            *self.counts.of(from.status()) -= 1;
            *self.counts.of(to.status()) += 1;
            self.changed.push(index);
        }
        match (from, to) {
            (Seat::Free, Seat::Free) => {}
            (Seat::Free, _) => {
                self.free.take(&self.plan.layout, index);
            }
            (_, Seat::Free) => {
                self.free.release(&self.plan.layout, index);
            }
            _ => {}
        }
    }
}

impl Machine for Timetable {
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Refusal = Refusal;

    fn due(&self, now: Timestamp) -> Events<Event> {
        let ended = self
            .deadlines
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(DUE_MAX)
            .filter_map(|(_, id)| self.holds.get(id))
            .map(|hold| self.end_of(hold, HoldEnd::Expired));
        let freed: Vec<_> = self
            .cooling
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(DUE_MAX)
            .copied()
            .collect();
        let freed = (!freed.is_empty()).then_some(Event::SeatsCooled { seats: freed });
        let abandoned = self
            .open_since
            .iter()
            .take_while(|(since, _)| since.plus(OPEN_FOR_MAX) <= now)
            .take(DUE_MAX)
            .flat_map(|(_, order)| self.abort(now, *order).events);
        ended.chain(freed).chain(abandoned).collect()
    }

    fn decide(&self, now: Timestamp, command: Command) -> Result<Decision<Event, Reply>, Refusal> {
        match command {
            Command::Hold {
                hold,
                user,
                choice,
                under_pass,
            } => self.hold_seats(now, hold, user, &choice, under_pass),
            Command::AddSeats { hold, user, choice } => self.add_seats(now, hold, user, &choice),
            Command::Restore { hold, user, lost } => self.restore_hold(now, hold, user, &lost),
            Command::Release { hold, user } => self.release(hold, user),
            Command::DropSeat { hold, user, seat } => self.drop_seat(hold, user, seat),
            Command::FindHold { hold, user } => self.find_hold(hold, user),
            Command::OpenOrder {
                order,
                payment,
                hold,
                user,
                method,
            } => self.open_order(now, order, payment, hold, user, method),
            Command::Sell { order, coupon } => self.sell(order, coupon),
            Command::Abort { order } => Ok(self.abort(now, order)),
            Command::Resolve { order } => Ok(self.resolve(order)),
            Command::Block { seats } => self.block(&seats),
            Command::Unblock { seats } => self.unblock(&seats),
            Command::Cancel {
                order,
                by,
                seats,
                request,
            } => self.cancel(now, order, by, seats.as_ref(), request),
            Command::RefundPaid { order, no } => Ok(self.note_refund(order, no)),
        }
    }

    fn apply(&mut self, seq: Seq, event: &Event) {
        match event {
            Event::Held {
                hold,
                user,
                seats,
                created_at,
                expires_at,
                under_pass,
                restores,
            } => {
                if let Some(lost) = restores {
                    self.remember_end(*lost, *user, HoldEnd::Restored(*hold));
                }
                self.apply_held(Hold {
                    id: *hold,
                    user: *user,
                    seats: seats.clone(),
                    created_at: *created_at,
                    expires_at: *expires_at,
                    deadline: *expires_at,
                    under_pass: *under_pass,
                    order: None,
                    grace_used: false,
                });
            }
            Event::SeatsAdded { hold, seats } => self.apply_seats_added(*hold, seats),
            Event::SeatsDropped { hold, seats } => self.apply_seats_dropped(*hold, seats),
            Event::HoldEnded {
                hold, end, free_at, ..
            } => {
                self.apply_hold_ended(*hold, *end, *free_at);
            }
            Event::HoldProlonged {
                hold,
                expires_at,
                deadline,
            } => self.apply_prolonged(*hold, *expires_at, *deadline),
            Event::SeatsCooled { seats } => {
                for (at, seat) in seats {
                    self.cooling.remove(&(*at, *seat));
                    self.set_seat(*seat, Seat::Free);
                }
            }
            Event::OrderOpened { order } => self.apply_pinned(order),
            Event::OrderAborted { order } => self.apply_unpinned(*order),
            Event::OrderConfirmed { order } => self.apply_confirmed(seq, order),
            Event::OrderDisowned { order } => {
                self.aborted.insert(*order);
            }
            Event::SeatsBlocked { seats } => self.apply_blocks(seq, seats, true),
            Event::SeatsUnblocked { seats } => self.apply_blocks(seq, seats, false),
            Event::SeatsCancelled {
                order,
                cancel,
                free_at,
            } => self.apply_cancelled(seq, *order, cancel, *free_at),
            Event::RefundPaid { order, no } => {
                self.refunds_due.remove(&(*order, *no));
            }
        }
        debug_assert_eq!(self.counts.capacity(), self.plan.layout.capacity(), "I2");
    }

    fn is_durable(event: &Event) -> bool {
        !matches!(
            event,
            Event::OrderOpened { .. } | Event::OrderAborted { .. } | Event::SeatsCooled { .. }
        )
    }

    fn reveals(&self, outcome: &Result<Reply, Refusal>) -> Tier {
        match outcome {
            Err(Refusal::HoldAlreadyOrdered { order }) if self.is_selling(*order) => Tier::Database,
            _ => Tier::Memory,
        }
    }

    fn settle(&mut self, upto: Seq) {
        while self.unsettled.front().is_some_and(|one| one.seq <= upto) {
            let Some(settled) = self.unsettled.pop_front() else {
                return;
            };
            let Unsettled { seats, free_at, .. } = settled;
            if let Some(user) = settled.counted_for {
                self.discount_from(user, &seats);
            }
            for index in seats {
                match (self.seat(index), free_at) {
                    (Some(Seat::Selling(order)), _) => self.set_seat(index, Seat::Sold(order)),
                    (Some(Seat::Releasing), None) => self.set_seat(index, Seat::Free),
                    (Some(Seat::Releasing), Some(at)) => {
                        self.cooling.insert((at, index));
                    }
                    _ => {}
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let hold = self.deadlines.first().map(|(at, _)| *at);
        let cooled = self.cooling.first().map(|(at, _)| *at);
        let open = self.open_since.first();
        let abandoned = open.map(|(since, _)| since.plus(OPEN_FOR_MAX));
        [hold, cooled, abandoned].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
