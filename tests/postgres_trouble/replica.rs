//! A node that reads its catalogue from a replica: never less than was
//! committed before, whether the replica follows, is behind, or is gone.

use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use crate::common::client::Client;
use crate::common::eventually;
use crate::common::process::{ServerProcess, Settings, sign_up};
use crate::common::scene::Show;
use crate::{LIMIT, Place, SECRET};

const PRICE: i64 = 100;
const REPLICA: &str = "postgres-replica";

/// Two nodes on one Postgres, of which one reads from its replica.
struct Pair {
    primary: ServerProcess,
    reader: ServerProcess,
    _folders: [TempDir; 2],
}

impl Pair {
    fn start(place: &Place) -> Self {
        let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let settings = |folder: &TempDir, name| {
            Settings::in_folder(folder.path())
                .env("ONSALE_STORE__URL", &place.services.postgres_url())
                .env("ONSALE_AUTH__SECRET", SECRET)
                .env("ONSALE_NODE__ID", name)
        };
        let primary = settings(&folders[0], "plain");
        let reader = settings(&folders[1], "reader").env(
            "ONSALE_STORE__REPLICA_URL",
            &place.services.postgres_replica_url(),
        );
        Self {
            primary: ServerProcess::start(&primary),
            reader: ServerProcess::start(&reader),
            _folders: folders,
        }
    }
}

/// A connection to the replica, past the server.
async fn replica(place: &Place) -> PgConnection {
    PgConnection::connect(&place.services.postgres_replica_url())
        .await
        .unwrap()
}

/// Returns once the replica was asked for venues, which only a node does, more
/// than `before` times; how often it was then.
async fn read_from(place: &Place, before: i64) -> i64 {
    eventually("reads from the replica", LIMIT, || async {
        let scans: i64 = sqlx::query_scalar(
            "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables \
             WHERE relname = 'venue'",
        )
        .fetch_one(&mut replica(place).await)
        .await
        .unwrap();
        (scans > before).then_some(scans)
    })
    .await
}

async fn title(sql: &mut PgConnection) -> String {
    sqlx::query_scalar("SELECT title FROM performance")
        .fetch_one(sql)
        .await
        .unwrap()
}

/// Changes the title at one node, and waits until the other one shows it.
async fn rename(pair: &Pair, performance: &str, title: &str) {
    let admin = pair.primary.admin().await;
    let path = format!("/admin/performances/{performance}");
    let change = json!({ "title": title });
    admin.patch(&path, &change).ok(200).await;
    shows(&pair.reader.client(), performance, title).await;
}

async fn shows(client: &Client, performance: &str, title: &str) {
    let path = format!("/performances/{performance}");
    eventually("the new title", LIMIT, || async {
        let seen = client.get(&path).send().await;
        (seen.status == 200 && seen.json()["title"] == title).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_answers_only_with_all_that_was_committed() {
    let place = Place::fresh().await;
    place.services.restart(REPLICA);
    let mut behind = replica(&place).await;
    let pair = tokio::task::block_in_place(|| Pair::start(&place));
    let show = Show::grid(2, 10, PRICE).with("title", json!("First"));
    let scene = show.open(&pair.primary.admin().await).await;
    let performance = scene.performance.as_str();

    // It follows: it is what is read from.
    shows(&pair.reader.client(), performance, "First").await;
    let before = read_from(&place, 0).await;

    // It stands still, with the old title, and its node still shows the new one.
    sqlx::raw_sql("SELECT pg_wal_replay_pause()")
        .execute(&mut behind)
        .await
        .unwrap();
    rename(&pair, performance, "Second").await;
    assert_eq!(title(&mut behind).await, "First", "it is behind");
    // What is a user's own is there at once, at every step.
    let buyer = sign_up(
        &pair.reader.client(),
        "buyer@example.com",
        "a long password",
    )
    .await;
    buyer.charge(PRICE).await;
    assert_eq!(buyer.balance().await, PRICE);
    let hold = buyer.hold_seats(&scene.timetable, &["G-A-1"]).await;
    let held = buyer.get("/me/holds").ok(200).await;
    assert_eq!(held["items"][0]["hold_id"], hold["hold_id"]);
    let order = buyer.order(hold["hold_id"].as_str().unwrap()).ok(201).await;
    let orders = buyer.get("/orders").ok(200).await;
    assert_eq!(orders["items"][0]["order_id"], order["order_id"]);
    assert_eq!(buyer.balance().await, 0);
    assert_eq!(title(&mut behind).await, "First", "it is still behind");

    // It goes on: it is read from again.
    sqlx::raw_sql("SELECT pg_wal_replay_resume()")
        .execute(&mut behind)
        .await
        .unwrap();
    eventually("the replica has caught up", LIMIT, || async {
        (title(&mut replica(&place).await).await == "Second").then_some(())
    })
    .await;
    rename(&pair, performance, "Third").await;
    read_from(&place, before).await;

    // It is gone: the node does without.
    behind.close().await.unwrap();
    place.services.stop(REPLICA);
    rename(&pair, performance, "Fourth").await;
    place.services.restart(REPLICA);
    rename(&pair, performance, "Fifth").await;
}
