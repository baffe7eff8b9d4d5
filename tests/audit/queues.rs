//! A queue that has gone through everything, and lies about one.

use super::tampered::broken;
use super::*;
use onsale::domain::ids::QueueTicketId;
use onsale::domain::queue::draw::{Digest, Seed};
use onsale::domain::queue::line::TicketNumber;
use onsale::domain::queue::policy::{Admit, Opening, QueuePolicy, Terms};
use onsale::domain::queue::{Claim, Command, Event, QueuePlan, SeatsLeft};

on_both_stores!(
    a_number_that_was_not_reserved_or_is_given_again_is_found,
    a_second_place_of_a_user_is_found,
    one_who_enters_before_those_who_were_passed_by_is_found,
    an_admission_beyond_the_cap_is_found,
    an_admission_beyond_the_window_is_found,
    a_draw_of_others_than_those_who_joined_is_found,
);

const POLICY: QueuePolicy = QueuePolicy {
    free_admission: 1,
    admit: Some(Admit {
        count: 2,
        every_seconds: 5,
    }),
    max_active: Some(4),
    active_ttl_seconds: 40,
    opening: Opening::Lottery,
    ..QueuePolicy::PLAIN
};

/// What a queue is told on loading.
const ALL_LEFT: Event = Event::SeatsTold(SeatsLeft {
    available: SEATS,
    held: 0,
});

fn after(seconds: u32) -> Timestamp {
    NOW.plus(Millis::from_secs(seconds))
}

pub(super) fn line(performance: PerformanceId, epoch: Epoch) -> Live<Queue> {
    let plan = QueuePlan {
        performance_id: performance,
        policy: POLICY,
        opens_at: after(60),
        closes_at: after(1_000_000),
        capacity: SEATS,
        places_max: 1_000,
        withdrawn: false,
    };
    let mut queue = Queue::new(Arc::new(plan));
    queue.apply(Seq(0), &ALL_LEFT);
    Live::new(queue, performance, epoch)
}

fn person(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

fn join(number: u128, claim: Option<u32>) -> Command {
    let ticket = QueueTicketId(Uuid::now_v7());
    Command::Join {
        user: person(number),
        ticket,
        claim: claim.map(|number| Claim {
            ticket,
            number: Some(TicketNumber(number)),
        }),
    }
}

impl World {
    async fn in_line(&mut self, now: Timestamp, command: Command) {
        self.line.run(now, command).unwrap();
        self.commit().await;
    }

    /// Lets happen what is due, each after the commit of the one before.
    async fn pass(&mut self, now: Timestamp) {
        for _ in 0..6 {
            self.in_line(now, Command::Summary).await;
        }
    }

    /// A draw, admissions, ends of all kinds, another life and numbers that
    /// were lost with the first.
    pub(super) async fn queue_up(&mut self) {
        self.in_line(NOW, Command::LotterySeed(Seed([5; 32]))).await;
        for number in 1..=6 {
            self.line.run(NOW, join(number, None)).unwrap();
        }
        self.in_line(NOW, Command::Leave { user: person(2) }).await;
        self.pass(after(60)).await;
        for number in 7..=9 {
            self.in_line(after(61), join(number, None)).await;
        }
        self.restart_line().await;
        // A number that the second life doesn't know.
        self.in_line(after(62), join(10, Some(20))).await;
        self.in_line(after(62), join(11, None)).await;
        self.pass(after(66)).await;
        let at = after(67);
        let inside = self.inside();
        for command in [
            Command::HoldMade {
                user: inside[0],
                at,
            },
            Command::Purchased {
                user: inside[1],
                at,
            },
            Command::Leave { user: inside[2] },
            Command::Pause,
            Command::Resume,
        ] {
            self.in_line(at, command).await;
        }
        for seconds in (70..200).step_by(5) {
            self.pass(after(seconds)).await;
        }
        // Below the last one admitted: enters next.
        self.in_line(after(201), join(12, Some(21))).await;
        self.in_line(after(201), Command::Drain(true)).await;
        self.pass(after(201)).await;
        for number in 13..=14 {
            self.in_line(after(202), join(number, Some(40 + number as u32)))
                .await;
        }
        self.in_line(after(202), Command::Pause).await;
        self.in_line(after(202), join(15, Some(22))).await;
    }

    /// Who has a pass.
    fn inside(&self) -> Vec<UserId> {
        let people = (1..=20).map(person);
        let has_pass = |user: &UserId| self.line.machine.pass_of(*user).is_some();
        people.filter(has_pass).collect()
    }

    async fn restart_line(&mut self) {
        let id = PerformanceId(self.line.entity.id);
        let loaded = self.store.load_queue(id, NOW).await.unwrap();
        let line = &mut self.line;
        line.machine = Queue::restore(Arc::clone(line.machine.plan()), loaded.state);
        (line.seq, line.stored) = (loaded.stamp.seq, loaded.stamp);
        line.machine.apply(line.seq, &ALL_LEFT);
        line.activation = Activation(line.activation.0 + 1);
        line.waiting = None;
    }

    pub(super) async fn with_one_who_is_next(place: Place) -> Self {
        let mut world = Self::new(place).await;
        world
            .in_line(NOW, Command::LotterySeed(Seed([5; 32])))
            .await;
        world.in_line(NOW, join(1, None)).await;
        // It opens and draws; when that is stored, there are passes.
        world.in_line(after(60), Command::Summary).await;
        world
    }

    /// What the machine of the queue would never decide.
    async fn lie(&mut self, event: &Event) {
        let line = &mut self.line;
        line.seq = line.seq.next();
        line.machine.apply(line.seq, event);
        let after = Stamp {
            epoch: line.epoch,
            activation: line.activation,
            seq: line.seq,
        };
        let mut lie = Contribution::new(line.entity, line.stored, after, NOW);
        lie.journalise(line.seq, NOW, event);
        line.machine.record(event, &mut lie);
        line.waiting = Some(lie);
        self.commit().await;
    }

    /// What the audit finds broken, which must be of I8 alone.
    async fn found(&self) -> Vec<&'static str> {
        let report = self.audit().await;
        assert_eq!(broken(&report), "I8", "{report}");
        let found = report.checks.iter().filter(|check| check.found > 0);
        found.map(|check| check.what).collect()
    }
}

fn admitted(late: &[u32], upto: u32, terms: Terms) -> Event {
    Event::Admitted {
        late: late.iter().copied().map(TicketNumber).collect(),
        upto: TicketNumber(upto),
        metered: 0,
        terms,
    }
}

fn joined(number: u128, as_number: u32) -> Event {
    Event::Joined {
        user: person(number),
        ticket: QueueTicketId(Uuid::now_v7()),
        number: Some(TicketNumber(as_number)),
        at: NOW,
    }
}

const NUMBERS: &str = "a number of a queue is given once, from those reserved, in turn";
const ORDER: &str = "nobody enters before one who waits with a lower number";
const CAP: &str = "no more are inside a queue than the policy of the admission allows";
const WINDOW: &str = "no more enter a queue within a window than the policy allows";
const PLACE: &str = "a user has one place in a queue at a time";
const DRAW: &str = "a draw numbers its entrants by its seed";

async fn a_number_that_was_not_reserved_or_is_given_again_is_found(place: Place) {
    let mut world = World::busy(place).await;
    world.lie(&joined(30, 1_000_000)).await;
    assert!(world.found().await.contains(&NUMBERS));
    let mut world = World::busy(place).await;
    // That of somebody who was there for the draw; and the second barrier fails.
    world.sql("DELETE FROM queue_place WHERE number = 1").await;
    world.lie(&joined(30, 1)).await;
    assert!(world.found().await.contains(&NUMBERS));
}

async fn a_second_place_of_a_user_is_found(place: Place) {
    let mut world = World::busy(place).await;
    let next = world.line.machine.row().next.0;
    world.lie(&joined(13, next)).await;
    assert!(world.found().await.contains(&PLACE));
}

async fn one_who_enters_before_those_who_were_passed_by_is_found(place: Place) {
    let mut world = World::busy(place).await;
    // 15 came back with the number 22.
    let row = world.line.machine.row();
    assert!(row.admitted_up_to > TicketNumber(22), "{row:?}");
    world.lie(&admitted(&[], row.next.0, POLICY.terms())).await;
    assert!(world.found().await.contains(&ORDER));
}

async fn an_admission_beyond_the_cap_is_found(place: Place) {
    let mut world = World::busy(place).await;
    let row = world.line.machine.row();
    let terms = Terms {
        max_active: Some(0),
        ..POLICY.terms()
    };
    world.lie(&admitted(&[22], row.next.0, terms)).await;
    assert!(world.found().await.contains(&CAP));
}

async fn an_admission_beyond_the_window_is_found(place: Place) {
    let mut world = World::busy(place).await;
    let next = world.line.machine.row().next.0;
    let terms = Terms {
        admit: Some(Admit {
            count: 0,
            every_seconds: 5,
        }),
        ..POLICY.terms()
    };
    world.lie(&admitted(&[22], next, terms)).await;
    let opened = Event::Opened {
        at: after(203),
        expires_at: after(140),
    };
    world.lie(&opened).await;
    assert!(world.found().await.contains(&WINDOW));
}

async fn a_draw_of_others_than_those_who_joined_is_found(place: Place) {
    let mut world = World::new(place).await;
    world
        .in_line(NOW, Command::LotterySeed(Seed([5; 32])))
        .await;
    world.in_line(NOW, join(1, None)).await;
    let upto = TicketNumber(9);
    world.lie(&Event::Reserved { upto }).await;
    let drawn = Event::Drawn {
        at: NOW,
        first: TicketNumber(1),
        entrants: 1,
        entrants_hash: Digest([1; 32]),
    };
    world.lie(&drawn).await;
    assert_eq!(world.found().await, [DRAW]);
}
