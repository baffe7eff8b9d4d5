//! A coupon: so many claims, first come, first served, one a user. The one
//! place where it is decided who gets one.
//!
//! A claim takes part in an order as a participant of its saga, as the wallet
//! does: it is *prepared* (set aside, durably), and later *posted* (used) or
//! *void* (usable again); it is *returned* when the last seat of its order was
//! cancelled. All are idempotent by order, and a `void` of an order that was never
//! prepared leaves a tombstone that refuses a late `prepare`.
//!
//! Everything is of the strongest tier, and decided in the order in which it is
//! written: so what a later decision builds upon is never less durable than
//! itself. What is *shown* is what is in the database.

mod claimants;
pub mod command;
pub mod discount;
mod tally;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

pub use claimants::Claimants;
pub use command::{
    Claim, Command, Event, Patch, Prepare, Refusal, Reply, Standing, Terms, Unusable, View,
};
pub use discount::Discount;
pub use tally::Tally;

use self::claimants::Used;
use super::decision::{Decision, Events, Machine, Tier};
use super::ids::{CouponId, OrderId, PerformanceId, Seq, UserId};
use super::time::Timestamp;

/// The largest stock: its claimants fit into memory (400 MB).
pub const STOCK_MAX: u32 = 10_000_000;

/// How many claims of a coupon may be set aside at once.
pub const PREPARED_MAX: usize = 65_536;

/// How many orders that came to nothing are remembered, so that a late `prepare`
/// of one is refused. A saga tries it for at most as long as its order may be
/// open, in which far fewer fail.
pub const VOID_MAX: usize = 16_384;

/// Orders that came to nothing, oldest first.
#[derive(Clone, Debug, Default)]
struct Void {
    set: HashSet<OrderId, RandomState>,
    order: VecDeque<OrderId>,
}

impl Void {
    fn insert(&mut self, order: OrderId) {
        if !self.set.insert(order) {
            return;
        }
        self.order.push_back(order);
        if self.order.len() > VOID_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }
}

/// A coupon as the store has it.
#[derive(Clone, Debug, Default)]
pub struct CouponState {
    /// What it is; `None` if it doesn't exist.
    pub terms: Option<Terms>,
    /// Who has one.
    pub claimants: Claimants,
    /// Claims that are set aside.
    pub prepared: Vec<Prepare>,
    /// Claims that are used.
    pub posted: Vec<(UserId, OrderId)>,
    /// The last [`VOID_MAX`] orders that came to nothing, oldest first.
    pub void: Vec<OrderId>,
}

/// The state of one coupon.
#[derive(Clone, Debug)]
pub struct Coupon {
    id: CouponId,
    terms: Option<Arc<Terms>>,
    claimants: Claimants,
    /// When the last of them came, of those that came since it was loaded.
    claimed_at: Option<Timestamp>,
    prepared: HashMap<UserId, Prepare, RandomState>,
    used: Used,
    void: Void,
    /// What is in the database.
    shown: Option<View>,
    /// What will be shown once the decision is there.
    unsettled: VecDeque<(Seq, View)>,
    /// Whether `shown` is another since [`Coupon::take_shown`].
    is_news: bool,
    /// What became of claims since [`Coupon::take_tally`].
    tally: Tally,
}

impl Coupon {
    /// A coupon that doesn't exist yet.
    #[must_use]
    pub fn new(id: CouponId) -> Self {
        Self {
            id,
            terms: None,
            claimants: Claimants::default(),
            claimed_at: None,
            prepared: HashMap::default(),
            used: Used::default(),
            void: Void::default(),
            shown: None,
            unsettled: VecDeque::new(),
            is_news: false,
            tally: Tally::default(),
        }
    }

    /// The coupon as the store has it.
    #[must_use]
    pub fn restore(id: CouponId, state: CouponState) -> Self {
        let mut coupon = Self {
            terms: state.terms.map(Arc::new),
            claimants: state.claimants,
            ..Self::new(id)
        };
        for (user, order) in state.posted {
            coupon.used.insert(user, order);
        }
        let prepared = state.prepared.into_iter();
        coupon.prepared = prepared.map(|p| (p.user, p)).collect();
        state.void.into_iter().for_each(|o| coupon.void.insert(o));
        coupon.shown = coupon.view();
        coupon
    }

    /// What it is; `None` if it doesn't exist.
    #[must_use]
    pub fn terms(&self) -> Option<&Arc<Terms>> {
        self.terms.as_ref()
    }

    /// How many have claimed it, those too whose claims are on their way to the
    /// database.
    #[must_use]
    pub fn claimed(&self) -> u32 {
        // Never more than the stock.
        u32::try_from(self.claimants.len()).unwrap_or(u32::MAX)
    }

    /// What anyone may see: what is in the database. `None` if it isn't there.
    #[must_use]
    pub fn shown(&self) -> Option<&View> {
        self.shown.as_ref()
    }

    /// The same, if it has changed since this was last called.
    pub fn take_shown(&mut self) -> Option<(CouponId, View)> {
        let is_news = std::mem::take(&mut self.is_news);
        let view = self.shown.clone().filter(|_| is_news)?;
        Some((self.id, view))
    }

    /// What became of claims since this was last called, or it was loaded.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// How many of its claims are used.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.len()
    }

    /// The claims that are set aside for orders of which nothing more is known.
    pub fn in_doubt(&self) -> impl Iterator<Item = &Prepare> {
        self.prepared.values()
    }

    /// Whether it can be forgotten until it is asked again.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.prepared.is_empty() && self.unsettled.is_empty()
    }

    /// What it is now, in the database or not; `None` if it doesn't exist.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        let terms = Arc::clone(self.terms.as_ref()?);
        Some(self.view_of(terms))
    }

    fn view_of(&self, terms: Arc<Terms>) -> View {
        View {
            terms,
            claimed: self.claimed(),
            claimed_at: self.claimed_at,
        }
    }

    fn existing(&self) -> Result<&Arc<Terms>, Refusal> {
        self.terms.as_ref().ok_or(Refusal::NotFound)
    }

    fn create(&self, terms: Terms) -> Result<Decision<Event, Reply>, Refusal> {
        // Its id is random: only a repetition finds it existing.
        if let Some(view) = self.view() {
            return Ok(Decision::unchanged(Reply::View(view)));
        }
        if terms.starts_at >= terms.ends_at {
            return Err(Refusal::EndsBeforeStart);
        }
        let terms = Arc::new(terms);
        let view = self.view_of(Arc::clone(&terms));
        Ok(Decision::one(Event::Created(terms), Reply::View(view)))
    }

    fn change(&self, patch: &Patch) -> Result<Decision<Event, Reply>, Refusal> {
        let before = self.existing()?;
        let after = patch.applied_to(before);
        let claimed = self.claimed();
        let keeps_its_promise =
            (after.discount, after.performance) == (before.discount, before.performance);
        if after.stock < claimed || (claimed > 0 && !keeps_its_promise) {
            return Err(Refusal::HasClaims { claimed });
        }
        if after.starts_at >= after.ends_at {
            return Err(Refusal::EndsBeforeStart);
        }
        let terms = if after == **before {
            Arc::clone(before)
        } else {
            Arc::new(after)
        };
        let reply = Reply::View(self.view_of(Arc::clone(&terms)));
        if Arc::ptr_eq(&terms, before) {
            return Ok(Decision::unchanged(reply));
        }
        Ok(Decision::one(Event::Changed(terms), reply))
    }

    fn claim(&self, claim: Claim) -> Result<Decision<Event, Reply>, Refusal> {
        let terms = self.existing()?;
        if self.claimants.contains(claim.user) {
            return Err(Refusal::AlreadyClaimed);
        }
        let (starts_at, ends_at) = (terms.starts_at, terms.ends_at);
        if !(starts_at..ends_at).contains(&claim.at) {
            return Err(Refusal::NotOpen { starts_at, ends_at });
        }
        if self.claimed() >= terms.stock {
            return Err(Refusal::SoldOut);
        }
        Ok(Decision::one(Event::Claimed(claim), Reply::Claimed(claim)))
    }

    fn prepare(
        &self,
        prepare: Prepare,
        performance: PerformanceId,
    ) -> Result<Decision<Event, Reply>, Refusal> {
        let terms = self.existing()?;
        let reply = Reply::Prepared(terms.discount);
        if self.void.set.contains(&prepare.order) {
            return Err(Refusal::OrderIsVoid);
        }
        let held = self.prepared.get(&prepare.user);
        let has_it = held.map(|held| held.order);
        let has_it = has_it.or_else(|| self.used.get(prepare.user));
        match (has_it, held) {
            (Some(order), _) if order == prepare.order => return Ok(Decision::unchanged(reply)),
            (_, Some(held)) => return Err(Refusal::InUse(*held)),
            (Some(_), None) => return Err(Refusal::NotUsable(Unusable::Used)),
            (None, None) => {}
        }
        if !self.claimants.contains(prepare.user) {
            return Err(Refusal::NotUsable(Unusable::NotClaimed));
        }
        if prepare.at >= terms.ends_at {
            return Err(Refusal::NotUsable(Unusable::Expired));
        }
        if terms.performance.is_some_and(|only| only != performance) {
            return Err(Refusal::NotUsable(Unusable::OtherPerformance));
        }
        if self.prepared.len() >= PREPARED_MAX {
            return Err(Refusal::TooManyUnfinishedOrders);
        }
        Ok(Decision::one(Event::Prepared(prepare), reply))
    }

    /// The claim of `user`, if it is set aside for `order`.
    fn held_for(&self, user: UserId, order: OrderId) -> Option<Prepare> {
        let held = self.prepared.get(&user).filter(|held| held.order == order);
        held.copied()
    }

    fn void(&self, prepare: Prepare) -> Decision<Event, Reply> {
        let Prepare {
            user, order, at, ..
        } = prepare;
        if let Some(prepare) = self.held_for(user, order) {
            return Decision::one(Event::Voided { prepare, at }, Reply::Done);
        }
        if self.used.get(user) == Some(order) || self.void.set.contains(&order) {
            return Decision::unchanged(Reply::Done);
        }
        Decision::one(Event::Voided { prepare, at }, Reply::Done)
    }

    fn give_back(&self, prepare: Prepare) -> Decision<Event, Reply> {
        let Prepare {
            user, order, at, ..
        } = prepare;
        // An order that was confirmed and cancelled before its claim was posted.
        let is_held = self.held_for(user, order).is_some();
        if !is_held && self.used.get(user) != Some(order) {
            return Decision::unchanged(Reply::Done);
        }
        Decision::one(Event::Returned { prepare, at }, Reply::Done)
    }

    fn release(&mut self, user: UserId, order: OrderId) {
        if self.held_for(user, order).is_some() {
            self.prepared.remove(&user);
        }
        if self.used.get(user) == Some(order) {
            self.used.remove(user);
        }
        self.void.insert(order);
    }

    fn will_show(&mut self, seq: Seq) {
        let Some(view) = self.view() else { return };
        match self.unsettled.back_mut() {
            Some((last, shown)) if *last == seq => *shown = view,
            _ => self.unsettled.push_back((seq, view)),
        }
    }
}

impl Machine for Coupon {
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Refusal = Refusal;

    fn due(&self, _now: Timestamp) -> Events<Event> {
        Events::new()
    }

    fn decide(&self, now: Timestamp, command: Command) -> Result<Decision<Event, Reply>, Refusal> {
        match command {
            Command::Create(terms) => self.create(terms),
            Command::Change(patch) => self.change(&patch),
            Command::Claim { claim, user, key } => self.claim(Claim {
                id: claim,
                user,
                at: now,
                key,
            }),
            Command::Prepare {
                order,
                user,
                timetable,
                performance,
            } => {
                let prepare = Prepare {
                    user,
                    order,
                    timetable,
                    at: now,
                };
                self.prepare(prepare, performance)
            }
            Command::Post { order, user } => Ok(match self.held_for(user, order) {
                Some(prepare) => Decision::one(Event::Posted { prepare, at: now }, Reply::Done),
                None => Decision::unchanged(Reply::Done),
            }),
            Command::Void {
                order,
                user,
                timetable,
            } => Ok(self.void(Prepare {
                user,
                order,
                timetable,
                at: now,
            })),
            Command::Return {
                order,
                user,
                timetable,
            } => Ok(self.give_back(Prepare {
                user,
                order,
                timetable,
                at: now,
            })),
            Command::View => {
                let view = self.shown.clone().ok_or(Refusal::NotFound)?;
                Ok(Decision::unchanged(Reply::View(view)))
            }
        }
    }

    fn apply(&mut self, seq: Seq, event: &Event) {
        match event {
            Event::Created(terms) | Event::Changed(terms) => {
                self.terms = Some(Arc::clone(terms));
                self.will_show(seq);
            }
            Event::Claimed(claim) => {
                let is_new = self.claimants.insert(claim.user);
                debug_assert!(is_new, "I6: one claim a user");
                self.claimed_at = Some(claim.at);
                self.will_show(seq);
            }
            Event::Prepared(prepare) => {
                self.prepared.insert(prepare.user, *prepare);
                self.tally.reserved += 1;
            }
            Event::Posted { prepare, .. } => {
                self.prepared.remove(&prepare.user);
                self.used.insert(prepare.user, prepare.order);
                self.tally.used += 1;
            }
            Event::Voided { prepare, .. } => {
                // Else a tombstone: there was nothing to release.
                let is_held = self.held_for(prepare.user, prepare.order).is_some();
                self.tally.released += u32::from(is_held);
                self.release(prepare.user, prepare.order);
            }
            Event::Returned { prepare, .. } => {
                self.tally.returned += 1;
                self.release(prepare.user, prepare.order);
            }
        }
        debug_assert!(
            self.terms
                .as_ref()
                .is_none_or(|t| self.claimed() <= t.stock),
            "I5: more claims than stock"
        );
    }

    fn is_durable(_event: &Event) -> bool {
        true
    }

    /// All that shows a change is of the strongest tier already, and a view is
    /// of what is in the database.
    fn reveals(&self, _outcome: &Result<Reply, Refusal>) -> Tier {
        Tier::Memory
    }

    fn settle(&mut self, upto: Seq) {
        while self.unsettled.front().is_some_and(|(seq, _)| *seq <= upto) {
            if let Some((_, view)) = self.unsettled.pop_front() {
                self.shown = Some(view);
                self.is_news = true;
            }
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        None
    }
}

#[cfg(test)]
mod tests;
