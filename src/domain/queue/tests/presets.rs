//! The presets, each with the figures of the system that it stands for, and a
//! sale that is as big as they come.

use super::policy::Admit;
use super::*;

fn active(scene: &Scene) -> u32 {
    scene.queue.places.counts().active
}

/// So many people before the opening, and then it opens.
fn opened(preset: Preset, people: u32) -> Scene {
    let mut scene = Scene::new(preset.policy());
    scene.now = Timestamp(OPENS.0 - 1);
    for number in 1..=people {
        scene.join(number);
    }
    scene.now = OPENS;
    scene.run();
    scene
}

#[test]
fn the_amusement_park_lets_1000_in_at_once_and_then_3000_every_10_seconds() {
    let mut scene = opened(Preset::AmusementPark, 12_000);
    assert_eq!(active(&scene), 4_000, "1,000 free and the first window");
    scene.pass(9);
    assert_eq!(active(&scene), 4_000);
    scene.pass(1);
    assert_eq!(active(&scene), 7_000);
    scene.pass(10);
    assert_eq!(active(&scene), 10_000);
    scene.pass(580);
    assert_eq!(active(&scene), 8_000, "the first 4,000 passes are over");
}

#[test]
fn at_the_bank_counter_one_leaves_and_one_enters_and_waiters_are_twice_the_seats_at_most() {
    let mut scene = opened(Preset::BankCounter, 0);
    for number in 1..=3_000 {
        scene.join(number);
        scene.run();
    }
    assert_eq!(active(&scene), 1_000);
    let one_more = Command::Join {
        user: user(3_001),
        ticket: ticket(9_999),
        claim: None,
    };
    assert_eq!(scene.ask(one_more), Err(Refusal::QueueFull));
    scene.ask(Command::Leave { user: user(77) }).unwrap();
    scene.run();
    use State::{Admitted, Waiting};
    assert_eq!(scene.states(1_001..=1_002), [Admitted, Waiting]);
    let at = scene.now;
    scene.ask(Command::Purchased { user: user(5), at }).unwrap();
    scene.run();
    assert_eq!(scene.states(1_002..=1_003), [Admitted, Waiting]);

    // A hold renews a pass for half an hour; the others end after theirs.
    scene.pass(1_200);
    let at = scene.now;
    scene.ask(Command::HoldMade { user: user(6), at }).unwrap();
    scene.pass(600);
    assert_eq!(scene.state(6).state, Admitted);
    assert_eq!(scene.state(7).state, State::Expired);
    assert_eq!(active(&scene), 1_000, "as many have entered");
    scene.pass(1_200);
    assert_eq!(scene.state(6).state, State::Expired);
}

#[test]
fn active_200_has_200_inside_and_fills_up_by_200_in_10_seconds_at_most() {
    let mut scene = opened(Preset::Active200, 1_000);
    assert_eq!(active(&scene), 200);
    scene.pass(60);
    assert_eq!(active(&scene), 200, "nobody left");
    let leave = |scene: &mut Scene, numbers: std::ops::RangeInclusive<u32>| {
        for number in numbers {
            scene.ask(Command::Leave { user: user(number) }).unwrap();
        }
        scene.run();
    };
    leave(&mut scene, 1..=200);
    assert_eq!(active(&scene), 200);
    leave(&mut scene, 201..=400);
    assert_eq!(active(&scene), 0, "the window is used up");
    scene.pass(9);
    assert_eq!(active(&scene), 0);
    scene.pass(1);
    assert_eq!(active(&scene), 200);
    scene.pass(599);
    assert_eq!(scene.state(401).state, State::Admitted);
    scene.pass(1);
    assert_eq!(scene.state(401).state, State::Expired, "after 10 min");
    assert_eq!(active(&scene), 200);
}

#[test]
fn window_150_lets_150_in_every_5_seconds() {
    let mut scene = opened(Preset::Window150, 1_000);
    assert_eq!(active(&scene), 300, "150 free and the first window");
    for windows in 1..=4 {
        scene.pass(5);
        assert_eq!(active(&scene), 300 + windows * 150);
    }
    scene.pass(280);
    assert_eq!(scene.state(300).state, State::Expired, "after 5 min");
}

#[test]
fn active_50_has_50_inside_for_15_minutes() {
    let mut scene = opened(Preset::Active50, 200);
    assert_eq!(active(&scene), 50);
    scene.pass(899);
    assert_eq!(scene.states(50..=51), [State::Admitted, State::Waiting]);
    scene.pass(1);
    assert_eq!(scene.states(50..=51), [State::Expired, State::Admitted]);
    assert_eq!(active(&scene), 50);
}

#[test]
fn a_drained_queue_takes_nobody_new_and_lets_in_who_waits() {
    let mut scene = Scene::new(cap(1));
    scene.join(1);
    scene.join(2);
    scene.run();
    scene.ask(Command::Drain(true)).unwrap();
    let join = Command::Join {
        user: user(3),
        ticket: ticket(3),
        claim: None,
    };
    assert_eq!(scene.ask(join.clone()), Err(Refusal::QueueClosed));
    assert!(!scene.join(2).1, "who has a place keeps it");
    scene.ask(Command::Leave { user: user(1) }).unwrap();
    scene.run();
    assert_eq!(scene.state(2).state, State::Admitted);
    scene.ask(Command::Drain(false)).unwrap();
    assert!(scene.ask(join).is_ok());
}

#[test]
fn places_have_a_bound() {
    let mut scene = Scene::of(QueuePlan {
        places_max: 3,
        ..plan(cap(1))
    });
    for number in 1..=3 {
        scene.join(number);
    }
    let join = Command::Join {
        user: user(4),
        ticket: ticket(4),
        claim: None,
    };
    assert_eq!(scene.ask(join), Err(Refusal::QueueFull));
}

/// How many take part: a million where that takes seconds.
const CROWD: u32 = if cfg!(debug_assertions) {
    60_000
} else {
    1_000_000
};

/// All come at once; one in ten leaves while waiting, and comes back at the end
/// of the line; one in fifty leaves for good. Every second somebody looks.
#[test]
fn a_crowd_enters_in_order_within_the_window_and_nobody_twice_or_never() {
    let admit = Admit {
        count: CROWD / 100,
        every_seconds: 10,
    };
    let policy = QueuePolicy {
        free_admission: 1_000,
        admit: Some(admit),
        ..QueuePolicy::PLAIN
    };
    let mut scene = Scene::of(QueuePlan {
        places_max: 2 * CROWD,
        ..plan(policy)
    });
    scene.now = Timestamp(OPENS.0 - 1);
    for number in 1..=CROWD {
        scene.join(number);
    }
    let mut for_good = 0;
    for number in (7..=CROWD).step_by(10) {
        scene.ask(Command::Leave { user: user(number) }).unwrap();
        if number % 50 == 7 {
            for_good += 1;
        } else {
            scene.join(number);
        }
    }
    scene.now = OPENS;
    scene.run();
    let mut positions = vec![u32::MAX; 1_000];
    let (mut before, mut seconds) = (scene.queue.summary(scene.now).admitted_total, 0);
    while scene.queue.places.counts().waiting > 0 {
        scene.pass(1);
        seconds += 1;
        let total = scene.queue.summary(scene.now).admitted_total;
        assert!(total - before <= u64::from(admit.count));
        before = total;
        for (i, last) in positions.iter_mut().enumerate() {
            let number = CROWD / 1_000 * u32::try_from(i).unwrap() + 1;
            let position = scene.queue.position_of(user(number)).unwrap_or(0);
            assert!(position <= *last, "a position grew");
            *last = position;
        }
    }
    assert_eq!(before, u64::from(CROWD - for_good));
    let windows = (CROWD - for_good - 1_000).div_ceil(admit.count) - 1;
    assert_eq!(seconds, windows * 10, "not a second is lost");
}
