//! Orders by wallet.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{
    Client, Show, TICKET_LIMIT, TestServer, assert_map_adds_up, eventually, fresh_key, in_seconds,
    list, number, seat_ids, text,
};

fn by_wallet(hold_id: &Value) -> Value {
    json!({ "hold_id": hold_id, "payment": { "method": "wallet" } })
}

async fn order_ids(buyer: &Client, query: &str) -> Vec<String> {
    let page = buyer.get(&format!("/orders?{query}")).ok(200).await;
    list(&page, "items")
        .iter()
        .map(|order| text(order, "order_id").to_owned())
        .collect()
}

#[tokio::test]
async fn an_order_reads_as_the_contract_says() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer
        .hold_seats(&scene.timetable, &["F1-A-1", "F1-A-2"])
        .await;
    let order = buyer.order(text(&hold, "hold_id")).ok(201).await;
    let redacted = |order: &Value| {
        let mut order = order.clone();
        order["tickets"] = json!("[ids]");
        order
    };
    insta::assert_json_snapshot!("order", redacted(&order), {
        ".order_id" => "[id]",
        ".performance_id" => "[id]",
        ".timetable_id" => "[id]",
        ".payment.payment_id" => "[id]",
        ".created_at" => "[time]",
    });
    assert_eq!(buyer.balance().await, 700_000);
    let read = buyer
        .get(&format!("/orders/{}", text(&order, "order_id")))
        .ok(200)
        .await;
    assert_eq!(redacted(&read), redacted(&order));
    let payment = buyer
        .get(&format!(
            "/payments/{}",
            text(&order["payment"], "payment_id")
        ))
        .ok(200)
        .await;
    assert_eq!(payment["status"], "captured");
    let map = server.anyone().map(&scene.timetable).await;
    assert_map_adds_up(&map);
    assert_eq!((number(&map, "sold"), number(&map, "held")), (2, 0));
    assert!(text(&map, "statuses").starts_with("SSA"));
    eventually("two tickets", TICKET_LIMIT, async || {
        let read = buyer
            .get(&format!("/orders/{}", text(&order, "order_id")))
            .ok(200)
            .await;
        (list(&read, "tickets").len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_ordered_hold_is_spent() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let order = buyer.order(text(&hold, "hold_id")).ok(201).await;
    let problem = buyer
        .order(text(&hold, "hold_id"))
        .problem(409, "hold-already-ordered")
        .await;
    assert_eq!(problem["order_id"], order["order_id"]);
    // Neither release nor its token brings the seats back.
    let path = format!("/holds/{}", text(&hold, "hold_id"));
    let _ = buyer.delete(&path).send().await;
    let mut body = by_wallet(&hold["hold_id"]);
    body["hold_token"] = hold["hold_token"].clone();
    buyer
        .order_body(&body)
        .key(&fresh_key())
        .problem(409, "hold-already-ordered")
        .await;
    assert_eq!(server.anyone().map(&scene.timetable).await["sold"], 1);
    assert_eq!(buyer.balance().await, 850_000);
    let problem = server
        .buyer()
        .hold(&scene.timetable, &json!({ "seat_ids": ["F1-A-1"] }))
        .problem(409, "seat-unavailable")
        .await;
    assert_eq!(problem["seat_ids"], json!(["F1-A-1"]));
}

#[tokio::test]
async fn a_double_click_on_pay_is_one_order() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let body = by_wallet(&hold["hold_id"]);
    // With one key, as a good client does…
    let key = fresh_key();
    let calls = (0..8).map(|_| buyer.order_body(&body).key(&key).send());
    let answers = futures_util::future::join_all(calls).await;
    let mut ids: Vec<String> = Vec::new();
    for answer in &answers {
        match answer.status {
            201 => ids.push(text(&answer.json(), "order_id").to_owned()),
            _ => drop(answer.assert_problem(409, "idempotency-key-in-use")),
        }
    }
    assert!(!ids.is_empty());
    ids.dedup();
    assert_eq!(ids.len(), 1, "one order");
    // … and with a key for each click.
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-2"]).await;
    let calls = (0..8).map(|_| buyer.order(text(&hold, "hold_id")).send());
    let answers = futures_util::future::join_all(calls).await;
    assert_eq!(answers.iter().filter(|a| a.status == 201).count(), 1);
    for refused in answers.iter().filter(|a| a.status != 201) {
        assert_eq!(refused.status, 409, "{}", refused.text());
        refused.assert_any_problem();
    }
    assert_eq!(buyer.balance().await, 700_000, "paid twice 150,000");
    assert_eq!(order_ids(&buyer, "").await.len(), 2);
}

#[tokio::test]
async fn who_cannot_pay_keeps_the_hold() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(149_999).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let id = text(&hold, "hold_id");
    buyer.order(id).problem(402, "insufficient-balance").await;
    assert_eq!(buyer.balance().await, 149_999);
    let read = buyer.get(&format!("/holds/{id}")).ok(200).await;
    assert_eq!(read["expires_at"], hold["expires_at"]);
    buyer.charge(1).await;
    buyer.order(id).ok(201).await;
    assert_eq!(buyer.balance().await, 0);
}

#[tokio::test]
async fn an_order_needs_a_key_and_a_hold_of_ones_own() {
    let server = TestServer::shared().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let scene = server.small().await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    buyer
        .order_body(&by_wallet(&hold["hold_id"]))
        .problem(400, "idempotency-key-required")
        .await;
    buyer
        .order(&Uuid::now_v7().to_string())
        .problem(404, "hold-not-found")
        .await;
    server
        .buyer_with_money(1_000_000)
        .await
        .order(text(&hold, "hold_id"))
        .problem(404, "hold-not-found")
        .await;
    server
        .anyone()
        .order(text(&hold, "hold_id"))
        .problem(401, "unauthorized")
        .await;
}

#[tokio::test]
async fn a_released_hold_cannot_be_bought_not_even_with_its_token() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    buyer
        .delete(&format!("/holds/{}", text(&hold, "hold_id")))
        .ok(204)
        .await;
    for token in [hold["hold_token"].clone(), json!("forged.token")] {
        let mut body = by_wallet(&hold["hold_id"]);
        body["hold_token"] = token;
        let answer = buyer.order_body(&body).key(&fresh_key()).send().await;
        assert!(
            matches!(answer.status, 404 | 409 | 422),
            "{}",
            answer.text()
        );
        answer.assert_any_problem();
    }
    assert_eq!(buyer.balance().await, 1_000_000);
}

#[tokio::test]
async fn a_forged_token_restores_nothing() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let token = text(&hold, "hold_token");
    let flipped = if token.ends_with('A') { "B" } else { "A" };
    for forged in [
        format!("{}{flipped}", &token[..token.len() - 1]),
        token[..token.len() / 2].to_owned(),
        "x".repeat(5_000),
    ] {
        let answer = buyer
            .order_body(&json!({
                "hold_id": Uuid::now_v7(), "hold_token": forged, "payment": { "method": "wallet" },
            }))
            .key(&fresh_key())
            .send()
            .await;
        assert!(matches!(answer.status, 404 | 422), "{}", answer.text());
        answer.assert_any_problem();
    }
}

#[tokio::test]
async fn what_is_not_there_yet_is_refused_and_the_hold_stays() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    buyer
        .order_body(&json!({ "hold_id": hold["hold_id"], "payment": { "method": "card" } }))
        .key(&fresh_key())
        .problem(503, "payment-gateway-unavailable")
        .await;
    let mut body = by_wallet(&hold["hold_id"]);
    body["coupon_claim_id"] = json!(Uuid::now_v7());
    buyer
        .order_body(&body)
        .key(&fresh_key())
        .problem(409, "coupon-not-usable")
        .await;
    for method in [json!("cash"), json!(null), json!(7)] {
        buyer
            .order_body(&json!({ "hold_id": hold["hold_id"], "payment": { "method": method } }))
            .key(&fresh_key())
            .problem(422, "invalid-request")
            .await;
    }
    assert_eq!(buyer.balance().await, 1_000_000);
    buyer.order(text(&hold, "hold_id")).ok(201).await;
}

#[tokio::test]
async fn an_order_of_nothing_is_confirmed_by_any_method() {
    let server = TestServer::shared().await;
    let scene = server.open(&Show::grid(1, 4, 0)).await;
    let buyer = server.buyer();
    for (seat, method) in [("G-A-1", "wallet"), ("G-A-2", "card")] {
        let hold = buyer.hold_seats(&scene.timetable, &[seat]).await;
        let order = buyer
            .order_body(&json!({ "hold_id": hold["hold_id"], "payment": { "method": method } }))
            .key(&fresh_key())
            .ok(201)
            .await;
        assert_eq!(order["status"], "confirmed");
        assert_eq!(order["amount"], 0);
    }
}

#[tokio::test]
async fn a_wallet_pays_in_its_own_currency_only() {
    let server = TestServer::shared().await;
    let scene = server
        .open(&Show::grid(1, 1, 1_000).with("currency", json!("USD")))
        .await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["G-A-1"]).await;
    assert_eq!(hold["currency"], "USD");
    buyer
        .order(text(&hold, "hold_id"))
        .problem(422, "currency-mismatch")
        .await;
    assert_eq!(buyer.balance().await, 1_000_000);
}

#[tokio::test]
async fn a_price_that_would_overflow_is_never_charged() {
    let server = TestServer::shared().await;
    let body = Show::grid(1, 4, i64::MAX).body;
    let mut show = Show::grid(1, 4, 1);
    show.body["grades"] = body["grades"].clone();
    let admin = server.admin();
    let venue = show.build_venue(&admin).await;
    show.body["venue_id"] = venue["venue_id"].clone();
    let answer = admin.post("/admin/performances", &show.body).send().await;
    if answer.status == 201 {
        let timetable = answer.json()["timetables"][0]["timetable_id"].clone();
        let buyer = server.buyer_with_money(1_000_000).await;
        let answer = buyer
            .hold(
                timetable.as_str().unwrap(),
                &json!({ "best_available": { "count": 4 } }),
            )
            .send()
            .await;
        assert!((400..500).contains(&answer.status), "{}", answer.text());
    } else {
        answer.assert_problem(422, "invalid-request");
    }
}

#[tokio::test]
async fn orders_are_listed_newest_first_in_pages_and_only_to_their_buyer() {
    let server = TestServer::shared().await;
    let scene = server
        .open(&Show::small().limit("max_seats_per_user", 10))
        .await;
    let buyer = server.buyer_with_money(10_000_000).await;
    let mut made = Vec::new();
    for seat in ["G-A-1", "G-A-2", "G-A-3"] {
        let hold = buyer.hold_seats(&scene.timetable, &[seat]).await;
        let order = buyer.order(text(&hold, "hold_id")).ok(201).await;
        made.push(text(&order, "order_id").to_owned());
    }
    let mut listed = order_ids(&buyer, "").await;
    listed.sort();
    let mut sorted = made.clone();
    sorted.sort();
    assert_eq!(listed, sorted);
    assert_eq!(order_ids(&buyer, "status=confirmed").await.len(), 3);
    assert_eq!(order_ids(&buyer, "status=cancelled").await.len(), 0);
    assert_eq!(
        order_ids(&buyer, &format!("from={}", in_seconds(60)))
            .await
            .len(),
        0
    );
    assert_eq!(
        order_ids(
            &buyer,
            &format!("from={}&to={}", in_seconds(-60), in_seconds(60))
        )
        .await
        .len(),
        3
    );
    let first = buyer.get("/orders?limit=2").ok(200).await;
    let cursor = text(&first, "next_cursor");
    let second = buyer
        .get(&format!("/orders?limit=2&cursor={cursor}"))
        .ok(200)
        .await;
    assert_eq!(list(&second, "items").len(), 1);
    assert_eq!(second["next_cursor"], Value::Null);
    let mut paged: Vec<String> = [&first, &second]
        .into_iter()
        .flat_map(|page| list(page, "items"))
        .map(|order| text(order, "order_id").to_owned())
        .collect();
    paged.sort();
    assert_eq!(paged, sorted);

    let stranger = server.buyer();
    assert_eq!(order_ids(&stranger, "").await.len(), 0);
    stranger
        .get(&format!("/orders/{}", made[0]))
        .problem(404, "order-not-found")
        .await;
    // Another's cursor reveals nothing of theirs.
    let answer = stranger
        .get(&format!("/orders?cursor={cursor}"))
        .send()
        .await;
    if answer.status == 200 {
        assert_eq!(list(&answer.json(), "items").len(), 0);
    }
}

#[tokio::test]
async fn orders_survive_a_restart() {
    let server = TestServer::start().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer
        .hold(
            &scene.timetable,
            &json!({ "general_admission": { "section": "PIT", "count": 2 } }),
        )
        .ok(201)
        .await;
    let key = fresh_key();
    let body = by_wallet(&hold["hold_id"]);
    let order = buyer.order_body(&body).key(&key).ok(201).await;
    let token = buyer.token().to_owned();
    let server = server.restart().await;
    let buyer = server.anyone().with_token(&token);
    let read = buyer
        .get(&format!("/orders/{}", text(&order, "order_id")))
        .ok(200)
        .await;
    assert_eq!(seat_ids(&read), seat_ids(&order));
    assert_eq!(buyer.balance().await, 860_000);
    let again = buyer.order_body(&body).key(&key).send().await;
    again.assert_status(201);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.json()["order_id"], order["order_id"]);
    assert_eq!(server.anyone().map(&scene.timetable).await["sold"], 2);
    server.stop().await;
}
