//! Venues, performances and their dates as they are kept in memory: immutable
//! once made, replaced as a whole when they change.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::rows::{GradeRow, PerformanceRow, TimetableRow, VenueRow};
use super::views::ViewCount;
use crate::domain::ids::{PerformanceId, TimetableId, UserId, VenueId};
use crate::domain::layout::{Layout, LayoutProblem};
use crate::domain::money::Money;
use crate::domain::plan::{Grade, GradeIndex, Plan};
use crate::domain::time::Timestamp;
use crate::domain::timetable::SeatCounts;

/// Tells how the seats of a timetable stand at this moment.
pub type SeatsOf<'a> = &'a dyn Fn(TimetableId) -> SeatCounts;

/// Whether and why seats can be bought: always the truth of the seats.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SaleStatus {
    /// The sale has not opened.
    Scheduled,
    /// Seats are available, or held and may come back.
    OnSale,
    /// Nothing is available and nothing is held.
    SoldOut,
    /// The sale is over, or it was called off.
    Closed,
}

/// A place with seats.
#[derive(Debug)]
pub struct Venue {
    /// Which one.
    pub id: VenueId,
    /// Who made it.
    pub owner: UserId,
    /// As shown.
    pub name: String,
    /// An IANA name.
    pub time_zone: String,
    /// Its seats.
    pub layout: Arc<Layout>,
}

impl Venue {
    /// The venue of a stored row.
    ///
    /// # Errors
    /// If its sections break a rule, which is checked before they are stored.
    pub fn of(row: &VenueRow) -> Result<Self, LayoutProblem> {
        Ok(Self {
            id: row.id,
            owner: row.owner,
            name: row.name.clone(),
            time_zone: row.time_zone.clone(),
            layout: Arc::new(Layout::build(&row.sections)?),
        })
    }
}

/// A performance with its dates.
#[derive(Debug)]
pub struct Performance {
    /// As stored.
    pub row: PerformanceRow,
    /// Where it is.
    pub venue: Arc<Venue>,
    /// Its dates, by their start.
    pub timetables: Vec<Arc<Timetable>>,
    /// How often it was viewed; the same for all versions of the performance.
    pub views: Arc<ViewCount>,
    /// The strong ETag of its layout with prices, in quotes. The rendered text
    /// follows from what is hashed here, so it needn't be rendered for this.
    pub layout_etag: Arc<str>,
    by_id: Vec<(TimetableId, u32)>,
}

/// One date of a performance.
#[derive(Debug)]
pub struct Timetable {
    /// As stored.
    pub row: TimetableRow,
    /// What its state machine decides by.
    pub plan: Arc<Plan>,
}

impl Performance {
    /// A performance with its dates, in any order.
    #[must_use]
    pub fn new(
        row: PerformanceRow,
        venue: Arc<Venue>,
        mut timetables: Vec<TimetableRow>,
        views: Arc<ViewCount>,
    ) -> Self {
        timetables.sort_unstable_by_key(|timetable| (timetable.starts_at, timetable.id));
        let grades: Vec<Grade> = row.grades.iter().map(grade_of).collect();
        let grade_of_section = grades_of_sections(&row.grades, &venue.layout);
        let plan_of = |timetable: &TimetableRow| Plan {
            timetable_id: timetable.id,
            performance_id: row.id,
            layout: Arc::clone(&venue.layout),
            grades: grades.clone(),
            grade_of_section: grade_of_section.clone(),
            currency: row.currency,
            opens_at: row.opens_at,
            closes_at: row.closes_at,
            starts_at: timetable.starts_at,
            limits: row.limits.clone(),
            withdrawn: row.draft || row.deleted_at.is_some() || timetable.cancelled_at.is_some(),
        };
        #[cfg(feature = "sabotage")]
        let plan_of = |timetable: &TimetableRow| without_limits(plan_of(timetable));
        let timetables: Vec<Arc<Timetable>> = timetables
            .into_iter()
            .map(|row| {
                Arc::new(Timetable {
                    plan: Arc::new(plan_of(&row)),
                    row,
                })
            })
            .collect();
        let mut by_id: Vec<_> = (0u32..)
            .zip(&timetables)
            .map(|(at, t)| (t.row.id, at))
            .collect();
        by_id.sort_unstable();
        let layout_etag = layout_etag(venue.id, &row.grades);
        Self {
            row,
            venue,
            timetables,
            views,
            layout_etag,
            by_id,
        }
    }

    /// Which one.
    #[must_use]
    pub fn id(&self) -> PerformanceId {
        self.row.id
    }

    /// Whether everyone may see it.
    #[must_use]
    pub fn is_public(&self) -> bool {
        !self.row.draft && self.row.deleted_at.is_none()
    }

    /// One of its dates.
    #[must_use]
    pub fn timetable(&self, id: TimetableId) -> Option<&Arc<Timetable>> {
        let found = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let (_, at) = self.by_id.get(found)?;
        self.timetables.get(*at as usize)
    }

    /// When its first date starts.
    #[must_use]
    pub fn first_starts_at(&self) -> Option<Timestamp> {
        self.timetables
            .first()
            .map(|timetable| timetable.row.starts_at)
    }

    /// When its last date starts.
    #[must_use]
    pub fn last_starts_at(&self) -> Option<Timestamp> {
        self.timetables
            .last()
            .map(|timetable| timetable.row.starts_at)
    }

    /// The price of the cheapest grade.
    #[must_use]
    pub fn price_from(&self) -> Option<Money> {
        self.row.grades.iter().map(|grade| grade.price).min()
    }

    /// How its sale stands at this moment.
    #[must_use]
    pub fn status(&self, now: Timestamp, seats: SeatsOf<'_>) -> SaleStatus {
        let live = || {
            self.timetables
                .iter()
                .filter(|t| t.row.cancelled_at.is_none())
        };
        match self.status_by_time(now) {
            SaleStatus::OnSale if self.timetables.is_empty() => SaleStatus::Scheduled,
            SaleStatus::OnSale if live().next().is_none() => SaleStatus::Closed,
            SaleStatus::OnSale if live().all(|t| is_sold_out(seats(t.row.id))) => {
                SaleStatus::SoldOut
            }
            status => status,
        }
    }

    /// How the sale of one date stands at this moment.
    #[must_use]
    pub fn status_of(
        &self,
        timetable: &Timetable,
        now: Timestamp,
        seats: SeatsOf<'_>,
    ) -> SaleStatus {
        match self.status_by_time(now) {
            _ if timetable.row.cancelled_at.is_some() => SaleStatus::Closed,
            SaleStatus::OnSale if is_sold_out(seats(timetable.row.id)) => SaleStatus::SoldOut,
            status => status,
        }
    }

    /// The status as far as it doesn't depend on seats: never sold out.
    #[must_use]
    pub fn status_by_time(&self, now: Timestamp) -> SaleStatus {
        if self.row.deleted_at.is_some() || now >= self.row.closes_at {
            SaleStatus::Closed
        } else if now < self.row.opens_at {
            SaleStatus::Scheduled
        } else {
            SaleStatus::OnSale
        }
    }

    /// Where a poster that is uploaded is shown.
    #[must_use]
    pub fn poster_path(id: PerformanceId) -> String {
        format!("/api/v1/performances/{id}/poster?v=")
    }

    /// The media type and the version of the poster that was uploaded, if that
    /// is what `poster_url` points to.
    #[must_use]
    pub fn uploaded_poster(&self) -> Option<(String, &str)> {
        let url = self.row.poster_url.as_deref()?;
        let version = url.strip_prefix(&Self::poster_path(self.row.id))?;
        let (_, extension) = version.split_once('.')?;
        Some((format!("image/{extension}"), version))
    }

    /// All of it that is searched, folded.
    pub(super) fn push_searched(&self, into: &mut String) {
        let cast = self.row.cast.iter().map(String::as_str);
        let texts = [self.row.title.as_str(), self.venue.name.as_str()];
        for text in texts.into_iter().chain(cast) {
            push_folded(text, into);
            into.push('\n');
        }
    }

    /// Its dates as stored, to make another version of it from.
    pub(super) fn timetable_rows(&self) -> Vec<TimetableRow> {
        self.timetables
            .iter()
            .map(|timetable| timetable.row)
            .collect()
    }
}

fn is_sold_out(counts: SeatCounts) -> bool {
    counts.available == 0 && counts.held == 0
}

/// Appends `text` without differences of case, in all scripts: by upper case
/// and back, so that `ß` is `ss` and both small sigmas are one.
pub(super) fn push_folded(text: &str, into: &mut String) {
    if text.is_ascii() {
        into.extend(text.chars().map(|c| c.to_ascii_lowercase()));
    } else {
        into.extend(
            text.chars()
                .flat_map(char::to_uppercase)
                .flat_map(char::to_lowercase),
        );
    }
}

/// What a server decides by that doesn't look at limits.
#[cfg(feature = "sabotage")]
fn without_limits(mut plan: Plan) -> Plan {
    if crate::sabotage::is_on(crate::sabotage::Switch::NoLimitCheck) {
        plan.limits.max_seats_per_user = u32::MAX;
        for grade in &mut plan.grades {
            grade.max_per_user = None;
        }
    }
    plan
}

fn grade_of(row: &GradeRow) -> Grade {
    Grade {
        name: row.name.clone(),
        price: row.price,
        max_per_user: row.max_per_user,
        opens_at: row.opens_at,
        closes_at: row.closes_at,
    }
}

/// The grade of each section. That each section is in exactly one grade was
/// checked before it was stored.
fn grades_of_sections(grades: &[GradeRow], layout: &Layout) -> Vec<GradeIndex> {
    let mut of_section = vec![GradeIndex(0); layout.sections().len()];
    for (index, grade) in (0u8..).zip(grades) {
        for section in &grade.sections {
            let place = layout
                .section_named(section)
                .and_then(|at| of_section.get_mut(usize::from(at.0)));
            if let Some(place) = place {
                *place = GradeIndex(index);
            }
        }
    }
    of_section
}

/// Changes with everything that the rendered layout is made of: a venue never
/// changes, so its id stands for its seats.
fn layout_etag(venue: VenueId, grades: &[GradeRow]) -> Arc<str> {
    let digest = |seed: u64| {
        let mut hasher = foldhash::quality::FixedState::with_seed(seed).build_hasher();
        (super::layout_json::FORMAT, venue).hash(&mut hasher);
        for grade in grades {
            (&grade.name, grade.price, &grade.sections).hash(&mut hasher);
        }
        hasher.finish()
    };
    format!("\"{:016x}{:016x}\"", digest(1), digest(2)).into()
}
