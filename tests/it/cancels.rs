//! Cancels of orders, whole or in parts.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::common::client::Call;
use crate::harness::{
    Client, Scene, Show, TICKET_LIMIT, TestServer, assert_map_adds_up, eventually, fresh_key,
    in_seconds, list, number, seat_ids, text,
};

/// A seat of the small theatre's section F1.
const PRICE: i64 = 150_000;

async fn bought(buyer: &Client, scene: &Scene, seats: &[&str]) -> Value {
    let hold = buyer.hold_seats(&scene.timetable, seats).await;
    buyer.order(text(&hold, "hold_id")).ok(201).await
}

/// A cancel of these seats, or of all, under a fresh key.
fn cancel(buyer: &Client, order: &Value, seats: Option<&[&str]>) -> Call {
    let body = seats.map_or(json!({}), |seats| json!({ "seat_ids": seats }));
    cancel_body(buyer, order, &body).key(&fresh_key())
}

fn cancel_body(buyer: &Client, order: &Value, body: &Value) -> Call {
    buyer.post(&format!("/orders/{}/cancel", text(order, "order_id")), body)
}

async fn read(buyer: &Client, order: &Value) -> Value {
    let path = format!("/orders/{}", text(order, "order_id"));
    buyer.get(&path).ok(200).await
}

fn statuses(order: &Value) -> Vec<&str> {
    let seats = list(order, "seats");
    seats.iter().map(|seat| text(seat, "status")).collect()
}

/// The tickets of a buyer by seat, with their statuses.
async fn tickets(buyer: &Client) -> Vec<(String, String)> {
    let page = buyer.get("/tickets").ok(200).await;
    let seen = |ticket: &Value| {
        let text = |member| text(ticket, member).to_owned();
        (text("seat_id"), text("status"))
    };
    let mut tickets: Vec<_> = list(&page, "items").iter().map(seen).collect();
    tickets.sort_unstable();
    tickets
}

async fn until_ticketed(buyer: &Client, count: usize) {
    eventually("tickets", TICKET_LIMIT, async || {
        (tickets(buyer).await.len() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_order_gives_money_and_seats_back_with_its_answer() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let order = bought(&buyer, &scene, &["F1-A-1", "F1-A-2"]).await;
    until_ticketed(&buyer, 2).await;
    let path = format!("/orders/{}/cancel", text(&order, "order_id"));
    let key = fresh_key();
    // Without a body.
    let call = || buyer.call(reqwest::Method::POST, &path).key(&key);
    let cancelled = call().ok(200).await;
    // At once, and not a moment later.
    assert_eq!(buyer.balance().await, 1_000_000);
    let other = server.buyer_with_money(1_000_000).await;
    let resold = bought(&other, &scene, &["F1-A-2"]).await;
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(statuses(&cancelled), ["cancelled", "cancelled"]);
    assert_eq!(number(&cancelled, "refunded"), 2 * PRICE);
    assert_eq!(number(&cancelled, "amount"), 2 * PRICE);
    assert_eq!(cancelled["payment"]["status"], "refunded");
    assert_eq!(read(&buyer, &order).await, cancelled);
    let void = |seat: &str| (seat.to_owned(), "void".to_owned());
    assert_eq!(tickets(&buyer).await, [void("F1-A-1"), void("F1-A-2")]);
    let map = server.anyone().map(&scene.timetable).await;
    assert_map_adds_up(&map);
    assert!(text(&map, "statuses").starts_with("AS"), "{map}");
    // Once only; and the same request has the same answer.
    let again = call().send().await;
    again.assert_status(200);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.json(), cancelled);
    cancel(&buyer, &order, None)
        .problem(409, "not-cancellable")
        .await;
    assert_eq!(buyer.balance().await, 1_000_000);
    let sold = read(&other, &resold).await;
    assert_eq!(
        (text(&sold, "status"), statuses(&sold)),
        ("confirmed", vec!["sold"])
    );
    let entries = buyer.get("/wallet/entries").ok(200).await;
    let last = &list(&entries, "items")[0];
    assert_eq!(
        (text(last, "cause"), number(last, "amount")),
        ("refund", 2 * PRICE)
    );
    assert_eq!(last["cause_id"], order["order_id"]);
}

#[tokio::test]
async fn a_repeated_order_is_answered_as_it_was_made_though_it_was_cancelled_since() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let body = json!({ "hold_id": hold["hold_id"], "payment": { "method": "wallet" } });
    let key = fresh_key();
    let order = buyer.order_body(&body).key(&key).ok(201).await;
    cancel(&buyer, &order, None).ok(200).await;
    let again = buyer.order_body(&body).key(&key).ok(201).await;
    assert_eq!(again, order);
    assert_eq!(buyer.balance().await, 1_000_000);
    let other_key = buyer.order(text(&hold, "hold_id"));
    other_key.problem(409, "hold-already-ordered").await;
}

#[tokio::test]
async fn some_seats_after_the_other_each_once() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let order = bought(&buyer, &scene, &["F1-A-1", "F1-A-2", "F1-A-3"]).await;
    let first = cancel(&buyer, &order, Some(&["F1-A-2"])).ok(200).await;
    assert_eq!(first["status"], "confirmed");
    assert_eq!(statuses(&first), ["sold", "cancelled", "sold"]);
    assert_eq!(number(&first, "refunded"), PRICE);
    assert_eq!(buyer.balance().await, 1_000_000 - 2 * PRICE);
    let gone = cancel(&buyer, &order, Some(&["F1-A-1", "F1-A-2"]));
    let problem = gone.problem(409, "not-cancellable").await;
    assert_eq!(problem["seat_ids"], json!(["F1-A-2"]));
    let second = cancel(&buyer, &order, Some(&["F1-A-3"])).ok(200).await;
    assert_eq!(statuses(&second), ["sold", "cancelled", "cancelled"]);
    // What is left.
    let rest = cancel(&buyer, &order, None).ok(200).await;
    assert_eq!(rest["status"], "cancelled");
    assert_eq!(number(&rest, "refunded"), 3 * PRICE);
    assert_eq!(buyer.balance().await, 1_000_000);
    let of_status = |status| {
        let path = format!("/orders?status={status}");
        let call = buyer.get(&path);
        async move { list(&call.ok(200).await, "items").len() }
    };
    assert_eq!(
        (of_status("cancelled").await, of_status("confirmed").await),
        (1, 0)
    );
}

#[tokio::test]
async fn twenty_cancels_at_once_refund_once() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    for under_one_key in [false, true] {
        let order = bought(&buyer, &scene, &["F1-A-1", "F1-A-2"]).await;
        let one = fresh_key();
        let calls = (0..20).map(|_| {
            let key = if under_one_key {
                one.clone()
            } else {
                fresh_key()
            };
            cancel_body(&buyer, &order, &json!({})).key(&key).send()
        });
        let answers = join_all(calls).await;
        let done: Vec<_> = answers.iter().filter(|a| a.status == 200).collect();
        for refused in answers.iter().filter(|a| a.status != 200) {
            let code = if under_one_key {
                "idempotency-key-in-use"
            } else {
                "not-cancellable"
            };
            refused.assert_problem(409, code);
        }
        assert!(!done.is_empty());
        assert!(under_one_key || done.len() == 1, "{} cancels", done.len());
        assert!(done.iter().all(|answer| answer.json() == done[0].json()));
        assert_eq!(buyer.balance().await, 1_000_000);
        assert_eq!(read(&buyer, &order).await["refunded"], 2 * PRICE);
    }
    let entries = buyer.get("/wallet/entries").ok(200).await;
    let refunds = list(&entries, "items");
    let refunds = refunds.iter().filter(|entry| entry["cause"] == "refund");
    assert_eq!(refunds.count(), 2);
}

#[tokio::test]
async fn parts_that_are_cancelled_at_once_are_each_refunded() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let seats = ["F1-A-1", "F1-A-2", "F1-A-3", "F1-A-4"];
    let order = bought(&buyer, &scene, &seats).await;
    let calls = seats.iter().flat_map(|seat| {
        let call = || cancel(&buyer, &order, Some(&[*seat])).send();
        [call(), call(), call()]
    });
    let answers = join_all(calls).await;
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 4);
    assert_eq!(buyer.balance().await, 1_000_000);
    let order = read(&buyer, &order).await;
    assert_eq!(
        (text(&order, "status"), number(&order, "refunded")),
        ("cancelled", 4 * PRICE)
    );
}

#[tokio::test]
async fn what_is_cancelled_does_not_count_against_the_limit() {
    let server = TestServer::shared().await;
    let show = Show::small().limit("max_seats_per_user", 2);
    let scene = server.open(&show).await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let order = bought(&buyer, &scene, &["F1-A-1", "F1-A-2"]).await;
    let wish = json!({ "seat_ids": ["F1-A-3"] });
    buyer
        .hold(&scene.timetable, &wish)
        .problem(422, "seat-limit-exceeded")
        .await;
    cancel(&buyer, &order, Some(&["F1-A-1"])).ok(200).await;
    buyer.hold(&scene.timetable, &wish).ok(201).await;
}

#[tokio::test]
async fn a_show_that_was_sold_out_is_on_sale_again() {
    let server = TestServer::shared().await;
    let scene = server.open(&Show::grid(1, 2, 100)).await;
    let buyer = server.buyer_with_money(1_000).await;
    let order = bought(&buyer, &scene, &["G-A-1", "G-A-2"]).await;
    assert_eq!(scene.read(&server.anyone()).await["status"], "sold_out");
    cancel(&buyer, &order, Some(&["G-A-2"])).ok(200).await;
    let show = scene.read(&server.anyone()).await;
    assert_eq!(show["status"], "on_sale");
    assert_eq!(show["timetables"][0]["available"], 1);
}

#[tokio::test]
async fn units_of_a_section_without_numbers_can_be_cancelled_one_by_one() {
    let server = TestServer::shared().await;
    let scene = server.open(&Show::general_admission(3, 100)).await;
    let buyer = server.buyer_with_money(1_000).await;
    let wish = json!({ "general_admission": { "section": "PIT", "count": 3 } });
    let hold = buyer.hold(&scene.timetable, &wish).ok(201).await;
    let order = buyer.order(text(&hold, "hold_id")).ok(201).await;
    let unit = seat_ids(&order)[1].clone();
    let cancelled = cancel(&buyer, &order, Some(&[&unit])).ok(200).await;
    assert_eq!(statuses(&cancelled), ["sold", "cancelled", "sold"]);
    assert_eq!(buyer.balance().await, 800);
    assert_eq!(server.anyone().map(&scene.timetable).await["available"], 1);
}

#[tokio::test]
async fn nothing_is_cancelled_by_a_request_that_is_refused() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let order = bought(&buyer, &scene, &["F1-A-1"]).await;
    cancel_body(&buyer, &order, &json!({}))
        .problem(400, "idempotency-key-required")
        .await;
    for wrong in [
        json!({ "seat_ids": [] }),
        json!({ "seat_ids": ["F1-A-1", "F1-A-1"] }),
        json!({ "seat_ids": "F1-A-1" }),
        json!({ "seat_ids": [7] }),
        json!({ "seats": ["F1-A-1"] }),
        json!(["F1-A-1"]),
    ] {
        cancel_body(&buyer, &order, &wrong)
            .key(&fresh_key())
            .problem(422, "invalid-request")
            .await;
    }
    for wrong in ["{", "nul", "{\"seat_ids\":[\"F1-A-1\"]}x"] {
        let path = format!("/orders/{}/cancel", text(&order, "order_id"));
        let call = buyer.call(reqwest::Method::POST, &path).key(&fresh_key());
        let call = call.raw(Some("application/json"), wrong);
        call.problem(400, "invalid-json").await;
    }
    let unknown = json!({ "seat_ids": ["F1-A-1", "F1-A-2", "F9-A-1"] });
    let problem = cancel_body(&buyer, &order, &unknown)
        .key(&fresh_key())
        .problem(422, "unknown-seat")
        .await;
    assert_eq!(problem["seat_ids"], json!(["F9-A-1", "F1-A-2"]));
    // Not mine, or not there.
    let stranger = server.buyer();
    cancel(&stranger, &order, None)
        .problem(404, "order-not-found")
        .await;
    let nowhere = json!({ "order_id": uuid::Uuid::now_v7().to_string() });
    cancel(&buyer, &nowhere, None)
        .problem(404, "order-not-found")
        .await;
    cancel(&server.anyone(), &order, None)
        .problem(401, "unauthorized")
        .await;
    assert_eq!(read(&buyer, &order).await["status"], "confirmed");
    assert_eq!(buyer.balance().await, 1_000_000 - PRICE);
}

#[tokio::test]
async fn a_buyer_who_is_late_asks_the_organizer() {
    let server = TestServer::shared().await;
    let organizer = server.organizer();
    let soon = json!([{ "starts_at": in_seconds(3_600), "doors_at": in_seconds(1_800) }]);
    let show = Show::small()
        .with("timetables", soon)
        .with("closes_at", json!(in_seconds(1_800)))
        .limit("cancel_until_hours_before", 2);
    let scene = show.open(&organizer).await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let order = bought(&buyer, &scene, &["F1-A-1", "F1-A-2"]).await;
    let late = cancel(&buyer, &order, None);
    let problem = late.problem(409, "not-cancellable").await;
    assert!(problem["until"].is_string(), "{problem}");
    let path = format!("/admin/orders/{}/refund", text(&order, "order_id"));
    let some = json!({ "seat_ids": ["F1-A-2"] });
    for refused in [&buyer, &server.buyer()] {
        refused.post(&path, &some).problem(403, "forbidden").await;
    }
    let other = server.organizer();
    other
        .post(&path, &some)
        .problem(404, "order-not-found")
        .await;
    assert_eq!(buyer.balance().await, 1_000_000 - 2 * PRICE);
    let key = fresh_key();
    let first = organizer.post(&path, &some).key(&key).ok(200).await;
    assert_eq!(statuses(&first), ["sold", "cancelled"]);
    assert_eq!(buyer.balance().await, 1_000_000 - PRICE);
    let again = organizer.post(&path, &some).key(&key).send().await;
    again.assert_status(200);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.json(), first);
    // By an admin, and without a key.
    let rest = server
        .admin()
        .call(reqwest::Method::POST, &path)
        .ok(200)
        .await;
    assert_eq!(rest["status"], "cancelled");
    assert_eq!(buyer.balance().await, 1_000_000);
    server
        .admin()
        .post(&path, &json!({}))
        .problem(409, "not-cancellable")
        .await;
}

#[tokio::test]
async fn an_order_of_nothing_is_cancelled_like_any_other() {
    let server = TestServer::shared().await;
    let scene = server.open(&Show::grid(1, 2, 0)).await;
    let buyer = server.buyer();
    let order = bought(&buyer, &scene, &["G-A-1", "G-A-2"]).await;
    let key = fresh_key();
    let call = || cancel_body(&buyer, &order, &json!({})).key(&key);
    let cancelled = call().ok(200).await;
    assert_eq!(
        (text(&cancelled, "status"), number(&cancelled, "refunded")),
        ("cancelled", 0)
    );
    assert_eq!(call().ok(200).await, cancelled);
    let entries = buyer.get("/wallet/entries").ok(200).await;
    assert!(list(&entries, "items").is_empty());
    assert_eq!(server.anyone().map(&scene.timetable).await["available"], 2);
}

#[tokio::test]
async fn a_withdrawn_show_can_still_be_cancelled_and_a_restart_remembers_it_all() {
    let server = TestServer::start().await;
    let (scene, admin) = (server.small().await, server.admin());
    let buyer = server.buyer_with_money(1_000_000).await;
    let order = bought(&buyer, &scene, &["F1-A-1", "F1-A-2"]).await;
    until_ticketed(&buyer, 2).await;
    let key = fresh_key();
    let part = json!({ "seat_ids": ["F1-A-1"] });
    let first = cancel_body(&buyer, &order, &part).key(&key).ok(200).await;
    let token = buyer.token().to_owned();
    let show = format!("/admin/performances/{}", scene.performance);
    admin.delete(&show).ok(204).await;
    let server = server.restart().await;
    let buyer = server.anyone().with_token(&token);
    assert_eq!(read(&buyer, &order).await, first);
    let again = cancel_body(&buyer, &order, &part).key(&key).ok(200).await;
    assert_eq!(again, first);
    cancel(&buyer, &order, Some(&["F1-A-1"]))
        .problem(409, "not-cancellable")
        .await;
    let rest = cancel(&buyer, &order, None).ok(200).await;
    assert_eq!(rest["status"], "cancelled");
    assert_eq!(buyer.balance().await, 1_000_000);
    let of_seats = tickets(&buyer).await;
    assert!(
        of_seats.iter().all(|(_, status)| status == "void"),
        "{of_seats:?}"
    );
    server.stop().await;
}
