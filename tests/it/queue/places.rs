//! Having a place: who joins, who comes back, who is refused.

use serde_json::{Value, json};

use super::{behind, join, queue, set_policy, state, until};
use crate::harness::{Show, TestServer, fresh_key, in_seconds, text};

/// Every member of a state; all are always there.
const MEMBERS: [&str; 13] = [
    "type",
    "seq",
    "performance_id",
    "state",
    "number",
    "position",
    "waiting_behind",
    "estimated_wait_seconds",
    "seats",
    "ticket",
    "pass",
    "pass_expires_at",
    "poll_after_seconds",
];

#[tokio::test]
async fn who_joins_has_a_place_and_keeps_it_however_often_they_join() {
    let server = TestServer::shared().await;
    let scene = behind(server, json!({ "max_active": 1 })).await;
    let (first, second) = (server.buyer(), server.buyer());
    let place = join(&first, &scene).await;
    assert_eq!(place["number"], 1, "{place}");
    let waits = join(&second, &scene).await;
    assert_eq!(
        (&waits["number"], &waits["state"]),
        (&json!(2), &json!("waiting"))
    );
    let inside = until(&first, &scene, "admitted").await;
    assert_eq!(inside["position"], Value::Null);
    let again = second.post(&queue(&scene), &json!({})).ok(200).await;
    let answer = second.get(&queue(&scene)).send().await;
    for state in [&place, &waits, &inside, &again, &answer.json()] {
        for member in MEMBERS {
            assert!(state.get(member).is_some(), "no {member} in {state}");
        }
        assert_eq!(state["type"], "state");
        assert_eq!(state["performance_id"], scene.performance.as_str());
        assert_eq!(state["pass"].is_null(), state["state"] != "admitted");
        assert_eq!(state["pass"].is_null(), state["pass_expires_at"].is_null());
    }
    let now = answer.json();
    assert_eq!((&now["number"], &now["position"]), (&json!(2), &json!(1)));
    assert_eq!(now["seats"], json!({ "available": 80, "held": 0 }));
    let poll_after = now["poll_after_seconds"].to_string();
    assert_eq!(answer.header("retry-after"), Some(poll_after.as_str()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn what_cannot_be_joined_or_asked_is_refused_as_the_contract_says() {
    let server = TestServer::shared().await;
    let buyer = server.buyer();
    let plain = server.small().await;
    let body = json!({});
    buyer
        .post(&queue(&plain), &body)
        .problem(404, "queue-not-found")
        .await;
    buyer
        .get(&queue(&plain))
        .problem(404, "queue-not-found")
        .await;
    let scene = behind(server, json!({ "max_active": 1 })).await;
    server
        .anyone()
        .post(&queue(&scene), &body)
        .problem(401, "unauthorized")
        .await;
    buyer.get(&queue(&scene)).problem(404, "not-in-queue").await;
    let extend = format!("{}/extend", queue(&scene));
    buyer
        .post(&extend, &body)
        .problem(404, "not-in-queue")
        .await;
    join(&buyer, &scene).await;
    until(&buyer, &scene, "admitted").await;
    // A pass, but nothing held.
    buyer
        .post(&extend, &body)
        .problem(409, "nothing-to-extend")
        .await;
    let newcomer = server.buyer();
    let unknown = json!({ "number": 1 });
    let call = newcomer.post(&queue(&scene), &unknown);
    call.problem(422, "invalid-request").await;
    let full = json!({ "max_active": 1, "max_waiting_per_seat": 0 });
    set_policy(server, &scene, &full).await;
    newcomer
        .post(&queue(&scene), &body)
        .problem(409, "queue-full")
        .await;
    let over = Show::small()
        .with("opens_at", in_seconds(-7_200).into())
        .with("closes_at", in_seconds(-3_600).into())
        .with("queue", json!({ "max_active": 1 }));
    let over = server.open(&over).await;
    newcomer
        .post(&queue(&over), &body)
        .problem(409, "queue-closed")
        .await;
    let draw = format!("{}/draw", queue(&scene));
    newcomer.get(&draw).problem(404, "not-found").await;
}

#[tokio::test]
async fn a_forged_or_foreign_ticket_is_refused_and_moves_nobody() {
    let server = TestServer::shared().await;
    let scene = behind(server, json!({ "max_active": 1 })).await;
    let other = behind(server, json!({ "max_active": 1 })).await;
    let (first, second, third) = (server.buyer(), server.buyer(), server.buyer());
    let mine = join(&first, &scene).await;
    join(&second, &scene).await;
    let last = join(&third, &scene).await;
    assert_eq!(last["number"], 3);
    let elsewhere = join(&third, &other).await;
    let mut forged = text(&last, "ticket").to_owned();
    let at = forged.len() / 2;
    let letter = if forged.as_bytes()[at] == b'A' {
        "B"
    } else {
        "A"
    };
    forged.replace_range(at..=at, letter);
    for ticket in [
        &forged,
        text(&mine, "ticket"),
        text(&elsewhere, "ticket"),
        "1",
    ] {
        let call = third.get(&queue(&scene)).header("queue-ticket", ticket);
        call.problem(422, "invalid-request").await;
    }
    let own = text(&last, "ticket");
    let call = third.get(&queue(&scene)).header("queue-ticket", own);
    assert_eq!(call.ok(200).await["number"], 3);
    assert_eq!(state(&third, &scene).await["number"], 3);
}

#[tokio::test]
async fn a_repeated_join_under_a_key_has_the_same_answer() {
    let server = TestServer::shared().await;
    let scene = behind(server, json!({ "max_active": 1 })).await;
    let buyer = server.buyer();
    let key = fresh_key();
    let join = || buyer.post(&queue(&scene), &json!({})).key(&key);
    let first = join().send().await;
    first.assert_status(201);
    let again = join().send().await;
    again.assert_status(201);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.json(), first.json());
}

#[tokio::test]
async fn who_polls_too_often_is_told_when_to_come_back() {
    let server = TestServer::shared().await;
    let scene = behind(server, json!({ "max_active": 1 })).await;
    let buyer = server.buyer();
    join(&buyer, &scene).await;
    let mut refusals = 0;
    for _ in 0..200 {
        let answer = buyer.get(&queue(&scene)).send().await;
        if answer.status == 429 {
            answer.assert_problem(429, "rate-limited");
            refusals += 1;
        } else {
            answer.assert_status(200);
        }
    }
    assert!(refusals > 0, "200 polls at once were all answered");
    // Another user is not concerned.
    join(&server.buyer(), &scene).await;
}
