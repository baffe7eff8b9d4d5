//! Kafka in trouble: frozen and killed under load. Sales go on, the outbox
//! grows, is then delivered in order, and each ticket is issued exactly once.
//!
//! The broker is one of the test's own, started by `scripts/services`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may panic, that is how it fails; and it measures real time"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::Message as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use common::client::Client;
use common::eventually;
use common::process::{ServerProcess, Settings, sign_up};
use common::scene::{Scene, Show};

/// The ports of this test's broker, away from those of `scripts/services`.
const PORT: &str = "15560";
const BROKER: &str = "127.0.0.1:15563";

const BUYERS: usize = 4;
const SEATS: u32 = 2_000;
const PRICE: i64 = 100;

/// How long each trouble lasts.
const TROUBLE: Duration = Duration::from_secs(10);

/// From the broker's return to the last ticket: the longest wait of the client
/// before it looks again, times ten.
const RECOVERY_LIMIT: Duration = Duration::from_secs(100);

/// A broker that can be frozen and killed.
struct Broker {
    folder: TempDir,
}

impl Broker {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        // Its user must be able to reach it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let broker = Self { folder };
        broker.services(&["start", "kafka"]);
        broker
    }

    fn services(&self, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services");
        let output = Command::new(script)
            .args(arguments)
            .env("ONSALE_SERVICES_DIR", self.folder.path())
            .env("ONSALE_SERVICES_PORT", PORT)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let may_fail = arguments[0] == "status";
        assert!(
            may_fail || output.status.success(),
            "scripts/services {arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    fn signal(&self, signal: &str) {
        let status = self.services(&["status", "kafka"]);
        let pid = status.trim().rsplit(' ').next().unwrap();
        pid.parse::<u32>()
            .unwrap_or_else(|_| panic!("no pid in {status:?}"));
        let sent = Command::new("kill").args(["-s", signal, pid]).status();
        assert!(sent.unwrap().success(), "kill -s {signal} {pid}");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.services(&["stop", "kafka"]);
    }
}

struct World {
    server: ServerProcess,
    settings: Settings,
    scene: Scene,
    tokens: Vec<String>,
    _folder: TempDir,
}

impl World {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let settings = Settings::in_folder(folder.path())
            .env("ONSALE_KAFKA__BROKERS", BROKER)
            .env("ONSALE_RATES__HOLDS_PER_SECOND", "100000")
            .env("ONSALE_RATES__HOLDS_BURST", "100000");
        let server = ServerProcess::start(&settings);
        let show = Show::grid(SEATS / 50, 50, PRICE).limit("max_seats_per_user", 100_000);
        let scene = show.open(&server.admin().await).await;
        let mut tokens = Vec::new();
        for user in 0..BUYERS {
            let email = format!("buyer-{user}@example.com");
            let buyer = sign_up(&server.client(), &email, "a long enough password").await;
            buyer.charge(PRICE * i64::from(SEATS)).await;
            tokens.push(buyer.token().to_owned());
        }
        Self {
            server,
            settings,
            scene,
            tokens,
            _folder: folder,
        }
    }

    fn buyers(&self) -> Vec<Client> {
        let client = self.server.client();
        self.tokens
            .iter()
            .map(|token| client.with_token(token))
            .collect()
    }

    async fn outbox(&self) -> u64 {
        let metrics = self.server.client().root("/metrics").send().await.text();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("onsale_outbox_events "));
        line.map_or(0, |line| {
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
        })
    }

    /// The tickets of all buyers, by seat.
    async fn tickets(&self) -> BTreeMap<String, u32> {
        let mut tickets = BTreeMap::new();
        for buyer in self.buyers() {
            let mut cursor = String::new();
            loop {
                let page = buyer
                    .get(&format!("/tickets?limit=100&cursor={cursor}"))
                    .ok(200)
                    .await;
                for ticket in page["items"].as_array().unwrap() {
                    let seat = ticket["seat_id"].as_str().unwrap().to_owned();
                    *tickets.entry(seat).or_default() += 1;
                }
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = next.to_owned(),
                    None => break,
                }
            }
        }
        tickets
    }

    async fn until_each_has_its_ticket(&self, sold: &BTreeSet<String>) {
        eventually("a ticket for each seat", RECOVERY_LIMIT, || async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            (self.tickets().await.len() >= sold.len() && self.outbox().await == 0).then_some(())
        })
        .await;
        let tickets = self.tickets().await;
        assert!(
            tickets.values().all(|count| *count == 1),
            "one ticket a seat"
        );
        assert_eq!(tickets.into_keys().collect::<BTreeSet<_>>(), *sold);
    }
}

/// Buyers who buy one seat after the other until they are told to stop; a slow
/// answer is a failure.
struct Load {
    stop: Arc<AtomicBool>,
    orders: Arc<AtomicU32>,
    tasks: tokio::task::JoinSet<Vec<String>>,
}

impl Load {
    fn start(world: &World) -> Self {
        let (stop, orders) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let mut tasks = tokio::task::JoinSet::new();
        for buyer in world.buyers() {
            let timetable = world.scene.timetable.clone();
            let (stop, orders) = (Arc::clone(&stop), Arc::clone(&orders));
            tasks.spawn(async move {
                let mut seats = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let wish = json!({ "best_available": { "count": 1 } });
                    let hold = buyer.hold(&timetable, &wish).ok(201).await;
                    let id = hold["hold_id"].as_str().unwrap();
                    let order: Value = buyer.order(id).ok(201).await;
                    assert_eq!(order["status"], "confirmed");
                    seats.push(hold["seats"][0]["seat_id"].as_str().unwrap().to_owned());
                    orders.fetch_add(1, Ordering::Relaxed);
                    // So that there are seats left for all of the trouble.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                seats
            });
        }
        Self {
            stop,
            orders,
            tasks,
        }
    }

    fn orders(&self) -> u32 {
        self.orders.load(Ordering::Relaxed)
    }

    async fn end(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

/// First occurrences in the topic of orders come in the order of their numbers.
async fn assert_order_in_topic(count: usize) {
    let reader: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", BROKER)
        .set("group.id", "reader")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    reader.subscribe(&["onsale.orders"]).unwrap();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut distinct = 0;
    while distinct < count {
        let message = tokio::time::timeout(RECOVERY_LIMIT, reader.recv())
            .await
            .unwrap();
        let Ok(message) = message else { continue };
        let event: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        assert_eq!(event["type"], "order.confirmed");
        let last = last
            .entry(event["entity"].as_str().unwrap().to_owned())
            .or_default();
        let number = event["event_seq"].as_u64().unwrap();
        assert!(number <= *last + 1, "{number} came after {last}");
        if number == *last + 1 {
            *last = number;
            distinct += 1;
        }
    }
}

/// Sales while the broker doesn't answer: they go on, and the outbox grows.
async fn sell_through_it(world: &World, load: &Load) {
    let (before, since) = (load.orders(), Instant::now());
    tokio::time::sleep(TROUBLE).await;
    let sold = load.orders() - before;
    assert!(sold > 0, "sales go on");
    let outbox = eventually("a growing outbox", RECOVERY_LIMIT, || async {
        let outbox = world.outbox().await;
        (outbox > 0).then_some(outbox)
    })
    .await;
    eprintln!(
        "{sold} orders in {:?}, {outbox} events wait",
        since.elapsed()
    );
    // An outage is told, not each attempt to end it.
    let told = world.server.log();
    let kafka = told
        .iter()
        .filter(|line| line.contains("Kafka") || line.contains("outbox"));
    assert!(kafka.count() < 40, "{told:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sales_go_on_while_kafka_is_frozen_or_dead_and_each_ticket_is_issued_once() {
    let broker = Broker::start();
    let mut world = World::start().await;

    let load = Load::start(&world);
    tokio::time::sleep(Duration::from_secs(2)).await;
    broker.signal("STOP");
    sell_through_it(&world, &load).await;
    broker.signal("CONT");
    let mut sold = load.end().await;
    world.until_each_has_its_ticket(&sold).await;

    let load = Load::start(&world);
    tokio::time::sleep(Duration::from_secs(2)).await;
    broker.signal("KILL");
    sell_through_it(&world, &load).await;
    // The server dies in the middle of it, too.
    let more = load.end().await;
    sold.extend(more);
    world.server.kill();
    world.server = ServerProcess::start(&world.settings);
    broker.services(&["start", "kafka"]);
    world.until_each_has_its_ticket(&sold).await;

    assert_order_in_topic(sold.len()).await;
    world.server.terminate();
    world.settings.assert_audit_is_clean();
}
