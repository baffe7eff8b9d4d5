//! Reading the catalogue back, whole, when the program starts.

use super::SqliteStore;
use crate::catalogue::rows::{CatalogueRows, Poster};
use crate::domain::ids::PerformanceId;
use crate::persistence::StoreError;
use crate::persistence::stored::catalogue as stored;

impl SqliteStore {
    pub(crate) async fn load_catalogue(&self) -> Result<CatalogueRows, StoreError> {
        let venues = sqlx::query("SELECT * FROM venue ORDER BY id");
        let venues = venues.fetch_all(&self.readers).await?;
        let performances = sqlx::query("SELECT * FROM performance ORDER BY id");
        let performances = performances.fetch_all(&self.readers).await?;
        let timetables = sqlx::query("SELECT * FROM timetable ORDER BY id");
        let timetables = timetables.fetch_all(&self.readers).await?;
        let categories = sqlx::query_scalar("SELECT slug FROM category ORDER BY slug");
        Ok(CatalogueRows {
            version: 0,
            venues: venues.iter().map(stored::venue).collect::<Result<_, _>>()?,
            performances: performances
                .iter()
                .map(stored::performance)
                .collect::<Result<_, _>>()?,
            timetables: timetables
                .iter()
                .map(stored::timetable)
                .collect::<Result<_, _>>()?,
            categories: categories.fetch_all(&self.readers).await?,
        })
    }

    pub(crate) async fn load_poster(
        &self,
        id: PerformanceId,
    ) -> Result<Option<Poster>, StoreError> {
        let sql = "SELECT version, media_type, bytes FROM poster WHERE performance_id = ?";
        let row = sqlx::query(sql)
            .bind(id.0)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(stored::poster).transpose()
    }
}
