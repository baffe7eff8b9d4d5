//! Two nodes on one database, a show on sale, and a customer.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::client::Client;
use crate::common::process::{ServerProcess, Settings, sign_up};
use crate::common::scene::{Scene, Show};
use crate::common::{eventually, fresh_key};
use crate::database::Database;

pub(crate) const SECRET: &str = "the secret of a cluster that lives for one test";
pub(crate) const PASSWORD: &str = "correct horse battery staple";
pub(crate) const PRICE: i64 = 100;

/// Dates on sale: so many that both of two nodes own some.
pub(crate) const DATES: usize = 12;

/// A take-over is promised within 3 s; tests allow ten times that.
pub(crate) const TAKE_OVER_LIMIT: Duration = Duration::from_secs(30);

/// Until a new node has its share.
pub(crate) const SETTLE_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    pub(crate) database: Database,
    pub(crate) folders: Vec<TempDir>,
    pub(crate) url: String,
    /// When holds are acknowledged, where checkpoints are, what carries events.
    pub(crate) extra: Vec<(&'static str, String)>,
}

impl Cluster {
    pub(crate) async fn create() -> Self {
        let database = Database::empty().await;
        let url = database.url();
        Self {
            database,
            folders: Vec::new(),
            url,
            extra: vec![("ONSALE_DURABILITY__HOLDS", "database".to_owned())],
        }
    }

    /// One whose holds are acknowledged once Redis has them.
    pub(crate) async fn with_checkpoints() -> Self {
        let redis = std::env::var("ONSALE_REDIS__URL").unwrap_or_else(|_| {
            panic!("this test needs Redis at ONSALE_REDIS__URL: `scripts/services run cargo test`")
        });
        Self {
            extra: vec![
                ("ONSALE_DURABILITY__HOLDS", "checkpoint".to_owned()),
                ("ONSALE_REDIS__URL", redis),
                ("ONSALE_REDIS__PREFIX", fresh_key().replace('-', "")),
            ],
            ..Self::create().await
        }
    }

    /// One whose events Kafka carries, in topics and a group of its own.
    pub(crate) async fn with_kafka() -> Self {
        let brokers = std::env::var("ONSALE_KAFKA__BROKERS").unwrap_or_else(|_| {
            panic!(
                "this test needs Kafka at ONSALE_KAFKA__BROKERS: `scripts/services run cargo test`"
            )
        });
        let mut cluster = Self::create().await;
        cluster.extra.extend([
            ("ONSALE_KAFKA__BROKERS", brokers),
            ("ONSALE_KAFKA__PREFIX", format!("test-{}.", fresh_key())),
        ]);
        cluster
    }

    pub(crate) fn settings(&mut self, name: &str) -> Settings {
        let folder = TempDir::new().unwrap();
        let mut settings = Settings::in_folder(folder.path())
            .env("ONSALE_STORE__URL", &self.url)
            .env("ONSALE_NODE__ID", name)
            .env("ONSALE_AUTH__SECRET", SECRET)
            .env("ONSALE_RATES__HOLDS_PER_SECOND", "100000")
            .env("ONSALE_RATES__HOLDS_BURST", "100000");
        for (name, value) in &self.extra {
            settings = settings.env(name, value);
        }
        self.folders.push(folder);
        settings
    }
}

/// Two nodes, `a` and `b`, that own about half of the shards each, a show on
/// sale, and a customer with money.
pub(crate) struct World {
    pub(crate) a: ServerProcess,
    pub(crate) b: ServerProcess,
    pub(crate) b_settings: Settings,
    pub(crate) scene: Scene,
    pub(crate) token: String,
    pub(crate) _cluster: Cluster,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::on(Cluster::create().await).await
    }

    pub(crate) async fn on(mut cluster: Cluster) -> Self {
        let a_settings = cluster.settings("node-a");
        let a = tokio::task::block_in_place(|| ServerProcess::start(&a_settings));
        let admin = a.admin().await;
        let show = Show::grid(4, 10, PRICE).limit("max_seats_per_user", 40);
        let scene = show.dates(DATES as i64).open(&admin).await;
        let user = sign_up(&a.client(), "buyer@example.com", PASSWORD).await;
        user.charge(1_000_000).await;
        let b_settings = cluster.settings("node-b");
        let b = tokio::task::block_in_place(|| ServerProcess::start(&b_settings));
        let world = Self {
            a,
            b,
            b_settings,
            scene,
            token: user.token().to_owned(),
            _cluster: cluster,
        };
        world.balanced().await;
        world
    }

    /// Returns once both nodes own their share.
    pub(crate) async fn balanced(&self) {
        let admin = self.a.admin().await;
        eventually("both nodes own their share", SETTLE_LIMIT, || async {
            let seen = admin.get("/admin/cluster").ok(200).await;
            let shares = shares(&seen);
            let are_fair = shares.iter().all(|share| (400..=624).contains(share));
            (shares.len() == 2 && are_fair && seen["shards"]["unowned"] == 0).then_some(())
        })
        .await;
    }

    /// `onsale verify` finds nothing wrong with what all of it has left.
    pub(crate) fn audit(&self) {
        tokio::task::block_in_place(|| self.b_settings.assert_audit_is_clean());
    }

    pub(crate) fn at_a(&self) -> Client {
        self.a.client().with_token(&self.token)
    }

    pub(crate) fn at_b(&self) -> Client {
        self.b.client().with_token(&self.token)
    }

    pub(crate) fn timetables(&self) -> Vec<String> {
        (0..DATES).map(|i| self.scene.timetable_at(i)).collect()
    }
}

/// How many shards each living node owns.
pub(crate) fn shares(cluster: &Value) -> Vec<u64> {
    let nodes = cluster["nodes"].as_array().unwrap().iter();
    let living = nodes.filter(|node| node["state"] == "up");
    living
        .map(|node| node["shards"].as_u64().unwrap())
        .collect()
}

pub(crate) fn signal(process: &ServerProcess, name: &str) {
    let sent = Command::new("kill")
        .args([name, &process.pid().to_string()])
        .status();
    assert!(sent.expect("kill is installed").success());
}

/// Tries until the seat is held; every refusal on the way must be one that may
/// be tried again. After an answer that the outcome is unknown, the seat may be
/// the caller's already.
pub(crate) async fn hold_at_last(client: &Client, timetable: &str, seat: &str) -> Value {
    let wish = json!({ "seat_ids": [seat] });
    eventually("the seat can be held", TAKE_OVER_LIMIT, || async {
        let answer = client.hold(timetable, &wish).send().await;
        match answer.status {
            201 => Some(answer.json()),
            503 => None,
            409 => Some(own_hold(client, timetable, seat).await),
            other => panic!("{other}: {}", answer.text()),
        }
    })
    .await
}

pub(crate) async fn own_hold(client: &Client, timetable: &str, seat: &str) -> Value {
    let mine = client.get("/me/holds?limit=100").ok(200).await;
    let holds = mine["items"].as_array().unwrap().iter();
    let mut of_seat = holds
        .filter(|hold| hold["timetable_id"] == timetable && hold["seats"][0]["seat_id"] == seat);
    of_seat.next().expect("the seat is somebody else's").clone()
}

pub(crate) async fn order_at_last(client: &Client, hold: &Value) -> Value {
    let key = fresh_key();
    let body = json!({ "hold_id": hold["hold_id"], "payment": { "method": "wallet" } });
    eventually("the hold can be ordered", TAKE_OVER_LIMIT, || async {
        let answer = client.order_body(&body).key(&key).send().await;
        match (answer.status, answer.text()) {
            (201, _) => Some(answer.json()),
            (503, _) => None,
            (409, text) if text.contains("in-use") => None,
            (other, text) => panic!("{other}: {text}"),
        }
    })
    .await
}
