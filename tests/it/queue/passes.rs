//! What a pass opens, for whom and how long, and what ends it.

use std::time::Duration;

use serde_json::json;

use super::{SOON, behind, enter, hold_with, join, queue, refused, set_policy, state, until};
use crate::harness::{TestServer, eventually, text};

#[tokio::test]
async fn leaving_admits_the_next_and_ends_the_pass_at_once() {
    let server = TestServer::shared().await;
    let scene = behind(server, json!({ "max_active": 1 })).await;
    let (first, second, third) = (server.buyer(), server.buyer(), server.buyer());
    let pass = enter(&first, &scene).await;
    join(&second, &scene).await;
    join(&third, &scene).await;
    hold_with(&first, &scene, "F1-A-1", &pass).await;
    first.delete(&queue(&scene)).ok(204).await;
    refused(&first, &scene, &pass, "queue-pass-revoked").await;
    first.delete(&queue(&scene)).ok(204).await;
    until(&second, &scene, "admitted").await;
    let waits = state(&third, &scene).await;
    assert_eq!(
        (&waits["state"], &waits["position"]),
        (&json!("waiting"), &json!(1))
    );
    let left = state(&first, &scene).await;
    assert_eq!(
        (&left["state"], &left["number"]),
        (&json!("left"), &json!(1))
    );
    let again = join(&first, &scene).await;
    assert_eq!(again["number"], 4, "at the tail: {again}");
    refused(&first, &scene, &pass, "queue-pass-revoked").await;
}

#[tokio::test]
async fn a_pass_opens_its_own_performance_for_its_own_user_for_its_time() {
    let server = TestServer::shared().await;
    let policy = json!({ "max_active": 100, "active_ttl_seconds": 600 });
    let scene = behind(server, policy.clone()).await;
    let other = behind(server, policy).await;
    let (buyer, thief) = (server.buyer_with_money(1_000_000).await, server.buyer());
    let pass = enter(&buyer, &scene).await;
    let elsewhere = enter(&buyer, &other).await;
    refused(&buyer, &scene, "forged", "queue-pass-invalid").await;
    refused(&buyer, &scene, &elsewhere, "queue-pass-wrong-performance").await;
    refused(&thief, &scene, &pass, "queue-pass-not-for-you").await;
    let ticket = state(&buyer, &scene).await;
    refused(
        &buyer,
        &scene,
        text(&ticket, "ticket"),
        "queue-pass-invalid",
    )
    .await;
    for pass in [&pass, text(&ticket, "ticket")] {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!(pass.chars().all(is_allowed), "{pass}");
    }
    let seats = format!("/timetables/{}/seats", scene.timetable);
    let map = server.anyone().get(&seats).header("queue-pass", &pass);
    map.problem(403, "queue-pass-not-for-you").await;
    buyer.get(&seats).header("queue-pass", &pass).ok(200).await;
    let hold = hold_with(&buyer, &scene, "F1-A-1", &pass).await;
    let adding = format!("/holds/{}/seats", text(&hold, "hold_id"));
    let wish = json!({ "seat_ids": ["F1-A-2"] });
    let bare = buyer.post(&adding, &wish);
    bare.problem(403, "queue-pass-required").await;
    let added = buyer.post(&adding, &wish).header("queue-pass", &pass);
    added.ok(200).await;
    // What was held under a pass is ordered and read without one.
    buyer
        .get(&format!("/holds/{}", text(&hold, "hold_id")))
        .ok(200)
        .await;
    buyer.order(text(&hold, "hold_id")).ok(201).await;
}

#[tokio::test]
async fn a_pass_ends_with_its_time_and_its_user_may_join_again() {
    let server = TestServer::shared().await;
    let policy = json!({ "max_active": 1, "active_ttl_seconds": 1, "extend_on_hold_seconds": 0 });
    let scene = behind(server, policy).await;
    let (first, second) = (server.buyer(), server.buyer());
    let pass = enter(&first, &scene).await;
    join(&second, &scene).await;
    until(&first, &scene, "expired").await;
    refused(&first, &scene, &pass, "queue-pass-expired").await;
    eventually("the next one enters", SOON, || async {
        let state = state(&second, &scene).await;
        // With such short passes it may be over already.
        (state["state"] != "waiting").then_some(())
    })
    .await;
    let again = join(&first, &scene).await;
    assert_eq!(again["number"], 3);
}

#[tokio::test]
async fn a_hold_from_before_the_queue_is_ordered_with_a_pass() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    set_policy(server, &scene, &json!({ "max_active": 10 })).await;
    let order = || buyer.order(text(&hold, "hold_id"));
    order().problem(403, "queue-pass-required").await;
    let forged = order().header("queue-pass", "forged");
    forged.problem(403, "queue-pass-invalid").await;
    let pass = enter(&buyer, &scene).await;
    order().header("queue-pass", &pass).ok(201).await;
}

#[tokio::test]
async fn a_hold_lets_a_pass_be_extended() {
    let server = TestServer::shared().await;
    let policy =
        json!({ "max_active": 1, "active_ttl_seconds": 60, "extend_on_hold_seconds": 900 });
    let scene = behind(server, policy).await;
    let buyer = server.buyer();
    let pass = enter(&buyer, &scene).await;
    hold_with(&buyer, &scene, "F1-A-1", &pass).await;
    let extend = format!("{}/extend", queue(&scene));
    let renewed = buyer.post(&extend, &json!({})).ok(200).await;
    assert_eq!(renewed["state"], "admitted");
    let until: jiff::Timestamp = text(&renewed, "pass_expires_at").parse().unwrap();
    assert!(until > jiff::Timestamp::now() + jiff::SignedDuration::from_secs(600));
    hold_with(&buyer, &scene, "F1-A-2", text(&renewed, "pass")).await;
}

#[tokio::test]
async fn a_hold_renews_a_pass_and_a_purchase_ends_it() {
    let server = TestServer::shared().await;
    let policy =
        json!({ "max_active": 1, "active_ttl_seconds": 60, "extend_on_hold_seconds": 900 });
    let scene = behind(server, policy).await;
    let (buyer, next) = (server.buyer_with_money(1_000_000).await, server.buyer());
    let pass = enter(&buyer, &scene).await;
    join(&next, &scene).await;
    let hold = hold_with(&buyer, &scene, "F1-A-1", &pass).await;
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(600);
    let renewed = eventually("a renewed pass", SOON, || async {
        tokio::time::sleep(Duration::from_millis(90)).await;
        let state = state(&buyer, &scene).await;
        let until: jiff::Timestamp = text(&state, "pass_expires_at").parse().unwrap();
        (until > later).then_some(state)
    })
    .await;
    hold_with(&buyer, &scene, "F1-A-2", text(&renewed, "pass")).await;
    buyer.order(text(&hold, "hold_id")).ok(201).await;
    let left = until(&buyer, &scene, "left").await;
    assert_eq!(left["number"], 1);
    refused(&buyer, &scene, &pass, "queue-pass-revoked").await;
    refused(&buyer, &scene, text(&renewed, "pass"), "queue-pass-revoked").await;
    until(&next, &scene, "admitted").await;
}
