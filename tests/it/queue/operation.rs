//! How a queue admits, and what operators do with it while it runs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{SOON, admin_queue, behind, enter, join, queue, set_policy, state, until};
use crate::harness::{Show, TestServer, eventually, in_seconds, number, text};

#[tokio::test]
async fn a_window_never_lets_more_in_than_it_may() {
    let server = TestServer::shared().await;
    let policy = json!({ "free_admission": 1, "admit": { "count": 2, "every_seconds": 3 } });
    let scene = behind(server, policy).await;
    set_policy(server, &scene, &json!({ "preset": "window-150" })).await;
    let pause = format!("{}/pause", admin_queue(&scene));
    server.admin().post(&pause, &json!({})).ok(200).await;
    let policy = json!({ "free_admission": 1, "admit": { "count": 2, "every_seconds": 3 } });
    set_policy(server, &scene, &policy).await;
    let mut buyers = Vec::new();
    for _ in 0..6 {
        let buyer = server.buyer();
        join(&buyer, &scene).await;
        buyers.push(buyer);
    }
    let summary = format!("{}/summary", queue(&scene));
    let before = server.anyone().get(&summary).ok(200).await;
    assert_eq!(
        (number(&before, "waiting"), number(&before, "active")),
        (6, 0)
    );
    assert_eq!(before["paused"], true);
    assert_eq!(before["estimated_wait_seconds"], Value::Null);
    let begun = Instant::now();
    let resume = format!("{}/resume", admin_queue(&scene));
    server.admin().post(&resume, &json!({})).ok(200).await;
    until(&buyers[2], &scene, "admitted").await;
    let in_first = begun.elapsed() < Duration::from_secs(3);
    let fourth = state(&buyers[3], &scene).await;
    if in_first && begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(fourth["state"], "waiting");
        assert_eq!(fourth["position"], 1);
    }
    until(&buyers[4], &scene, "admitted").await;
    assert!(begun.elapsed() >= Duration::from_millis(2_900), "too early");
    until(&buyers[5], &scene, "admitted").await;
    assert!(begun.elapsed() >= Duration::from_millis(5_900), "too early");
    let after = server.anyone().get(&summary).ok(200).await;
    assert_eq!(number(&after, "admitted_total"), 6);
}

#[tokio::test]
async fn operators_change_pause_and_drain_a_queue_while_it_runs() {
    let server = TestServer::shared().await;
    let scene = behind(server, json!({ "max_active": 1 })).await;
    let mut buyers = Vec::new();
    for _ in 0..5 {
        let buyer = server.buyer();
        join(&buyer, &scene).await;
        buyers.push(buyer);
    }
    until(&buyers[0], &scene, "admitted").await;
    set_policy(server, &scene, &json!({ "max_active": 3 })).await;
    until(&buyers[2], &scene, "admitted").await;
    let fourth = state(&buyers[3], &scene).await;
    assert_eq!(
        (&fourth["number"], &fourth["position"]),
        (&json!(4), &json!(1))
    );
    let at = |what: &str| format!("{}/{what}", admin_queue(&scene));
    let body = json!({});
    let drained = server.admin().post(&at("drain"), &body).ok(200).await;
    assert_eq!(drained["draining"], true);
    let newcomer = server.buyer();
    newcomer
        .post(&queue(&scene), &body)
        .problem(409, "queue-closed")
        .await;
    server.admin().delete(&at("drain")).ok(200).await;
    join(&newcomer, &scene).await;
    for what in ["pause", "resume"] {
        let somebody = server.organizer();
        somebody
            .post(&at(what), &body)
            .problem(404, "performance-not-found")
            .await;
        let buyer = server.buyer();
        buyer.post(&at(what), &body).problem(403, "forbidden").await;
    }
    // Without a queue seats are taken freely; with it again all are where they were.
    set_policy(server, &scene, &Value::Null).await;
    newcomer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    newcomer
        .get(&queue(&scene))
        .problem(404, "queue-not-found")
        .await;
    set_policy(server, &scene, &json!({ "max_active": 3 })).await;
    let fourth = state(&buyers[3], &scene).await;
    assert_eq!(
        (&fourth["number"], &fourth["position"]),
        (&json!(4), &json!(1))
    );
}

#[tokio::test]
async fn when_nothing_is_left_the_queue_is_closed() {
    let server = TestServer::shared().await;
    let show = Show::grid(1, 1, 100).with("queue", json!({ "max_active": 1 }));
    let scene = server.open(&show).await;
    let buyer = server.buyer_with_money(1_000).await;
    let waiter = server.buyer();
    let pass = enter(&buyer, &scene).await;
    join(&waiter, &scene).await;
    let map = buyer.get(&format!("/timetables/{}/seats", scene.timetable));
    map.header("queue-pass", &pass).ok(200).await;
    let wish = json!({ "best_available": { "count": 1 } });
    let call = buyer.hold(&scene.timetable, &wish);
    let hold = call.header("queue-pass", &pass).ok(201).await;
    // Held by somebody is not sold.
    eventually("the hold is told", SOON, || async {
        let state = state(&waiter, &scene).await;
        (state["seats"] == json!({ "available": 0, "held": 1 })).then_some(state)
    })
    .await;
    buyer.order(text(&hold, "hold_id")).ok(201).await;
    let closed = until(&waiter, &scene, "closed").await;
    assert_eq!(closed["number"], 2);
    let newcomer = server.buyer();
    let call = newcomer.post(&queue(&scene), &json!({}));
    call.problem(409, "queue-closed").await;
}

#[tokio::test]
async fn an_operators_word_on_a_queue_whose_sale_is_over_loads_it_only_to_change_it() {
    let server = TestServer::start().await;
    let scene = behind(&server, json!({ "max_active": 1 })).await;
    enter(&server.buyer(), &scene).await;
    join(&server.buyer(), &scene).await;
    let performance = format!("/admin/performances/{}", scene.performance);
    let over = json!({ "closes_at": in_seconds(-1) });
    server.admin().patch(&performance, &over).ok(200).await;
    // Started again, it has nothing in memory.
    let server = server.restart().await;
    let admin = server.admin();
    let word = async |what: &str| {
        let path = format!("{}/{what}", admin_queue(&scene));
        admin.post(&path, &json!({})).ok(200).await
    };
    let actor = format!("/admin/actors/queue/{}", scene.performance);
    let resumed = word("resume").await;
    admin.get(&actor).problem(404, "actor-not-found").await;
    assert_eq!(
        (number(&resumed, "waiting"), number(&resumed, "active")),
        (1, 1),
        "{resumed}"
    );
    assert_eq!(number(&resumed, "admitted_total"), 1);
    assert_eq!(resumed["paused"], false);
    // There is something to write.
    assert_eq!(word("pause").await["paused"], true);
    admin.get(&actor).ok(200).await;
    // What the queue itself says is the same, but for the pause.
    let summary = format!("{}/summary", queue(&scene));
    let mut told = server.anyone().get(&summary).ok(200).await;
    told["paused"] = json!(false);
    assert_eq!(told, resumed);
    let server = server.restart().await;
    let admin = server.admin();
    let drain = format!("{}/drain", admin_queue(&scene));
    let undrained = admin.delete(&drain).ok(200).await;
    assert_eq!(undrained["paused"], true, "{undrained}");
    admin.get(&actor).problem(404, "actor-not-found").await;
    let resume = format!("{}/resume", admin_queue(&scene));
    let resumed = admin.post(&resume, &json!({})).ok(200).await;
    assert_eq!(resumed["paused"], false);
    server.stop().await;
}
