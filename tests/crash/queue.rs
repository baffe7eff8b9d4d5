//! The server is killed while it admits people.

use crate::room::Room;
use crate::rounds;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_room_survives_kill_9_in_the_middle_of_admissions() {
    let mut room = Room::open(&[]).await;
    // Places are acknowledged from memory.
    room.survive(rounds(), true, async || ()).await;
}
