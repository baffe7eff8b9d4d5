//! The server on Postgres is killed at random moments under load.

use crate::Place;

fn rounds() -> usize {
    std::env::var("ONSALE_CRASH_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_on_postgres_survives_kill_9() {
    let place = Place::fresh().await;
    let mut world = place.world(&[]).await;
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
async fn a_server_that_acknowledges_before_it_commits_to_postgres_is_found_out() {
    use crate::common::process::ServerProcess;
    const ROUNDS_MAX: usize = 10;
    let place = Place::fresh().await;
    let mut world = place
        .world(&[("ONSALE_SABOTAGE", "ack-before-commit")])
        .await;
    for round in 1..=ROUNDS_MAX {
        world.load_and_kill().await;
        world.server = ServerProcess::start(&world.settings);
        let findings = world.check_after_restart().await;
        if !findings.is_empty() {
            eprintln!("found out in round {round}: {findings:?}");
            return;
        }
        world.resolve_unknown().await;
    }
    panic!("nothing was found in {ROUNDS_MAX} rounds: the check can't fail");
}
