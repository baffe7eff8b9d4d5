//! The server is killed while it admits people.

use crate::room::Room;
use crate::rounds::rounds;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_room_survives_kill_9_in_the_middle_of_admissions() {
    let mut room = Room::open(&[]).await;
    // Places are acknowledged from memory.
    room.survive(rounds(), true, async || ()).await;
}

/// A room that is broken like this must be found out, or the rounds above show
/// nothing.
#[cfg(feature = "sabotage")]
async fn assert_found_out(broken: &str) {
    const ROUNDS_MAX: usize = 20;
    let mut room = Room::open(&[("ONSALE_SABOTAGE", broken)]).await;
    for round in 1..=ROUNDS_MAX {
        room.load_and_kill(true).await;
        room.restart();
        let findings = room.findings().await;
        if !findings.is_empty() {
            eprintln!("{broken}: found out in round {round}: {findings:?}");
            return;
        }
    }
    panic!("{broken}: nothing was found in {ROUNDS_MAX} rounds: the check can't fail");
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_gives_numbers_again_after_a_restart_is_found_out() {
    assert_found_out("forget-block").await;
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_tells_of_passes_before_they_are_stored_is_found_out() {
    assert_found_out("reveal-early").await;
}
