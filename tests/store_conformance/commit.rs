//! The group commit, and how entities come back from it.

use std::sync::Arc;

use onsale::domain::account::{KeyHash, Prepare, PrepareState};
use onsale::domain::ids::{Activation, OrderId, Seq, Stamp, TimetableId, UserId};
use onsale::domain::money::Money;
use onsale::domain::seat::SeatIndex;
use onsale::domain::time::Timestamp;
use onsale::persistence::StoreError;
use onsale::persistence::batch::{Contribution, HoldChange, KeyAnswer, KeyRow};
use onsale::persistence::constraints::{A_BALANCE_IS_NEVER_BELOW_ZERO, A_SEAT_IS_SOLD_ONCE};
use onsale::persistence::store::commit::Verdict;
use uuid::Uuid;

use crate::fixture::{Fixture, NOW, event, hold, order, timetable, user};

on_every_store!(
    a_timetable_comes_back_as_it_was_written,
    an_account_comes_back_as_it_was_written,
    a_repeated_batch_is_applied_once,
    of_two_lives_of_an_entity_one_is_written,
    a_contribution_that_does_not_follow_is_fenced,
    a_poison_row_refuses_its_batch_by_the_name_of_the_constraint,
    a_batch_of_many_entities_is_one_commit,
    old_keys_are_forgotten,
);

async fn a_timetable_comes_back_as_it_was_written(f: &Fixture) {
    let (show, ann) = (timetable(), user());
    let (kept, gone) = (hold(show, ann, &[1, 2]), hold(show, ann, &[3]));
    let bought = order(show, ann, &[7, 8]);
    let never = OrderId(Uuid::now_v7());
    let mut first = f.contribution(show.into(), 0);
    let rows = first.timetable().unwrap();
    rows.hold_began(kept.clone());
    rows.hold_began(gone.clone());
    rows.orders.push(Arc::new(bought.clone()));
    rows.disowned.push(never);
    rows.blocks
        .extend([(SeatIndex(20), true), (SeatIndex(21), true)]);
    first.outbox.extend([event(1), event(2)]);
    f.write(vec![first]).await;

    let mut second = f.contribution(show.into(), 1);
    let rows = second.timetable().unwrap();
    rows.holds.insert(gone.id, HoldChange::Gone);
    let mut later = kept.clone();
    later.expires_at = Timestamp(NOW.0 + 400_000);
    rows.hold_changed(later.clone());
    rows.blocks
        .extend([(SeatIndex(20), false), (SeatIndex(22), true)]);
    f.write(vec![second]).await;

    let loaded = f.store.load_timetable(show).await.unwrap();
    assert_eq!((loaded.stamp.seq, loaded.last_event_seq), (Seq(2), 2));
    let [stored] = &loaded.state.holds[..] else {
        panic!("{:?}", loaded.state.holds);
    };
    assert_eq!(format!("{stored:?}"), format!("{later:?}"));
    assert_eq!(loaded.state.orders, std::slice::from_ref(&bought));
    assert_eq!(loaded.state.aborted, [never]);
    let mut blocked = loaded.state.blocked;
    blocked.sort_unstable();
    assert_eq!(blocked, [SeatIndex(21), SeatIndex(22)]);

    assert_eq!(f.store.timetables_to_wake().await.unwrap(), [show]);
    assert_eq!(f.store.seat_counts().await.unwrap(), [(show, 2, 2)]);
    let nobodys = TimetableId(Uuid::now_v7());
    let mut of_two = f.store.seat_counts_of(&[show, nobodys]).await.unwrap();
    of_two.sort_unstable_by_key(|(_, sold, _)| *sold);
    assert_eq!(of_two, [(nobodys, 0, 0), (show, 2, 2)]);
    let row = f.store.order_of(ann, bought.id).await.unwrap().unwrap();
    assert_eq!(
        (row.timetable, row.seats, row.discount),
        (show, bought.seats, Money(1_000))
    );
    let of_another = f.store.order_of(user(), bought.id).await.unwrap();
    assert!(of_another.is_none());
    let paid = f.store.order_of_payment(ann, bought.payment).await.unwrap();
    assert_eq!(paid.unwrap().id, bought.id);
    for of in [kept.id, bought.hold] {
        let found = f.store.timetable_of_hold(ann, of).await.unwrap();
        assert_eq!(found, Some(show));
    }
    let of_another = f.store.timetable_of_hold(user(), kept.id).await.unwrap();
    assert_eq!(of_another, None);
}

fn prepare(id: u128) -> Prepare {
    Prepare {
        order: OrderId(Uuid::from_u128(id)),
        timetable: timetable(),
        amount: Money(500),
        at: NOW,
    }
}

fn key(name: &str, at: Timestamp, answer: KeyAnswer) -> (KeyHash, KeyRow) {
    let row = KeyRow {
        key: name.to_owned(),
        fingerprint: u64::MAX - 3,
        at,
        answer,
    };
    (KeyHash::of(name), row)
}

fn answered(name: &str, at: Timestamp) -> (KeyHash, KeyRow) {
    let answer = KeyAnswer::Stored {
        status: 201,
        body: "{\"a\": \"한\"}".to_owned(),
    };
    key(name, at, answer)
}

async fn an_account_comes_back_as_it_was_written(f: &Fixture) {
    let (ann, nobody) = (user(), user());
    let (open, done) = (prepare(1), prepare(2));
    let mut first = f.charge(ann, 1);
    let rows = first.account().unwrap();
    rows.prepares
        .insert(open.order, (open, PrepareState::Prepared));
    rows.prepares
        .insert(done.order, (done, PrepareState::Prepared));
    rows.keys
        .extend([answered("k1", NOW), key("k2", NOW, KeyAnswer::Order(open))]);
    f.write(vec![first]).await;
    let mut second = f.charge(ann, 2);
    let rows = second.account().unwrap();
    rows.prepares
        .insert(done.order, (done, PrepareState::Posted));
    f.write(vec![second]).await;

    let loaded = f.store.load_accounts(&[ann, nobody], NOW).await.unwrap();
    let account = &loaded[&ann];
    assert_eq!(account.stamp.seq, Seq(2));
    assert_eq!(account.state.balance(), Money(2_000_000));
    assert_eq!(account.state.in_doubt(), [open]);
    assert_eq!(account.state.spendable(), Money(2_000_000 - 500));
    assert_eq!(loaded[&nobody].stamp, Stamp::default());
    assert_eq!(loaded[&nobody].state.balance(), Money::ZERO);
    assert_eq!(f.store.accounts_in_doubt().await.unwrap(), [ann]);
    let answer = f.store.stored_answer(ann, "k1").await.unwrap();
    assert_eq!(answer, Some((201, "{\"a\": \"한\"}".to_owned())));
    assert_eq!(f.store.stored_answer(ann, "k2").await.unwrap(), None);
    assert_eq!(f.store.stored_answer(nobody, "k1").await.unwrap(), None);
    let entries = f.store.entries_of(ann, None, 1).await.unwrap();
    assert_eq!((entries.len(), entries[0].seq), (1, 2));
    let older = f.store.entries_of(ann, Some(2), 9).await.unwrap();
    assert_eq!((older.len(), older[0].seq), (1, 1));
}

/// The answer to a commit was lost: the same batch comes again.
async fn a_repeated_batch_is_applied_once(f: &Fixture) {
    let (ann, show) = (user(), timetable());
    let mut sale = f.contribution(show.into(), 0);
    let sold = Arc::new(order(show, ann, &[1]));
    sale.timetable().unwrap().orders.push(sold);
    sale.outbox.push(event(1));
    let batch = Arc::new(vec![f.charge(ann, 1), sale]);
    for _ in 0..3 {
        let verdicts = f.store.commit(Arc::clone(&batch)).await.unwrap();
        assert_eq!(verdicts, [Verdict::Written; 2]);
    }
    // At the same time, too.
    let twins = (f.store.commit(Arc::clone(&batch)), f.store.commit(batch));
    let (one, other) = tokio::join!(twins.0, twins.1);
    assert_eq!(
        (one.unwrap(), other.unwrap()),
        (vec![Verdict::Written; 2], vec![Verdict::Written; 2])
    );
    assert_eq!(f.wallet(ann).await, (Money(1_000_000), 1));
    assert_eq!(f.store.backlog().await.unwrap().events, 1);
}

/// Two processes believe that the entity is theirs, in the same epoch.
async fn of_two_lives_of_an_entity_one_is_written(f: &Fixture) {
    for _ in 0..10 {
        let ann = user();
        let life = |number: u32| -> Contribution {
            let mut contribution = f.charge(ann, 1);
            contribution.after.activation = Activation(number);
            contribution
        };
        let (one, other) = tokio::join!(f.commit(vec![life(1)]), f.commit(vec![life(2)]));
        let mut verdicts = [one.unwrap()[0], other.unwrap()[0]];
        verdicts.sort_by_key(|verdict| *verdict == Verdict::Fenced);
        assert_eq!(verdicts, [Verdict::Written, Verdict::Fenced]);
        assert_eq!(f.wallet(ann).await, (Money(1_000_000), 1));
    }
}

async fn a_contribution_that_does_not_follow_is_fenced(f: &Fixture) {
    let ann = user();
    f.write(vec![f.charge(ann, 1)]).await;
    // Behind a version that never was, and from the beginning again.
    let mut again = f.charge(ann, 1);
    again.after.activation = Activation(9);
    for stray in [f.charge(ann, 3), again] {
        assert_eq!(f.commit(vec![stray]).await.unwrap(), [Verdict::Fenced]);
        assert_eq!(f.wallet(ann).await, (Money(1_000_000), 1));
    }
    f.write(vec![f.charge(ann, 2)]).await;
}

fn refused_by(result: Result<Vec<Verdict>, StoreError>) -> String {
    match result {
        Err(StoreError::Constraint { constraint }) => constraint,
        other => panic!("no constraint refused it: {other:?}"),
    }
}

async fn a_poison_row_refuses_its_batch_by_the_name_of_the_constraint(f: &Fixture) {
    let (ann, show) = (user(), timetable());
    let sale = |seq: u64| {
        let mut contribution = f.contribution(show.into(), seq);
        let sold = Arc::new(order(show, ann, &[5]));
        contribution.timetable().unwrap().orders.push(sold);
        contribution
    };
    f.write(vec![sale(0)]).await;
    let twice = f.commit(vec![f.charge(ann, 1), sale(1)]).await;
    assert_eq!(refused_by(twice), A_SEAT_IS_SOLD_ONCE);
    let mut debt = f.charge(ann, 1);
    debt.account().unwrap().balance = Some(Money(-1));
    let below = f.commit(vec![f.charge(user(), 1), debt]).await;
    assert_eq!(refused_by(below), A_BALANCE_IS_NEVER_BELOW_ZERO);
    // Nothing of either was written; what was good about them goes through.
    assert_eq!(f.wallet(ann).await, (Money::ZERO, 0));
    assert_eq!(
        f.store.load_timetable(show).await.unwrap().stamp.seq,
        Seq(1)
    );
    f.write(vec![f.charge(ann, 1)]).await;
}

async fn a_batch_of_many_entities_is_one_commit(f: &Fixture) {
    let users: Vec<UserId> = (0..600).map(|_| user()).collect();
    let charges = |nth: u64| users.iter().map(|user| f.charge(*user, nth)).collect();
    f.write(charges(1)).await;
    f.write(charges(2)).await;
    let loaded = f.store.load_accounts(&users, NOW).await.unwrap();
    assert!(
        loaded
            .values()
            .all(|account| account.state.balance() == Money(2_000_000))
    );
    assert_eq!(f.commit(Vec::new()).await.unwrap(), []);
}

async fn old_keys_are_forgotten(f: &Fixture) {
    let ann = user();
    let mut first = f.charge(ann, 1);
    let keys = &mut first.account().unwrap().keys;
    keys.extend((0..5).map(|n| answered(&format!("old{n}"), Timestamp(NOW.0 - 10))));
    keys.extend([answered("new", NOW)]);
    f.write(vec![first]).await;
    assert_eq!(f.store.forget_keys(NOW, 3).await.unwrap(), 3);
    assert_eq!(f.store.forget_keys(NOW, 3).await.unwrap(), 2);
    assert_eq!(f.store.forget_keys(NOW, 3).await.unwrap(), 0);
    assert!(f.store.stored_answer(ann, "new").await.unwrap().is_some());
    assert_eq!(f.store.stored_answer(ann, "old1").await.unwrap(), None);
}
