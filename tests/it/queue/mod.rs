//! The waiting room: places, admissions, what a pass opens and what it doesn't.

mod crowd;
mod opening;
mod operation;
mod passes;
mod places;
mod recovery;

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, SLACK_FACTOR, Scene, Show, TestServer, eventually, text};

/// Admissions and passes are told within a second by the contract.
const SOON: Duration = Duration::from_secs(SLACK_FACTOR as u64);

fn queue(scene: &Scene) -> String {
    format!("/performances/{}/queue", scene.performance)
}

fn admin_queue(scene: &Scene) -> String {
    format!("/admin/performances/{}/queue", scene.performance)
}

async fn behind(server: &TestServer, policy: Value) -> Scene {
    server.open(&Show::small().with("queue", policy)).await
}

async fn set_policy(server: &TestServer, scene: &Scene, policy: &Value) {
    server
        .admin()
        .put(&admin_queue(scene), policy)
        .ok(200)
        .await;
}

/// A new place of somebody who has none.
async fn join(buyer: &Client, scene: &Scene) -> Value {
    buyer.post(&queue(scene), &json!({})).ok(201).await
}

async fn state(buyer: &Client, scene: &Scene) -> Value {
    buyer.get(&queue(scene)).ok(200).await
}

/// The first state of this name that the user is shown.
async fn until(buyer: &Client, scene: &Scene, name: &str) -> Value {
    eventually(&format!("the state {name}"), SOON, || async {
        tokio::time::sleep(Duration::from_millis(90)).await;
        let state = state(buyer, scene).await;
        (state["state"] == name).then_some(state)
    })
    .await
}

/// Joins, and waits for the pass.
async fn enter(buyer: &Client, scene: &Scene) -> String {
    join(buyer, scene).await;
    text(&until(buyer, scene, "admitted").await, "pass").to_owned()
}

async fn hold_with(buyer: &Client, scene: &Scene, seat: &str, pass: &str) -> Value {
    let wish = json!({ "seat_ids": [seat] });
    let call = buyer.hold(&scene.timetable, &wish);
    call.header("queue-pass", pass).ok(201).await
}

/// The seats with this pass, which isn't good.
async fn refused(buyer: &Client, scene: &Scene, pass: &str, code: &str) {
    let wish = json!({ "seat_ids": ["F1-B-10"] });
    let call = buyer.hold(&scene.timetable, &wish);
    call.header("queue-pass", pass).problem(403, code).await;
    let map = buyer.get(&format!("/timetables/{}/seats", scene.timetable));
    map.header("queue-pass", pass).problem(403, code).await;
}
