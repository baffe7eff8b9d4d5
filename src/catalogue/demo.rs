//! Something to begin with: an arena, a theatre and three performances on sale,
//! as the requests of an admin.

use super::request::{
    GradeRequest, GridRequest, LimitsRequest, PerformanceRequest, RowRequest, SectionRequest,
    TimetableRequest, VenueRequest,
};
use crate::domain::ids::VenueId;
use crate::domain::money::{Currency, Money};
use crate::domain::queue::policy::{PolicyRequest, Preset};
use crate::domain::time::{Millis, Timestamp};

const HOUR: Millis = Millis::from_secs(3_600);
const DAY: Millis = Millis::from_secs(86_400);

/// The two venues of the demo.
#[derive(Clone, Debug)]
pub struct Venues {
    /// 20,000 seats around a stage, with a standing pit.
    pub arena: VenueRequest,
    /// 420 seats.
    pub theatre: VenueRequest,
}

/// The venues.
#[must_use]
pub fn venues() -> Venues {
    Venues {
        arena: arena(),
        theatre: theatre(),
    }
}

/// Three performances of three categories, on sale at `now`.
#[must_use]
pub fn performances(arena: VenueId, theatre: VenueId, now: Timestamp) -> Vec<PerformanceRequest> {
    vec![
        concert(arena, now),
        musical(theatre, now),
        play(theatre, now),
    ]
}

/// The stage is at the origin; blocks stand on the floor in front of it, then a
/// lower and an upper ring in five blocks each.
fn arena() -> VenueRequest {
    let mut sections = vec![SectionRequest {
        name: "PIT".into(),
        general_admission: Some(1_000),
        x: Some(-20.0),
        y: Some(4.0),
        ..SectionRequest::default()
    }];
    for (at, name) in ["F1", "F2", "F3", "F4"].into_iter().enumerate() {
        // 4 × 25 × 20 = 2,000 seats
        sections.push(grid(name, 25, 20, -46.0 + 24.0 * at as f32, 14.0));
    }
    for (at, name) in ["L1", "L2", "L3", "L4", "L5"].into_iter().enumerate() {
        // 5 × 30 × 40 = 6,000 seats
        sections.push(grid(name, 30, 40, -114.0 + 46.0 * at as f32, 44.0));
    }
    for (at, name) in ["U1", "U2", "U3", "U4", "U5"].into_iter().enumerate() {
        sections.push(SectionRequest {
            name: name.into(),
            rows: Some(fan(44, 40, 60)),
            x: Some(-150.0 + 62.0 * at as f32),
            y: Some(80.0),
            ..SectionRequest::default()
        });
    }
    // What is missing to 20,000 is for wheelchairs, along the floor.
    let missing = 20_000 - sections.iter().map(seats_of).sum::<u32>();
    sections.push(SectionRequest {
        accessible: Some(true),
        ..grid("W", 1, missing, -(missing as f32) / 2.0, 41.0)
    });
    VenueRequest {
        name: "Han River Arena".into(),
        time_zone: Some("Asia/Seoul".into()),
        sections,
    }
}

fn theatre() -> VenueRequest {
    VenueRequest {
        name: "Lantern Theatre".into(),
        time_zone: Some("Asia/Seoul".into()),
        sections: vec![
            SectionRequest {
                name: "STALLS".into(),
                rows: Some(fan(14, 16, 24)),
                x: Some(-12.0),
                y: Some(3.0),
                ..SectionRequest::default()
            },
            grid("BALCONY", 6, 24, -12.0, 20.0),
        ],
    }
}

fn grid(name: &str, rows: u32, seats_per_row: u32, x: f32, y: f32) -> SectionRequest {
    SectionRequest {
        name: name.into(),
        grid: Some(GridRequest {
            rows,
            seats_per_row,
        }),
        x: Some(x),
        y: Some(y),
        ..SectionRequest::default()
    }
}

/// Rows that get longer towards the back.
fn fan(rows: u32, first: u32, last: u32) -> Vec<RowRequest> {
    (0..rows)
        .map(|row| RowRequest {
            name: (row + 1).to_string(),
            seats: first + (last - first) * row / (rows - 1).max(1),
            x: None,
            y: None,
            accessible: None,
        })
        .collect()
}

fn seats_of(section: &SectionRequest) -> u32 {
    let rows = section
        .rows
        .iter()
        .flatten()
        .map(|row| row.seats)
        .sum::<u32>();
    let grid = section
        .grid
        .map_or(0, |grid| grid.rows * grid.seats_per_row);
    rows + grid + section.general_admission.unwrap_or(0)
}

fn grade(name: &str, price: i64, sections: &[&str]) -> GradeRequest {
    GradeRequest {
        name: name.into(),
        price: Money(price),
        sections: sections.iter().map(|&section| section.to_owned()).collect(),
        max_per_user: None,
        opens_at: None,
        closes_at: None,
    }
}

fn date(starts_at: Timestamp) -> TimetableRequest {
    TimetableRequest {
        starts_at,
        doors_at: Some(starts_at.plus(Millis(-HOUR.0))),
    }
}

/// The evening so many days after `now`, at 20:00 in Seoul (11:00 UTC).
fn evening(now: Timestamp, days: i64) -> Timestamp {
    Timestamp((now.0.div_euclid(DAY.0) + days) * DAY.0 + 11 * HOUR.0)
}

fn performance(
    venue_id: VenueId,
    title: &str,
    category: &str,
    now: Timestamp,
) -> PerformanceRequest {
    PerformanceRequest {
        title: title.into(),
        category: category.into(),
        cast: Vec::new(),
        description: String::new(),
        poster_url: None,
        venue_id,
        currency: Currency::KRW,
        grades: Vec::new(),
        opens_at: now.plus(Millis(-HOUR.0)),
        closes_at: evening(now, 30),
        limits: LimitsRequest::default(),
        queue: None,
        timetables: Vec::new(),
        draft: false,
    }
}

fn concert(arena: VenueId, now: Timestamp) -> PerformanceRequest {
    PerformanceRequest {
        cast: vec!["Aurora Lane".into(), "The Night Buses".into()],
        description: "Two nights, one stage in the round, twenty thousand voices.".into(),
        grades: vec![
            grade("VIP", 198_000, &["PIT", "F2", "F3"]),
            grade("R", 165_000, &["F1", "F4", "L3"]),
            grade("S", 132_000, &["L1", "L2", "L4", "L5", "W"]),
            grade("A", 99_000, &["U1", "U2", "U3", "U4", "U5"]),
        ],
        timetables: vec![date(evening(now, 30)), date(evening(now, 31))],
        closes_at: evening(now, 31),
        ..performance(arena, "Aurora Lane: Northern Lights Tour", "concert", now)
    }
}

fn musical(theatre: VenueId, now: Timestamp) -> PerformanceRequest {
    PerformanceRequest {
        cast: vec!["Kim Haneul".into(), "Park Seojin".into(), "Lee Dami".into()],
        description: "A lighthouse keeper, a letter, and a city that forgot the sea.".into(),
        grades: vec![
            grade("R", 90_000, &["STALLS"]),
            grade("S", 60_000, &["BALCONY"]),
        ],
        timetables: (10..15).map(|days| date(evening(now, days))).collect(),
        closes_at: evening(now, 14),
        ..performance(theatre, "The Lighthouse Letters", "musical", now)
    }
}

fn play(theatre: VenueId, now: Timestamp) -> PerformanceRequest {
    PerformanceRequest {
        cast: vec!["Choi Yuna".into(), "Daniel Brandt".into()],
        description: "Ninety minutes in a waiting room where nobody is called.".into(),
        grades: vec![
            grade("R", 50_000, &["STALLS"]),
            grade("S", 35_000, &["BALCONY"]),
        ],
        timetables: vec![date(evening(now, 20)), date(evening(now, 21))],
        closes_at: evening(now, 21),
        // The one to try a waiting room with.
        queue: Some(PolicyRequest {
            preset: Some(Preset::Active200),
            ..PolicyRequest::default()
        }),
        ..performance(theatre, "Number Forty-Two", "play", now)
    }
}
