//! The wallet.

use serde_json::{Value, json};

use crate::harness::{TestServer, fresh_key, list, text};

/// The most that one charge may put in, by the contract.
const CHARGE_MAX: i64 = 1_000_000_000_000;

#[tokio::test]
async fn a_new_wallet_is_empty_and_a_charge_fills_it() {
    let buyer = TestServer::shared().await.buyer();
    let answer = buyer.get("/wallet").send().await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.json(), json!({ "balance": 0, "currency": "KRW" }));
    buyer.charge(700).await;
    buyer.charge(300).await;
    assert_eq!(buyer.balance().await, 1_000);
}

#[tokio::test]
async fn a_charge_is_from_one_to_a_million_millions() {
    let buyer = TestServer::shared().await.buyer();
    for wrong in [
        json!(0),
        json!(-5),
        json!(CHARGE_MAX + 1),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(1.5),
        json!("100"),
        Value::Null,
        json!([1]),
    ] {
        buyer
            .post("/wallet/charges", &json!({ "amount": wrong }))
            .key(&fresh_key())
            .problem(422, "invalid-request")
            .await;
    }
    buyer
        .post("/wallet/charges", &json!({ "amount": 1 }))
        .problem(400, "idempotency-key-required")
        .await;
    assert_eq!(buyer.balance().await, 0);
    buyer.charge(1).await;
    buyer.charge(CHARGE_MAX).await;
    assert_eq!(buyer.balance().await, CHARGE_MAX + 1);
}

#[tokio::test]
async fn each_entry_names_its_cause() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(500_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let order = buyer.order(text(&hold, "hold_id")).ok(201).await;
    // The posting follows the answer.
    let page = crate::harness::eventually(
        "both entries",
        std::time::Duration::from_secs(5),
        async || {
            let page = buyer.get("/wallet/entries").ok(200).await;
            (list(&page, "items").len() == 2).then_some(page)
        },
    )
    .await;
    for entry in list(&page, "items") {
        assert!(
            entry["cause"].is_string() || entry["cause"].is_object(),
            "{entry}"
        );
    }
    assert!(
        page.to_string().contains(text(&order, "order_id")),
        "{page}"
    );
    let first = buyer.get("/wallet/entries?limit=1").ok(200).await;
    let cursor = text(&first, "next_cursor");
    let second = buyer
        .get(&format!("/wallet/entries?limit=1&cursor={cursor}"))
        .ok(200)
        .await;
    assert_ne!(first["items"], second["items"]);
    assert_eq!(
        list(
            &server.buyer().get("/wallet/entries").ok(200).await,
            "items"
        )
        .len(),
        0
    );
}

#[tokio::test]
async fn money_survives_a_restart() {
    let server = TestServer::start().await;
    let buyer = server.buyer_with_money(12_345).await;
    let token = buyer.token().to_owned();
    let server = server.restart().await;
    let buyer = server.anyone().with_token(&token);
    assert_eq!(buyer.balance().await, 12_345);
    assert_eq!(
        list(&buyer.get("/wallet/entries").ok(200).await, "items").len(),
        1
    );
    server.stop().await;
}
