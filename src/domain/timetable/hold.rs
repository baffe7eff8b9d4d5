//! How holds are decided.
//!
//! The order of the checks is part of the HTTP contract: window, limit, unknown
//! seats, availability. All or nothing.

use smallvec::SmallVec;

use super::command::{Choice, Event, HoldEnd, HoldView, LostHold, Refusal, Reply};
use super::{Hold, Seat, Timetable};
use crate::domain::best_available::Wish;
use crate::domain::decision::Decision;
use crate::domain::ids::{HoldId, UserId};
use crate::domain::layout::SectionIndex;
use crate::domain::order::{PricedSeat, PricedSeats};
use crate::domain::plan::{Grade, GradeIndex};
use crate::domain::seat::{SeatIndex, Seats};
use crate::domain::time::{Millis, Timestamp};

type Decided = Result<Decision<Event, Reply>, Refusal>;

impl Timetable {
    pub(super) fn hold_seats(
        &self,
        now: Timestamp,
        hold: HoldId,
        user: UserId,
        choice: &Choice,
        under_pass: bool,
    ) -> Decided {
        let seats = self.choose(now, user, choice)?;
        Ok(self.held(now, hold, user, seats, under_pass, None))
    }

    pub(super) fn add_seats(
        &self,
        now: Timestamp,
        id: HoldId,
        user: UserId,
        choice: &Choice,
    ) -> Decided {
        let hold = self.unpinned_hold_of(id, user)?;
        let seats = self.choose(now, user, choice)?;
        let mut view = HoldView::from(hold);
        view.seats.extend(seats.iter().copied());
        Ok(Decision::one(
            Event::SeatsAdded { hold: id, seats },
            Reply::Hold(view),
        ))
    }

    /// A lost hold comes back as a new one, by the same rules, unless it is
    /// known to have ended. Units of a general-admission section are any free
    /// ones of it: they have no places.
    pub(super) fn restore_hold(
        &self,
        now: Timestamp,
        id: HoldId,
        user: UserId,
        lost: &LostHold,
    ) -> Decided {
        match self.find_hold(lost.id, user) {
            Err(Refusal::HoldNotFound) => {}
            known => return known,
        }
        if lost.expires_at <= now {
            return Err(Refusal::HoldExpired);
        }
        let mut seats = PricedSeats::new();
        for choice in self.choices_of(&lost.seats) {
            seats.extend(self.choose(now, user, &choice)?);
        }
        // Checked per choice above, and for all of them here.
        self.check_limit(user, &seats)?;
        Ok(self.held(now, id, user, seats, lost.under_pass, Some(lost.id)))
    }

    pub(super) fn release(&self, id: HoldId, user: UserId) -> Decided {
        match self.unpinned_hold_of(id, user) {
            Ok(hold) => Ok(Decision::one(released(hold), Reply::Released)),
            // Released twice, or too late: it is over either way.
            Err(Refusal::HoldReleased | Refusal::HoldExpired) => {
                Ok(Decision::unchanged(Reply::Released))
            }
            Err(refusal) => Err(refusal),
        }
    }

    pub(super) fn drop_seat(&self, id: HoldId, user: UserId, seat: SeatIndex) -> Decided {
        let hold = self.unpinned_hold_of(id, user)?;
        if !hold.seats.iter().any(|priced| priced.seat == seat) {
            // A second click: it is not in the hold, as asked.
            return Ok(Decision::unchanged(Reply::Hold(hold.into())));
        }
        if hold.seats.len() == 1 {
            return Ok(Decision::one(released(hold), Reply::Released));
        }
        let mut view = HoldView::from(hold);
        view.seats.retain(|priced| priced.seat != seat);
        let seats = Seats::from_iter([seat]);
        Ok(Decision::one(
            Event::SeatsDropped { hold: id, seats },
            Reply::Hold(view),
        ))
    }

    pub(super) fn find_hold(&self, id: HoldId, user: UserId) -> Decided {
        let hold = self.hold_of(id, user)?;
        Ok(Decision::unchanged(Reply::Hold(hold.into())))
    }

    /// A live hold of this user.
    pub(super) fn hold_of(&self, id: HoldId, user: UserId) -> Result<&Hold, Refusal> {
        if let Some(hold) = self.holds.get(&id).filter(|hold| hold.user == user) {
            return Ok(hold);
        }
        if let Some(order) = self.confirmed.of_hold(id)
            && order.user == user
        {
            return Err(Refusal::HoldAlreadyOrdered { order: order.id });
        }
        match self.ended.get(&id) {
            Some((owner, end)) if *owner == user => match end {
                HoldEnd::Expired => Err(Refusal::HoldExpired),
                HoldEnd::Released => Err(Refusal::HoldReleased),
                // Each restored hold is newer than the one it restores, so
                // this ends.
                HoldEnd::Restored(newer) => self.hold_of(*newer, user),
            },
            _ => Err(Refusal::HoldNotFound),
        }
    }

    /// A live hold of this user that no order pins.
    pub(super) fn unpinned_hold_of(&self, id: HoldId, user: UserId) -> Result<&Hold, Refusal> {
        let hold = self.hold_of(id, user)?;
        match hold.order {
            Some(order) => Err(Refusal::HoldAlreadyOrdered { order }),
            None => Ok(hold),
        }
    }

    /// The end of a hold whose time is up: its seats may come back later, by a
    /// part of the release jitter that its random id decides.
    pub(super) fn end_of(&self, hold: &Hold, end: HoldEnd) -> Event {
        let (_, random) = hold.id.0.as_u64_pair();
        let free_at = self.free_at(hold.expires_at, (random >> 16) as u16);
        Event::HoldEnded {
            hold: hold.id,
            user: hold.user,
            end,
            free_at,
        }
    }

    /// When seats that come back at `at` are free: later than that by a part of the
    /// release jitter, if there is any.
    pub(super) fn free_at(&self, at: Timestamp, random: u16) -> Option<Timestamp> {
        let jitter = Millis::from_secs(self.plan.limits.release_jitter_seconds);
        let part = i64::from(random) * jitter.0 / i64::from(u16::MAX);
        (jitter > Millis(0)).then(|| at.plus(Millis(part)))
    }

    fn held(
        &self,
        now: Timestamp,
        hold: HoldId,
        user: UserId,
        seats: PricedSeats,
        under_pass: bool,
        restores: Option<HoldId>,
    ) -> Decision<Event, Reply> {
        let expires_at = now.plus(self.plan.limits.hold_ttl());
        let view = HoldView {
            id: hold,
            seats: seats.clone(),
            expires_at,
            under_pass,
        };
        let event = Event::Held {
            hold,
            user,
            seats,
            created_at: now,
            expires_at,
            under_pass,
            restores,
        };
        Decision::one(event, Reply::Hold(view))
    }

    fn choose(
        &self,
        now: Timestamp,
        user: UserId,
        choice: &Choice,
    ) -> Result<PricedSeats, Refusal> {
        self.check_window(now)?;
        let have = self.users.get(&user).map_or(0, |seats| seats.total);
        let limit = self.plan.limits.max_seats_per_user;
        if choice.count() > (limit.saturating_sub(have)) as usize {
            return Err(Refusal::SeatLimitExceeded {
                limit,
                have,
                grade: None,
            });
        }
        let seats = match choice {
            Choice::Seats { seats, unknown } => self.named(now, user, seats, unknown)?,
            Choice::Best {
                count,
                grade,
                section,
                adjacent,
            } => self.best(now, user, *count, *grade, *section, *adjacent)?,
            Choice::Units { section, count } => self.units(now, user, section, *count)?,
        };
        Ok(self.priced(&seats))
    }

    fn priced(&self, seats: &Seats) -> PricedSeats {
        seats
            .iter()
            .map(|seat| PricedSeat {
                seat: *seat,
                price: self.plan.price(*seat),
            })
            .collect()
    }

    fn check_window(&self, now: Timestamp) -> Result<(), Refusal> {
        let (opens_at, closes_at) = (self.plan.opens_at, self.plan.closes_at);
        if self.plan.withdrawn || now >= closes_at {
            return Err(Refusal::SaleClosed {
                opens_at,
                closes_at,
            });
        }
        if now < opens_at
            && self
                .plan
                .grades
                .iter()
                .all(|g| g.opens_at.is_none_or(|at| now < at))
        {
            return Err(Refusal::SaleNotOpen {
                opens_at,
                closes_at,
            });
        }
        Ok(())
    }

    /// A grade may open and close at times of its own.
    fn check_grade_window(&self, now: Timestamp, grade: &Grade) -> Result<(), Refusal> {
        let opens_at = grade.opens_at.unwrap_or(self.plan.opens_at);
        let closes_at = grade.closes_at.unwrap_or(self.plan.closes_at);
        if now < opens_at {
            return Err(Refusal::SaleNotOpen {
                opens_at,
                closes_at,
            });
        }
        if now >= closes_at {
            return Err(Refusal::SaleClosed {
                opens_at,
                closes_at,
            });
        }
        Ok(())
    }

    /// Whether `user` may have `more` seats of a grade.
    fn check_grade_limit(
        &self,
        user: UserId,
        index: GradeIndex,
        grade: &Grade,
        more: u32,
    ) -> Result<(), Refusal> {
        let Some(limit) = grade.max_per_user else {
            return Ok(());
        };
        let have = self
            .users
            .get(&user)
            .map_or(0, |seats| seats.of_grade(index));
        if more > limit.saturating_sub(have) {
            return Err(Refusal::SeatLimitExceeded {
                limit,
                have,
                grade: Some(index),
            });
        }
        Ok(())
    }

    fn check_limit(&self, user: UserId, seats: &PricedSeats) -> Result<(), Refusal> {
        let have = self.users.get(&user).map_or(0, |seats| seats.total);
        let limit = self.plan.limits.max_seats_per_user;
        if seats.len() > limit.saturating_sub(have) as usize {
            return Err(Refusal::SeatLimitExceeded {
                limit,
                have,
                grade: None,
            });
        }
        Ok(())
    }

    fn named(
        &self,
        now: Timestamp,
        user: UserId,
        seats: &Seats,
        unknown: &[String],
    ) -> Result<Seats, Refusal> {
        let mut by_grade: SmallVec<[(GradeIndex, u32); 4]> = SmallVec::new();
        let mut strangers = Seats::new();
        for seat in seats {
            match self.plan.grade_index(*seat) {
                Some(grade) if !self.is_unit(*seat) => {
                    match by_grade.iter_mut().find(|(index, _)| *index == grade) {
                        Some((_, count)) => *count += 1,
                        None => by_grade.push((grade, 1)),
                    }
                }
                _ => strangers.push(*seat),
            }
        }
        let known = || {
            by_grade
                .iter()
                .filter_map(|(i, n)| Some((*i, *n, self.plan.grade(*i)?)))
        };
        for (_, _, grade) in known() {
            self.check_grade_window(now, grade)?;
        }
        for (index, count, grade) in known() {
            self.check_grade_limit(user, index, grade, count)?;
        }
        if !unknown.is_empty() || !strangers.is_empty() {
            return Err(Refusal::UnknownSeat {
                names: unknown.to_vec(),
                seats: strangers,
            });
        }
        let taken: Seats = seats
            .iter()
            .copied()
            .filter(|seat| self.seat(*seat) != Some(Seat::Free))
            .collect();
        if !taken.is_empty() {
            return Err(Refusal::SeatUnavailable { seats: taken });
        }
        Ok(seats.clone())
    }

    fn best(
        &self,
        now: Timestamp,
        user: UserId,
        count: u32,
        grade: Option<GradeIndex>,
        section: Option<SectionIndex>,
        adjacent: bool,
    ) -> Result<Seats, Refusal> {
        let mut refusal = None;
        let mut open: SmallVec<[bool; 16]> = SmallVec::with_capacity(self.plan.grades.len());
        for (index, one) in (0u8..).map(GradeIndex).zip(&self.plan.grades) {
            let wanted = grade.is_none_or(|wanted| wanted == index);
            let allowed = wanted
                .then(|| {
                    self.check_grade_window(now, one)?;
                    self.check_grade_limit(user, index, one, count)
                })
                .transpose();
            open.push(matches!(allowed, Ok(Some(()))));
            refusal = refusal.or(allowed.err());
        }
        if let Some(refusal) = refusal.filter(|_| !open.contains(&true)) {
            return Err(refusal);
        }
        let fits = |index: SectionIndex| {
            section.is_none_or(|wanted| wanted == index)
                && self
                    .plan
                    .grade_of_section
                    .get(usize::from(index.0))
                    .is_some_and(|grade| open.get(usize::from(grade.0)) == Some(&true))
        };
        self.free
            .choose(
                &self.plan.layout,
                &Wish {
                    count,
                    sections: &fits,
                    adjacent,
                },
            )
            .map_err(|available| Refusal::NoSeatsMatch {
                available: u32::try_from(available).unwrap_or(u32::MAX),
            })
    }

    fn units(
        &self,
        now: Timestamp,
        user: UserId,
        section: &Result<SectionIndex, String>,
        count: u32,
    ) -> Result<Seats, Refusal> {
        let unknown = |name: &str| Refusal::UnknownSeat {
            names: vec![name.to_owned()],
            seats: Seats::new(),
        };
        let index = section.as_ref().map_err(|name| unknown(name))?;
        let place = self.plan.layout.section(*index);
        let Some(place) = place.filter(|section| section.general_admission) else {
            return Err(unknown(place.map_or("", |section| &section.name)));
        };
        if let Some(grade_index) = self.plan.grade_of_section.get(usize::from(index.0))
            && let Some(grade) = self.plan.grade(*grade_index)
        {
            self.check_grade_window(now, grade)?;
            self.check_grade_limit(user, *grade_index, grade, count)?;
        }
        debug_assert!(place.seats >= self.free.free_in_section(*index));
        self.free
            .take_units(&self.plan.layout, *index, count)
            .map_err(|available| Refusal::NoSeatsMatch { available })
    }

    fn is_unit(&self, seat: SeatIndex) -> bool {
        self.plan
            .layout
            .section_of(seat)
            .and_then(|section| self.plan.layout.section(section))
            .is_some_and(|section| section.general_admission)
    }

    /// What would take these seats: the numbered ones by name, units by count.
    fn choices_of(&self, seats: &Seats) -> SmallVec<[Choice; 2]> {
        let mut named = Seats::new();
        let mut units: SmallVec<[(SectionIndex, u32); 1]> = SmallVec::new();
        for seat in seats {
            match self
                .plan
                .layout
                .section_of(*seat)
                .filter(|_| self.is_unit(*seat))
            {
                None => named.push(*seat),
                Some(section) => match units.iter_mut().find(|(index, _)| *index == section) {
                    Some((_, count)) => *count += 1,
                    None => units.push((section, 1)),
                },
            }
        }
        let named = (!named.is_empty()).then_some(Choice::Seats {
            seats: named,
            unknown: vec![],
        });
        let units = units.into_iter().map(|(s, count)| Choice::Units {
            section: Ok(s),
            count,
        });
        named.into_iter().chain(units).collect()
    }
}

/// The end of a hold by its owner's own wish, which never waits.
fn released(hold: &Hold) -> Event {
    Event::HoldEnded {
        hold: hold.id,
        user: hold.user,
        end: HoldEnd::Released,
        free_at: None,
    }
}
