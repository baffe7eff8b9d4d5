//! Who is next, and when something is due.
//!
//! Admission takes two decisions: one says who, and only when that is in the
//! database the other gives them their passes, whose time and window begin
//! then, and which are shown once they are there, too. So nobody is shown a pass
//! that a crash could take back or change, and no crash lets more in than the
//! policy allows.

use super::draw::entrants_hash;
use super::line::TicketNumber;
use super::places::{Slot, Stand};
use super::policy::Terms;
use super::signs::ended;
use super::{End, Event, Phase, Queue, Reply};
use crate::domain::decision::{Decision, Events};
use crate::domain::ids::{QueueTicketId, Seq};
use crate::domain::time::{Millis, Timestamp};

/// How many are admitted by one decision.
pub(super) const BATCH_MAX: u32 = 1_024;

/// How many passes are ended by one decision.
const EXPIRED_MAX: usize = 256;

/// Earlier than any clock: what is due at once.
const AT_ONCE: Timestamp = Timestamp(0);

/// Some who are being admitted.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub places: Vec<(Slot, TicketNumber)>,
    /// All numbers up to here are passed with it.
    pub upto: TicketNumber,
    /// How many count in the window.
    pub metered: u32,
    /// What it was decided by; `None` in another life.
    pub terms: Option<Terms>,
    /// The decision, until it is in the database.
    pub deciding: Option<Seq>,
}

impl Queue {
    /// What time it is for the queue.
    pub(super) fn phase_at(&self, now: Timestamp) -> Phase {
        let plan = &self.plan;
        let nothing_left = self.seats.is_some_and(|seats| seats.total() == 0);
        if plan.is_over(now) {
            Phase::Closed
        } else if now < plan.opens_at {
            Phase::PreQueue
        } else if nothing_left {
            Phase::SoldOut
        } else {
            Phase::Open
        }
    }

    /// All that is due, the most urgent first.
    pub(super) fn all_due(&self, now: Timestamp) -> Events<Event> {
        let phase = self.phase_at(now);
        if self.phase != Some(phase) {
            return one(Event::Turned { phase, at: now });
        }
        if self.must_reserve(phase) {
            return self.reserve(self.next).into_iter().collect();
        }
        if let Some(Batch { deciding: None, .. }) = &self.batch {
            let ttl = Millis::from_secs(self.plan.policy.active_ttl_seconds);
            return one(Event::Opened {
                at: now,
                expires_at: now.plus(ttl),
            });
        }
        let expired = self.expired_passes(now);
        if !expired.is_empty() {
            return expired;
        }
        if self.must_draw() && phase != Phase::PreQueue {
            return self.draw_now(now);
        }
        if let Some(admitted) = self.admission(now) {
            return one(admitted);
        }
        self.overdue(now)
    }

    fn expired_passes(&self, now: Timestamp) -> Events<Event> {
        let over = self.passes.iter().take_while(|(at, _)| *at <= now);
        over.take(EXPIRED_MAX)
            .filter_map(|(_, slot)| self.places.get(Slot(*slot)))
            .map(|place| ended(place, End::Expired, now))
            .collect()
    }

    /// How many more may be inside.
    fn free_slots(&self) -> u32 {
        let inside = self.places.counts().active;
        let most = self.plan.policy.max_active.unwrap_or(u32::MAX);
        most.saturating_sub(inside)
    }

    /// How many of those who stand first enter as soon as anybody does.
    pub(super) fn room(&self, now: Timestamp) -> u32 {
        let policy = &self.plan.policy;
        let free = policy.free_admission.saturating_sub(self.cursor.0);
        let by_window = policy.admit.map_or(u32::MAX, |admit| {
            self.window.room(admit, now).saturating_add(free)
        });
        let entering = self.batch.as_ref().map_or(0, |batch| batch.places.len());
        let entering = u32::try_from(entering).unwrap_or(u32::MAX);
        self.free_slots().min(by_window).saturating_add(entering)
    }

    /// Whether somebody could enter, but for the window. Nobody does until it is
    /// known what is left.
    fn may_admit(&self) -> bool {
        self.batch.is_none()
            && self.seats.is_some()
            && !self.paused
            && self.places.counts().waiting > 0
            && self.free_slots() > 0
            && !self.must_draw()
    }

    fn is_metered(&self, number: TicketNumber) -> bool {
        let policy = &self.plan.policy;
        policy.admit.is_some() && number.0 > policy.free_admission
    }

    /// The next ones, as many as may enter now.
    fn admission(&self, now: Timestamp) -> Option<Event> {
        if !self.may_admit() || self.phase_at(now) != Phase::Open {
            return None;
        }
        let admit = self.plan.policy.admit;
        let mut metered_room = admit.map_or(u32::MAX, |admit| self.window.room(admit, now));
        let mut room = self.free_slots().min(BATCH_MAX);
        let mut metered = 0;
        let mut take = |number: TicketNumber| {
            let is_metered = self.is_metered(number);
            if room == 0 || (is_metered && metered_room == 0) {
                return false;
            }
            room -= 1;
            if is_metered {
                metered_room -= 1;
                metered += 1;
            }
            true
        };
        let mut late = Vec::new();
        let mut upto = self.cursor;
        let mut goes_on = true;
        for number in &self.late {
            goes_on = take(*number);
            if !goes_on {
                break;
            }
            late.push(*number);
        }
        while goes_on {
            let next = self.places.next_waiting(upto.next());
            let Some(number) = next.and_then(|(_, place)| place.number()) else {
                break;
            };
            goes_on = take(number);
            if goes_on {
                upto = number;
            }
        }
        let nobody = late.is_empty() && upto == self.cursor;
        (!nobody).then_some(Event::Admitted {
            late,
            upto,
            metered,
            terms: self.plan.policy.terms(),
        })
    }

    /// When somebody may enter, if nothing changes.
    fn admission_deadline(&self) -> Option<Timestamp> {
        if !self.may_admit() || self.phase != Some(Phase::Open) {
            return None;
        }
        let full_until = self
            .plan
            .policy
            .admit
            .and_then(|admit| self.window.free_at(admit));
        let Some(full_until) = full_until else {
            return Some(AT_ONCE);
        };
        let first = self.late.first().copied().or_else(|| {
            let next = self.places.next_waiting(self.cursor.next());
            next.and_then(|(_, place)| place.number())
        });
        match first {
            Some(number) if self.is_metered(number) => Some(full_until),
            Some(_) => Some(AT_ONCE),
            None => None,
        }
    }

    /// When something is due.
    pub(super) fn first_deadline(&self) -> Option<Timestamp> {
        let plan = &self.plan;
        let Some(phase) = self.phase else {
            return Some(AT_ONCE);
        };
        if matches!(&self.batch, Some(Batch { deciding: None, .. })) {
            return Some(AT_ONCE);
        }
        let nothing_left = self.seats.is_some_and(|seats| seats.total() == 0);
        let turns = match phase {
            Phase::PreQueue => Some(plan.opens_at.min(plan.closes_at)),
            Phase::Open if nothing_left => Some(AT_ONCE),
            Phase::SoldOut if !nothing_left => Some(AT_ONCE),
            Phase::Open | Phase::SoldOut => Some(plan.closes_at),
            // Only another plan reopens it, and that is looked at at once.
            Phase::Closed => None,
        };
        let reserves = self.must_reserve(phase).then_some(AT_ONCE);
        let draws = (self.must_draw() && phase != Phase::PreQueue).then_some(AT_ONCE);
        let passes = self.passes.first().map(|(at, _)| *at);
        [
            turns,
            reserves,
            draws,
            passes,
            self.admission_deadline(),
            self.signs.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether numbers are wanted before somebody joins: a queue in the middle of
    /// its sale has come back, and all who come at that moment would wait for
    /// the first of them. One that nobody is in waits, too: it would lose a block
    /// each time that it is looked at.
    fn must_reserve(&self, phase: Phase) -> bool {
        let counts = self.places.counts();
        let takes_newcomers = matches!(phase, Phase::PreQueue | Phase::Open) && !self.draining;
        takes_newcomers
            && self.next > self.reserved_upto
            && counts.waiting + counts.active > 0
            // They are given out by the draw, all at once.
            && counts.entrants == 0
    }

    /// Whether people wait for a draw that can be made.
    fn must_draw(&self) -> bool {
        let lottery = &self.lottery;
        self.places.counts().entrants > 0 && lottery.drawn.is_none() && lottery.seed.is_some()
    }

    fn draw_now(&self, now: Timestamp) -> Events<Event> {
        let entrants = self.entrants().count();
        let last = u32::try_from(entrants).unwrap_or(u32::MAX);
        let last = TicketNumber(self.next.0.saturating_add(last).saturating_sub(1));
        let mut events = Events::new();
        events.extend(self.reserve(last));
        events.push(Event::Drawn {
            at: now,
            first: self.next,
            entrants: self.places.counts().entrants,
            entrants_hash: entrants_hash(self.entrants().map(|(_, ticket)| ticket)),
        });
        events
    }

    /// Who waits for the draw.
    pub(super) fn entrants(&self) -> impl Iterator<Item = (Slot, QueueTicketId)> + '_ {
        self.places.iter().filter_map(|(slot, place)| {
            let waits = matches!(place.stand, Stand::Waiting { .. });
            (waits && place.number().is_none()).then_some((slot, place.ticket))
        })
    }

    pub(super) fn pause(&self, paused: bool) -> Decision<Event, Reply> {
        if self.paused == paused {
            return Decision::unchanged(Reply::Done);
        }
        Decision::one(Event::Paused(paused), Reply::Done)
    }

    pub(super) fn drain(&self, draining: bool) -> Decision<Event, Reply> {
        if self.draining == draining {
            return Decision::unchanged(Reply::Done);
        }
        Decision::one(Event::Drained(draining), Reply::Done)
    }
}

fn one(event: Event) -> Events<Event> {
    let mut events = Events::new();
    events.push(event);
    events
}
