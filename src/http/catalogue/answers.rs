//! What the catalogue's calls answer.

use serde::Serialize;
use utoipa::ToSchema;

use crate::catalogue::{Performance, SaleStatus, SeatsOf, Timetable};
use crate::domain::ids::{PerformanceId, TimetableId, VenueId};
use crate::domain::money::{Currency, Money};
use crate::domain::plan::Limits;
use crate::domain::queue::draw::Digest;
use crate::domain::queue::policy::{Admit, Opening, QueuePolicy};
use crate::domain::time::Timestamp;

/// A performance in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct PerformanceSummary {
    performance_id: PerformanceId,
    title: String,
    cast: Vec<String>,
    category: String,
    /// The truth of the seats at this moment.
    status: SaleStatus,
    venue_name: String,
    /// When the sale opens.
    opens_at: Timestamp,
    /// When the sale closes.
    closes_at: Timestamp,
    #[schema(required = true)]
    first_starts_at: Option<Timestamp>,
    #[schema(required = true)]
    last_starts_at: Option<Timestamp>,
    /// The price of the cheapest grade.
    #[schema(required = true)]
    price_from: Option<Money>,
    currency: Currency,
    /// Users and addresses, each once a day.
    view_count: u64,
    #[schema(required = true)]
    poster_url: Option<String>,
}

impl PerformanceSummary {
    pub(in crate::http) fn new(performance: &Performance, status: SaleStatus) -> Self {
        let row = &performance.row;
        Self {
            performance_id: row.id,
            title: row.title.clone(),
            cast: row.cast.clone(),
            category: row.category.clone(),
            status,
            venue_name: performance.venue.name.clone(),
            opens_at: row.opens_at,
            closes_at: row.closes_at,
            first_starts_at: performance.first_starts_at(),
            last_starts_at: performance.last_starts_at(),
            price_from: performance.price_from(),
            currency: row.currency,
            view_count: performance.views.total(),
            poster_url: row.poster_url.clone(),
        }
    }
}

/// A performance.
#[derive(Debug, Serialize, ToSchema)]
pub struct PerformanceDetail {
    #[serde(flatten)]
    summary: PerformanceSummary,
    venue_id: VenueId,
    /// For display, and for reports by hour.
    time_zone: String,
    description: String,
    grades: Vec<GradeAnswer>,
    limits: Limits,
    /// The public part of the waiting room's policy; null without one.
    #[schema(required = true)]
    queue: Option<QueueAnswer>,
    timetables: Vec<TimetableAnswer>,
}

impl PerformanceDetail {
    pub(in crate::http) fn new(
        performance: &Performance,
        now: Timestamp,
        seats: SeatsOf<'_>,
    ) -> Self {
        let timetables = performance.timetables.iter();
        Self {
            summary: PerformanceSummary::new(performance, performance.status(now, seats)),
            venue_id: performance.venue.id,
            time_zone: performance.venue.time_zone.clone(),
            description: performance.row.description.clone(),
            grades: performance
                .row
                .grades
                .iter()
                .map(GradeAnswer::from)
                .collect(),
            limits: performance.row.limits.clone(),
            queue: performance.row.queue.as_ref().map(QueueAnswer::from),
            timetables: timetables.map(|t| TimetableAnswer::new(t, seats)).collect(),
        }
    }

    /// With the hash of the seed of its lottery, if it has one.
    #[must_use]
    pub(in crate::http) fn with_commitment(mut self, commitment: Option<Digest>) -> Self {
        if let Some(queue) = &mut self.queue {
            queue.commitment = commitment.map(|commitment| commitment.to_string());
        }
        self
    }
}

/// A price class.
#[derive(Debug, Serialize, ToSchema)]
pub struct GradeAnswer {
    name: String,
    price: Money,
    sections: Vec<String>,
    #[schema(required = true)]
    max_per_user: Option<u32>,
    /// When its sale opens, if not with the performance.
    #[schema(required = true)]
    opens_at: Option<Timestamp>,
    /// When its sale closes, if not with the performance.
    #[schema(required = true)]
    closes_at: Option<Timestamp>,
}

impl From<&crate::catalogue::rows::GradeRow> for GradeAnswer {
    fn from(row: &crate::catalogue::rows::GradeRow) -> Self {
        Self {
            name: row.name.clone(),
            price: row.price,
            sections: row.sections.clone(),
            max_per_user: row.max_per_user,
            opens_at: row.opens_at,
            closes_at: row.closes_at,
        }
    }
}

/// What everyone may know of a waiting room's policy.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueueAnswer {
    free_admission: u32,
    #[schema(required = true)]
    admit: Option<Admit>,
    #[schema(required = true)]
    max_active: Option<u32>,
    active_ttl_seconds: u32,
    opening: Opening,
    /// Of a lottery: the hash of its seed.
    #[schema(required = true)]
    commitment: Option<String>,
}

impl From<&QueuePolicy> for QueueAnswer {
    fn from(policy: &QueuePolicy) -> Self {
        Self {
            free_admission: policy.free_admission,
            admit: policy.admit,
            max_active: policy.max_active,
            active_ttl_seconds: policy.active_ttl_seconds,
            opening: policy.opening,
            commitment: None,
        }
    }
}

/// One date of a performance.
#[derive(Debug, Serialize, ToSchema)]
pub struct TimetableAnswer {
    timetable_id: TimetableId,
    starts_at: Timestamp,
    doors_at: Timestamp,
    capacity: u32,
    /// Seats that anyone may take at this moment.
    available: u32,
}

impl TimetableAnswer {
    pub(in crate::http) fn new(timetable: &Timetable, seats: SeatsOf<'_>) -> Self {
        Self {
            timetable_id: timetable.row.id,
            starts_at: timetable.row.starts_at,
            doors_at: timetable.row.doors_at,
            capacity: timetable.plan.layout.capacity(),
            available: seats(timetable.row.id).available,
        }
    }
}

/// One date, with the performance that it is of.
#[derive(Debug, Serialize, ToSchema)]
pub struct TimetableDetail {
    #[serde(flatten)]
    timetable: TimetableAnswer,
    performance_id: PerformanceId,
    status: SaleStatus,
}

impl TimetableDetail {
    pub(in crate::http) fn new(
        performance: &Performance,
        timetable: &Timetable,
        now: Timestamp,
        seats: SeatsOf<'_>,
    ) -> Self {
        Self {
            timetable: TimetableAnswer::new(timetable, seats),
            performance_id: performance.id(),
            status: performance.status_of(timetable, now, seats),
        }
    }
}

/// A category.
#[derive(Debug, Serialize, ToSchema)]
pub struct CategoryAnswer {
    #[schema(example = "concert")]
    pub(in crate::http) category: String,
    /// How many public performances are filed under it.
    pub(in crate::http) performances: u32,
}

/// A performance in a ranking.
#[derive(Debug, Serialize, ToSchema)]
pub struct RankedAnswer {
    /// From 1.
    pub(super) rank: u32,
    pub(super) performance_id: PerformanceId,
    pub(super) title: String,
    /// Viewers, each once a day.
    pub(super) views: u64,
    /// Seats sold.
    pub(super) sales: u64,
}

/// The layout of a date with its prices. It only describes what is written.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(super) struct LayoutDocument {
    timetable_id: TimetableId,
    sections: Vec<SectionDocument>,
    #[schema(example = "row-major")]
    seat_order: String,
}

#[derive(ToSchema)]
#[allow(dead_code)]
struct SectionDocument {
    name: String,
    general_admission: bool,
    /// Empty for general admission.
    rows: Vec<RowDocument>,
    /// With general admission: how many.
    units: Option<u32>,
    /// With general admission; seats have their own.
    grade: Option<String>,
    /// With general admission; seats have their own.
    price: Option<Money>,
    /// With general admission: where it begins, in seat widths.
    x: Option<f32>,
    /// With general admission: where it begins, in seat widths from the stage.
    y: Option<f32>,
    /// With general admission; seats have their own.
    accessible: Option<bool>,
}

#[derive(ToSchema)]
#[allow(dead_code)]
struct RowDocument {
    name: String,
    seats: Vec<SeatDocument>,
}

#[derive(ToSchema)]
#[allow(dead_code)]
struct SeatDocument {
    #[schema(example = "F1-A-12")]
    seat_id: String,
    number: u32,
    grade: String,
    price: Money,
    /// In seat widths.
    x: f32,
    /// In seat widths from the stage.
    y: f32,
    accessible: bool,
}
