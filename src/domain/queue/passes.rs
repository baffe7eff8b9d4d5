//! How passes are renewed, and how they and places end.

use super::places::{Place, Slot, Stand};
use super::signs::ended;
use super::{Decision, End, Event, Queue, Refusal, Reply};
use crate::domain::ids::UserId;
use crate::domain::time::{Millis, Timestamp};

use super::join::is_live;

/// By how much the clocks of two nodes may differ: a hold can't have been made
/// before its pass was granted.
const CLOCKS_DIFFER: Millis = Millis(1_000);

/// How long a hold is news, which renews a pass from now on. Later it is a
/// repetition, and the hold's own time counts.
const NEWS_FOR: Millis = Millis(60_000);

impl Queue {
    /// Gives the place or the pass of `user` up.
    pub(super) fn leave(&self, now: Timestamp, user: UserId) -> Decision<Event, Reply> {
        match self.places.of_user(user) {
            Some((_, place)) if is_live(place) => {
                Decision::one(ended(place, End::Left, now), Reply::Left)
            }
            Some(_) | None => Decision::unchanged(Reply::Left),
        }
    }

    /// The pass of who has bought ends, where the policy says so.
    pub(super) fn purchased(
        &self,
        now: Timestamp,
        user: UserId,
        at: Timestamp,
    ) -> Decision<Event, Reply> {
        let ends = self.plan.policy.leave_on_purchase;
        match self.places.of_user(user) {
            Some((_, place)) if ends && was_inside(place, at) => {
                Decision::one(ended(place, End::Purchased, now), Reply::Done)
            }
            Some(_) | None => Decision::unchanged(Reply::Done),
        }
    }

    /// The pass of who holds seats lives long enough to pay for them.
    pub(super) fn hold_made(
        &self,
        now: Timestamp,
        user: UserId,
        at: Timestamp,
    ) -> Decision<Event, Reply> {
        let is_news = now <= at.plus(NEWS_FOR);
        let place = self.places.of_user(user).map(|(_, place)| place);
        let place = place.filter(|place| was_inside(place, at));
        match place.and_then(|place| self.renewal(if is_news { now } else { at }, place)) {
            Some(event) => Decision::one(event, Reply::Done),
            None => Decision::unchanged(Reply::Done),
        }
    }

    /// The same, when the user asks for it.
    pub(super) fn extend(
        &self,
        now: Timestamp,
        user: UserId,
        has_hold: bool,
    ) -> Result<Decision<Event, Reply>, Refusal> {
        let (_, place) = self.places.of_user(user).ok_or(Refusal::NotInQueue)?;
        let Stand::Active {
            granted_at,
            expires_at,
        } = place.stand
        else {
            return Err(Refusal::NothingToExtend);
        };
        if !has_hold || self.plan.policy.extend_on_hold_seconds == 0 {
            return Err(Refusal::NothingToExtend);
        }
        let renewal = self.renewal(now, place);
        let expires_at = match renewal {
            Some(Event::Extended { expires_at, .. }) => expires_at,
            Some(_) | None => expires_at,
        };
        let mut renewed = place.clone();
        renewed.stand = Stand::Active {
            granted_at,
            expires_at,
        };
        // What is durable when the answer leaves, which waits for it.
        let standing = self.standing(now, None, &renewed);
        Ok(Decision {
            events: renewal.into_iter().collect(),
            reply: Reply::Standing(standing),
        })
    }

    fn renewal(&self, now: Timestamp, place: &Place) -> Option<Event> {
        let Stand::Active { expires_at, .. } = place.stand else {
            return None;
        };
        let length = self.plan.policy.extend_on_hold_seconds;
        let renewed = now.plus(Millis::from_secs(length));
        (length > 0 && renewed > expires_at).then_some(Event::Extended {
            user: place.user,
            ticket: place.ticket,
            expires_at: renewed,
        })
    }

    /// When the pass at `place` ends, as far as that is in the database.
    pub(super) fn shown_expiry(&self, slot: Slot, place: &Place) -> Option<Timestamp> {
        let Stand::Active { expires_at, .. } = place.stand else {
            return None;
        };
        let renewing = self.renewing.get(&slot.0).map(|(_, shown)| *shown);
        Some(renewing.unwrap_or(expires_at))
    }
}

/// Whether the pass at `place`, if it is one, had been granted by `at`.
fn was_inside(place: &Place, at: Timestamp) -> bool {
    let latest = at.plus(CLOCKS_DIFFER);
    matches!(place.stand, Stand::Active { granted_at, .. } if granted_at.start() <= latest)
}
