//! Everybody's place, found by user and by number. Millions of them: a cache line
//! each, in chunks that never move, with tables of 32-bit indices beside them.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::command::End;
use super::line::TicketNumber;
use super::numbers::Numbers;
use crate::domain::ids::{QueueTicketId, UserId};
use crate::domain::time::{Millis, Timestamp};

/// How long who has left or expired is told so, with the old number: the HTTP
/// contract promises 10 min.
pub const ENDED_FOR: Millis = Millis::from_secs(600);

/// Where a place is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot(pub u32);

/// Seconds since 1970: enough until 2106, at half the size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Seconds(pub u32);

impl Seconds {
    /// The second that `at` is in.
    pub(super) fn of(at: Timestamp) -> Self {
        Self(u32::try_from(at.0.div_euclid(1000)).unwrap_or(if at.0 < 0 { 0 } else { u32::MAX }))
    }

    /// Its beginning.
    pub(super) fn start(self) -> Timestamp {
        Timestamp(i64::from(self.0) * 1000)
    }

    /// The second in which what began in this one is surely over.
    pub(super) fn after(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(1).saturating_add(seconds))
    }
}

/// How a place stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stand {
    /// Waits for its turn, or for the draw.
    Waiting {
        /// The last sign of life.
        seen: Seconds,
        /// When it was told on joining that it would enter.
        predicted: Option<Seconds>,
    },
    /// Is next, but that isn't durable yet.
    Admitted { predicted: Option<Seconds> },
    /// Has a pass.
    Active {
        granted_at: Seconds,
        expires_at: Timestamp,
    },
    /// Is over.
    Ended {
        end: End,
        at: Seconds,
        /// When the pass would have ended; when the place did if there was none.
        pass_until: Timestamp,
    },
}

/// A place.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(align(64))]
pub(super) struct Place {
    pub user: UserId,
    pub ticket: QueueTicketId,
    pub joined_at: Timestamp,
    /// 0 until the draw: an `Option` would not fit the cache line.
    raw_number: TicketNumber,
    /// Was there for the draw.
    pub entrant: bool,
    pub stand: Stand,
}

const _: () = assert!(size_of::<Place>() == 64, "a place is a cache line");

impl Place {
    pub(super) fn new(
        (user, ticket): (UserId, QueueTicketId),
        number: Option<TicketNumber>,
        joined_at: Timestamp,
        stand: Stand,
    ) -> Self {
        Self {
            user,
            ticket,
            joined_at,
            raw_number: number.unwrap_or_default(),
            entrant: number.is_none(),
            stand,
        }
    }

    /// `None` until the draw.
    pub(super) fn number(&self) -> Option<TicketNumber> {
        (self.raw_number > TicketNumber(0)).then_some(self.raw_number)
    }

    /// Whether it waits, as it is shown: admission is not, until it is durable.
    pub(super) fn waits(&self) -> bool {
        match self.stand {
            Stand::Waiting { .. } | Stand::Admitted { .. } => true,
            Stand::Active { .. } | Stand::Ended { .. } => false,
        }
    }
}

/// How many places stand how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    /// Wait with a number.
    pub waiting: u32,
    /// Wait for the draw.
    pub entrants: u32,
    /// Have a pass, or are next.
    pub active: u32,
    /// Are remembered.
    pub ended: u32,
}

const CHUNK: usize = 4_096;

/// Where a user's place is. With the hash, so that a growing table need not look
/// at all places.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    slot: u32,
}

impl Entry {
    /// The whole hash: the table goes by its highest and its lowest bits.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// All places.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    chunks: Vec<Vec<Place>>,
    /// Slots to be used again.
    free: Vec<u32>,
    users: HashTable<Entry>,
    hasher: RandomState,
    numbers: Numbers,
    counts: Counts,
    /// Ended ones, oldest first; those that were used again are passed over.
    ended: VecDeque<(u32, QueueTicketId)>,
}

impl Places {
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// How many are kept, in whatever state.
    pub(super) fn len(&self) -> u32 {
        let Counts {
            waiting,
            entrants,
            active,
            ended,
        } = self.counts;
        waiting + entrants + active + ended
    }

    fn hash(&self, user: UserId) -> u32 {
        // The lower half is as good as the whole.
        self.hasher.hash_one(user.0.as_u128()) as u32
    }

    pub(super) fn get(&self, Slot(slot): Slot) -> Option<&Place> {
        let slot = slot as usize;
        self.chunks.get(slot / CHUNK)?.get(slot % CHUNK)
    }

    fn get_mut(&mut self, Slot(slot): Slot) -> Option<&mut Place> {
        let slot = slot as usize;
        self.chunks.get_mut(slot / CHUNK)?.get_mut(slot % CHUNK)
    }

    /// The place of a user: the live one, or else the last.
    pub(super) fn of_user(&self, user: UserId) -> Option<(Slot, &Place)> {
        let hash = self.hash(user);
        let place = |entry: &Entry| self.get(Slot(entry.slot));
        let is_theirs = |entry: &Entry| {
            entry.hash == hash && place(entry).is_some_and(|place| place.user == user)
        };
        let entry = self.users.find(Entry::spread(hash), is_theirs)?;
        place(entry).map(|place| (Slot(entry.slot), place))
    }

    /// Who waits with this number.
    pub(super) fn waiting_at(&self, number: TicketNumber) -> Option<(Slot, &Place)> {
        let slot = Slot(self.numbers.get(number)?);
        let place = self.get(slot)?;
        let waits = matches!(place.stand, Stand::Waiting { .. });
        (waits && place.number() == Some(number)).then_some((slot, place))
    }

    /// The first who waits with a number from `from` on.
    pub(super) fn next_waiting(&self, from: TicketNumber) -> Option<(Slot, &Place)> {
        let mut from = from;
        loop {
            let (number, slot) = self.numbers.next_from(from)?;
            let found = self.get(Slot(slot)).filter(|place| {
                place.number() == Some(number) && matches!(place.stand, Stand::Waiting { .. })
            });
            if let Some(place) = found {
                return Some((Slot(slot), place));
            }
            from = number.next();
        }
    }

    /// Takes a place. An older one of the user that is over is forgotten.
    pub(super) fn insert(&mut self, place: Place) -> Slot {
        let slot = match self.of_user(place.user).map(|(slot, _)| slot) {
            Some(old) => {
                self.uncount(old);
                self.put(old, place);
                old
            }
            None => self.insert_new(place),
        };
        let number = self.get(slot).and_then(Place::number);
        if let Some(number) = number {
            self.numbers.set(number, Some(slot.0));
        }
        self.count(slot);
        slot
    }

    fn insert_new(&mut self, place: Place) -> Slot {
        let hash = self.hash(place.user);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.put(Slot(slot), place);
                Slot(slot)
            }
            None => self.push(place),
        };
        let entry = Entry { hash, slot: slot.0 };
        self.users
            .insert_unique(Entry::spread(hash), entry, |entry| {
                Entry::spread(entry.hash)
            });
        slot
    }

    fn push(&mut self, place: Place) -> Slot {
        let full = self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK);
        if full {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let at = self.chunks.last_mut().map_or(0, |chunk| {
            chunk.push(place);
            chunk.len() - 1
        });
        // Bounded by `places_max`, a u32.
        Slot((before + at) as u32)
    }

    fn put(&mut self, slot: Slot, place: Place) {
        if let Some(old) = self.get_mut(slot) {
            *old = place;
        }
    }

    fn counter(&mut self, slot: Slot) -> Option<&mut u32> {
        let place = self.get(slot)?;
        let numbered = place.number().is_some();
        Some(match place.stand {
            Stand::Waiting { .. } if numbered => &mut self.counts.waiting,
            Stand::Waiting { .. } => &mut self.counts.entrants,
            Stand::Admitted { .. } | Stand::Active { .. } => &mut self.counts.active,
            Stand::Ended { .. } => &mut self.counts.ended,
        })
    }

    fn count(&mut self, slot: Slot) {
        if let Some(counter) = self.counter(slot) {
            *counter = counter.saturating_add(1);
        }
    }

    fn uncount(&mut self, slot: Slot) {
        if let Some(counter) = self.counter(slot) {
            *counter = counter.saturating_sub(1);
        }
    }

    /// The only place where a place changes how it stands.
    pub(super) fn stand(&mut self, slot: Slot, stand: Stand) {
        self.uncount(slot);
        if let Some(place) = self.get_mut(slot) {
            place.stand = stand;
        }
        self.count(slot);
        let Some(place) = self.get(slot) else { return };
        let (ticket, number) = (place.ticket, place.number());
        if let Stand::Ended { at, .. } = stand {
            if let Some(number) = number {
                self.numbers.set(number, None);
            }
            self.ended.push_back((slot.0, ticket));
            self.forget_before(at.start());
        }
    }

    /// A place that was inserted is over already.
    pub(super) fn remember_end(&mut self, slot: Slot) {
        let Some(place) = self.get(slot) else { return };
        let (ticket, number) = (place.ticket, place.number());
        if let Some(number) = number {
            self.numbers.set(number, None);
        }
        self.ended.push_back((slot.0, ticket));
    }

    /// The draw gave `slot` its number.
    pub(super) fn number(&mut self, slot: Slot, number: TicketNumber) {
        self.uncount(slot);
        if let Some(place) = self.get_mut(slot) {
            place.raw_number = number;
        }
        self.numbers.set(number, Some(slot.0));
        self.count(slot);
    }

    /// Without an entrant flag: left before the draw.
    pub(super) fn set_entrant(&mut self, slot: Slot, entrant: bool) {
        if let Some(place) = self.get_mut(slot) {
            place.entrant = entrant;
        }
    }

    /// Somebody who waits is there.
    pub(super) fn seen(&mut self, slot: Slot, now: Timestamp) {
        if let Some(Place {
            stand: Stand::Waiting { seen, .. },
            ..
        }) = self.get_mut(slot)
        {
            *seen = Seconds::of(now);
        }
    }

    /// All who are kept.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Place)> {
        let all = self.chunks.iter().flatten().zip(0u32..);
        all.filter(|(place, slot)| {
            // A free slot still has the bytes of its last place.
            self.of_user(place.user)
                .is_some_and(|(of, _)| of.0 == *slot)
        })
        .map(|(place, slot)| (Slot(slot), place))
    }

    /// Nobody asks for numbers up to `upto` any more.
    pub(super) fn passed(&mut self, upto: TicketNumber) {
        self.numbers.trim(upto);
    }

    /// Forgets who ended long before `now`, a few at a time, and at most: each
    /// that ends makes room for two.
    fn forget_before(&mut self, now: Timestamp) {
        for _ in 0..2 {
            let Some((slot, ticket)) = self.ended.front().copied() else {
                return;
            };
            if !self.forget_if(Slot(slot), ticket, |at| {
                now.since(at.after(0).start()) > ENDED_FOR
            }) {
                return;
            }
        }
    }

    /// Forgets the one who ended first, so that there is room.
    pub(super) fn forget_oldest(&mut self) {
        while let Some((slot, ticket)) = self.ended.front().copied() {
            let before = self.counts.ended;
            self.forget_if(Slot(slot), ticket, |_| true);
            if self.counts.ended < before {
                return;
            }
        }
    }

    /// Takes the first of the ended ones out, if it is `may` be forgotten or
    /// its slot was used again.
    fn forget_if(
        &mut self,
        slot: Slot,
        ticket: QueueTicketId,
        may: impl Fn(Seconds) -> bool,
    ) -> bool {
        let found = self.get(slot).filter(|place| place.ticket == ticket);
        let ended = found.and_then(|place| match place.stand {
            Stand::Ended { at, .. } => Some((place.user, at)),
            Stand::Waiting { .. } | Stand::Admitted { .. } | Stand::Active { .. } => None,
        });
        if let Some((user, at)) = ended {
            if !may(at) {
                return false;
            }
            let hash = self.hash(user);
            let is_it = |entry: &Entry| entry.slot == slot.0;
            if let Ok(entry) = self.users.find_entry(Entry::spread(hash), is_it) {
                entry.remove();
                self.uncount(slot);
                self.free.push(slot.0);
            }
        }
        self.ended.pop_front();
        true
    }
}
