//! The catalogue at one moment, with its indexes: what readers see. A write
//! makes a changed copy and swaps it in; the entries are shared.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use uuid::Uuid;

use super::entry::{Performance, Timetable, Venue};
use crate::domain::ids::{PerformanceId, TimetableId, VenueId};
use crate::domain::time::Timestamp;

type Map<K, V> = HashMap<K, V, RandomState>;

/// Where a performance stands in the image; the same in all its later ones.
pub(super) type Slot = u32;

/// A place in a sorted list: by `key`, then by id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank {
    pub(super) key: i64,
    pub(super) id: Uuid,
    pub(super) slot: Slot,
}

/// What a list filters by, without going to the performance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) opens_at: Timestamp,
    pub(super) closes_at: Timestamp,
    pub(super) first_starts_at: Timestamp,
    pub(super) last_starts_at: Timestamp,
}

#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) facts: Facts,
    pub(super) performance: Arc<Performance>,
}

/// The catalogue at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// Counts the writes, to tell images apart.
    pub(super) generation: u64,
    venues: Arc<Map<VenueId, Arc<Venue>>>,
    places: Vec<Place>,
    by_id: Arc<Map<PerformanceId, Slot>>,
    by_timetable: Arc<Map<TimetableId, Slot>>,
    /// Public performances only, as in `by_starts_at`.
    by_opens_at: Vec<Rank>,
    by_starts_at: Vec<Rank>,
    categories: Arc<BTreeSet<String>>,
    searched: Searched,
}

/// The searched text of all performances, made when it is first needed.
#[derive(Debug, Default)]
struct Searched(OnceLock<Haystack>);

impl Clone for Searched {
    /// A copy is made to be changed, so it begins anew.
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// One text, because a search through one is limited by memory bandwidth, and a
/// search through ten thousand by cache misses.
#[derive(Debug, Default)]
struct Haystack {
    text: String,
    /// Where the text of each slot ends.
    ends: Vec<usize>,
}

impl Image {
    pub(super) fn venue(&self, id: VenueId) -> Option<&Arc<Venue>> {
        self.venues.get(&id)
    }

    pub(super) fn performance(&self, id: PerformanceId) -> Option<&Arc<Performance>> {
        self.at(*self.by_id.get(&id)?)
            .map(|place| &place.performance)
    }

    pub(super) fn timetable(
        &self,
        id: TimetableId,
    ) -> Option<(&Arc<Performance>, &Arc<Timetable>)> {
        let performance = &self.at(*self.by_timetable.get(&id)?)?.performance;
        Some((performance, performance.timetable(id)?))
    }

    pub(super) fn at(&self, slot: Slot) -> Option<&Place> {
        self.places.get(slot as usize)
    }

    /// All performances in the order in which they were made.
    pub(super) fn performances(&self) -> impl DoubleEndedIterator<Item = &Arc<Performance>> {
        self.places.iter().map(|place| &place.performance)
    }

    /// Public performances with their slots.
    pub(super) fn public(&self) -> impl Iterator<Item = (Slot, &Arc<Performance>)> {
        self.by_opens_at.iter().filter_map(|rank| {
            self.at(rank.slot)
                .map(|place| (rank.slot, &place.performance))
        })
    }

    pub(super) fn by_opens_at(&self) -> &[Rank] {
        &self.by_opens_at
    }

    pub(super) fn by_starts_at(&self) -> &[Rank] {
        &self.by_starts_at
    }

    pub(super) fn has_category(&self, slug: &str) -> bool {
        self.categories.contains(slug)
    }

    /// Each category with the number of its public performances.
    pub(super) fn categories(&self) -> BTreeMap<&str, u32> {
        let mut counts: BTreeMap<&str, u32> = self
            .categories
            .iter()
            .map(|slug| (slug.as_str(), 0))
            .collect();
        for (_, performance) in self.public() {
            *counts.entry(performance.row.category.as_str()).or_default() += 1;
        }
        counts
    }

    pub(super) fn put_venue(&mut self, venue: Arc<Venue>) {
        self.generation += 1;
        Arc::make_mut(&mut self.venues).insert(venue.id, venue);
    }

    pub(super) fn put_category(&mut self, slug: &str) {
        self.generation += 1;
        if !self.categories.contains(slug) {
            Arc::make_mut(&mut self.categories).insert(slug.to_owned());
        }
    }

    pub(super) fn remove_category(&mut self, slug: &str) {
        self.generation += 1;
        Arc::make_mut(&mut self.categories).remove(slug);
    }

    /// Adds a performance, or replaces its former version.
    pub(super) fn put(&mut self, performance: Arc<Performance>) {
        self.put_category(&performance.row.category);
        self.searched = Searched::default();
        let id = performance.id();
        let slot = match self.by_id.get(&id) {
            Some(slot) => *slot,
            None => self.add_slot(id),
        };
        let place = Place {
            facts: facts_of(&performance),
            performance,
        };
        let timetables = &place.performance.timetables;
        if !timetables
            .iter()
            .all(|t| self.by_timetable.contains_key(&t.row.id))
        {
            let by_timetable = Arc::make_mut(&mut self.by_timetable);
            by_timetable.extend(timetables.iter().map(|t| (t.row.id, slot)));
        }
        let old = self.places.get(slot as usize).cloned();
        if let Some(old) = old {
            self.unlist(slot, &old);
        }
        if place.performance.is_public() {
            self.list(slot, &place);
        }
        match self.places.get_mut(slot as usize) {
            Some(former) => *former = place,
            None => self.places.push(place),
        }
    }

    /// A new slot, behind all others: there are far fewer than 2^32.
    fn add_slot(&mut self, id: PerformanceId) -> Slot {
        let slot = self.places.len() as Slot;
        Arc::make_mut(&mut self.by_id).insert(id, slot);
        slot
    }

    fn list(&mut self, slot: Slot, place: &Place) {
        for (list, rank) in self.ranks(slot, place) {
            if let Err(at) = list.binary_search(&rank) {
                list.insert(at, rank);
            }
        }
    }

    fn unlist(&mut self, slot: Slot, place: &Place) {
        for (list, rank) in self.ranks(slot, place) {
            if let Ok(at) = list.binary_search(&rank) {
                list.remove(at);
            }
        }
    }

    fn ranks(&mut self, slot: Slot, place: &Place) -> [(&mut Vec<Rank>, Rank); 2] {
        let Facts {
            opens_at,
            first_starts_at,
            ..
        } = place.facts;
        let id = place.performance.id().0;
        let rank = |key: Timestamp| Rank {
            key: key.0,
            id,
            slot,
        };
        [
            (&mut self.by_opens_at, rank(opens_at)),
            (&mut self.by_starts_at, rank(first_starts_at)),
        ]
    }

    /// Which slots have all of `words`, which must be folded.
    pub(super) fn search(&self, words: &[String]) -> Vec<bool> {
        let haystack = self.searched.0.get_or_init(|| self.haystack());
        let mut found = vec![true; self.places.len()];
        for word in words {
            let has = haystack.slots_with(word);
            for (found, has) in found.iter_mut().zip(has) {
                *found &= has;
            }
        }
        found
    }

    fn haystack(&self) -> Haystack {
        let mut haystack = Haystack::default();
        for place in &self.places {
            place.performance.push_searched(&mut haystack.text);
            haystack.ends.push(haystack.text.len());
        }
        haystack
    }
}

impl Haystack {
    fn slots_with(&self, word: &str) -> Vec<bool> {
        let mut has = vec![false; self.ends.len()];
        let finder = memchr::memmem::Finder::new(word);
        let text = self.text.as_bytes();
        let mut from = 0;
        while let Some(hit) = text.get(from..).and_then(|rest| finder.find(rest)) {
            let slot = self.ends.partition_point(|end| *end <= from + hit);
            let (Some(has), Some(end)) = (has.get_mut(slot), self.ends.get(slot)) else {
                break;
            };
            *has = true;
            from = *end;
        }
        has
    }
}

/// A performance without dates sorts behind all others by start.
fn facts_of(performance: &Performance) -> Facts {
    Facts {
        opens_at: performance.row.opens_at,
        closes_at: performance.row.closes_at,
        first_starts_at: performance.first_starts_at().unwrap_or(Timestamp(i64::MAX)),
        last_starts_at: performance.last_starts_at().unwrap_or(Timestamp(i64::MIN)),
    }
}
