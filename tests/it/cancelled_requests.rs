//! Requests whose client hangs up: they leave nothing half done, and what is
//! acknowledged later is visible to everybody.
//!
//! Why it is tested: a transaction that begins inside a request's future stays
//! open when that future is dropped, and its connection then swallows the
//! writes of later, acknowledged requests.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use uuid::Uuid;

use crate::common::random::Random;
use crate::harness::{
    Client, Scene, Show, TestServer, assert_map_adds_up, fresh_key, list, number,
};

/// Requests that are dropped in mid-flight.
const DROPPED: usize = 3_000;

/// Requests under way at once.
const AT_ONCE: usize = 64;

/// Requests that are acknowledged afterwards.
const ACKNOWLEDGED: usize = 200;

/// How many customers the dropped requests are of.
const BUYERS: usize = 16;

/// One request of any kind, given up after a random time.
async fn drop_one(buyer: Client, scene: Scene, mut random: Random) {
    let limit = Duration::from_micros(random.below(4_000));
    let seat = format!("G-A-{}", 1 + random.below(50));
    let call = match random.below(7) {
        0 => buyer
            .post("/wallet/charges", &json!({ "amount": 1 }))
            .key(&fresh_key()),
        1 => buyer.hold(&scene.timetable, &json!({ "seat_ids": [seat] })),
        2 => buyer.hold(
            &scene.timetable,
            &json!({ "best_available": { "count": 1 } }),
        ),
        3 => buyer.order(&Uuid::now_v7().to_string()),
        4 => buyer.post(
            "/admin/venues",
            &json!({ "name": "V", "sections": [{ "name": "A", "general_admission": 1 }] }),
        ),
        5 => {
            let hold = buyer
                .hold(
                    &scene.timetable,
                    &json!({ "best_available": { "count": 1 } }),
                )
                .try_send()
                .await;
            match hold {
                Ok(answer) if answer.status == 201 => {
                    buyer.order(answer.json()["hold_id"].as_str().unwrap())
                }
                _ => return,
            }
        }
        _ => buyer.patch(
            &format!("/admin/performances/{}", scene.performance),
            &json!({ "title": "Another" }),
        ),
    };
    let _ = tokio::time::timeout(limit, call.try_send()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_dropped_by_the_thousand_hide_nothing_that_is_acknowledged_later() {
    let server = TestServer::start_without_rates().await;
    let seed = Random::fresh_seed();
    eprintln!("seed {seed}");
    let show = Show::grid(40, 50, 10).limit("max_seats_per_user", 100_000);
    let scene = server.open(&show).await;
    let mut buyers = Vec::new();
    for index in 0..BUYERS {
        // Some may administer, so that the catalogue's writes are dropped too.
        let buyer = if index % 4 == 0 {
            server.admin()
        } else {
            server.buyer()
        };
        buyer.charge(1_000_000).await;
        buyers.push(buyer);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..DROPPED {
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await.unwrap().unwrap();
        }
        let random = Random::seeded(seed.wrapping_add(index as u64));
        tasks.spawn(drop_one(
            buyers[index % BUYERS].clone(),
            scene.clone(),
            random,
        ));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }

    // From here on everything is waited for.
    let buyer = server.buyer();
    for _ in 0..ACKNOWLEDGED {
        buyer.charge(10).await;
    }
    let mut orders = Vec::new();
    for _ in 0..20 {
        let hold = buyer
            .hold(
                &scene.timetable,
                &json!({ "best_available": { "count": 1 } }),
            )
            .ok(201)
            .await;
        let order = buyer.order(hold["hold_id"].as_str().unwrap()).ok(201).await;
        orders.push(order);
    }
    let venue = server
        .admin()
        .post(
            "/admin/venues",
            &json!({ "name": "Late", "sections": [{ "name": "A", "general_admission": 1 }] }),
        )
        .ok(201)
        .await;
    assert_others_see(&server, &orders, &venue).await;
    assert_eq!(buyer.balance().await, 10 * ACKNOWLEDGED as i64 - 200);
    assert_map_adds_up(&server.anyone().map(&scene.timetable).await);
    for buyer in &buyers {
        assert!(buyer.balance().await >= 0);
        for order in list(&buyer.get("/orders?limit=100").ok(200).await, "items") {
            assert_eq!(order["status"], "confirmed");
        }
    }
    server.stop().await;
}

/// Reads the store over a connection that has nothing to do with the server.
async fn assert_others_see(server: &TestServer, orders: &[Value], venue: &Value) {
    let options = SqliteConnectOptions::new()
        .filename(server.folder().join("onsale.db"))
        .read_only(true);
    let pool = SqlitePoolOptions::new()
        .connect_with(options)
        .await
        .unwrap();
    let id_of = |value: &Value| -> Vec<u8> {
        let id: Uuid = value.as_str().unwrap().parse().unwrap();
        id.as_bytes().to_vec()
    };
    for order in orders {
        let row = sqlx::query("SELECT status, amount FROM orders WHERE id = ?")
            .bind(id_of(&order["order_id"]))
            .fetch_one(&pool)
            .await
            .unwrap_or_else(|error| panic!("an acknowledged order isn't there: {error}"));
        assert_eq!(row.get::<String, _>("status"), "confirmed");
        assert_eq!(row.get::<i64, _>("amount"), number(order, "amount"));
    }
    let charged: i64 = sqlx::query_scalar("SELECT count(*) FROM transfer WHERE amount = 10")
        .fetch_one(&pool)
        .await
        .unwrap();
    // Each of the charges, and each order's price.
    assert!(
        charged >= ACKNOWLEDGED as i64,
        "{charged} transfers are visible"
    );
    sqlx::query("SELECT 1 FROM venue WHERE id = ?")
        .bind(id_of(&venue["venue_id"]))
        .fetch_one(&pool)
        .await
        .unwrap();
    pool.close().await;
}
