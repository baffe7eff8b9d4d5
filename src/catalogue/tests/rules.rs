//! What is refused, and by the path of which field.

use super::*;
use crate::catalogue::CatalogueError;
use crate::catalogue::request::RowRequest;

fn fields(error: CatalogueError) -> Vec<String> {
    match error {
        CatalogueError::Invalid(errors) => errors.into_iter().map(|(field, _)| field).collect(),
        other => panic!("{other:?}"),
    }
}

async fn refused(world: &World, change: impl FnOnce(&mut PerformanceRequest)) -> Vec<String> {
    let mut request = performance(world.venue);
    change(&mut request);
    let made = world
        .catalogue
        .create_performance(world.owner, request, None, NOW)
        .await;
    fields(made.unwrap_err())
}

async fn refused_venue(world: &World, change: impl FnOnce(&mut VenueRequest)) -> Vec<String> {
    let mut request = venue();
    change(&mut request);
    let made = world
        .catalogue
        .create_venue(world.owner, &request, None, NOW)
        .await;
    fields(made.unwrap_err())
}

#[tokio::test]
async fn a_venue_that_breaks_a_rule_is_refused_by_the_path_of_the_field() {
    let world = World::new().await;
    let w = &world;
    assert_eq!(refused_venue(w, |v| v.name = " ".into()).await, ["name"]);
    assert_eq!(
        refused_venue(w, |v| v.time_zone = Some("Mars/X".into())).await,
        ["time_zone"]
    );
    assert_eq!(refused_venue(w, |v| v.sections.clear()).await, ["sections"]);
    let two = refused_venue(w, |v| v.sections[0].general_admission = Some(1)).await;
    assert_eq!(two, ["sections[0]"]);
    let row = |seats: u32| RowRequest {
        name: seats.to_string(),
        seats,
        x: None,
        y: None,
        accessible: None,
    };
    let empty = |v: &mut VenueRequest| {
        v.sections[0] = SectionRequest {
            rows: Some(vec![row(1), row(0)]),
            ..section("F1")
        };
    };
    assert_eq!(refused_venue(w, empty).await, ["sections[0].rows[1].seats"]);
    assert_eq!(
        refused_venue(w, |v| v.sections[1].name = "F1".into()).await,
        ["sections[1].name"]
    );
    assert_eq!(
        refused_venue(w, |v| v.sections[1].name = "F-1".into()).await,
        ["sections[1].name"]
    );
}

#[tokio::test]
async fn each_section_must_be_in_exactly_one_grade() {
    let world = World::new().await;
    let w = &world;
    let twice = refused(w, |p| p.grades[1].sections.push("F1".into())).await;
    assert_eq!(twice, ["grades[1].sections[1]"]);
    let unknown = refused(w, |p| p.grades[1].sections.push("F9".into())).await;
    assert_eq!(unknown, ["grades[1].sections[1]"]);
    assert_eq!(refused(w, |p| drop(p.grades.pop())).await, ["grades"]);
    let same = refused(w, |p| p.grades[1].name = p.grades[0].name.clone()).await;
    assert_eq!(same, ["grades[1].name"]);
}

#[tokio::test]
async fn values_out_of_the_contracts_ranges_are_refused() {
    let world = World::new().await;
    let w = &world;
    assert_eq!(refused(w, |p| p.title = "x".repeat(201)).await, ["title"]);
    assert_eq!(refused(w, |p| p.title = "가".repeat(201)).await, ["title"]);
    assert_eq!(
        refused(w, |p| p.category = "Rock".into()).await,
        ["category"]
    );
    assert_eq!(refused(w, |p| p.cast = vec!["".into()]).await, ["cast[0]"]);
    assert_eq!(
        refused(w, |p| p.closes_at = p.opens_at).await,
        ["closes_at"]
    );
    assert_eq!(
        refused(w, |p| p.grades[0].price = Money(-1)).await,
        ["grades[0].price"]
    );
    assert_eq!(
        refused(w, |p| p.grades[0].price = Money(1 << 50)).await,
        ["grades[0].price"]
    );
    let past = refused(w, |p| p.timetables[0].starts_at = NOW).await;
    assert_eq!(past, ["timetables[0].starts_at"]);
    let doors = refused(w, |p| p.timetables[0].doors_at = Some(hours(102))).await;
    assert_eq!(doors, ["timetables[0].doors_at"]);
    let many = refused(w, |p| p.timetables = vec![p.timetables[0]; 367]).await;
    assert_eq!(many, ["timetables"]);
    let ttl = refused(w, |p| p.limits.hold_ttl_seconds = Some(0)).await;
    assert_eq!(ttl, ["limits.hold_ttl_seconds"]);
    let seats = refused(w, |p| p.limits.max_seats_per_user = Some(100_001)).await;
    assert_eq!(seats, ["limits.max_seats_per_user"]);
    let script = refused(w, |p| p.poster_url = Some("javascript:alert(1)".into())).await;
    assert_eq!(script, ["poster_url"]);
    let queue = serde_json::from_str(r#"{"max_active": 0}"#).unwrap();
    assert_eq!(
        refused(w, |p| p.queue = Some(queue)).await,
        ["queue.max_active"]
    );
}

#[tokio::test]
async fn the_demo_keeps_all_rules_and_has_20_000_seats() {
    let world = World::new().await;
    let (c, owner) = (&world.catalogue, world.owner);
    let venues = crate::catalogue::demo::venues();
    let arena = c
        .create_venue(owner, &venues.arena, None, NOW)
        .await
        .unwrap()
        .value;
    let theatre = c
        .create_venue(owner, &venues.theatre, None, NOW)
        .await
        .unwrap()
        .value;
    assert_eq!(arena.capacity, 20_000);
    for request in crate::catalogue::demo::performances(arena.id, theatre.id, NOW) {
        let made = c
            .create_performance(owner, request, None, NOW)
            .await
            .unwrap()
            .value;
        assert_eq!(
            made.status(NOW, &free),
            crate::catalogue::SaleStatus::OnSale
        );
    }
    let count = |slug: &str| {
        c.categories()
            .iter()
            .find(|(s, _)| s == slug)
            .map(|(_, n)| *n)
    };
    assert_eq!(
        (count("concert"), count("musical"), count("play")),
        (Some(1), Some(1), Some(1))
    );
}
