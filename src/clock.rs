//! The only reader of time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

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
}

impl Clock {
    /// A clock that shows the system's time now.
    #[must_use]
    pub fn system() -> Self {
        Self {
            origin: monotonic(),
            offset_ms: Arc::new(AtomicI64::new(system_ms())),
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(self.offset_ms.load(Ordering::Relaxed) + self.elapsed_ms())
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
