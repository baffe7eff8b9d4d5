//! What a timetable sells, at which prices, when, and to whom how much: the
//! part of the catalogue that its state machine decides by.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::ids::{PerformanceId, TimetableId};
use super::layout::{Layout, SectionIndex};
use super::money::{Currency, Money};
use super::seat::SeatIndex;
use super::time::{Millis, Timestamp};

/// The place of a grade in [`Plan::grades`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GradeIndex(pub u8);

/// At most so many grades a performance.
pub const GRADES_MAX: usize = 64;

/// A price class: all seats of some sections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grade {
    /// E.g. `VIP`.
    pub name: String,
    /// Of one seat.
    pub price: Money,
    /// How many seats of it one user may hold and own on one timetable.
    pub max_per_user: Option<u32>,
    /// When its sale opens, if not with the performance.
    pub opens_at: Option<Timestamp>,
    /// When its sale closes, if not with the performance.
    pub closes_at: Option<Timestamp>,
}

/// The limits of a performance, with the defaults and ranges of the HTTP
/// contract.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Held and owned by one user on one timetable: 1 to 100,000.
    pub max_seats_per_user: u32,
    /// How long a hold lives: 1 s to 86,400 s.
    pub hold_ttl_seconds: u32,
    /// How long a hold lives at most, with all that prolongs it.
    pub hold_max_seconds: u32,
    /// How long a card payment may take.
    pub payment_ttl_seconds: u32,
    /// Until how long before the start an order may be cancelled.
    pub cancel_until_hours_before: u32,
    /// How long a waitlist offer stands.
    pub offer_ttl_seconds: u32,
    /// Seats that come back by expiry or cancel stay held for a random part
    /// of this.
    pub release_jitter_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_seats_per_user: 4,
            hold_ttl_seconds: 300,
            hold_max_seconds: 900,
            payment_ttl_seconds: 600,
            cancel_until_hours_before: 24,
            offer_ttl_seconds: 180,
            release_jitter_seconds: 0,
        }
    }
}

impl Limits {
    /// How long a hold lives.
    #[must_use]
    pub fn hold_ttl(&self) -> Millis {
        Millis::from_secs(self.hold_ttl_seconds)
    }
}

/// The rules of one timetable.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whose rules these are.
    pub timetable_id: TimetableId,
    /// The performance it is a date of.
    pub performance_id: PerformanceId,
    /// The seats.
    pub layout: Arc<Layout>,
    /// The price classes, at most [`GRADES_MAX`].
    pub grades: Vec<Grade>,
    /// The grade of each section, by [`SectionIndex`]; as many as the layout
    /// has sections.
    pub grade_of_section: Vec<GradeIndex>,
    /// Of all prices.
    pub currency: Currency,
    /// When the sale opens.
    pub opens_at: Timestamp,
    /// When the sale closes; an existing hold may still be ordered.
    pub closes_at: Timestamp,
    /// When the show begins.
    pub starts_at: Timestamp,
    /// See [`Limits`].
    pub limits: Limits,
    /// The performance was deleted or is a draft: nothing may be held.
    pub withdrawn: bool,
}

impl Plan {
    /// Until when a buyer may cancel.
    #[must_use]
    pub fn cancellable_until(&self) -> Timestamp {
        let hours = i64::from(self.limits.cancel_until_hours_before);
        self.starts_at.plus(Millis(-hours * 3_600_000))
    }

    /// The grade of a seat; `None` if there is no such seat.
    #[must_use]
    pub fn grade_index(&self, seat: SeatIndex) -> Option<GradeIndex> {
        let SectionIndex(section) = self.layout.section_of(seat)?;
        self.grade_of_section.get(usize::from(section)).copied()
    }

    /// A grade by its place.
    #[must_use]
    pub fn grade(&self, index: GradeIndex) -> Option<&Grade> {
        self.grades.get(usize::from(index.0))
    }

    /// The name of the grade of a seat; empty if there is no such seat.
    #[must_use]
    pub fn grade_name(&self, seat: SeatIndex) -> &str {
        self.grade_index(seat)
            .and_then(|index| self.grade(index))
            .map_or("", |g| &g.name)
    }

    /// The price of a seat; zero if there is no such seat.
    #[must_use]
    pub fn price(&self, seat: SeatIndex) -> Money {
        self.grade_index(seat)
            .and_then(|index| self.grade(index))
            .map_or(Money::ZERO, |g| g.price)
    }

    /// The sections of the named grade.
    #[must_use]
    pub fn sections_of_grade(&self, name: &str) -> SmallVec<[SectionIndex; 16]> {
        let is_it = |index: GradeIndex| self.grade(index).is_some_and(|grade| grade.name == name);
        (0u16..)
            .zip(&self.grade_of_section)
            .filter(|(_, grade)| is_it(**grade))
            .map(|(section, _)| SectionIndex(section))
            .collect()
    }
}
