//! The real program under load, killed with `kill -9` at random moments: what
//! it acknowledged must be there after each restart.
//!
//! `ONSALE_CRASH_ROUNDS` says how often (default 3), `ONSALE_CRASH_SEED`
//! repeats a run's choices.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may panic, that is how it fails; and it measures real time"
)]

#[path = "../common/mod.rs"]
mod common;
mod customer;
#[path = "../history/mod.rs"]
mod history;
mod limit;
#[cfg(feature = "sabotage")]
mod panics;
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
            eprintln!("found out in round {round}: {findings:?}");
            return;
        }
        world.resolve_unknown().await;
    }
    panic!("nothing was found in {ROUNDS_MAX} rounds: the check can't fail");
}
