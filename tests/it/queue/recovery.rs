//! What is left of a queue after a restart, and after the loss of all of it.

use onsale::domain::roles::Role;
use serde_json::json;
use uuid::Uuid;

use super::{admin_queue, behind, enter, hold_with, join, queue, refused, state, until};
use crate::harness::{Scene, Show, TestServer, in_millis, number, text};

#[tokio::test]
async fn a_restart_keeps_every_place_to_the_number_and_admits_nobody_twice() {
    let server = TestServer::start().await;
    let scene = behind(&server, json!({ "max_active": 2 })).await;
    let ids: Vec<Uuid> = (0..6).map(|_| Uuid::now_v7()).collect();
    let buyer_of = |server: &TestServer, id| {
        let token = server.mint(id, &[Role::Customer]);
        server.anyone().with_token(&token)
    };
    let mut tickets = Vec::new();
    for id in &ids {
        tickets.push(join(&buyer_of(&server, *id), &scene).await);
    }
    let first = buyer_of(&server, ids[0]);
    let pass = until(&first, &scene, "admitted").await;
    until(&buyer_of(&server, ids[1]), &scene, "admitted").await;
    first.delete(&queue(&scene)).ok(204).await;
    let server = server.restart().await;
    for (expected, id) in (1..).zip(&ids) {
        let state = state(&buyer_of(&server, *id), &scene).await;
        assert_eq!(number(&state, "number"), expected, "{state}");
    }
    let first = buyer_of(&server, ids[0]);
    refused(&first, &scene, text(&pass, "pass"), "queue-pass-revoked").await;
    until(&buyer_of(&server, ids[2]), &scene, "admitted").await;
    let fourth = buyer_of(&server, ids[3]);
    let waits = state(&fourth, &scene).await;
    assert_eq!(
        (&waits["state"], &waits["position"]),
        (&json!("waiting"), &json!(1))
    );
    let ticket = text(&tickets[3], "ticket");
    let call = fourth.get(&queue(&scene)).header("queue-ticket", ticket);
    assert_eq!(call.ok(200).await["number"], 4);
    let newcomer = join(&server.buyer(), &scene).await;
    assert!(
        number(&newcomer, "number") > 6,
        "a number was issued twice: {newcomer}"
    );
    let summary = format!("{}/summary", queue(&scene));
    let summary = server.anyone().get(&summary).ok(200).await;
    assert_eq!(number(&summary, "active"), 2);
    assert_eq!(number(&summary, "admitted_total"), 3);
    server.stop().await;
}

#[tokio::test]
async fn tickets_bring_every_place_back_after_a_total_loss_of_the_queue() {
    let server = TestServer::start().await;
    let scene = behind(&server, json!({ "max_active": 1 })).await;
    let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
    let buyer_of = |server: &TestServer, id| {
        let token = server.mint(id, &[Role::Customer]);
        server.anyone().with_token(&token)
    };
    let pause = format!("{}/pause", admin_queue(&scene));
    server.admin().post(&pause, &json!({})).ok(200).await;
    let mut tickets = Vec::new();
    for id in &ids {
        let place = join(&buyer_of(&server, *id), &scene).await;
        tickets.push(text(&place, "ticket").to_owned());
    }
    let folder = server.stop().await;
    lose_queues(&folder.path().join("onsale.db")).await;
    let server = TestServer::start_again(folder).await;
    server.admin().post(&pause, &json!({})).ok(200).await;
    // The last comes back first, and a newcomer before the first: it changes nothing.
    let back = |at: usize| {
        let buyer = buyer_of(&server, ids[at]);
        let call = buyer.get(&queue(&scene));
        call.header("queue-ticket", &tickets[at]).ok(200)
    };
    buyer_of(&server, ids[0])
        .get(&queue(&scene))
        .problem(404, "not-in-queue")
        .await;
    assert_eq!(back(3).await["number"], 4);
    let newcomer = join(&server.buyer(), &scene).await;
    assert!(number(&newcomer, "number") > 4, "{newcomer}");
    assert_eq!(back(1).await["number"], 2);
    assert_eq!(back(0).await["number"], 1);
    assert_eq!(back(0).await["position"], 1);
    let resume = format!("{}/resume", admin_queue(&scene));
    server.admin().post(&resume, &json!({})).ok(200).await;
    until(&buyer_of(&server, ids[0]), &scene, "admitted").await;
    let second = state(&buyer_of(&server, ids[1]), &scene).await;
    assert_eq!(second["state"], "waiting");
    server.stop().await;
}

/// Has the store of a stopped server forget everything about waiting rooms.
async fn lose_queues(file: &std::path::Path) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let rows = sqlx::sqlite::SqlitePool::connect_with(options)
        .await
        .unwrap();
    for statement in [
        "DELETE FROM queue",
        "DELETE FROM queue_place",
        "DELETE FROM entity WHERE kind = 'queue'",
        "DELETE FROM journal WHERE kind = 'queue'",
    ] {
        sqlx::query(statement).execute(&rows).await.unwrap();
    }
    rows.close().await;
}

/// Somebody waits while the last seat is sold. Who comes right after the
/// restart is told so at once, and the one who waits doesn't enter in between.
#[tokio::test]
async fn a_restart_admits_nobody_where_nothing_is_left() {
    let server = TestServer::start().await;
    let show = Show::grid(1, 1, 100).with("queue", json!({ "max_active": 1 }));
    let scene = server.open(&show).await;
    let (buyer, waiter) = (server.buyer_with_money(1_000).await, Uuid::now_v7());
    let waiter_of = |server: &TestServer| {
        let token = server.mint(waiter, &[Role::Customer]);
        server.anyone().with_token(&token)
    };
    let pass = enter(&buyer, &scene).await;
    join(&waiter_of(&server), &scene).await;
    let hold = hold_with(&buyer, &scene, "G-A-1", &pass).await;
    buyer.order(text(&hold, "hold_id")).ok(201).await;
    until(&waiter_of(&server), &scene, "closed").await;
    let server = server.restart().await;
    let newcomer = server.buyer();
    let call = newcomer.post(&queue(&scene), &json!({}));
    call.problem(409, "queue-closed").await;
    let closed = state(&waiter_of(&server), &scene).await;
    assert_eq!(closed["state"], "closed", "{closed}");
    assert_eq!(closed["seats"], json!({ "available": 0, "held": 0 }));
    let summary = format!("{}/summary", queue(&scene));
    let summary = server.anyone().get(&summary).ok(200).await;
    assert_eq!(number(&summary, "admitted_total"), 1, "{summary}");
    server.stop().await;
}

#[tokio::test]
async fn a_restart_leaves_a_queue_alone_whose_sale_is_over_until_somebody_asks() {
    let server = TestServer::start().await;
    let show = Show::small()
        .with("closes_at", in_millis(2_000).into())
        .with("queue", json!({ "max_active": 1 }));
    let over = server.open(&show).await;
    let goes_on = behind(&server, json!({ "max_active": 1 })).await;
    let waiter = Uuid::now_v7();
    let waiter_of = |server: &TestServer| {
        let token = server.mint(waiter, &[Role::Customer]);
        server.anyone().with_token(&token)
    };
    for scene in [&over, &goes_on] {
        join(&server.buyer(), scene).await;
        join(&waiter_of(&server), scene).await;
    }
    until(&waiter_of(&server), &over, "closed").await;
    let server = server.restart().await;
    let is_loaded = |scene: &Scene| {
        let id = scene.performance.parse().unwrap();
        let queues = &server.app().node.queues;
        queues.directory().running(id).is_some()
    };
    assert!(is_loaded(&goes_on));
    assert!(!is_loaded(&over), "it has nothing to do");
    let closed = state(&waiter_of(&server), &over).await;
    assert_eq!(
        (&closed["state"], &closed["number"]),
        (&json!("closed"), &json!(2))
    );
    server.stop().await;
}
