//! The writes: check, commit to the store, swap the image.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::check::{self, Errors};
use super::entry::{Performance, Timetable, Venue};
use super::image::Image;
use super::make::{performance_row, poster_of, timetable_row};
use super::patch;
use super::request::{PerformancePatch, PerformanceRequest, TimetableRequest, VenueRequest};
use super::rows::{IdemKey, Insertion, PerformanceRow, TimetableRow, VenueRow};
use super::{Catalogue, ViewCount};
use crate::domain::ids::{PerformanceId, TimetableId, UserId, VenueId};
use crate::domain::queue::policy::PolicyRequest;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::catalogue::Update;

/// Who administers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// Whether the user may administer what others made.
    pub is_admin: bool,
}

impl Caller {
    /// Whether the caller may know of what `owner` made.
    #[must_use]
    pub fn may(self, owner: UserId) -> bool {
        self.is_admin || self.user == owner
    }
}

/// What was made, now or before under the same idempotency key.
#[derive(Clone, Debug)]
pub struct Made<T> {
    /// What was made.
    pub value: T,
    /// Whether it was made before.
    pub replayed: bool,
}

/// Why a write was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Fields are wrong: the path of each, and what it must be.
    #[error("fields are wrong")]
    Invalid(Vec<(String, String)>),
    /// No such venue of the caller's.
    #[error("no such venue")]
    VenueNotFound,
    /// No such performance of the caller's.
    #[error("no such performance")]
    PerformanceNotFound,
    /// No such timetable of the caller's.
    #[error("no such timetable")]
    TimetableNotFound,
    /// No such category.
    #[error("no such category")]
    CategoryNotFound,
    /// So many performances are filed under the category.
    #[error("{0} performances are filed under the category")]
    CategoryInUse(usize),
    /// Seats have been sold.
    #[error("seats have been sold")]
    HasOrders,
    /// The idempotency key was used for something else.
    #[error("the key was used for something else")]
    KeyReused,
    /// The bytes are not those of a picture that is taken.
    #[error("not a PNG, JPEG or WebP picture")]
    NotAPicture,
    /// The store failed; nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(super) type Result<T> = std::result::Result<T, CatalogueError>;

impl Catalogue {
    /// Makes a venue. On disk when this returns.
    ///
    /// # Errors
    /// [`CatalogueError`]
    pub async fn create_venue(
        self: &Arc<Self>,
        caller: Caller,
        request: &VenueRequest,
        key: Option<String>,
        now: Timestamp,
    ) -> Result<Made<VenueRow>> {
        let parts = check::venue(request).map_err(CatalogueError::Invalid)?;
        let row = VenueRow {
            id: VenueId(Uuid::now_v7()),
            owner: caller.user,
            name: request.name.clone(),
            time_zone: parts.time_zone,
            sections: parts.sections,
            capacity: parts.capacity,
            created_at: now,
        };
        let unbuildable = |e| CatalogueError::Store(StoreError::Unreadable(format!("{e}")));
        let venue = Arc::new(Venue::of(&row).map_err(unbuildable)?);
        self.write(async move |this| {
            match this.store.insert_venue(row, idem(caller, key)).await? {
                Insertion::Inserted(value) => {
                    this.swap(|image| image.put_venue(venue));
                    Ok(Made {
                        value,
                        replayed: false,
                    })
                }
                Insertion::Existing(value) => Ok(Made {
                    value,
                    replayed: true,
                }),
            }
        })
        .await
    }

    /// Makes a performance with its dates. On disk when this returns.
    ///
    /// # Errors
    /// [`CatalogueError`]
    pub async fn create_performance(
        self: &Arc<Self>,
        caller: Caller,
        request: PerformanceRequest,
        key: Option<String>,
        now: Timestamp,
    ) -> Result<Made<Arc<Performance>>> {
        let venue = self
            .venue(request.venue_id)
            .filter(|venue| caller.may(venue.owner));
        let venue = venue.ok_or(CatalogueError::VenueNotFound)?;
        let mut errors = Errors::default();
        check::timetables(&mut errors, &request.timetables, now);
        let queue = check::policy(&mut errors, "queue.", request.queue.as_ref());
        let id = PerformanceId(Uuid::now_v7());
        let dates = request.timetables.iter();
        let dates: Vec<_> = dates.map(|date| timetable_row(id, date, now)).collect();
        let row = performance_row(id, caller, request, queue, now);
        check::performance(&mut errors, &row, &venue.layout);
        errors.or(()).map_err(CatalogueError::Invalid)?;
        self.write(async move |this| {
            let (store, idem) = (&this.store, idem(caller, key));
            match store
                .insert_performance(row.clone(), dates.clone(), idem)
                .await?
            {
                Insertion::Inserted(_) => {
                    let views = Arc::new(ViewCount::default());
                    let value = Arc::new(Performance::new(row, venue, dates, views));
                    this.put(&value);
                    Ok(Made {
                        value,
                        replayed: false,
                    })
                }
                Insertion::Existing(id) => {
                    let value = this
                        .performance(id)
                        .ok_or(CatalogueError::PerformanceNotFound)?;
                    Ok(Made {
                        value,
                        replayed: true,
                    })
                }
            }
        })
        .await
    }

    /// Adds a date to a performance. On disk when this returns.
    ///
    /// # Errors
    /// [`CatalogueError`]
    pub async fn add_timetable(
        self: &Arc<Self>,
        caller: Caller,
        id: PerformanceId,
        request: TimetableRequest,
        key: Option<String>,
        now: Timestamp,
    ) -> Result<Made<(Arc<Performance>, Arc<Timetable>)>> {
        let mut errors = Errors::default();
        check::timetable(&mut errors, "", &request, now);
        errors.or(()).map_err(CatalogueError::Invalid)?;
        self.write(async move |this| {
            let before = this.live_performance_of(caller, id)?;
            let row = timetable_row(id, &request, now);
            let idem = idem(caller, key);
            let (row, replayed) = match this.store.insert_timetable(row, idem).await? {
                Insertion::Inserted(row) => {
                    let mut dates = before.timetable_rows();
                    dates.push(row);
                    this.put(&version(&before, before.row.clone(), dates));
                    (row, false)
                }
                Insertion::Existing(row) if row.performance_id != id => {
                    return Err(CatalogueError::KeyReused);
                }
                Insertion::Existing(row) => (row, true),
            };
            let value = this
                .timetable(row.id)
                .ok_or(CatalogueError::TimetableNotFound)?;
            Ok(Made { value, replayed })
        })
        .await
    }

    /// Changes a performance; the actors of its dates must be told. On disk
    /// when this returns.
    ///
    /// # Errors
    /// [`CatalogueError`]
    pub async fn patch_performance(
        self: &Arc<Self>,
        caller: Caller,
        id: PerformanceId,
        patch: PerformancePatch,
        now: Timestamp,
    ) -> Result<Arc<Performance>> {
        self.write(async move |this| {
            let before = this.live_performance_of(caller, id)?;
            let mut errors = Errors::default();
            let row = patch::apply(&mut errors, &before.row, patch);
            check::performance(&mut errors, &row, &before.venue.layout);
            errors.or(()).map_err(CatalogueError::Invalid)?;
            let early = patch::is_for_before_first_sale(&before.row, &row);
            if early && this.store.has_orders(id).await? {
                return Err(CatalogueError::HasOrders);
            }
            let mut errors = Errors::default();
            patch::stays(&mut errors, &before.row, &row, now);
            errors.or(()).map_err(CatalogueError::Invalid)?;
            this.update(&before, row, early, now).await
        })
        .await
    }

    /// Sets the policy of the performance's queue, or removes it. On disk when
    /// this returns.
    ///
    /// # Errors
    /// [`CatalogueError`]
    pub async fn set_queue(
        self: &Arc<Self>,
        caller: Caller,
        id: PerformanceId,
        request: Option<PolicyRequest>,
        now: Timestamp,
    ) -> Result<Arc<Performance>> {
        let mut errors = Errors::default();
        let queue = check::policy(&mut errors, "", request.as_ref());
        errors.or(()).map_err(CatalogueError::Invalid)?;
        self.write(async move |this| {
            let before = this.live_performance_of(caller, id)?;
            let row = PerformanceRow {
                queue,
                ..before.row.clone()
            };
            this.update(&before, row, false, now).await
        })
        .await
    }

    /// Deletes a performance, or restores a deleted one; the actors of its
    /// dates must be told. Doing it twice changes nothing. On disk when this
    /// returns.
    ///
    /// # Errors
    /// [`CatalogueError`]
    pub async fn set_deleted(
        self: &Arc<Self>,
        caller: Caller,
        id: PerformanceId,
        deleted: bool,
        now: Timestamp,
    ) -> Result<Arc<Performance>> {
        self.write(async move |this| {
            let before = this.performance_of(caller, id)?;
            if before.row.deleted_at.is_some() == deleted {
                return Ok(before);
            }
            let row = PerformanceRow {
                deleted_at: deleted.then_some(now),
                ..before.row.clone()
            };
            this.update(&before, row, false, now).await
        })
        .await
    }

    /// Stores a poster and has the performance point to it. On disk when this
    /// returns.
    ///
    /// # Errors
    /// [`CatalogueError`]
    pub async fn put_poster(
        self: &Arc<Self>,
        caller: Caller,
        id: PerformanceId,
        bytes: Bytes,
        now: Timestamp,
    ) -> Result<Arc<Performance>> {
        let poster = poster_of(bytes).ok_or(CatalogueError::NotAPicture)?;
        self.write(async move |this| {
            let before = this.live_performance_of(caller, id)?;
            let mut row = before.row.clone();
            row.poster_url = Some(format!(
                "{}{}",
                Performance::poster_path(id),
                poster.version
            ));
            this.store.store_poster(row.clone(), poster, now).await?;
            let dates = before.timetable_rows();
            let after = version(&before, row, dates);
            this.put(&after);
            Ok(after)
        })
        .await
    }

    /// Calls a date off, for good; its actor must be told. Doing it twice
    /// changes nothing. On disk when this returns.
    ///
    /// # Errors
    /// [`CatalogueError`]
    pub async fn cancel_timetable(
        self: &Arc<Self>,
        caller: Caller,
        id: TimetableId,
        now: Timestamp,
    ) -> Result<Arc<Performance>> {
        self.write(async move |this| {
            let found = this.timetable(id).filter(|(p, _)| caller.may(p.row.owner));
            let (before, _) = found.ok_or(CatalogueError::TimetableNotFound)?;
            this.store.cancel_timetable(id, now).await?;
            let mut dates = before.timetable_rows();
            for date in dates.iter_mut().filter(|date| date.id == id) {
                date.cancelled_at = date.cancelled_at.or(Some(now));
            }
            let after = version(&before, before.row.clone(), dates);
            this.put(&after);
            Ok(after)
        })
        .await
    }

    /// The performances that the caller administers with an id below `before`,
    /// drafts and deleted ones too, the newest first.
    #[must_use]
    pub fn administered(
        &self,
        caller: Caller,
        before: Option<PerformanceId>,
        limit: usize,
    ) -> Vec<Arc<Performance>> {
        let image = self.image.load();
        let mut found: Vec<_> = image
            .performances()
            .filter(|performance| caller.may(performance.row.owner))
            .filter(|performance| before.is_none_or(|before| performance.id() < before))
            .cloned()
            .collect();
        found.sort_unstable_by_key(|performance| std::cmp::Reverse(performance.id()));
        found.truncate(limit);
        found
    }

    /// A performance that the caller administers, also a deleted one.
    ///
    /// # Errors
    /// [`CatalogueError::PerformanceNotFound`]
    pub fn performance_of(&self, caller: Caller, id: PerformanceId) -> Result<Arc<Performance>> {
        let found = self
            .performance(id)
            .filter(|performance| caller.may(performance.row.owner));
        found.ok_or(CatalogueError::PerformanceNotFound)
    }

    fn live_performance_of(&self, caller: Caller, id: PerformanceId) -> Result<Arc<Performance>> {
        let found = self.performance_of(caller, id)?;
        match found.row.deleted_at {
            None => Ok(found),
            Some(_) => Err(CatalogueError::PerformanceNotFound),
        }
    }

    async fn update(
        &self,
        before: &Performance,
        row: PerformanceRow,
        before_first_sale: bool,
        now: Timestamp,
    ) -> Result<Arc<Performance>> {
        let after = version(before, row.clone(), before.timetable_rows());
        let keeps_poster = after.uploaded_poster().is_some();
        match self
            .store
            .update_performance(row, keeps_poster, before_first_sale, now)
            .await?
        {
            Update::Done => {
                self.put(&after);
                Ok(after)
            }
            Update::HasOrders => Err(CatalogueError::HasOrders),
        }
    }

    /// Runs a write: one at a time, and to its end even if the caller goes
    /// away, because between the commit and the swap readers would be told
    /// what is no longer true.
    pub(super) async fn write<T, F, W>(self: &Arc<Self>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Self>) -> W + Send + 'static,
        W: Future<Output = Result<T>> + Send,
    {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _turn = this.writing.lock().await;
            this.catch_up().await?;
            let written = work(Arc::clone(&this)).await;
            this.note_own_write().await;
            written
        });
        let lost = |_| Err(StoreError::Unavailable(sqlx::Error::WorkerCrashed).into());
        task.await.unwrap_or_else(lost)
    }

    fn put(&self, performance: &Arc<Performance>) {
        self.swap(|image| image.put(Arc::clone(performance)));
    }

    /// Only within [`Catalogue::write`].
    pub(super) fn swap(&self, change: impl FnOnce(&mut Image)) {
        let mut image = Image::clone(&self.image.load());
        change(&mut image);
        self.image.store(Arc::new(image));
    }
}

fn idem(caller: Caller, key: Option<String>) -> Option<IdemKey> {
    key.map(|key| IdemKey {
        user: caller.user,
        key,
    })
}

/// The next version of a performance.
pub(super) fn version(
    before: &Performance,
    row: PerformanceRow,
    dates: Vec<TimetableRow>,
) -> Arc<Performance> {
    let (venue, views) = (Arc::clone(&before.venue), Arc::clone(&before.views));
    Arc::new(Performance::new(row, venue, dates, views))
}
