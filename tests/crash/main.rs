//! The real program under load, killed with `kill -9` at random moments: what
//! it acknowledged must be there after each restart.
//!
//! `ONSALE_CRASH_ROUNDS` says how often (default 3), `ONSALE_CRASH_SEED`
//! repeats a run's choices. With the feature `sabotage` it kills itself besides,
//! at each point on the way of a decision, and panics.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may panic, that is how it fails; and it measures real time"
)]

#[cfg(feature = "sabotage")]
mod cancels;
mod claims;
#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "sabotage")]
mod coupon_matrix;
mod coupons;
mod customer;
#[path = "../history/mod.rs"]
mod history;
mod limit;
#[cfg(feature = "sabotage")]
mod matrix;
#[cfg(feature = "sabotage")]
mod on_purpose;
#[cfg(feature = "sabotage")]
mod panics;
mod person;
mod queue;
#[path = "../queue_history/mod.rs"]
mod queue_history;
mod room;
mod rounds;
mod world;

use world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let mut world = World::start(&[], true).await;
    world.assert_kills_lose_nothing().await;
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_death_on_purpose_at_any_point() {
    let mut world = World::start(&[], true).await;
    world.assert_nothing_is_lost_at(on_purpose::POINTS).await;
}

/// A server that answers before it commits must be found out, or the test
/// above shows nothing.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_acknowledges_before_it_commits_is_found_out() {
    let mut world = World::start(&[("ONSALE_SABOTAGE", "ack-before-commit")], true).await;
    world.assert_kills_find_it_out().await;
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_leaves_before_the_point_of_its_commit_is_found_out() {
    let mut world = World::start(&[], true).await;
    world.assert_found_out_if_it_acknowledges_too_early().await;
}

/// A sale is never durable without the money that was set aside for it, although
/// neither waits for the other.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_is_written_before_its_money_is_found_out() {
    let mut world = World::start(&[], true).await;
    world
        .assert_found_out_if_sales_come_before_their_money()
        .await;
}
