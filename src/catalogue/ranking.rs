//! What is viewed and sold most.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::views::{RANKING_DAYS_MAX, day_of};
use super::{Catalogue, Performance};
use crate::domain::ids::PerformanceId;
use crate::domain::time::{Millis, Timestamp};
use crate::persistence::StoreError;

/// A ranking is as old as this at most.
const AGE_MAX: Millis = Millis::from_secs(10);
/// And lives so long at least.
const AGE_MIN: Millis = Millis::from_secs(1);
/// In between, it lives so many times as long as it took to make.
const AGE_PER_COST: u32 = 50;
/// The most performances of a ranking.
const RANKED_MAX: usize = 100;

/// What is ranked by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RankBy {
    /// Viewers, each once a day.
    #[default]
    Views,
    /// Seats sold.
    Sales,
}

/// A performance in a ranking.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// The performance.
    pub performance: Arc<Performance>,
    /// How many viewers.
    pub views: u64,
    /// How many seats were sold.
    pub sales: u64,
}

/// The last ranking by its number of days. Locked while one is made, so that
/// the store is asked once for all who wait.
#[derive(Debug, Default)]
pub(super) struct Cache(tokio::sync::Mutex<HashMap<i64, Ranking>>);

#[derive(Clone, Debug)]
struct Ranking {
    until: Timestamp,
    by_views: Arc<Vec<Ranked>>,
    by_sales: Arc<Vec<Ranked>>,
}

impl Catalogue {
    /// The public performances that had any, by views or sales of the last
    /// `days` days (today is one of them), the most first.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn ranking(
        &self,
        by: RankBy,
        days: i64,
        now: Timestamp,
    ) -> Result<Arc<Vec<Ranked>>, StoreError> {
        let days = days.clamp(1, RANKING_DAYS_MAX);
        let mut made = self.ranking.0.lock().await;
        let ranking = match made.get(&days) {
            Some(ranking) if now < ranking.until => ranking.clone(),
            Some(_) | None => {
                let ranking = self.make_ranking(days, now).await?;
                made.insert(days, ranking.clone());
                ranking
            }
        };
        Ok(match by {
            RankBy::Views => ranking.by_views,
            RankBy::Sales => ranking.by_sales,
        })
    }

    async fn make_ranking(&self, days: i64, now: Timestamp) -> Result<Ranking, StoreError> {
        let began = crate::clock::monotonic();
        let first_day = day_of(now) - days + 1;
        let sales = self.sales_since(Timestamp(first_day * 86_400_000)).await?;
        let image = self.image.load();
        let ranked = |performance: &Arc<Performance>| Ranked {
            views: performance.views.since(first_day),
            sales: sales.get(&performance.id()).copied().unwrap_or(0),
            performance: Arc::clone(performance),
        };
        let all: Vec<Ranked> = image.public().map(|(_, p)| ranked(p)).collect();
        let age = age_for(crate::clock::monotonic().duration_since(began));
        Ok(Ranking {
            until: now.plus(age),
            by_views: top(all.clone(), |ranked| (ranked.views, ranked.sales)),
            by_sales: top(all, |ranked| (ranked.sales, ranked.views)),
        })
    }

    async fn sales_since(
        &self,
        from: Timestamp,
    ) -> Result<HashMap<PerformanceId, u64>, StoreError> {
        let rows = self.store.seats_sold_since(from).await?;
        let image = self.image.load();
        let mut sales = HashMap::new();
        for (timetable, seats) in rows {
            if let Some((performance, _)) = image.timetable(timetable) {
                *sales.entry(performance.id()).or_default() += seats;
            }
        }
        Ok(sales)
    }
}

/// A cheap ranking is made often, a dear one rarely.
fn age_for(cost: Duration) -> Millis {
    let age = cost.saturating_mul(AGE_PER_COST).as_millis();
    Millis(i64::try_from(age).unwrap_or(i64::MAX)).clamp(AGE_MIN, AGE_MAX)
}

fn top(mut all: Vec<Ranked>, count: impl Fn(&Ranked) -> (u64, u64)) -> Arc<Vec<Ranked>> {
    all.retain(|ranked| count(ranked).0 > 0);
    // Among equals the newest.
    all.sort_unstable_by_key(|ranked| Reverse((count(ranked), ranked.performance.id())));
    all.truncate(RANKED_MAX);
    Arc::new(all)
}
