//! Venues, performances and their dates. They are few and change rarely; all
//! reads of the public are answered from memory ([`crate::catalogue`]).

use super::Store;
use crate::catalogue::rows::{
    CatalogueRows, DayViews, IdemKey, Insertion, PerformanceRow, Poster, TimetableRow, VenueRow,
    View,
};
use crate::domain::ids::{PerformanceId, TimetableId};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

/// How a change of a performance went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Update {
    /// It is stored.
    Done,
    /// Nothing was stored: seats have been sold, and the change is one that
    /// may only come before.
    HasOrders,
}

impl Store {
    /// Makes a venue, unless one was made under the same key: then that one is
    /// returned. On disk when this returns.
    ///
    /// # Errors
    /// Those of the store; nothing was made then.
    pub async fn insert_venue(
        &self,
        venue: VenueRow,
        idem: Option<IdemKey>,
    ) -> Result<Insertion<VenueRow>, StoreError> {
        on_backend!(self, insert_venue(venue, idem))
    }

    /// Makes a performance with its dates and, if it is new, its category,
    /// unless one was made under the same key: then the id of that one is
    /// returned. On disk when this returns.
    ///
    /// # Errors
    /// Those of the store; nothing was made then.
    pub async fn insert_performance(
        &self,
        performance: PerformanceRow,
        timetables: Vec<TimetableRow>,
        idem: Option<IdemKey>,
    ) -> Result<Insertion<PerformanceId>, StoreError> {
        on_backend!(self, insert_performance(performance, timetables, idem))
    }

    /// Adds a date to a performance, unless one was added under the same key:
    /// then that one is returned. On disk when this returns.
    ///
    /// # Errors
    /// Those of the store; nothing was made then.
    pub async fn insert_timetable(
        &self,
        timetable: TimetableRow,
        idem: Option<IdemKey>,
    ) -> Result<Insertion<TimetableRow>, StoreError> {
        on_backend!(self, insert_timetable(timetable, idem))
    }

    /// Stores a performance as it is now; if `before_first_sale`, only while no
    /// seat of it has been sold. A poster that was uploaded is dropped where
    /// `poster_url` doesn't point to it any more. On disk when this returns.
    ///
    /// # Errors
    /// Those of the store; nothing was changed then.
    pub async fn update_performance(
        &self,
        performance: PerformanceRow,
        keeps_poster: bool,
        before_first_sale: bool,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        on_backend!(
            self,
            update_performance(performance, keeps_poster, before_first_sale, now)
        )
    }

    /// Whether a seat of the performance was ever sold.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn has_orders(&self, id: PerformanceId) -> Result<bool, StoreError> {
        on_backend!(self, has_orders(id))
    }

    /// Stores the poster of a performance, and the url that it is shown with.
    /// On disk when this returns.
    ///
    /// # Errors
    /// Those of the store; nothing was changed then.
    pub async fn store_poster(
        &self,
        performance: PerformanceRow,
        poster: Poster,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        on_backend!(self, store_poster(performance, poster, now))
    }

    /// Calls a date off. On disk when this returns.
    ///
    /// # Errors
    /// Those of the store; nothing was changed then.
    pub async fn cancel_timetable(
        &self,
        id: TimetableId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        on_backend!(self, cancel_timetable(id, now))
    }

    /// Files all performances of category `from` under `to`, which is made if
    /// it is new; `from` is no more. On disk when this returns.
    ///
    /// # Errors
    /// Those of the store; nothing was changed then.
    pub async fn rename_category(
        &self,
        from: String,
        to: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        on_backend!(self, rename_category(from, to, now))
    }

    /// Forgets a category. On disk when this returns.
    ///
    /// # Errors
    /// Those of the store; nothing was changed then.
    pub async fn delete_category(&self, slug: String) -> Result<(), StoreError> {
        on_backend!(self, delete_category(slug))
    }

    /// The whole catalogue.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn load_catalogue(&self) -> Result<CatalogueRows, StoreError> {
        on_backend!(self, load_catalogue())
    }

    /// The poster of a performance, if one was uploaded.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn load_poster(&self, id: PerformanceId) -> Result<Option<Poster>, StoreError> {
        on_backend!(self, load_poster(id))
    }

    /// Counts views, each viewer of a performance once a day, and forgets the
    /// viewers of earlier days. Returns how many views were
    /// new, by performance and day. On disk when this returns.
    ///
    /// # Errors
    /// Those of the store; nothing was counted then, and the same views may be
    /// handed over again.
    pub async fn count_views(&self, views: Vec<View>) -> Result<Vec<DayViews>, StoreError> {
        on_backend!(self, count_views(views))
    }

    /// The views of each performance by day, for the days from `from` on, and
    /// in sum before it (as the day before `from`).
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn views_by_day(&self, from: i64) -> Result<Vec<DayViews>, StoreError> {
        on_backend!(self, views_by_day(from))
    }

    /// Who viewed what on a day, at most `limit` of them.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn viewers_of_day(&self, day: i64, limit: u32) -> Result<Vec<View>, StoreError> {
        on_backend!(self, viewers_of_day(day, limit))
    }

    /// How many seats of each timetable were sold in orders since `from`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn seats_sold_since(
        &self,
        from: Timestamp,
    ) -> Result<Vec<(TimetableId, u64)>, StoreError> {
        on_backend!(self, seats_sold_since(from))
    }
}
