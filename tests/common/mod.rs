//! What every test binary that talks HTTP shares: a small client, the process
//! under test, the scenes that a test needs, and a source of random choices.
//!
//! Nothing in here knows the product's code: it is written from the HTTP
//! contract, so that a change of the contract shows up as a failing test.

// Each test binary uses its own part of this.
#![allow(dead_code)]

pub(crate) mod client;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod scene;
pub(crate) mod services;

use std::future::Future;
use std::time::{Duration, Instant};

/// How long to wait between two looks at something that is about to happen.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Looks again and again until `look` sees what it waits for, and panics with
/// `what` when that hasn't happened within `limit`.
pub(crate) async fn eventually<T, F>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(
            started.elapsed() < limit,
            "{what}: not seen within {limit:?}"
        );
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// An instant `seconds` from now (negative: ago), as the contract writes times.
pub(crate) fn in_seconds(seconds: i64) -> String {
    in_millis(seconds * 1_000)
}

/// An instant `millis` from now (negative: ago), as the contract writes times.
pub(crate) fn in_millis(millis: i64) -> String {
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(millis);
    format!("{at:.3}")
}

/// Seconds of a day.
pub(crate) const DAY: i64 = 86_400;

/// A fresh idempotency key.
pub(crate) fn fresh_key() -> String {
    uuid::Uuid::new_v4().to_string()
}
