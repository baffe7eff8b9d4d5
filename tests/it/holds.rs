//! Holds: taking, adding, dropping, releasing and losing seats.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{
    EXPIRY_LIMIT, SLACK_FACTOR, Show, TestServer, assert_map_adds_up, eventually, in_millis,
    in_seconds, list, number, seat_ids, text,
};

#[tokio::test]
async fn a_hold_reads_as_the_contract_says() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer();
    let hold = buyer
        .hold_seats(&scene.timetable, &["F1-A-2", "G-B-3"])
        .await;
    insta::assert_json_snapshot!("hold", hold, {
        ".hold_id" => "[id]",
        ".timetable_id" => "[id]",
        ".expires_at" => "[time]",
        ".expires_in_ms" => "[ms]",
        ".hold_token" => "[token]",
    });
    let left = number(&hold, "expires_in_ms");
    assert!((290_000..=300_000).contains(&left), "{left}");
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    assert!(text(&hold, "hold_token").chars().all(allowed));

    let read = buyer
        .get(&format!("/holds/{}", text(&hold, "hold_id")))
        .ok(200)
        .await;
    for member in [
        "hold_id",
        "timetable_id",
        "seats",
        "amount",
        "currency",
        "expires_at",
    ] {
        assert_eq!(read[member], hold[member], "{member}");
    }
    let mine = buyer.get("/me/holds").ok(200).await;
    assert_eq!(list(&mine, "items")[0]["hold_id"], hold["hold_id"]);
    let map = server.anyone().map(&scene.timetable).await;
    assert_map_adds_up(&map);
    assert_eq!(map["held"], 2);
}

#[tokio::test]
async fn a_hold_is_all_or_nothing_and_names_the_taken_seats() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let (first, second) = (server.buyer(), server.buyer());
    first
        .hold_seats(&scene.timetable, &["F1-A-2", "F1-A-3"])
        .await;
    let before = server.anyone().map(&scene.timetable).await;
    // One's own held seats are taken too.
    for buyer in [&first, &second] {
        let problem = buyer
            .hold(
                &scene.timetable,
                &json!({ "seat_ids": ["F1-A-1", "F1-A-2"] }),
            )
            .problem(409, "seat-unavailable")
            .await;
        assert_eq!(problem["seat_ids"], json!(["F1-A-2"]));
    }
    assert_eq!(server.anyone().map(&scene.timetable).await, before);
}

#[tokio::test]
async fn seats_can_be_added_and_dropped() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer();
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let path = format!("/holds/{}", text(&hold, "hold_id"));
    let bigger = buyer
        .post(
            &format!("{path}/seats"),
            &json!({ "seat_ids": ["F1-A-2", "F1-A-3"] }),
        )
        .ok(200)
        .await;
    assert_eq!(seat_ids(&bigger), ["F1-A-1", "F1-A-2", "F1-A-3"]);
    assert_eq!(bigger["expires_at"], hold["expires_at"]);
    assert_eq!(bigger["amount"], 450_000);
    buyer
        .post(
            &format!("{path}/seats"),
            &json!({ "seat_ids": ["F1-A-4", "F1-A-5"] }),
        )
        .problem(422, "seat-limit-exceeded")
        .await;
    let smaller = buyer.delete(&format!("{path}/seats/F1-A-2")).ok(200).await;
    assert_eq!(seat_ids(&smaller), ["F1-A-1", "F1-A-3"]);
    assert_eq!(smaller["amount"], 300_000);
    server
        .buyer()
        .hold_seats(&scene.timetable, &["F1-A-2"])
        .await;
    buyer.delete(&format!("{path}/seats/F1-A-1")).ok(200).await;
    buyer.delete(&format!("{path}/seats/F1-A-3")).ok(204).await;
    assert_eq!(buyer.get(&path).send().await.status, 404);
    assert_eq!(server.anyone().map(&scene.timetable).await["held"], 1);
}

#[tokio::test]
async fn a_release_frees_the_seats_at_once_and_can_be_repeated() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer();
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let path = format!("/holds/{}", text(&hold, "hold_id"));
    buyer.delete(&path).ok(204).await;
    buyer.delete(&path).ok(204).await;
    server
        .buyer()
        .hold_seats(&scene.timetable, &["F1-A-1"])
        .await;
    assert_eq!(
        list(&buyer.get("/me/holds").ok(200).await, "items").len(),
        0
    );
    // A late repetition doesn't touch the next one's hold.
    buyer.delete(&path).ok(204).await;
    assert_eq!(server.anyone().map(&scene.timetable).await["held"], 1);
}

#[tokio::test]
async fn somebody_elses_hold_does_not_exist() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let hold = server
        .buyer()
        .hold_seats(&scene.timetable, &["F1-A-1"])
        .await;
    let path = format!("/holds/{}", text(&hold, "hold_id"));
    let thief = server.buyer_with_money(1_000_000).await;
    thief.get(&path).problem(404, "hold-not-found").await;
    thief
        .post(&format!("{path}/seats"), &json!({ "seat_ids": ["F1-A-2"] }))
        .problem(404, "hold-not-found")
        .await;
    let answer = thief.delete(&path).send().await;
    assert!(matches!(answer.status, 404 | 204), "{}", answer.text());
    let answer = thief.delete(&format!("{path}/seats/F1-A-1")).send().await;
    assert!(matches!(answer.status, 404 | 204), "{}", answer.text());
    thief
        .order(text(&hold, "hold_id"))
        .problem(404, "hold-not-found")
        .await;
    // Nor does its token work for somebody else.
    let answer = thief
        .order_body(&json!({
            "hold_id": hold["hold_id"], "hold_token": hold["hold_token"], "payment": { "method": "wallet" },
        }))
        .key("stolen")
        .send()
        .await;
    assert!(matches!(answer.status, 404 | 422), "{}", answer.text());
    assert_eq!(server.anyone().map(&scene.timetable).await["held"], 1);
}

#[tokio::test]
async fn nobody_gets_more_seats_than_the_limits_allow() {
    let server = TestServer::shared().await;
    let mut show = Show::small().limit("max_seats_per_user", 3);
    show.body["grades"][0]["max_per_user"] = json!(2);
    let scene = server.open(&show).await;
    let buyer = server.buyer_with_money(10_000_000).await;
    let hold = |seats: Value| buyer.hold(&scene.timetable, &json!({ "seat_ids": seats }));
    hold(json!(["G-A-1", "G-A-2", "G-A-3", "G-A-4"]))
        .problem(422, "seat-limit-exceeded")
        .await;
    hold(json!(["F1-A-1", "F1-A-2", "F1-A-3"]))
        .problem(422, "seat-limit-exceeded")
        .await;
    let first = hold(json!(["F1-A-1", "F1-A-2"])).ok(201).await;
    hold(json!(["F1-A-3"]))
        .problem(422, "seat-limit-exceeded")
        .await;
    // What was bought counts like what is held.
    buyer.order(text(&first, "hold_id")).ok(201).await;
    hold(json!(["F1-A-3"]))
        .problem(422, "seat-limit-exceeded")
        .await;
    let last = hold(json!(["G-A-1"])).ok(201).await;
    hold(json!(["G-A-2"]))
        .problem(422, "seat-limit-exceeded")
        .await;
    buyer
        .delete(&format!("/holds/{}", text(&last, "hold_id")))
        .ok(204)
        .await;
    hold(json!(["G-A-2"])).ok(201).await;
}

#[tokio::test]
async fn the_limit_holds_against_requests_at_once() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer();
    let calls = (1..=10).map(|seat| {
        let wish = json!({ "seat_ids": [format!("G-A-{seat}")] });
        buyer.hold(&scene.timetable, &wish).send()
    });
    let answers = futures_util::future::join_all(calls).await;
    let held = answers.iter().filter(|a| a.status == 201).count();
    assert_eq!(held, 4);
    for refused in answers.iter().filter(|a| a.status != 201) {
        refused.assert_problem(422, "seat-limit-exceeded");
    }
}

#[tokio::test]
async fn a_sale_has_a_window() {
    let server = TestServer::shared().await;
    let buyer = server.buyer();
    let wish = json!({ "seat_ids": ["F1-A-1"] });
    let later = server
        .open(&Show::small().with("opens_at", json!(in_seconds(3_600))))
        .await;
    let problem = buyer
        .hold(&later.timetable, &wish)
        .problem(409, "sale-not-open")
        .await;
    assert!(problem["opens_at"].is_string(), "{problem}");

    let closing = server
        .open(&Show::small().with("closes_at", json!(in_millis(1_500))))
        .await;
    let rich = server.buyer_with_money(1_000_000).await;
    let hold = rich.hold_seats(&closing.timetable, &["F1-A-1"]).await;
    let problem = eventually("the end of the sale", Duration::from_secs(10), async || {
        let answer = buyer
            .hold(
                &closing.timetable,
                &json!({ "best_available": { "count": 1 } }),
            )
            .send()
            .await;
        match answer.status {
            201 => {
                let path = format!("/holds/{}", text(&answer.json(), "hold_id"));
                buyer.delete(&path).ok(204).await;
                None
            }
            _ => Some(answer.assert_problem(409, "sale-closed")),
        }
    })
    .await;
    assert!(problem["closes_at"].is_string(), "{problem}");
    assert_eq!(closing.read(&server.anyone()).await["status"], "closed");
    // A hold may be ordered until it ends, even after the sale closed.
    rich.order(text(&hold, "hold_id")).ok(201).await;
}

#[tokio::test]
async fn a_grade_may_have_a_window_of_its_own() {
    let server = TestServer::shared().await;
    let mut show = Show::small();
    show.body["grades"][0]["opens_at"] = json!(in_seconds(3_600));
    let scene = server.open(&show).await;
    let buyer = server.buyer();
    buyer
        .hold(&scene.timetable, &json!({ "seat_ids": ["F1-A-1"] }))
        .problem(409, "sale-not-open")
        .await;
    buyer.hold_seats(&scene.timetable, &["G-A-1"]).await;
}

#[tokio::test]
async fn refusals_come_in_the_order_of_the_contract() {
    let server = TestServer::shared().await;
    let buyer = server.buyer();
    let closed = server
        .open(&Show::small().with("opens_at", json!(in_seconds(3_600))))
        .await;
    let open = server.small().await;
    let five = json!({ "seat_ids": ["X-1-1", "X-1-2", "X-1-3", "X-1-4", "X-1-5"] });
    // shape, then window
    buyer
        .hold(&closed.timetable, &json!({ "seat_ids": [] }))
        .problem(422, "invalid-request")
        .await;
    buyer
        .hold(&closed.timetable, &five)
        .problem(409, "sale-not-open")
        .await;
    // limit, then unknown seats
    buyer
        .hold(&open.timetable, &five)
        .problem(422, "seat-limit-exceeded")
        .await;
    server
        .buyer()
        .hold_seats(&open.timetable, &["F1-A-1"])
        .await;
    // unknown seats, then availability
    let problem = buyer
        .hold(
            &open.timetable,
            &json!({ "seat_ids": ["F1-A-1", "F1-A-99", "PIT-000001"] }),
        )
        .problem(422, "unknown-seat")
        .await;
    let mut named: Vec<&str> = list(&problem, "seat_ids")
        .iter()
        .map(|v| v.as_str().unwrap())
        .collect();
    named.sort_unstable();
    assert_eq!(named, ["F1-A-99", "PIT-000001"]);
}

#[tokio::test]
async fn an_expired_hold_frees_its_seats_in_time() {
    let server = TestServer::shared().await;
    let scene = server
        .open(&Show::small().limit("hold_ttl_seconds", 1))
        .await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let asked = Instant::now();
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let ttl = Duration::from_secs(1);
    assert!(number(&hold, "expires_in_ms") <= 1_000);
    let other = server.buyer();
    let limit = ttl + EXPIRY_LIMIT * SLACK_FACTOR;
    eventually("the seat is free again", limit, async || {
        let wish = json!({ "seat_ids": ["F1-A-1"] });
        let answer = other.hold(&scene.timetable, &wish).send().await;
        (answer.status == 201).then_some(())
    })
    .await;
    assert!(
        asked.elapsed() >= ttl,
        "a hold is nobody else's before its deadline"
    );
    buyer
        .order(text(&hold, "hold_id"))
        .problem(409, "hold-expired")
        .await;
    assert_eq!(
        list(&buyer.get("/me/holds").ok(200).await, "items").len(),
        0
    );
    // The map sees an expiry that nobody asked about.
    eventually("the map is free again", limit, async || {
        let map = server.anyone().map(&scene.timetable).await;
        assert_map_adds_up(&map);
        (map["held"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_hold_that_never_was_is_not_found() {
    let buyer = TestServer::shared().await.buyer();
    let id = Uuid::now_v7();
    buyer
        .get(&format!("/holds/{id}"))
        .problem(404, "hold-not-found")
        .await;
    buyer
        .hold(&id.to_string(), &json!({ "seat_ids": ["F1-A-1"] }))
        .problem(404, "timetable-not-found")
        .await;
}

#[tokio::test]
async fn holds_survive_an_orderly_restart() {
    let server = TestServer::start().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let token = buyer.token().to_owned();
    let server = server.restart().await;
    let buyer = server.anyone().with_token(&token);
    let again = buyer
        .get(&format!("/holds/{}", text(&hold, "hold_id")))
        .ok(200)
        .await;
    assert_eq!(seat_ids(&again), ["F1-A-1"]);
    buyer.order(text(&hold, "hold_id")).ok(201).await;
    server.stop().await;
}

#[tokio::test]
async fn a_hold_that_is_over_is_released_again_after_a_restart() {
    let server = TestServer::start().await;
    let scene = server.small().await;
    let (buyer, other) = (server.buyer_with_money(1_000_000).await, server.buyer());
    let tokens = [buyer.token().to_owned(), other.token().to_owned()];
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let released = format!("/holds/{}", text(&hold, "hold_id"));
    buyer.delete(&released).ok(204).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let bought = format!("/holds/{}", text(&hold, "hold_id"));
    buyer.order(text(&hold, "hold_id")).ok(201).await;

    // Nothing of them is in memory any more.
    let server = server.restart().await;
    let [buyer, other] = tokens.map(|token| server.anyone().with_token(&token));
    for _ in 0..2 {
        buyer.delete(&released).ok(204).await;
        let sold = buyer.delete(&bought).problem(409, "hold-already-ordered");
        sold.await;
    }
    buyer.get(&released).problem(404, "hold-not-found").await;
    for hold in [&released, &bought] {
        other.delete(hold).problem(404, "hold-not-found").await;
    }
    let unknown = format!("/holds/{}", Uuid::now_v7());
    buyer.delete(&unknown).problem(404, "hold-not-found").await;
    let map = server.anyone().map(&scene.timetable).await;
    assert_eq!((&map["held"], &map["sold"]), (&json!(0), &json!(1)));
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_hold_has_no_timetable_loaded() {
    let server = TestServer::start().await;
    // More dates than there are shards: the id is of some of them.
    let scene = server.open(&Show::small().dates(366)).await;
    let buyer = server.buyer();
    for _ in 0..200 {
        let unknown = format!("/holds/{}", Uuid::now_v7());
        buyer.delete(&unknown).problem(404, "hold-not-found").await;
    }
    let timetables = server.app().node.timetables.directory();
    assert_eq!(timetables.all().len(), 0);
    // One of the caller's own that is over doesn't either.
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let mine = format!("/holds/{}", text(&hold, "hold_id"));
    for _ in 0..2 {
        buyer.delete(&mine).ok(204).await;
    }
    assert_eq!(timetables.all().len(), 1);
    server.stop().await;
}
