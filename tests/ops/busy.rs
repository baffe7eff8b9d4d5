//! A real server with something of everything going on.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::common::client::Client;
use crate::common::process::{ServerProcess, Settings, sign_up};
use crate::common::scene::{Scene, Show};
use crate::common::{eventually, fresh_key, in_seconds};
use crate::database::Database;
use crate::exposition::{Family, read};
use crate::socket::Socket;

const PASSWORD: &str = "a long enough password";
const BUYERS: usize = 4;

/// Gauges are told once a second, Kafka's once in a while; with slack.
const TOLD_LIMIT: Duration = Duration::from_secs(60);

/// A server, and what it stands on.
pub(crate) struct Busy {
    pub(crate) server: ServerProcess,
    _sockets: Vec<Socket>,
    _database: Option<Database>,
    _folder: TempDir,
}

/// A server that stands on Postgres, Redis and Kafka, with nothing else's data.
pub(crate) fn on_services(settings: Settings, database: &Database) -> Settings {
    let own = uuid::Uuid::new_v4().simple().to_string();
    settings
        .env("ONSALE_STORE__URL", &database.url())
        .env(
            "ONSALE_AUTH__SECRET",
            "a secret that lives as long as one test",
        )
        .env("ONSALE_REDIS__URL", &address("ONSALE_REDIS__URL"))
        .env("ONSALE_REDIS__PREFIX", &own)
        .env("ONSALE_KAFKA__BROKERS", &address("ONSALE_KAFKA__BROKERS"))
        .env("ONSALE_KAFKA__PREFIX", &format!("{own}."))
}

/// What a service needs that `scripts/services run` has started.
fn address(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("this test needs {name}: run it with `scripts/services run cargo test --test ops`")
    })
}

impl Busy {
    /// On SQLite, all in one process.
    pub(crate) async fn embedded() -> Self {
        let folder = TempDir::new().unwrap();
        let settings = Settings::in_folder(folder.path());
        Self::start(folder, settings, None).await
    }

    /// On Postgres, Redis and Kafka.
    pub(crate) async fn cluster() -> Self {
        let database = Database::empty().await;
        let folder = TempDir::new().unwrap();
        let settings = on_services(Settings::in_folder(folder.path()), &database);
        Self::start(folder, settings, Some(database)).await
    }

    async fn start(folder: TempDir, settings: Settings, database: Option<Database>) -> Self {
        let server = ServerProcess::start(&settings);
        let sockets = load(&server).await;
        Self {
            server,
            _sockets: sockets,
            _database: database,
            _folder: folder,
        }
    }

    /// What it exports now.
    pub(crate) async fn exported(&self) -> BTreeMap<String, Family> {
        let answer = self.server.client().root("/metrics").send().await;
        answer.assert_status(200);
        read(&answer.text())
    }

    /// What it exports once all of `names` are there; else what is missing.
    pub(crate) async fn exporting(&self, names: &[&str]) -> BTreeMap<String, Family> {
        let mut missing = Vec::new();
        for _ in 0..TOLD_LIMIT.as_millis() / 500 {
            let exported = self.exported().await;
            let is_missing = |name: &&&str| exported.get(**name).is_none_or(|f| f.samples == 0);
            missing = names.iter().filter(is_missing).copied().collect();
            if missing.is_empty() {
                return exported;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("not exported: {missing:?}");
    }
}

/// Holds, refusals, orders, a coupon that is sold out, a waiting room with somebody inside and somebody
/// before it, live sockets.
async fn load(server: &ServerProcess) -> Vec<Socket> {
    let admin = server.admin().await;
    let scene = Show::small().open(&admin).await;
    let mut buyers = Vec::new();
    for number in 0..BUYERS {
        let email = format!("buyer-{number}@example.com");
        let buyer = sign_up(&server.client(), &email, PASSWORD).await;
        buyer.charge(1_000_000).await;
        buyers.push(buyer);
    }
    for (number, buyer) in buyers.iter().enumerate() {
        let seat = format!("F1-A-{}", number + 1);
        let hold = buyer.hold_seats(&scene.timetable, &[&seat]).await;
        let hold = hold["hold_id"].as_str().unwrap();
        buyer.order(hold).ok(201).await;
        let taken = json!({ "seat_ids": [seat] });
        buyer
            .hold(&scene.timetable, &taken)
            .problem(409, "seat-unavailable")
            .await;
    }
    until_tickets_are_issued(&buyers[0]).await;
    sell_out_a_coupon(&admin, &scene, &buyers).await;
    let mut sockets = wait_in_line(&admin, &buyers).await;
    let map = format!("/timetables/{}/seats/live", scene.timetable);
    sockets.push(Socket::open(&buyers[0], &map).await.expect("a seat map"));
    sockets
}

/// All but one have one, and the first uses it.
async fn sell_out_a_coupon(admin: &Client, scene: &Scene, buyers: &[Client]) {
    let (last, first) = buyers.split_last().unwrap();
    let wish = json!({
        "name": "Spring", "discount": { "kind": "amount", "value": 100 }, "stock": first.len(),
        "starts_at": in_seconds(-60), "ends_at": in_seconds(3_600),
    });
    let coupon = admin.post("/admin/coupons", &wish).ok(201).await;
    let path = format!("/coupons/{}/claims", coupon["coupon_id"].as_str().unwrap());
    let mut claims = Vec::new();
    for buyer in first {
        claims.push(buyer.post(&path, &json!({})).ok(201).await);
    }
    let late = last.post(&path, &json!({}));
    late.problem(409, "coupon-sold-out").await;
    let hold = first[0].hold_seats(&scene.timetable, &["F1-B-1"]).await;
    let body = json!({
        "hold_id": hold["hold_id"], "coupon_claim_id": claims[0]["coupon_claim_id"],
        "payment": { "method": "wallet" },
    });
    let order = first[0].order_body(&body).key(&fresh_key());
    assert_eq!(order.ok(201).await["discount"], 100);
}

async fn until_tickets_are_issued(buyer: &Client) {
    eventually("tickets", TOLD_LIMIT, async || {
        let tickets = buyer.get("/tickets").ok(200).await;
        (!tickets["items"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
}

/// One is in, one after another comes in, one waits with a live socket.
async fn wait_in_line(admin: &Client, buyers: &[Client]) -> Vec<Socket> {
    let policy = json!({ "free_admission": 0, "admit": null, "max_active": 1 });
    let scene: Scene = Show::small().with("queue", policy).open(admin).await;
    let queue = format!("/performances/{}/queue", scene.performance);
    let state = |buyer: Client, wanted: &'static str| {
        let queue = queue.clone();
        async move {
            eventually(wanted, TOLD_LIMIT, async || {
                let place = buyer.get(&queue).ok(200).await;
                (place["state"] == wanted).then_some(place)
            })
            .await
        }
    };
    for buyer in &buyers[..3] {
        buyer.post(&queue, &json!({})).ok(201).await;
    }
    state(buyers[0].clone(), "admitted").await;
    buyers[0].delete(&queue).ok(204).await;
    state(buyers[1].clone(), "admitted").await;
    let place = state(buyers[2].clone(), "waiting").await;
    let ticket = place["ticket"].as_str().unwrap();
    let live = format!("{queue}/live?ticket={ticket}");
    vec![Socket::open(&buyers[2], &live).await.expect("a place")]
}
