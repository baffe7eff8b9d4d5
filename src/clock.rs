//! The only reader of time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::domain::time::{Millis, Timestamp};

/// How far the system's clock may run ahead of ours before we follow it at
/// once (the machine slept, or its clock was set).
const STEP_MS: i64 = 50;

/// A clock that never goes back: a monotonic clock, anchored to the system's.
///
/// On one machine the system's clock is the reference. It is compared by
/// [`Clock::anchor`] once a second: if it is ahead, this clock follows; if it
/// is behind, this one goes on at its own pace, so that no deadline comes
/// twice. Under tokio's paused test clock it stands still with it.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: tokio::time::Instant,
    /// Milliseconds since 1970 at `origin`.
    offset_ms: Arc<AtomicI64>,
    /// The latest time that was shown.
    shown_ms: Arc<AtomicI64>,
}

impl Clock {
    /// A clock that shows the system's time now.
    #[must_use]
    pub fn system() -> Self {
        Self {
            origin: monotonic(),
            offset_ms: Arc::new(AtomicI64::new(system_ms())),
            shown_ms: Arc::new(AtomicI64::new(i64::MIN)),
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = self.offset_ms.load(Ordering::Relaxed) + self.elapsed_ms();
        let shown = self.shown_ms.load(Ordering::Relaxed);
        // At most one write a millisecond, whoever asks how often.
        if now > shown {
            self.shown_ms.fetch_max(now, Ordering::Relaxed);
        }
        Timestamp(now.max(shown))
    }

    /// Goes by another clock from now on, which shows `reference` now. Only
    /// before anything was decided by this one: it may go back.
    fn restart(&self, reference: Timestamp) {
        self.offset_ms
            .store(reference.0 - self.elapsed_ms(), Ordering::Relaxed);
        self.shown_ms.store(i64::MIN, Ordering::Relaxed);
    }

    /// Goes at half its speed, or slower, until `ahead` is made up for.
    fn hold_back(&self, ahead: Millis) {
        let step = ahead.0.min(HELD_BACK_MAX_MS);
        self.offset_ms.fetch_sub(step, Ordering::Relaxed);
    }

    /// Follows the system's clock where it is ahead; see [`Clock::follow`].
    pub fn anchor(&self) -> Option<Millis> {
        self.follow(Timestamp(system_ms()))
    }

    /// Follows a clock that shows `reference` now, where it is ahead. Returns by
    /// how much this one has jumped: timers that were armed before come so much
    /// too late, and have to be armed again.
    pub fn follow(&self, reference: Timestamp) -> Option<Millis> {
        let ahead = reference.since(self.now());
        (ahead.0 > STEP_MS).then(|| {
            self.offset_ms.fetch_add(ahead.0, Ordering::Relaxed);
            ahead
        })
    }

    /// How long until `at`; zero if it has passed.
    #[must_use]
    pub fn until(&self, at: Timestamp) -> std::time::Duration {
        let ms = at.since(self.now()).0.max(0);
        std::time::Duration::from_millis(ms.unsigned_abs())
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(monotonic().duration_since(self.origin).as_millis()).unwrap_or(i64::MAX)
    }
}

/// How many comparisons the best is chosen from.
const READINGS_MAX: usize = 16;

/// How much of its clock a machine loses or gains, at most: 200 ppm.
const DRIFT_PER_MILLION: u32 = 200;

/// By how much a clock that is ahead is held back at each comparison, at most.
const HELD_BACK_MAX_MS: i64 = 250;

/// Ties a [`Clock`] to that of the database, by the comparison with the
/// shortest way of the last `READINGS_MAX`.
#[derive(Debug, Default)]
pub struct Anchor {
    readings: std::collections::VecDeque<Reading>,
    has_begun: bool,
}

/// The other clock showed `showed` some time between `sent` and `answered`.
#[derive(Clone, Copy, Debug)]
struct Reading {
    showed: Timestamp,
    sent: tokio::time::Instant,
    answered: tokio::time::Instant,
}

impl Reading {
    fn uncertainty(&self, now: tokio::time::Instant) -> Duration {
        let half_way = (self.answered - self.sent) / 2;
        half_way + (now - self.answered) / 1_000_000 * DRIFT_PER_MILLION
    }

    /// What the other clock shows at `now`.
    fn shows(&self, now: tokio::time::Instant) -> Timestamp {
        let read_at = self.sent + (self.answered - self.sent) / 2;
        let since = (now - read_at).as_millis();
        self.showed
            .plus(Millis(i64::try_from(since).unwrap_or(i64::MAX)))
    }
}

impl Anchor {
    /// Takes another comparison, and moves `clock` by the best. Returns by how
    /// much it has jumped ahead, if it has; see [`Clock::follow`].
    pub fn take(
        &mut self,
        clock: &Clock,
        showed: Timestamp,
        (sent, answered): (tokio::time::Instant, tokio::time::Instant),
    ) -> Option<Millis> {
        if self.readings.len() == READINGS_MAX {
            self.readings.pop_front();
        }
        self.readings.push_back(Reading {
            showed,
            sent,
            answered,
        });
        let now = monotonic();
        let best = self.readings.iter().min_by_key(|r| r.uncertainty(now))?;
        let reference = best.shows(now);
        if !std::mem::replace(&mut self.has_begun, true) {
            clock.restart(reference);
            return None;
        }
        let ahead = clock.now().since(reference);
        if ahead > Millis(0) {
            clock.hold_back(ahead);
            return None;
        }
        clock.follow(reference)
    }

    /// How far the clock may be off now; without end before the first
    /// comparison.
    #[must_use]
    pub fn uncertainty(&self) -> Duration {
        let now = monotonic();
        let readings = self.readings.iter().map(|r| r.uncertainty(now));
        readings.min().unwrap_or(Duration::MAX)
    }
}

/// A point on the monotonic clock, for measuring how long something takes.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this file is the reader of time")]
pub fn monotonic() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// How long the machine has been up, the time that it slept included: what
/// leases are measured by, because no freezing of the process stops it.
#[must_use]
pub fn since_boot() -> Millis {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Millis(at.tv_sec * 1_000 + at.tv_nsec / 1_000_000)
}

/// What the system's clock shows: for telling other systems when something was,
/// never for deciding.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this file is the reader of time")]
pub fn wall() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

#[allow(clippy::disallowed_methods, reason = "this file is the reader of time")]
fn system_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_with_the_paused_clock_and_never_back() {
        let clock = Clock::system();
        let before = clock.now();
        tokio::time::advance(std::time::Duration::from_secs(60)).await;
        assert_eq!(clock.now().since(before).0, 60_000);
        clock.anchor();
        assert!(clock.now().since(before).0 >= 60_000);
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_goes_back_when_the_databases_clock_is_behind() {
        let clock = Clock::system();
        let mut anchor = Anchor::default();
        let at = |offset: i64| (Timestamp(offset), (monotonic(), monotonic()));
        let (showed, read) = at(1_000_000);
        assert_eq!(anchor.take(&clock, showed, read), None);
        assert_eq!(
            clock.now(),
            Timestamp(1_000_000),
            "it begins where the other is"
        );
        let (showed, read) = at(999_900);
        anchor = Anchor {
            has_begun: true,
            ..Anchor::default()
        };
        assert_eq!(anchor.take(&clock, showed, read), None);
        assert_eq!(clock.now(), Timestamp(1_000_000));
        tokio::time::advance(Duration::from_millis(150)).await;
        assert_eq!(
            clock.now(),
            Timestamp(1_000_050),
            "it has waited for the other"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_comparison_with_the_shortest_way_counts() {
        let clock = Clock::system();
        let mut anchor = Anchor::default();
        let sent = monotonic();
        tokio::time::advance(Duration::from_millis(80)).await;
        anchor.take(&clock, Timestamp(1_000), (sent, monotonic()));
        assert_eq!(anchor.uncertainty(), Duration::from_millis(40));
        let sent = monotonic();
        tokio::time::advance(Duration::from_millis(2)).await;
        anchor.take(&clock, Timestamp(2_000), (sent, monotonic()));
        assert_eq!(anchor.uncertainty(), Duration::from_millis(1));
        assert_eq!(clock.now(), Timestamp(2_001));
    }

    #[tokio::test(start_paused = true)]
    async fn it_follows_a_clock_that_is_ahead_and_says_by_how_much() {
        let clock = Clock::system();
        let before = clock.now();
        assert_eq!(clock.follow(before.plus(Millis(-5_000))), None);
        assert_eq!(clock.follow(before.plus(Millis(STEP_MS))), None);
        assert_eq!(clock.now(), before);
        let step = Millis(10_000);
        assert_eq!(clock.follow(before.plus(step)), Some(step));
        assert_eq!(clock.now(), before.plus(step));
    }
}
