//! What one node changes of that which all keep in memory.

use std::time::Duration;

use serde_json::json;

use crate::World;
use crate::common::eventually;

/// A change is promised on all nodes within 1 s; tests allow ten times that.
const SEEN_LIMIT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_catalogue_is_seen_on_all_nodes_and_none_is_lost() {
    let world = World::start().await;
    let (a, b) = (world.a.admin().await, world.b.admin().await);
    let performance = world.scene.performance.clone();
    let path = format!("/admin/performances/{performance}");
    // Each through the other node than the one before, at once.
    a.patch(&path, &json!({ "title": "Changed by A" }))
        .ok(200)
        .await;
    let after = b
        .patch(&path, &json!({ "description": "Changed by B" }))
        .ok(200)
        .await;
    assert_eq!(after["title"], "Changed by A");
    a.patch(&path, &json!({ "limits": { "max_seats_per_user": 1 } }))
        .ok(200)
        .await;
    for client in [world.at_a(), world.at_b()] {
        eventually("all three are seen", SEEN_LIMIT, || async {
            let seen = client
                .get(&format!("/performances/{performance}"))
                .ok(200)
                .await;
            (seen["title"] == "Changed by A"
                && seen["description"] == "Changed by B"
                && seen["limits"]["max_seats_per_user"] == 1)
                .then_some(())
        })
        .await;
    }
    // The actors are told right after, on whichever node they are.
    tokio::time::sleep(SEEN_LIMIT / 10).await;
    for timetable in world.timetables() {
        let two = json!({ "seat_ids": ["G-A-1", "G-A-2"] });
        let answer = world.at_a().hold(&timetable, &two).send().await;
        answer.assert_problem(422, "seat-limit-exceeded");
    }
    b.delete(&path).ok(204).await;
    let gone = world.at_a();
    eventually("it is gone on the other node", SEEN_LIMIT, || async {
        let answer = gone
            .get(&format!("/performances/{performance}"))
            .send()
            .await;
        (answer.status == 404).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_out_at_one_node_is_signed_out_at_all() {
    let world = World::start().await;
    let (a, b) = (world.at_a(), world.at_b());
    b.get("/me").ok(200).await;
    a.delete("/sessions/current").ok(204).await;
    eventually(
        "the token is dead at the other node",
        SEEN_LIMIT,
        || async { (b.get("/me").send().await.status == 401).then_some(()) },
    )
    .await;
}
