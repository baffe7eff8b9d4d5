//! The catalogue as it is stored.

use serde::{Deserialize, Serialize};

use crate::domain::ids::{PerformanceId, TimetableId, UserId, VenueId};
use crate::domain::layout::SectionSpec;
use crate::domain::money::{Currency, Money};
use crate::domain::plan::Limits;
use crate::domain::queue::policy::QueuePolicy;
use crate::domain::time::Timestamp;

/// The `Idempotency-Key` that a row was made under: the barrier behind the
/// stored answers, in the same commit as the row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdemKey {
    /// Whose key.
    pub user: UserId,
    /// The key.
    pub key: String,
}

/// How an insert went.
#[derive(Clone, Debug)]
pub enum Insertion<T> {
    /// The row was made.
    Inserted(T),
    /// A row had been made under this idempotency key before: that one.
    Existing(T),
}

/// A venue.
#[derive(Clone, Debug)]
pub struct VenueRow {
    /// Which one.
    pub id: VenueId,
    /// Who made it.
    pub owner: UserId,
    /// As shown.
    pub name: String,
    /// An IANA name.
    pub time_zone: String,
    /// What its layout is built from.
    pub sections: Vec<SectionSpec>,
    /// How many seats and units it has.
    pub capacity: u32,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A price class, with the sections it is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GradeRow {
    /// Unique in its performance.
    pub name: String,
    /// Of one seat.
    pub price: Money,
    /// The names of its sections.
    pub sections: Vec<String>,
    /// How many seats of it one user may have on one timetable.
    #[serde(default)]
    pub max_per_user: Option<u32>,
    /// When its sale opens, if not with the performance.
    #[serde(default)]
    pub opens_at: Option<Timestamp>,
    /// When its sale closes, if not with the performance.
    #[serde(default)]
    pub closes_at: Option<Timestamp>,
}

/// A performance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PerformanceRow {
    /// Which one.
    pub id: PerformanceId,
    /// Who made it.
    pub owner: UserId,
    /// Where it is.
    pub venue_id: VenueId,
    /// As shown.
    pub title: String,
    /// A slug.
    pub category: String,
    /// Who performs.
    pub cast: Vec<String>,
    /// As shown.
    pub description: String,
    /// Where its poster is.
    pub poster_url: Option<String>,
    /// Of all prices.
    pub currency: Currency,
    /// The price classes.
    pub grades: Vec<GradeRow>,
    /// When the sale opens.
    pub opens_at: Timestamp,
    /// When the sale closes.
    pub closes_at: Timestamp,
    /// See [`Limits`].
    pub limits: Limits,
    /// The waiting room's policy, if it has one.
    pub queue: Option<QueuePolicy>,
    /// Not shown and not sold yet.
    pub draft: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was deleted, if it was.
    pub deleted_at: Option<Timestamp>,
}

/// One date of a performance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimetableRow {
    /// Which one.
    pub id: TimetableId,
    /// Of which performance.
    pub performance_id: PerformanceId,
    /// When it starts.
    pub starts_at: Timestamp,
    /// When the doors open.
    pub doors_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was called off, if it was.
    pub cancelled_at: Option<Timestamp>,
}

/// How often a performance was viewed on a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DayViews {
    /// Which performance.
    pub performance_id: PerformanceId,
    /// Days since 1970-01-01 UTC.
    pub day: i64,
    /// How many viewers.
    pub views: u64,
}

/// One viewer of a performance on a day.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct View {
    /// What was viewed.
    pub performance_id: PerformanceId,
    /// Days since 1970-01-01 UTC.
    pub day: i64,
    /// Who, as a keyed hash.
    pub viewer: u64,
}

/// The whole catalogue.
#[derive(Clone, Debug, Default)]
pub struct CatalogueRows {
    /// `Store::catalogue_version` at that moment.
    pub version: i64,
    /// All venues.
    pub venues: Vec<VenueRow>,
    /// All performances, deleted ones and drafts too.
    pub performances: Vec<PerformanceRow>,
    /// All their dates.
    pub timetables: Vec<TimetableRow>,
    /// All categories that were ever used and not deleted.
    pub categories: Vec<String>,
}

/// A stored poster.
#[derive(Clone, Debug)]
pub struct Poster {
    /// `image/png`, `image/jpeg` or `image/webp`.
    pub media_type: String,
    /// Changes with the picture.
    pub version: String,
    /// The picture.
    pub bytes: bytes::Bytes,
}
