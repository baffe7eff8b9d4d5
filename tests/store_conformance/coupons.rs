//! Coupons: how their rows are written and come back.

use std::collections::BTreeSet;

use onsale::domain::account::KeyHash;
use onsale::domain::coupon::{
    Claim, Command, Coupon, CouponState, Discount, Patch, Refusal, Terms, Unusable,
};
use onsale::domain::decision::{Machine as _, step};
use onsale::domain::ids::{
    Activation, CouponClaimId, CouponId, OrderId, PerformanceId, Seq, Stamp, TimetableId, UserId,
};
use onsale::domain::money::Money;
use onsale::domain::time::{Millis, Timestamp};
use onsale::persistence::StoreError;
use onsale::persistence::batch::{Contribution, Persisted as _};
use onsale::persistence::constraints::{A_COUPON_IS_CLAIMED_ONCE, CLAIMS_ARE_WITHIN_THE_STOCK};
use onsale::persistence::store::commit::Verdict;
use onsale::persistence::store::coupons::ClaimUse;
use uuid::Uuid;

use crate::fixture::{Fixture, NOW, user};
use crate::random::Random;

on_every_store!(
    a_coupon_comes_back_as_it_was_written,
    a_batch_of_a_coupon_that_is_repeated_late_or_stale_writes_nothing_more,
    a_second_claim_or_one_beyond_the_stock_is_refused_by_the_store,
    claims_are_their_owners_and_tell_how_they_stand,
    a_coupon_comes_back_from_any_sequence_of_commands,
);

const SHOW: PerformanceId = PerformanceId(Uuid::from_u128(7));
const DATE: TimetableId = TimetableId(Uuid::from_u128(9));

fn terms(stock: u32) -> Terms {
    Terms {
        name: "Frühling 봄".to_owned(),
        discount: Discount::Amount(Money(5_000_000_000)),
        stock,
        starts_at: Timestamp(NOW.0 - 1),
        ends_at: NOW.plus(Millis::from_secs(3_600)),
        performance: None,
        owner: UserId(Uuid::from_u128(1)),
        created_at: NOW,
    }
}

/// One life after the other of a coupon, as its actor would write it.
struct Life {
    id: CouponId,
    coupon: Coupon,
    seq: Seq,
    stored: Stamp,
    epoch: onsale::domain::ids::Epoch,
    activation: Activation,
    waiting: Option<Contribution>,
}

impl Life {
    fn new(f: &Fixture) -> Self {
        let id = CouponId(Uuid::now_v7());
        Self {
            id,
            coupon: Coupon::new(id),
            seq: Seq(0),
            stored: Stamp::default(),
            epoch: f.epoch,
            activation: Activation(1),
            waiting: None,
        }
    }

    async fn made(f: &Fixture, stock: u32) -> Self {
        let mut life = Self::new(f);
        life.ask(Command::Create(terms(stock))).unwrap();
        life.commit(f).await;
        life
    }

    fn ask(&mut self, command: Command) -> Result<onsale::domain::coupon::Reply, Refusal> {
        let done = step(&mut self.coupon, &mut self.seq, NOW, command);
        if !done.events.is_empty() {
            let after = Stamp {
                epoch: self.epoch,
                activation: self.activation,
                seq: self.seq,
            };
            let new = || Contribution::new(self.id.into(), self.stored, after, NOW);
            let into = self.waiting.get_or_insert_with(new);
            into.after = after;
            for (seq, event) in &done.events {
                into.journalise(*seq, NOW, event);
                self.coupon.record(event, into);
            }
            // Numbered by the shell; what is published is told elsewhere.
            into.outbox.clear();
        }
        done.outcome
    }

    async fn commit(&mut self, f: &Fixture) {
        if let Some(waiting) = self.waiting.take() {
            self.stored = waiting.after;
            f.write(vec![waiting]).await;
            self.coupon.settle(self.seq);
        }
    }

    async fn load(&self, f: &Fixture) -> CouponState {
        let loaded = f.store.load_coupon(self.id).await.unwrap();
        assert_eq!(loaded.stamp, self.stored);
        loaded.state
    }

    /// The process dies, and another goes on.
    async fn restart(&mut self, f: &Fixture) {
        self.waiting = None;
        let loaded = f.store.load_coupon(self.id).await.unwrap();
        self.coupon = Coupon::restore(self.id, loaded.state);
        (self.stored, self.seq) = (loaded.stamp, loaded.stamp.seq);
        self.activation = Activation(self.activation.0 + 1);
    }
}

fn claim(user: UserId) -> Command {
    Command::Claim {
        claim: CouponClaimId(Uuid::now_v7()),
        user,
        key: None,
    }
}

fn prepare(user: UserId, order: OrderId) -> Command {
    Command::Prepare {
        order,
        user,
        timetable: DATE,
        performance: SHOW,
    }
}

fn void(user: UserId, order: OrderId) -> Command {
    let timetable = DATE;
    Command::Void {
        order,
        user,
        timetable,
    }
}

fn give_back(user: UserId, order: OrderId) -> Command {
    let timetable = DATE;
    Command::Return {
        order,
        user,
        timetable,
    }
}

fn order() -> OrderId {
    OrderId(Uuid::now_v7())
}

async fn a_coupon_comes_back_as_it_was_written(f: &Fixture) {
    let mut life = Life::new(f);
    assert_eq!(life.load(f).await.terms, None);
    life.ask(Command::Create(terms(3))).unwrap();
    let (ann, bob, cid) = (user(), user(), user());
    life.ask(claim(ann)).unwrap();
    life.commit(f).await;
    let state = life.load(f).await;
    assert_eq!(state.terms, Some(terms(3)));
    assert!(state.claimants.contains(ann) && state.claimants.len() == 1);

    // Another name and stock; claims that are set aside, used, void and returned,
    // one of them freed and taken again within one batch.
    let patch = Patch {
        name: Some("x".to_owned()),
        stock: Some(10_000_000),
        starts_at: Some(Timestamp(NOW.0 - 2)),
        ends_at: Some(Timestamp(NOW.0 + 2)),
        ..Patch::default()
    };
    life.ask(Command::Change(patch.clone())).unwrap();
    life.ask(claim(bob)).unwrap();
    life.ask(claim(cid)).unwrap();
    let orders: Vec<OrderId> = (0..4).map(|_| order()).collect();
    life.ask(prepare(ann, orders[0])).unwrap();
    life.commit(f).await;
    assert_eq!(f.store.coupons_in_doubt().await.unwrap(), [life.id]);
    life.ask(void(ann, orders[0])).unwrap();
    life.ask(prepare(ann, orders[1])).unwrap();
    life.ask(prepare(bob, orders[2])).unwrap();
    let (order, user) = (orders[2], bob);
    life.ask(Command::Post { order, user }).unwrap();
    life.ask(prepare(cid, orders[3])).unwrap();
    life.ask(give_back(cid, orders[3])).unwrap();
    life.commit(f).await;
    let state = life.load(f).await;
    assert_eq!(state.terms, Some(patch.applied_to(&terms(3))));
    assert_eq!(state.claimants.len(), 3);
    let prepared: Vec<_> = state.prepared.iter().map(|p| (p.user, p.order)).collect();
    assert_eq!(prepared, [(ann, orders[1])]);
    assert_eq!(state.prepared[0].timetable, DATE);
    assert_eq!(state.posted, [(bob, orders[2])]);
    // Oldest first.
    assert_eq!(state.void, [orders[0], orders[3]]);
    assert_eq!(f.store.coupons().await.unwrap(), [life.id]);
}

async fn a_batch_of_a_coupon_that_is_repeated_late_or_stale_writes_nothing_more(f: &Fixture) {
    let mut life = Life::made(f, 5).await;
    life.ask(claim(user())).unwrap();
    let batch = life.waiting.take().unwrap();
    let mut stale = batch.clone();
    let rows = stale.coupon().unwrap();
    rows.claims[0].user = user();
    stale.after.seq = Seq(9);
    for _ in 0..2 {
        let verdicts = f.commit(vec![batch.clone()]).await.unwrap();
        assert_eq!(verdicts, [Verdict::Written]);
    }
    assert_eq!(f.commit(vec![stale]).await.unwrap(), [Verdict::Fenced]);
    life.stored = batch.after;
    assert_eq!(life.load(f).await.claimants.len(), 1);
}

/// What the machine would never decide, the store refuses: the second barrier.
async fn a_second_claim_or_one_beyond_the_stock_is_refused_by_the_store(f: &Fixture) {
    let mut life = Life::made(f, 1).await;
    let ann = user();
    life.ask(claim(ann)).unwrap();
    life.commit(f).await;
    let claim = Claim {
        id: CouponClaimId(Uuid::now_v7()),
        user: ann,
        at: NOW,
        key: None,
    };
    let after = Stamp {
        seq: life.stored.seq.next(),
        ..life.stored
    };
    let lie = || {
        let mut lie = Contribution::new(life.id.into(), life.stored, after, NOW);
        lie.journalise(after.seq, NOW, &"a lie");
        lie
    };
    let mut twice = lie();
    twice.coupon().unwrap().claims.push(claim);
    let refused = f.commit(vec![twice]).await.unwrap_err();
    let is = |error: &StoreError, name: &str| matches!(error, StoreError::Constraint { constraint } if constraint == name);
    assert!(is(&refused, A_COUPON_IS_CLAIMED_ONCE), "{refused}");
    let mut too_many = lie();
    let mut view = life.coupon.view().unwrap();
    view.claimed = 2;
    too_many.coupon().unwrap().coupon = Some(view);
    let refused = f.commit(vec![too_many]).await.unwrap_err();
    assert!(is(&refused, CLAIMS_ARE_WITHIN_THE_STOCK), "{refused}");
}

async fn claims_are_their_owners_and_tell_how_they_stand(f: &Fixture) {
    let (mut first, mut second) = (Life::made(f, 5).await, Life::made(f, 5).await);
    let (ann, bob) = (user(), user());
    let keyed = Command::Claim {
        claim: CouponClaimId(Uuid::now_v7()),
        user: ann,
        key: Some(KeyHash(u64::MAX - 3)),
    };
    first.ask(keyed).unwrap();
    first.ask(claim(bob)).unwrap();
    second.ask(claim(ann)).unwrap();
    first.commit(f).await;
    second.commit(f).await;
    let claims = f.store.claims_of(ann, None, 10).await.unwrap();
    // Newest first.
    let coupons: Vec<CouponId> = claims.iter().map(|row| row.coupon).collect();
    assert_eq!(coupons, [second.id, first.id]);
    assert!(claims.iter().all(|row| row.used == ClaimUse::Available));
    assert_eq!(claims[0].terms, terms(5));
    assert_eq!(claims[1].claim.key, Some(KeyHash(u64::MAX - 3)));
    let after = f.store.claims_of(ann, Some(claims[0].claim.id), 10).await;
    assert_eq!(after.unwrap().len(), 1);

    let found = |user, id| f.store.coupon_of_claim(user, id);
    let id = claims[1].claim.id;
    assert_eq!(found(ann, id).await.unwrap(), Some(first.id));
    assert_eq!(found(bob, id).await.unwrap(), None);
    let on = f.store.claim_on(first.id, ann).await.unwrap();
    assert_eq!(on, Some(claims[1].claim));
    assert_eq!(f.store.claim_on(second.id, bob).await.unwrap(), None);

    let id = order();
    for (command, stands) in [
        (prepare(ann, id), ClaimUse::Reserved(id)),
        (
            Command::Post {
                order: id,
                user: ann,
            },
            ClaimUse::Used(id),
        ),
        (give_back(ann, id), ClaimUse::Available),
    ] {
        first.ask(command).unwrap();
        first.commit(f).await;
        let claims = f.store.claims_of(ann, None, 10).await.unwrap();
        assert_eq!(claims[1].used, stands);
    }
}

async fn a_coupon_comes_back_from_any_sequence_of_commands(f: &Fixture) {
    const USERS: u64 = 12;
    let seed = Random::fresh_seed();
    let mut random = Random::seeded(seed);
    let mut life = Life::made(f, 6).await;
    // Of each user: an order is of one.
    let mut orders: Vec<Vec<OrderId>> = (0..USERS).map(|_| vec![order()]).collect();
    for _ in 0..400 {
        let number = random.below(USERS);
        let user = UserId(Uuid::from_u128(u128::from(number) + 1));
        let own = &mut orders[usize::try_from(number).unwrap()];
        if random.below(3) == 0 {
            own.push(order());
        }
        let order = *random.pick(&own[own.len().saturating_sub(2)..]);
        let command = match random.below(8) {
            0..2 => claim(user),
            2..4 => prepare(user, order),
            4 => Command::Post { order, user },
            5 => void(user, order),
            6 => give_back(user, order),
            _ => Command::Change(Patch {
                stock: Some(u32::try_from(random.below(USERS)).unwrap()),
                ..Patch::default()
            }),
        };
        // Refused or not: what counts is what is stored of it.
        let _ = life.ask(command);
        if random.below(3) == 0 {
            life.commit(f).await;
            let back = Coupon::restore(life.id, life.load(f).await);
            // When it was last claimed is of the life in memory.
            let kept = |coupon: &Coupon| coupon.view().map(|view| (view.terms, view.claimed));
            assert_eq!(kept(&back), kept(&life.coupon), "seed {seed}");
            let in_doubt = |coupon: &Coupon| {
                let all = coupon.in_doubt().map(|p| (p.user, p.order));
                all.collect::<BTreeSet<_>>()
            };
            assert_eq!(in_doubt(&back), in_doubt(&life.coupon), "seed {seed}");
            for number in 0..USERS {
                let user = UserId(Uuid::from_u128(u128::from(number) + 1));
                let first = orders[usize::try_from(number).unwrap()][0];
                let asks = |coupon: &Coupon| coupon.decide(NOW, prepare(user, first)).is_ok();
                assert_eq!(asks(&back), asks(&life.coupon), "seed {seed}");
                let fresh = prepare(user, OrderId(Uuid::nil()));
                let why = |coupon: &Coupon| match coupon.decide(NOW, fresh.clone()) {
                    Err(Refusal::NotUsable(why)) => Some(why),
                    _ => None,
                };
                assert_eq!(why(&back), why(&life.coupon), "seed {seed}");
                assert_ne!(why(&back), Some(Unusable::Expired), "seed {seed}");
            }
        }
        if random.below(30) == 0 {
            life.restart(f).await;
        }
    }
}
