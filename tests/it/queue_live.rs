//! The waiting room's socket.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::common::process::sign_up;
use crate::harness::{Client, DAY, Scene, Show, TestServer, in_seconds, number, text};
use crate::socket::Socket;

/// Ten times the second in which a tick must come while a position moves.
const TICK_LIMIT: Duration = Duration::from_secs(10);

/// Every member of a tick.
const TICK_MEMBERS: [&str; 7] = [
    "type",
    "seq",
    "position",
    "waiting_behind",
    "estimated_wait_seconds",
    "seats",
    "paused",
];

pub(crate) fn queue(scene: &Scene) -> String {
    format!("/performances/{}/queue", scene.performance)
}

fn live(scene: &Scene) -> String {
    format!("{}/live", queue(scene))
}

pub(crate) async fn behind(server: &TestServer, policy: Value) -> Scene {
    server.open(&Show::small().with("queue", policy)).await
}

pub(crate) async fn join(buyer: &Client, scene: &Scene) -> Value {
    buyer.post(&queue(scene), &json!({})).ok(201).await
}

async fn open(buyer: &Client, scene: &Scene) -> Socket {
    Socket::open(buyer, &live(scene)).await.expect("it opens")
}

/// Somebody who is in the queue, and their socket after its first frame.
pub(crate) async fn joined(server: &TestServer, scene: &Scene) -> (Client, Socket) {
    let buyer = server.buyer();
    join(&buyer, scene).await;
    let mut socket = open(&buyer, scene).await;
    assert_eq!(socket.frame().await["type"], "state");
    (buyer, socket)
}

/// A queue with one inside, who is given.
async fn with_one_inside(server: &TestServer) -> (Scene, Client, Socket) {
    let scene = behind(server, json!({ "max_active": 1 })).await;
    let (first, mut socket) = joined(server, &scene).await;
    if first.get(&queue(&scene)).ok(200).await["state"] != "admitted" {
        socket.state("admitted").await;
    }
    (scene, first, socket)
}

#[tokio::test]
async fn a_socket_tells_the_whole_state_at_once_and_the_pass_on_admission() {
    let server = TestServer::shared().await;
    let (scene, first, _inside) = with_one_inside(server).await;
    let second = server.buyer();
    let place = join(&second, &scene).await;
    let mut socket = open(&second, &scene).await;
    let frame = socket.frame().await;
    for (member, value) in place.as_object().unwrap() {
        let now = frame.get(member).unwrap_or_else(|| panic!("no {member}"));
        if matches!(
            member.as_str(),
            "type" | "performance_id" | "state" | "number"
        ) {
            assert_eq!(now, value, "{member}");
        }
    }
    assert_eq!(
        (&frame["state"], &frame["position"]),
        (&json!("waiting"), &json!(1))
    );
    first.delete(&queue(&scene)).ok(204).await;
    let admitted = socket.state("admitted").await;
    assert_eq!(admitted["number"], place["number"]);
    assert_eq!(admitted["position"], Value::Null);
    let pass = text(&admitted, "pass");
    let wish = json!({ "seat_ids": ["F1-A-1"] });
    let call = second.hold(&scene.timetable, &wish);
    call.header("queue-pass", pass).ok(201).await;
}

#[tokio::test]
async fn a_position_that_moves_is_told_and_never_grows() {
    let server = TestServer::shared().await;
    let (scene, _first, _inside) = with_one_inside(server).await;
    let mut ahead = Vec::new();
    for _ in 0..5 {
        let buyer = server.buyer();
        join(&buyer, &scene).await;
        ahead.push(buyer);
    }
    let (_last, mut socket) = joined(server, &scene).await;
    let mut before = 6;
    let mut seq = 0;
    for (left, buyer) in ahead.iter().enumerate() {
        buyer.delete(&queue(&scene)).ok(204).await;
        let moved = Instant::now();
        loop {
            let tick = socket.tick().await;
            for member in TICK_MEMBERS {
                assert!(tick.get(member).is_some(), "no {member} in {tick}");
            }
            assert!(number(&tick, "position") <= before, "{tick}");
            assert!(number(&tick, "seq") >= seq, "{tick}");
            (before, seq) = (number(&tick, "position"), number(&tick, "seq"));
            assert!(moved.elapsed() < TICK_LIMIT, "{tick}");
            if before == 5 - left as i64 {
                break;
            }
        }
    }
    let tick = {
        let newcomer = server.buyer();
        join(&newcomer, &scene).await;
        let behind = |frame: &Value| frame["waiting_behind"] == 1;
        socket.until("somebody behind", behind).await
    };
    assert_eq!(tick["seats"], json!({ "available": 80, "held": 0 }));
    assert_eq!(tick["paused"], false);
}

#[tokio::test]
async fn a_pause_is_told_with_the_next_tick() {
    let server = TestServer::shared().await;
    let (scene, _first, _inside) = with_one_inside(server).await;
    let (_second, mut socket) = joined(server, &scene).await;
    let path = format!("/admin/performances/{}/queue", scene.performance);
    let admin = server.admin();
    for (verb, is_paused) in [("pause", true), ("resume", false)] {
        admin
            .post(&format!("{path}/{verb}"), &json!({}))
            .ok(200)
            .await;
        let wanted = |frame: &Value| frame["paused"] == is_paused;
        let tick = socket.until(verb, wanted).await;
        assert_eq!(tick["estimated_wait_seconds"].is_null(), is_paused);
    }
}

#[tokio::test]
async fn several_tabs_of_a_user_share_one_place_and_are_all_told() {
    let server = TestServer::shared().await;
    let (scene, first, _inside) = with_one_inside(server).await;
    let (second, mut one) = joined(server, &scene).await;
    let mut other = open(&second, &scene).await;
    assert_eq!(other.frame().await["number"], 2);
    first.delete(&queue(&scene)).ok(204).await;
    let (a, b) = (one.state("admitted").await, other.state("admitted").await);
    assert_eq!(a["number"], b["number"]);
    assert_eq!(a["pass_expires_at"], b["pass_expires_at"]);
}

#[tokio::test]
async fn a_renewed_pass_is_told_and_a_purchase_ends_the_socket() {
    let server = TestServer::shared().await;
    let policy =
        json!({ "max_active": 1, "active_ttl_seconds": 60, "extend_on_hold_seconds": 600 });
    let scene = behind(server, policy).await;
    let buyer = server.buyer_with_money(1_000_000).await;
    join(&buyer, &scene).await;
    let mut socket = open(&buyer, &scene).await;
    let first = socket.state("admitted").await;
    let wish = json!({ "seat_ids": ["F1-A-1"] });
    let call = buyer.hold(&scene.timetable, &wish);
    let hold = call
        .header("queue-pass", text(&first, "pass"))
        .ok(201)
        .await;
    let renewed = socket.state("admitted").await;
    assert!(text(&renewed, "pass_expires_at") > text(&first, "pass_expires_at"));
    assert_ne!(renewed["pass"], first["pass"]);
    buyer.order(text(&hold, "hold_id")).ok(201).await;
    assert_eq!(socket.state("left").await["pass"], Value::Null);
    assert_eq!(socket.closed().await, 1000);
}

#[tokio::test]
async fn leaving_ends_the_sockets_of_the_user_and_no_others() {
    let server = TestServer::shared().await;
    let (scene, _first, _inside) = with_one_inside(server).await;
    let (second, mut leaves) = joined(server, &scene).await;
    let (_third, mut stays) = joined(server, &scene).await;
    second.delete(&queue(&scene)).ok(204).await;
    assert_eq!(leaves.state("left").await["number"], 2);
    assert_eq!(leaves.closed().await, 1000);
    stays
        .until("who stays is next", |frame| frame["position"] == 1)
        .await;
}

#[tokio::test]
async fn a_pass_that_runs_out_closes_the_socket_with_4403() {
    let server = TestServer::shared().await;
    let policy = json!({ "max_active": 1, "active_ttl_seconds": 1 });
    let scene = behind(server, policy).await;
    let (_buyer, mut socket) = joined(server, &scene).await;
    socket.state("expired").await;
    assert_eq!(socket.closed().await, 4403);
}

#[tokio::test]
async fn a_socket_is_a_sign_of_life_and_who_gives_none_is_out() {
    let server = TestServer::shared().await;
    let policy = json!({ "max_active": 1, "waiting_ttl_seconds": 3 });
    let scene = behind(server, policy).await;
    let (_first, _inside) = joined(server, &scene).await;
    let quiet = server.buyer();
    join(&quiet, &scene).await;
    let (_there, mut socket) = joined(server, &scene).await;
    // Once who is quiet is out, who is there has moved up, and stays.
    socket
        .until("who is quiet is out", |frame| frame["position"] == 1)
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let state = quiet.get(&queue(&scene)).ok(200).await;
    assert_eq!(state["state"], "expired");
    let mut again = Socket::open(&quiet, &live(&scene)).await.expect("it opens");
    again.state("expired").await;
    assert_eq!(again.closed().await, 4401);
}

#[tokio::test]
async fn when_nothing_is_left_everybody_is_told_and_told_again_when_seats_come_back() {
    let server = TestServer::shared().await;
    let show = Show::grid(1, 1, 100).with("queue", json!({ "max_active": 1 }));
    let scene = server.open(&show).await;
    let buyer = server.buyer_with_money(1_000).await;
    join(&buyer, &scene).await;
    let mut inside = open(&buyer, &scene).await;
    let admitted = inside.state("admitted").await;
    let (_waits, mut socket) = joined(server, &scene).await;
    let wish = json!({ "seat_ids": ["G-A-1"] });
    let call = buyer.hold(&scene.timetable, &wish);
    let hold = call
        .header("queue-pass", text(&admitted, "pass"))
        .ok(201)
        .await;
    // Held by another: that is no end yet, and is shown as what it is.
    let held = |frame: &Value| frame["seats"] == json!({ "available": 0, "held": 1 });
    socket.until("held", held).await;
    buyer.order(text(&hold, "hold_id")).ok(201).await;
    let closed = socket.state("closed").await;
    assert_eq!(closed["seats"], json!({ "available": 0, "held": 0 }));
    // Another date has seats: who waited goes on with the same number.
    let path = format!("/admin/performances/{}/timetables", scene.performance);
    let at = in_seconds(40 * DAY);
    let date = json!({ "starts_at": at, "doors_at": at });
    server.admin().post(&path, &date).ok(201).await;
    assert_eq!(socket.state("admitted").await["number"], 2);
}

#[tokio::test]
async fn before_the_opening_a_socket_counts_down_and_then_admits() {
    let server = TestServer::shared().await;
    let show = Show::small()
        .with("queue", json!({ "max_active": 5 }))
        .with("opens_at", in_seconds(3).into());
    let scene = server.open(&show).await;
    let (_buyer, mut socket) = joined(server, &scene).await;
    let admitted = socket.state("admitted").await;
    assert_eq!(admitted["number"], 1);
}

#[tokio::test]
async fn a_ticket_in_the_query_restores_and_a_strange_one_is_refused() {
    let server = TestServer::shared().await;
    let (scene, _first, _inside) = with_one_inside(server).await;
    let second = server.buyer();
    let place = join(&second, &scene).await;
    let path = format!("{}?ticket={}", live(&scene), text(&place, "ticket"));
    let mut socket = Socket::open(&second, &path).await.expect("it opens");
    assert_eq!(socket.frame().await["number"], place["number"]);
    let thief = Socket::open(&server.buyer(), &path).await;
    assert_eq!(thief.err().expect("a refusal").0, 422);
    let forged = format!("{}?ticket=forged", live(&scene));
    let forged = Socket::open(&second, &forged).await;
    assert_eq!(forged.err().expect("a refusal").0, 422);
}

#[tokio::test]
async fn a_socket_is_refused_before_the_upgrade() {
    let server = TestServer::shared().await;
    let scene = behind(server, json!({ "max_active": 1 })).await;
    let refusal = |opened: Result<Socket, (u16, Value)>| opened.err().expect("a refusal").0;
    let stranger = server.buyer();
    assert_eq!(refusal(Socket::open(&stranger, &live(&scene)).await), 404);
    let unknown = format!("/performances/{}/queue/live", Uuid::now_v7());
    assert_eq!(refusal(Socket::open(&stranger, &unknown).await), 404);
    let without = server.small().await;
    assert_eq!(refusal(Socket::open(&stranger, &live(&without)).await), 404);
    let nobody = Socket::open_with(&stranger, &live(&scene), &[]).await;
    assert_eq!(nobody.err().expect("a refusal").0, 401);
    // Not a socket at all.
    join(&stranger, &scene).await;
    let call = stranger.get(&live(&scene));
    call.problem(426, "upgrade-required").await;
}

#[tokio::test]
async fn the_token_may_come_in_the_query_or_as_a_subprotocol() {
    let server = TestServer::shared().await;
    let scene = behind(server, json!({ "max_active": 1 })).await;
    let buyer = server.buyer();
    join(&buyer, &scene).await;
    let path = format!("{}?access_token={}", live(&scene), buyer.token());
    let (mut socket, _) = Socket::open_with(&buyer, &path, &[])
        .await
        .expect("it opens");
    assert_eq!(socket.frame().await["number"], 1);
    let offer = format!("bearer, {}", buyer.token());
    let headers = [("sec-websocket-protocol", offer.as_str())];
    let opened = Socket::open_with(&buyer, &live(&scene), &headers).await;
    let (mut socket, accepted) = opened.expect("it opens");
    assert_eq!(accepted.as_deref(), Some("bearer"));
    assert_eq!(socket.frame().await["number"], 1);
}

#[tokio::test]
async fn a_user_may_have_so_many_sockets_and_no_more() {
    let server = TestServer::start_with(|config| config.http.sockets_per_user_max = 2).await;
    let scene = behind(&server, json!({ "max_active": 1 })).await;
    let (buyer, first) = joined(&server, &scene).await;
    let _second = open(&buyer, &scene).await;
    let third = Socket::open(&buyer, &live(&scene)).await;
    let (status, problem) = third.err().expect("a refusal");
    assert_eq!(status, 429);
    assert!(problem.is_null() || problem["code"] == "too-many-sockets");
    let (_other, _socket) = joined(&server, &scene).await;
    drop(first);
    let limit = Instant::now() + TICK_LIMIT;
    while Socket::open(&buyer, &live(&scene)).await.is_err() {
        assert!(Instant::now() < limit, "its place comes back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_server_has_so_many_sockets_and_no_more() {
    let server = TestServer::start_with(|config| config.http.sockets_max = 1).await;
    let scene = behind(&server, json!({ "max_active": 1 })).await;
    let (_buyer, _socket) = joined(&server, &scene).await;
    let other = server.buyer();
    join(&other, &scene).await;
    let refused = Socket::open(&other, &live(&scene)).await;
    assert_eq!(refused.err().expect("a refusal").0, 503);
    server.stop().await;
}

#[tokio::test]
async fn a_socket_ends_with_its_token() {
    let server = TestServer::shared().await;
    let scene = behind(server, json!({ "max_active": 1 })).await;
    let email = format!("{}@example.com", Uuid::now_v7());
    let buyer = sign_up(&server.anyone(), &email, "a long enough password").await;
    join(&buyer, &scene).await;
    let mut socket = open(&buyer, &scene).await;
    buyer.delete("/sessions/current").ok(204).await;
    assert_eq!(socket.closed().await, 4401);
}

#[tokio::test]
async fn a_queue_that_is_taken_away_ends_its_sockets_with_4404() {
    let server = TestServer::shared().await;
    let (scene, _first, mut inside) = with_one_inside(server).await;
    let path = format!("/admin/performances/{}/queue", scene.performance);
    server.admin().put(&path, &Value::Null).ok(200).await;
    assert_eq!(inside.closed().await, 4404);
}

#[tokio::test]
async fn a_server_that_drains_closes_its_sockets_with_1001() {
    let server = TestServer::start().await;
    let scene = behind(&server, json!({ "max_active": 1 })).await;
    let (_buyer, mut socket) = joined(&server, &scene).await;
    let stopping = tokio::spawn(server.stop());
    assert_eq!(socket.closed().await, 1001);
    stopping.await.unwrap();
}

#[tokio::test]
async fn what_a_client_sends_on_the_socket_harms_nobody() {
    let server = TestServer::shared().await;
    let (scene, first, _inside) = with_one_inside(server).await;
    let (_second, mut rude) = joined(server, &scene).await;
    let (_third, mut other) = joined(server, &scene).await;
    for message in [
        Message::text("not json"),
        Message::binary(vec![0u8; 1_000]),
        Message::text("x".repeat(1 << 20)),
    ] {
        // It may close the socket; it must not take the server down.
        let _ = rude.say(message).await;
    }
    first.delete(&queue(&scene)).ok(204).await;
    other
        .until("it moves", |frame| frame["position"] == 1)
        .await;
}

/// Who enters with the opening is told so by both.
#[tokio::test]
async fn a_tick_foretells_what_a_state_does() {
    const OPENS_IN: i64 = 300;
    let server = TestServer::shared().await;
    let policy = json!({ "max_active": 2, "active_ttl_seconds": 600 });
    let show = Show::small()
        .with("opens_at", in_seconds(OPENS_IN).into())
        .with("queue", policy);
    let scene = server.open(&show).await;
    // One of each pair enters at once, the other ten minutes after the opening.
    let (second, mut inside) = {
        joined(server, &scene).await;
        joined(server, &scene).await
    };
    joined(server, &scene).await;
    let (last, mut outside) = joined(server, &scene).await;
    join(&server.buyer(), &scene).await;
    for (buyer, socket, least) in [
        (second, &mut inside, OPENS_IN - 100),
        (last, &mut outside, OPENS_IN + 500),
    ] {
        let behind = |frame: &Value| frame["type"] == "tick";
        let tick = socket.until("a tick", behind).await;
        let state = buyer.get(&queue(&scene)).ok(200).await;
        assert_eq!(tick["position"], state["position"]);
        let of = |frame: &Value| number(frame, "estimated_wait_seconds");
        assert!((least..=least + 100).contains(&of(&state)), "{state}");
        let apart = (of(&tick) - of(&state)).abs();
        assert!(apart <= 100, "{tick}, {state}");
    }
}
