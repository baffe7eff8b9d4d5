//! A store with an outbox, and the bus that carries what is in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onsale::clock::Clock;
use onsale::config::Config;
use onsale::domain::ids::shard_of;
use onsale::persistence::Store;
use onsale::persistence::bus::kafka::producer::REASON_HEADER;
use onsale::persistence::bus::notices::{NotTold, Notice, Tell};
use onsale::persistence::bus::{Bus, ORDERS_TOPIC, Options, TOPICS};
use onsale::persistence::store::dead_letters::DeadLetter;
use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::{Headers as _, Message as _};
use sqlx::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::common::eventually;
use crate::database::Database;

/// Nothing here takes longer, on a busy machine with a cold broker.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Which implementation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Over {
    InProcess,
    Kafka,
}

/// Which store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum On {
    Sqlite,
    Postgres,
}

/// The rows below the store's seam.
enum Rows {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Binds values to a statement that both understand, and runs it.
macro_rules! on_rows {
    ($rows:expr, $sql:expr, [$($value:expr),*], $run:ident) => {
        match $rows {
            Rows::Sqlite(pool) => sqlx::query_scalar::<_, i64>($sql)$(.bind($value))*.$run(pool).await.unwrap(),
            Rows::Postgres(pool) => sqlx::query_scalar::<_, i64>($sql)$(.bind($value))*.$run(pool).await.unwrap(),
        }
    };
}

/// The address of the broker that `scripts/services` runs.
pub(crate) fn brokers() -> String {
    std::env::var("ONSALE_KAFKA__BROKERS").unwrap_or_else(|_| {
        panic!("ONSALE_KAFKA__BROKERS is not set: `scripts/services start` runs a broker, `scripts/services run COMMAND` tells COMMAND its address")
    })
}

/// A store with an outbox, and a bus that can be stopped, killed and started.
pub(crate) struct World {
    pub(crate) config: Config,
    store: Store,
    rows: Rows,
    pub(crate) wake: Arc<Notify>,
    /// What waiting rooms were told.
    pub(crate) told: Arc<Mutex<Vec<Notice>>>,
    /// Whether they can't be told now.
    pub(crate) queues_are_away: Arc<AtomicBool>,
    pub(crate) bus: Option<Bus>,
    _folder: TempDir,
    _database: Option<Database>,
}

impl World {
    pub(crate) async fn new(over: Over, on: On) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("bus.db");
        let database = match on {
            On::Sqlite => None,
            On::Postgres => Some(Database::empty().await),
        };
        let mut config = Config::default();
        config.store.url = database
            .as_ref()
            .map_or_else(|| format!("sqlite://{}", file.display()), Database::url);
        if over == Over::Kafka {
            config.kafka.brokers = vec![brokers()];
            // Topics and a group of its own.
            config.kafka.prefix = format!("test-{}.", Uuid::now_v7().simple());
            config.kafka.partitions = 3;
        }
        let store = Store::open(&config.store).await.unwrap();
        let rows = match &database {
            None => {
                let file = SqliteConnectOptions::new().filename(&file);
                Rows::Sqlite(SqlitePool::connect_with(file).await.unwrap())
            }
            Some(database) => {
                let pool = PgPool::connect_with(database.options()).await.unwrap();
                Rows::Postgres(pool)
            }
        };
        let mut world = Self {
            config,
            store,
            rows,
            wake: Arc::default(),
            told: Arc::default(),
            queues_are_away: Arc::default(),
            bus: None,
            _folder: folder,
            _database: database,
        };
        world.start();
        world
    }

    pub(crate) fn start(&mut self) {
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
    pub(crate) async fn sell(&self, timetable: Uuid, event_seq: u64, seats: std::ops::Range<u32>) {
        let data = self.sold(timetable, seats).await;
        self.publish(timetable, event_seq, 1, &data).await;
    }

    /// The same without its event; returns what the event would say.
    pub(crate) async fn sold(&self, timetable: Uuid, seats: std::ops::Range<u32>) -> String {
        let (order, user) = (Uuid::now_v7(), Uuid::now_v7());
        for seat in seats.clone() {
            on_rows!(
                &self.rows,
                "INSERT INTO sold_seat (timetable_id, seat, order_id, user_id, price) \
                 VALUES ($1, $2, $3, $4, 1) RETURNING price",
                [timetable, seat.cast_signed(), order, user],
                fetch_one
            );
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

    pub(crate) async fn publish(&self, timetable: Uuid, event_seq: u64, version: u16, data: &str) {
        let (seq, id, version) = (event_seq.cast_signed(), Uuid::now_v7(), i32::from(version));
        match &self.rows {
            Rows::Sqlite(pool) => {
                let insert = "INSERT INTO outbox \
                     (entity, topic, event_seq, event_id, type, version, at, payload) \
                     VALUES ($1, $2, $3, $4, 'order.confirmed', $5, 0, $6)";
                let insert = sqlx::query(insert).bind(timetable).bind(ORDERS_TOPIC);
                let insert = insert.bind(seq).bind(id).bind(version).bind(data);
                insert.execute(pool).await.unwrap();
            }
            Rows::Postgres(pool) => {
                let insert = "INSERT INTO outbox \
                     (entity, topic, event_seq, event_id, type, version, at, payload, shard) \
                     VALUES ($1, $2, $3, $4, 'order.confirmed', $5, 0, $6, $7)";
                let insert = sqlx::query(insert).bind(timetable).bind(ORDERS_TOPIC);
                let insert = insert.bind(seq).bind(id).bind(version).bind(data);
                let insert = insert.bind(shard_of(timetable).0.cast_signed());
                insert.execute(pool).await.unwrap();
            }
        }
        self.wake.notify_one();
    }

    /// Runs a statement that changes something.
    pub(crate) async fn change(&self, sql: &'static str) {
        match &self.rows {
            Rows::Sqlite(pool) => drop(sqlx::query(sql).execute(pool).await.unwrap()),
            Rows::Postgres(pool) => drop(sqlx::query(sql).execute(pool).await.unwrap()),
        }
    }

    /// The number that a statement selects.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        on_rows!(&self.rows, sql, [], fetch_one)
    }

    pub(crate) async fn tickets(&self) -> i64 {
        self.count("SELECT count(*) FROM ticket").await
    }

    async fn unpublished(&self) -> u64 {
        self.store.backlog().await.unwrap().events
    }

    pub(crate) async fn mark(&self, timetable: Uuid) -> u64 {
        let mark = on_rows!(
            &self.rows,
            "SELECT event_seq FROM consumer_mark WHERE consumer = 'tickets' AND entity = $1",
            [timetable],
            fetch_optional
        );
        mark.unwrap_or_default().cast_unsigned()
    }

    pub(crate) async fn until_tickets(&self, count: i64) {
        eventually("the tickets", LIMIT, || async {
            (self.tickets().await >= count && self.unpublished().await == 0).then_some(())
        })
        .await;
        assert_eq!(self.tickets().await, count, "no more than there are seats");
    }

    pub(crate) async fn dead(&self, count: usize) -> Vec<DeadLetter> {
        eventually("the dead letters", LIMIT, || async {
            let letters = self.store.dead_letters(None, 100).await.unwrap();
            (letters.len() == count).then_some(letters)
        })
        .await
    }

    /// What a topic holds, from its beginning: all of `count` messages.
    pub(crate) async fn read_topic(
        &self,
        topic: &str,
        count: usize,
    ) -> Vec<(String, Option<String>)> {
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
