//! The catalogue over a store of its own.

mod list;
mod rules;
mod writes;

use std::sync::Arc;

use tempfile::TempDir;
use uuid::Uuid;

use super::request::{
    GradeRequest, GridRequest, LimitsRequest, PerformanceRequest, SectionRequest, TimetableRequest,
    VenueRequest,
};
use super::{Caller, Catalogue, Performance};
use crate::config;
use crate::domain::ids::{TimetableId, UserId, VenueId};
use crate::domain::money::{Currency, Money};
use crate::domain::time::{Millis, Timestamp};
use crate::domain::timetable::SeatCounts;
use crate::persistence::Store;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const KEY: [u8; 16] = [7; 16];

fn hours(hours: i64) -> Timestamp {
    NOW.plus(Millis(hours * 3_600_000))
}

/// All seats are free.
fn free(_: TimetableId) -> SeatCounts {
    SeatCounts {
        available: 10,
        ..SeatCounts::default()
    }
}

struct World {
    _folder: TempDir,
    url: String,
    store: Store,
    catalogue: Arc<Catalogue>,
    owner: Caller,
    venue: VenueId,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("onsale.db").display());
        let store = Store::open(&config::Store::at(&url)).await.unwrap();
        let catalogue = Arc::new(Catalogue::load(&store, KEY, NOW).await.unwrap());
        let owner = Caller {
            user: UserId(Uuid::now_v7()),
            is_admin: false,
        };
        let made = catalogue
            .create_venue(owner, &venue(), None, NOW)
            .await
            .unwrap();
        Self {
            _folder: folder,
            url,
            store,
            catalogue,
            owner,
            venue: made.value.id,
        }
    }

    /// As another process would find it.
    async fn reopened(&self) -> Arc<Catalogue> {
        let store = Store::open(&config::Store::at(&self.url)).await.unwrap();
        Arc::new(Catalogue::load(&store, KEY, NOW).await.unwrap())
    }

    async fn make(&self, change: impl FnOnce(&mut PerformanceRequest)) -> Arc<Performance> {
        let mut request = performance(self.venue);
        change(&mut request);
        let made = self
            .catalogue
            .create_performance(self.owner, request, None, NOW)
            .await;
        made.unwrap().value
    }
}

fn section(name: &str) -> SectionRequest {
    SectionRequest {
        name: name.into(),
        ..SectionRequest::default()
    }
}

/// 2 × 3 seats and 4 units.
fn venue() -> VenueRequest {
    VenueRequest {
        name: "Straße Hall".into(),
        time_zone: None,
        sections: vec![
            SectionRequest {
                grid: Some(GridRequest {
                    rows: 2,
                    seats_per_row: 3,
                }),
                ..section("F1")
            },
            SectionRequest {
                general_admission: Some(4),
                ..section("PIT")
            },
        ],
    }
}

fn grade(name: &str, price: i64, sections: &[&str]) -> GradeRequest {
    GradeRequest {
        name: name.into(),
        price: Money(price),
        sections: sections.iter().map(|&name| name.to_owned()).collect(),
        max_per_user: None,
        opens_at: None,
        closes_at: None,
    }
}

fn performance(venue_id: VenueId) -> PerformanceRequest {
    PerformanceRequest {
        title: "Ελένης Night".into(),
        category: "concert".into(),
        cast: vec!["Kim Haneul".into()],
        description: "…".into(),
        poster_url: None,
        venue_id,
        currency: Currency::KRW,
        grades: vec![grade("VI\"P", 100, &["F1"]), grade("R", 50, &["PIT"])],
        opens_at: hours(-1),
        closes_at: hours(100),
        limits: LimitsRequest::default(),
        queue: None,
        timetables: vec![TimetableRequest {
            starts_at: hours(101),
            doors_at: None,
        }],
        draft: false,
    }
}
