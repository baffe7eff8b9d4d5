//! The promises of the waiting room, one by one. `model` checks I8 at random.

use uuid::Uuid;

use super::policy::{Preset, QueuePolicy};
use super::restore::QueueState;
use super::*;
use crate::domain::decision::{catch_up, step};
use crate::domain::ids::PerformanceId;
use crate::domain::time::Millis;

const OPENS: Timestamp = Timestamp(1_000_000);
const CLOSES: Timestamp = Timestamp(900_000_000);

fn plan(policy: QueuePolicy) -> QueuePlan {
    QueuePlan {
        performance_id: PerformanceId(Uuid::from_u128(1)),
        policy,
        opens_at: OPENS,
        closes_at: CLOSES,
        capacity: 1_000,
        places_max: 100_000,
        withdrawn: false,
    }
}

fn user(number: u32) -> UserId {
    UserId(Uuid::from_u128(u128::from(number) << 64 | 7))
}

fn ticket(number: u32) -> QueueTicketId {
    QueueTicketId(Uuid::from_u128(u128::from(number) << 64 | 9))
}

/// A queue with its clock.
struct Scene {
    queue: Queue,
    seq: Seq,
    now: Timestamp,
    tickets: u32,
}

impl Scene {
    fn new(policy: QueuePolicy) -> Self {
        Self {
            queue: Queue::new(Arc::new(plan(policy))),
            seq: Seq(0),
            now: OPENS,
            tickets: 0,
        }
    }

    fn ask(&mut self, command: Command) -> Result<Reply, Refusal> {
        step(&mut self.queue, &mut self.seq, self.now, command).outcome
    }

    fn join(&mut self, number: u32) -> (Standing, bool) {
        self.tickets += 1;
        let join = Command::Join {
            user: user(number),
            ticket: ticket(self.tickets),
            claim: None,
        };
        match self.ask(join) {
            Ok(Reply::Joined { standing, new }) => (standing, new),
            other => panic!("{other:?}"),
        }
    }

    fn state(&mut self, number: u32) -> Standing {
        let state = Command::State {
            user: user(number),
            claim: None,
        };
        match self.ask(state) {
            Ok(Reply::Standing(standing)) => standing,
            other => panic!("{other:?}"),
        }
    }

    fn store(&mut self) {
        self.queue.settle(self.seq);
    }

    /// Lets all happen that is due, with an instant store.
    fn run(&mut self) {
        loop {
            self.store();
            let mut events = Default::default();
            catch_up(&mut self.queue, &mut self.seq, self.now, &mut events);
            if events.is_empty() {
                return;
            }
        }
    }

    fn pass(&mut self, seconds: u32) {
        self.now = self.now.plus(Millis::from_secs(seconds));
        self.run();
    }

    fn states(&mut self, numbers: std::ops::RangeInclusive<u32>) -> Vec<State> {
        numbers.map(|number| self.state(number).state).collect()
    }

    /// The process dies; what was decided up to now was stored.
    fn restart(&mut self) {
        let state = QueueState {
            queue: self.queue.row(),
            places: self.queue.place_rows().collect(),
        };
        self.queue = Queue::restore(Arc::clone(self.queue.plan()), state);
    }
}

fn cap(max_active: u32) -> QueuePolicy {
    QueuePolicy {
        max_active: Some(max_active),
        ..QueuePolicy::PLAIN
    }
}

#[test]
fn a_newcomer_waits_behind_all_others_and_joining_twice_moves_nobody() {
    let mut scene = Scene::new(cap(1));
    scene.now = Timestamp(OPENS.0 - 1);
    for number in 1..=3 {
        let (standing, new) = scene.join(number);
        assert!(new);
        assert_eq!(standing.number, Some(TicketNumber(number)));
        assert_eq!(standing.position, Some(number));
        assert_eq!(standing.state, State::PreQueue);
    }
    let (standing, new) = scene.join(2);
    assert!(!new);
    assert_eq!((standing.position, standing.waiting_behind), (Some(2), 1));
}

#[test]
fn a_pass_is_shown_only_once_its_admission_is_stored() {
    let mut scene = Scene::new(cap(1));
    scene.join(1);
    scene.store();
    assert_eq!(scene.state(1).state, State::Waiting);
    let events = step(
        &mut scene.queue,
        &mut scene.seq,
        scene.now,
        Command::Summary,
    )
    .events;
    assert!(events.is_empty(), "one admission at a time");
    scene.store();
    scene.now = scene.now.plus(Millis(250));
    let standing = scene.state(1);
    assert_eq!(standing.state, State::Admitted);
    assert_eq!(
        standing.pass_expires_at,
        Some(scene.now.plus(Millis::from_secs(600))),
        "its time begins when it can be used"
    );
}

#[test]
fn one_leaves_and_one_enters() {
    let mut scene = Scene::new(cap(2));
    for number in 1..=4 {
        scene.join(number);
    }
    scene.run();
    use State::{Admitted, Left, Waiting};
    assert_eq!(scene.states(1..=4), [Admitted, Admitted, Waiting, Waiting]);
    scene.ask(Command::Leave { user: user(1) }).unwrap();
    scene.run();
    assert_eq!(scene.states(1..=4), [Left, Admitted, Admitted, Waiting]);
    let at = scene.now;
    let purchased = |number| Command::Purchased {
        user: user(number),
        at,
    };
    scene.ask(purchased(2)).unwrap();
    scene.ask(purchased(2)).unwrap();
    scene.run();
    assert_eq!(scene.states(1..=4), [Left, Left, Admitted, Admitted]);
    // Who has bought comes back, and is then told of that purchase again.
    scene.ask(Command::Leave { user: user(3) }).unwrap();
    scene.now = scene.now.plus(Millis(5_000));
    scene.join(2);
    scene.run();
    scene.ask(purchased(2)).unwrap();
    scene.run();
    assert_eq!(scene.states(2..=2), [Admitted]);
}

#[test]
fn a_restart_in_the_middle_of_an_admission_admits_nobody_twice_and_skips_nobody() {
    let mut scene = Scene::new(cap(2));
    scene.now = Timestamp(OPENS.0 - 1);
    for number in 1..=5 {
        scene.join(number);
    }
    scene.now = OPENS;
    assert_eq!(scene.state(1).state, State::Waiting, "decided, not opened");
    scene.restart();
    scene.now = scene.now.plus(Millis(700));
    scene.run();
    use State::{Admitted, Waiting};
    assert_eq!(
        scene.states(1..=5),
        [Admitted, Admitted, Waiting, Waiting, Waiting]
    );
    assert_eq!(
        scene.state(1).pass_expires_at,
        Some(scene.now.plus(Millis::from_secs(600)))
    );
}

#[test]
fn the_amusement_park_lets_1000_in_at_once_and_then_3000_every_10_seconds() {
    let mut scene = Scene::new(Preset::AmusementPark.policy());
    scene.now = Timestamp(OPENS.0 - 1);
    for number in 1..=12_000 {
        scene.join(number);
    }
    scene.now = OPENS;
    scene.run();
    let active = |scene: &Scene| scene.queue.places.counts().active;
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
