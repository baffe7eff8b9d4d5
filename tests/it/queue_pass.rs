//! A performance with a waiting room: nothing without a pass.

use serde_json::{Value, json};

use crate::harness::{Show, TestServer, text};

#[tokio::test]
async fn behind_a_waiting_room_nothing_is_held_or_shown_without_a_pass() {
    let server = TestServer::shared().await;
    let scene = server
        .open(&Show::small().with("queue", json!({ "preset": "bank-counter" })))
        .await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let seats = format!("/timetables/{}/seats", scene.timetable);
    for wish in [
        json!({ "seat_ids": ["F1-A-1"] }),
        json!({ "best_available": { "count": 1 } }),
        json!({ "general_admission": { "section": "PIT", "count": 1 } }),
    ] {
        buyer
            .hold(&scene.timetable, &wish)
            .problem(403, "queue-pass-required")
            .await;
    }
    buyer.get(&seats).problem(403, "queue-pass-required").await;
    server
        .anyone()
        .get(&seats)
        .problem(403, "queue-pass-required")
        .await;
    let answer = buyer
        .get(&seats)
        .header("queue-pass", "forged")
        .send()
        .await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    // Layout, availability and the catalogue stay open; the map for admins.
    for path in ["layout", "availability"] {
        buyer
            .get(&format!("/timetables/{}/{path}", scene.timetable))
            .ok(200)
            .await;
    }
    server.admin().get(&seats).ok(200).await;
    server
        .organizer()
        .get(&seats)
        .problem(403, "queue-pass-required")
        .await;
}

#[tokio::test]
async fn a_queue_set_during_the_sale_also_stops_orders_and_additions_without_a_pass() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let policy = format!("/admin/performances/{}/queue", scene.performance);
    let answer = server
        .admin()
        .put(&policy, &json!({ "preset": "active-50" }))
        .send()
        .await;
    assert!((200..300).contains(&answer.status), "{}", answer.text());
    let path = format!("/holds/{}", text(&hold, "hold_id"));
    buyer
        .post(&format!("{path}/seats"), &json!({ "seat_ids": ["F1-A-2"] }))
        .problem(403, "queue-pass-required")
        .await;
    buyer
        .order(text(&hold, "hold_id"))
        .problem(403, "queue-pass-required")
        .await;
    buyer.get(&path).ok(200).await;
    let answer = server.admin().put(&policy, &Value::Null).send().await;
    assert!((200..300).contains(&answer.status), "{}", answer.text());
    buyer.order(text(&hold, "hold_id")).ok(201).await;
}
