//! Venues, performances, their dates, and how often they are viewed.

use std::sync::Arc;

use bytes::Bytes;
use onsale::catalogue::rows::{
    DayViews, GradeRow, IdemKey, Insertion, PerformanceRow, Poster, TimetableRow, VenueRow, View,
};
use onsale::domain::account::KEY_LIFE;
use onsale::domain::ids::{PerformanceId, TimetableId, UserId, VenueId};
use onsale::domain::layout::{SectionShape, SectionSpec};
use onsale::domain::money::{Currency, Money};
use onsale::domain::plan::Limits;
use onsale::domain::time::Timestamp;
use onsale::persistence::store::catalogue::Update;
use uuid::Uuid;

use crate::fixture::{Fixture, NOW, order, user};

on_every_store!(
    the_catalogue_comes_back_as_it_was_written,
    a_repeated_insertion_finds_the_first_row,
    nothing_changes_after_the_first_sale_that_may_not,
    a_poster_is_kept_until_it_is_dropped,
    a_viewer_counts_once_a_day,
    categories_are_renamed_and_forgotten,
);

fn venue() -> VenueRow {
    VenueRow {
        id: VenueId(Uuid::now_v7()),
        owner: user(),
        name: "홀".to_owned(),
        time_zone: "Asia/Seoul".to_owned(),
        sections: vec![SectionSpec {
            name: "F1".to_owned(),
            shape: SectionShape::GeneralAdmission { units: 9 },
            x: 1.5,
            y: 0.0,
            accessible: true,
        }],
        capacity: 9,
        created_at: NOW,
    }
}

fn performance(venue: VenueId) -> PerformanceRow {
    PerformanceRow {
        id: PerformanceId(Uuid::now_v7()),
        owner: user(),
        venue_id: venue,
        title: "A show".to_owned(),
        category: "concert".to_owned(),
        cast: vec!["Ann".to_owned()],
        description: String::new(),
        poster_url: None,
        currency: Currency::KRW,
        grades: vec![GradeRow {
            name: "R".to_owned(),
            price: Money(70_000),
            sections: vec!["F1".to_owned()],
            max_per_user: Some(2),
            opens_at: None,
            closes_at: None,
        }],
        opens_at: NOW,
        closes_at: Timestamp(NOW.0 + 1),
        limits: Limits::default(),
        queue: None,
        draft: true,
        created_at: NOW,
        deleted_at: None,
    }
}

fn date(performance: PerformanceId) -> TimetableRow {
    TimetableRow {
        id: TimetableId(Uuid::now_v7()),
        performance_id: performance,
        starts_at: NOW,
        doors_at: NOW,
        created_at: NOW,
        cancelled_at: None,
    }
}

/// A performance with one date.
async fn made(f: &Fixture) -> (PerformanceRow, TimetableRow) {
    let venue = venue();
    let (performance, date) = {
        let performance = performance(venue.id);
        let date = date(performance.id);
        (performance, date)
    };
    f.store.insert_venue(venue, None).await.unwrap();
    let insert = f
        .store
        .insert_performance(performance.clone(), vec![date], None);
    assert!(matches!(insert.await.unwrap(), Insertion::Inserted(_)));
    (performance, date)
}

async fn the_catalogue_comes_back_as_it_was_written(f: &Fixture) {
    let (performance, date_) = made(f).await;
    let second = date(performance.id);
    f.store.insert_timetable(second, None).await.unwrap();
    f.store.cancel_timetable(second.id, NOW).await.unwrap();
    let rows = f.store.load_catalogue().await.unwrap();
    assert_eq!(rows.performances, [performance]);
    assert_eq!(rows.venues.len(), 1);
    assert_eq!(
        (rows.venues[0].name.as_str(), rows.venues[0].capacity),
        ("홀", 9)
    );
    assert_eq!(rows.venues[0].sections, venue().sections);
    let mut dates = [date_, second];
    dates[1].cancelled_at = Some(NOW);
    dates.sort_unstable_by_key(|date| date.id);
    assert_eq!(rows.timetables, dates);
    assert_eq!(rows.categories, ["concert"]);
}

async fn a_repeated_insertion_finds_the_first_row(f: &Fixture) {
    let key = |name: &str| {
        Some(IdemKey {
            user: UserId(Uuid::from_u128(7)),
            key: name.to_owned(),
        })
    };
    let (first, again) = (venue(), venue());
    f.store.insert_venue(first.clone(), key("v")).await.unwrap();
    match f.store.insert_venue(again.clone(), key("v")).await.unwrap() {
        Insertion::Existing(row) => assert_eq!(row.id, first.id),
        Insertion::Inserted(_) => panic!("made twice"),
    }
    // Without a key, and once a key is old, there is nothing to find.
    f.store.insert_venue(venue(), None).await.unwrap();
    let mut late = again;
    late.created_at = NOW.plus(KEY_LIFE);
    let inserted = f.store.insert_venue(late, key("v")).await.unwrap();
    assert!(matches!(inserted, Insertion::Inserted(_)));

    let (show, other) = (performance(first.id), performance(first.id));
    let insert = |row: &PerformanceRow| {
        let dates = vec![date(row.id)];
        f.store.insert_performance(row.clone(), dates, key("p"))
    };
    insert(&show).await.unwrap();
    assert!(matches!(insert(&other).await.unwrap(), Insertion::Existing(id) if id == show.id));
    let (one, two) = (date(show.id), date(show.id));
    f.store.insert_timetable(one, key("t")).await.unwrap();
    let second = f.store.insert_timetable(two, key("t")).await.unwrap();
    assert!(matches!(second, Insertion::Existing(row) if row == one));
    assert_eq!(f.store.load_catalogue().await.unwrap().timetables.len(), 2);
}

async fn nothing_changes_after_the_first_sale_that_may_not(f: &Fixture) {
    let (mut performance, date) = made(f).await;
    let update = |row: &PerformanceRow, before_first_sale| {
        f.store
            .update_performance(row.clone(), true, before_first_sale, NOW)
    };
    performance.draft = false;
    performance.category = "musical".to_owned();
    assert_eq!(update(&performance, true).await.unwrap(), Update::Done);
    assert!(!f.store.has_orders(performance.id).await.unwrap());
    let mut sale = f.contribution(date.id.into(), 0);
    let bought = Arc::new(order(date.id, user(), &[1, 2]));
    sale.timetable().unwrap().orders.push(bought);
    f.write(vec![sale]).await;
    assert!(f.store.has_orders(performance.id).await.unwrap());
    let sold = f.store.seats_sold_since(Timestamp(0)).await.unwrap();
    assert_eq!(sold, [(date.id, 2)]);
    performance.title = "Another".to_owned();
    assert_eq!(update(&performance, true).await.unwrap(), Update::HasOrders);
    let stored = f.store.load_catalogue().await.unwrap().performances;
    assert_eq!(
        (stored[0].title.as_str(), stored[0].category.as_str()),
        ("A show", "musical")
    );
    assert_eq!(update(&performance, false).await.unwrap(), Update::Done);
    assert_eq!(
        f.store.load_catalogue().await.unwrap().performances,
        [performance]
    );
}

async fn a_poster_is_kept_until_it_is_dropped(f: &Fixture) {
    let (mut performance, _) = made(f).await;
    assert!(f.store.load_poster(performance.id).await.unwrap().is_none());
    performance.poster_url = Some("/posters/2".to_owned());
    for version in ["1", "2"] {
        let poster = Poster {
            media_type: "image/png".to_owned(),
            version: version.to_owned(),
            bytes: Bytes::from(vec![0, 255, 7]),
        };
        let store = f.store.store_poster(performance.clone(), poster, NOW);
        store.await.unwrap();
    }
    let poster = f.store.load_poster(performance.id).await.unwrap().unwrap();
    assert_eq!(
        (poster.version.as_str(), &poster.bytes[..]),
        ("2", &[0, 255, 7][..])
    );
    let drop = f
        .store
        .update_performance(performance.clone(), false, false, NOW);
    drop.await.unwrap();
    assert!(f.store.load_poster(performance.id).await.unwrap().is_none());
}

async fn a_viewer_counts_once_a_day(f: &Fixture) {
    let show = PerformanceId(Uuid::now_v7());
    let view = |day, viewer| View {
        performance_id: show,
        day,
        viewer,
    };
    let views = |day, views| DayViews {
        performance_id: show,
        day,
        views,
    };
    let count = async |views: Vec<View>| f.store.count_views(views).await.unwrap();
    let new = count(vec![view(10, 1), view(10, u64::MAX), view(10, 1)]).await;
    assert_eq!(new, [views(10, 2)]);
    assert_eq!(count(vec![view(10, 1), view(10, 2)]).await, [views(10, 1)]);
    assert_eq!(count(vec![view(10, 1)]).await, []);
    let mut viewers = f.store.viewers_of_day(10, 9).await.unwrap();
    viewers.sort_unstable_by_key(|view| view.viewer);
    assert_eq!(viewers, [view(10, 1), view(10, 2), view(10, u64::MAX)]);
    count(vec![view(12, 1)]).await;
    assert!(f.store.viewers_of_day(10, 9).await.unwrap().is_empty());
    let mut days = f.store.views_by_day(12).await.unwrap();
    days.sort_unstable_by_key(|views| views.day);
    assert_eq!(days, [views(11, 3), views(12, 1)]);
}

async fn categories_are_renamed_and_forgotten(f: &Fixture) {
    made(f).await;
    let rename = f
        .store
        .rename_category("concert".to_owned(), "gig".to_owned(), NOW);
    rename.await.unwrap();
    let rows = f.store.load_catalogue().await.unwrap();
    assert_eq!(
        (rows.categories, rows.performances[0].category.as_str()),
        (vec!["gig".to_owned()], "gig")
    );
    f.store.delete_category("gig".to_owned()).await.unwrap();
    assert!(
        f.store
            .load_catalogue()
            .await
            .unwrap()
            .categories
            .is_empty()
    );
}
