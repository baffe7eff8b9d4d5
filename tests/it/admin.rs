//! Administration: venues, performances, timetables, blocks, who may.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{
    DAY, Show, TestServer, assert_map_adds_up, fresh_key, in_seconds, list, number, text,
};

#[tokio::test]
async fn a_venue_counts_its_seats_and_names_its_rows() {
    let server = TestServer::shared().await;
    let show = Show::grid(28, 3, 1_000);
    let venue = show.build_venue(&server.admin()).await;
    assert_eq!(venue["capacity"], 84);
    let scene = server.open(&show).await;
    let layout = server
        .anyone()
        .get(&format!("/timetables/{}/layout", scene.timetable))
        .ok(200)
        .await;
    let rows = list(&layout["sections"][0], "rows");
    let names: Vec<&str> = rows.iter().map(|row| text(row, "name")).collect();
    assert_eq!(&names[24..], ["Y", "Z", "AA", "AB"]);
}

#[tokio::test]
async fn names_may_be_of_any_script() {
    let server = TestServer::shared().await;
    let mut show = Show::grid(1, 1, 1_000);
    show.sections = json!([{ "name": "가구역", "rows": [{ "name": "열1", "seats": 2 }] }]);
    show.body["grades"][0]["sections"] = json!(["가구역"]);
    let scene = server.open(&show).await;
    let hold = server
        .buyer()
        .hold_seats(&scene.timetable, &["가구역-열1-2"])
        .await;
    assert_eq!(hold["seats"][0]["seat_id"], "가구역-열1-2");
}

#[tokio::test]
async fn a_venue_with_something_wrong_is_refused() {
    let admin = TestServer::shared().await.admin();
    let venue = |sections: Value| json!({ "name": "V", "sections": sections });
    let wrong = [
        venue(json!([])),
        venue(json!([{ "name": "A" }])),
        venue(json!([{ "name": "A-B", "general_admission": 5 }])),
        venue(json!([{ "name": "", "general_admission": 5 }])),
        venue(json!([{ "name": "x".repeat(33), "general_admission": 5 }])),
        venue(json!([{ "name": "A B", "general_admission": 5 }])),
        venue(json!([{ "name": "A", "general_admission": 0 }])),
        venue(json!([{ "name": "A", "general_admission": -1 }])),
        venue(json!([{ "name": "A", "general_admission": u64::MAX }])),
        venue(json!([{ "name": "A", "general_admission": 1.5 }])),
        venue(json!([{ "name": "A", "grid": { "rows": 0, "seats_per_row": 1 } }])),
        venue(
            json!([{ "name": "A", "grid": { "rows": 4_000_000_000u32, "seats_per_row": 4_000_000_000u32 } }]),
        ),
        venue(
            json!([{ "name": "A", "grid": { "rows": 1, "seats_per_row": 1 }, "general_admission": 5 }]),
        ),
        venue(
            json!([{ "name": "A", "general_admission": 5 }, { "name": "A", "general_admission": 5 }]),
        ),
        venue(json!([{ "name": "A", "rows": [] }])),
        venue(
            json!([{ "name": "A", "rows": [{ "name": "1", "seats": 2 }, { "name": "1", "seats": 2 }] }]),
        ),
        venue(json!([{ "name": "A", "rows": [{ "name": "a-b", "seats": 2 }] }])),
        json!({ "name": "V", "time_zone": "Mars/Olympus", "sections": [{ "name": "A", "general_admission": 5 }] }),
        json!({ "name": "a\u{0}", "sections": [{ "name": "A", "general_admission": 5 }] }),
    ];
    for body in wrong {
        let problem = admin
            .post("/admin/venues", &body)
            .problem(422, "invalid-request")
            .await;
        assert!(!list(&problem, "errors").is_empty(), "{body}");
    }
}

#[tokio::test]
async fn a_performance_with_something_wrong_is_refused_by_field() {
    let server = TestServer::shared().await;
    let admin = server.admin();
    let show = Show::small();
    let venue = show.build_venue(&admin).await;
    let mut good = show.body.clone();
    good["venue_id"] = venue["venue_id"].clone();
    let grade = |change: &dyn Fn(&mut Value)| {
        let mut grades = good["grades"].clone();
        change(&mut grades);
        grades
    };
    let wrong: Vec<(&str, Value)> = vec![
        ("title", json!("")),
        ("title", json!("a\u{0}b")),
        ("title", json!("x".repeat(100_000 / 2))),
        ("category", json!("Not A Slug")),
        ("category", json!("x".repeat(41))),
        ("currency", json!("WON!")),
        ("currency", json!("krw")),
        ("closes_at", good["opens_at"].clone()),
        ("opens_at", json!("yesterday")),
        ("opens_at", json!("9999999-01-01T00:00:00Z")),
        ("grades", json!([])),
        ("grades", grade(&|g| g[0]["price"] = json!(-1))),
        (
            "grades",
            grade(&|g| g[0]["price"] = json!(i64::MAX as u64 + 1)),
        ),
        ("grades", grade(&|g| g[0]["price"] = json!(1.5))),
        ("grades", grade(&|g| g[0]["sections"] = json!(["NOWHERE"]))),
        ("grades", grade(&|g| g[1]["sections"] = json!(["F1"]))),
        ("grades", grade(&|g| g[1]["name"] = json!("VIP"))),
        ("grades", grade(&|g| g[0]["max_per_user"] = json!(0))),
        ("limits", json!({ "max_seats_per_user": 0 })),
        ("limits", json!({ "max_seats_per_user": 100_001 })),
        ("limits", json!({ "hold_ttl_seconds": 0 })),
        ("limits", json!({ "hold_ttl_seconds": 86_401 })),
        ("limits", json!({ "hold_ttl_secs": 5 })),
        ("limits", json!({ "payment_ttl_seconds": -1 })),
        ("queue", json!({ "preset": "no-such-park" })),
        (
            "queue",
            json!({ "admit": { "count": 0, "every_seconds": 10 } }),
        ),
        (
            "timetables",
            json!([{ "starts_at": in_seconds(-60), "doors_at": in_seconds(-120) }]),
        ),
        (
            "timetables",
            json!([{ "starts_at": in_seconds(DAY), "doors_at": in_seconds(DAY + 1) }]),
        ),
        ("surprise", json!(1)),
    ];
    for (field, value) in wrong {
        let mut body = good.clone();
        body[field] = value;
        let answer = admin.post("/admin/performances", &body).send().await;
        let problem = answer.assert_problem(422, "invalid-request");
        let named = list(&problem, "errors")
            .iter()
            .any(|error| text(error, "field").contains(field.trim_end_matches('s')));
        assert!(named, "{field} = {}: {problem}", body[field]);
    }
    let mut nowhere = good.clone();
    nowhere["venue_id"] = json!(Uuid::now_v7());
    let answer = admin.post("/admin/performances", &nowhere).send().await;
    assert!(matches!(answer.status, 404 | 422), "{}", answer.text());
    admin.post("/admin/performances", &good).ok(201).await;
}

#[tokio::test]
async fn an_organizer_sees_and_changes_only_what_is_theirs() {
    let server = TestServer::shared().await;
    let (mine, other) = (server.organizer(), server.organizer());
    let scene = Show::small().open(&mine).await;
    let path = format!("/admin/performances/{}", scene.performance);
    let change = json!({ "title": "Changed" });
    other
        .patch(&path, &change)
        .problem(404, "performance-not-found")
        .await;
    other
        .delete(&path)
        .problem(404, "performance-not-found")
        .await;
    let seats = json!({ "seat_ids": ["F1-A-1"] });
    other
        .post(
            &format!("/admin/timetables/{}/blocks", scene.timetable),
            &seats,
        )
        .problem(404, "timetable-not-found")
        .await;
    let body = {
        let mut body = Show::small().body;
        body["venue_id"] = json!(scene.venue);
        body
    };
    let answer = other.post("/admin/performances", &body).send().await;
    assert_eq!(answer.status, 404, "another's venue: {}", answer.text());
    assert_eq!(
        list(&other.get("/admin/performances").ok(200).await, "items").len(),
        0
    );
    assert_eq!(
        list(&mine.get("/admin/performances").ok(200).await, "items").len(),
        1
    );
    mine.patch(&path, &change).ok(200).await;
    server
        .admin()
        .patch(&path, &json!({ "title": "By the admin" }))
        .ok(200)
        .await;
    assert_eq!(scene.read(&server.anyone()).await["title"], "By the admin");
}

#[tokio::test]
async fn after_the_first_sale_only_what_hurts_nobody_can_be_changed() {
    let server = TestServer::shared().await;
    let admin = server.admin();
    let scene = server.small().await;
    let path = format!("/admin/performances/{}", scene.performance);
    admin
        .patch(&path, &json!({ "opens_at": in_seconds(-7_200) }))
        .ok(200)
        .await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let held = buyer.hold_seats(&scene.timetable, &["F1-A-2"]).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    buyer.order(text(&hold, "hold_id")).ok(201).await;

    for change in [
        json!({ "opens_at": in_seconds(-60) }),
        json!({ "currency": "USD" }),
    ] {
        admin
            .patch(&path, &change)
            .problem(409, "performance-has-orders")
            .await;
    }
    let mut grades = scene.created["grades"].clone();
    if grades[0].get("sections").is_none() {
        grades = Show::small().body["grades"].clone();
    }
    grades[0]["price"] = json!(200_000);
    admin
        .patch(
            &path,
            &json!({
                "title": "Swan Lake", "description": "New.", "cast": ["Odette"],
                "closes_at": in_seconds(21 * DAY), "limits": { "max_seats_per_user": 6 }, "grades": grades,
            }),
        )
        .ok(200)
        .await;
    let detail = scene.read(&server.anyone()).await;
    assert_eq!(detail["title"], "Swan Lake");
    assert_eq!(detail["grades"][0]["price"], 200_000);
    assert_eq!(detail["limits"]["max_seats_per_user"], 6);
    // The hold keeps its price, a new one has the new price.
    let order = buyer.order(text(&held, "hold_id")).ok(201).await;
    assert_eq!(order["amount"], 150_000);
    let later = buyer.hold_seats(&scene.timetable, &["F1-A-3"]).await;
    assert_eq!(later["amount"], 200_000);
}

#[tokio::test]
async fn a_deleted_performance_is_gone_until_it_is_restored() {
    let server = TestServer::shared().await;
    let admin = server.admin();
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let order = buyer.order(text(&hold, "hold_id")).ok(201).await;
    let path = format!("/admin/performances/{}", scene.performance);
    admin.delete(&path).ok(204).await;
    server
        .anyone()
        .get(&format!("/performances/{}", scene.performance))
        .problem(404, "performance-not-found")
        .await;
    let answer = buyer
        .hold(&scene.timetable, &json!({ "seat_ids": ["F1-A-5"] }))
        .send()
        .await;
    assert!(matches!(answer.status, 404 | 409), "{}", answer.text());
    // What was bought stays bought.
    buyer
        .get(&format!("/orders/{}", text(&order, "order_id")))
        .ok(200)
        .await;
    admin
        .post(&format!("{path}/restore"), &json!({}))
        .ok(200)
        .await;
    scene.read(&server.anyone()).await;
    buyer.hold_seats(&scene.timetable, &["F1-A-5"]).await;
}

#[tokio::test]
async fn a_date_can_be_added() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let path = format!("/admin/performances/{}/timetables", scene.performance);
    // Told twice, it would now and then be two moments.
    let at = in_seconds(40 * DAY);
    let added = server
        .admin()
        .post(&path, &json!({ "starts_at": at, "doors_at": at }))
        .ok(201)
        .await;
    let buyer = server.buyer();
    buyer
        .hold_seats(text(&added, "timetable_id"), &["F1-A-1"])
        .await;
    // Each date has seats of its own.
    buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let detail = scene.read(&server.anyone()).await;
    assert_eq!(list(&detail, "timetables").len(), 2);
    let over = in_seconds(-5);
    server
        .admin()
        .post(&path, &json!({ "starts_at": over, "doors_at": over }))
        .problem(422, "invalid-request")
        .await;
}

#[tokio::test]
async fn blocked_seats_are_off_sale_until_they_are_put_back() {
    let server = TestServer::shared().await;
    let admin = server.admin();
    let scene = server.small().await;
    let path = format!("/admin/timetables/{}/blocks", scene.timetable);
    let seats = json!({ "seat_ids": ["F1-A-1", "F1-A-2"] });
    let answer = admin.post(&path, &seats).send().await;
    assert!(
        matches!(answer.status, 200 | 201 | 204),
        "{}",
        answer.text()
    );
    let map = server.anyone().map(&scene.timetable).await;
    assert_map_adds_up(&map);
    assert!(text(&map, "statuses").starts_with("XXA"));
    let buyer = server.buyer();
    let problem = buyer
        .hold(
            &scene.timetable,
            &json!({ "seat_ids": ["F1-A-2", "F1-A-3"] }),
        )
        .problem(409, "seat-unavailable")
        .await;
    assert_eq!(problem["seat_ids"], json!(["F1-A-2"]));
    admin
        .post(&path, &json!({ "seat_ids": ["F1-A-1", "F1-Z-1"] }))
        .problem(422, "unknown-seat")
        .await;
    let answer = admin
        .call(
            reqwest::Method::DELETE,
            &format!("/admin/timetables/{}/blocks", scene.timetable),
        )
        .json(&json!({ "seat_ids": ["F1-A-2"] }))
        .send()
        .await;
    assert!(matches!(answer.status, 200 | 204), "{}", answer.text());
    buyer.hold_seats(&scene.timetable, &["F1-A-2"]).await;
    let map = server.anyone().map(&scene.timetable).await;
    assert_eq!(number(&map, "blocked"), 1);
    server
        .buyer()
        .post(&path, &seats)
        .problem(403, "forbidden")
        .await;
}

#[tokio::test]
async fn a_block_survives_a_restart() {
    let server = TestServer::start().await;
    let scene = server.small().await;
    server
        .admin()
        .post(
            &format!("/admin/timetables/{}/blocks", scene.timetable),
            &json!({ "seat_ids": ["F1-A-1"] }),
        )
        .send()
        .await;
    let server = server.restart().await;
    let map = server.anyone().map(&scene.timetable).await;
    assert!(text(&map, "statuses").starts_with("XA"));
    server.stop().await;
}

#[tokio::test]
async fn creating_twice_under_one_key_makes_one() {
    let server = TestServer::shared().await;
    let organizer = server.organizer();
    let key = fresh_key();
    let venue = json!({ "name": "V", "sections": Show::small().sections });
    let first = organizer
        .post("/admin/venues", &venue)
        .key(&key)
        .ok(201)
        .await;
    let again = organizer
        .post("/admin/venues", &venue)
        .key(&key)
        .send()
        .await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.json()["venue_id"], first["venue_id"]);

    let mut body = Show::small().body;
    body["venue_id"] = first["venue_id"].clone();
    let key = fresh_key();
    let calls = (0..5).map(|_| {
        organizer
            .post("/admin/performances", &body)
            .key(&key)
            .send()
    });
    for answer in futures_util::future::join_all(calls).await {
        assert!(matches!(answer.status, 201 | 409), "{}", answer.text());
    }
    let mine = organizer.get("/admin/performances").ok(200).await;
    assert_eq!(list(&mine, "items").len(), 1);
}

#[tokio::test]
async fn an_array_in_the_place_of_an_object_is_refused_at_any_depth() {
    let admin = TestServer::shared().await.admin();
    let venue =
        |section: serde_json::Value| json!({ "name": "Arts Centre", "sections": [section] });
    for (section, field) in [
        (json!({ "name": "A", "grid": [5, 10] }), "sections[0].grid"),
        (
            json!({ "name": "A", "rows": [["1", 20]] }),
            "sections[0].rows[0]",
        ),
        (json!(["A", [["1", 20]]]), "sections[0]"),
    ] {
        let call = admin.post("/admin/venues", &venue(section));
        let problem = call.problem(422, "invalid-request").await;
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
    let section = json!({ "name": "A", "grid": { "rows": 5, "seats_per_row": 10 } });
    admin.post("/admin/venues", &venue(section)).ok(201).await;
}
