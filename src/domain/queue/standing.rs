//! What is told: how a user stands, the summary, the draw.

use serde::{Deserialize, Serialize};

use super::draw::{Draw, Entrant, Seed};
use super::line::TicketNumber;
use super::places::{Place, Seconds, Slot, Stand};
use super::policy::Opening;
use super::{
    Decision, End, Event, Phase, Queue, Refusal, Reply, SeatsLeft, Standing, State, Summary,
};
use crate::domain::time::Timestamp;

/// How often to ask at least, and at most, in seconds.
const POLL_SECONDS: (u32, u32) = (1, 30);

/// Who waits for so long asks so many times on the way.
const POLLS_ON_THE_WAY: u32 = 30;

/// A forecast and what came, for the metric of its error.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct EtaSample {
    /// What was told on joining.
    pub predicted_seconds: f64,
    /// From joining to the pass.
    pub actual_seconds: f64,
}

impl EtaSample {
    /// How much later than foretold; negative if earlier.
    #[must_use]
    pub fn error_seconds(self) -> f64 {
        self.actual_seconds - self.predicted_seconds
    }
}

/// What waits are foretold by: one rule for all who wait, on every node.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Pace {
    /// How many of those who stand first enter as soon as anybody does.
    pub room: u32,
    /// How many enter a second after them; infinite where nothing holds anybody
    /// back.
    pub per_second: f64,
}

impl Pace {
    /// How long who is at `position` waits, in seconds, where nobody enters
    /// before the opening, which is in `opens_in` seconds; `None` if that can't
    /// be told.
    #[must_use]
    pub fn wait(self, opens_in: f64, position: u32) -> Option<u32> {
        let wait = match position.saturating_sub(self.room) {
            0 => opens_in,
            ahead => opens_in + f64::from(ahead) / self.per_second,
        };
        // Saturates: an endless wait is the longest that can be told.
        wait.is_finite().then_some(wait.ceil() as u32)
    }
}

impl Queue {
    pub(super) fn seats_left(&self) -> SeatsLeft {
        self.seats.unwrap_or(SeatsLeft {
            available: self.plan.capacity,
            held: 0,
        })
    }

    /// How the one at `place` stands. `slot` is `None` for a place that is just
    /// being made.
    pub(super) fn standing(&self, now: Timestamp, slot: Option<Slot>, place: &Place) -> Standing {
        let phase = self.phase_at(now);
        let state = match place.stand {
            Stand::Active { .. } => State::Admitted,
            Stand::Ended {
                end: End::Expired, ..
            } => State::Expired,
            Stand::Ended {
                end: End::Left | End::Purchased | End::Replaced,
                ..
            } => State::Left,
            Stand::Waiting { .. } | Stand::Admitted { .. } => match phase {
                Phase::PreQueue => State::PreQueue,
                Phase::SoldOut | Phase::Closed => State::Closed,
                // Its draw has not been made yet.
                Phase::Open if place.number().is_none() => State::PreQueue,
                Phase::Open => State::Waiting,
            },
        };
        let waits = matches!(state, State::PreQueue | State::Waiting | State::Closed);
        let line = self.line.line();
        let waiting_as = place.number().filter(|_| waits);
        let wait = waiting_as.and_then(|number| self.wait(now, number));
        let pass_expires_at = match (slot, place.stand) {
            (Some(slot), _) => self.shown_expiry(slot, place),
            (None, Stand::Active { expires_at, .. }) => Some(expires_at),
            (None, _) => None,
        };
        Standing {
            user: place.user,
            state,
            ticket: place.ticket,
            number: place.number(),
            position: waiting_as.map(|number| line.position(number)),
            waiting_behind: waiting_as.map_or(0, |number| line.behind(number)),
            estimated_wait_seconds: wait,
            seats: self.seats_left(),
            pass_expires_at,
            paused: self.paused,
            poll_after_seconds: self.poll_after(now, wait),
            line_seq: line.seq(),
        }
    }

    /// How long the owner of `number` waits from `now` on, in seconds; `None`
    /// if nobody enters now.
    fn wait(&self, now: Timestamp, number: TicketNumber) -> Option<u32> {
        self.wait_at(now, self.line.line().position(number))
    }

    /// The same of a position.
    #[must_use]
    pub fn wait_at(&self, now: Timestamp, position: u32) -> Option<u32> {
        let opens_in = self.plan.opens_at.since(now).0.max(0) as f64 / 1000.0;
        self.pace(now)?.wait(opens_in, position)
    }

    /// What waits are foretold by; `None` if nobody enters now. Followers get it
    /// with each change.
    #[must_use]
    pub fn pace(&self, now: Timestamp) -> Option<Pace> {
        let enters = match self.phase_at(now) {
            Phase::SoldOut | Phase::Closed => false,
            Phase::PreQueue | Phase::Open => !self.paused,
        };
        enters.then(|| Pace {
            room: self.room(now),
            per_second: self.per_second(now),
        })
    }

    /// How many enter a second: as measured, or else as the policy lets.
    /// Infinite where nothing holds anybody back.
    fn per_second(&self, now: Timestamp) -> f64 {
        let policy = &self.plan.policy;
        let by_window = policy.admit.map_or(f64::INFINITY, |admit| {
            f64::from(admit.count) / f64::from(admit.every_seconds)
        });
        let by_cap = policy.max_active.map_or(f64::INFINITY, |most| {
            f64::from(most) / f64::from(policy.active_ttl_seconds)
        });
        let allowed = by_window.min(by_cap);
        self.rate.per_second(now).unwrap_or(allowed)
    }

    /// When somebody who joins now as `number` will enter, as foretold.
    pub(super) fn predict(&self, now: Timestamp, number: TicketNumber) -> Option<Seconds> {
        let wait = self.wait(now, number)?;
        Some(Seconds(Seconds::of(now).0.saturating_add(wait)))
    }

    fn poll_after(&self, now: Timestamp, wait: Option<u32>) -> u32 {
        let (least, most) = POLL_SECONDS;
        let opens_in = self.plan.opens_at.since(now).0.max(0) / 1000;
        let opens_in = u32::try_from(opens_in).unwrap_or(u32::MAX);
        let wait = wait.unwrap_or(opens_in).max(opens_in);
        (wait / POLLS_ON_THE_WAY).clamp(least, most)
    }

    /// The figures that anybody may see.
    #[must_use]
    pub fn summary(&self, now: Timestamp) -> Summary {
        let counts = self.places.counts();
        let newcomer = self.line.line().position(self.next);
        Summary {
            waiting: counts.waiting.saturating_add(counts.entrants),
            active: counts.active,
            admitted_total: self.admitted_total,
            admission_per_second: self.rate.per_second(now).unwrap_or(0.0),
            estimated_wait_seconds: self.wait_at(now, newcomer),
            paused: self.paused,
            draining: self.draining,
            phase: self.phase_at(now),
            seats: self.seats_left(),
            left: self.left,
            expired: self.expired,
        }
    }

    /// Whether `standing` shows a number, a pass or an end that isn't safe in the
    /// database yet.
    pub(super) fn shows_undurable(&self, standing: &Standing) -> bool {
        let Some(number) = standing.number else {
            return false;
        };
        let is_drawn = self.lottery.drawing.is_some() && standing.state != State::Admitted;
        // All passes of a batch end at the same time.
        let opening = self.opening.map(|(_, expires_at)| expires_at);
        let is_opening = opening.is_some() && standing.pass_expires_at == opening;
        // Its ticket would be worth nothing while an earlier pass lives again.
        let is_ending = self.ending.contains_key(&standing.user);
        is_drawn || is_opening || is_ending || number > self.reserved_durably
    }

    pub(super) fn is_lottery(&self) -> bool {
        self.plan.policy.opening == Opening::Lottery || self.lottery.seed.is_some()
    }

    pub(super) fn choose_seed(&self, seed: Seed) -> Decision<Event, Reply> {
        if self.wants_seed() {
            Decision::one(Event::SeedChosen(seed), Reply::Done)
        } else {
            Decision::unchanged(Reply::Done)
        }
    }

    pub(super) fn draw(&self) -> Result<Reply, Refusal> {
        if !self.is_lottery() {
            return Err(Refusal::NoDraw);
        }
        let seed = self.lottery.seed.ok_or(Refusal::SeedMissing)?;
        let drawn = self.lottery.drawn;
        let first = drawn.map_or(TicketNumber(1), |drawn| drawn.first);
        let numbers = (first.0..).map(TicketNumber);
        let entrants = self.lottery.entrants.iter().zip(numbers);
        Ok(Reply::Draw(Draw {
            commitment: seed.commitment(),
            seed: drawn.map(|_| seed),
            beacon: None,
            entrants_hash: drawn.map(|drawn| drawn.entrants_hash),
            entrants: entrants
                .map(|(ticket_id, number)| Entrant {
                    ticket_id: *ticket_id,
                    number,
                })
                .collect(),
        }))
    }
}
