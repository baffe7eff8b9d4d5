//! The audit of stores that real machines and the real commit have made: SQLite
//! and Postgres, clean ones and those that were tampered with.
//!
//! Postgres is the one of `ONSALE_STORE__URL`, as `scripts/services run` sets it;
//! `cargo test --test audit sqlite` does without.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic: that is how it fails"
)]

/// Makes two tests of each function, one a store.
macro_rules! on_both_stores {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use crate::Place;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::$name(Place::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::$name(Place::Postgres).await;
            }
        }
    )+};
}

mod clean;
mod coupons;
#[path = "../common/database.rs"]
mod database;
mod lies;
mod live;
mod place;
mod queues;
mod tampered;
mod world;

use std::sync::Arc;

use live::Live;
use onsale::domain::account::{self, KeyHash};
use onsale::domain::coupon::Coupon;
use onsale::domain::decision::Machine as _;
use onsale::domain::ids::{
    Activation, Epoch, HoldId, OrderId, PaymentId, PerformanceId, Seq, Stamp, TimetableId, UserId,
};
use onsale::domain::money::Money;
use onsale::domain::order::CancelNo;
use onsale::domain::queue::Queue;
use onsale::domain::seat::SeatIndex;
use onsale::domain::time::{Millis, Timestamp};
use onsale::domain::timetable;
use onsale::persistence::Store;
use onsale::persistence::batch::{Contribution, Persisted as _};
use onsale::persistence::verify::Report;
use place::{Copied, Place, audit_of, execute, settings, url_of};
use uuid::Uuid;
use world::*;
