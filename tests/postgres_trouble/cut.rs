//! The connection is cut between COMMIT and its answer: nobody knows whether it
//! was done, and it must be done once.

use std::time::Duration;

use serde_json::{Value, json};

use crate::Place;
use crate::common::client::Answer;
use crate::common::fresh_key;
use crate::proxy::Proxy;
use crate::world::{PRICE, World};

/// How often it is cut under one caller.
const CUTS: i64 = 12;

/// How long it is cut under load, and how often.
const LOAD: Duration = Duration::from_secs(4);
const CUT_EVERY: Duration = Duration::from_millis(150);

async fn world_behind(place: &Place, extra: &[(&str, &str)]) -> (World, Proxy) {
    let proxy = Proxy::start(place.services.postgres_port()).await;
    let postgres = place.services.postgres_url_at(proxy.port);
    let world = place.world_at(&postgres, extra).await;
    (world, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_commit_was_not_answered_is_applied_once() {
    let place = Place::fresh().await;
    let (mut world, proxy) = world_behind(&place, &[]).await;
    let buyer = world.client(0);
    let timetable = world.scene.timetable.clone();
    let mut orders: Vec<String> = Vec::new();
    for round in 1..=CUTS {
        let key = fresh_key();
        let charge = json!({ "amount": PRICE });
        let send = || buyer.post("/wallet/charges", &charge).key(&key).send();
        proxy.lose_next();
        // The caller hears of none of it.
        send().await.assert_status(201);
        assert_replayed(&send().await);

        let wish = json!({ "best_available": { "count": 1 } });
        let hold = buyer.hold(&timetable, &wish).ok(201).await;
        let key = fresh_key();
        let body = json!({ "hold_id": hold["hold_id"], "payment": { "method": "wallet" } });
        let send = || buyer.order_body(&body).key(&key).send();
        proxy.lose_next();
        let first = send().await;
        first.assert_status(201);
        let again = send().await;
        assert_replayed(&again);
        let id = |answer: &Answer| answer.json()["order_id"].as_str().unwrap().to_owned();
        assert_eq!(id(&first), id(&again), "one order a key");
        orders.push(id(&first));
        assert_eq!(buyer.balance().await, 0, "round {round}");
    }
    assert!(proxy.lost() >= usize::try_from(CUTS).unwrap(), "it was cut");
    let map = buyer.map(&timetable).await;
    assert_eq!(map["sold"], CUTS);
    let listed = buyer.get("/orders?limit=100").ok(200).await;
    let mut listed: Vec<String> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|order: &Value| order["order_id"].as_str().unwrap().to_owned())
        .collect();
    listed.sort_unstable();
    orders.sort_unstable();
    assert_eq!(listed, orders);
    world.server.terminate();
    world.settings.assert_audit_is_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_without_an_answer_lose_and_double_nothing_under_load() {
    let place = Place::fresh().await;
    let (mut world, proxy) = world_behind(&place, &[]).await;
    let load = world.load();
    let cutting = async {
        loop {
            proxy.lose_next();
            tokio::time::sleep(CUT_EVERY).await;
        }
    };
    let _ = tokio::time::timeout(LOAD, cutting).await;
    load.end().await;
    assert!(proxy.lost() >= 10, "cut only {} times", proxy.lost());
    let findings = world.settle().await;
    eprintln!(
        "{} commits without an answer, {} calls acknowledged",
        proxy.lost(),
        world.acknowledged().await
    );
    assert!(findings.is_empty(), "{findings:#?}");
    world.settings.assert_audit_is_clean();
}

/// A server that repeats such a batch without looking must be found out, or the
/// tests above show nothing.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_repeats_a_batch_blindly_is_found_out() {
    let place = Place::fresh().await;
    let (world, proxy) = world_behind(&place, &[("ONSALE_SABOTAGE", "retry-blindly")]).await;
    let buyer = world.client(0);
    let mut expected = 0;
    for _ in 0..CUTS {
        let charge = json!({ "amount": PRICE });
        let charge = buyer.post("/wallet/charges", &charge).key(&fresh_key());
        proxy.lose_next();
        let answer = charge.send().await;
        expected += PRICE;
        if answer.status != 201 || buyer.balance().await != expected {
            eprintln!("found out: {} {}", answer.status, answer.text());
            return;
        }
    }
    panic!("nothing was found in {CUTS} cuts: the check can't fail");
}

fn assert_replayed(answer: &Answer) {
    answer.assert_status(201);
    assert_eq!(answer.header("idempotency-replayed"), Some("true"));
}
