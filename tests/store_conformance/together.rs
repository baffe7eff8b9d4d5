//! What is written together, and what is tied: a sale to the money that was set
//! aside for it.

use std::collections::HashMap;
use std::sync::Arc;

use onsale::actors::lane::{Decided, Sink};
use onsale::actors::lanes::{Lanes, Options};
use onsale::domain::decision::Tier;
use onsale::domain::ids::{Activation, EntityId, Seq, Stamp, TimetableId, UserId};
use onsale::domain::money::Money;
use onsale::persistence::batch::{Contribution, Tie};
use onsale::persistence::store::commit::Verdict;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::fixture::{Fixture, NOW, event, order, timetable, user};

on_every_store!(
    what_is_written_together_is_written_whole_or_not_at_all,
    what_is_tied_is_written_with_what_it_is_tied_to,
    what_is_tied_to_a_fenced_write_is_lost_with_it_and_nothing_else_is,
    what_is_tied_to_a_refused_write_is_lost_with_it_and_nothing_else_is,
    what_is_tied_to_what_was_lost_before_is_lost,
);

fn sale(f: &Fixture, show: TimetableId, seq: u64, seat: u32) -> Contribution {
    let mut contribution = f.contribution(show.into(), seq);
    sell(&mut contribution, show, seat);
    contribution
}

fn sell(into: &mut Contribution, show: TimetableId, seat: u32) {
    let sold = Arc::new(order(show, user(), &[seat]));
    into.timetable().unwrap().orders.push(sold);
    into.outbox.push(event(u64::from(seat)));
}

async fn version(f: &Fixture, show: TimetableId) -> Seq {
    f.store.load_timetable(show).await.unwrap().stamp.seq
}

async fn what_is_written_together_is_written_whole_or_not_at_all(f: &Fixture) {
    let (ann, show) = (user(), timetable());
    let batch = Arc::new(vec![f.charge(ann, 1), sale(f, show, 0, 1)]);
    f.store.commit_together(Arc::clone(&batch)).await.unwrap();
    // Its answer was lost: what has become of it is for the commit to say.
    let _ = f.store.commit_together(Arc::clone(&batch)).await;
    assert_eq!(f.store.commit(batch).await.unwrap(), [Verdict::Written; 2]);
    assert_eq!(f.wallet(ann).await, (Money(1_000_000), 1));
    assert_eq!(version(f, show).await, Seq(1));

    // One of two doesn't follow; one of two is refused.
    let stray = f.charge(ann, 3);
    let mut debt = f.charge(user(), 1);
    debt.account().unwrap().balance = Some(Money(-1));
    for one in [stray, debt] {
        let batch = Arc::new(vec![one, sale(f, show, 1, 2)]);
        assert!(f.store.commit_together(batch).await.is_err());
        assert_eq!(version(f, show).await, Seq(1), "the other was written");
    }
    f.write(vec![f.charge(ann, 2), sale(f, show, 1, 2)]).await;
}

/// What became of the last decision of each entity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Became {
    Durable(Seq),
    Lost,
}

#[derive(Default)]
struct Told(Mutex<HashMap<EntityId, Became>>);

impl Sink for Told {
    fn durable(&self, entity: EntityId, _: Activation, _: Tier, upto: Seq) {
        self.0.lock().insert(entity, Became::Durable(upto));
    }

    fn lost(&self, entity: EntityId, _: Activation) {
        self.0.lock().insert(entity, Became::Lost);
    }

    fn rebase(&self, _: EntityId, _: Activation) {}
}

/// One lane over the store, and what it has told.
struct Bench<'a> {
    f: &'a Fixture,
    lanes: Lanes,
    told: Arc<Told>,
}

impl<'a> Bench<'a> {
    fn on(f: &'a Fixture) -> Self {
        let options = Options {
            lanes: 1,
            batch_rows_max: 512,
            dirty_bytes_max: 1 << 20,
        };
        Self {
            f,
            lanes: Lanes::start(&f.store, None, options, &Arc::new(Notify::new())),
            told: Arc::default(),
        }
    }

    fn stamp(&self, seq: u64) -> Stamp {
        Stamp {
            epoch: self.f.epoch,
            activation: Activation(1),
            seq: Seq(seq),
        }
    }

    fn submit(
        &self,
        entity: EntityId,
        before: Stamp,
        urgent: bool,
        record: impl FnOnce(&mut Contribution),
    ) -> Tie {
        let after = self.stamp(before.seq.0 + 1);
        let decided = Decided {
            entity,
            before,
            after,
            at: NOW,
            urgent,
        };
        let sink: Arc<dyn Sink> = Arc::clone(&self.told) as _;
        let lane = &self.lanes.of(entity.shard()).lane;
        lane.submit(decided, &sink, |into| {
            into.journalise(after.seq, NOW, &"something");
            record(into);
        });
        Tie {
            entity,
            activation: after.activation,
        }
    }

    /// The account's balance as it is now, from a version that it may not be at.
    fn pay(&self, user: UserId, before: Stamp, balance: i64) -> Tie {
        self.submit(user.into(), before, false, |into| {
            into.account().unwrap().balance = Some(Money(balance));
        })
    }

    fn sell(&self, show: TimetableId, before: Stamp, seat: u32, tie: Tie) {
        self.submit(show.into(), before, true, |into| {
            into.ties.push(tie);
            sell(into, show, seat);
        });
    }

    async fn became(&self, entity: impl Into<EntityId>) -> Became {
        self.lanes.drained().await;
        self.told.0.lock()[&entity.into()]
    }
}

async fn what_is_tied_is_written_with_what_it_is_tied_to(f: &Fixture) {
    let bench = Bench::on(f);
    let show = timetable();
    let buyers: Vec<UserId> = (0..20).map(|_| user()).collect();
    for (buyer, seat) in buyers.iter().zip(0u32..) {
        let tie = bench.pay(*buyer, Stamp::default(), 7);
        let before = match seat {
            0 => Stamp::default(),
            before => bench.stamp(before.into()),
        };
        bench.sell(show, before, seat, tie);
    }
    assert_eq!(bench.became(show).await, Became::Durable(Seq(20)));
    for buyer in buyers {
        assert_eq!(bench.became(buyer).await, Became::Durable(Seq(1)));
        assert_eq!(f.wallet(buyer).await.0, Money(7));
    }
    assert_eq!(version(f, show).await, Seq(20));
}

/// Ann's money can't be written, and so her sale must not be; Bob's is.
async fn ann_fails_alone(f: &Fixture, before: Stamp, balance: i64) {
    let bench = Bench::on(f);
    let (ann, bob) = (user(), user());
    let (hers, his) = (timetable(), timetable());
    let tie = bench.pay(bob, Stamp::default(), 7);
    bench.sell(his, Stamp::default(), 1, tie);
    let tie = bench.pay(ann, before, balance);
    bench.sell(hers, Stamp::default(), 1, tie);
    assert_eq!(bench.became(ann).await, Became::Lost);
    assert_eq!(bench.became(hers).await, Became::Lost);
    assert_eq!(version(f, hers).await, Seq(0), "sold without its money");
    assert_eq!(bench.became(bob).await, Became::Durable(Seq(1)));
    assert_eq!(bench.became(his).await, Became::Durable(Seq(1)));
    assert_eq!(version(f, his).await, Seq(1));
    assert_eq!(bench.lanes.dirty_bytes(), 0);
}

async fn what_is_tied_to_a_fenced_write_is_lost_with_it_and_nothing_else_is(f: &Fixture) {
    let never_was = Stamp {
        epoch: f.epoch,
        activation: Activation(1),
        seq: Seq(3),
    };
    ann_fails_alone(f, never_was, 7).await;
}

async fn what_is_tied_to_a_refused_write_is_lost_with_it_and_nothing_else_is(f: &Fixture) {
    ann_fails_alone(f, Stamp::default(), -1).await;
}

async fn what_is_tied_to_what_was_lost_before_is_lost(f: &Fixture) {
    let bench = Bench::on(f);
    let (ann, show) = (user(), timetable());
    let tie = bench.pay(ann, Stamp::default(), -1);
    assert_eq!(bench.became(ann).await, Became::Lost);
    bench.sell(show, Stamp::default(), 1, tie);
    assert_eq!(bench.became(show).await, Became::Lost);
    assert_eq!(version(f, show).await, Seq(0), "sold without its money");
    // Her next life is another.
    let next = Tie {
        activation: Activation(2),
        ..tie
    };
    bench.sell(show, Stamp::default(), 1, next);
    assert_eq!(bench.became(show).await, Became::Durable(Seq(1)));
}
