//! How the catalogue in memory keeps up with the other nodes.
//!
//! The store counts the transactions that change the catalogue. An image knows
//! which of them it shows; before a write, and when the store tells of a change,
//! it is read again if the store is further. So a write always starts from what
//! is stored, also if another node has changed it a moment ago.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

use super::views::{RANKING_DAYS_MAX, day_of};
use super::{Catalogue, Image, image_of};
use crate::domain::ids::TimetableId;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

/// Up to where the image has followed the store.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// The version of the store that the image shows.
    version: AtomicI64,
    /// The day when that was last looked at.
    day: AtomicI64,
    /// The dates of performances that others have changed, for the actors.
    changed: Mutex<HashSet<TimetableId>>,
}

impl Followed {
    pub(super) fn at(version: i64, day: i64) -> Self {
        Self {
            version: AtomicI64::new(version),
            day: AtomicI64::new(day),
            changed: Mutex::default(),
        }
    }
}

impl Catalogue {
    /// Reads the catalogue again if another node has changed it. When this
    /// returns, readers see all that was committed before.
    ///
    /// # Errors
    /// If the store can't be read; readers see what they saw before.
    pub async fn follow(&self, now: Timestamp) -> Result<(), StoreError> {
        let _turn = self.writing.lock().await;
        self.followed.day.store(day_of(now), Ordering::Relaxed);
        self.catch_up().await
    }

    /// The dates whose performance another node has changed, each told once.
    #[must_use]
    pub fn take_changed(&self) -> HashSet<TimetableId> {
        std::mem::take(&mut self.followed.changed.lock())
    }

    /// Only within a turn of writing.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        let version = self.store.catalogue_version().await?;
        if version == self.followed.version.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.reload().await
    }

    /// Notes what a write of this node has made of the version; if somebody
    /// else was in between, reads all again. Only within a turn of writing.
    pub(super) async fn note_own_write(&self) {
        let followed = &self.followed.version;
        let known = followed.load(Ordering::Relaxed);
        match self.store.catalogue_version().await {
            Ok(version) if version == known => {}
            Ok(version) if version == known + 1 => followed.store(version, Ordering::Relaxed),
            Ok(_) => {
                if let Err(error) = self.reload().await {
                    tracing::warn!(%error, "the catalogue could not be read again, will try again");
                }
            }
            // The next to follow finds the difference.
            Err(error) => tracing::debug!(%error, "the catalogue's version could not be read"),
        }
    }

    async fn reload(&self) -> Result<(), StoreError> {
        // What was viewed here must be in what is read.
        self.flush_views().await?;
        let rows = self.store.load_catalogue().await?;
        let today = self.followed.day.load(Ordering::Relaxed);
        let days = self.store.views_by_day(today - RANKING_DAYS_MAX).await?;
        let version = rows.version;
        let mut image = image_of(rows, &days)?;
        let before = self.image.load();
        image.generation = before.generation + 1;
        let changed = changed_dates(&before, &image);
        self.image.store(Arc::new(image));
        self.followed.version.store(version, Ordering::Relaxed);
        self.followed.changed.lock().extend(changed);
        Ok(())
    }
}

fn changed_dates(before: &Image, after: &Image) -> Vec<TimetableId> {
    let is_same = |performance: &Arc<super::Performance>| {
        before.performance(performance.id()).is_some_and(|old| {
            old.row == performance.row
                && old
                    .timetables
                    .iter()
                    .map(|timetable| &timetable.row)
                    .eq(performance
                        .timetables
                        .iter()
                        .map(|timetable| &timetable.row))
        })
    };
    after
        .performances()
        .filter(|performance| !is_same(performance))
        .flat_map(|performance| &performance.timetables)
        .map(|timetable| timetable.row.id)
        .collect()
}
