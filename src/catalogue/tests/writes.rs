//! What is made and changed, and who may.

use super::*;
use crate::catalogue::request::{GradePatch, PerformancePatch};
use crate::catalogue::{CatalogueError, layout_json};

fn price(name: &str, price: i64) -> GradePatch {
    GradePatch {
        name: name.into(),
        price: Some(Money(price)),
        sections: None,
        max_per_user: None,
        opens_at: None,
        closes_at: None,
    }
}

async fn sell(world: &World, timetable: TimetableId) {
    let sold = world.store.sqlite().transaction(move |c| {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO orders SELECT ?1, ?2, ?1, ?1, ?1, 'wallet', 'confirmed', 0, 0, 0, 0, 0,
                                           '[[1, 0]]', '[]', NULL",
            )
            .bind(Uuid::now_v7())
            .bind(timetable.0)
            .execute(c)
            .await?;
            Ok(())
        })
    });
    sold.await.unwrap();
}

#[tokio::test]
async fn what_was_made_is_found_again_by_the_next_process() {
    let world = World::new().await;
    let queue = serde_json::from_str(r#"{"preset": "window-150"}"#).unwrap();
    let change = |p: &mut PerformanceRequest| {
        p.queue = Some(queue);
        p.poster_url = Some("https://example.org/p.png".into());
        p.grades[0].opens_at = Some(hours(2));
    };
    let made = world.make(change).await;
    let found = world.reopened().await.performance(made.id()).unwrap();
    assert_eq!(found.row, made.row);
    assert_eq!(found.venue.layout, made.venue.layout);
    assert_eq!(found.timetable_rows(), made.timetable_rows());
    assert_eq!(found.layout_etag, made.layout_etag);
}

#[tokio::test]
async fn a_repeated_request_finds_what_the_first_one_made() {
    let world = World::new().await;
    let (c, owner) = (&world.catalogue, world.owner);
    let key = || Some("key".to_owned());
    let request = performance(world.venue);
    let first = c
        .create_performance(owner, request.clone(), key(), NOW)
        .await
        .unwrap();
    let second = c
        .create_performance(owner, request, key(), NOW)
        .await
        .unwrap();
    assert!(!first.replayed && second.replayed);
    assert_eq!(first.value.id(), second.value.id());
    assert_eq!(c.performances().len(), 1);
    let venues = [
        c.create_venue(owner, &venue(), key(), NOW).await.unwrap(),
        c.create_venue(owner, &venue(), key(), NOW).await.unwrap(),
    ];
    assert_eq!(venues[0].value.id, venues[1].value.id);
    let (id, date) = (
        first.value.id(),
        TimetableRequest {
            starts_at: hours(200),
            doors_at: None,
        },
    );
    let one = c.add_timetable(owner, id, date, key(), NOW).await.unwrap();
    let two = c.add_timetable(owner, id, date, key(), NOW).await.unwrap();
    assert_eq!(one.value.1.row, two.value.1.row);
    assert_eq!(c.timetables_of(id).len(), 2);
    // Another user's key is another key.
    let admin = Caller {
        user: UserId(Uuid::now_v7()),
        is_admin: true,
    };
    assert!(
        !c.create_performance(admin, performance(world.venue), key(), NOW)
            .await
            .unwrap()
            .replayed
    );
}

#[tokio::test]
async fn a_key_is_free_for_another_request_after_a_day() {
    let world = World::new().await;
    let (c, owner) = (&world.catalogue, world.owner);
    let key = || Some("key".to_owned());
    let request = performance(world.venue);
    let make = |at| c.create_performance(owner, request.clone(), key(), at);
    let build = |at| async move { c.create_venue(owner, &venue(), key(), at).await.unwrap() };
    let first = make(NOW).await.unwrap().value.id();
    let date = TimetableRequest {
        starts_at: hours(200),
        doors_at: None,
    };
    let add = |at| c.add_timetable(owner, first, date, key(), at);
    build(NOW).await;
    add(NOW).await.unwrap();
    let within = hours(24).plus(Millis(-1));
    assert!(make(within).await.unwrap().replayed);
    assert!(build(within).await.replayed);
    assert!(add(within).await.unwrap().replayed);
    let later = hours(24);
    let made = make(later).await.unwrap();
    assert!(!made.replayed && made.value.id() != first);
    assert!(!build(later).await.replayed);
    assert!(!add(later).await.unwrap().replayed);
    // It is the second request's now.
    assert_eq!(make(later).await.unwrap().value.id(), made.value.id());
}

#[tokio::test]
async fn an_organizer_knows_only_of_their_own() {
    let world = World::new().await;
    let p = world.make(|_| ()).await;
    let other = Caller {
        user: UserId(Uuid::now_v7()),
        is_admin: false,
    };
    let admin = Caller {
        is_admin: true,
        ..other
    };
    let c = &world.catalogue;
    let patch = c
        .patch_performance(other, p.id(), PerformancePatch::default(), NOW)
        .await;
    assert!(matches!(patch, Err(CatalogueError::PerformanceNotFound)));
    let made = c
        .create_performance(other, performance(world.venue), None, NOW)
        .await;
    assert!(matches!(made, Err(CatalogueError::VenueNotFound)));
    assert!(c.administered(other, None, 10).is_empty());
    assert_eq!(c.administered(admin, None, 10).len(), 1);
    assert!(
        c.patch_performance(admin, p.id(), PerformancePatch::default(), NOW)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn after_the_first_sale_only_some_members_can_be_changed() {
    let world = World::new().await;
    let p = world.make(|_| ()).await;
    let (c, owner, id) = (&world.catalogue, world.owner, p.id());
    let patch = async |patch| c.patch_performance(owner, id, patch, NOW).await;
    let opens = || PerformancePatch {
        opens_at: Some(hours(-3)),
        ..Default::default()
    };
    assert!(patch(opens()).await.is_ok());
    sell(&world, p.timetables[0].row.id).await;
    let late = PerformancePatch {
        opens_at: Some(hours(-4)),
        ..Default::default()
    };
    assert!(matches!(patch(late).await, Err(CatalogueError::HasOrders)));
    // What it is already is no change.
    assert!(patch(opens()).await.is_ok());
    let allowed: PerformancePatch = serde_json::from_str(
        r#"{"title": "New", "limits": {"max_seats_per_user": 6}, "category": "play", "poster_url": null,
            "grades": [{"name": "R", "price": 70, "sections": ["PIT"]}]}"#,
    )
    .unwrap();
    let changed = patch(allowed).await.unwrap();
    assert_eq!(changed.row.limits.max_seats_per_user, 6);
    assert_eq!(changed.row.limits.hold_ttl_seconds, 300);
    assert_eq!(
        changed
            .row
            .grades
            .iter()
            .map(|g| g.price.0)
            .collect::<Vec<_>>(),
        [100, 70]
    );
    let mut limited = price("R", 70);
    limited.max_per_user = Some(Some(1));
    let limited = PerformancePatch {
        grades: Some(vec![limited]),
        ..Default::default()
    };
    assert!(matches!(
        patch(limited).await,
        Err(CatalogueError::HasOrders)
    ));
    assert_eq!(
        world.reopened().await.performance(id).unwrap().row,
        changed.row
    );
}

#[tokio::test]
async fn grades_that_a_patch_does_not_list_keep_the_sections_that_nobody_takes() {
    let world = World::new().await;
    let p = world.make(|_| ()).await;
    let mut all = price("R", 60);
    all.sections = Some(vec!["PIT".into(), "F1".into()]);
    let patch = PerformancePatch {
        grades: Some(vec![all]),
        ..Default::default()
    };
    let changed = world
        .catalogue
        .patch_performance(world.owner, p.id(), patch, NOW)
        .await
        .unwrap();
    assert_eq!(changed.row.grades.len(), 1);
    let plan = &changed.timetables[0].plan;
    assert_eq!(plan.price(crate::domain::seat::SeatIndex(0)), Money(60));
}

#[tokio::test]
async fn a_layout_changes_only_with_prices() {
    let world = World::new().await;
    let p = world.make(|_| ()).await;
    let (c, owner) = (&world.catalogue, world.owner);
    let before = c.layout_tail(&p, &p.timetables[0]);
    let title = PerformancePatch {
        title: Some("x".into()),
        ..Default::default()
    };
    let same = c
        .patch_performance(owner, p.id(), title, NOW)
        .await
        .unwrap();
    assert_eq!(same.layout_etag, p.layout_etag);
    let prices = PerformancePatch {
        grades: Some(vec![price("R", 51)]),
        ..Default::default()
    };
    let dearer = c
        .patch_performance(owner, p.id(), prices, NOW)
        .await
        .unwrap();
    assert_ne!(dearer.layout_etag, p.layout_etag);
    let after = c.layout_tail(&dearer, &dearer.timetables[0]);
    assert_ne!(before, after);
}

#[tokio::test]
async fn the_layout_is_the_json_of_the_contract() {
    let world = World::new().await;
    let p = world.make(|_| ()).await;
    let tail = layout_json::render(&p.timetables[0].plan);
    let text = format!(
        "{{\"timetable_id\":\"t\"{}",
        std::str::from_utf8(&tail).unwrap()
    );
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let seat = |number: u32, row: &str, x: i32, y: i32| {
        serde_json::json!({"seat_id": format!("F1-{row}-{number}"), "number": number, "grade": "VI\"P",
            "price": 100, "x": x, "y": y, "accessible": false})
    };
    let row = |name: &str, y| {
        let seats: Vec<_> = (1..=3)
            .map(|number| seat(number, name, number as i32 - 1, y))
            .collect();
        serde_json::json!({"name": name, "seats": seats})
    };
    let expected = serde_json::json!({"timetable_id": "t", "seat_order": "row-major", "sections": [
        {"name": "F1", "general_admission": false, "rows": [row("A", 0), row("B", 1)]},
        {"name": "PIT", "general_admission": true, "rows": [], "units": 4, "grade": "R",
         "price": 50, "x": 0, "y": 0, "accessible": false}]});
    assert_eq!(json, expected);
}

#[tokio::test]
async fn a_poster_is_told_by_its_first_bytes_and_served_by_its_version() {
    let world = World::new().await;
    let p = world.make(|_| ()).await;
    let (c, owner, id) = (&world.catalogue, world.owner, p.id());
    let text = c.put_poster(owner, id, "<svg/>".into(), NOW).await;
    assert!(matches!(text, Err(CatalogueError::NotAPicture)));
    let png = bytes::Bytes::from_static(b"\x89PNG\r\n\x1a\nrest");
    let changed = c.put_poster(owner, id, png.clone(), NOW).await.unwrap();
    let url = changed.row.poster_url.clone().unwrap();
    let poster = world.reopened().await.poster(id).await.unwrap().unwrap();
    assert_eq!(
        (poster.media_type.as_str(), &poster.bytes),
        ("image/png", &png)
    );
    assert!(url.ends_with(&poster.version), "{url}");
    assert_eq!(c.poster(id).await.unwrap().unwrap().bytes, png);
    assert_eq!(c.poster(id).await.unwrap().unwrap().version, poster.version);
    let none = PerformancePatch {
        poster_url: Some(None),
        ..Default::default()
    };
    c.patch_performance(owner, id, none, NOW).await.unwrap();
    assert!(c.poster(id).await.unwrap().is_none());
    assert!(world.store.load_poster(id).await.unwrap().is_none());
}

#[tokio::test]
async fn categories_can_be_renamed_and_deleted_once_they_are_empty() {
    let world = World::new().await;
    world.make(|_| ()).await;
    let c = &world.catalogue;
    let in_use = c.delete_category("concert".into()).await;
    assert!(matches!(in_use, Err(CatalogueError::CategoryInUse(1))));
    assert_eq!(
        c.rename_category("concert".into(), "gig".into(), NOW)
            .await
            .unwrap(),
        1
    );
    assert_eq!(c.categories(), [("gig".to_owned(), 1)]);
    assert_eq!(world.reopened().await.categories(), c.categories());
    let gone = c.delete_category("concert".into()).await;
    assert!(matches!(gone, Err(CatalogueError::CategoryNotFound)));
}

#[tokio::test]
async fn sales_are_ranked_by_seats_since_a_day() {
    let world = World::new().await;
    let p = world.make(|_| ()).await;
    sell(&world, p.timetables[0].row.id).await;
    sell(&world, p.timetables[0].row.id).await;
    // The orders' ids are of the real time.
    let now = crate::clock::Clock::system().now();
    let ranking = world
        .catalogue
        .ranking(crate::catalogue::RankBy::Sales, 1, now)
        .await
        .unwrap();
    assert_eq!(ranking.iter().map(|r| r.sales).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_cancelled_date_is_withdrawn_for_good() {
    let world = World::new().await;
    let p = world.make(|_| ()).await;
    let id = p.timetables[0].row.id;
    world
        .catalogue
        .cancel_timetable(world.owner, id, NOW)
        .await
        .unwrap();
    assert!(world.catalogue.plan(id).unwrap().withdrawn);
    let again = world.reopened().await;
    assert!(again.plan(id).unwrap().withdrawn);
    let status = again.performance(p.id()).unwrap().status(NOW, &free);
    assert_eq!(status, crate::catalogue::SaleStatus::Closed);
}
