//! What operators see of all actors, and of one.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::client::Client;
use crate::harness::{TestServer, eventually, fresh_key, in_seconds, list, number, text};

/// An actor that nobody has asked yet is in memory a moment after the first
/// question.
const SEEN_LIMIT: Duration = Duration::from_secs(10);

/// All actors, page by page.
async fn all(admin: &Client, limit: usize) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut path = format!("/admin/actors?limit={limit}");
    loop {
        let page = admin.get(&path).ok(200).await;
        assert_eq!(page["unanswered"], json!([]));
        let items = list(&page, "items");
        assert!(items.len() <= limit);
        rows.extend_from_slice(items);
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/admin/actors?limit={limit}&cursor={cursor}"),
            None => return rows,
        }
    }
}

async fn row(admin: &Client, kind: &str, name: &str) -> Option<Value> {
    let rows = all(admin, 100).await;
    let mut of = rows
        .into_iter()
        .filter(|row| row["kind"] == kind && row["name"] == name);
    of.next()
}

#[tokio::test]
async fn an_admin_sees_what_each_actor_has_done() {
    let server = TestServer::start_without_rates().await;
    let (admin, scene) = (server.admin(), server.small().await);
    let buyer = server.buyer_with_money(1_000_000).await;
    buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let first = row(&admin, "timetable", &scene.timetable).await.unwrap();
    assert_eq!(first["state"], "running");
    assert!(text(&first, "title").starts_with("The Nutcracker"));
    assert!(!text(&first, "node").is_empty());
    assert_eq!(
        (number(&first, "entities"), number(&first, "restarts")),
        (1, 0)
    );

    for seat in 2..=10 {
        let seat = format!("F1-A-{seat}");
        let hold = buyer.hold_seats(&scene.timetable, &[&seat]).await;
        let path = format!("/holds/{}", text(&hold, "hold_id"));
        buyer.delete(&path).send().await.assert_status(204);
    }
    let then = row(&admin, "timetable", &scene.timetable).await.unwrap();
    assert!(number(&then, "messages") >= number(&first, "messages") + 18);
    assert!(then["uptime_seconds"].as_f64() > first["uptime_seconds"].as_f64());
    let (mean, p99) = (&then["handling_mean_us"], &then["handling_p99_us"]);
    assert!(mean.as_f64().unwrap() > 0.0 && p99.as_f64().unwrap() > 0.0);
    assert_eq!(number(&then, "mailbox_depth"), 0);

    // The buyer's account is one of those of its shard.
    let rows = all(&admin, 100).await;
    let shards = rows.iter().filter(|row| row["kind"] == "account");
    let shards: Vec<_> = shards.map(|row| text(row, "name")).collect();
    assert!(
        shards.iter().any(|name| name.starts_with("shard-")),
        "{rows:?}"
    );
    server.stop().await;
}

#[tokio::test]
async fn the_list_comes_in_pages_each_actor_once() {
    let server = TestServer::start().await;
    let admin = server.admin();
    for _ in 0..12 {
        server.buyer_with_money(1).await;
    }
    let whole = all(&admin, 100).await;
    let places = |rows: &[Value]| -> Vec<(String, String)> {
        let place = |row: &Value| (text(row, "kind").to_owned(), text(row, "name").to_owned());
        rows.iter().map(place).collect()
    };
    assert!(whole.len() >= 10, "{whole:?}");
    let mut sorted = places(&whole);
    sorted.sort();
    sorted.dedup();
    assert_eq!(places(&whole), sorted);
    assert_eq!(places(&all(&admin, 3).await), places(&whole));
    admin
        .get("/admin/actors?cursor=nonsense")
        .problem(422, "invalid-request")
        .await;
    server.stop().await;
}

#[tokio::test]
async fn an_actor_says_of_itself_what_it_has_in_memory() {
    let server = TestServer::start().await;
    let (admin, scene) = (server.admin(), server.small().await);
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer
        .hold_seats(&scene.timetable, &["F1-A-1", "F1-A-2"])
        .await;
    let path = format!("/admin/actors/timetable/{}", scene.timetable);
    let seen = admin.get(&path).ok(200).await;
    let observed = &seen["life"]["observed"];
    assert_eq!(
        (&observed["held"], &observed["holds"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(observed["performance_id"], scene.performance);
    assert_eq!(seen["life"]["next_deadline"], hold["expires_at"]);
    buyer.order(text(&hold, "hold_id")).ok(201).await;
    eventually("the sale is observed", SEEN_LIMIT, async || {
        let seen = admin.get(&path).ok(200).await;
        let (life, observed) = (&seen["life"], &seen["life"]["observed"]);
        let is_sold = observed["sold"] == 2 && observed["holds"] == 0;
        (is_sold && life["seq"] == life["stored_seq"]).then_some(())
    })
    .await;
    // What isn't in memory is not read for that.
    let absent = format!("/admin/actors/timetable/{}", Uuid::now_v7());
    admin.get(&absent).problem(404, "actor-not-found").await;
    for path in ["/admin/actors/timetable/x", "/admin/actors/seat/1"] {
        admin.get(path).problem(404, "actor-not-found").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_coupon_says_of_itself_how_it_goes_and_is_listed_once_it_is_claimed() {
    let server = TestServer::start().await;
    let (admin, scene) = (server.admin(), server.small().await);
    let wish = json!({
        "name": "Spring", "discount": { "kind": "amount", "value": 100 }, "stock": 2,
        "starts_at": in_seconds(-60), "ends_at": in_seconds(3_600),
    });
    let coupon = admin.post("/admin/coupons", &wish).ok(201).await;
    let id = text(&coupon, "coupon_id");
    let claims = format!("/coupons/{id}/claims");
    let one = format!("/admin/actors/coupon/{id}");
    let buyer = server.buyer_with_money(1_000_000).await;
    let claim = buyer.post(&claims, &json!({})).ok(201).await;
    let seen = admin.get(&one).ok(200).await;
    assert_eq!(
        (&seen["kind"], text(&seen["actor"], "title")),
        (&json!("coupon"), "Spring")
    );
    let (life, observed) = (&seen["life"], &seen["life"]["observed"]);
    assert_eq!(life["seq"], life["stored_seq"]);
    let figures = |observed: &Value| {
        ["stock", "claimed", "claimed_durably", "remaining", "used"].map(|it| number(observed, it))
    };
    assert_eq!(figures(observed), [2, 1, 1, 1, 0]);
    assert_eq!(
        (text(observed, "state"), &observed["sold_out_after_seconds"]),
        ("open", &Value::Null)
    );

    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let body = json!({
        "hold_id": hold["hold_id"], "coupon_claim_id": claim["coupon_claim_id"],
        "payment": { "method": "wallet" },
    });
    buyer.order_body(&body).key(&fresh_key()).ok(201).await;
    server.buyer().post(&claims, &json!({})).ok(201).await;
    // A claim is used after the answer to its order.
    let observed = eventually("the claim is used", SEEN_LIMIT, async || {
        let seen = admin.get(&one).ok(200).await;
        let observed = seen["life"]["observed"].clone();
        (number(&observed, "used") == 1).then_some(observed)
    })
    .await;
    assert_eq!(figures(&observed), [2, 2, 2, 0, 1]);
    assert_eq!(
        (
            text(&observed, "state"),
            number(&observed, "orders_under_way")
        ),
        ("sold_out", 0)
    );
    let after = observed["sold_out_after_seconds"].as_f64().unwrap();
    assert!(
        (0.0..60.0).contains(&after),
        "since it was made, not since its window: {after}"
    );

    let ops = admin.get("/admin/ops").ok(200).await;
    let row = &list(&ops, "coupons")[0];
    assert_eq!((text(row, "coupon_id"), text(row, "title")), (id, "Spring"));
    let shown = ["stock", "claimed", "remaining"].map(|it| number(row, it));
    assert_eq!((shown, text(row, "state")), ([2, 2, 0], "sold_out"));
    assert_eq!(row["sold_out_after_seconds"].as_f64(), Some(after));
    server.stop().await;
}

#[tokio::test]
async fn the_last_minutes_are_sampled_each_second_and_told_once() {
    let server = TestServer::start().await;
    let (admin, scene) = (server.admin(), server.small().await);
    let buyer = server.buyer_with_money(1_000_000).await;
    buyer
        .hold_seats(&scene.timetable, &["F1-A-1", "F1-A-2"])
        .await;
    let values = |answer: &Value, name: &str| list(&answer["series"][name], "values").to_vec();
    let answer = eventually("the hold is in a sample", SEEN_LIMIT, async || {
        let answer = admin.get("/admin/ops").ok(200).await;
        let holds = values(&answer, "holds.ok_total");
        (holds.last()?.as_f64()? >= 1.0).then_some(answer)
    })
    .await;
    let count = values(&answer, "http.requests").len();
    assert!((1..=900).contains(&count));
    for (name, series) in answer["series"].as_object().unwrap() {
        assert_eq!(list(series, "values").len(), count, "{name}");
    }
    assert_eq!(
        (&answer["ready"], &answer["sample_seconds"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(answer["nodes"], json!([answer["node"]]));
    let dates = list(&answer, "timetables").iter();
    let mut dates = dates.filter(|date| date["timetable_id"] == scene.timetable);
    assert_eq!(dates.next().unwrap()["held"], 2);
    // Who has them asks for those that came after.
    let last = number(&answer, "last");
    let next = admin.get(&format!("/admin/ops?since={last}")).ok(200).await;
    let come = number(&next, "last") - last;
    assert_eq!(values(&next, "process.memory").len() as i64, come);
    server.stop().await;
}

#[tokio::test]
async fn only_an_admin_sees_the_actors() {
    let server = TestServer::shared().await;
    let one = format!("/admin/actors/timetable/{}", Uuid::now_v7());
    for path in ["/admin/actors", "/admin/ops", &one] {
        for other in [server.buyer(), server.organizer()] {
            other.get(path).problem(403, "forbidden").await;
        }
        let nobody = server.anyone().call(Method::GET, path);
        nobody.problem(401, "unauthorized").await;
    }
    let elsewhere = server.admin().get("/admin/ops?node=no-such-node");
    elsewhere.problem(422, "invalid-request").await;
}
