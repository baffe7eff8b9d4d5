//! I8, checked once more before anything is applied.

use super::policy::{Admit, Terms};
use super::*;
use crate::domain::invariant::Invariant;

fn admitted(scene: &Scene, late: &[u32], upto: u32, metered: u32) -> Event {
    Event::Admitted {
        late: late.iter().map(|number| TicketNumber(*number)).collect(),
        upto: TicketNumber(upto),
        metered,
        terms: terms(scene),
    }
}

fn terms(scene: &Scene) -> Terms {
    scene.queue.plan().policy.terms()
}

fn assert_found(scene: &Scene, event: &Event) {
    let violation = scene.queue.check(event).expect_err("it breaks a promise");
    assert_eq!(violation.invariant, Invariant::I8, "{violation}");
}

/// Five wait for the opening.
fn scene(policy: QueuePolicy) -> Scene {
    let mut scene = Scene::new(policy);
    scene.now = Timestamp(OPENS.0 - 1);
    for number in 1..=5 {
        scene.join(number);
    }
    scene.store();
    scene
}

#[test]
fn more_than_the_cap_in_a_pause_or_twice_at_a_time_is_found() {
    let mut scene = scene(cap(2));
    assert_eq!(scene.queue.check(&admitted(&scene, &[], 2, 0)), Ok(()));
    assert_found(&scene, &admitted(&scene, &[], 3, 0));
    scene.ask(Command::Pause).unwrap();
    assert_found(&scene, &admitted(&scene, &[], 2, 0));
    scene.ask(Command::Resume).unwrap();
    scene.now = OPENS;
    scene.state(1);
    assert!(scene.queue.batch.is_some());
    assert_found(&scene, &admitted(&scene, &[], 2, 0));
}

#[test]
fn who_enters_uncounted_or_beyond_the_window_is_found() {
    let admit = Some(Admit {
        count: 3,
        every_seconds: 10,
    });
    let mut scene = scene(QueuePolicy {
        admit,
        ..QueuePolicy::PLAIN
    });
    assert_found(&scene, &admitted(&scene, &[], 3, 2));
    let opened = Event::Opened {
        at: scene.now,
        expires_at: scene.now,
    };
    assert_found(&scene, &opened);
    let seq = scene.seq.next();
    let too_many = admitted(&scene, &[], 4, 4);
    scene.queue.apply(seq, &too_many);
    assert_found(&scene, &opened);
}

#[test]
fn a_number_that_somebody_has_or_that_is_not_reserved_is_found() {
    let scene = scene(cap(2));
    let joined = |number| Event::Joined {
        user: user(9),
        ticket: ticket(9),
        number: Some(TicketNumber(number)),
        at: scene.now,
    };
    assert_found(&scene, &joined(3));
    assert_found(&scene, &joined(scene.queue.reserved_upto.0 + 1));
    assert_eq!(scene.queue.check(&joined(6)), Ok(()));
}

#[test]
fn who_was_passed_enters_first() {
    let mut scene = scene(cap(1));
    scene.now = OPENS;
    scene.run();
    let claim = |scene: &mut Scene, number: u32| {
        let claim = Claim {
            ticket: ticket(number),
            number: Some(TicketNumber(number)),
        };
        scene
            .ask(Command::State {
                user: user(number),
                claim: Some(claim),
            })
            .unwrap();
    };
    // 6 was lost and is passed by 7, who enters.
    claim(&mut scene, 7);
    for number in 1..=5 {
        scene.ask(Command::Leave { user: user(number) }).unwrap();
    }
    scene.run();
    assert_eq!(scene.state(7).state, State::Admitted);
    claim(&mut scene, 6);
    claim(&mut scene, 8);
    scene.ask(Command::Leave { user: user(7) }).unwrap();
    assert_eq!(scene.queue.check(&admitted(&scene, &[6], 7, 0)), Ok(()));
    assert_found(&scene, &admitted(&scene, &[], 8, 0));
}
