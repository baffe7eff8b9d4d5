//! A waiting room lives on one node, and serves through all.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::client::Client;
use crate::common::eventually;
use crate::common::process::sign_up;
use crate::{PASSWORD, World};

/// An end of a pass is known on all nodes within 1 s; tests allow ten times
/// that.
const SEEN_LIMIT: Duration = Duration::from_secs(10);

async fn admitted(client: &Client, queue: &str) -> Value {
    eventually("the pass", SEEN_LIMIT, || async {
        tokio::time::sleep(Duration::from_millis(90)).await;
        let state = client.get(queue).ok(200).await;
        (state["state"] == "admitted").then_some(state)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_and_a_pass_are_the_same_through_either_node() {
    let world = World::start().await;
    let (a, b) = (world.at_a(), world.at_b());
    let path = format!("/admin/performances/{}/queue", world.scene.performance);
    let admin = world.a.admin().await;
    admin.put(&path, &json!({ "max_active": 1 })).ok(200).await;
    let queue = format!("/performances/{}/queue", world.scene.performance);
    let next = sign_up(&world.b.client(), "next@example.com", PASSWORD).await;
    eventually("the other node knows of the queue", SEEN_LIMIT, || async {
        let answer = b.get(&queue).send().await;
        answer.text().contains("not-in-queue").then_some(())
    })
    .await;
    let joined = a.post(&queue, &json!({})).ok(201).await;
    assert_eq!(joined["number"], 1);
    let again = b.post(&queue, &json!({})).ok(200).await;
    assert_eq!(again["number"], 1);
    let waits = next.post(&queue, &json!({})).ok(201).await;
    assert_eq!(
        (&waits["number"], &waits["position"]),
        (&json!(2), &json!(1))
    );
    let pass = admitted(&a, &queue).await;
    let text = pass["pass"].as_str().unwrap();
    admitted(&b, &queue).await;
    for (number, timetable) in world.timetables().iter().enumerate() {
        let client = if number % 2 == 0 { &a } else { &b };
        let wish = json!({ "seat_ids": ["G-A-1"] });
        let call = client.hold(timetable, &wish).header("queue-pass", text);
        call.ok(201).await;
    }
    a.delete(&queue).ok(204).await;
    for client in [&a, &b] {
        eventually("the pass is over everywhere", SEEN_LIMIT, || async {
            let map = format!("/timetables/{}/seats", world.scene.timetable);
            let answer = client.get(&map).header("queue-pass", text).send().await;
            answer.text().contains("queue-pass-revoked").then_some(())
        })
        .await;
    }
    admitted(&next, &queue).await;
}
