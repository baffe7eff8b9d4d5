//! Idempotency keys: one outcome each.

use serde_json::json;

use crate::harness::{Answer, TestServer, fresh_key, text};

fn is_replay(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == Some("true")
}

#[tokio::test]
async fn the_same_request_gets_the_stored_answer_again() {
    let buyer = TestServer::shared().await.buyer();
    let key = fresh_key();
    let body = json!({ "amount": 500 });
    let first = buyer.post("/wallet/charges", &body).key(&key).send().await;
    first.assert_status(201);
    assert!(!is_replay(&first));
    for _ in 0..3 {
        let again = buyer.post("/wallet/charges", &body).key(&key).send().await;
        again.assert_status(201);
        assert!(is_replay(&again));
        assert_eq!(again.json(), first.json());
    }
    assert_eq!(buyer.balance().await, 500);
}

#[tokio::test]
async fn requests_are_the_same_by_their_parsed_json() {
    let buyer = TestServer::shared().await.buyer();
    let key = fresh_key();
    buyer
        .post("/wallet/charges", &json!({ "amount": 500 }))
        .key(&key)
        .ok(201)
        .await;
    let spaced = buyer
        .call(reqwest::Method::POST, "/wallet/charges")
        .raw(None, " {\n \"amount\" :  500 } ")
        .key(&key)
        .send()
        .await;
    spaced.assert_status(201);
    assert!(is_replay(&spaced));
}

#[tokio::test]
async fn another_request_under_the_key_is_refused() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer();
    let key = fresh_key();
    buyer
        .post("/wallet/charges", &json!({ "amount": 500 }))
        .key(&key)
        .ok(201)
        .await;
    buyer
        .post("/wallet/charges", &json!({ "amount": 501 }))
        .key(&key)
        .problem(422, "idempotency-key-reused")
        .await;
    buyer
        .hold(&scene.timetable, &json!({ "seat_ids": ["F1-A-1"] }))
        .key(&key)
        .problem(422, "idempotency-key-reused")
        .await;
    assert_eq!(buyer.balance().await, 500);
    // The refusal didn't take the key's place.
    let again = buyer
        .post("/wallet/charges", &json!({ "amount": 500 }))
        .key(&key)
        .send()
        .await;
    assert!(is_replay(&again));
}

#[tokio::test]
async fn a_key_belongs_to_its_user() {
    let server = TestServer::shared().await;
    let key = fresh_key();
    for amount in [100, 200] {
        let buyer = server.buyer();
        let answer = buyer
            .post("/wallet/charges", &json!({ "amount": amount }))
            .key(&key)
            .send()
            .await;
        answer.assert_status(201);
        assert!(!is_replay(&answer));
        assert_eq!(buyer.balance().await, amount);
    }
}

#[tokio::test]
async fn refusals_are_stored_too() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer();
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let key = fresh_key();
    let body = json!({ "hold_id": hold["hold_id"], "payment": { "method": "wallet" } });
    buyer
        .order_body(&body)
        .key(&key)
        .problem(402, "insufficient-balance")
        .await;
    buyer.charge(1_000_000).await;
    let again = buyer.order_body(&body).key(&key).send().await;
    again.assert_problem(402, "insufficient-balance");
    assert!(is_replay(&again));
    buyer.order_body(&body).key(&fresh_key()).ok(201).await;

    let taken = json!({ "seat_ids": ["F1-A-1"] });
    let other = server.buyer();
    for replayed in [false, true] {
        let answer = other.hold(&scene.timetable, &taken).key("k").send().await;
        answer.assert_problem(409, "seat-unavailable");
        assert_eq!(is_replay(&answer), replayed);
    }
}

#[tokio::test]
async fn what_is_not_stored_frees_the_key() {
    let server = TestServer::shared().await;
    let buyer = server.buyer();
    let key = fresh_key();
    let call = || buyer.call(reqwest::Method::POST, "/wallet/charges");
    call()
        .raw(Some("application/json"), "{")
        .key(&key)
        .problem(400, "invalid-json")
        .await;
    call()
        .raw(Some("text/plain"), "{\"amount\":5}")
        .key(&key)
        .problem(415, "unsupported-media-type")
        .await;
    server
        .anyone()
        .post("/wallet/charges", &json!({ "amount": 5 }))
        .key(&key)
        .problem(401, "unauthorized")
        .await;
    let answer = buyer
        .post("/wallet/charges", &json!({ "amount": 5 }))
        .key(&key)
        .send()
        .await;
    answer.assert_status(201);
    assert!(!is_replay(&answer));
}

#[tokio::test]
async fn a_key_is_1_to_255_visible_ascii_characters() {
    let buyer = TestServer::shared().await.buyer();
    let body = json!({ "amount": 5 });
    for wrong in [
        String::new(),
        "x".repeat(256),
        "a b".to_owned(),
        "caf\u{e9}".to_owned(),
        "a\tb".to_owned(),
    ] {
        let answer = buyer
            .post("/wallet/charges", &body)
            .header("idempotency-key", &wrong)
            .send()
            .await;
        assert!(
            matches!(answer.status, 400 | 422),
            "{wrong:?}: {}",
            answer.text()
        );
        answer.assert_any_problem();
    }
    assert_eq!(buyer.balance().await, 0);
    for good in ["!".to_owned(), "~".repeat(255)] {
        buyer
            .post("/wallet/charges", &body)
            .key(&good)
            .ok(201)
            .await;
    }
}

#[tokio::test]
async fn a_hundred_at_once_under_one_key_happen_once() {
    let buyer = TestServer::shared().await.buyer();
    let key = fresh_key();
    let calls = (0..100).map(|_| {
        buyer
            .post("/wallet/charges", &json!({ "amount": 7 }))
            .key(&key)
            .send()
    });
    let answers = futures_util::future::join_all(calls).await;
    let mut first_answers = 0;
    for answer in &answers {
        match answer.status {
            201 => first_answers += usize::from(!is_replay(answer)),
            _ => drop(answer.assert_problem(409, "idempotency-key-in-use")),
        }
    }
    assert_eq!(first_answers, 1);
    assert_eq!(buyer.balance().await, 7);
    // After an answer, a repetition never gets 409.
    let again = buyer
        .post("/wallet/charges", &json!({ "amount": 7 }))
        .key(&key)
        .send()
        .await;
    again.assert_status(201);
}

#[tokio::test]
async fn a_hold_under_a_key_is_one_hold() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer();
    let wish = json!({ "best_available": { "count": 2 } });
    let first = buyer.hold(&scene.timetable, &wish).key("h").ok(201).await;
    let again = buyer.hold(&scene.timetable, &wish).key("h").send().await;
    assert!(is_replay(&again));
    assert_eq!(text(&again.json(), "hold_id"), text(&first, "hold_id"));
    assert_eq!(server.anyone().map(&scene.timetable).await["held"], 2);
}

#[tokio::test]
async fn keys_survive_a_restart() {
    let server = TestServer::start().await;
    let scene = server.small().await;
    let buyer = server.buyer();
    let token = buyer.token().to_owned();
    let charge = json!({ "amount": 100 });
    let first = buyer
        .post("/wallet/charges", &charge)
        .key("c")
        .ok(201)
        .await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let order = json!({ "hold_id": hold["hold_id"], "payment": { "method": "wallet" } });
    buyer
        .order_body(&order)
        .key("o")
        .problem(402, "insufficient-balance")
        .await;
    let server = server.restart().await;
    let buyer = server.anyone().with_token(&token);
    let again = buyer.post("/wallet/charges", &charge).key("c").send().await;
    again.assert_status(201);
    assert!(is_replay(&again));
    assert_eq!(again.json(), first);
    let again = buyer.order_body(&order).key("o").send().await;
    again.assert_problem(402, "insufficient-balance");
    assert!(is_replay(&again));
    buyer
        .post("/wallet/charges", &json!({ "amount": 101 }))
        .key("c")
        .problem(422, "idempotency-key-reused")
        .await;
    assert_eq!(buyer.balance().await, 100);
    server.stop().await;
}

#[tokio::test]
async fn a_repetition_gets_its_answer_whatever_became_of_what_it_was_about() {
    let server = TestServer::start().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let token = buyer.token().to_owned();
    let admin = server.admin();
    let admins_token = admin.token().to_owned();
    let wish = json!({ "seat_ids": ["F1-A-1"] });
    let more = json!({ "seat_ids": ["F1-A-2"] });
    let hold = buyer.hold(&scene.timetable, &wish).key("h").ok(201).await;
    let id = text(&hold, "hold_id").to_owned();
    let add = format!("/holds/{id}/seats");
    buyer.post(&add, &more).key("a").ok(200).await;
    buyer.delete(&format!("/holds/{id}")).ok(204).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-3"]).await;
    let order = json!({ "hold_id": hold["hold_id"], "payment": { "method": "wallet" } });
    buyer.order_body(&order).key("o").ok(201).await;
    let queue = format!("/admin/performances/{}/queue", scene.performance);
    admin
        .put(&queue, &json!({ "preset": "active-50" }))
        .ok(200)
        .await;

    // The hold is over and forgotten, the map needs a pass.
    let server = server.restart().await;
    let buyer = server.anyone().with_token(&token);
    let admin = server.anyone().with_token(&admins_token);
    for gone in [false, true] {
        if gone {
            let performance = format!("/admin/performances/{}", scene.performance);
            admin.delete(&performance).ok(204).await;
        }
        let again = buyer.hold(&scene.timetable, &wish).key("h").send().await;
        again.assert_status(201);
        assert!(is_replay(&again));
        let again = buyer.post(&add, &more).key("a").send().await;
        again.assert_status(200);
        assert!(is_replay(&again));
        let again = buyer.order_body(&order).key("o").send().await;
        again.assert_status(201);
        assert!(is_replay(&again));
    }
    server.stop().await;
}
