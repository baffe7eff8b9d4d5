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
mod world;

use world::World;

fn rounds() -> usize {
    std::env::var("ONSALE_CRASH_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let mut world = World::start(&[], true).await;
    for round in 1..=rounds() {
        let findings = world.round().await;
        let acknowledged = world.acknowledged().await;
        eprintln!("round {round}: {acknowledged} charges and orders acknowledged so far");
        assert!(
            findings.is_empty(),
            "round {round}: {findings:#?}\n{}",
            world.server.log().join("\n")
        );
        world.settings.assert_audit_is_clean();
    }
    let acknowledged = world.acknowledged().await;
    assert!(
        acknowledged > 10 * rounds(),
        "too little happened: {acknowledged}"
    );
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
    const ROUNDS_MAX: usize = 10;
    let mut world = World::start(&[("ONSALE_SABOTAGE", "ack-before-commit")], true).await;
    for round in 1..=ROUNDS_MAX {
        world.load_and_kill().await;
        world.server = common::process::ServerProcess::start(&world.settings);
        let findings = world.check_after_restart().await;
        if !findings.is_empty() {
            eprintln!("found out in round {round}: {} findings", findings.len());
            return;
        }
        world.resolve_unknown().await;
    }
    panic!("nothing was found in {ROUNDS_MAX} rounds: the check can't fail");
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_leaves_before_the_point_of_its_commit_is_found_out() {
    let mut world = World::start(&[], true).await;
    world.assert_found_out_if_it_acknowledges_too_early().await;
}
