//! What the event bus promises (the doc comment of `onsale::persistence::bus`),
//! over each implementation: in this process, and a real Kafka broker; on each
//! store: SQLite, and a real Postgres.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may panic, that is how it fails; and it measures real time"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/database.rs"]
mod database;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use onsale::domain::time::Timestamp;
use onsale::persistence::bus::notices::Deed;
use onsale::persistence::bus::{ORDERS_TOPIC, message};
use onsale::persistence::store::outbox::Envelope;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use uuid::Uuid;

use common::eventually;
use world::{LIMIT, On, Over, World, brokers};

/// Long enough for what must not happen to happen.
const QUIET: Duration = Duration::from_secs(2);

/// Runs each test over each implementation, and on each store.
macro_rules! over_each {
    ($($name:ident)*) => {
        over_each! { in_process InProcess Sqlite; $($name)* }
        over_each! { kafka Kafka Sqlite; $($name)* }
        over_each! { in_process_on_postgres InProcess Postgres; $($name)* }
        over_each! { kafka_on_postgres Kafka Postgres; $($name)* }
    };
    ($module:ident $over:ident $on:ident; $($name:ident)*) => {
        mod $module {
            use crate::world::{On, Over};

            // With a thread beside the test's own: that one waits for its database
            // to be dropped, and Postgres waits until connections that are being
            // opened meanwhile have said who they are (or a minute).
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn $name() { super::$name(Over::$over, On::$on).await; })*
        }
    };
}

over_each! {
    every_event_is_acted_on_once_and_in_order
    a_repetition_is_dropped
    an_event_behind_a_gap_waits_and_others_do_not
    poison_becomes_a_dead_letter_and_what_is_behind_it_goes_on
    a_dead_letter_that_is_mended_is_acted_on_when_requeued
    a_killed_bus_resumes_where_it_was
    waiting_rooms_are_told_of_every_purchase
}

async fn every_event_is_acted_on_once_and_in_order(over: Over, on: On) {
    let world = World::new(over, on).await;
    let timetables: Vec<Uuid> = (0..5).map(|_| Uuid::now_v7()).collect();
    for number in 1..=20_u32 {
        for timetable in &timetables {
            world
                .sell(*timetable, number.into(), number * 2..number * 2 + 2)
                .await;
        }
    }
    world.until_tickets(5 * 20 * 2).await;
    for timetable in &timetables {
        assert_eq!(world.mark(*timetable).await, 20);
    }
    if over == Over::Kafka {
        let mut last: BTreeMap<Uuid, u64> = BTreeMap::new();
        for (body, _) in world.read_topic(ORDERS_TOPIC, 100).await {
            let event = message::from_json(&body).unwrap();
            let last = last.entry(event.entity).or_default();
            assert!(
                event.event_seq <= *last + 1,
                "a first occurrence out of order"
            );
            *last = event.event_seq.max(*last);
        }
        assert!(last.len() == 5 && last.values().all(|last| *last == 20));
    }
}

async fn a_repetition_is_dropped(over: Over, on: On) {
    let world = World::new(over, on).await;
    let timetable = Uuid::now_v7();
    for number in 1..=3_u32 {
        world
            .sell(timetable, number.into(), number * 2..number * 2 + 2)
            .await;
    }
    world.until_tickets(6).await;
    // As after a crash between publishing and noting it.
    world.change("UPDATE outbox SET published_at = NULL").await;
    world.wake.notify_one();
    world.sell(timetable, 4, 20..21).await;
    world.until_tickets(7).await;
    assert_eq!(world.mark(timetable).await, 4);
}

async fn an_event_behind_a_gap_waits_and_others_do_not(over: Over, on: On) {
    let world = World::new(over, on).await;
    let (holed, whole) = (Uuid::now_v7(), Uuid::now_v7());
    world.sell(holed, 1, 0..1).await;
    world.sell(holed, 3, 2..3).await;
    for number in 1..=3_u32 {
        world.sell(whole, number.into(), number..number + 1).await;
    }
    eventually("the others", LIMIT, || async {
        (world.tickets().await == 4).then_some(())
    })
    .await;
    tokio::time::sleep(QUIET).await;
    assert_eq!((world.tickets().await, world.mark(holed).await), (4, 1));
    world.sell(holed, 2, 1..2).await;
    world.until_tickets(6).await;
    assert_eq!(world.mark(holed).await, 3);
}

async fn poison_becomes_a_dead_letter_and_what_is_behind_it_goes_on(over: Over, on: On) {
    let world = World::new(over, on).await;
    let timetable = Uuid::now_v7();
    let from_the_future = world.sold(timetable, 0..1).await;
    world.publish(timetable, 1, 9, &from_the_future).await;
    world.publish(timetable, 2, 1, r#"{"seats":7}"#).await;
    world.publish(timetable, 3, 1, "no json").await;
    world.sell(timetable, 4, 5..6).await;
    world.until_tickets(1).await;
    let letters = world.dead(3).await;
    assert!(letters[0].reason.contains("version 9"), "{letters:?}");
    assert!(
        letters
            .iter()
            .all(|l| l.topic == ORDERS_TOPIC && l.attempts == 1)
    );
    let bus = world.bus.as_ref().unwrap();
    let still = bus.requeue(letters[0].id).await.unwrap().unwrap();
    assert_eq!((still.attempts, still.requeued_at), (2, None));
    assert!(bus.requeue(Uuid::now_v7()).await.unwrap().is_none());
    if over == Over::Kafka {
        let told = world.read_topic(&format!("{ORDERS_TOPIC}.dead"), 3).await;
        let reasons: Vec<_> = told
            .iter()
            .filter_map(|(_, reason)| reason.as_ref())
            .collect();
        for letter in &letters {
            assert!(reasons.contains(&&letter.reason), "{reasons:?}");
        }
    }
}

async fn a_dead_letter_that_is_mended_is_acted_on_when_requeued(over: Over, on: On) {
    let world = World::new(over, on).await;
    let timetable = Uuid::now_v7();
    let data = world.sold(timetable, 0..2).await;
    world.publish(timetable, 1, 9, &data).await;
    let letter = world.dead(1).await.remove(0);
    world
        .change("UPDATE dead_letter SET body = replace(body, '\"version\":9', '\"version\":1')")
        .await;
    let bus = world.bus.as_ref().unwrap();
    // Twice at once: its tickets come once.
    let (first, second) = tokio::join!(bus.requeue(letter.id), bus.requeue(letter.id));
    assert!(first.unwrap().unwrap().requeued_at.is_some());
    assert!(second.unwrap().unwrap().requeued_at.is_some());
    assert_eq!(world.tickets().await, 2);
    world.dead(0).await;
}

async fn a_killed_bus_resumes_where_it_was(over: Over, on: On) {
    let mut world = World::new(over, on).await;
    let timetables: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
    let mut number = 0_u32;
    for round in 0..4_u64 {
        for _ in 0..10 {
            number += 1;
            for timetable in &timetables {
                world
                    .sell(*timetable, number.into(), number..number + 1)
                    .await;
            }
        }
        // At another moment each time, in the middle of what it does.
        tokio::time::sleep(Duration::from_millis(round * 120)).await;
        world.bus = None;
        world.start();
    }
    world.until_tickets(i64::from(number) * 4).await;
    for timetable in &timetables {
        assert_eq!(world.mark(*timetable).await, u64::from(number));
    }
}

async fn waiting_rooms_are_told_of_every_purchase(over: Over, on: On) {
    let world = World::new(over, on).await;
    world.queues_are_away.store(true, Ordering::Relaxed);
    let timetable = Uuid::now_v7();
    for number in 1..=3_u32 {
        world
            .sell(timetable, number.into(), number..number + 1)
            .await;
    }
    tokio::time::sleep(QUIET).await;
    assert!(world.told.lock().is_empty());
    world.queues_are_away.store(false, Ordering::Relaxed);
    let buyers = "SELECT count(DISTINCT user_id) FROM sold_seat";
    assert_eq!(world.count(buyers).await, 3);
    eventually("all are told", LIMIT, || async {
        let told = world.told.lock().clone();
        let users: BTreeSet<Uuid> = told.iter().map(|notice| notice.user.0).collect();
        (users.len() == 3 && told.iter().all(|notice| notice.deed == Deed::Purchased)).then_some(())
    })
    .await;
    world.until_tickets(3).await;
}

/// A message of this event, as the relay would send it.
async fn send(world: &World, body: &str) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .create()
        .unwrap();
    let topic = format!("{}{ORDERS_TOPIC}", world.config.kafka.prefix);
    let record = FutureRecord::to(&topic).key("any").payload(body);
    producer.send(record, LIMIT).await.unwrap();
}

#[tokio::test]
async fn what_comes_over_kafka_out_of_order_waits_for_what_is_missing() {
    let world = World::new(Over::Kafka, On::Sqlite).await;
    // The topics are there from the first event on.
    world.sell(Uuid::now_v7(), 1, 0..1).await;
    world.until_tickets(1).await;
    let timetable = Uuid::now_v7();
    let mut bodies = Vec::new();
    for number in 1..=3_u32 {
        let event = Envelope {
            entity: timetable,
            topic: ORDERS_TOPIC.to_owned(),
            event_seq: number.into(),
            event_id: Uuid::now_v7(),
            kind: "order.confirmed".to_owned(),
            version: 1,
            at: Timestamp(0),
            trace: None,
            payload: world.sold(timetable, number..number + 1).await,
        };
        bodies.push(message::to_json(&event));
    }
    send(&world, &bodies[2]).await;
    send(&world, &bodies[1]).await;
    send(&world, &bodies[2]).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!((world.tickets().await, world.mark(timetable).await), (1, 0));
    send(&world, &bodies[0]).await;
    world.until_tickets(4).await;
    assert_eq!(world.mark(timetable).await, 3);
}

#[tokio::test]
async fn what_is_no_event_at_all_becomes_a_dead_letter_once() {
    let mut world = World::new(Over::Kafka, On::Sqlite).await;
    world.sell(Uuid::now_v7(), 1, 0..1).await;
    world.until_tickets(1).await;
    send(&world, "hello").await;
    let letters = world.dead(1).await;
    assert_eq!(letters[0].body, "hello");
    // Killed before its position was noted, or after: it dies once.
    world.bus = None;
    world.start();
    world.sell(Uuid::now_v7(), 1, 0..1).await;
    world.until_tickets(2).await;
    world.dead(1).await;
}
