//! The write lanes on Postgres: how many rows a second they commit of a sale
//! that goes as fast as they take it, against a loop that inserts the very same
//! rows of the same tables, and does nothing else.
//!
//! What the lanes do besides: they fence, move versions on, let rows of an
//! entity coalesce, and tell each entity what became of it. Here each order is
//! the charge of a new account (four rows), and a seat sold by one of the
//! timetables (three rows, and two a contribution).
//!
//! `cargo bench --bench lanes`; run it while nothing else builds or runs.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench prints figures, and ends at the first surprise"
)]

mod raw;
#[path = "../domain/scene.rs"]
mod scene;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use onsale::actors::lane::{Decided, Sink};
use onsale::actors::lanes::{Lanes, Options};
use onsale::config;
use onsale::domain::account::{self, Account};
use onsale::domain::decision::{Machine, Tier, step};
use onsale::domain::ids::{
    Activation, EntityId, Epoch, HoldId, OrderId, PaymentId, Seq, Stamp, TimetableId, UserId,
    with_shard,
};
use onsale::domain::order::Method;
use onsale::domain::plan::Plan;
use onsale::domain::seat::SeatIndex;
use onsale::domain::timetable::{self, Choice, Timetable};
use onsale::persistence::Store;
use onsale::persistence::batch::{Contribution, Persisted};
use support::ground;
use support::services::Services;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much of the raw loop is left, at least.
const AIM: f64 = 0.5;
/// Timetables that sell at once.
const TIMETABLES: usize = 64;
/// So much may wait in the lanes: enough for full batches, as under load.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// How long a submitter waits for room.
const PAUSE: Duration = Duration::from_millis(1);

fn main() {
    // As the server: a thread a processor.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let services = Services::start(&["postgres"]);
    println!(
        "{} processors; PostgreSQL, fsync={}, synchronous_commit={}",
        std::thread::available_parallelism().unwrap(),
        raw::setting(&services.postgres_url(), "fsync").await,
        raw::setting(&services.postgres_url(), "synchronous_commit").await,
    );
    support::print_fsync(services.folder());
    let length = Duration::from_secs_f64(support::run_seconds());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..support::RUNS {
        let (from, to) = (
            ground::new_database(&services).await,
            ground::new_database(&services).await,
        );
        let settings = config::Store::at(&from);
        let took = by_lanes(&settings, length).await;
        // The same tables.
        let empty = Store::open(&config::Store::at(&to)).await.unwrap();
        empty.close().await;
        let tables = raw::read(&from).await;
        let rows: usize = tables.iter().map(raw::Table::rows).sum();
        ours.push(rows as f64 / took.as_secs_f64());
        let took = raw::insert(&to, tables, settings.lanes()).await;
        theirs.push(rows as f64 / took.as_secs_f64());
        println!("({rows} rows)");
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let lanes = config::Store::at("postgres://").lanes();
    println!("write lanes, {lanes} of them: {ours:.0} rows/s");
    println!("peer: UNNEST loop, {lanes} connections: {theirs:.0} rows/s");
    println!(
        "write lanes: {:.2} × the peer (aim: at least {AIM})",
        ours / theirs
    );
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Who waits for what was decided.
#[derive(Default)]
struct Waiting {
    durable: AtomicU64,
}

impl Sink for Waiting {
    fn durable(&self, _: EntityId, _: Activation, tier: Tier, _: Seq) {
        assert_eq!(tier, Tier::Database);
        self.durable.fetch_add(1, Ordering::Relaxed);
    }

    fn lost(&self, entity: EntityId, _: Activation) {
        panic!("{entity:?} was refused");
    }

    fn rebase(&self, _: EntityId, _: Activation) {}
}

/// An entity with its version, as its actor would have it.
struct Live<M> {
    machine: M,
    entity: EntityId,
    epoch: Epoch,
    seq: Seq,
    submitted: Stamp,
    events: u64,
}

impl<M: Persisted<Refusal: std::fmt::Debug>> Live<M> {
    fn new(machine: M, entity: impl Into<EntityId>, epoch: Epoch) -> Self {
        Self {
            machine,
            entity: entity.into(),
            epoch,
            seq: Seq::default(),
            submitted: Stamp::default(),
            events: 0,
        }
    }

    /// Decides, and hands over what changed; somebody waits for it.
    fn run(&mut self, lanes: &Lanes, sink: &Arc<dyn Sink>, command: M::Command) {
        let before = self.seq;
        let done = step(&mut self.machine, &mut self.seq, scene::NOW, command);
        if let Err(refusal) = &done.outcome {
            panic!("{refusal:?}");
        }
        if self.seq == before {
            return;
        }
        let after = Stamp {
            epoch: self.epoch,
            activation: Activation(1),
            seq: self.seq,
        };
        let decided = Decided {
            entity: self.entity,
            before: self.submitted,
            after,
            at: scene::NOW,
            urgent: true,
        };
        let (machine, numbers) = (&self.machine, &mut self.events);
        let record = |into: &mut Contribution| {
            for (seq, event) in done.events.iter().filter(|(_, event)| M::is_durable(event)) {
                into.journalise(*seq, scene::NOW, event);
                let published = into.outbox.len();
                machine.record(event, into);
                for row in into.outbox.iter_mut().skip(published) {
                    *numbers += 1;
                    row.event_seq = *numbers;
                }
            }
        };
        lanes
            .of(self.entity.shard())
            .lane
            .submit(decided, sink, record);
        self.submitted = after;
    }
}

/// Sells for `length` and writes all of it; returns how long both took.
async fn by_lanes(settings: &config::Store, length: Duration) -> Duration {
    let store = Store::open(settings).await.unwrap();
    let claim = store
        .claim_all_shards("bench".to_owned(), String::new(), scene::NOW)
        .await
        .unwrap();
    let options = Options {
        lanes: settings.lanes(),
        batch_rows_max: settings.batch_rows_max as usize,
        dirty_bytes_max: usize::try_from(settings.dirty_bytes_max).unwrap(),
    };
    let lanes = Lanes::start(&store, None, options, &Arc::new(Notify::new()));
    let sink: Arc<dyn Sink> = Arc::new(Waiting::default());
    let plan = scene::plan(scene::grid(10, 50, 100));
    let mut shows: Vec<Live<Timetable>> = (0..TIMETABLES)
        .map(|_| {
            let id = TimetableId(Uuid::now_v7());
            let plan = Plan {
                timetable_id: id,
                ..(*plan).clone()
            };
            Live::new(Timetable::new(Arc::new(plan)), id, claim.epoch)
        })
        .collect();
    let begun = Instant::now();
    for number in 0.. {
        if begun.elapsed() >= length {
            break;
        }
        let show = number % TIMETABLES;
        let seat = u32::try_from(number / TIMETABLES).unwrap();
        sell(&lanes, &sink, &mut shows[show], seat, claim.epoch);
        while lanes.dirty_bytes() > WAITING_BYTES_MAX {
            tokio::time::sleep(PAUSE).await;
        }
    }
    lanes.drained().await;
    let took = begun.elapsed();
    store.close().await;
    took
}

/// A new account is charged, and buys a seat.
fn sell(lanes: &Lanes, sink: &Arc<dyn Sink>, show: &mut Live<Timetable>, seat: u32, epoch: Epoch) {
    let user = UserId(Uuid::now_v7());
    let mut account = Live::new(Account::default(), user, epoch);
    let of = |entity: EntityId| with_shard(Uuid::now_v7(), entity.shard());
    let charge = account::Command::Charge {
        id: of(account.entity),
        amount: scene::PRICE,
        key: None,
    };
    account.run(lanes, sink, charge);
    let (hold, order) = (HoldId(of(show.entity)), OrderId(of(show.entity)));
    let commands = [
        timetable::Command::Hold {
            hold,
            user,
            choice: Choice::Seats {
                seats: [SeatIndex(seat)].into_iter().collect(),
                unknown: Vec::new(),
            },
            under_pass: false,
        },
        timetable::Command::OpenOrder {
            order,
            payment: PaymentId(of(show.entity)),
            hold,
            user,
            method: Method::Wallet,
        },
        timetable::Command::Sell {
            order,
            coupon: None,
        },
    ];
    for command in commands {
        show.run(lanes, sink, command);
    }
    // As its actor does once it is told.
    show.machine.settle(show.seq);
}
