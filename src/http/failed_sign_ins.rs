//! How often a sign-in has failed for an e-mail: ten times in 15 minutes, then
//! further ones are refused (the HTTP contract).

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::domain::time::{Millis, Timestamp};

/// How many sign-ins may fail for one e-mail within [`WINDOW_SECONDS`].
pub const FAILURES_MAX: usize = 10;

/// The window that failures are counted in.
pub const WINDOW_SECONDS: u32 = 15 * 60;

/// E-mails that are remembered at a time, about 100 bytes each. A failure
/// costs a password hash, so filling this takes longer than the window on less
/// than a dozen cores; beyond it the least suspicious of a few is forgotten.
const EMAILS_MAX: usize = 262_144;

/// How many candidates are looked at to find one to forget.
const CANDIDATES: usize = 16;

/// How often e-mails whose window has passed are dropped at most.
const PRUNE_EVERY_MS: i64 = 1_000;

/// Too many sign-ins have failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyFailures {
    /// When the next attempt is allowed, in whole seconds from now, at least 1.
    pub retry_after_seconds: u32,
}

/// The failures of the last [`WINDOW_SECONDS`], by e-mail.
#[derive(Default, Debug)]
pub struct FailedSignIns {
    hasher: RandomState,
    table: Mutex<Table>,
}

/// E-mails are kept as keyed hashes: nobody's address stays in memory.
#[derive(Default, Debug)]
struct Table {
    failures: HashMap<u64, Failures, RandomState>,
    pruned_at: Timestamp,
}

/// When an e-mail's sign-ins failed, oldest first.
type Failures = SmallVec<[Timestamp; FAILURES_MAX]>;

impl FailedSignIns {
    /// Whether a sign-in for `email` may be tried, or its outcome told.
    ///
    /// Asked before the password is compared, to save the work, and again
    /// after, because many attempts may have been under way at once: only the
    /// first ten outcomes may tell a guesser anything.
    ///
    /// # Errors
    /// If too many have failed.
    pub fn check(&self, email: &str, now: Timestamp) -> Result<(), TooManyFailures> {
        let mut table = self.table.lock();
        let Some(failures) = table.failures.get_mut(&self.hasher.hash_one(email)) else {
            return Ok(());
        };
        forget_old(failures, now);
        refuse(failures, now)
    }

    /// Counts a failure for `email`.
    ///
    /// # Errors
    /// If there were too many already; this one is then not counted.
    pub fn count(&self, email: &str, now: Timestamp) -> Result<(), TooManyFailures> {
        let key = self.hasher.hash_one(email);
        let mut table = self.table.lock();
        if table.failures.len() >= EMAILS_MAX && !table.failures.contains_key(&key) {
            table.make_room(now);
        }
        let failures = table.failures.entry(key).or_default();
        forget_old(failures, now);
        refuse(failures, now)?;
        failures.push(now);
        Ok(())
    }
}

impl Table {
    fn make_room(&mut self, now: Timestamp) {
        if now.since(self.pruned_at).0 >= PRUNE_EVERY_MS {
            self.pruned_at = now;
            self.failures.retain(|_, failures| {
                forget_old(failures, now);
                !failures.is_empty()
            });
        }
        while self.failures.len() >= EMAILS_MAX {
            let candidates = self.failures.iter().take(CANDIDATES);
            let Some((&key, _)) = candidates.min_by_key(|(_, failures)| failures.len()) else {
                return;
            };
            self.failures.remove(&key);
        }
    }
}

fn forget_old(failures: &mut Failures, now: Timestamp) {
    failures.retain(|at| now.since(*at) < Millis::from_secs(WINDOW_SECONDS));
}

fn refuse(failures: &Failures, now: Timestamp) -> Result<(), TooManyFailures> {
    match failures.first() {
        Some(oldest) if failures.len() >= FAILURES_MAX => {
            let left_ms = oldest
                .plus(Millis::from_secs(WINDOW_SECONDS))
                .since(now)
                .0
                .max(1);
            let seconds = left_ms.saturating_add(999) / 1000;
            Err(TooManyFailures {
                retry_after_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn second(n: i64) -> Timestamp {
        START.plus(Millis(n * 1000))
    }

    #[test]
    fn the_eleventh_attempt_after_ten_failures_is_refused_until_the_first_is_15_minutes_old() {
        let failed = FailedSignIns::default();
        for n in 0..10 {
            assert_eq!(failed.check("a@example.com", second(n)), Ok(()));
            assert_eq!(failed.count("a@example.com", second(n)), Ok(()));
        }
        let refused = Err(TooManyFailures {
            retry_after_seconds: 891,
        });
        assert_eq!(failed.check("a@example.com", second(9)), refused);
        assert_eq!(failed.check("b@example.com", second(9)), Ok(()));
        assert!(failed.check("a@example.com", second(899)).is_err());
        assert_eq!(failed.check("a@example.com", second(900)), Ok(()));
        assert_eq!(failed.count("a@example.com", second(900)), Ok(()));
        assert!(failed.check("a@example.com", second(900)).is_err());
    }

    #[test]
    fn of_attempts_made_at_once_only_ten_are_told_that_they_failed() {
        let failed = FailedSignIns::default();
        let started = (0..100)
            .filter(|_| failed.check("a@example.com", START).is_ok())
            .count();
        assert_eq!(started, 100);
        let told = (0..100)
            .filter(|_| failed.count("a@example.com", START).is_ok())
            .count();
        assert_eq!(told, FAILURES_MAX);
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_most_suspicious() {
        let failed = FailedSignIns::default();
        for _ in 0..FAILURES_MAX {
            failed.count("victim@example.com", START).unwrap();
        }
        for n in 0..EMAILS_MAX + 1000 {
            failed.count(&format!("{n}@example.com"), START).unwrap();
        }
        assert_eq!(failed.table.lock().failures.len(), EMAILS_MAX);
        assert!(failed.check("victim@example.com", START).is_err());
        failed.count("late@example.com", second(1000)).unwrap();
        assert_eq!(failed.table.lock().failures.len(), 1);
    }
}
