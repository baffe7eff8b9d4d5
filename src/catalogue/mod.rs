//! The catalogue in memory: venues, performances, their dates.
//!
//! Readers see an immutable `image`, and never reach the store. A write
//! commits to the store first and swaps the image then; writes follow one
//! another, each in a task that goes on to its end whoever waits.
//!
//! * [`rows`]: what is stored. * `entry`: what is kept in memory of it.
//! * `image`: all of it with its indexes. * `list`: the public list.
//! * [`request`], [`check`], [`patch`]: what admins ask for, checked and
//!   applied. * `admin`, `categories`: the writes. * `make`: new rows.
//! * `follow`: keeping up with other nodes.
//! * `views`, `ranking`: views, and what is viewed and sold most.
//! * `layout_json`, `cache`: large bodies, made once.
//! * [`demo`]: something to begin with.

mod admin;
pub(crate) mod cache;
mod categories;
pub mod check;
pub mod demo;
mod entry;
mod follow;
mod image;
mod layout_json;
mod list;
mod make;
pub mod patch;
mod ranking;
pub mod request;
pub mod rows;
mod views;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;

pub use self::admin::{Caller, CatalogueError, Made};
pub use self::entry::{Performance, SaleStatus, SeatsOf, Timetable, Venue};
pub use self::list::{Found, Position, Sort, Wanted};
pub use self::ranking::{RankBy, Ranked};
pub use self::views::{ViewCount, Viewer};

use self::cache::BodyCache;
use self::image::{Image, Rank};
use self::list::Search;
use self::rows::{CatalogueRows, DayViews, Poster, TimetableRow};
use self::views::{RANKING_DAYS_MAX, VIEWERS_SEEN_MAX, Views, day_of};
use crate::app::Sale;
use crate::domain::ids::{PerformanceId, TimetableId, VenueId};
use crate::domain::plan::Plan;
use crate::domain::time::{Millis, Timestamp};
use crate::keys::MAC_BYTES;
use crate::persistence::{Store, StoreError};

/// How many bytes of rendered layouts are kept.
const LAYOUT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How many bytes of posters are kept.
const POSTER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// After how long the order by popularity is made anew.
const POPULARITY_AGE: Millis = Millis::from_secs(1);

/// The catalogue in memory.
#[derive(Debug)]
pub struct Catalogue {
    store: Store,
    image: ArcSwap<Image>,
    /// Held from reading the image to swapping it.
    writing: tokio::sync::Mutex<()>,
    followed: follow::Followed,
    views: Views,
    layouts: BodyCache<(PerformanceId, Arc<str>)>,
    posters: BodyCache<(PerformanceId, Arc<str>)>,
    popularity: Mutex<Option<Popularity>>,
    ranking: ranking::Cache,
}

/// The public performances, the most viewed first, at some moment.
#[derive(Clone, Debug)]
struct Popularity {
    generation: u64,
    at: Timestamp,
    order: Arc<Vec<Rank>>,
}

impl Catalogue {
    /// The catalogue of `store`. `view_key` is secret, and the same each time:
    /// it keeps viewers from being told by their hashes.
    ///
    /// # Errors
    /// If the store can't be read, or what is in it can't be understood.
    pub async fn load(
        store: &Store,
        view_key: [u8; MAC_BYTES],
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let today = day_of(now);
        let rows = store.load_catalogue().await?;
        let days = store.views_by_day(today - RANKING_DAYS_MAX).await?;
        let seen = store.viewers_of_day(today, VIEWERS_SEEN_MAX as u32).await?;
        let followed = follow::Followed::at(rows.version, today);
        let image = image_of(rows, &days)?;
        Ok(Self {
            store: store.clone(),
            image: ArcSwap::from_pointee(image),
            writing: tokio::sync::Mutex::default(),
            followed,
            views: Views::new(view_key, &seen, today),
            layouts: BodyCache::new(LAYOUT_BYTES_MAX),
            posters: BodyCache::new(POSTER_BYTES_MAX),
            popularity: Mutex::default(),
            ranking: ranking::Cache::default(),
        })
    }

    /// What a timetable decides by; also of drafts and of what was deleted,
    /// whose plans are withdrawn.
    #[must_use]
    pub fn plan(&self, id: TimetableId) -> Option<Arc<Plan>> {
        let image = self.image.load();
        image
            .timetable(id)
            .map(|(_, timetable)| Arc::clone(&timetable.plan))
    }

    /// A timetable that everyone may see, as a sale.
    #[must_use]
    pub fn sale(&self, id: TimetableId) -> Option<Sale> {
        let image = self.image.load();
        let (performance, timetable) = image.timetable(id)?;
        performance.is_public().then(|| Sale {
            plan: Arc::clone(&timetable.plan),
            owner: performance.row.owner,
            has_queue: performance.row.queue.is_some(),
            layout_etag: Arc::clone(&performance.layout_etag),
        })
    }

    /// The title of a performance.
    #[must_use]
    pub fn title(&self, id: PerformanceId) -> Option<String> {
        self.image
            .load()
            .performance(id)
            .map(|performance| performance.row.title.clone())
    }

    /// The dates of a performance, by their start.
    #[must_use]
    pub fn timetables_of(&self, id: PerformanceId) -> Vec<TimetableId> {
        let image = self.image.load();
        let timetables = image
            .performance(id)
            .map(|performance| &performance.timetables);
        timetables
            .into_iter()
            .flatten()
            .map(|timetable| timetable.row.id)
            .collect()
    }

    /// A performance, also a draft and a deleted one.
    #[must_use]
    pub fn performance(&self, id: PerformanceId) -> Option<Arc<Performance>> {
        self.image.load().performance(id).cloned()
    }

    /// A date with its performance, also of a draft or deleted one.
    #[must_use]
    pub fn timetable(&self, id: TimetableId) -> Option<(Arc<Performance>, Arc<Timetable>)> {
        let image = self.image.load();
        image
            .timetable(id)
            .map(|(p, t)| (Arc::clone(p), Arc::clone(t)))
    }

    /// A performance that everyone may see.
    #[must_use]
    pub fn public_performance(&self, id: PerformanceId) -> Option<Arc<Performance>> {
        self.performance(id)
            .filter(|performance| performance.is_public())
    }

    /// A date that everyone may see, with its performance.
    #[must_use]
    pub fn public_timetable(&self, id: TimetableId) -> Option<(Arc<Performance>, Arc<Timetable>)> {
        self.timetable(id)
            .filter(|(performance, _)| performance.is_public())
    }

    /// A venue.
    #[must_use]
    pub fn venue(&self, id: VenueId) -> Option<Arc<Venue>> {
        self.image.load().venue(id).cloned()
    }

    /// All performances, drafts and deleted ones too, in the order in which
    /// they were made.
    #[must_use]
    pub fn performances(&self) -> Vec<Arc<Performance>> {
        self.image.load().performances().cloned().collect()
    }

    /// Each category with the number of its public performances.
    #[must_use]
    pub fn categories(&self) -> Vec<(String, u32)> {
        let image = self.image.load();
        image
            .categories()
            .into_iter()
            .map(|(slug, n)| (slug.to_owned(), n))
            .collect()
    }

    /// Up to `limit` public performances behind `after`, which must be a
    /// position of the same sort.
    #[must_use]
    pub fn list(
        &self,
        wanted: &Wanted,
        after: Option<Position>,
        limit: usize,
        now: Timestamp,
        seats: SeatsOf<'_>,
    ) -> Vec<Found> {
        let image = self.image.load();
        let search = Search {
            image: &image,
            wanted,
            now,
            seats,
        };
        match wanted.sort {
            Sort::OpensAt => search.run(image.by_opens_at(), after, limit),
            Sort::StartsAt => search.run(image.by_starts_at(), after, limit),
            Sort::Popularity => search.run(&self.popularity(&image, now), after, limit),
        }
    }

    fn popularity(&self, image: &Image, now: Timestamp) -> Arc<Vec<Rank>> {
        let mut popularity = self.popularity.lock();
        if let Some(made) = &*popularity
            && made.generation == image.generation
            && now.since(made.at) < POPULARITY_AGE
        {
            return Arc::clone(&made.order);
        }
        let rank = |(slot, performance): (_, &Arc<Performance>)| Rank {
            key: -i64::try_from(performance.views.total()).unwrap_or(i64::MAX),
            id: performance.id().0,
            slot,
        };
        let mut order: Vec<Rank> = image.public().map(rank).collect();
        order.sort_unstable();
        let order = Arc::new(order);
        let made = Popularity {
            generation: image.generation,
            at: now,
            order: Arc::clone(&order),
        };
        *popularity = Some(made);
        order
    }

    /// The layout of a date with its prices, as JSON: everything behind the id
    /// of the timetable, with which it begins (`{"timetable_id":"…"`). Its ETag
    /// is [`Performance::layout_etag`].
    #[must_use]
    pub fn layout_tail(&self, performance: &Performance, timetable: &Timetable) -> Bytes {
        let key = (performance.id(), Arc::clone(&performance.layout_etag));
        self.layouts
            .get_or_make(&key, || layout_json::render(&timetable.plan))
    }

    /// The poster that was uploaded for a public performance.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn poster(&self, id: PerformanceId) -> Result<Option<Poster>, StoreError> {
        let Some(performance) = self.public_performance(id) else {
            return Ok(None);
        };
        let Some((media_type, version)) = performance.uploaded_poster() else {
            return Ok(None);
        };
        let key = (id, Arc::from(version));
        let poster = |bytes| Poster {
            media_type,
            version: version.to_owned(),
            bytes,
        };
        if let Some(bytes) = self.posters.get(&key) {
            return Ok(Some(poster(bytes)));
        }
        let stored = self.store.load_poster(id).await?;
        if let Some(stored) = &stored
            && stored.version == version
        {
            let _ = self.posters.get_or_make(&key, || stored.bytes.clone());
        }
        Ok(stored)
    }

    /// Counts a view of a public performance, once a viewer a day.
    pub fn view(&self, performance: &Performance, viewer: Viewer, now: Timestamp) {
        if let Some(view) = self.views.record(performance.id(), viewer, now) {
            performance.views.add(view.day, 1);
        }
    }

    /// Writes the views since the last time to the store; to be called once a
    /// second, and when the program ends. After an error they wait for the next
    /// time.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn flush_views(&self) -> Result<(), StoreError> {
        let views = self.views.take();
        if views.is_empty() {
            return Ok(());
        }
        match self.store.count_views(views.clone()).await {
            Ok(new) => {
                self.take_back(&views::repeated(&views, &new));
                Ok(())
            }
            Err(error) => {
                let lost = self.views.put_back(views);
                self.take_back(&views::repeated(&lost, &[]));
                Err(error)
            }
        }
    }

    fn take_back(&self, counts: &[DayViews]) {
        for count in counts {
            if let Some(performance) = self.performance(count.performance_id) {
                performance.views.take_back(count.day, count.views);
            }
        }
    }
}

fn image_of(rows: CatalogueRows, days: &[DayViews]) -> Result<Image, StoreError> {
    let mut image = Image::default();
    for row in &rows.venues {
        let unreadable = |e| StoreError::Unreadable(format!("venue {}: {e}", row.id));
        image.put_venue(Arc::new(Venue::of(row).map_err(unreadable)?));
    }
    let mut views: HashMap<PerformanceId, Arc<ViewCount>> = HashMap::new();
    for count in days {
        views
            .entry(count.performance_id)
            .or_default()
            .add(count.day, count.views);
    }
    let mut timetables: HashMap<PerformanceId, Vec<TimetableRow>> = HashMap::new();
    for row in rows.timetables {
        timetables.entry(row.performance_id).or_default().push(row);
    }
    for row in rows.performances {
        let missing = || StoreError::Unreadable(format!("performance {} has no venue", row.id));
        let venue = Arc::clone(image.venue(row.venue_id).ok_or_else(missing)?);
        let timetables = timetables.remove(&row.id).unwrap_or_default();
        let views = views.remove(&row.id).unwrap_or_default();
        image.put(Arc::new(Performance::new(row, venue, timetables, views)));
    }
    for slug in &rows.categories {
        image.put_category(slug);
    }
    Ok(image)
}
