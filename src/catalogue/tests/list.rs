//! What the public list finds, and in which order.

use super::*;
use crate::catalogue::{Position, SaleStatus, Sort, Wanted};

fn titles(world: &World, wanted: &Wanted) -> Vec<String> {
    let found = world.catalogue.list(wanted, None, 100, NOW, &free);
    found
        .into_iter()
        .map(|found| found.performance.row.title.clone())
        .collect()
}

fn searched(world: &World, query: &str) -> usize {
    titles(
        world,
        &Wanted {
            query: Some(query.into()),
            ..Wanted::default()
        },
    )
    .len()
}

#[tokio::test]
async fn a_search_matches_title_cast_and_venue_in_any_case_and_script() {
    let world = World::new().await;
    world.make(|_| ()).await;
    world.make(|p| p.title = "Other".into()).await;
    for (query, count) in [
        ("ΕΛΈΝΗΣ", 1),
        ("night", 1),
        ("strasse", 2),
        ("STRASSE hall kim", 2),
        ("other kim", 1),
        ("other night", 0),
        ("haneul", 2),
        ("nothing", 0),
    ] {
        assert_eq!(searched(&world, query), count, "{query}");
    }
}

#[tokio::test]
async fn drafts_and_deleted_ones_are_not_shown() {
    let world = World::new().await;
    let draft = world.make(|p| p.draft = true).await;
    let deleted = world.make(|_| ()).await;
    let (c, owner) = (&world.catalogue, world.owner);
    c.set_deleted(owner, deleted.id(), true, NOW).await.unwrap();
    assert!(titles(&world, &Wanted::default()).is_empty());
    assert_eq!(searched(&world, "kim"), 0);
    assert!(c.public_performance(draft.id()).is_none());
    assert!(c.sale(deleted.timetables[0].row.id).is_none());
    assert!(c.plan(deleted.timetables[0].row.id).unwrap().withdrawn);
    c.set_deleted(owner, deleted.id(), false, NOW)
        .await
        .unwrap();
    assert_eq!(titles(&world, &Wanted::default()).len(), 1);
    assert!(!c.plan(deleted.timetables[0].row.id).unwrap().withdrawn);
}

#[tokio::test]
async fn the_status_is_the_truth_of_time_and_seats() {
    let world = World::new().await;
    let p = world.make(|_| ()).await;
    let counts = |available, held| {
        move |_| SeatCounts {
            available,
            held,
            ..Default::default()
        }
    };
    assert_eq!(p.status(hours(-2), &free), SaleStatus::Scheduled);
    assert_eq!(p.status(NOW, &counts(1, 0)), SaleStatus::OnSale);
    assert_eq!(p.status(NOW, &counts(0, 1)), SaleStatus::OnSale);
    assert_eq!(p.status(NOW, &counts(0, 0)), SaleStatus::SoldOut);
    assert_eq!(p.status(hours(100), &counts(1, 0)), SaleStatus::Closed);
    let wanted = Wanted {
        status: Some(SaleStatus::SoldOut),
        ..Wanted::default()
    };
    assert_eq!(
        world
            .catalogue
            .list(&wanted, None, 9, NOW, &counts(0, 0))
            .len(),
        1
    );
    assert!(
        world
            .catalogue
            .list(&wanted, None, 9, NOW, &free)
            .is_empty()
    );
}

#[tokio::test]
async fn lists_are_sorted_and_filtered_by_time() {
    let world = World::new().await;
    for (title, opens, starts) in [("a", 3, 400), ("b", 1, 500), ("c", 2, 300)] {
        let make = |p: &mut PerformanceRequest| {
            p.title = title.into();
            p.opens_at = hours(opens);
            p.timetables[0].starts_at = hours(starts);
        };
        world.make(make).await;
    }
    let by = |sort| {
        titles(
            &world,
            &Wanted {
                sort,
                ..Wanted::default()
            },
        )
    };
    assert_eq!(by(Sort::OpensAt), ["b", "c", "a"]);
    assert_eq!(by(Sort::StartsAt), ["c", "a", "b"]);
    let (from, to) = (Some(hours(350)), Some(hours(450)));
    assert_eq!(
        titles(
            &world,
            &Wanted {
                from,
                to,
                ..Wanted::default()
            }
        ),
        ["a"]
    );
}

#[tokio::test]
async fn pages_repeat_and_skip_nothing_when_something_is_added_between_them() {
    let world = World::new().await;
    for at in 0..6 {
        world.make(|p| p.opens_at = hours(at * 2)).await;
    }
    let wanted = Wanted::default();
    let page = |after: Option<Position>| world.catalogue.list(&wanted, after, 3, NOW, &free);
    let first = page(None);
    world.make(|p| p.opens_at = hours(-10)).await;
    world.make(|p| p.opens_at = hours(9)).await;
    let second = page(Some(first[2].position));
    let opens: Vec<i64> = second
        .iter()
        .map(|found| found.performance.row.opens_at.since(NOW).0 / 3_600_000)
        .collect();
    assert_eq!(opens, [6, 8, 9]);
}

#[tokio::test]
async fn the_most_viewed_come_first_and_a_viewer_counts_once_even_over_a_restart() {
    let world = World::new().await;
    let one = world.make(|p| p.title = "one".into()).await;
    let two = world.make(|p| p.title = "two".into()).await;
    let viewer = |n: u128| crate::catalogue::Viewer::User(UserId(Uuid::from_u128(n)));
    for n in [1, 2, 2, 1] {
        world.catalogue.view(&two, viewer(n), NOW);
    }
    world.catalogue.view(&one, viewer(1), NOW);
    let wanted = Wanted {
        sort: Sort::Popularity,
        ..Wanted::default()
    };
    assert_eq!(titles(&world, &wanted), ["two", "one"]);
    world.catalogue.flush_views().await.unwrap();
    world.catalogue.flush_views().await.unwrap();
    let again = world.reopened().await;
    let two = again.performance(two.id()).unwrap();
    assert_eq!(two.views.total(), 2);
    again.view(&two, viewer(2), NOW);
    assert_eq!(two.views.total(), 2);
    let ranking = again
        .ranking(crate::catalogue::RankBy::Views, 1, NOW)
        .await
        .unwrap();
    let ranked: Vec<_> = ranking
        .iter()
        .map(|r| (r.performance.row.title.as_str(), r.views))
        .collect();
    assert_eq!(ranked, [("two", 2), ("one", 1)]);
}

#[tokio::test]
async fn a_view_that_the_store_knew_is_taken_back_at_the_flush() {
    let world = World::new().await;
    let p = world.make(|_| ()).await;
    let viewer = crate::catalogue::Viewer::Address("192.0.2.1".parse().unwrap());
    world.catalogue.view(&p, viewer, NOW);
    world.catalogue.flush_views().await.unwrap();
    // As if it had been forgotten for want of room.
    let forgetful = super::super::Views::new(KEY, &[], 0);
    let view = forgetful.record(p.id(), viewer, NOW).unwrap();
    p.views.add(view.day, 1);
    assert_eq!(p.views.total(), 2);
    world.catalogue.views.put_back(vec![view]);
    world.catalogue.flush_views().await.unwrap();
    assert_eq!(p.views.total(), 1);
}
