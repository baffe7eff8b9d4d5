//! I8 at random: joins, leaves, expiries, renewals, pauses, other policies,
//! a slow store and crashes, checked against what the clients were told.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::domain::queue::policy::Admit;
use crate::domain::queue::restore::{PlaceRow, PlaceState, QueueRow};

const USERS: u32 = 10;

#[derive(Clone, Copy, Debug)]
enum Op {
    /// With the ticket that the user has, or without.
    Join(u32, bool),
    Look(u32, bool),
    Leave(u32),
    Purchased(u32),
    HoldMade(u32),
    Extend(u32, bool),
    Pause(bool),
    Drain(bool),
    Seats(SeatsLeft),
    Replan(usize),
    Wait(i64),
    /// The store takes all but so many of the last decisions.
    Store(u64),
    /// The process dies; what the checkpoint has of joins and leaves survives
    /// (`true`), or not.
    Crash(bool),
}

fn policies() -> [QueuePolicy; 5] {
    let admit = |count, every_seconds| {
        Some(Admit {
            count,
            every_seconds,
        })
    };
    let plain = QueuePolicy {
        active_ttl_seconds: 7,
        extend_on_hold_seconds: 5,
        ..QueuePolicy::PLAIN
    };
    [
        QueuePolicy {
            admit: admit(2, 3),
            ..plain
        },
        QueuePolicy {
            max_active: Some(2),
            ..plain
        },
        QueuePolicy {
            free_admission: 3,
            admit: admit(1, 2),
            max_active: Some(3),
            waiting_ttl_seconds: Some(4),
            ..plain
        },
        QueuePolicy {
            max_active: Some(1),
            leave_on_purchase: false,
            extend_on_hold_seconds: 0,
            ..plain
        },
        QueuePolicy {
            admit: admit(3, 1),
            max_active: Some(4),
            ..plain
        },
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let user = || 1..=USERS;
    prop_oneof![
        8 => (user(), any::<bool>()).prop_map(|(user, ticket)| Op::Join(user, ticket)),
        3 => (user(), any::<bool>()).prop_map(|(user, ticket)| Op::Look(user, ticket)),
        2 => user().prop_map(Op::Leave),
        1 => user().prop_map(Op::Purchased),
        1 => user().prop_map(Op::HoldMade),
        1 => (user(), any::<bool>()).prop_map(|(user, hold)| Op::Extend(user, hold)),
        1 => any::<bool>().prop_map(Op::Pause),
        1 => prop_oneof![9 => Just(false), 1 => Just(true)].prop_map(Op::Drain),
        1 => (0..3u32, 0..2u32)
            .prop_map(|(available, held)| Op::Seats(SeatsLeft { available, held })),
        1 => (0..policies().len()).prop_map(Op::Replan),
        6 => (1..2_500i64).prop_map(Op::Wait),
        8 => prop_oneof![3 => Just(0), 1 => 1..4u64].prop_map(Op::Store),
        2 => any::<bool>().prop_map(Op::Crash),
    ]
}

/// An answer, and which one in the order in which they were made.
type Told = (usize, Standing);

/// A pass that a client was given.
#[derive(Clone, Debug)]
struct Pass {
    user: u32,
    until: Timestamp,
}

/// The queue, its store, and what the clients know.
struct World {
    scene: Scene,
    /// What the store has.
    stored: (QueueRow, HashMap<QueueTicketId, PlaceRow>),
    settled: Seq,
    /// What it doesn't have yet.
    writing: Vec<(Seq, restore::RowChanges, bool)>,
    /// Answers that wait for the store.
    parked: Vec<(Seq, u32, Told)>,
    tickets: HashMap<u32, Claim>,
    /// Whose each number is.
    owners: HashMap<TicketNumber, u32>,
    /// What was told last of each, by when it was so.
    positions: HashMap<TicketNumber, (usize, u32)>,
    /// How many answers were made.
    answers: usize,
    passes: BTreeMap<TicketNumber, Pass>,
    /// Who entered when, metered, since the policy is as it is.
    entered: Vec<(Seq, Timestamp, TicketNumber)>,
    /// Who was admitted by an earlier policy, and enters by it.
    earlier: Vec<TicketNumber>,
}

impl World {
    fn new() -> Self {
        let mut scene = Scene::new(policies()[0]);
        scene.now = Timestamp(OPENS.0 - 2_000);
        Self {
            scene,
            stored: (QueueRow::default(), HashMap::new()),
            settled: Seq(0),
            writing: Vec::new(),
            parked: Vec::new(),
            tickets: HashMap::new(),
            owners: HashMap::new(),
            positions: HashMap::new(),
            answers: 0,
            passes: BTreeMap::new(),
            entered: Vec::new(),
            earlier: Vec::new(),
        }
    }

    fn policy(&self) -> QueuePolicy {
        self.scene.queue.plan().policy
    }

    fn ask(&mut self, command: Command) -> Result<Reply, Refusal> {
        let before = self.waiting();
        let is_join = matches!(command, Command::Join { .. } | Command::Leave { .. });
        let now = self.scene.now;
        let result = step(&mut self.scene.queue, &mut self.scene.seq, now, command);
        for (at, (seq, event)) in result.events.iter().enumerate() {
            self.witness(*seq, event, &before);
            let is_last = at + 1 == result.events.len();
            if Queue::is_durable(event) {
                let changes = self.scene.queue.changes(event);
                self.writing.push((*seq, changes, is_join && is_last));
            }
        }
        self.check_deadline();
        result.outcome
    }

    /// Who waits, by number.
    fn waiting(&self) -> Vec<TicketNumber> {
        let rows = self.scene.queue.place_rows();
        let waiting = rows.filter(|row| row.state == PlaceState::Waiting);
        let mut numbers: Vec<_> = waiting.filter_map(|row| row.number).collect();
        numbers.sort_unstable();
        numbers
    }

    fn witness(&mut self, seq: Seq, event: &Event, waiting: &[TicketNumber]) {
        let policy = self.policy();
        match event {
            Event::Joined {
                number: Some(number),
                user: id,
                ..
            } => {
                let user = (1..=USERS).find(|number| user(*number) == *id).unwrap();
                let owner = self.owners.get(number);
                assert!(
                    owner.is_none_or(|owner| *owner == user),
                    "{number:?} is {owner:?}'s"
                );
            }
            Event::Admitted { .. } => {
                let batch = self.scene.queue.batch.iter();
                let numbers = batch.flat_map(|batch| batch.places.iter().map(|(_, n)| *n));
                let highest = numbers.max().unwrap_or_default();
                let still = self.waiting();
                let skipped = waiting
                    .iter()
                    .find(|number| **number < highest && still.contains(number));
                assert_eq!(skipped, None, "overtaken by {highest:?}");
                let active = self.scene.queue.places.counts().active;
                let most = policy.max_active.unwrap_or(u32::MAX);
                assert!(active <= most, "{active} are inside, of {most}");
            }
            Event::Opened { at, expires_at } => self.witness_opened(seq, *at, *expires_at),
            _ => {}
        }
    }

    fn witness_opened(&mut self, seq: Seq, at: Timestamp, expires_at: Timestamp) {
        let policy = self.policy();
        let opened = self.scene.queue.changes(&Event::Opened { at, expires_at });
        for row in &opened.places {
            let number = row.number.unwrap();
            let PlaceState::Active { .. } = row.state else {
                continue;
            };
            let is_metered = policy.admit.is_some() && number.0 > policy.free_admission;
            if is_metered && !self.earlier.contains(&number) {
                self.entered.push((seq, at, number));
            }
        }
        let numbers: Vec<_> = opened.places.iter().filter_map(|row| row.number).collect();
        let by_this_policy =
            !numbers.is_empty() && !numbers.iter().any(|number| self.earlier.contains(number));
        if let Some(most) = policy.max_active.filter(|_| by_this_policy) {
            let others = self.passes.iter();
            let others =
                others.filter(|(number, pass)| pass.until > at && !numbers.contains(number));
            let inside = others.count() + numbers.len();
            assert!(inside <= most as usize, "{inside} have passes, of {most}");
        }
        if let Some(admit) = policy.admit {
            let since = Timestamp(at.0 - i64::from(admit.every_seconds) * 1_000);
            let mut within: Vec<_> = self
                .entered
                .iter()
                .filter(|(_, at, _)| *at > since)
                .map(|(.., number)| *number)
                .collect();
            within.sort_unstable();
            within.dedup();
            assert!(
                within.len() <= admit.count as usize,
                "{within:?} within the window"
            );
        }
    }

    /// It is due then, and not before.
    fn check_deadline(&self) {
        let (queue, now) = (&self.scene.queue, self.scene.now);
        match queue.next_deadline() {
            Some(at) => {
                assert!(
                    !queue.due(at.max(now)).is_empty(),
                    "nothing is due at {at:?}"
                );
                if at > now {
                    assert!(
                        queue.due(Timestamp(at.0 - 1)).is_empty(),
                        "due before {at:?}"
                    );
                }
            }
            None => assert!(queue.due(now.plus(Millis(3_600_000))).is_empty()),
        }
    }

    /// An answer reaches its client when it may.
    fn answer(&mut self, user: u32, outcome: Result<Reply, Refusal>) {
        let tier = self.scene.queue.reveals(&outcome);
        let standing = match outcome {
            Ok(Reply::Joined { standing, .. } | Reply::Standing(standing)) => standing,
            Ok(_) | Err(_) => return,
        };
        self.park(user, standing, tier == Tier::Database);
    }

    fn park(&mut self, user: u32, standing: Standing, waits: bool) {
        self.answers += 1;
        let told = (self.answers, standing);
        if waits && self.scene.seq > self.settled {
            self.parked.push((self.scene.seq, user, told));
        } else {
            self.told(user, &told);
        }
    }

    fn told(&mut self, user: u32, (made, standing): &Told) {
        let number = standing.number.unwrap();
        let owner = *self.owners.entry(number).or_insert(user);
        assert_eq!(owner, user, "{number:?} is somebody else's");
        self.tickets.insert(
            user,
            Claim {
                ticket: standing.ticket,
                number: Some(number),
            },
        );
        if let Some(position) = standing.position {
            let (last, before) = *self.positions.entry(number).or_insert((*made, position));
            let grew = if last < *made {
                position > before
            } else {
                before > position
            };
            assert!(!grew, "{number:?} was at {before}, is at {position}");
            if last < *made {
                self.positions.insert(number, (*made, position));
            }
        }
        let mut revoked = self.scene.queue.revoked().since(0);
        // An answer that comes after its pass was given up is of no use.
        let is_revoked = revoked.any(|revoked| revoked.number == number);
        if let Some(until) = standing.pass_expires_at.filter(|_| !is_revoked) {
            self.passes.insert(number, Pass { user, until });
            let now = self.scene.now;
            self.passes.retain(|_, pass| pass.until > now);
        }
    }

    fn gone(&mut self, user: u32) {
        self.passes.retain(|_, pass| pass.user != user);
    }

    fn store(&mut self, all_but: u64) {
        let upto = Seq(self.scene.seq.0.saturating_sub(all_but)).max(self.settled);
        self.settled = upto;
        let (written, waits): (Vec<_>, Vec<_>) = std::mem::take(&mut self.writing)
            .into_iter()
            .partition(|(seq, ..)| *seq <= upto);
        self.writing = waits;
        for (_, changes, _) in written {
            if let Some(row) = changes.queue {
                self.stored.0 = row;
            }
            for row in changes.places {
                self.stored.1.insert(row.ticket, row);
            }
        }
        self.scene.queue.settle(upto);
        let (leave, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|(seq, ..)| *seq <= upto);
        self.parked = stay;
        for (_, user, told) in leave {
            self.told(user, &told);
        }
    }

    fn crash(&mut self, has_checkpoint: bool) {
        let state = QueueState {
            queue: self.stored.0.clone(),
            places: self.stored.1.values().copied().collect(),
        };
        let plan = Arc::clone(self.scene.queue.plan());
        self.scene.queue = Queue::restore(plan, state);
        self.scene.seq = self.settled;
        // As it is on loading.
        let seats = Event::SeatsTold(PLENTY);
        self.scene.queue.apply(self.scene.seq, &seats);
        self.parked.clear();
        // Nobody was told of a pass that wasn't stored.
        self.entered.retain(|(seq, ..)| *seq <= self.settled);
        let lost = std::mem::take(&mut self.writing);
        if has_checkpoint {
            let fast = lost.iter().filter(|(.., is_join)| *is_join);
            let rows: Vec<PlaceRow> = fast
                .flat_map(|(_, changes, _)| changes.places.clone())
                .collect();
            let events = self.scene.queue.recover(&rows);
            self.scene.seq = self.scene.seq.next();
            for event in &events {
                self.scene.queue.apply(self.scene.seq, event);
            }
            for event in &events {
                let changes = self.scene.queue.changes(event);
                self.writing.push((self.scene.seq, changes, true));
            }
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Join(number, with_ticket) => {
                let claim = self.tickets.get(&number).copied().filter(|_| with_ticket);
                self.scene.tickets += 1;
                let join = Command::Join {
                    user: user(number),
                    ticket: ticket(self.scene.tickets),
                    claim,
                };
                let outcome = self.ask(join);
                self.answer(number, outcome);
            }
            Op::Look(number, with_ticket) => {
                let claim = self.tickets.get(&number).copied().filter(|_| with_ticket);
                let outcome = self.ask(Command::State {
                    user: user(number),
                    claim,
                });
                self.answer(number, outcome);
            }
            Op::Leave(number) => {
                let _ = self.ask(Command::Leave { user: user(number) });
                self.gone(number);
            }
            Op::Purchased(number) => {
                let ends = self.policy().leave_on_purchase;
                let at = self.scene.now;
                let _ = self.ask(Command::Purchased {
                    user: user(number),
                    at,
                });
                if ends {
                    self.gone(number);
                }
            }
            Op::HoldMade(number) => {
                let at = self.scene.now;
                let _ = self.ask(Command::HoldMade {
                    user: user(number),
                    at,
                });
            }
            Op::Extend(number, has_hold) => {
                let outcome = self.ask(Command::Extend {
                    user: user(number),
                    has_hold,
                });
                // Its tier is the database's whatever it shows.
                if let Ok(Reply::Standing(standing)) = outcome {
                    self.park(number, standing, true);
                }
            }
            Op::Pause(true) => drop(self.ask(Command::Pause)),
            Op::Pause(false) => drop(self.ask(Command::Resume)),
            Op::Drain(draining) => drop(self.ask(Command::Drain(draining))),
            Op::Seats(seats) => drop(self.ask(Command::Seats(seats))),
            Op::Replan(at) => {
                self.entered.clear();
                let rows = self.scene.queue.place_rows();
                let admitted = rows.filter(|row| row.state != PlaceState::Waiting);
                self.earlier.extend(admitted.filter_map(|row| row.number));
                self.scene.queue.replan(Arc::new(plan(policies()[at])));
            }
            Op::Wait(length) => {
                self.scene.now = self.scene.now.plus(Millis(length));
                let _ = self.ask(Command::Summary);
            }
            Op::Store(all_but) => {
                self.store(all_but);
                self.check_deadline();
                let _ = self.ask(Command::Summary);
            }
            Op::Crash(has_checkpoint) => self.crash(has_checkpoint),
        }
    }

    /// Everybody who waits enters in the end, in order.
    fn drain(&mut self) {
        self.run(Op::Replan(1));
        self.run(Op::Pause(false));
        self.run(Op::Seats(SeatsLeft {
            available: 9,
            held: 0,
        }));
        for _ in 0..200 {
            self.run(Op::Wait(1_000));
            self.run(Op::Store(0));
        }
        assert_eq!(self.waiting(), [], "somebody was forgotten");
    }
}

proptest! {
    #[test]
    fn admission_is_in_order_within_the_policy_whatever_happens(
        ops in proptest::collection::vec(op(), 1..150)
    ) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
        }
        world.drain();
    }
}
