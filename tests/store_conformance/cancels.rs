//! Seats that are given back, their tickets and their refunds.

use std::sync::Arc;

use onsale::domain::account::{Command, Known, Refund, Reply};
use onsale::domain::decision::{Machine as _, step};
use onsale::domain::ids::{Seq, TimetableId, UserId};
use onsale::domain::money::Money;
use onsale::domain::order::{Cancel, CancelNo, CancelRequest, Order};
use onsale::domain::seat::SeatIndex;
use onsale::persistence::StoreError;
use onsale::persistence::batch::{CancelRow, Contribution, CreditRow};
use onsale::persistence::constraints::{A_CANCEL_IS_NUMBERED_ONCE, A_REFUND_IS_CREDITED_ONCE};
use onsale::persistence::store::outbox::{Asked, Came, Envelope, NewTicket};
use uuid::Uuid;

use crate::fixture::{Fixture, NOW, Place, connect, event, order, timetable, user};
use crate::open_batch::until_waiting;
use crate::postgres::execute;

on_every_store!(
    what_is_cancelled_is_nobodys_and_comes_back_as_it_was_written,
    no_ticket_is_issued_for_a_cancelled_seat,
    a_refund_is_due_until_it_is_noted,
    a_refund_comes_in_once,
);

/// A timetable with an order of seats 1 and 2, and its event.
async fn sold(f: &Fixture, buyer: UserId) -> (TimetableId, Order, Envelope) {
    let show = timetable();
    let bought = order(show, buyer, &[1, 2]);
    let mut sale = f.contribution(show.into(), 0);
    let rows = sale.timetable().unwrap();
    rows.orders.push(Arc::new(bought.clone()));
    sale.outbox.push(event(1));
    f.write(vec![sale]).await;
    let mut events = f.store.unpublished(None, None, 100).await.unwrap();
    events.retain(|event| event.entity == show.0);
    (show, bought, events.remove(0))
}

/// Tickets of both seats.
fn tickets(show: TimetableId, order: &Order) -> Asked {
    let ticket = |seat| NewTicket {
        id: Uuid::now_v7(),
        order: order.id.0,
        seat,
        timetable: show.0,
        user: order.user.0,
    };
    Asked::Tickets(vec![ticket(1), ticket(2)])
}

async fn issue(f: &Fixture, event: &Envelope, wanted: Asked) {
    let events = vec![(event.clone(), wanted)];
    let kid = "kid".to_owned();
    let issued = f
        .store
        .issue_tickets("tickets", Came::FromOutbox, events, kid, NOW);
    assert_eq!(issued.await.unwrap(), [true]);
}

fn cancel(no: u32, seat: u32) -> Cancel {
    Cancel {
        no: CancelNo(no),
        request: CancelRequest(u64::MAX - u64::from(no)),
        seats: [SeatIndex(seat)].into_iter().collect(),
        refund: Money(69_500),
        at: NOW,
    }
}

/// A contribution that cancels, after `seq` decisions.
fn cancelling(
    f: &Fixture,
    (show, seq): (TimetableId, u64),
    order: &mut Order,
    cancel: Cancel,
) -> Contribution {
    order.cancel(cancel.clone());
    let mut contribution = f.contribution(show.into(), seq);
    let rows = contribution.timetable().unwrap();
    rows.cancels.push(CancelRow {
        order: order.id,
        user: order.user,
        cancel,
        refunded_at: None,
    });
    rows.cancelled.insert(order.id, Arc::new(order.clone()));
    contribution
}

/// The tickets of a user by seat, with their statuses.
async fn seen(f: &Fixture, user: UserId) -> Vec<(u32, String)> {
    let tickets = f.store.tickets_of(user, None, 100).await.unwrap();
    let mut seen: Vec<_> = tickets.into_iter().map(|t| (t.seat.0, t.status)).collect();
    seen.sort_unstable();
    seen
}

fn status(seat: u32, status: &str) -> (u32, String) {
    (seat, status.to_owned())
}

async fn what_is_cancelled_is_nobodys_and_comes_back_as_it_was_written(f: &Fixture) {
    let (ann, bob) = (user(), user());
    let (show, mut bought, event) = sold(f, ann).await;
    issue(f, &event, tickets(show, &bought)).await;
    let as_bought = bought.clone();
    let first = cancelling(f, (show, 1), &mut bought, cancel(1, 2));
    f.write(vec![first]).await;
    let row = f.store.order_of(ann, bought.id).await.unwrap().unwrap();
    assert_eq!(
        (row.status.as_str(), row.refunded),
        ("confirmed", Money(69_500))
    );
    assert_eq!((row.cancelled, row.seats.len()), (vec![SeatIndex(2)], 2));
    assert_eq!(row.tickets.len(), 2);
    assert_eq!(seen(f, ann).await, [status(1, "valid"), status(2, "void")]);
    assert_eq!(f.store.seat_counts().await.unwrap(), [(show, 1, 0)]);

    // Another has it, and the rest is cancelled: the seat stays the other's.
    let resold = order(show, bob, &[2]);
    let mut sale = f.contribution(show.into(), 2);
    sale.timetable().unwrap().orders.push(Arc::new(resold));
    f.write(vec![sale]).await;
    let second = cancelling(f, (show, 3), &mut bought, cancel(2, 1));
    f.write(vec![second]).await;
    assert_eq!(f.store.seat_counts().await.unwrap(), [(show, 1, 0)]);
    assert_eq!(seen(f, ann).await, [status(1, "void"), status(2, "void")]);
    let row = f.store.any_order(bought.id).await.unwrap().unwrap();
    assert_eq!(
        (row.status.as_str(), row.refunded),
        ("cancelled", Money(139_000))
    );

    let mut state = f.store.load_timetable(show).await.unwrap().state;
    state.orders.retain(|order| order.user == ann);
    assert_eq!(state.orders, [as_bought]);
    let cancels: Vec<Cancel> = state
        .cancels
        .into_iter()
        .map(|(_, cancel)| cancel)
        .collect();
    assert_eq!(cancels, bought.cancels);
    let again = cancelling(f, (show, 4), &mut bought, cancel(2, 1));
    assert_refused(f.commit(vec![again]).await, A_CANCEL_IS_NUMBERED_ONCE);
}

fn assert_refused<T: std::fmt::Debug>(done: Result<T, StoreError>, constraint: &str) {
    match done {
        Err(StoreError::Constraint {
            constraint: name, ..
        }) => assert_eq!(name, constraint),
        other => panic!("{other:?}"),
    }
}

async fn no_ticket_is_issued_for_a_cancelled_seat(f: &Fixture) {
    let ann = user();
    let (show, mut bought, event) = sold(f, ann).await;
    let cancelled = cancelling(f, (show, 1), &mut bought, cancel(1, 1));
    f.write(vec![cancelled]).await;
    issue(f, &event, tickets(show, &bought)).await;
    assert_eq!(seen(f, ann).await, [status(2, "valid")]);
}

async fn a_refund_is_due_until_it_is_noted(f: &Fixture) {
    let (show, mut bought, _) = sold(f, user()).await;
    assert_eq!(f.store.timetables_to_wake().await.unwrap(), []);
    let first = cancelling(f, (show, 1), &mut bought, cancel(1, 1));
    let second = cancelling(f, (show, 2), &mut bought, cancel(2, 2));
    f.write(vec![first]).await;
    f.write(vec![second]).await;
    assert_eq!(f.store.timetables_to_wake().await.unwrap(), [show]);
    for (seq, no, left) in [(3, 2, 1), (4, 1, 0)] {
        let mut noted = f.contribution(show.into(), seq);
        let rows = noted.timetable().unwrap();
        rows.refunded.push((bought.id, CancelNo(no), NOW));
        f.write(vec![noted]).await;
        let state = f.store.load_timetable(show).await.unwrap().state;
        assert_eq!(state.refunds_due.len(), left);
        assert_eq!(state.cancels.len(), 2);
    }
    assert_eq!(f.store.timetables_to_wake().await.unwrap(), []);
}

fn refund(no: u32) -> Refund {
    Refund {
        order: onsale::domain::ids::OrderId(Uuid::from_u128(7)),
        no: CancelNo(no),
        timetable: timetable(),
        amount: Money(500),
    }
}

async fn a_refund_comes_in_once(f: &Fixture) {
    let ann = user();
    let credited = |nth: u64, no| {
        let mut contribution = f.charge(ann, nth);
        let (seq, refund, at) = (Seq(nth), refund(no), NOW);
        let rows = contribution.account().unwrap();
        rows.credits.push(CreditRow { seq, refund, at });
        contribution
    };
    f.write(vec![credited(1, 1)]).await;
    f.write(vec![credited(2, 2)]).await;
    let mut accounts = f.store.load_accounts(&[ann], NOW).await.unwrap();
    let account = &mut accounts.get_mut(&ann).unwrap().state;
    let before = account.spendable();
    for (no, more) in [(1, 0), (2, 0), (3, 500)] {
        let credit = Command::Credit {
            refund: refund(no),
            answer: None,
            known: Known::default(),
        };
        let done = step(account, &mut Seq(9), NOW, credit);
        assert_eq!(done.outcome, Ok(Reply::Done));
        assert_eq!(account.spendable(), before.plus(Money(more)), "{no}");
    }
    account.settle(Seq(9));
    // What an account has forgotten, the store tells.
    for (who, no, is_there) in [(ann, 1, true), (ann, 3, false), (user(), 1, false)] {
        let (order, no) = (refund(no).order, CancelNo(no));
        let found = f.store.is_credited(who, order, no).await.unwrap();
        assert_eq!(found, is_there, "{no} of {who}");
    }
    let again = f.commit(vec![credited(3, 1)]).await;
    assert_refused(again, A_REFUND_IS_CREDITED_ONCE);
}

/// Whoever issues tickets has looked at the seats, and its transaction is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_that_is_being_issued_while_its_seat_is_cancelled_is_void() {
    let f = Fixture::new(Place::Postgres).await;
    let ann = user();
    let (show, mut bought, event) = sold(&f, ann).await;
    let wanted = tickets(show, &bought);
    let cancelled = cancelling(&f, (show, 1), &mut bought, cancel(1, 2));
    let mut beside = connect(&f.settings.url).await;
    let mut watcher = connect(&f.settings.url).await;
    // It stands still when it marks the event as published.
    execute(&mut beside, "BEGIN; LOCK TABLE outbox IN EXCLUSIVE MODE").await;
    let cancelling = async {
        until_waiting(&mut watcher, 1).await;
        let committing = f.commit(vec![cancelled]);
        let letting_go = async {
            until_waiting(&mut watcher, 2).await;
            execute(&mut beside, "ROLLBACK").await;
        };
        let (committed, ()) = tokio::join!(committing, letting_go);
        committed.unwrap();
    };
    tokio::join!(issue(&f, &event, wanted), cancelling);
    assert_eq!(seen(&f, ann).await, [status(1, "valid"), status(2, "void")]);
    f.end().await;
}

/// The other way round: the cancel's transaction is open, its seats deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_ticket_is_issued_while_its_seat_is_being_cancelled() {
    let f = Fixture::new(Place::Postgres).await;
    let ann = user();
    let (show, mut bought, event) = sold(&f, ann).await;
    let Asked::Tickets(mut wanted) = tickets(show, &bought) else {
        unreachable!("tickets were asked for")
    };
    let second = Asked::Tickets(wanted.split_off(1));
    issue(&f, &event, Asked::Tickets(wanted)).await;
    let mut both = cancel(1, 1);
    both.seats.push(SeatIndex(2));
    let cancelled = cancelling(&f, (show, 1), &mut bought, both);
    let mut beside = connect(&f.settings.url).await;
    let mut watcher = connect(&f.settings.url).await;
    // It stands still when it makes the first ticket void.
    execute(&mut beside, "BEGIN; SELECT id FROM ticket FOR UPDATE").await;
    let issuing = async {
        until_waiting(&mut watcher, 1).await;
        let letting_go = async {
            until_waiting(&mut watcher, 2).await;
            execute(&mut beside, "ROLLBACK").await;
        };
        let event = Envelope {
            event_seq: 2,
            ..event
        };
        tokio::join!(issue(&f, &event, second), letting_go);
    };
    let (committed, ()) = tokio::join!(f.commit(vec![cancelled]), issuing);
    committed.unwrap();
    assert_eq!(seen(&f, ann).await, [status(1, "void")]);
    f.end().await;
}
