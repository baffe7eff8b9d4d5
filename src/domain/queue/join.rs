//! Who gets a place, and who gets theirs back.

use super::line::{NUMBER_MAX, TicketNumber};
use super::places::{Place, Seconds, Slot, Stand};
use super::policy::Opening;
use super::signs::ended;
use super::{Claim, End, Event, Phase, Queue, RESERVE_MAX, RESERVE_MIN, Refusal, Reply};
use crate::domain::decision::{Decision, Events};
use crate::domain::ids::{QueueTicketId, UserId};
use crate::domain::time::Timestamp;

type Decided = Result<Decision<Event, Reply>, Refusal>;

impl Queue {
    /// Gives `user` a place, unless they have one.
    pub(super) fn join(
        &self,
        now: Timestamp,
        user: UserId,
        ticket: QueueTicketId,
        claim: Option<Claim>,
    ) -> Decided {
        if let Some(decision) = self.come_back(now, user, claim) {
            let Decision { events, reply } = decision;
            let reply = match reply {
                Reply::Standing(standing) => Reply::Joined {
                    standing,
                    new: false,
                },
                other => other,
            };
            return Ok(Decision { events, reply });
        }
        let number = self.newcomer(now)?;
        let place = self.new_place(now, user, ticket, number);
        let mut events = Events::new();
        events.extend(number.and_then(|number| self.reserve(number)));
        events.push(joined(&place));
        let standing = self.standing(now, None, &place);
        Ok(Decision {
            events,
            reply: Reply::Joined {
                standing,
                new: true,
            },
        })
    }

    /// How `user` stands.
    pub(super) fn state(&self, now: Timestamp, user: UserId, claim: Option<Claim>) -> Decided {
        if let Some(decision) = self.come_back(now, user, claim) {
            return Ok(decision);
        }
        let (slot, place) = self.places.of_user(user).ok_or(Refusal::NotInQueue)?;
        let standing = self.standing(now, Some(slot), place);
        Ok(Decision::unchanged(Reply::Standing(standing)))
    }

    /// The place that `user` has, or gets back by a ticket; `None` if there is
    /// none. Of two the lower number counts.
    fn come_back(
        &self,
        now: Timestamp,
        user: UserId,
        claim: Option<Claim>,
    ) -> Option<Decision<Event, Reply>> {
        let live = self
            .places
            .of_user(user)
            .filter(|(_, place)| is_live(place));
        let claimed = claim.and_then(|claim| {
            let number = claim.number.filter(|number| self.may_claim(*number))?;
            Some((claim.ticket, number))
        });
        match (live, claimed) {
            (None, None) => None,
            (Some((slot, place)), None) => Some(self.still_there(now, slot, place)),
            (Some((slot, place)), Some((_, number))) if !is_better(number, place) => {
                Some(self.still_there(now, slot, place))
            }
            (live, Some((ticket, number))) => {
                if live.is_none() && !self.has_room() {
                    return None;
                }
                let replaced = live.map(|(_, place)| ended(place, End::Replaced, now));
                let place = self.new_place(now, user, ticket, Some(number));
                let mut events = Events::new();
                events.extend(replaced);
                events.extend(self.reserve(number));
                events.push(joined(&place));
                let standing = self.standing(now, None, &place);
                Some(Decision {
                    events,
                    reply: Reply::Standing(standing),
                })
            }
        }
    }

    fn still_there(&self, now: Timestamp, slot: Slot, place: &Place) -> Decision<Event, Reply> {
        Decision {
            events: self.sign(now, place).into_iter().collect(),
            reply: Reply::Standing(self.standing(now, Some(slot), place)),
        }
    }

    /// Whether a ticket of `number` restores a place: one that was lost with
    /// the memory of an earlier owner. What the store knows of a number, it has
    /// loaded: a place that lives, or that it ended.
    fn may_claim(&self, number: TicketNumber) -> bool {
        if number < TicketNumber(1) || number >= NUMBER_MAX {
            return false;
        }
        if number >= self.next {
            return true;
        }
        let is_unknown = self.gaps.iter().any(|gap| gap.has(number));
        is_unknown && !self.claimed.contains(&number)
    }

    /// The number of somebody who joins now; `None` where it will be drawn.
    fn newcomer(&self, now: Timestamp) -> Result<Option<TicketNumber>, Refusal> {
        let phase = self.phase_at(now);
        if self.draining || matches!(phase, Phase::SoldOut | Phase::Closed) {
            return Err(Refusal::QueueClosed);
        }
        if !self.has_room() || self.next >= NUMBER_MAX || self.is_crowded() {
            return Err(Refusal::QueueFull);
        }
        let waits_for_draw = phase == Phase::PreQueue
            && self.plan.policy.opening == Opening::Lottery
            && self.lottery.drawn.is_none();
        match self.lottery.seed {
            // Its hash must be public before the first one joins.
            None if waits_for_draw => Err(Refusal::SeedMissing),
            Some(_) if waits_for_draw => Ok(None),
            None | Some(_) => Ok(Some(self.next)),
        }
    }

    fn has_room(&self) -> bool {
        let counts = self.places.counts();
        counts.waiting + counts.entrants + counts.active < self.plan.places_max
    }

    /// Whether as many wait for each seat as the policy allows.
    fn is_crowded(&self) -> bool {
        let Some(per_seat) = self.plan.policy.max_waiting_per_seat else {
            return false;
        };
        let counts = self.places.counts();
        let most = self.seats_left().total().saturating_mul(per_seat);
        counts.waiting + counts.entrants >= most
    }

    fn new_place(
        &self,
        now: Timestamp,
        user: UserId,
        ticket: QueueTicketId,
        number: Option<TicketNumber>,
    ) -> Place {
        let stand = Stand::Waiting {
            seen: Seconds::of(now),
            predicted: None,
        };
        Place::new((user, ticket), number, now, stand)
    }

    /// How many numbers are reserved at a time: twice as many while one
    /// reservation overtakes the other's way to the database.
    pub(super) fn next_block(&self) -> u32 {
        if self.reserving.is_empty() {
            (self.block / 2).max(RESERVE_MIN)
        } else {
            self.block.saturating_mul(2).min(RESERVE_MAX)
        }
    }

    /// Reserves numbers before those up to `number` run out.
    pub(super) fn reserve(&self, number: TicketNumber) -> Option<Event> {
        let enough = number.0.saturating_add(self.block / 2);
        if enough <= self.reserved_upto.0 {
            return None;
        }
        let upto = TicketNumber(number.0.saturating_add(self.next_block()));
        Some(Event::Reserved { upto })
    }
}

pub(super) fn is_live(place: &Place) -> bool {
    match place.stand {
        Stand::Waiting { .. } | Stand::Admitted { .. } | Stand::Active { .. } => true,
        Stand::Ended { .. } => false,
    }
}

/// Whether a claimed number is better than the place of the one who claims it.
fn is_better(number: TicketNumber, place: &Place) -> bool {
    let waits = matches!(place.stand, Stand::Waiting { .. });
    waits && place.number().is_none_or(|has| number < has)
}

pub(super) fn joined(place: &Place) -> Event {
    Event::Joined {
        user: place.user,
        ticket: place.ticket,
        number: place.number(),
        at: place.joined_at,
    }
}
