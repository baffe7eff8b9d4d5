//! Holds of tier `checkpoint`, with a real Redis in trouble: stopped, flushed,
//! killed, and a server killed while its database lags behind.
//!
//! The database is made to lag by a lock on the SQLite file, which this test
//! takes as another program would: every commit is refused as busy.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may panic, that is how it fails; and it measures real time"
)]

#[path = "../common/mod.rs"]
mod common;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::TempDir;
use tokio::sync::Mutex;

use common::client::Client;
use common::eventually;
use common::process::{ServerProcess, Settings, sign_up};
use common::scene::{Scene, Show};
use server::Redis;

/// What should be seen within a second; with slack.
const SOON: Duration = Duration::from_secs(20);

/// A hold is answered so soon, whatever has happened to Redis; with slack.
const HOLD_MAX: Duration = Duration::from_secs(10);

const RATE_NOBODY_REACHES: &str = "100000";

struct World {
    redis: Redis,
    settings: Settings,
    server: ServerProcess,
    scene: Scene,
    token: String,
    _folder: TempDir,
}

impl World {
    async fn start() -> Self {
        let redis = Redis::start().await;
        let folder = TempDir::new().unwrap();
        let settings = Settings::in_folder(folder.path())
            .env("ONSALE_REDIS__URL", &redis.url())
            .env("ONSALE_DURABILITY__HOLDS", "checkpoint")
            .env("ONSALE_RATES__HOLDS_PER_SECOND", RATE_NOBODY_REACHES)
            .env("ONSALE_RATES__HOLDS_BURST", RATE_NOBODY_REACHES);
        let server = ServerProcess::start(&settings);
        let show = Show::grid(50, 100, 100)
            .limit("max_seats_per_user", 100_000)
            .limit("hold_ttl_seconds", 3_600);
        let scene = show.open(&server.admin().await).await;
        let buyer = sign_up(
            &server.client(),
            "buyer@example.com",
            "a long enough password",
        )
        .await;
        buyer.charge(1_000_000).await;
        Self {
            token: buyer.token().to_owned(),
            redis,
            settings,
            server,
            scene,
            _folder: folder,
        }
    }

    fn buyer(&self) -> Client {
        self.server.client().with_token(&self.token)
    }

    async fn hold(&self, seats: &[&str]) -> Value {
        self.buyer().hold_seats(&self.scene.timetable, seats).await
    }

    /// Nothing can be committed while the lock lives.
    async fn lock_the_database(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new()
            .filename(self.settings.store())
            .busy_timeout(SOON);
        let mut lock = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut lock)
            .await
            .unwrap();
        lock
    }

    fn kill_and_start_again(&mut self) {
        self.server.kill();
        self.server = ServerProcess::start(&self.settings);
    }

    /// Whether `/metrics` says that checkpoints can be used.
    async fn until_checkpoints_are(&self, usable: bool) {
        let wanted = format!("onsale_checkpoint_usable {}", u8::from(usable));
        eventually(&wanted, SOON, async || {
            let answer = self.server.client().root("/metrics").send().await;
            answer
                .text()
                .lines()
                .any(|line| line == wanted)
                .then_some(())
        })
        .await;
    }

    async fn readiness(&self) -> (u16, Value) {
        let answer = self.server.client().root("/readyz").send().await;
        (answer.status, answer.json())
    }

    /// The hold is there, as it was answered.
    async fn assert_lives(&self, hold: &Value) {
        let id = hold["hold_id"].as_str().unwrap();
        let now = self.buyer().get(&format!("/holds/{id}")).ok(200).await;
        assert_eq!(now["seats"], hold["seats"]);
        assert_eq!(now["hold_id"], hold["hold_id"]);
        assert!(now["expires_at"].as_str() >= hold["expires_at"].as_str());
    }

    async fn my_holds(&self) -> Vec<String> {
        let (mut holds, mut path) = (Vec::new(), "/me/holds?limit=100".to_owned());
        loop {
            let page = self.buyer().get(&path).ok(200).await;
            holds.extend(page["items"].as_array().unwrap().iter().map(id_of));
            let Some(cursor) = page["next_cursor"].as_str() else {
                return holds;
            };
            path = format!("/me/holds?limit=100&cursor={cursor}");
        }
    }
}

fn id_of(hold: &Value) -> String {
    hold["hold_id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpointed_hold_is_back_after_a_kill_that_the_database_never_heard_of() {
    let mut world = World::start().await;
    let early = world.hold(&["G-A-1", "G-A-2"]).await;
    // The tier of the database, so that everything so far is in it.
    world.buyer().charge(1).await;

    let lock = world.lock_the_database().await;
    let late = world.hold(&["G-A-3", "G-A-4"]).await;
    let gone = world.hold(&["G-B-1"]).await;
    for released in [&early, &gone] {
        let path = format!("/holds/{}", id_of(released));
        world.buyer().delete(&path).ok(204).await;
    }
    let smaller = format!("/holds/{}/seats/G-A-4", id_of(&late));
    let late = world.buyer().delete(&smaller).ok(200).await;
    let again = world.hold(&["G-A-1"]).await;

    eventually("the server isn't ready", SOON, async || {
        (world.readiness().await.0 == 503).then_some(())
    })
    .await;
    let order = world.buyer().order(&id_of(&late));
    order.problem(503, "store-unavailable").await;
    let more = world.hold(&["G-C-1"]).await;

    world.server.kill();
    drop(lock);
    world.server = ServerProcess::start(&world.settings);
    for hold in [&late, &again, &more] {
        world.assert_lives(hold).await;
    }
    let mut expected = vec![id_of(&late), id_of(&again), id_of(&more)];
    expected.sort();
    let mut mine = world.my_holds().await;
    mine.sort();
    assert_eq!(mine, expected);
    // What was given back is free, for anybody.
    world.hold(&["G-A-2", "G-A-4", "G-B-1"]).await;
    world.buyer().order(&id_of(&late)).ok(201).await;

    // Now the database has them, too.
    world.buyer().charge(1).await;
    world.redis.flush().await;
    world.kill_and_start_again();
    world.assert_lives(&again).await;
    world.server.terminate();
    world.settings.assert_audit_is_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_flush_the_live_holds_are_written_again_before_the_tier_is_used() {
    let mut world = World::start().await;
    let lock = world.lock_the_database().await;
    let before = world.hold(&["G-A-1"]).await;
    world.redis.flush().await;
    // Acknowledged by a checkpoint that has both, since the database can't.
    let after = world.hold(&["G-A-2"]).await;
    assert!(world.redis.keys().await > 0);

    world.server.kill();
    drop(lock);
    world.server = ServerProcess::start(&world.settings);
    world.assert_lives(&before).await;
    world.assert_lives(&after).await;
    world.server.terminate();
    world.settings.assert_audit_is_clean();
}

/// Takes seats one by one until told to stop; all answers.
async fn take_seats(
    buyer: Client,
    timetable: String,
    row: &'static str,
    stop: Arc<AtomicBool>,
    taken: Arc<Mutex<BTreeMap<String, String>>>,
) {
    for number in 1..=100 {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let seat = format!("G-{row}-{number}");
        let asked = Instant::now();
        let hold = buyer.hold_seats(&timetable, &[&seat]).await;
        assert!(
            asked.elapsed() < HOLD_MAX,
            "a hold took {:?}",
            asked.elapsed()
        );
        let twice = taken.lock().await.insert(seat.clone(), id_of(&hold));
        assert_eq!(twice, None, "{seat} was given out twice");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_stopped_flushed_and_killed_under_load_holds_go_on_by_the_database() {
    let mut world = World::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(Mutex::new(BTreeMap::new()));
    let load: Vec<_> = ["A", "B", "C"]
        .into_iter()
        .map(|row| {
            let (buyer, timetable) = (world.buyer(), world.scene.timetable.clone());
            tokio::spawn(take_seats(
                buyer,
                timetable,
                row,
                stop.clone(),
                taken.clone(),
            ))
        })
        .collect();
    let some = Duration::from_millis(200);
    world.until_checkpoints_are(true).await;

    world.redis.freeze();
    world.until_checkpoints_are(false).await;
    let (status, body) = world.readiness().await;
    assert_eq!(status, 200, "degraded is not unready: {body}");
    assert!(body["reasons"][0].as_str().unwrap().contains("checkpoints"));
    tokio::time::sleep(some).await;
    world.redis.thaw();
    world.until_checkpoints_are(true).await;
    assert_eq!(world.readiness().await.1["reasons"], json!([]));

    world.redis.flush().await;
    tokio::time::sleep(some).await;
    world.until_checkpoints_are(true).await;

    world.redis.kill();
    world.until_checkpoints_are(false).await;
    tokio::time::sleep(some).await;
    world.redis.come_back().await;
    world.until_checkpoints_are(true).await;
    tokio::time::sleep(some).await;

    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    let taken = taken.lock().await.clone();
    world.kill_and_start_again();
    let mut mine = world.my_holds().await;
    let mut expected: Vec<String> = taken.into_values().collect();
    mine.sort();
    expected.sort();
    assert_eq!(mine, expected, "every acknowledged hold, and no other");
    world.server.terminate();
    world.settings.assert_audit_is_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_and_sells_without_its_redis() {
    let mut world = World::start().await;
    let hold = world.hold(&["G-A-1"]).await;
    world.buyer().charge(1).await;
    world.redis.kill();
    world.kill_and_start_again();
    world.assert_lives(&hold).await;
    world.buyer().order(&id_of(&hold)).ok(201).await;
    let other = world.hold(&["G-A-2"]).await;
    world.redis.come_back().await;
    world.until_checkpoints_are(true).await;
    world.assert_lives(&other).await;
    world.server.terminate();
    world.settings.assert_audit_is_clean();
}
