//! The public list of performances: search, filters, order, pages.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::entry::{Performance, SaleStatus, SeatsOf, push_folded};
use super::image::{Image, Place, Rank};
use crate::domain::time::Timestamp;

/// The most words of a search that are looked at.
const SEARCH_WORDS_MAX: usize = 8;

/// What a list is sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// The soonest sale first.
    #[default]
    OpensAt,
    /// The soonest first date first.
    StartsAt,
    /// The most viewed first.
    Popularity,
}

/// Which performances are wanted, and in which order.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// All of these words, each anywhere in title, cast or venue.
    pub query: Option<String>,
    /// Filed under this category.
    pub category: Option<String>,
    /// With this status.
    pub status: Option<SaleStatus>,
    /// With a date that starts then or later.
    pub from: Option<Timestamp>,
    /// With a date that starts then or earlier.
    pub to: Option<Timestamp>,
    /// The order.
    pub sort: Sort,
}

/// Where an item stands in a list; what a cursor carries. Inserts don't move
/// it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    /// The order that it is a place in.
    pub sort: Sort,
    /// What is sorted by.
    pub key: i64,
    /// And then by this.
    pub id: Uuid,
}

/// A performance in a list.
#[derive(Clone, Debug)]
pub struct Found {
    /// The performance.
    pub performance: Arc<Performance>,
    /// At the moment of the read.
    pub status: SaleStatus,
    /// Where it stands.
    pub position: Position,
}

/// Whose turn it is to be looked at, and what is looked for.
pub(super) struct Search<'a> {
    pub(super) image: &'a Image,
    pub(super) wanted: &'a Wanted,
    pub(super) now: Timestamp,
    pub(super) seats: SeatsOf<'a>,
}

impl Search<'_> {
    /// Up to `limit` items of `order` behind `after`.
    pub(super) fn run(&self, order: &[Rank], after: Option<Position>, limit: usize) -> Vec<Found> {
        let from = after.map_or(0, |after| {
            order.partition_point(|rank| (rank.key, rank.id) <= (after.key, after.id))
        });
        let words = self
            .wanted
            .query
            .as_deref()
            .map(words_of)
            .unwrap_or_default();
        let matching = (!words.is_empty()).then(|| self.image.search(&words));
        let is_match = |rank: &&Rank| match &matching {
            Some(matching) => matching.get(rank.slot as usize).copied().unwrap_or(false),
            None => true,
        };
        order
            .get(from..)
            .unwrap_or_default()
            .iter()
            .filter(is_match)
            .filter_map(|rank| self.found(rank))
            .take(limit)
            .collect()
    }

    fn found(&self, rank: &Rank) -> Option<Found> {
        let place = self.image.at(rank.slot)?;
        if !self.may_fit(place) {
            return None;
        }
        let performance = &place.performance;
        let status = performance.status(self.now, self.seats);
        if self.wanted.status.is_some_and(|wanted| wanted != status) {
            return None;
        }
        let position = Position {
            sort: self.wanted.sort,
            key: rank.key,
            id: rank.id,
        };
        Some(Found {
            performance: Arc::clone(performance),
            status,
            position,
        })
    }

    /// What can be told without asking for seats; the cheapest first.
    fn may_fit(&self, place: &Place) -> bool {
        let Wanted {
            from,
            to,
            status,
            category,
            ..
        } = self.wanted;
        let facts = &place.facts;
        let by_time = match status {
            Some(SaleStatus::Scheduled) if self.now < facts.opens_at => true,
            // On sale without a date yet.
            Some(SaleStatus::Scheduled) => place.performance.timetables.is_empty(),
            Some(SaleStatus::OnSale | SaleStatus::SoldOut) => {
                facts.opens_at <= self.now && self.now < facts.closes_at
            }
            Some(SaleStatus::Closed) | None => true,
        };
        by_time
            && from.is_none_or(|from| facts.last_starts_at >= from)
            && to.is_none_or(|to| facts.first_starts_at <= to)
            && category
                .as_ref()
                .is_none_or(|slug| place.performance.row.category == *slug)
            && (from.is_none() || to.is_none() || self.starts_within(&place.performance))
    }

    fn starts_within(&self, performance: &Performance) -> bool {
        let is_within = |starts_at: Timestamp| {
            self.wanted.from.is_none_or(|from| starts_at >= from)
                && self.wanted.to.is_none_or(|to| starts_at <= to)
        };
        performance
            .timetables
            .iter()
            .any(|timetable| is_within(timetable.row.starts_at))
    }
}

fn words_of(query: &str) -> Vec<String> {
    let mut folded = String::with_capacity(query.len());
    push_folded(query, &mut folded);
    folded
        .split_whitespace()
        .take(SEARCH_WORDS_MAX)
        .map(str::to_owned)
        .collect()
}
