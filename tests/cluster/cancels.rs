//! Cancels where the seats are one node's and the money is another's.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{eventually, fresh_key};
use crate::{PRICE, World, hold_at_last, order_at_last};

/// The survivor answers within 3 s; tests allow ten times that.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_at_any_node_gives_back_once_and_one_under_way_survives_its_node() {
    let mut world = World::start().await;
    let (a, b) = (world.at_a(), world.at_b());
    let before = a.balance().await;
    // Some of the dates are one node's, some the other's, like the wallet.
    for timetable in world.timetables() {
        let hold = hold_at_last(&a, &timetable, "G-A-1").await;
        order_at_last(&a, &hold).await;
    }
    let page = a.get("/orders?limit=100").ok(200).await;
    let orders: Vec<Value> = page["items"].as_array().unwrap().clone();
    assert_eq!(orders.len(), world.timetables().len());
    let path = |order: &Value| format!("/orders/{}/cancel", order["order_id"].as_str().unwrap());
    let (first, second) = orders.split_at(orders.len() / 2);
    for order in first {
        let key = fresh_key();
        let at_b = b.post(&path(order), &json!({})).key(&key).ok(200).await;
        let at_a = a.post(&path(order), &json!({})).key(&key).send().await;
        assert_eq!(at_a.header("idempotency-replayed"), Some("true"));
        assert_eq!(at_a.json(), at_b);
    }
    let left = PRICE * i64::try_from(second.len()).unwrap();
    assert_eq!(b.balance().await, before - left);
    // All at once, and one of the two nodes dies in the midst of it.
    let keys: Vec<String> = second.iter().map(|_| fresh_key()).collect();
    let sent = second.iter().zip(&keys).map(|(order, key)| {
        let call = a.post(&path(order), &json!({})).key(key);
        call.timeout(ANSWER_LIMIT).try_send()
    });
    let killing = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        world.b.kill();
    };
    tokio::join!(futures_util::future::join_all(sent), killing);
    for (order, key) in second.iter().zip(&keys) {
        eventually("a cancel's outcome", ANSWER_LIMIT, || async {
            let call = a.post(&path(order), &json!({})).key(key);
            let answer = call.timeout(ANSWER_LIMIT).try_send().await.ok()?;
            let is_known = !matches!(answer.status, 503 | 504)
                && answer.json()["code"] != "idempotency-key-in-use";
            is_known.then(|| answer.assert_status(200))
        })
        .await;
    }
    eventually("all the money", ANSWER_LIMIT, || async {
        (a.balance().await == before).then_some(())
    })
    .await;
    for timetable in world.timetables() {
        assert_eq!(a.map(&timetable).await["available"], 40);
    }
    world.audit();
}
