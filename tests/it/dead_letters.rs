//! Dead letters: for admins alone, listed and requeued.

use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use uuid::Uuid;

use crate::harness::{TICKET_LIMIT, TestServer, eventually, list, text};

#[tokio::test]
async fn an_admin_lists_dead_letters_and_requeues_them() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let none = admin.get("/admin/dead-letters").ok(200).await;
    assert_eq!(none, json!({ "items": [], "next_cursor": null }));

    // An event that this version can't act on.
    let file = server.folder().join("onsale.db");
    let rows = SqlitePool::connect_with(SqliteConnectOptions::new().filename(file))
        .await
        .unwrap();
    let entity = Uuid::now_v7();
    for number in 1..=3 {
        sqlx::query(
            "INSERT INTO outbox (entity, topic, event_seq, event_id, type, version, at, payload) \
             VALUES (?1, 'onsale.orders', ?2, ?3, 'order.confirmed', 9, 0, '{}')",
        )
        .bind(entity)
        .bind(number)
        .bind(Uuid::now_v7())
        .execute(&rows)
        .await
        .unwrap();
    }
    let letters = eventually("the dead letters", TICKET_LIMIT * 10, async || {
        let page = admin.get("/admin/dead-letters").ok(200).await;
        let items = list(&page, "items").to_vec();
        (items.len() == 3).then_some(items)
    })
    .await;
    let letter = &letters[0];
    assert_eq!(letter["status"], "dead");
    assert_eq!(letter["type"], "order.confirmed");
    assert_eq!(letter["entity"], entity.to_string());
    assert_eq!(
        (&letter["event_seq"], &letter["attempts"]),
        (&json!(1), &json!(1))
    );
    assert!(text(letter, "reason").contains("version 9"));

    // In pages.
    let first = admin.get("/admin/dead-letters?limit=2").ok(200).await;
    let next = text(&first, "next_cursor");
    let second = admin
        .get(&format!("/admin/dead-letters?limit=2&cursor={next}"))
        .ok(200)
        .await;
    assert_eq!(list(&second, "items"), &letters[2..]);

    // It is tried again, and can't be acted on now, either.
    let path = format!(
        "/admin/dead-letters/{}/requeue",
        text(letter, "dead_letter_id")
    );
    let tried = admin.post(&path, &json!({})).ok(200).await;
    assert_eq!(
        (&tried["status"], &tried["attempts"]),
        (&json!("dead"), &json!(2))
    );
    // Once it can, it is listed no more.
    sqlx::query("UPDATE dead_letter SET body = replace(body, 'order.confirmed', 'order.other')")
        .execute(&rows)
        .await
        .unwrap();
    let done = admin.post(&path, &json!({})).ok(200).await;
    assert_eq!(done["status"], "requeued");
    let left = admin.get("/admin/dead-letters").ok(200).await;
    assert_eq!(list(&left, "items").len(), 2);

    let unknown = format!("/admin/dead-letters/{}/requeue", Uuid::now_v7());
    admin
        .post(&unknown, &json!({}))
        .problem(404, "not-found")
        .await;
    let buyer = server.buyer();
    buyer
        .get("/admin/dead-letters")
        .problem(403, "forbidden")
        .await;
    buyer
        .post(&path, &json!({}))
        .problem(403, "forbidden")
        .await;
}
