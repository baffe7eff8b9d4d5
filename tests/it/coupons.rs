//! Coupons: making, claiming and listing them.

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, fresh_key, in_seconds, list, number, text};

fn wish(stock: u32) -> Value {
    json!({
        "name": "Spring", "discount": { "kind": "percent", "value": 10 }, "stock": stock,
        "starts_at": in_seconds(-60), "ends_at": in_seconds(3_600),
    })
}

async fn made(by: &Client, stock: u32) -> String {
    let coupon = by.post("/admin/coupons", &wish(stock)).ok(201).await;
    text(&coupon, "coupon_id").to_owned()
}

fn claims_of(coupon: &str) -> String {
    format!("/coupons/{coupon}/claims")
}

/// A coupon as it is listed.
async fn listed(server: &TestServer, coupon: &str) -> Value {
    let mut path = "/coupons?limit=100".to_owned();
    loop {
        let page = server.anyone().get(&path).ok(200).await;
        let found = list(&page, "items").iter();
        if let Some(found) = found.into_iter().find(|c| c["coupon_id"] == coupon) {
            return found.clone();
        }
        let cursor = page["next_cursor"].as_str().expect("it is listed");
        path = format!("/coupons?limit=100&cursor={cursor}");
    }
}

#[tokio::test]
async fn a_coupon_is_claimed_first_come_first_served_once_each() {
    let server = TestServer::shared().await;
    let coupon = made(&server.admin(), 2).await;
    let shown = listed(server, &coupon).await;
    assert_eq!(
        (number(&shown, "stock"), number(&shown, "remaining")),
        (2, 2)
    );
    assert_eq!(shown["discount"], json!({ "kind": "percent", "value": 10 }));
    assert_eq!(shown["performance_id"], Value::Null);

    let (ann, bob, cid) = (server.buyer(), server.buyer(), server.buyer());
    let path = claims_of(&coupon);
    let claim = ann.post(&path, &json!({})).ok(201).await;
    assert_eq!(claim["coupon_id"], coupon.as_str());
    ann.post(&path, &json!({}))
        .problem(409, "coupon-already-claimed")
        .await;
    assert_eq!(number(&listed(server, &coupon).await, "remaining"), 1);
    bob.post(&path, &json!({})).ok(201).await;
    cid.post(&path, &json!({}))
        .problem(409, "coupon-sold-out")
        .await;
    // Sold out ones stay listed.
    assert_eq!(number(&listed(server, &coupon).await, "remaining"), 0);

    let mine = ann.get("/me/coupons").ok(200).await;
    let own = &list(&mine, "items")[0];
    assert_eq!(own["coupon_claim_id"], claim["coupon_claim_id"]);
    assert_eq!(own["claimed_at"], claim["claimed_at"]);
    assert_eq!(
        (text(own, "status"), &own["order_id"]),
        ("available", &Value::Null)
    );
    let none = cid.get("/me/coupons").ok(200).await;
    assert!(list(&none, "items").is_empty());
    server
        .anyone()
        .post(&path, &json!({}))
        .problem(401, "unauthorized")
        .await;
}

#[tokio::test]
async fn a_claim_repeated_under_its_key_has_the_same_answer() {
    let server = TestServer::shared().await;
    let coupon = made(&server.admin(), 5).await;
    let (ann, key) = (server.buyer(), fresh_key());
    let path = claims_of(&coupon);
    let first = ann.post(&path, &json!({})).key(&key).ok(201).await;
    let again = ann.post(&path, &json!({})).key(&key).send().await;
    again.assert_status(201);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.json(), first);
    ann.post(&path, &json!({}))
        .key(&fresh_key())
        .problem(409, "coupon-already-claimed")
        .await;
}

#[tokio::test]
async fn a_claim_and_its_coupon_survive_a_restart_and_so_does_its_key() {
    let server = TestServer::start().await;
    let coupon = made(&server.admin(), 3).await;
    let (ann, key) = (server.buyer(), fresh_key());
    let path = claims_of(&coupon);
    let first = ann.post(&path, &json!({})).key(&key).ok(201).await;
    let token = ann.token().to_owned();
    let server = server.restart().await;
    let ann = server.anyone().with_token(&token);
    assert_eq!(number(&listed(&server, &coupon).await, "remaining"), 2);
    assert_eq!(ann.post(&path, &json!({})).key(&key).ok(201).await, first);
    ann.post(&path, &json!({}))
        .problem(409, "coupon-already-claimed")
        .await;
    // The process died between the claim and the answer under its key.
    let app = server.app();
    let forgotten = onsale::domain::time::Timestamp(i64::MAX);
    assert_eq!(app.store.forget_keys(forgotten, 10).await.unwrap(), 1);
    let server = server.restart().await;
    let ann = server.anyone().with_token(&token);
    assert_eq!(ann.post(&path, &json!({})).key(&key).ok(201).await, first);
    ann.post(&path, &json!({}))
        .key(&fresh_key())
        .problem(409, "coupon-already-claimed")
        .await;
    server.stop().await;
}

#[tokio::test]
async fn nobody_claims_what_is_not_open_or_not_there() {
    let server = TestServer::shared().await;
    let (admin, buyer) = (server.admin(), server.buyer());
    let windows = [(60, 120), (-120, -60)];
    for (from, to) in windows {
        let mut body = wish(5);
        body["starts_at"] = json!(in_seconds(from));
        body["ends_at"] = json!(in_seconds(to));
        let coupon = admin.post("/admin/coupons", &body).ok(201).await;
        let problem = buyer
            .post(&claims_of(text(&coupon, "coupon_id")), &json!({}))
            .problem(409, "coupon-not-open")
            .await;
        assert_eq!(problem["starts_at"], coupon["starts_at"]);
    }
    for id in [uuid::Uuid::now_v7().to_string(), "x".to_owned()] {
        buyer
            .post(&claims_of(&id), &json!({}))
            .problem(404, "coupon-not-found")
            .await;
    }
}

#[tokio::test]
async fn a_hundred_claims_at_once_of_ten_coupons_are_ten() {
    let server = TestServer::shared().await;
    let coupon = made(&server.admin(), 10).await;
    let path = claims_of(&coupon);
    let claims = (0..100).map(|_| {
        let (buyer, path) = (server.buyer(), path.clone());
        tokio::spawn(async move { buyer.post(&path, &json!({})).send().await.status })
    });
    let claims: Vec<_> = claims.collect();
    let mut won = 0;
    let mut last = 10;
    for claim in claims {
        // Never up, and never wrong about those that have been answered.
        let remaining = number(&listed(server, &coupon).await, "remaining");
        assert!(remaining <= last && remaining <= 10 - won);
        last = remaining;
        match claim.await.unwrap() {
            201 => won += 1,
            409 => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(won, 10);
    assert_eq!(number(&listed(server, &coupon).await, "remaining"), 0);
}

#[tokio::test]
async fn a_coupon_changes_while_it_is_claimed_but_keeps_its_promises() {
    let server = TestServer::shared().await;
    let (admin, buyer) = (server.admin(), server.buyer());
    let coupon = made(&admin, 1).await;
    let path = format!("/admin/coupons/{coupon}");
    let discount = json!({ "discount": { "kind": "amount", "value": 500 } });
    let changed = admin.patch(&path, &discount).ok(200).await;
    assert_eq!(changed["discount"], discount["discount"]);
    buyer.post(&claims_of(&coupon), &json!({})).ok(201).await;
    for body in [
        json!({ "stock": 0 }),
        json!({ "discount": { "kind": "amount", "value": 400 } }),
        json!({ "performance_id": server.small().await.performance }),
    ] {
        let problem = admin
            .patch(&path, &body)
            .problem(409, "coupon-has-claims")
            .await;
        assert_eq!(number(&problem, "claimed"), 1);
    }
    let more = json!({ "stock": 3, "name": "Summer", "ends_at": in_seconds(7_200) });
    let changed = admin.patch(&path, &more).ok(200).await;
    assert_eq!(
        (text(&changed, "name"), number(&changed, "remaining")),
        ("Summer", 2)
    );
    server
        .buyer()
        .post(&claims_of(&coupon), &json!({}))
        .ok(201)
        .await;
    let shown = listed(server, &coupon).await;
    assert_eq!(
        (text(&shown, "name"), number(&shown, "remaining")),
        ("Summer", 1)
    );
}

#[tokio::test]
async fn a_coupon_with_something_wrong_is_refused_by_field() {
    let server = TestServer::shared().await;
    let admin = server.admin();
    let coupon = made(&admin, 5).await;
    let wrong = [
        ("name", json!("")),
        ("name", json!("x".repeat(201))),
        ("name", json!("a\u{0}")),
        ("discount", json!({ "kind": "gift", "value": 1 })),
        ("discount", json!({ "kind": "percent" })),
        ("discount.value", json!({ "kind": "percent", "value": 101 })),
        ("discount.value", json!({ "kind": "percent", "value": 0 })),
        ("discount.value", json!({ "kind": "amount", "value": 0 })),
        ("stock", json!(-1)),
        ("stock", json!(10_000_001)),
        ("stock", json!("5")),
        ("ends_at", json!("tomorrow")),
        ("ends_at", json!(in_seconds(-120))),
        ("surprise", json!(1)),
    ];
    for (field, value) in wrong {
        let name = field.split('.').next().unwrap();
        let mut body = wish(5);
        body[name] = value.clone();
        let patch = json!({ name: value });
        for call in [
            admin.post("/admin/coupons", &body),
            admin.patch(&format!("/admin/coupons/{coupon}"), &patch),
        ] {
            let problem = call.problem(422, "invalid-request").await;
            let fields = list(&problem, "errors").iter();
            let fields: Vec<&str> = fields.map(|error| text(error, "field")).collect();
            assert!(fields[0].starts_with(name), "{field}: {fields:?}");
        }
    }
    for body in [json!({ "stock": 5 }), json!([])] {
        admin
            .post("/admin/coupons", &body)
            .problem(422, "invalid-request")
            .await;
    }
}

#[tokio::test]
async fn a_coupon_is_its_organizers() {
    let server = TestServer::shared().await;
    let (owner, other, buyer) = (server.organizer(), server.organizer(), server.buyer());
    let coupon = made(&owner, 5).await;
    let path = format!("/admin/coupons/{coupon}");
    let body = json!({ "stock": 6 });
    other
        .patch(&path, &body)
        .problem(404, "coupon-not-found")
        .await;
    buyer.patch(&path, &body).problem(403, "forbidden").await;
    buyer
        .post("/admin/coupons", &wish(1))
        .problem(403, "forbidden")
        .await;
    owner.patch(&path, &body).ok(200).await;
    server
        .admin()
        .patch(&path, &json!({ "stock": 7 }))
        .ok(200)
        .await;
    // Good for somebody else's show.
    let mut bound = wish(1);
    bound["performance_id"] = json!(server.small().await.performance);
    owner
        .post("/admin/coupons", &bound)
        .problem(404, "performance-not-found")
        .await;
}

#[tokio::test]
async fn a_coupon_is_made_once_under_a_key() {
    let server = TestServer::shared().await;
    let (admin, key) = (server.admin(), fresh_key());
    let first = admin
        .post("/admin/coupons", &wish(5))
        .key(&key)
        .send()
        .await;
    first.assert_status(201);
    let body = wish(5);
    let again = admin.post("/admin/coupons", &body).key(&key).send().await;
    // The times of a wish move on.
    assert!(matches!(again.status, 201 | 422), "{}", again.text());
    let body = wish(6);
    let first = admin.post("/admin/coupons", &body).key("b").ok(201).await;
    assert_eq!(
        admin.post("/admin/coupons", &body).key("b").ok(201).await,
        first
    );
}
