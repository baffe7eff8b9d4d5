//! Orders with a coupon.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{
    Client, Scene, Show, TestServer, eventually, fresh_key, in_seconds, list, number, text,
};

/// A seat of these tests; three of them with 10 % off leave a remainder.
const PRICE: i64 = 333;

/// The reading of claims follows the answer to an order.
const POSTED_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// Where nobody has too many seats.
fn show(rows: u32, seats: u32, price: i64) -> Show {
    Show::grid(rows, seats, price).limit("max_seats_per_user", 100)
}

async fn coupon(server: &TestServer, kind: &str, value: i64) -> String {
    let body = json!({
        "name": "Off", "discount": { "kind": kind, "value": value }, "stock": 10,
        "starts_at": in_seconds(-60), "ends_at": in_seconds(3_600),
    });
    let made = server.admin().post("/admin/coupons", &body).ok(201).await;
    text(&made, "coupon_id").to_owned()
}

async fn claimed(buyer: &Client, coupon: &str) -> Value {
    let path = format!("/coupons/{coupon}/claims");
    let claim = buyer.post(&path, &json!({})).ok(201).await;
    claim["coupon_claim_id"].clone()
}

/// An order of three seats with a claim.
async fn wish(buyer: &Client, scene: &Scene, row: &str, claim: &Value) -> Value {
    let seats: Vec<String> = (1..=3).map(|n| format!("G-{row}-{n}")).collect();
    let seats: Vec<&str> = seats.iter().map(String::as_str).collect();
    let hold = buyer.hold_seats(&scene.timetable, &seats).await;
    json!({ "hold_id": hold["hold_id"], "coupon_claim_id": claim, "payment": { "method": "wallet" } })
}

async fn own(buyer: &Client, status: &str) -> Value {
    eventually(status, POSTED_LIMIT, async || {
        let page = buyer.get("/me/coupons").ok(200).await;
        let claim = list(&page, "items")[0].clone();
        (claim["status"] == status).then_some(claim)
    })
    .await
}

#[tokio::test]
async fn a_coupon_takes_its_discount_off_an_order_and_its_seats() {
    let server = TestServer::shared().await;
    let scene = server.open(&show(3, 4, PRICE)).await;
    let buyer = server.buyer_with_money(10_000).await;
    let claim = claimed(&buyer, &coupon(server, "percent", 10).await).await;
    let body = wish(&buyer, &scene, "A", &claim).await;
    let key = fresh_key();
    let order = buyer.order_body(&body).key(&key).ok(201).await;
    let sums = ["subtotal", "discount", "amount"].map(|name| number(&order, name));
    assert_eq!(sums, [999, 99, 900]);
    let shares: Vec<i64> = list(&order, "seats")
        .iter()
        .map(|seat| number(seat, "discount"))
        .collect();
    assert_eq!(shares, [33, 33, 33]);
    assert_eq!(buyer.balance().await, 10_000 - 900);
    // Again under its key, and as it is stored.
    assert_eq!(buyer.order_body(&body).key(&key).ok(201).await, order);
    let path = format!("/orders/{}", text(&order, "order_id"));
    let stored = buyer.get(&path).ok(200).await;
    assert_eq!(
        (&stored["discount"], &stored["seats"]),
        (&order["discount"], &order["seats"])
    );
    assert_eq!(own(&buyer, "used").await["order_id"], order["order_id"]);
    // It is used.
    let again = wish(&buyer, &scene, "B", &claim).await;
    buyer
        .order_body(&again)
        .key(&fresh_key())
        .problem(409, "coupon-not-usable")
        .await;
    assert_eq!(buyer.balance().await, 10_000 - 900);
    buyer.order(text(&again, "hold_id")).ok(201).await;
}

#[tokio::test]
async fn a_coupon_and_the_hold_stay_where_the_money_is_missing() {
    let server = TestServer::shared().await;
    let scene = server.open(&show(2, 4, PRICE)).await;
    let buyer = server.buyer_with_money(10).await;
    let claim = claimed(&buyer, &coupon(server, "amount", 100).await).await;
    let body = wish(&buyer, &scene, "A", &claim).await;
    let problem = buyer
        .order_body(&body)
        .key(&fresh_key())
        .problem(402, "insufficient-balance")
        .await;
    assert_eq!(number(&problem, "balance"), 10);
    own(&buyer, "available").await;
    let mut by_card = body.clone();
    by_card["payment"]["method"] = json!("card");
    buyer
        .order_body(&by_card)
        .key(&fresh_key())
        .problem(503, "payment-gateway-unavailable")
        .await;
    buyer.charge(889).await;
    let order = buyer.order_body(&body).key(&fresh_key()).ok(201).await;
    assert_eq!((number(&order, "amount"), buyer.balance().await), (899, 0));
}

#[tokio::test]
async fn an_order_never_costs_less_than_nothing_and_then_any_method_pays_it() {
    let server = TestServer::shared().await;
    let scene = server.open(&show(2, 4, PRICE)).await;
    let buyer = server.buyer();
    let claim = claimed(&buyer, &coupon(server, "amount", 5_000).await).await;
    let mut body = wish(&buyer, &scene, "A", &claim).await;
    body["payment"]["method"] = json!("card");
    let order = buyer.order_body(&body).key(&fresh_key()).ok(201).await;
    let sums = ["subtotal", "discount", "amount"].map(|name| number(&order, name));
    assert_eq!(sums, [999, 999, 0]);
    // The coupon is all that a cancel owes.
    let path = format!("/orders/{}/cancel", text(&order, "order_id"));
    buyer
        .post(&path, &json!({}))
        .key(&fresh_key())
        .ok(200)
        .await;
    own(&buyer, "available").await;
}

#[tokio::test]
async fn a_coupon_comes_back_with_the_last_seat_that_is_cancelled() {
    let server = TestServer::shared().await;
    let scene = server.open(&show(2, 4, PRICE)).await;
    let buyer = server.buyer_with_money(1_000).await;
    let claim = claimed(&buyer, &coupon(server, "percent", 10).await).await;
    let body = wish(&buyer, &scene, "A", &claim).await;
    let order = buyer.order_body(&body).key(&fresh_key()).ok(201).await;
    let cancel = format!("/orders/{}/cancel", text(&order, "order_id"));
    own(&buyer, "used").await;
    let some = json!({ "seat_ids": ["G-A-1", "G-A-2"] });
    let part = buyer.post(&cancel, &some).key(&fresh_key()).ok(200).await;
    assert_eq!(number(&part, "refunded"), 600);
    own(&buyer, "used").await;
    let whole = buyer
        .post(&cancel, &json!({}))
        .key(&fresh_key())
        .ok(200)
        .await;
    assert_eq!(
        (number(&whole, "refunded"), buyer.balance().await),
        (900, 1_000)
    );
    // Usable with the answer, and once.
    let body = wish(&buyer, &scene, "A", &claim).await;
    buyer.order_body(&body).key(&fresh_key()).ok(201).await;
    assert_eq!(buyer.balance().await, 100);
}

#[tokio::test]
async fn a_coupon_is_refused_where_it_is_not_good() {
    let server = TestServer::shared().await;
    let scene = server.open(&show(3, 4, PRICE)).await;
    let other = server.open(&show(1, 4, PRICE)).await;
    let (ann, bob) = (
        server.buyer_with_money(5_000).await,
        server.buyer_with_money(5_000).await,
    );
    let bound = coupon(server, "percent", 50).await;
    let path = format!("/admin/coupons/{bound}");
    let patch = json!({ "performance_id": other.performance });
    server.admin().patch(&path, &patch).ok(200).await;
    let expired = coupon(server, "percent", 50).await;
    let claims = [
        claimed(&bob, &coupon(server, "percent", 50).await).await,
        claimed(&ann, &bound).await,
        claimed(&ann, &expired).await,
        json!(Uuid::now_v7()),
    ];
    let path = format!("/admin/coupons/{expired}");
    let patch = json!({ "ends_at": in_seconds(-1) });
    server.admin().patch(&path, &patch).ok(200).await;
    let mut body = wish(&ann, &scene, "A", &json!(null)).await;
    for claim in &claims {
        body["coupon_claim_id"] = claim.clone();
        ann.order_body(&body)
            .key(&fresh_key())
            .problem(409, "coupon-not-usable")
            .await;
    }
    assert_eq!(ann.balance().await, 5_000);
    // Where it is good.
    let hold = ann.hold_seats(&other.timetable, &["G-A-1"]).await;
    body["hold_id"] = hold["hold_id"].clone();
    body["coupon_claim_id"] = claims[1].clone();
    let order = ann.order_body(&body).key(&fresh_key()).ok(201).await;
    assert_eq!(number(&order, "amount"), 167);
}

#[tokio::test]
async fn of_twenty_orders_with_one_claim_at_once_one_has_it() {
    let server = TestServer::shared().await;
    let scene = server.open(&show(20, 3, PRICE)).await;
    let buyer = server.buyer_with_money(100_000).await;
    let claim = claimed(&buyer, &coupon(server, "percent", 10).await).await;
    let mut orders = Vec::new();
    for row in 0..20u8 {
        let row = char::from(b'A' + row).to_string();
        let body = wish(&buyer, &scene, &row, &claim).await;
        let buyer = buyer.clone();
        orders.push(tokio::spawn(async move {
            buyer
                .order_body(&body)
                .key(&fresh_key())
                .send()
                .await
                .status
        }));
    }
    let mut won = 0;
    for order in orders {
        match order.await.unwrap() {
            201 => won += 1,
            409 => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!((won, buyer.balance().await), (1, 100_000 - 900));
}

#[tokio::test]
async fn an_export_tells_of_claims() {
    let server = TestServer::shared().await;
    let buyer = server.buyer_with_money(1).await;
    let claim = claimed(&buyer, &coupon(server, "percent", 10).await).await;
    let store = &server.app().store;
    let user = onsale::domain::ids::UserId(user_of(&buyer));
    let rows = store.personal_rows(user).await.unwrap();
    assert_eq!(json!(rows.coupons[0].coupon_claim_id), claim);
}

/// Who a token is of.
fn user_of(client: &Client) -> Uuid {
    use base64::Engine as _;
    let claims = client.token().split('.').nth(1).unwrap();
    let claims = base64::prelude::BASE64_URL_SAFE_NO_PAD
        .decode(claims)
        .unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    text(&claims, "sub").parse().unwrap()
}
