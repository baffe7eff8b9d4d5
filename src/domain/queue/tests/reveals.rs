//! What is told about a place is in the database before.

use super::*;
use crate::domain::decision::Tier;

fn tier(scene: &mut Scene, number: u32) -> Tier {
    let standing = scene.state(number);
    scene.queue.reveals(&Ok(Reply::Standing(standing)))
}

/// A crash would give it again, with another time.
#[test]
fn a_pass_is_told_when_it_is_stored() {
    let mut scene = Scene::new(cap(1));
    scene.join(1);
    scene.join(2);
    scene.store();
    assert_eq!(scene.state(1).state, State::Admitted);
    assert_eq!(tier(&mut scene, 1), Tier::Database);
    assert_eq!(tier(&mut scene, 2), Tier::Memory, "still waits");
    scene.store();
    assert_eq!(tier(&mut scene, 1), Tier::Memory);
}

/// A crash would bring the old pass back, and with it the new ticket would be
/// worth nothing.
#[test]
fn an_end_and_a_place_after_it_are_told_when_the_end_is_stored() {
    let mut scene = Scene::new(cap(1));
    scene.join(1);
    scene.run();
    let at = scene.now.plus(Millis::from_secs(1));
    let bought = Command::Purchased { user: user(1), at };
    assert!(scene.ask(bought).is_ok());
    assert_eq!(scene.state(1).state, State::Left);
    assert_eq!(tier(&mut scene, 1), Tier::Database);
    let (standing, new) = scene.join(1);
    let joined = Ok(Reply::Joined { standing, new });
    assert_eq!(scene.queue.reveals(&joined), Tier::Database);
    scene.store();
    assert_eq!(scene.queue.reveals(&joined), Tier::Memory);
}

/// Of what the checkpoint knows: an end, and the next place of the same user.
#[test]
fn a_place_after_one_whose_end_was_not_stored_is_recovered() {
    let mut scene = Scene::new(cap(1));
    scene.join(1);
    scene.run();
    scene.restart();
    let stored = scene.queue.place_row(user(1)).unwrap();
    let at = scene.now;
    let ended = restore::PlaceRow {
        state: restore::PlaceState::Ended {
            end: End::Expired,
            at,
            pass_until: at,
        },
        ..stored
    };
    let again = restore::PlaceRow {
        ticket: ticket(9),
        number: Some(scene.queue.next),
        joined_at: at,
        state: restore::PlaceState::Waiting,
        ..stored
    };
    assert!(scene.queue.recover(&[again]).is_empty(), "one place a user");
    for event in scene.queue.recover(&[ended, again]) {
        scene.queue.apply(scene.seq, &event);
    }
    assert_eq!(scene.state(1).number, again.number);
    assert_eq!(scene.state(1).state, State::Waiting);
}
