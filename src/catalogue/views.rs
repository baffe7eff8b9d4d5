//! How often performances are viewed: one view a viewer (a user, else an
//! address) a day. Views are counted in memory at once and flushed together.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hmac::{Hmac, Mac as _};
use parking_lot::Mutex;
use sha2::Sha256;

use super::rows::{DayViews, View};
use crate::domain::ids::{PerformanceId, UserId};
use crate::domain::time::Timestamp;
use crate::keys::MAC_BYTES;

/// How many days of views are kept apart for the ranking.
pub(super) const RANKING_DAYS_MAX: i64 = 30;

/// How many views wait for the next flush at most; more are not counted.
pub(super) const VIEWS_PENDING_MAX: usize = 100_000;

/// How many viewers of today are remembered, 8 bytes each. Beyond them a
/// viewer who comes again is counted until the store says better.
pub(super) const VIEWERS_SEEN_MAX: usize = 1_000_000;

const DAY_MS: i64 = 86_400_000;

/// The day of `at`: days since 1970-01-01 UTC.
#[must_use]
pub(super) fn day_of(at: Timestamp) -> i64 {
    at.0.div_euclid(DAY_MS)
}

/// Who looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Viewer {
    /// Somebody signed in.
    User(UserId),
    /// Anybody behind this address.
    Address(IpAddr),
}

/// How often a performance was viewed.
#[derive(Debug, Default)]
pub struct ViewCount {
    total: AtomicU64,
    /// The latest days with views, at most [`RANKING_DAYS_MAX`], by day.
    days: Mutex<VecDeque<(i64, u64)>>,
}

impl ViewCount {
    /// Ever.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// From day `from` on.
    #[must_use]
    pub fn since(&self, from: i64) -> u64 {
        let days = self.days.lock();
        days.iter()
            .rev()
            .take_while(|(day, _)| *day >= from)
            .map(|(_, views)| views)
            .sum()
    }

    pub(super) fn add(&self, day: i64, views: u64) {
        self.total.fetch_add(views, Ordering::Relaxed);
        let mut days = self.days.lock();
        match days.binary_search_by_key(&day, |(day, _)| *day) {
            Ok(at) => {
                if let Some((_, count)) = days.get_mut(at) {
                    *count += views;
                }
            }
            Err(at) => days.insert(at, (day, views)),
        }
        while days.len() > RANKING_DAYS_MAX as usize {
            days.pop_front();
        }
    }

    /// Takes back what was counted although the store knew it.
    pub(super) fn take_back(&self, day: i64, views: u64) {
        let less = |count: u64| Some(count.saturating_sub(views));
        let _ = self
            .total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let mut days = self.days.lock();
        if let Ok(at) = days.binary_search_by_key(&day, |(day, _)| *day)
            && let Some((_, count)) = days.get_mut(at)
        {
            *count = count.saturating_sub(views);
        }
    }
}

/// Which views are new, and which wait to be flushed.
#[derive(Debug)]
pub(super) struct Views {
    key: [u8; MAC_BYTES],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    today: i64,
    /// Hashes of (performance, viewer) of today.
    seen: HashSet<u64, RandomState>,
    pending: Vec<View>,
}

impl Views {
    /// `key` keeps viewers from being guessed by their hashes.
    pub(super) fn new(key: [u8; MAC_BYTES], seen: &[View], today: i64) -> Self {
        let state = State {
            today,
            seen: seen.iter().map(fingerprint).collect(),
            pending: Vec::new(),
        };
        Self {
            key,
            state: Mutex::new(state),
        }
    }

    /// The view of `viewer` at `now`, if it is to be counted.
    pub(super) fn record(&self, id: PerformanceId, viewer: Viewer, now: Timestamp) -> Option<View> {
        let day = day_of(now);
        let view = View {
            performance_id: id,
            day,
            viewer: self.hash(viewer, day),
        };
        let fingerprint = fingerprint(&view);
        let mut state = self.state.lock();
        if day > state.today || state.seen.len() >= VIEWERS_SEEN_MAX {
            state.today = day;
            state.seen.clear();
        }
        if state.pending.len() >= VIEWS_PENDING_MAX || !state.seen.insert(fingerprint) {
            return None;
        }
        state.pending.push(view);
        Some(view)
    }

    /// All views that wait.
    pub(super) fn take(&self) -> Vec<View> {
        std::mem::take(&mut self.state.lock().pending)
    }

    /// Views that could not be flushed: those that there is room for wait
    /// again, the others are returned.
    pub(super) fn put_back(&self, mut views: Vec<View>) -> Vec<View> {
        let mut state = self.state.lock();
        let room = VIEWS_PENDING_MAX.saturating_sub(state.pending.len());
        let lost = views.split_off(room.min(views.len()));
        state.pending.append(&mut views);
        lost
    }

    /// Changes with the day, so that an address can't be followed over days.
    fn hash(&self, viewer: Viewer, day: i64) -> u64 {
        // Every length is a valid key of an HMAC.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else {
            return 0;
        };
        mac.update(&day.to_be_bytes());
        match viewer {
            Viewer::User(user) => mac.update(user.0.as_bytes()),
            Viewer::Address(IpAddr::V4(address)) => mac.update(&address.octets()),
            // A subscriber has a network of 2^64 addresses.
            Viewer::Address(IpAddr::V6(address)) => mac.update(&address.octets()[..8]),
        }
        let digest = mac.finalize().into_bytes();
        digest
            .iter()
            .take(8)
            .fold(0, |hash, byte| hash << 8 | u64::from(*byte))
    }
}

/// The viewer is a keyed hash, so nobody can make these collide.
fn fingerprint(view: &View) -> u64 {
    foldhash::fast::FixedState::default().hash_one((view.performance_id, view.viewer))
}

/// How many of `counted` are not among `new`, by performance and day.
pub(super) fn repeated(counted: &[View], new: &[DayViews]) -> Vec<DayViews> {
    let mut counts: HashMap<(PerformanceId, i64), u64> = HashMap::new();
    for view in counted {
        *counts.entry((view.performance_id, view.day)).or_default() += 1;
    }
    for new in new {
        if let Some(count) = counts.get_mut(&(new.performance_id, new.day)) {
            *count = count.saturating_sub(new.views);
        }
    }
    counts
        .into_iter()
        .filter(|(_, views)| *views > 0)
        .map(|((performance_id, day), views)| DayViews {
            performance_id,
            day,
            views,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id() -> PerformanceId {
        PerformanceId(Uuid::now_v7())
    }

    #[test]
    fn a_viewer_counts_once_a_day_for_each_performance() {
        let (one, other) = (id(), id());
        let views = Views::new([7; MAC_BYTES], &[], 0);
        let user = Viewer::User(UserId(Uuid::now_v7()));
        let address = Viewer::Address("2001:db8::1".parse().unwrap());
        let neighbour = Viewer::Address("2001:db8::2".parse().unwrap());
        let at = |day: i64| Timestamp(day * DAY_MS + 5);
        assert!(views.record(one, user, at(1)).is_some());
        assert!(views.record(one, user, at(1)).is_none());
        assert!(views.record(other, user, at(1)).is_some());
        assert!(views.record(one, address, at(1)).is_some());
        assert!(views.record(one, neighbour, at(1)).is_none());
        assert!(views.record(one, user, at(2)).is_some());
        assert_eq!(views.take().len(), 4);
    }

    #[test]
    fn what_waits_to_be_flushed_is_bounded() {
        let views = Views::new([7; MAC_BYTES], &[], 0);
        let one = View {
            performance_id: id(),
            day: 0,
            viewer: 1,
        };
        assert_eq!(views.put_back(vec![one; VIEWS_PENDING_MAX + 3]).len(), 3);
        let user = Viewer::User(UserId(Uuid::now_v7()));
        assert!(views.record(id(), user, Timestamp(0)).is_none());
    }

    #[test]
    fn counts_of_days_sum_and_can_be_taken_back() {
        let count = ViewCount::default();
        count.add(10, 3);
        count.add(11, 2);
        count.add(9, 1);
        count.take_back(11, 1);
        assert_eq!((count.total(), count.since(10), count.since(11)), (5, 4, 1));
        for day in 12..100 {
            count.add(day, 1);
        }
        assert_eq!(count.since(0), RANKING_DAYS_MAX as u64);
    }
}
