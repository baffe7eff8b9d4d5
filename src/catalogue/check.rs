//! Whether what admins ask for keeps the rules and ranges of the HTTP contract.
//! All that is wrong is told at once, each by the path of its field.

use std::collections::HashSet;

use super::request::{LimitsRequest, SectionRequest, TimetableRequest, VenueRequest};
use super::rows::{GradeRow, PerformanceRow};
use crate::domain::layout::{Layout, RowSpec, SectionShape, SectionSpec};
use crate::domain::money::Money;
use crate::domain::plan::{GRADES_MAX, Limits};
use crate::domain::queue::policy::{PolicyRequest, QueuePolicy};
use crate::domain::time::Timestamp;

/// The longest title of a performance and name of a venue, in characters.
pub const TITLE_CHARS_MAX: usize = 200;
/// The longest description, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 10_000;
/// The most names in a cast.
pub const CAST_MAX: usize = 100;
/// The longest name in a cast, in characters.
pub const CAST_NAME_CHARS_MAX: usize = 100;
/// The longest category, in characters (the HTTP contract).
pub const CATEGORY_CHARS_MAX: usize = 40;
/// The longest name of a grade, in characters.
pub const GRADE_NAME_CHARS_MAX: usize = 64;
/// The longest address of a poster, in characters.
pub const URL_CHARS_MAX: usize = 2_048;
/// The most dates in one request.
pub const TIMETABLES_PER_REQUEST_MAX: usize = 366;
/// The most seats that a limit can allow one user (the HTTP contract).
pub const SEATS_PER_USER_MAX: u32 = 100_000;
/// The longest time in a limit, in seconds (the HTTP contract).
pub const LIMIT_SECONDS_MAX: u32 = 86_400;
/// The longest time before the start until which orders can be cancelled, in
/// hours: ten years.
pub const CANCEL_HOURS_MAX: u32 = 87_600;
/// The time zone of a venue that names none (the HTTP contract).
pub const TIME_ZONE_DEFAULT: &str = "Asia/Seoul";
/// So many wrong fields are told at most.
const ERRORS_MAX: usize = 50;

/// What is wrong with a request: the path of a field, and what it must be.
#[derive(Debug, Default)]
pub struct Errors(Vec<(String, String)>);

impl Errors {
    /// Notes that a field is wrong.
    pub fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        if self.0.len() < ERRORS_MAX {
            self.0.push((field.into(), message.into()));
        }
    }

    /// Notes it unless `holds`.
    fn unless(&mut self, holds: bool, field: impl Into<String>, message: impl Into<String>) {
        if !holds {
            self.add(field, message);
        }
    }

    /// `value`, if nothing is wrong.
    ///
    /// # Errors
    /// What is wrong.
    pub fn or<T>(self, value: T) -> Result<T, Vec<(String, String)>> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self.0)
        }
    }
}

/// The sections of a venue that is to be made, and its time zone.
///
/// # Errors
/// What is wrong.
pub fn venue(request: &VenueRequest) -> Result<VenueParts, Vec<(String, String)>> {
    let mut errors = Errors::default();
    text(&mut errors, "name", &request.name, 1, TITLE_CHARS_MAX);
    let time_zone = request.time_zone.as_deref().unwrap_or(TIME_ZONE_DEFAULT);
    let time_zone = time_zone_named(time_zone);
    errors.unless(
        time_zone.is_some(),
        "time_zone",
        "must be the name of an IANA time zone, e.g. Asia/Seoul",
    );
    let mut sections = Vec::with_capacity(request.sections.len().min(1024));
    for (at, section) in request.sections.iter().enumerate() {
        match section_spec(section) {
            Ok(spec) => sections.push(spec),
            Err(message) => errors.add(format!("sections[{at}]"), message),
        }
    }
    // The paths would not be right if some were left out.
    let layout = (sections.len() == request.sections.len()).then(|| Layout::build(&sections));
    let capacity = match layout {
        Some(Ok(layout)) => layout.capacity(),
        Some(Err(problem)) => {
            errors.add(problem.field(), problem.to_string());
            0
        }
        None => 0,
    };
    let time_zone = time_zone.unwrap_or_default();
    errors.or(VenueParts {
        time_zone,
        sections,
        capacity,
    })
}

/// The checked parts of a venue.
#[derive(Clone, Debug)]
pub struct VenueParts {
    /// By its canonical name.
    pub time_zone: String,
    /// What its layout is built from.
    pub sections: Vec<SectionSpec>,
    /// How many seats it has.
    pub capacity: u32,
}

/// The name of a time zone as the database spells it. Two are known even where
/// the system has no database.
fn time_zone_named(name: &str) -> Option<String> {
    if [TIME_ZONE_DEFAULT, "UTC"].contains(&name) {
        return Some(name.to_owned());
    }
    let found = jiff::tz::TimeZone::get(name).ok()?;
    found.iana_name().map(str::to_owned)
}

fn section_spec(request: &SectionRequest) -> Result<SectionSpec, &'static str> {
    let shape = match (&request.rows, request.grid, request.general_admission) {
        (Some(rows), None, None) => SectionShape::Rows(
            rows.iter()
                .map(|row| RowSpec {
                    name: row.name.clone(),
                    seats: row.seats,
                    x: row.x,
                    y: row.y,
                    accessible: row.accessible.unwrap_or(false),
                })
                .collect(),
        ),
        (None, Some(grid), None) => SectionShape::Grid {
            rows: grid.rows,
            seats_per_row: grid.seats_per_row,
        },
        (None, None, Some(units)) => SectionShape::GeneralAdmission { units },
        _ => return Err("must have exactly one of rows, grid and general_admission"),
    };
    Ok(SectionSpec {
        name: request.name.clone(),
        shape,
        x: request.x.unwrap_or(0.0),
        y: request.y.unwrap_or(0.0),
        accessible: request.accessible.unwrap_or(false),
    })
}

/// Checks a performance as it is to be stored, at a venue with `layout`.
pub fn performance(errors: &mut Errors, row: &PerformanceRow, layout: &Layout) {
    text(errors, "title", &row.title, 1, TITLE_CHARS_MAX);
    errors.unless(is_category(&row.category), "category", CATEGORY_RULE);
    text(
        errors,
        "description",
        &row.description,
        0,
        DESCRIPTION_CHARS_MAX,
    );
    errors.unless(
        row.cast.len() <= CAST_MAX,
        "cast",
        format!("at most {CAST_MAX} names"),
    );
    for (at, name) in row.cast.iter().enumerate().take(CAST_MAX) {
        text(errors, &format!("cast[{at}]"), name, 1, CAST_NAME_CHARS_MAX);
    }
    if let Some(url) = &row.poster_url {
        errors.unless(
            is_poster_url(url),
            "poster_url",
            "must be an http or https address, or a path that begins with /",
        );
    }
    let closes_later = row.closes_at > row.opens_at;
    errors.unless(closes_later, "closes_at", "must be after opens_at");
    limits(errors, &row.limits);
    grades(errors, row, layout);
}

/// What a category must be.
pub const CATEGORY_RULE: &str = "must be 1 to 40 of a-z, 0-9 and -";

/// Whether it is a slug of the HTTP contract.
#[must_use]
pub fn is_category(slug: &str) -> bool {
    (1..=CATEGORY_CHARS_MAX).contains(&slug.len())
        && slug
            .bytes()
            .all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// It ends in `src` attributes, so that no other scheme is taken.
fn is_poster_url(url: &str) -> bool {
    let scheme_is_known = ["https://", "http://", "/"]
        .iter()
        .any(|start| url.starts_with(start));
    scheme_is_known
        && url.chars().count() <= URL_CHARS_MAX
        && !url.chars().any(|c| c.is_control() || c.is_whitespace())
}

fn text(errors: &mut Errors, field: &str, text: &str, min: usize, max: usize) {
    let is_blank = min > 0 && text.trim().is_empty();
    // A text has at most as many characters as bytes: mostly no count.
    let is_long = text.len() > max && text.chars().count() > max;
    if is_blank || is_long {
        errors.add(field, format!("must be {min} to {max} characters"));
    }
}

fn limits(errors: &mut Errors, limits: &Limits) {
    let mut range = |name: &str, value: u32, min: u32, max: u32| {
        let field = format!("limits.{name}");
        errors.unless(
            (min..=max).contains(&value),
            field,
            format!("must be from {min} to {max}"),
        );
    };
    range(
        "max_seats_per_user",
        limits.max_seats_per_user,
        1,
        SEATS_PER_USER_MAX,
    );
    range(
        "hold_ttl_seconds",
        limits.hold_ttl_seconds,
        1,
        LIMIT_SECONDS_MAX,
    );
    range(
        "hold_max_seconds",
        limits.hold_max_seconds,
        0,
        LIMIT_SECONDS_MAX,
    );
    range(
        "payment_ttl_seconds",
        limits.payment_ttl_seconds,
        0,
        LIMIT_SECONDS_MAX,
    );
    range(
        "cancel_until_hours_before",
        limits.cancel_until_hours_before,
        0,
        CANCEL_HOURS_MAX,
    );
    range(
        "offer_ttl_seconds",
        limits.offer_ttl_seconds,
        0,
        LIMIT_SECONDS_MAX,
    );
    range(
        "release_jitter_seconds",
        limits.release_jitter_seconds,
        0,
        LIMIT_SECONDS_MAX,
    );
}

/// Limits with what `request` changes.
#[must_use]
pub fn limits_with(base: &Limits, request: &LimitsRequest) -> Limits {
    Limits {
        max_seats_per_user: request
            .max_seats_per_user
            .unwrap_or(base.max_seats_per_user),
        hold_ttl_seconds: request.hold_ttl_seconds.unwrap_or(base.hold_ttl_seconds),
        hold_max_seconds: request.hold_max_seconds.unwrap_or(base.hold_max_seconds),
        payment_ttl_seconds: request
            .payment_ttl_seconds
            .unwrap_or(base.payment_ttl_seconds),
        cancel_until_hours_before: request
            .cancel_until_hours_before
            .unwrap_or(base.cancel_until_hours_before),
        offer_ttl_seconds: request.offer_ttl_seconds.unwrap_or(base.offer_ttl_seconds),
        release_jitter_seconds: request
            .release_jitter_seconds
            .unwrap_or(base.release_jitter_seconds),
    }
}

fn grades(errors: &mut Errors, row: &PerformanceRow, layout: &Layout) {
    let count_is_right = (1..=GRADES_MAX).contains(&row.grades.len());
    errors.unless(
        count_is_right,
        "grades",
        format!("must be 1 to {GRADES_MAX}"),
    );
    let mut names = HashSet::new();
    let mut taken = HashSet::new();
    for (at, grade) in row.grades.iter().enumerate().take(GRADES_MAX) {
        let path = format!("grades[{at}]");
        errors.unless(
            names.insert(&grade.name),
            format!("{path}.name"),
            "names an earlier one",
        );
        grade_alone(errors, &path, grade, row);
        let has_sections = !grade.sections.is_empty();
        errors.unless(
            has_sections,
            format!("{path}.sections"),
            "must name at least one section",
        );
        for (at, name) in grade.sections.iter().enumerate() {
            let field = || format!("{path}.sections[{at}]");
            match layout.section_named(name) {
                None => errors.add(field(), "the venue has no such section"),
                Some(section) if !taken.insert(section) => {
                    errors.add(field(), "the section is in a grade already");
                }
                Some(_) => {}
            }
        }
    }
    let is_free = |name: &str| {
        layout
            .section_named(name)
            .is_none_or(|at| !taken.contains(&at))
    };
    if let Some(section) = layout
        .sections()
        .iter()
        .find(|section| is_free(&section.name))
    {
        errors.add(
            "grades",
            format!("the section {} is in no grade", section.name),
        );
    }
}

fn grade_alone(errors: &mut Errors, path: &str, grade: &GradeRow, row: &PerformanceRow) {
    text(
        errors,
        &format!("{path}.name"),
        &grade.name,
        1,
        GRADE_NAME_CHARS_MAX,
    );
    let price_is_right = (Money::ZERO..=Money::MAX_ENTERED).contains(&grade.price);
    let message = format!("must be from 0 to {}", Money::MAX_ENTERED);
    errors.unless(price_is_right, format!("{path}.price"), message);
    let max_per_user_is_right = grade
        .max_per_user
        .is_none_or(|max| (1..=SEATS_PER_USER_MAX).contains(&max));
    let message = format!("must be from 1 to {SEATS_PER_USER_MAX}");
    errors.unless(
        max_per_user_is_right,
        format!("{path}.max_per_user"),
        message,
    );
    if grade.opens_at.is_some() || grade.closes_at.is_some() {
        let opens_at = grade.opens_at.unwrap_or(row.opens_at);
        let closes_at = grade.closes_at.unwrap_or(row.closes_at);
        let field = format!("{path}.closes_at");
        errors.unless(closes_at > opens_at, field, "must be after opens_at");
    }
}

/// Checks a date that is to be added.
pub fn timetable(errors: &mut Errors, path: &str, request: &TimetableRequest, now: Timestamp) {
    let starts_later = request.starts_at > now;
    errors.unless(
        starts_later,
        format!("{path}starts_at"),
        "must be in the future",
    );
    let doors_before = request
        .doors_at
        .is_none_or(|doors_at| doors_at <= request.starts_at);
    errors.unless(
        doors_before,
        format!("{path}doors_at"),
        "must not be after starts_at",
    );
}

/// Checks the dates of a new performance.
pub fn timetables(errors: &mut Errors, requests: &[TimetableRequest], now: Timestamp) {
    let count_is_right = requests.len() <= TIMETABLES_PER_REQUEST_MAX;
    let message = format!("at most {TIMETABLES_PER_REQUEST_MAX} in one request");
    errors.unless(count_is_right, "timetables", message);
    for (at, request) in requests.iter().enumerate().take(TIMETABLES_PER_REQUEST_MAX) {
        timetable(errors, &format!("timetables[{at}]."), request, now);
    }
}

/// The policy that is asked for; `prefix` is its path in the request.
pub fn policy(
    errors: &mut Errors,
    prefix: &str,
    request: Option<&PolicyRequest>,
) -> Option<QueuePolicy> {
    match request?.policy() {
        Ok(policy) => Some(policy),
        Err(problem) => {
            errors.add(format!("{prefix}{}", problem.field), problem.to_string());
            None
        }
    }
}
