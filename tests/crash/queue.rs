//! The server is killed while it admits people.

use crate::room::Room;
use crate::rounds;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_room_survives_kill_9_in_the_middle_of_admissions() {
    let mut room = Room::open(&[]).await;
    for round in 1..=rounds() {
        // Places are acknowledged from memory.
        room.load_and_kill(true).await;
        room.settings.assert_audit_is_clean();
        room.restart();
        let findings = room.findings().await;
        let (admitted, lost) = room.figures().await;
        eprintln!("round {round}: {admitted} admitted so far, {lost} came back by their tickets");
        assert!(findings.is_empty(), "round {round}: {findings:#?}");
    }
    let findings = room.close().await;
    assert!(findings.is_empty(), "{findings:#?}");
    room.settings.assert_audit_is_clean();
    let (admitted, _) = room.figures().await;
    assert!(admitted > 5 * rounds(), "too little happened: {admitted}");
}
