//! The promises of the waiting room, one by one. `model` checks I8 at random.

mod checked;
mod fairness;
mod foretold;
mod lottery;
mod model;
mod presets;
mod reveals;

use uuid::Uuid;

use super::policy::{Preset, QueuePolicy};
use super::restore::QueueState;
use super::*;
use crate::domain::decision::{catch_up, catch_up_partly, step};
use crate::domain::ids::PerformanceId;
use crate::domain::time::Millis;

const OPENS: Timestamp = Timestamp(1_000_000);
const CLOSES: Timestamp = Timestamp(900_000_000);

/// What is left of the seats, where that isn't what it is about.
const PLENTY: SeatsLeft = SeatsLeft {
    available: 1_000,
    held: 0,
};

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
        Self::of(plan(policy))
    }

    fn of(plan: QueuePlan) -> Self {
        let mut queue = Queue::new(Arc::new(plan));
        queue.apply(Seq(0), &Event::SeatsTold(PLENTY));
        Self {
            queue,
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
        self.queue.apply(self.seq, &Event::SeatsTold(PLENTY));
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
fn a_lost_place_comes_back_with_its_number_and_one_that_was_used_does_not() {
    let mut scene = Scene::new(cap(1));
    for number in 1..=3 {
        scene.join(number);
    }
    scene.run();
    let stored = QueueState {
        queue: scene.queue.row(),
        places: scene.queue.place_rows().collect(),
    };
    // Two more, lost with the memory.
    scene.join(4);
    scene.join(5);
    let claims: Vec<Claim> = (1..=5)
        .map(|number| {
            let standing = scene.state(number);
            Claim {
                ticket: standing.ticket,
                number: standing.number,
            }
        })
        .collect();
    scene.queue = Queue::restore(Arc::clone(scene.queue.plan()), stored);
    let (newcomer, _) = scene.join(6);
    assert!(
        newcomer.number > claims[4].number,
        "no number is given twice"
    );
    let state = |scene: &mut Scene, number: u32| {
        let claim = Some(claims[number as usize - 1]);
        match scene.ask(Command::State {
            user: user(number),
            claim,
        }) {
            Ok(Reply::Standing(standing)) => standing,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(state(&mut scene, 5).number, claims[4].number);
    assert_eq!(state(&mut scene, 4).number, claims[3].number);
    // The first leaves; its ticket is of no use any more.
    scene.ask(Command::Leave { user: user(1) }).unwrap();
    scene.pass(700);
    assert_eq!(state(&mut scene, 1).state, State::Left);
    scene.tickets += 1;
    let again = Command::Join {
        user: user(1),
        ticket: ticket(99),
        claim: Some(claims[0]),
    };
    let Ok(Reply::Joined { standing, new }) = scene.ask(again) else {
        panic!("anyone may join again");
    };
    assert!(new && standing.number > newcomer.number, "at the tail");
}

#[test]
fn a_queue_that_comes_back_with_people_has_numbers_before_somebody_joins() {
    let mut scene = Scene::new(cap(1));
    scene.run();
    assert_eq!(scene.queue.row().reserved_upto, TicketNumber(0));
    scene.join(1);
    scene.run();
    scene.restart();
    let next = scene.queue.next;
    scene.run();
    assert!(scene.queue.reserved_durably >= next);
    let (standing, _) = scene.join(2);
    let outcome = Ok(Reply::Joined {
        standing,
        new: true,
    });
    assert_eq!(scene.queue.reveals(&outcome), Tier::Memory);
}

#[test]
fn nobody_enters_until_it_is_known_what_is_left() {
    let mut scene = Scene::new(cap(1));
    scene.join(1);
    scene.queue = Queue::restore(
        Arc::clone(scene.queue.plan()),
        QueueState {
            queue: scene.queue.row(),
            places: scene.queue.place_rows().collect(),
        },
    );
    scene.pass(60);
    assert_eq!(scene.state(1).state, State::Waiting, "nothing is known");
    let nothing = SeatsLeft::default();
    scene.ask(Command::Seats(nothing)).unwrap();
    scene.pass(60);
    assert_eq!(scene.state(1).state, State::Closed);
    scene.ask(Command::Seats(PLENTY)).unwrap();
    scene.run();
    assert_eq!(scene.state(1).state, State::Admitted);
}

#[test]
fn a_queue_is_unloaded_while_nobody_is_in_it_and_once_its_sale_is_over() {
    let mut scene = Scene::new(cap(1));
    scene.run();
    assert!(scene.queue.is_idle());
    scene.join(1);
    scene.join(2);
    scene.run();
    assert!(!scene.queue.is_idle());
    scene.now = CLOSES;
    scene.run();
    assert_eq!(scene.state(2).state, State::Closed);
    assert!(scene.queue.is_idle());
}

#[test]
fn a_queue_is_full_or_closed_by_what_is_left_and_reopens_with_every_place_kept() {
    let mut scene = Scene::new(QueuePolicy {
        max_waiting_per_seat: Some(2),
        ..cap(1)
    });
    let seats = |available, held| Command::Seats(SeatsLeft { available, held });
    scene.ask(seats(1, 0)).unwrap();
    for number in 1..=3 {
        scene.join(number);
        scene.run();
    }
    let join = |scene: &mut Scene| {
        scene.ask(Command::Join {
            user: user(9),
            ticket: ticket(9),
            claim: None,
        })
    };
    assert_eq!(join(&mut scene), Err(Refusal::QueueFull));
    scene.ask(seats(0, 0)).unwrap();
    scene.run();
    assert_eq!(join(&mut scene), Err(Refusal::QueueClosed));
    assert_eq!(scene.state(2).state, State::Closed);
    assert_eq!(scene.state(1).state, State::Admitted, "who is inside stays");
    scene.ask(seats(0, 2)).unwrap();
    scene.run();
    let standing = scene.state(2);
    assert_eq!(standing.state, State::Waiting);
    assert_eq!(standing.number, Some(TicketNumber(2)));
}

#[test]
fn who_gives_no_sign_of_life_is_out_and_who_polls_is_not() {
    let mut scene = Scene::new(QueuePolicy {
        waiting_ttl_seconds: Some(60),
        ..cap(1)
    });
    for number in 1..=3 {
        scene.join(number);
    }
    scene.run();
    for _ in 0..4 {
        scene.pass(20);
        scene.state(3);
    }
    assert_eq!(scene.state(2).state, State::Expired);
    assert_eq!(scene.state(3).position, Some(1), "it moved up");
}

#[test]
fn a_copy_of_the_line_follows_the_owners_or_asks_for_a_snapshot() {
    let mut scene = Scene::new(cap(3));
    let mut copy = line::Line::from(scene.queue.line().snapshot());
    for number in 1..=2_000 {
        scene.join(number);
    }
    for number in (500..1_500).step_by(3) {
        scene.ask(Command::Leave { user: user(number) }).unwrap();
    }
    scene.run();
    let delta = scene.queue.take_delta().unwrap();
    copy.follow(&delta).unwrap();
    for number in 1..=2_000 {
        let number = TicketNumber(number);
        assert_eq!(copy.position(number), scene.queue.line().position(number));
        assert_eq!(copy.behind(number), scene.queue.line().behind(number));
    }
    assert_eq!(scene.state(1_401).position, Some(1_401 - 3 - 301));
    assert!(copy.follow(&delta).is_err(), "it has been applied");
    assert_eq!(copy, line::Line::from(scene.queue.line().snapshot()));
}

#[test]
fn who_enters_at_once_is_told_so_and_asks_again_soon() {
    let mut scene = Scene::new(cap(2));
    for number in 1..=3 {
        scene.join(number);
    }
    let of = |scene: &Scene, position| scene.queue.wait_at(scene.now, position);
    assert_eq!(of(&scene, 2), Some(0), "there is room for two");
    let third = of(&scene, 3).unwrap();
    assert!(third > 0);
    scene.run();
    assert!(of(&scene, 1).unwrap() > 0, "they are inside");
}

#[test]
fn all_that_is_due_after_an_outage_can_be_taken_in_parts() {
    let mut scene = Scene::new(cap(1_000));
    for number in 1..=1_000 {
        scene.join(number);
    }
    scene.run();
    assert_eq!(scene.queue.summary(scene.now).active, 1_000);
    // While the server was down, all passes have ended.
    let ttl = scene.queue.plan().policy.active_ttl_seconds;
    scene.restart();
    scene.now = scene.now.plus(Millis::from_secs(ttl));
    let (mut parts, mut ended) = (0, 0);
    loop {
        let (seq, mut events) = (&mut scene.seq, Default::default());
        let goes_on = catch_up_partly(&mut scene.queue, seq, scene.now, &mut events, 300);
        let is_end = |event: &&(Seq, Event)| matches!(event.1, Event::Ended { .. });
        ended += events.iter().filter(is_end).count();
        // The last decision may have more than there was room for.
        assert!(events.len() <= 2 * 300, "{}", events.len());
        parts += 1;
        if !goes_on {
            break;
        }
    }
    assert!(parts > 2, "{parts}");
    assert_eq!((ended, scene.queue.summary(scene.now).active), (1_000, 0));
}
