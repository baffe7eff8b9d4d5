//! How seats are wished for: by name, the best available, general admission.

use serde_json::json;

use crate::harness::{Show, TestServer, assert_map_adds_up, list, seat_ids, text};

#[tokio::test]
async fn a_wish_is_exactly_one_thing() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer();
    let wrong = [
        json!({}),
        json!({ "seat_ids": [] }),
        json!({ "seat_ids": ["F1-A-1"], "best_available": { "count": 1 } }),
        json!({ "seat_ids": ["F1-A-1", "F1-A-1"] }),
        json!({ "seat_ids": "F1-A-1" }),
        json!({ "seat_ids": [1] }),
        json!({ "seat_ids": ["F1-A-1\u{0}"] }),
        json!({ "best_available": { "count": 0 } }),
        json!({ "best_available": { "count": -1 } }),
        json!({ "best_available": { "count": 1.5 } }),
        json!({ "best_available": {} }),
        json!({ "best_available": { "count": 1, "near": "stage" } }),
        json!({ "general_admission": { "section": "PIT", "count": 0 } }),
        json!({ "general_admission": { "count": 1 } }),
        json!({ "general_admission": { "section": "PIT", "count": u64::MAX } }),
        json!({ "seats": ["F1-A-1"] }),
    ];
    for wish in wrong {
        buyer
            .hold(&scene.timetable, &wish)
            .problem(422, "invalid-request")
            .await;
    }
    assert_eq!(server.anyone().map(&scene.timetable).await["held"], 0);
}

#[tokio::test]
async fn the_best_available_seats_are_side_by_side_and_of_the_wanted_kind() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    for (wish, prefix) in [
        (json!({ "count": 3 }), ""),
        (json!({ "count": 2, "grade": "R" }), "G-"),
        (json!({ "count": 4, "section": "F1" }), "F1-"),
        (
            json!({ "count": 2, "grade": null, "section": null, "adjacent": true }),
            "",
        ),
    ] {
        let hold = server
            .buyer()
            .hold(&scene.timetable, &json!({ "best_available": wish }))
            .ok(201)
            .await;
        let ids = seat_ids(&hold);
        assert_eq!(ids.len() as u64, wish["count"].as_u64().unwrap());
        let mut numbers = Vec::new();
        for id in &ids {
            assert!(id.starts_with(prefix), "{id} for {wish}");
            let (row, number) = id.rsplit_once('-').unwrap();
            assert_eq!(row, ids[0].rsplit_once('-').unwrap().0, "one row: {ids:?}");
            numbers.push(number.parse::<u32>().unwrap());
        }
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "{ids:?}");
    }
    assert_map_adds_up(&server.anyone().map(&scene.timetable).await);
}

#[tokio::test]
async fn seats_that_are_not_together_are_refused_or_taken_as_wished() {
    let server = TestServer::shared().await;
    let scene = server
        .open(&Show::grid(2, 3, 1_000).limit("max_seats_per_user", 6))
        .await;
    let buyer = server.buyer();
    let wish = |count: u32, adjacent: bool| json!({ "best_available": { "count": count, "adjacent": adjacent } });
    let problem = buyer
        .hold(&scene.timetable, &wish(4, true))
        .problem(409, "no-seats-match")
        .await;
    assert!(problem["available"].is_number(), "{problem}");
    let hold = buyer.hold(&scene.timetable, &wish(4, false)).ok(201).await;
    assert_eq!(list(&hold, "seats").len(), 4);
    let problem = server
        .buyer()
        .hold(&scene.timetable, &wish(3, false))
        .problem(409, "no-seats-match")
        .await;
    assert_eq!(problem["available"], 2);
    let answer = server
        .buyer()
        .hold(
            &scene.timetable,
            &json!({ "best_available": { "count": 1, "grade": "NO-SUCH" } }),
        )
        .send()
        .await;
    assert!(matches!(answer.status, 409 | 422), "{}", answer.text());
}

#[tokio::test]
async fn general_admission_takes_units_of_a_section_without_seats() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer();
    let wish = |section: &str, count: u32| json!({ "general_admission": { "section": section, "count": count } });
    let hold = buyer.hold(&scene.timetable, &wish("PIT", 2)).ok(201).await;
    assert_eq!(seat_ids(&hold), ["PIT-000001", "PIT-000002"]);
    assert_eq!(hold["amount"], 140_000);
    buyer
        .hold(&scene.timetable, &wish("F1", 1))
        .problem(422, "unknown-seat")
        .await;
    buyer
        .hold(&scene.timetable, &wish("NOWHERE", 1))
        .problem(422, "unknown-seat")
        .await;
    let map = server.anyone().map(&scene.timetable).await;
    assert!(text(&map, "statuses").ends_with(&format!("HH{}", "A".repeat(18))));
}
