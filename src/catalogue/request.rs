//! What admins send, as in the HTTP contract; not yet checked.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::rows::GradeRow;
use crate::domain::ids::VenueId;
use crate::domain::money::{Currency, Money};
use crate::domain::queue::policy::PolicyRequest;
use crate::domain::time::Timestamp;

/// A venue to be made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VenueRequest {
    /// 1 to 200 characters.
    pub name: String,
    /// An IANA name; `Asia/Seoul` if it is not given.
    #[schema(example = "Asia/Seoul")]
    pub time_zone: Option<String>,
    /// Its sections, in the order in which seats are counted.
    pub sections: Vec<SectionRequest>,
}

/// A section: exactly one of `rows`, `grid` and `general_admission`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SectionRequest {
    /// 1 to 32 letters or digits, unique in the venue.
    #[schema(required, example = "F1")]
    pub name: String,
    /// Rows with names of their own, the front row first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<RowRequest>>,
    /// Equal rows named A…Z, AA….
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<GridRequest>,
    /// Room for so many people without numbered seats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub general_admission: Option<u32>,
    /// Where it begins, in seat widths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<f32>,
    /// Where it begins, in seat widths from the stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y: Option<f32>,
    /// Whether all of it can be used with a wheelchair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accessible: Option<bool>,
}

/// A row of seats numbered from 1.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RowRequest {
    /// 1 to 32 letters or digits, unique in the section.
    #[schema(example = "A")]
    pub name: String,
    /// How many.
    pub seats: u32,
    /// Where its first seat is; centred in its section if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<f32>,
    /// Where it is; behind the row before if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<f32>,
    /// Whether its seats are for wheelchair users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accessible: Option<bool>,
}

/// Equal rows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GridRequest {
    /// How many rows.
    pub rows: u32,
    /// How many seats each has.
    pub seats_per_row: u32,
}

/// A performance to be made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PerformanceRequest {
    /// 1 to 200 characters.
    pub title: String,
    /// A slug of 1 to 40 `a–z`, `0–9` and `-`, made on first use.
    #[schema(pattern = "^[a-z0-9-]{1,40}$")]
    pub category: String,
    /// Up to 100 names.
    #[serde(default)]
    pub cast: Vec<String>,
    /// Up to 10,000 characters.
    #[serde(default)]
    pub description: String,
    /// An `https` or `http` address, or a path of this server.
    #[serde(default)]
    pub poster_url: Option<String>,
    /// Where it is.
    pub venue_id: VenueId,
    /// Of all prices; KRW if it is not given.
    #[serde(default)]
    #[schema(required = false)]
    pub currency: Currency,
    /// The price classes; each section of the venue is in exactly one.
    pub grades: Vec<GradeRequest>,
    /// When the sale opens; at once if that is past.
    pub opens_at: Timestamp,
    /// When the sale closes.
    pub closes_at: Timestamp,
    /// See there.
    #[serde(default)]
    pub limits: LimitsRequest,
    /// The waiting room's policy; none by default.
    #[serde(default)]
    pub queue: Option<PolicyRequest>,
    /// Up to 366 dates.
    #[serde(default)]
    pub timetables: Vec<TimetableRequest>,
    /// Not shown and not sold until it is patched to false.
    #[serde(default)]
    pub draft: bool,
}

/// A price class.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GradeRequest {
    /// 1 to 64 characters, unique in the performance.
    #[schema(example = "VIP")]
    pub name: String,
    /// Of one seat, in minor units: 0 to 10^12.
    pub price: Money,
    /// The names of its sections.
    pub sections: Vec<String>,
    /// How many seats of it one user may have on one date.
    #[serde(default)]
    pub max_per_user: Option<u32>,
    /// When its sale opens, if not with the performance.
    #[serde(default)]
    pub opens_at: Option<Timestamp>,
    /// When its sale closes, if not with the performance.
    #[serde(default)]
    pub closes_at: Option<Timestamp>,
}

impl GradeRequest {
    pub(super) fn into_row(self) -> GradeRow {
        GradeRow {
            name: self.name,
            price: self.price,
            sections: self.sections,
            max_per_user: self.max_per_user,
            opens_at: self.opens_at,
            closes_at: self.closes_at,
        }
    }
}

/// A date.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TimetableRequest {
    /// When it starts.
    pub starts_at: Timestamp,
    /// When the doors open; with the start if it is not given.
    #[serde(default)]
    pub doors_at: Option<Timestamp>,
}

/// Limits; those that are not given have their defaults, or in a PATCH stay.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsRequest {
    /// Held and owned by one user on one date: 1 to 100,000; 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_seats_per_user: Option<u32>,
    /// How long a hold lives: 1 to 86,400; 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_ttl_seconds: Option<u32>,
    /// How long a hold lives at most: up to 86,400; 900.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_max_seconds: Option<u32>,
    /// How long a card payment may take: up to 86,400; 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_ttl_seconds: Option<u32>,
    /// Until how long before the start an order may be cancelled; 24.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_until_hours_before: Option<u32>,
    /// How long a waitlist offer stands: up to 86,400; 180.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer_ttl_seconds: Option<u32>,
    /// Seats that come back stay held for a random part of it: up to 86,400; 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_jitter_seconds: Option<u32>,
}

/// Changes of a performance: what is not given stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct PerformancePatch {
    pub title: Option<String>,
    pub category: Option<String>,
    pub cast: Option<Vec<String>>,
    pub description: Option<String>,
    /// Null removes the poster.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub poster_url: Option<Option<String>>,
    /// A performance stays at its venue: only the one it has is taken.
    pub venue_id: Option<VenueId>,
    /// Until the sale opens.
    pub currency: Option<Currency>,
    /// Grades that are not listed stay, with those of their sections that no
    /// listed one takes; members of a listed one that are not given stay too.
    pub grades: Option<Vec<GradePatch>>,
    pub opens_at: Option<Timestamp>,
    pub closes_at: Option<Timestamp>,
    pub limits: Option<LimitsRequest>,
    /// Null removes the waiting room.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<PolicyRequest>)]
    pub queue: Option<Option<PolicyRequest>>,
    pub draft: Option<bool>,
}

/// Changes of a grade, or a new one.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GradePatch {
    /// Which one.
    pub name: String,
    /// See [`GradeRequest`]; as all that follow.
    #[serde(default)]
    pub price: Option<Money>,
    #[serde(default)]
    #[allow(missing_docs)]
    pub sections: Option<Vec<String>>,
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<u32>)]
    #[allow(missing_docs)]
    pub max_per_user: Option<Option<u32>>,
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<Timestamp>)]
    #[allow(missing_docs)]
    pub opens_at: Option<Option<Timestamp>>,
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<Timestamp>)]
    #[allow(missing_docs)]
    pub closes_at: Option<Option<Timestamp>>,
}

/// Reads a member that may be `null`; called only where it is there.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}
