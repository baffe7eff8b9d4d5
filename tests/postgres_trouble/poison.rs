//! A row that is in the way of one entity costs only that one.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::Place;
use crate::common::client::Client;
use crate::common::process::sign_up;
use crate::common::scene::Show;
use crate::common::{eventually, fresh_key};

const PRICE: i64 = 100;

/// What was set aside for the order that failed comes back within 2 s; with
/// slack.
const MONEY_LIMIT: Duration = Duration::from_secs(20);

/// How long the load runs before and after.
const LOAD: Duration = Duration::from_millis(1_500);

/// The sum of a counter over its labels that `matching` is among.
async fn counter(client: &Client, name: &str, matching: &str) -> f64 {
    let metrics = client.root("/metrics").send().await.text();
    let lines = metrics.lines();
    let of_it = lines.filter(|line| line.starts_with(name) && line.contains(matching));
    of_it
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_in_the_way_fails_its_own_entity_alone() {
    let place = Place::fresh().await;
    // One lane, so that the culprit shares its batches with everybody.
    let mut world = place.world(&[("ONSALE_STORE__LANES", "1")]).await;
    let anyone = world.server.client();
    let scene = Show::grid(1, 2, PRICE)
        .open(&world.server.admin().await)
        .await;
    let buyer = sign_up(&anyone, "unlucky@example.com", "a long enough password").await;
    buyer.charge(PRICE * 2).await;
    let hold = buyer.hold_seats(&scene.timetable, &["G-A-1"]).await;
    let mut sql = place.sql().await;
    let timetable: Uuid = scene.timetable.parse().unwrap();
    let inserted = sqlx::query(
        "INSERT INTO sold_seat (timetable_id, seat, order_id, user_id, price) \
         VALUES ($1, 0, gen_random_uuid(), gen_random_uuid(), 1)",
    )
    .bind(timetable)
    .execute(&mut sql)
    .await
    .unwrap();
    assert_eq!(inserted.rows_affected(), 1);

    let load = world.load();
    tokio::time::sleep(LOAD).await;
    let key = fresh_key();
    let body = json!({ "hold_id": hold["hold_id"], "payment": { "method": "wallet" } });
    let order = || buyer.order_body(&body).key(&key).send();
    order().await.assert_problem(503, "store-unavailable");
    let before = world.acknowledged().await;
    tokio::time::sleep(LOAD).await;
    load.end().await;
    let after = world.acknowledged().await;
    assert!(after > before, "all others go on");

    assert!(counter(&anyone, "onsale_invariant_violations_total", "I1").await >= 1.0);
    assert!(counter(&anyone, "onsale_flush_failures_total", "refused").await >= 1.0);
    eventually("the money back", MONEY_LIMIT, async || {
        (buyer.balance().await == PRICE * 2).then_some(())
    })
    .await;

    // Out of the way: the same key gets its order.
    sqlx::query("DELETE FROM sold_seat WHERE timetable_id = $1 AND seat = 0")
        .bind(timetable)
        .execute(&mut sql)
        .await
        .unwrap();
    order().await.assert_status(201);
    assert_eq!(buyer.balance().await, PRICE);
    let held = world.check_holds(None).await;
    assert!(held.is_empty(), "{held:#?}");
    let findings = world.settle().await;
    assert!(findings.is_empty(), "{findings:#?}");
    world.settings.assert_audit_is_clean();
}
