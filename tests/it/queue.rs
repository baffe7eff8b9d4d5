//! The waiting room: places, admissions, what a pass opens and what it doesn't.

use std::time::{Duration, Instant};

use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{
    Client, SLACK_FACTOR, Scene, Show, TestServer, eventually, fresh_key, in_millis, in_seconds,
    list, number, text,
};

/// Admissions and passes are told within a second by the contract.
const SOON: Duration = Duration::from_secs(SLACK_FACTOR as u64);

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
async fn before_the_opening_everybody_waits_with_their_number() {
    let server = TestServer::shared().await;
    let show = Show::small()
        .with("opens_at", in_millis(2_500).into())
        .with("queue", json!({ "max_active": 1 }));
    let scene = server.open(&show).await;
    let (first, second) = (server.buyer(), server.buyer());
    let early = join(&first, &scene).await;
    assert_eq!(
        (&early["state"], &early["number"]),
        (&json!("pre_queue"), &json!(1))
    );
    assert_eq!(
        (&early["position"], &early["pass"]),
        (&json!(1), &Value::Null)
    );
    join(&second, &scene).await;
    until(&first, &scene, "admitted").await;
    let waits = state(&second, &scene).await;
    assert_eq!(
        (&waits["state"], &waits["position"]),
        (&json!("waiting"), &json!(1))
    );
}

#[tokio::test]
async fn anyone_can_check_an_opening_by_lot() {
    let server = TestServer::shared().await;
    let show = Show::small()
        .with("opens_at", in_millis(4_000).into())
        .with("queue", json!({ "max_active": 3, "opening": "lottery" }));
    let scene = server.open(&show).await;
    let shown = scene.read(&server.anyone()).await;
    let commitment = text(&shown["queue"], "commitment").to_owned();
    let mut buyers = Vec::new();
    for _ in 0..8 {
        let buyer = server.buyer();
        let place = join(&buyer, &scene).await;
        assert_eq!(place["state"], "pre_queue");
        assert_eq!(
            (&place["number"], &place["position"]),
            (&Value::Null, &Value::Null)
        );
        buyers.push(buyer);
    }
    let at = format!("{}/draw", queue(&scene));
    let before = server.anyone().get(&at).ok(200).await;
    assert_eq!(text(&before, "commitment"), commitment);
    assert_eq!(
        (&before["seed"], &before["entrants"]),
        (&Value::Null, &json!([]))
    );
    let drawn = eventually("the draw", SOON, || async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let draw = server.anyone().get(&at).ok(200).await;
        (!draw["seed"].is_null()).then_some(draw)
    })
    .await;
    let unhex = |text: &str| -> Vec<u8> {
        let pairs = text.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    let seed = unhex(text(&drawn, "seed"));
    assert_eq!(Sha256::digest(&seed).to_vec(), unhex(&commitment));
    let entrants = list(&drawn, "entrants");
    assert_eq!(entrants.len(), buyers.len());
    let mut ranks = Vec::new();
    for (expected, entrant) in (1..).zip(entrants) {
        assert_eq!(number(entrant, "number"), expected);
        let id: uuid::Uuid = text(entrant, "ticket_id").parse().unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&seed).unwrap();
        mac.update(id.as_bytes());
        ranks.push(mac.finalize().into_bytes().to_vec());
    }
    assert!(ranks.is_sorted(), "not in the order of the ranks");
    let mut numbers = Vec::new();
    for buyer in &buyers {
        numbers.push(number(&state(buyer, &scene).await, "number"));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=8).collect::<Vec<i64>>());
    let late = join(&server.buyer(), &scene).await;
    assert!(
        number(&late, "number") > 8,
        "behind everybody who was drawn"
    );
}

#[tokio::test]
async fn a_restart_keeps_every_place_to_the_number_and_admits_nobody_twice() {
    let server = TestServer::start().await;
    let scene = behind(&server, json!({ "max_active": 2 })).await;
    let ids: Vec<uuid::Uuid> = (0..6).map(|_| uuid::Uuid::now_v7()).collect();
    let buyer_of = |server: &TestServer, id| {
        let token = server.mint(id, &[onsale::domain::roles::Role::Customer]);
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
    let ids: Vec<uuid::Uuid> = (0..4).map(|_| uuid::Uuid::now_v7()).collect();
    let buyer_of = |server: &TestServer, id| {
        let token = server.mint(id, &[onsale::domain::roles::Role::Customer]);
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
