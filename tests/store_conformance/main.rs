//! What every store promises, checked over each of them: SQLite in memory,
//! SQLite on disk, and Postgres. The sentences are those of the contract
//! (`onsale::persistence::store`).
//!
//! Postgres is the one of `ONSALE_STORE__URL`: `scripts/services start`, and
//! then `set -a; eval "$(scripts/services env)"; set +a`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic: that is how it fails"
)]

/// Makes three tests of each function, one a store.
macro_rules! on_every_store {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use crate::fixture::{Fixture, Place};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite_in_memory() {
                let fixture = Fixture::new(Place::Memory).await;
                super::$name(&fixture).await;
                fixture.end().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite_on_disk() {
                let fixture = Fixture::new(Place::Disk).await;
                super::$name(&fixture).await;
                fixture.end().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                let fixture = Fixture::new(Place::Postgres).await;
                super::$name(&fixture).await;
                fixture.end().await;
            }
        }
    )+};
}

mod accounts;
mod cancels;
mod catalogue;
mod commit;
mod coupons;
mod fencing;
mod fixture;
#[cfg(feature = "sabotage")]
mod on_purpose;
mod open_batch;
mod outbox;
mod postgres;
mod queue_life;
mod queues;
#[path = "../common/random.rs"]
mod random;
mod together;
