//! Categories: made by their first performance, renamed and deleted by admins.

use std::sync::Arc;

use super::admin::{CatalogueError, Result, version};
use super::image::Image;
use super::rows::PerformanceRow;
use super::{Catalogue, Performance, check};
use crate::domain::time::Timestamp;

impl Catalogue {
    /// Files all performances of one category under another, which may be new.
    /// Returns how many the other has then. On disk when this returns.
    ///
    /// # Errors
    /// [`CatalogueError`]
    pub async fn rename_category(
        self: &Arc<Self>,
        from: String,
        to: String,
        now: Timestamp,
    ) -> Result<u32> {
        if !check::is_category(&to) {
            let error = ("category".to_owned(), check::CATEGORY_RULE.to_owned());
            return Err(CatalogueError::Invalid(vec![error]));
        }
        self.write(async move |this| {
            let image = this.image.load_full();
            if !image.has_category(&from) {
                return Err(CatalogueError::CategoryNotFound);
            }
            if from != to {
                this.store
                    .rename_category(from.clone(), to.clone(), now)
                    .await?;
                this.swap(|image| rename(image, &from, &to));
            }
            Ok(this
                .image
                .load()
                .categories()
                .get(to.as_str())
                .copied()
                .unwrap_or(0))
        })
        .await
    }

    /// Forgets a category that no performance is filed under, deleted ones
    /// aside. On disk when this returns.
    ///
    /// # Errors
    /// [`CatalogueError`]
    pub async fn delete_category(self: &Arc<Self>, slug: String) -> Result<()> {
        self.write(async move |this| {
            let image = this.image.load_full();
            if !image.has_category(&slug) {
                return Err(CatalogueError::CategoryNotFound);
            }
            let is_filed =
                |p: &&Arc<Performance>| p.row.deleted_at.is_none() && p.row.category == slug;
            match image.performances().filter(is_filed).count() {
                0 => {}
                count => return Err(CatalogueError::CategoryInUse(count)),
            }
            this.store.delete_category(slug.clone()).await?;
            this.swap(|image| image.remove_category(&slug));
            Ok(())
        })
        .await
    }
}

fn rename(image: &mut Image, from: &str, to: &str) {
    let is_filed = |p: &&Arc<Performance>| p.row.category == from;
    let filed: Vec<_> = image.performances().filter(is_filed).cloned().collect();
    image.put_category(to);
    for before in filed {
        let row = PerformanceRow {
            category: to.to_owned(),
            ..before.row.clone()
        };
        image.put(version(&before, row, before.timetable_rows()));
    }
    image.remove_category(from);
}
