//! The outbox, and the tickets that are made from it.

use std::sync::Arc;

use onsale::domain::ids::{EntityId, OrderId, ShardId, TimetableId, UserId};
use onsale::domain::order::Order;
use onsale::persistence::store::dead_letters::NewDeadLetter;
use onsale::persistence::store::orders::OrderFilter;
use onsale::persistence::store::outbox::{Asked, Backlog, Came, Envelope, NewTicket};
use uuid::Uuid;

use crate::fixture::{Fixture, NOW, event, order, timetable, user};

on_every_store!(
    events_are_read_in_order_by_shard_and_place,
    tickets_are_issued_once_and_in_order,
    events_straight_from_the_outbox_are_published_with_their_tickets,
    of_two_consumers_at_once_one_issues,
    a_dead_letter_is_kept_until_it_is_acted_on,
    orders_are_listed_newest_first,
);

/// A timetable with as many events, written in one batch each.
async fn published(f: &Fixture, events: u64) -> TimetableId {
    let show = timetable();
    for number in 1..=events {
        let mut contribution = f.contribution(show.into(), number - 1);
        contribution.outbox.push(event(number));
        f.write(vec![contribution]).await;
    }
    show
}

fn places(events: &[Envelope]) -> Vec<(Uuid, u64)> {
    events.iter().map(|e| (e.entity, e.event_seq)).collect()
}

async fn events_are_read_in_order_by_shard_and_place(f: &Fixture) {
    let mut shows = [published(f, 3).await, published(f, 2).await];
    shows.sort_unstable();
    let all = f.store.unpublished(None, None, 100).await.unwrap();
    let of = |show: TimetableId| all.iter().filter(|e| e.entity == show.0).count();
    assert_eq!((of(shows[0]) + of(shows[1]), all.len()), (5, 5));
    assert!(places(&all).is_sorted());
    let first = &all[0];
    assert_eq!(
        (first.kind.as_str(), first.version, first.at),
        ("order.confirmed", 1, NOW)
    );
    assert_eq!(first.payload, event(1).payload);

    // In pages, from place to place.
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = f.store.unpublished(None, after.as_ref(), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.entity, last.topic.clone(), last.event_seq));
        pages.extend(places(&page));
    }
    assert_eq!(pages, places(&all));

    let shard = EntityId::from(shows[0]).shard();
    let of_shard = f
        .store
        .unpublished(Some(&[shard]), None, 100)
        .await
        .unwrap();
    assert_eq!(of_shard.len(), of(shows[0]));
    let others: Vec<ShardId> = (0..1024)
        .map(ShardId)
        .filter(|other| *other != shard)
        .collect();
    let of_others = f.store.unpublished(Some(&others), None, 100).await.unwrap();
    assert_eq!(of_others.len(), of(shows[1]));
    assert!(
        f.store
            .unpublished(Some(&[]), None, 100)
            .await
            .unwrap()
            .is_empty()
    );

    f.store.mark_published(&all[..4], NOW).await.unwrap();
    let left = f.store.unpublished(None, None, 100).await.unwrap();
    assert_eq!(places(&left), places(&all[4..]));
    let backlog = Backlog {
        events: 1,
        oldest: Some(NOW),
    };
    assert_eq!(f.store.backlog().await.unwrap(), backlog);
    let asked: Vec<_> = all
        .iter()
        .map(|e| (e.entity, e.topic.clone(), e.event_seq))
        .collect();
    let mut published = f.store.published(&asked).await.unwrap();
    published.sort_unstable();
    assert_eq!(published, asked[..4]);
}

/// A timetable with an order of seats 1 and 2, and its event.
async fn sold(f: &Fixture, buyer: UserId) -> (TimetableId, Order, Envelope) {
    let show = timetable();
    let bought = order(show, buyer, &[1, 2]);
    let mut sale = f.contribution(show.into(), 0);
    sale.timetable()
        .unwrap()
        .orders
        .push(Arc::new(bought.clone()));
    sale.outbox.push(event(1));
    f.write(vec![sale]).await;
    let shard = EntityId::from(show).shard();
    let events = f
        .store
        .unpublished(Some(&[shard]), None, 100)
        .await
        .unwrap();
    let event = events.into_iter().find(|e| e.entity == show.0).unwrap();
    (show, bought, event)
}

fn ticket(show: TimetableId, order: OrderId, seat: u32, user: UserId) -> NewTicket {
    NewTicket {
        id: Uuid::now_v7(),
        order: order.0,
        seat,
        timetable: show.0,
        user: user.0,
    }
}

async fn issue(f: &Fixture, event: &Envelope, number: u64, tickets: Vec<NewTicket>) -> bool {
    let event = Envelope {
        event_seq: number,
        ..event.clone()
    };
    let issued = f.store.issue_tickets(
        "tickets",
        Came::OverBroker,
        vec![(event, Asked::Tickets(tickets))],
        "kid".to_owned(),
        NOW,
    );
    issued.await.unwrap()[0]
}

async fn events_straight_from_the_outbox_are_published_with_their_tickets(f: &Fixture) {
    let ann = user();
    let (show, bought, _) = sold(f, ann).await;
    let found = f.store.unpublished(None, None, 100).await.unwrap();
    let [event] = found.try_into().unwrap();
    let behind_a_gap = Envelope {
        event_seq: 3,
        ..event.clone()
    };
    let ticket = ticket(show, bought.id, 1, ann);
    let asked = vec![
        (event, Asked::Tickets(vec![ticket])),
        (behind_a_gap, Asked::Tickets(Vec::new())),
    ];
    let kid = "kid".to_owned();
    let issued = f
        .store
        .issue_tickets("tickets", Came::FromOutbox, asked, kid, NOW);
    assert_eq!(issued.await.unwrap(), [true, false]);
    assert_eq!(f.store.backlog().await.unwrap().events, 0);
    assert_eq!(f.store.tickets_of(ann, None, 100).await.unwrap().len(), 1);
}

async fn tickets_are_issued_once_and_in_order(f: &Fixture) {
    let ann = user();
    let (show, bought, event) = sold(f, ann).await;
    let for_seat = |seat| ticket(show, bought.id, seat, ann);
    let of = async || f.store.tickets_of(ann, None, 100).await.unwrap();
    assert!(
        !issue(f, &event, 2, vec![for_seat(1)]).await,
        "behind a gap"
    );
    assert!(of().await.is_empty());
    // Seat 3 is not the order's.
    assert!(issue(f, &event, 1, vec![for_seat(1), for_seat(3)]).await);
    assert_eq!(of().await.len(), 1);
    assert!(
        issue(f, &event, 1, vec![for_seat(2)]).await,
        "a repetition is dropped"
    );
    assert_eq!(of().await.len(), 1);
    assert!(issue(f, &event, 2, vec![for_seat(1), for_seat(2)]).await);
    let tickets = of().await;
    let mut seats: Vec<u32> = tickets.iter().map(|ticket| ticket.seat.0).collect();
    seats.sort_unstable();
    assert_eq!(seats, [1, 2]);
    let one = f
        .store
        .ticket_of(ann, tickets[0].id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (one.kid.as_str(), one.status.as_str(), one.order),
        ("kid", "valid", bought.id)
    );
    assert!(
        f.store
            .ticket_of(user(), tickets[0].id)
            .await
            .unwrap()
            .is_none()
    );
    let older = f
        .store
        .tickets_of(ann, Some(tickets[0].id), 9)
        .await
        .unwrap();
    assert_eq!(older.len(), 1);
    let row = f.store.order_of(ann, bought.id).await.unwrap().unwrap();
    assert_eq!(row.tickets.len(), 2);
}

async fn of_two_consumers_at_once_one_issues(f: &Fixture) {
    let ann = user();
    let (show, bought, event) = sold(f, ann).await;
    let for_seat = |seat| vec![ticket(show, bought.id, seat, ann)];
    let (one, other) = tokio::join!(
        issue(f, &event, 1, for_seat(1)),
        issue(f, &event, 1, for_seat(2))
    );
    assert!(one && other);
    assert_eq!(f.store.tickets_of(ann, None, 9).await.unwrap().len(), 1);
}

async fn orders_are_listed_newest_first(f: &Fixture) {
    let (show, ann) = (timetable(), user());
    let mut sale = f.contribution(show.into(), 0);
    let orders: Vec<Order> = (0..3).map(|n| order(show, ann, &[n])).collect();
    let rows = &mut sale.timetable().unwrap().orders;
    rows.extend(orders.iter().cloned().map(Arc::new));
    f.write(vec![sale]).await;
    let ids = async |filter: OrderFilter| {
        let rows = f.store.orders_of(ann, filter).await.unwrap();
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let all = OrderFilter {
        limit: 9,
        ..OrderFilter::default()
    };
    let mut newest: Vec<OrderId> = orders.iter().map(|order| order.id).collect();
    newest.sort_unstable();
    newest.reverse();
    assert_eq!(ids(all.clone()).await, newest);
    let after = OrderFilter {
        after: Some(newest[0]),
        limit: 1,
        ..all.clone()
    };
    assert_eq!(ids(after).await, newest[1..2]);
    let status = |status: &str| OrderFilter {
        status: Some(status.to_owned()),
        from: Some(NOW),
        ..all.clone()
    };
    assert_eq!(ids(status("confirmed")).await, newest);
    assert!(ids(status("cancelled")).await.is_empty());
    let before = OrderFilter {
        to: Some(NOW),
        ..all.clone()
    };
    assert!(ids(before).await.is_empty());
}

async fn a_dead_letter_is_kept_until_it_is_acted_on(f: &Fixture) {
    let ann = user();
    let (show, bought, event) = sold(f, ann).await;
    let letter = |source: &str| NewDeadLetter {
        id: Uuid::now_v7(),
        topic: event.topic.clone(),
        source: source.to_owned(),
        body: "{\"a\": \"ü\"}".to_owned(),
        reason: "it has no seats".to_owned(),
    };
    let (first, second) = (letter("one"), letter("two"));
    let asked = Asked::Dead(first.clone());
    let issued = f.store.issue_tickets(
        "tickets",
        Came::OverBroker,
        vec![(event.clone(), asked)],
        "kid".to_owned(),
        NOW,
    );
    assert_eq!(issued.await.unwrap(), [true]);
    for repeated in [&second, &second, &first] {
        let mut again = repeated.clone();
        again.id = Uuid::now_v7();
        let add = f.store.add_dead_letter("tickets", again, NOW);
        add.await.unwrap();
    }
    let letters = f.store.dead_letters(None, 9).await.unwrap();
    assert_eq!(letters.len(), 2);
    assert_eq!(
        (letters[0].id, letters[0].body.as_str()),
        (first.id, first.body.as_str())
    );
    assert_eq!((letters[0].attempts, letters[0].requeued_at), (1, None));
    assert_eq!(
        f.store.dead_letters(Some(first.id), 9).await.unwrap(),
        letters[1..]
    );

    f.store
        .keep_dead_letter(first.id, "still".to_owned())
        .await
        .unwrap();
    for _ in 0..2 {
        let tickets = vec![ticket(show, bought.id, 1, ann)];
        let issue = f
            .store
            .issue_dead_letter(first.id, tickets, "kid".to_owned(), NOW);
        issue.await.unwrap();
    }
    let kept = f.store.dead_letter(first.id).await.unwrap().unwrap();
    assert_eq!((kept.reason.as_str(), kept.attempts), ("still", 3));
    assert_eq!(kept.requeued_at, Some(NOW));
    assert_eq!(f.store.tickets_of(ann, None, 9).await.unwrap().len(), 1);
    assert_eq!(f.store.dead_letters(None, 9).await.unwrap(), letters[1..]);
}
