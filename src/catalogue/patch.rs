//! What a PATCH makes of a performance.

use super::check::{self, Errors};
use super::request::{GradePatch, PerformancePatch};
use super::rows::{GradeRow, PerformanceRow};
use crate::domain::money::Money;
use crate::domain::time::Timestamp;

/// The performance with the changes of `patch`, not yet checked but for its
/// queue's policy.
pub fn apply(errors: &mut Errors, row: &PerformanceRow, patch: PerformancePatch) -> PerformanceRow {
    let queue = match &patch.queue {
        Some(request) => check::policy(errors, "queue.", request.as_ref()),
        None => row.queue,
    };
    let grades = match patch.grades {
        Some(patches) => grades(errors, &row.grades, &patches),
        None => row.grades.clone(),
    };
    PerformanceRow {
        id: row.id,
        owner: row.owner,
        venue_id: patch.venue_id.unwrap_or(row.venue_id),
        title: patch.title.unwrap_or_else(|| row.title.clone()),
        category: patch.category.unwrap_or_else(|| row.category.clone()),
        cast: patch.cast.unwrap_or_else(|| row.cast.clone()),
        description: patch.description.unwrap_or_else(|| row.description.clone()),
        poster_url: patch.poster_url.unwrap_or_else(|| row.poster_url.clone()),
        currency: patch.currency.unwrap_or(row.currency),
        grades,
        opens_at: patch.opens_at.unwrap_or(row.opens_at),
        closes_at: patch.closes_at.unwrap_or(row.closes_at),
        limits: match &patch.limits {
            Some(limits) => check::limits_with(&row.limits, limits),
            None => row.limits.clone(),
        },
        queue,
        draft: patch.draft.unwrap_or(row.draft),
        created_at: row.created_at,
        deleted_at: row.deleted_at,
    }
}

/// Grades keep their places, so that the place of a grade means the same to
/// those who hold its seats; new ones come last.
fn grades(errors: &mut Errors, old: &[GradeRow], patches: &[GradePatch]) -> Vec<GradeRow> {
    let taken: Vec<&String> = patches
        .iter()
        .filter_map(|p| p.sections.as_ref())
        .flatten()
        .collect();
    let mut grades = Vec::with_capacity(old.len() + patches.len());
    for grade in old {
        match patches.iter().find(|patch| patch.name == grade.name) {
            Some(patch) => grades.push(with(grade, patch)),
            None => {
                let mut grade = grade.clone();
                grade.sections.retain(|section| !taken.contains(&section));
                if !grade.sections.is_empty() {
                    grades.push(grade);
                }
            }
        }
    }
    for (at, patch) in patches.iter().enumerate() {
        if patches
            .iter()
            .take(at)
            .any(|earlier| earlier.name == patch.name)
        {
            errors.add(format!("grades[{at}].name"), "names an earlier one");
        } else if !old.iter().any(|grade| grade.name == patch.name) {
            if patch.price.is_none() {
                errors.add(format!("grades[{at}].price"), "a new grade needs a price");
            }
            grades.push(with(&new_grade(&patch.name), patch));
        }
    }
    grades
}

fn with(grade: &GradeRow, patch: &GradePatch) -> GradeRow {
    GradeRow {
        name: grade.name.clone(),
        price: patch.price.unwrap_or(grade.price),
        sections: patch
            .sections
            .clone()
            .unwrap_or_else(|| grade.sections.clone()),
        max_per_user: patch.max_per_user.unwrap_or(grade.max_per_user),
        opens_at: patch.opens_at.unwrap_or(grade.opens_at),
        closes_at: patch.closes_at.unwrap_or(grade.closes_at),
    }
}

fn new_grade(name: &str) -> GradeRow {
    GradeRow {
        name: name.to_owned(),
        price: Money::ZERO,
        sections: Vec::new(),
        max_per_user: None,
        opens_at: None,
        closes_at: None,
    }
}

/// Whether `after` differs from `before` in what may only be changed before the
/// first sale: all but title, description, cast, category, poster, closing
/// time, limits and grade prices (the HTTP contract).
#[must_use]
pub fn is_for_before_first_sale(before: &PerformanceRow, after: &PerformanceRow) -> bool {
    let rest = PerformanceRow {
        title: before.title.clone(),
        description: before.description.clone(),
        cast: before.cast.clone(),
        category: before.category.clone(),
        poster_url: before.poster_url.clone(),
        closes_at: before.closes_at,
        limits: before.limits.clone(),
        grades: with_prices_of(&after.grades, &before.grades),
        ..after.clone()
    };
    rest != *before
}

fn with_prices_of(grades: &[GradeRow], priced: &[GradeRow]) -> Vec<GradeRow> {
    let mut grades = grades.to_vec();
    for (grade, priced) in grades.iter_mut().zip(priced) {
        grade.price = priced.price;
        // Their order has no meaning.
        if is_permutation(&grade.sections, &priced.sections) {
            grade.sections.clone_from(&priced.sections);
        }
    }
    grades
}

fn is_permutation(some: &[String], others: &[String]) -> bool {
    some.len() == others.len() && some.iter().all(|section| others.contains(section))
}

/// Checks what can't be changed any more once seats may be held: a seat's
/// index means a place in the venue, and a hold's prices have a currency.
pub fn stays(errors: &mut Errors, before: &PerformanceRow, after: &PerformanceRow, now: Timestamp) {
    if after.venue_id != before.venue_id {
        errors.add("venue_id", "a performance stays at its venue");
    }
    let opening = before
        .grades
        .iter()
        .filter_map(|grade| grade.opens_at)
        .min();
    let opens_at = opening.map_or(before.opens_at, |at| at.min(before.opens_at));
    if after.currency != before.currency && !before.draft && now >= opens_at {
        errors.add("currency", "can't be changed once the sale has opened");
    }
}
