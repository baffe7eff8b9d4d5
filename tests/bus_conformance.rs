//! What the event bus promises (the doc comment of `onsale::persistence::bus`),
//! over each implementation: in this process, and a real Kafka broker.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may panic, that is how it fails; and it measures real time"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onsale::clock::Clock;
use onsale::config::Config;
use onsale::domain::time::Timestamp;
use onsale::persistence::Store;
use onsale::persistence::bus::kafka::producer::REASON_HEADER;
use onsale::persistence::bus::notices::{Deed, NotTold, Notice, Tell};
use onsale::persistence::bus::{Bus, ORDERS_TOPIC, Options, TOPICS, message};
use onsale::persistence::store::dead_letters::DeadLetter;
use onsale::persistence::store::outbox::Envelope;
use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;
use tokio::sync::Notify;
use uuid::Uuid;

use common::eventually;

/// Nothing here takes longer, on a busy machine with a cold broker.
const LIMIT: Duration = Duration::from_secs(60);

/// Long enough for what must not happen to happen.
const QUIET: Duration = Duration::from_secs(2);

/// Which implementation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Over {
    InProcess,
    Kafka,
}

/// The address of the broker that `scripts/services` runs.
fn brokers() -> String {
    std::env::var("ONSALE_KAFKA__BROKERS").unwrap_or_else(|_| {
        panic!("ONSALE_KAFKA__BROKERS is not set: `scripts/services start` runs a broker, `scripts/services run COMMAND` tells COMMAND its address")
    })
}

/// A store with an outbox, and a bus that can be stopped, killed and started.
struct World {
    config: Config,
    store: Store,
    /// Below the store's seam.
    rows: SqlitePool,
    wake: Arc<Notify>,
    /// What waiting rooms were told.
    told: Arc<Mutex<Vec<Notice>>>,
    /// Whether they can't be told now.
    queues_are_away: Arc<AtomicBool>,
    bus: Option<Bus>,
    _folder: TempDir,
}

impl World {
    async fn new(over: Over) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("bus.db");
        let mut config = Config::default();
        config.store.url = format!("sqlite://{}", file.display());
        if over == Over::Kafka {
            config.kafka.brokers = vec![brokers()];
            // Topics and a group of its own.
            config.kafka.prefix = format!("test-{}.", Uuid::now_v7().simple());
            config.kafka.partitions = 3;
        }
        let store = Store::open(&config.store).await.unwrap();
        let rows = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&file))
            .await
            .unwrap();
        let mut world = Self {
            config,
            store,
            rows,
            wake: Arc::default(),
            told: Arc::default(),
            queues_are_away: Arc::default(),
            bus: None,
            _folder: folder,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let (told, away) = (Arc::clone(&self.told), Arc::clone(&self.queues_are_away));
        let tell_queue: Tell = Arc::new(move |notice| {
            let is_away = away.load(Ordering::Relaxed);
            if !is_away {
                told.lock().push(notice);
            }
            Box::pin(async move {
                if is_away {
                    Err(NotTold::StoreAway)
                } else {
                    Ok(())
                }
            })
        });
        let options = Options {
            store: self.store.clone(),
            clock: Clock::system(),
            ticket_kid: "kid".to_owned(),
            node: "node-1".to_owned(),
            owned: Arc::new(|| None),
            wake: Arc::clone(&self.wake),
            tell_queue,
        };
        self.bus = Some(Bus::start(&self.config.kafka, options).unwrap());
    }

    /// An order of `seats` of `timetable`, sold, with its event.
    async fn sell(&self, timetable: Uuid, event_seq: u64, seats: std::ops::Range<u32>) {
        let data = self.sold(timetable, seats).await;
        self.publish(timetable, event_seq, 1, &data).await;
    }

    /// The same without its event; returns what the event would say.
    async fn sold(&self, timetable: Uuid, seats: std::ops::Range<u32>) -> String {
        let (order, user) = (Uuid::now_v7(), Uuid::now_v7());
        for seat in seats.clone() {
            sqlx::query("INSERT INTO sold_seat (timetable_id, seat, order_id, user_id, price) VALUES (?1, ?2, ?3, ?4, 1)")
                .bind(timetable)
                .bind(seat)
                .bind(order)
                .bind(user)
                .execute(&self.rows)
                .await
                .unwrap();
        }
        let seats: Vec<_> = seats
            .map(|seat| serde_json::json!({ "seat": seat }))
            .collect();
        serde_json::json!({
            "order_id": order, "user_id": user, "performance_id": Uuid::now_v7(),
            "timetable_id": timetable, "seats": seats,
        })
        .to_string()
    }

    async fn publish(&self, timetable: Uuid, event_seq: u64, version: u16, data: &str) {
        sqlx::query(
            "INSERT INTO outbox (entity, topic, event_seq, event_id, type, version, at, payload) \
             VALUES (?1, ?2, ?3, ?4, 'order.confirmed', ?5, 0, ?6)",
        )
        .bind(timetable)
        .bind(ORDERS_TOPIC)
        .bind(event_seq.cast_signed())
        .bind(Uuid::now_v7())
        .bind(version)
        .bind(data)
        .execute(&self.rows)
        .await
        .unwrap();
        self.wake.notify_one();
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.rows).await.unwrap()
    }

    async fn tickets(&self) -> i64 {
        self.count("SELECT count(*) FROM ticket").await
    }

    async fn unpublished(&self) -> u64 {
        self.store.backlog().await.unwrap().events
    }

    async fn mark(&self, timetable: Uuid) -> u64 {
        let mark: Option<i64> = sqlx::query_scalar(
            "SELECT event_seq FROM consumer_mark WHERE consumer = 'tickets' AND entity = ?1",
        )
        .bind(timetable)
        .fetch_optional(&self.rows)
        .await
        .unwrap();
        mark.unwrap_or_default().cast_unsigned()
    }

    async fn until_tickets(&self, count: i64) {
        eventually("the tickets", LIMIT, || async {
            (self.tickets().await >= count && self.unpublished().await == 0).then_some(())
        })
        .await;
        assert_eq!(self.tickets().await, count, "no more than there are seats");
    }

    async fn dead(&self, count: usize) -> Vec<DeadLetter> {
        eventually("the dead letters", LIMIT, || async {
            let letters = self.store.dead_letters(None, 100).await.unwrap();
            (letters.len() == count).then_some(letters)
        })
        .await
    }

    /// What a topic holds, from its beginning: all of `count` messages.
    async fn read_topic(&self, topic: &str, count: usize) -> Vec<(String, Option<String>)> {
        let reader: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers())
            .set("group.id", format!("{}reader", self.config.kafka.prefix))
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        let topic = format!("{}{topic}", self.config.kafka.prefix);
        reader.subscribe(&[&topic]).unwrap();
        let mut read = Vec::new();
        let reading = async {
            while read.len() < count {
                let Ok(message) = reader.recv().await else {
                    continue;
                };
                let body = String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
                let reason = message.headers().and_then(|headers| {
                    let header = headers.iter().find(|header| header.key == REASON_HEADER)?;
                    String::from_utf8(header.value?.to_vec()).ok()
                });
                read.push((body, reason));
            }
        };
        tokio::time::timeout(LIMIT, reading).await.unwrap();
        read
    }
}

impl Drop for World {
    /// Takes its topics out of the broker that all tests share.
    fn drop(&mut self) {
        if self.config.kafka.brokers.is_empty() {
            return;
        }
        drop(self.bus.take());
        let prefix = self.config.kafka.prefix.clone();
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let admin: AdminClient<_> = ClientConfig::new()
                .set("bootstrap.servers", brokers())
                .create()
                .unwrap();
            let mut names: Vec<String> = TOPICS.iter().map(|t| format!("{prefix}{t}")).collect();
            names.push(format!("{prefix}{ORDERS_TOPIC}.dead"));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let _ = runtime.block_on(admin.delete_topics(&names, &AdminOptions::new()));
        });
        let _ = removing.join();
    }
}

/// Runs each test over each implementation.
macro_rules! over_both {
    ($($name:ident)*) => {
        mod in_process {
            $(#[tokio::test]
            async fn $name() { super::$name(super::Over::InProcess).await; })*
        }
        mod kafka {
            $(#[tokio::test]
            async fn $name() { super::$name(super::Over::Kafka).await; })*
        }
    };
}

over_both! {
    every_event_is_acted_on_once_and_in_order
    a_repetition_is_dropped
    an_event_behind_a_gap_waits_and_others_do_not
    poison_becomes_a_dead_letter_and_what_is_behind_it_goes_on
    a_dead_letter_that_is_mended_is_acted_on_when_requeued
    a_killed_bus_resumes_where_it_was
    waiting_rooms_are_told_of_every_purchase
}

async fn every_event_is_acted_on_once_and_in_order(over: Over) {
    let world = World::new(over).await;
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

async fn a_repetition_is_dropped(over: Over) {
    let world = World::new(over).await;
    let timetable = Uuid::now_v7();
    for number in 1..=3_u32 {
        world
            .sell(timetable, number.into(), number * 2..number * 2 + 2)
            .await;
    }
    world.until_tickets(6).await;
    // As after a crash between publishing and noting it.
    sqlx::query("UPDATE outbox SET published_at = NULL")
        .execute(&world.rows)
        .await
        .unwrap();
    world.wake.notify_one();
    world.sell(timetable, 4, 20..21).await;
    world.until_tickets(7).await;
    assert_eq!(world.mark(timetable).await, 4);
}

async fn an_event_behind_a_gap_waits_and_others_do_not(over: Over) {
    let world = World::new(over).await;
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

async fn poison_becomes_a_dead_letter_and_what_is_behind_it_goes_on(over: Over) {
    let world = World::new(over).await;
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

async fn a_dead_letter_that_is_mended_is_acted_on_when_requeued(over: Over) {
    let world = World::new(over).await;
    let timetable = Uuid::now_v7();
    let data = world.sold(timetable, 0..2).await;
    world.publish(timetable, 1, 9, &data).await;
    let letter = world.dead(1).await.remove(0);
    sqlx::query("UPDATE dead_letter SET body = replace(body, '\"version\":9', '\"version\":1')")
        .execute(&world.rows)
        .await
        .unwrap();
    let bus = world.bus.as_ref().unwrap();
    // Twice at once: its tickets come once.
    let (first, second) = tokio::join!(bus.requeue(letter.id), bus.requeue(letter.id));
    assert!(first.unwrap().unwrap().requeued_at.is_some());
    assert!(second.unwrap().unwrap().requeued_at.is_some());
    assert_eq!(world.tickets().await, 2);
    world.dead(0).await;
}

async fn a_killed_bus_resumes_where_it_was(over: Over) {
    let mut world = World::new(over).await;
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

async fn waiting_rooms_are_told_of_every_purchase(over: Over) {
    let world = World::new(over).await;
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
    let world = World::new(Over::Kafka).await;
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
    let mut world = World::new(Over::Kafka).await;
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
