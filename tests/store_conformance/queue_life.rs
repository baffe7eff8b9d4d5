//! A queue that lives at random, and comes back from the store as it was.

use std::sync::Arc;

use onsale::domain::decision::{Machine as _, catch_up, step};
use onsale::domain::ids::{Activation, Epoch, PerformanceId, QueueTicketId, Seq, Stamp, UserId};
use onsale::domain::queue::draw::Seed;
use onsale::domain::queue::line::TicketNumber;
use onsale::domain::queue::policy::{Admit, Opening, QueuePolicy};
use onsale::domain::queue::restore::{PlaceRow, PlaceState, QueueState};
use onsale::domain::queue::{Claim, Command, Event, Queue, QueuePlan, SeatsLeft};
use onsale::domain::time::{Millis, Timestamp};
use onsale::persistence::batch::{Contribution, Persisted as _};
use uuid::Uuid;

use crate::fixture::{Fixture, NOW};
use crate::random::Random;

on_every_store!(a_queue_comes_back_from_any_sequence_of_commands,);

/// A queue with its store, as the shell runs it.
struct Life {
    id: PerformanceId,
    queue: Queue,
    seq: Seq,
    stored: Stamp,
    epoch: Epoch,
    activation: Activation,
    waiting: Option<Contribution>,
    now: Timestamp,
}

const USERS: u64 = 24;

impl Life {
    fn after(&self) -> Stamp {
        Stamp {
            epoch: self.epoch,
            activation: self.activation,
            seq: self.seq,
        }
    }

    fn record(&mut self, events: &[(Seq, Event)]) {
        let durable = |event: &&(Seq, _)| Queue::is_durable(&event.1);
        if !events.iter().any(|event| durable(&event)) {
            return;
        }
        let (after, now) = (self.after(), self.now);
        let new = || Contribution::new(self.id.into(), self.stored, after, now);
        let into = self.waiting.get_or_insert_with(new);
        (into.after, into.at) = (after, now);
        for (seq, event) in events.iter().filter(durable) {
            into.journalise(*seq, now, event);
            self.queue.record(event, into);
        }
    }

    fn ask(&mut self, command: Command) {
        let done = step(&mut self.queue, &mut self.seq, self.now, command);
        self.record(&done.events);
    }

    fn run(&mut self) {
        let mut events = smallvec::SmallVec::new();
        catch_up(&mut self.queue, &mut self.seq, self.now, &mut events);
        self.record(&events);
    }

    async fn commit(&mut self, f: &Fixture) {
        if let Some(waiting) = self.waiting.take() {
            self.stored = waiting.after;
            f.write(vec![waiting]).await;
            self.queue.settle(self.seq);
        }
    }

    /// What is stored is the machine, up to what is volatile.
    async fn compare(&self, f: &Fixture, seed: u64) {
        let loaded = f.store.load_queue(self.id, self.now).await.unwrap();
        assert_eq!(loaded.stamp, self.stored, "seed {seed}");
        let (row, live) = (self.queue.row(), &self.queue);
        let back = Queue::restore(Arc::clone(live.plan()), loaded.state);
        let state = QueueState {
            queue: row.clone(),
            places: live.place_rows().collect(),
        };
        // Its own row, as another life would begin with it.
        let next_life = Queue::restore(Arc::clone(live.plan()), state);
        assert_eq!(back.row(), next_life.row(), "seed {seed}");
        for number in 0..USERS {
            let user = UserId(Uuid::from_u128(u128::from(number) + 1));
            let is = back.place_row(user);
            match live.place_row(user) {
                // It forgets who is long gone; who took part in a draw stays.
                None => {
                    let is_over = |row: PlaceRow| matches!(row.state, PlaceState::Ended { .. });
                    assert!(is.is_none_or(is_over), "user {number}, seed {seed}: {is:?}");
                }
                Some(was) if was.matters(&row, self.now) => {
                    assert_eq!(is, Some(was), "user {number}, seed {seed}");
                }
                Some(_) => {}
            }
        }
    }

    /// What a queue is told on loading.
    fn open(&mut self) {
        let left = SeatsLeft {
            available: 1_000,
            held: 0,
        };
        self.queue.apply(self.seq, &Event::SeatsTold(left));
    }

    /// The process dies, and another goes on.
    async fn restart(&mut self, f: &Fixture) {
        self.waiting = None;
        let loaded = f.store.load_queue(self.id, self.now).await.unwrap();
        self.queue = Queue::restore(Arc::clone(self.queue.plan()), loaded.state);
        (self.stored, self.seq) = (loaded.stamp, loaded.stamp.seq);
        self.activation = Activation(self.activation.0 + 1);
        self.open();
    }
}

fn random_command(random: &mut Random, life: &Life) -> Command {
    let user = UserId(Uuid::from_u128(u128::from(random.below(USERS)) + 1));
    // Of a place that may never have been, or is somebody's.
    let claim = (random.below(4) == 0).then(|| Claim {
        ticket: QueueTicketId(Uuid::now_v7()),
        number: Some(TicketNumber(1 + random.bits() as u32 % 12_000)),
    });
    match random.below(14) {
        0..5 => Command::Join {
            user,
            ticket: QueueTicketId(Uuid::now_v7()),
            claim,
        },
        5..7 => Command::State { user, claim },
        7..9 => Command::Leave { user },
        9 => Command::Purchased { user, at: life.now },
        10 => Command::HoldMade { user, at: life.now },
        11 => Command::Drain(random.below(4) == 0),
        12 if random.below(3) == 0 => Command::Pause,
        12 => Command::Resume,
        _ if life.queue.wants_seed() => Command::LotterySeed(Seed([7; 32])),
        _ => Command::Summary,
    }
}

async fn a_queue_comes_back_from_any_sequence_of_commands(f: &Fixture) {
    let seed = Random::fresh_seed();
    let mut random = Random::seeded(seed);
    for round in 0..6 {
        let opening = *random.pick(&[Opening::Fifo, Opening::Lottery]);
        let plan = QueuePlan {
            performance_id: PerformanceId(Uuid::now_v7()),
            policy: QueuePolicy {
                free_admission: 2,
                admit: (round < 3).then_some(Admit {
                    count: 3,
                    every_seconds: 5,
                }),
                max_active: Some(5),
                active_ttl_seconds: 40,
                extend_on_hold_seconds: 60,
                waiting_ttl_seconds: Some(90),
                opening,
                ..QueuePolicy::PLAIN
            },
            opens_at: NOW.plus(Millis(60_000)),
            closes_at: NOW.plus(Millis(100_000_000)),
            capacity: 1_000,
            // Now and then the oldest are forgotten.
            places_max: if round == 4 { 12 } else { 1_000 },
            withdrawn: false,
        };
        let mut life = Life {
            id: plan.performance_id,
            queue: Queue::new(Arc::new(plan)),
            seq: Seq(0),
            stored: Stamp::default(),
            epoch: f.epoch,
            activation: Activation(1),
            waiting: None,
            now: NOW,
        };
        life.open();
        life.ask(Command::LotterySeed(Seed([9; 32])));
        for _ in 0..250 {
            life.now = life
                .now
                .plus(Millis(random.below(1_500).try_into().unwrap()));
            if random.below(40) == 0 {
                life.now = life.now.plus(Millis::from_secs(300));
            }
            life.run();
            let command = random_command(&mut random, &life);
            life.ask(command);
            if random.below(3) == 0 {
                life.commit(f).await;
                life.compare(f, seed).await;
            }
            if random.below(30) == 0 {
                life.restart(f).await;
            }
        }
    }
}
