//! Large bodies that are made once and shared, bounded by their bytes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use foldhash::fast::RandomState;
use parking_lot::Mutex;

/// The most entries of one cache, whatever their size.
const ENTRIES_MAX: usize = 4_096;

/// Bodies by key. Where there are too many bytes, those that were not asked for
/// the longest are dropped.
#[derive(Debug)]
pub(crate) struct BodyCache<K> {
    bytes_max: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    entries: HashMap<K, Entry, RandomState>,
    /// How many questions were asked.
    asked: u64,
}

#[derive(Debug)]
struct Entry {
    body: Arc<OnceLock<Bytes>>,
    /// Which of all questions asked for it last.
    asked: u64,
}

impl<K: Hash + Eq + Clone> BodyCache<K> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let state = State {
            entries: HashMap::default(),
            asked: 0,
        };
        Self {
            bytes_max,
            state: Mutex::new(state),
        }
    }

    /// The body of `key`, made by `make` if it isn't there; by one caller, for
    /// whom the others wait.
    pub(crate) fn get_or_make(&self, key: &K, make: impl FnOnce() -> Bytes) -> Bytes {
        let cell = self.state.lock().cell(key.clone());
        if let Some(body) = cell.get() {
            return body.clone();
        }
        let made = cell.get_or_init(make).clone();
        self.state.lock().shed(key, self.bytes_max);
        made
    }

    /// The body of `key`, if it is there.
    pub(crate) fn get(&self, key: &K) -> Option<Bytes> {
        let mut state = self.state.lock();
        state.asked += 1;
        let asked = state.asked;
        let entry = state.entries.get_mut(key)?;
        entry.asked = asked;
        entry.body.get().cloned()
    }
}

impl<K: Hash + Eq + Clone> State<K> {
    fn cell(&mut self, key: K) -> Arc<OnceLock<Bytes>> {
        self.asked += 1;
        let asked = self.asked;
        let entry = self.entries.entry(key);
        let entry = entry.or_insert_with(|| Entry {
            body: Arc::default(),
            asked,
        });
        entry.asked = asked;
        Arc::clone(&entry.body)
    }

    /// Drops the oldest until the rest fits; never `newest`.
    fn shed(&mut self, newest: &K, bytes_max: usize) {
        let size = |entry: &Entry| entry.body.get().map_or(0, Bytes::len);
        let mut bytes: usize = self.entries.values().map(size).sum();
        while bytes > bytes_max || self.entries.len() > ENTRIES_MAX {
            let others = self.entries.iter().filter(|(key, _)| *key != newest);
            let oldest = others
                .min_by_key(|(_, entry)| entry.asked)
                .map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return };
            bytes -= self.entries.remove(&oldest).map_or(0, |entry| size(&entry));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_made_once_and_the_oldest_goes_when_there_are_too_many_bytes() {
        let cache = BodyCache::new(25);
        let body = |byte: u8| Bytes::from(vec![byte; 10]);
        assert_eq!(cache.get_or_make(&1, || body(1)), body(1));
        assert_eq!(cache.get_or_make(&1, || unreachable!()), body(1));
        cache.get_or_make(&2, || body(2));
        cache.get_or_make(&3, || body(3));
        assert_eq!(cache.get(&1), None);
        assert_eq!(cache.get(&2), Some(body(2)));
        assert_eq!(cache.get(&3), Some(body(3)));
    }
}
