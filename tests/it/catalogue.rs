//! The public catalogue.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Client, DAY, Show, TestServer, eventually, in_seconds, list, number, text};
use std::time::Duration;

/// A slug that no other test uses.
fn fresh_category() -> String {
    format!("c-{}", &Uuid::new_v4().simple().to_string()[..30])
}

async fn titles(client: &Client, query: &str) -> Vec<String> {
    let page = client.get(&format!("/performances?{query}")).ok(200).await;
    list(&page, "items")
        .iter()
        .map(|item| text(item, "title").to_owned())
        .collect()
}

#[tokio::test]
async fn a_performance_reads_as_the_contract_says() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let body = scene.read(&server.anyone()).await;
    insta::assert_json_snapshot!("performance", body, {
        ".performance_id" => "[id]",
        ".venue_id" => "[id]",
        ".opens_at" => "[time]",
        ".closes_at" => "[time]",
        ".first_starts_at" => "[time]",
        ".last_starts_at" => "[time]",
        ".view_count" => "[count]",
        ".timetables[].timetable_id" => "[id]",
        ".timetables[].starts_at" => "[time]",
        ".timetables[].doors_at" => "[time]",
    });
    let starts = text(&body["timetables"][0], "starts_at");
    assert!(starts.ends_with('Z') && starts.len() == "2026-01-01T00:00:00.000Z".len());
}

#[tokio::test]
async fn lists_filter_sort_and_page() {
    let server = TestServer::shared().await;
    let anyone = server.anyone();
    let category = fresh_category();
    for (title, cast, opens, starts) in [
        ("Alpha", "Mozart", -300, 40),
        ("Beta", "Salieri", -200, 30),
        ("Gamma", "Mozart", 3_600, 35),
    ] {
        let starts_at = in_seconds(starts * DAY);
        let show = Show::small()
            .with("title", json!(title))
            .with("category", json!(category))
            .with("cast", json!([cast]))
            .with("opens_at", json!(in_seconds(opens)))
            .with(
                "timetables",
                json!([{ "starts_at": starts_at, "doors_at": starts_at }]),
            );
        server.open(&show).await;
    }
    let of = |rest: &str| format!("category={category}{rest}");
    assert_eq!(
        titles(&anyone, &of("")).await,
        ["Alpha", "Beta", "Gamma"],
        "by opens_at"
    );
    assert_eq!(
        titles(&anyone, &of("&sort=starts_at")).await,
        ["Beta", "Gamma", "Alpha"]
    );
    assert_eq!(titles(&anyone, &of("&sort=popularity")).await.len(), 3);
    assert_eq!(titles(&anyone, &of("&query=mozart")).await.len(), 2);
    assert_eq!(titles(&anyone, &of("&query=bet")).await, ["Beta"]);
    assert_eq!(titles(&anyone, &of("&query=arts")).await.len(), 3);
    assert_eq!(titles(&anyone, &of("&query=nobody")).await.len(), 0);
    assert_eq!(titles(&anyone, &of("&status=scheduled")).await, ["Gamma"]);
    assert_eq!(
        titles(&anyone, &of("&status=on_sale")).await,
        ["Alpha", "Beta"]
    );
    let from = in_seconds(33 * DAY);
    assert_eq!(
        titles(
            &anyone,
            &of(&format!("&from={from}&to={}", in_seconds(37 * DAY)))
        )
        .await,
        ["Gamma"]
    );

    let mut seen = Vec::new();
    let mut cursor = String::new();
    for _ in 0..3 {
        let page = anyone
            .get(&format!("/performances?{}&limit=1{cursor}", of("")))
            .ok(200)
            .await;
        assert_eq!(list(&page, "items").len(), 1);
        seen.push(text(&list(&page, "items")[0], "title").to_owned());
        cursor = match page["next_cursor"].as_str() {
            Some(next) => format!("&cursor={next}"),
            None => break,
        };
    }
    assert_eq!(seen, ["Alpha", "Beta", "Gamma"]);

    let categories = anyone.get("/categories").ok(200).await;
    let row = list(&categories, "items")
        .iter()
        .find(|row| row["category"] == category)
        .unwrap_or_else(|| panic!("{categories}"));
    assert_eq!(row["performances"], 3);
}

#[tokio::test]
async fn a_list_item_has_the_members_of_the_contract() {
    let server = TestServer::shared().await;
    let category = fresh_category();
    let scene = server
        .open(&Show::small().with("category", json!(category)))
        .await;
    let page = server
        .anyone()
        .get(&format!("/performances?category={category}"))
        .ok(200)
        .await;
    assert_eq!(page["next_cursor"], Value::Null);
    let item = &list(&page, "items")[0];
    for member in [
        "performance_id",
        "title",
        "cast",
        "category",
        "status",
        "venue_name",
        "opens_at",
        "closes_at",
        "first_starts_at",
        "last_starts_at",
        "price_from",
        "currency",
        "view_count",
        "poster_url",
    ] {
        assert!(item.get(member).is_some(), "{member} in {item}");
    }
    assert_eq!(item["performance_id"], scene.performance);
    assert_eq!(item["price_from"], 70_000);
    assert_eq!(item["venue_name"], "Arts Centre");
    assert_eq!(item["status"], "on_sale");
}

#[tokio::test]
async fn a_draft_is_not_shown() {
    let server = TestServer::shared().await;
    let scene = server.open(&Show::small().with("draft", json!(true))).await;
    server
        .anyone()
        .get(&format!("/performances/{}", scene.performance))
        .problem(404, "performance-not-found")
        .await;
}

#[tokio::test]
async fn timetables_can_be_read_alone() {
    let server = TestServer::shared().await;
    let anyone = server.anyone();
    let scene = server.open(&Show::small().dates(2)).await;
    let page = anyone
        .get(&format!("/performances/{}/timetables", scene.performance))
        .ok(200)
        .await;
    let items = list(&page, "items");
    assert_eq!(items.len(), 2);
    let alone = anyone
        .get(&format!("/timetables/{}", scene.timetable))
        .ok(200)
        .await;
    for member in [
        "timetable_id",
        "starts_at",
        "doors_at",
        "capacity",
        "available",
    ] {
        assert_eq!(alone[member], items[0][member], "{member}");
    }
    assert_eq!(alone["performance_id"], scene.performance);
    assert_eq!(alone["status"], "on_sale");
    assert_eq!(alone["capacity"], 80);
    assert_eq!(alone["available"], 80);
}

#[tokio::test]
async fn the_layout_lists_every_seat_in_map_order_and_rarely_changes() {
    let server = TestServer::shared().await;
    let anyone = server.anyone();
    let scene = server.small().await;
    let path = format!("/timetables/{}/layout", scene.timetable);
    let answer = anyone.get(&path).send().await;
    answer.assert_status(200);
    let etag = answer.header("etag").unwrap().to_owned();
    assert!(etag.starts_with('"'), "a strong ETag: {etag}");
    assert!(answer.header("cache-control").unwrap().contains("no-cache"));
    let layout = answer.json();
    assert_eq!(layout["timetable_id"], scene.timetable);
    assert_eq!(layout["seat_order"], "row-major");
    let sections = list(&layout, "sections");
    assert_eq!(sections.len(), 3);
    let rows: Vec<&str> = list(&sections[1], "rows")
        .iter()
        .map(|row| text(row, "name"))
        .collect();
    assert_eq!(rows, ["A", "B", "C", "D"]);
    let seat = &list(&list(&sections[0], "rows")[1], "seats")[2];
    assert_eq!(seat["seat_id"], "F1-B-3");
    assert_eq!(seat["number"], 3);
    assert_eq!(seat["grade"], "VIP");
    assert_eq!(seat["price"], 150_000);
    assert_eq!(seat["accessible"], false);
    assert!(seat["x"].is_number() && seat["y"].is_number());
    assert_eq!(sections[2]["general_admission"], true);
    assert_eq!(sections[2]["rows"], json!([]));
    assert_eq!(sections[2]["units"], 20);
    assert_eq!(sections[2]["price"], 70_000);

    let again = anyone
        .get(&path)
        .header("if-none-match", &etag)
        .send()
        .await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    // Sales don't change it.
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    buyer.order(text(&hold, "hold_id")).ok(201).await;
    let again = anyone
        .get(&path)
        .header("if-none-match", &etag)
        .send()
        .await;
    assert_eq!(again.status, 304);
    let map = anyone.map(&scene.timetable).await;
    assert_eq!(
        text(&map, "layout_etag").trim_matches('"'),
        etag.trim_matches('"')
    );
}

#[tokio::test]
async fn availability_counts_by_section_and_by_grade() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer();
    buyer
        .hold_seats(&scene.timetable, &["F1-A-1", "F1-A-2"])
        .await;
    let counts = server
        .anyone()
        .get(&format!("/timetables/{}/availability", scene.timetable))
        .ok(200)
        .await;
    let row = |group: &str, name: &str| {
        list(&counts, group)
            .iter()
            .find(|row| row.as_object().unwrap().values().any(|v| v == name))
            .unwrap_or_else(|| panic!("{group} {name} in {counts}"))
            .clone()
    };
    assert_eq!(number(&row("sections", "F1"), "available"), 18);
    assert_eq!(number(&row("grades", "R"), "available"), 40);
    assert_eq!(number(&row("sections", "PIT"), "available"), 20);
}

#[tokio::test]
async fn public_reads_have_an_etag_and_last_a_second() {
    let server = TestServer::shared().await;
    let anyone = server.anyone();
    let scene = server.small().await;
    for path in [
        "/categories".to_owned(),
        "/performances?limit=1".to_owned(),
        format!("/performances/{}/timetables", scene.performance),
        format!("/timetables/{}", scene.timetable),
        format!("/timetables/{}/availability", scene.timetable),
    ] {
        let answer = anyone.get(&path).send().await;
        answer.assert_status(200);
        let etag = answer
            .header("etag")
            .unwrap_or_else(|| panic!("{path}: no ETag"));
        let caching = answer.header("cache-control").unwrap_or_default();
        assert!(caching.contains("max-age=1"), "{path}: {caching}");
        // Others change the catalogue meanwhile, so only an unchanged one is 304.
        let again = anyone.get(&path).header("if-none-match", etag).send().await;
        if again.header("etag") == Some(etag) {
            assert_eq!(again.status, 304, "{path}");
        }
    }
}

#[tokio::test]
async fn a_view_counts_once_a_day_a_user_and_makes_the_ranking() {
    let server = TestServer::start().await;
    let scene = server.small().await;
    let path = format!("/performances/{}", scene.performance);
    for viewer in [server.buyer(), server.buyer()] {
        for _ in 0..5 {
            viewer.get(&path).ok(200).await;
        }
    }
    eventually("both views", Duration::from_secs(5), async || {
        // A list counts nothing.
        let page = server.anyone().get("/performances").ok(200).await;
        let views = number(&list(&page, "items")[0], "view_count");
        assert!(views <= 2, "{views} views by two users");
        (views == 2).then_some(())
    })
    .await;
    let ranking = server
        .anyone()
        .get("/performances/ranking?by=views&days=7&limit=5")
        .ok(200)
        .await;
    let first = &list(&ranking, "items")[0];
    assert_eq!(first["rank"], 1);
    assert_eq!(first["performance_id"], scene.performance);
    assert_eq!(first["views"], 2);
    for wrong in ["by=luck", "days=2", "limit=0", "limit=101"] {
        let answer = server
            .anyone()
            .get(&format!("/performances/ranking?{wrong}"))
            .send()
            .await;
        assert!(
            matches!(answer.status, 400 | 422),
            "{wrong}: {}",
            answer.status
        );
        answer.assert_any_problem();
    }
}

#[tokio::test]
async fn what_does_not_exist_is_404() {
    let anyone = TestServer::shared().await.anyone();
    let id = Uuid::now_v7();
    anyone
        .get(&format!("/performances/{id}"))
        .problem(404, "performance-not-found")
        .await;
    for rest in ["", "/layout", "/seats", "/availability"] {
        anyone
            .get(&format!("/timetables/{id}{rest}"))
            .problem(404, "timetable-not-found")
            .await;
    }
}

#[tokio::test]
async fn a_performance_is_sold_out_when_nothing_is_available_or_held() {
    let server = TestServer::shared().await;
    let anyone = server.anyone();
    let scene = server
        .open(&Show::grid(1, 2, 1_000).with("category", json!(fresh_category())))
        .await;
    let buyer = server.buyer_with_money(10_000).await;
    let hold = buyer
        .hold_seats(&scene.timetable, &["G-A-1", "G-A-2"])
        .await;
    assert_eq!(scene.read(&anyone).await["status"], "on_sale", "held only");
    buyer.order(text(&hold, "hold_id")).ok(201).await;
    let detail = scene.read(&anyone).await;
    assert_eq!(detail["status"], "sold_out");
    assert_eq!(detail["timetables"][0]["available"], 0);
    assert_eq!(
        titles(
            &anyone,
            &format!("category={}&status=sold_out", text(&detail, "category"))
        )
        .await
        .len(),
        1
    );
}
