//! A second look at what was decided: I8, in production.
//!
//! It goes by the places, the line and the window themselves, not by how
//! [`super::admit`] and [`super::join`] came to their decisions.

use super::admit::Batch;
use super::line::TicketNumber;
use super::policy::Terms;
use super::{Event, Queue};
use crate::domain::invariant::{Invariant, Violation};
use crate::domain::time::Timestamp;

type Checked = Result<(), Violation>;

impl Queue {
    /// Whether `event` keeps I8.
    pub(super) fn check_event(&self, event: &Event) -> Checked {
        match event {
            Event::Joined {
                number: Some(number),
                ..
            } => self.check_number(*number),
            Event::Admitted {
                late,
                upto,
                metered,
                terms,
            } => self.check_admission(late, *upto, *metered, *terms),
            Event::Opened { at, .. } => self.check_window(*at),
            Event::Joined { number: None, .. }
            | Event::Reserved { .. }
            | Event::Ended { .. }
            | Event::Extended { .. }
            | Event::Paused(_)
            | Event::Drained(_)
            | Event::SeedChosen(_)
            | Event::Drawn { .. }
            | Event::Seen { .. }
            | Event::Turned { .. }
            | Event::Sifted { .. }
            | Event::SeatsTold(_) => Ok(()),
        }
    }

    /// A number is new, or was lost and nobody has it back.
    fn check_number(&self, number: TicketNumber) -> Checked {
        let is_new = number >= self.next && number <= self.reserved_upto;
        let was_lost = || self.gaps.iter().any(|gap| gap.has(number));
        let is_free = is_new || (was_lost() && !self.claimed.contains(&number));
        demand(is_free, || {
            format!("number {} is not one to give", number.0)
        })
    }

    /// The first ones enter, in order, and no more than the cap allows.
    fn check_admission(
        &self,
        late: &[TicketNumber],
        upto: TicketNumber,
        metered: u32,
        terms: Terms,
    ) -> Checked {
        demand(self.batch.is_none(), || {
            "two admissions at a time".to_owned()
        })?;
        demand(!self.paused, || "an admission in a pause".to_owned())?;
        // Those who were passed enter before all others.
        let passed = self.late.iter().take(late.len());
        let all_passed = upto == self.cursor || late.len() == self.late.len();
        let in_order = passed.eq(late.iter()) && upto >= self.cursor && all_passed;
        demand(in_order, || {
            format!("{} enters before who was passed", upto.0)
        })?;
        let (mut entering, mut counted) = (0_u32, 0_u32);
        let mut count = |number: TicketNumber| {
            entering += 1;
            counted += u32::from(terms.admit.is_some() && number.0 > terms.free_admission);
        };
        late.iter().copied().for_each(&mut count);
        let mut after = self.cursor;
        while let Some((_, place)) = self.places.next_waiting(after.next()) {
            let Some(number) = place.number().filter(|number| *number <= upto) else {
                break;
            };
            count(number);
            after = number;
        }
        let inside = self.places.counts().active.saturating_add(entering);
        let most = terms.max_active.unwrap_or(u32::MAX);
        demand(inside <= most, || {
            format!("{inside} would be inside, of {most}")
        })?;
        demand(counted == metered, || {
            format!("{counted} count in the window, not {metered}")
        })
    }

    /// No more get passes within the window than the policy allows: that by which
    /// they were admitted, if it still is the policy.
    fn check_window(&self, at: Timestamp) -> Checked {
        let Some(Batch { metered, terms, .. }) = &self.batch else {
            return demand(false, || "passes for nobody".to_owned());
        };
        let admit = self.plan.policy.admit;
        let Some(admit) = admit.filter(|_| *terms == Some(self.plan.policy.terms())) else {
            return Ok(());
        };
        let room = self.window.room(admit, at);
        demand(*metered <= room, || {
            format!("{metered} would enter where the window has room for {room}")
        })
    }
}

fn demand(is_so: bool, what: impl FnOnce() -> String) -> Checked {
    if is_so {
        return Ok(());
    }
    Err(Violation {
        invariant: Invariant::I8,
        what: what(),
    })
}
