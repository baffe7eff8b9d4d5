//! Everybody comes in one instant, to a queue that nobody has touched.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::{behind, queue};
use crate::harness::{Client, Scene, TestServer, eventually, number};

/// How many come.
const CROWD: usize = 10_000;

/// How many requests a server has under way on one connection. More connections
/// than these take would be more files than a process may open here.
const STREAMS: usize = 200;

/// How long it takes until all are there, in a debug build on a busy machine.
const COMING_MAX: Duration = Duration::from_secs(25);

/// Nothing can be committed while the lock lives.
async fn lock_the_store(server: &TestServer) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(server.folder().join("onsale.db"))
        .busy_timeout(COMING_MAX);
    let mut lock = SqliteConnection::connect_with(&options).await.unwrap();
    let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut lock).await;
    begun.unwrap();
    lock
}

/// How many joins of the queue wait for their commit.
async fn parked(admin: &Client, scene: &Scene) -> usize {
    let path = format!("/admin/actors/queue/{}", scene.performance);
    let answer = admin.get(&path).send().await;
    // Not there yet, or being read.
    if answer.status != 200 || answer.json()["life"].is_null() {
        return 0;
    }
    usize::try_from(number(&answer.json()["life"], "parked_replies")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_who_come_in_one_instant_all_have_a_place_at_the_first_try() {
    let server = TestServer::start_with(|config| {
        config.queue.permits_max = u32::try_from(CROWD).unwrap();
        // A debug build takes its time; nothing else is other than by default.
        config.actors.ask_timeout_ms = 60_000;
        config.http.request_timeout_seconds = 60;
    })
    .await;
    let scene = behind(&server, json!({ "max_active": 1 })).await;
    let admin = server.admin();
    // Until all are there, not even the first numbers can be reserved.
    let lock = lock_the_store(&server).await;
    let connections = (0..CROWD / STREAMS).map(|_| server.anyone().with_own_http2_connection());
    let crowd = connections.flat_map(|connection| {
        let buyers = (0..STREAMS).map(|_| connection.with_token(server.buyer().token()));
        buyers.collect::<Vec<_>>()
    });
    let path = queue(&scene);
    let joins = crowd.map(|buyer| buyer.post(&path, &json!({})).send());
    let joining = tokio::spawn(join_all(joins.collect::<Vec<_>>()));
    eventually("all of them at the door", COMING_MAX, || async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let all_wait = parked(&admin, &scene).await == CROWD;
        // Those who were refused don't.
        (all_wait || joining.is_finished()).then_some(())
    })
    .await;
    lock.close().await.unwrap();
    let mut numbers = Vec::new();
    for answer in joining.await.unwrap() {
        answer.assert_status(201);
        numbers.push(number(&answer.json(), "number"));
    }
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=CROWD as i64), "lost or doubled");
    server.stop().await;
}
