//! The seat map: counters, versions, changes since a version, ETag.

use serde_json::json;

use crate::harness::{Show, TestServer, assert_map_adds_up, list, number, text};

/// Versions are exact in a double, by the contract.
const VERSION_END: i64 = 1 << 53;

#[tokio::test]
async fn a_fresh_map_is_all_available() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let map = server.anyone().map(&scene.timetable).await;
    assert_map_adds_up(&map);
    assert_eq!(map["timetable_id"], scene.timetable);
    assert_eq!(text(&map, "statuses"), "A".repeat(80));
    assert!((0..VERSION_END).contains(&number(&map, "version")));
    assert!(map["layout_etag"].is_string());
}

#[tokio::test]
async fn the_map_includes_every_change_acknowledged_before_the_request() {
    let server = TestServer::shared().await;
    let anyone = server.anyone();
    let scene = server.small().await;
    let buyer = server.buyer_with_money(10_000_000).await;
    let mut version = number(&anyone.map(&scene.timetable).await, "version");
    let mut expect = async |statuses: &str| {
        let map = anyone.map(&scene.timetable).await;
        assert_map_adds_up(&map);
        assert!(text(&map, "statuses").starts_with(statuses), "{map}");
        assert!(number(&map, "version") > version, "versions rise");
        version = number(&map, "version");
    };
    let hold = buyer
        .hold_seats(&scene.timetable, &["F1-A-1", "F1-A-3"])
        .await;
    expect("HAHA").await;
    let path = format!("/holds/{}", text(&hold, "hold_id"));
    buyer.delete(&format!("{path}/seats/F1-A-1")).ok(200).await;
    expect("AAHA").await;
    buyer.order(text(&hold, "hold_id")).ok(201).await;
    expect("AASA").await;
}

#[tokio::test]
async fn changes_since_a_version_lead_to_the_map_of_now() {
    let server = TestServer::shared().await;
    let anyone = server.anyone();
    let scene = server.small().await;
    let old = anyone.map(&scene.timetable).await;
    let since = number(&old, "version");
    let path = format!("/timetables/{}/seats?since={since}", scene.timetable);
    let nothing = anyone.get(&path).ok(200).await;
    assert_eq!(nothing["version"], since);
    assert_eq!(nothing["changes"], json!([]));

    let buyer = server.buyer();
    let hold = buyer
        .hold_seats(&scene.timetable, &["F1-A-1", "F1-A-2"])
        .await;
    let id = text(&hold, "hold_id");
    buyer
        .delete(&format!("/holds/{id}/seats/F1-A-1"))
        .ok(200)
        .await;
    server
        .buyer()
        .hold(
            &scene.timetable,
            &json!({ "general_admission": { "section": "PIT", "count": 1 } }),
        )
        .ok(201)
        .await;

    let delta = anyone.get(&path).ok(200).await;
    let mut statuses: Vec<char> = text(&old, "statuses").chars().collect();
    for change in list(&delta, "changes") {
        let index = usize::try_from(change[0].as_u64().unwrap()).unwrap();
        statuses[index] = change[1].as_str().unwrap().chars().next().unwrap();
    }
    let now = anyone.map(&scene.timetable).await;
    assert_eq!(statuses.iter().collect::<String>(), text(&now, "statuses"));
    assert_eq!(delta["version"], now["version"]);
}

#[tokio::test]
async fn an_unknown_version_gets_the_whole_map() {
    let server = TestServer::shared().await;
    let anyone = server.anyone();
    let scene = server.small().await;
    for since in [0, VERSION_END - 1] {
        let map = anyone
            .get(&format!(
                "/timetables/{}/seats?since={since}",
                scene.timetable
            ))
            .ok(200)
            .await;
        assert_map_adds_up(&map);
    }
    for garbage in ["-1", "abc", "1.5", "99999999999999999999999", ""] {
        let answer = anyone
            .get(&format!(
                "/timetables/{}/seats?since={garbage}",
                scene.timetable
            ))
            .send()
            .await;
        assert!(
            matches!(answer.status, 200 | 400 | 422),
            "{garbage}: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn an_unchanged_map_is_304() {
    let server = TestServer::shared().await;
    let anyone = server.anyone();
    let scene = server.small().await;
    let path = format!("/timetables/{}/seats", scene.timetable);
    let first = anyone.get(&path).send().await;
    let etag = first.header("etag").expect("an ETag").to_owned();
    assert!(
        etag.contains(&number(&first.json(), "version").to_string()),
        "{etag}"
    );
    let again = anyone
        .get(&path)
        .header("if-none-match", &etag)
        .send()
        .await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    server
        .buyer()
        .hold_seats(&scene.timetable, &["F1-A-1"])
        .await;
    let changed = anyone
        .get(&path)
        .header("if-none-match", &etag)
        .send()
        .await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), Some(etag.as_str()));
}

#[tokio::test]
async fn versions_rise_over_restarts_and_an_old_since_gets_the_whole() {
    let server = TestServer::start().await;
    let scene = server.small().await;
    for seat in ["F1-A-1", "F1-A-2", "F1-A-3"] {
        server.buyer().hold_seats(&scene.timetable, &[seat]).await;
    }
    let before = number(&server.anyone().map(&scene.timetable).await, "version");
    let server = server.restart().await;
    let map = server
        .anyone()
        .get(&format!(
            "/timetables/{}/seats?since={before}",
            scene.timetable
        ))
        .ok(200)
        .await;
    assert_map_adds_up(&map);
    assert!(number(&map, "version") > before);
    assert_eq!(map["held"], 3);
    server.stop().await;
}

#[tokio::test]
async fn a_big_map_has_one_character_a_seat() {
    let server = TestServer::shared().await;
    let scene = server.open(&Show::grid(100, 200, 1_000)).await;
    let map = server.anyone().map(&scene.timetable).await;
    assert_map_adds_up(&map);
    assert_eq!(map["capacity"], 20_000);
}
