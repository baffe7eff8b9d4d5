//! Who waits without giving a sign of life.
//!
//! A sign only notes its second at the place. Everybody is in the bucket of the
//! moment at which they could be overdue at the earliest; when that comes, who
//! is alive moves on to a later bucket.

use std::collections::BTreeMap;

use super::line::TicketNumber;
use super::places::{Place, Seconds, Stand};
use super::{End, Event, Queue};
use crate::domain::decision::Events;
use crate::domain::time::Timestamp;

/// How many are looked at by one decision.
const SIFTED_MAX: usize = 256;

/// A sign is noted, and buckets are as wide, as this part of the time allowed.
const GRAINS: u32 = 64;

/// The buckets, by their second.
#[derive(Clone, Debug, Default)]
pub(super) struct Signs {
    /// The time allowed that they were filled for.
    ttl: Option<u32>,
    buckets: BTreeMap<u32, Vec<TicketNumber>>,
}

impl Signs {
    fn insert(&mut self, number: TicketNumber, overdue: Seconds) {
        let Some(ttl) = self.ttl else { return };
        let bucket = overdue.0.div_ceil(grain(ttl)).saturating_mul(grain(ttl));
        self.buckets.entry(bucket).or_default().push(number);
    }

    /// When somebody may be overdue.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let (second, _) = self.buckets.first_key_value()?;
        Some(Seconds(*second).start())
    }
}

fn grain(ttl: u32) -> u32 {
    (ttl / GRAINS).max(1)
}

impl Queue {
    /// When the one at `place` would be overdue.
    fn overdue_at(&self, place: &Place) -> Option<Seconds> {
        let Stand::Waiting { seen, .. } = place.stand else {
            return None;
        };
        let since = Seconds::of(self.plan.opens_at.max(self.listening_since));
        let ttl = self.plan.policy.waiting_ttl_seconds?;
        Some(seen.max(since).after(ttl))
    }

    /// The event that notes a sign of life, if it is worth it.
    pub(super) fn sign(&self, now: Timestamp, place: &Place) -> Option<Event> {
        let ttl = self.plan.policy.waiting_ttl_seconds?;
        let Stand::Waiting { seen, .. } = place.stand else {
            return None;
        };
        let noted = Seconds::of(now).0 < seen.0.saturating_add(grain(ttl));
        (!noted).then_some(Event::Seen {
            user: place.user,
            at: now,
        })
    }

    pub(super) fn expect_signs(&mut self, number: TicketNumber) {
        let place = self.places.waiting_at(number).map(|(_, place)| place);
        if let Some(overdue) = place.and_then(|place| self.overdue_at(place)) {
            self.signs.insert(number, overdue);
        }
    }

    /// Fills the buckets anew, if the policy has changed.
    pub(super) fn expect_all_signs(&mut self) {
        let ttl = self.plan.policy.waiting_ttl_seconds;
        if self.signs.ttl == ttl {
            return;
        }
        self.signs = Signs {
            ttl,
            buckets: BTreeMap::new(),
        };
        if ttl.is_none() {
            return;
        }
        let numbers: Vec<TicketNumber> = self
            .places
            .iter()
            .filter_map(|(_, place)| place.number())
            .collect();
        for number in numbers {
            self.expect_signs(number);
        }
    }

    /// Ends some of those that are overdue.
    pub(super) fn overdue(&self, now: Timestamp) -> Events<Event> {
        let mut events = Events::new();
        let Some((second, numbers)) = self.signs.buckets.first_key_value() else {
            return events;
        };
        if Seconds(*second).start() > now {
            return events;
        }
        let looked_at = numbers.len().min(SIFTED_MAX);
        for number in numbers.iter().rev().take(looked_at) {
            let Some((_, place)) = self.places.waiting_at(*number) else {
                continue;
            };
            let overdue = self.overdue_at(place);
            if overdue.is_some_and(|second| second.start() <= now) {
                events.push(ended(place, End::Expired, now));
            }
        }
        events.push(Event::Sifted {
            bucket: *second,
            // At most SIFTED_MAX.
            looked_at: looked_at as u32,
        });
        events
    }

    /// Moves on those who are still there.
    pub(super) fn sift(&mut self, bucket: u32, looked_at: u32) {
        let Some(mut numbers) = self.signs.buckets.remove(&bucket) else {
            return;
        };
        let keep = numbers.len().saturating_sub(looked_at as usize);
        let sifted = numbers.split_off(keep);
        if !numbers.is_empty() {
            self.signs.buckets.insert(bucket, numbers);
        }
        for number in sifted {
            self.expect_signs(number);
        }
    }
}

/// The event by which a place ends.
pub(super) fn ended(place: &Place, end: End, at: Timestamp) -> Event {
    let pass_until = match place.stand {
        Stand::Active { expires_at, .. } => expires_at,
        Stand::Waiting { .. } | Stand::Admitted { .. } | Stand::Ended { .. } => at,
    };
    Event::Ended {
        user: place.user,
        ticket: place.ticket,
        number: place.number(),
        // Who goes before the draw isn't in it.
        entrant: place.entrant && place.number().is_some(),
        joined_at: place.joined_at,
        end,
        at,
        pass_until,
    }
}
