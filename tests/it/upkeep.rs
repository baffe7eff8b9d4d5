//! What the server does by itself while it runs. These tests look behind the
//! HTTP contract, at the actors: what they check can't be seen from outside.

use std::time::Duration;

use futures_util::future::join_all;
use onsale::actors::directory::Directory;
use onsale::actors::host::Hosted;
use onsale::domain::time::Millis;
use serde_json::json;

use crate::harness::{Show, TestServer, eventually, fresh_key, text};

const SOON: Duration = Duration::from_secs(10);

/// Sweeps until no actor is left.
async fn all_gone<M: Hosted>(server: &TestServer, actors: &Directory<M>) {
    eventually("no actor", SOON, async || {
        server.app().node.sweep();
        actors.all().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn actors_that_nobody_needs_are_stopped_and_started_again() {
    let server = TestServer::start_with(|config| {
        config.actors.account_idle_seconds = 0;
        config.actors.timetable_idle_seconds = 0;
    })
    .await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let node = &server.app().node;
    let (timetables, accounts) = (node.timetables.directory(), node.accounts.directory());

    // Never with a deadline.
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    all_gone(&server, accounts).await;
    assert_eq!(timetables.all().len(), 1);

    // What they knew is read again.
    buyer.order(text(&hold, "hold_id")).ok(201).await;
    all_gone(&server, timetables).await;
    all_gone(&server, accounts).await;
    let taken = buyer.hold(&scene.timetable, &json!({ "seat_ids": ["F1-A-1"] }));
    taken.problem(409, "seat-unavailable").await;
    buyer.hold_seats(&scene.timetable, &["F1-A-2"]).await;
    assert_eq!(timetables.all().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_while_actors_are_stopped_under_its_feet() {
    let server = TestServer::start_with(|config| config.actors.account_idle_seconds = 0).await;
    let buyers: Vec<_> = (0..8).map(|_| server.buyer()).collect();
    let charging = join_all(buyers.iter().map(|buyer| async {
        for _ in 0..40 {
            let charge = buyer.post("/wallet/charges", &json!({ "amount": 1 }));
            charge.key(&fresh_key()).ok(201).await;
        }
    }));
    let sweeping = async {
        loop {
            server.app().node.sweep();
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    tokio::select! {
        _ = charging => {}
        () = sweeping => {}
    }
    for buyer in &buyers {
        assert_eq!(buyer.balance().await, 40);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_hold_ends_at_once_when_the_clock_has_jumped_over_its_end() {
    let server = TestServer::start().await;
    let scene = server
        .open(&Show::small().limit("hold_ttl_seconds", 3_600))
        .await;
    let buyer = server.buyer();
    buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let app = server.app();
    let jump = Millis::from_secs(3_601);
    let ahead = app.clock.follow(app.clock.now().plus(jump));
    assert!(ahead.is_some());
    app.node.rearm();
    eventually("a free seat", SOON, async || {
        let map = server.anyone().map(&scene.timetable).await;
        (map["held"] == 0).then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn holds_of_the_database_tier_are_refused_at_once_while_the_store_is_out() {
    use sqlx::ConnectOptions as _;
    let server = TestServer::start_with(|config| {
        config.durability.holds = onsale::config::Acknowledged::Database;
    })
    .await;
    let scene = server.small().await;
    let buyer = server.buyer();
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    // Somebody else has the file's lock.
    let mut other = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(server.folder().join("onsale.db"))
        .connect()
        .await
        .unwrap();
    let mut run = async |sql| sqlx::query(sql).execute(&mut other).await.unwrap();
    run("BEGIN IMMEDIATE").await;
    // It waits for the commit, in vain; from then on nobody has to wait.
    let charging = buyer.post("/wallet/charges", &json!({ "amount": 1 }));
    let charging = tokio::spawn(charging.key(&fresh_key()).send());
    eventually("an outage", SOON, async || {
        let refused = server.app().readiness();
        (!refused.is_empty()).then_some(())
    })
    .await;
    let asked = std::time::Instant::now();
    let wish = json!({ "seat_ids": ["F1-A-2"] });
    let refused = buyer.hold(&scene.timetable, &wish);
    refused.problem(503, "store-unavailable").await;
    let release = format!("/holds/{}", text(&hold, "hold_id"));
    let refused = buyer.delete(&release);
    refused.problem(503, "store-unavailable").await;
    // Not after `ask_timeout_ms`.
    assert!(asked.elapsed() < Duration::from_secs(2));
    run("ROLLBACK").await;
    drop(charging.await);
    eventually("a release", SOON, async || {
        let answer = buyer.delete(&release).send().await;
        (answer.status == 204).then_some(())
    })
    .await;
    server.stop().await;
}
