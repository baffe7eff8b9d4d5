//! What handlers ask of coupons, wherever those are.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;

use super::App;
use crate::clock::monotonic;
use crate::domain::coupon::{Command, Reply, View};
use crate::domain::ids::CouponId;
use crate::http::error::{Answer, Problem};
use crate::http::problems::coupon_refusal;

/// How old what a node knows of coupons made by others may be.
const AGE_MAX: Duration = Duration::from_millis(250);

/// How many owners are asked for their coupons at a time.
const ASKED_AT_ONCE: usize = 16;

/// Which coupons there are: of each 16 bytes. How they stand is known to their
/// owners alone.
#[derive(Debug, Default)]
pub struct Coupons {
    ids: ArcSwap<Vec<CouponId>>,
    /// When they were last read from the store.
    read_at: parking_lot::Mutex<Option<Instant>>,
    reading: tokio::sync::Mutex<()>,
}

impl Coupons {
    /// A coupon was made here.
    pub fn add(&self, id: CouponId) {
        self.ids.rcu(|ids| {
            let mut ids = Vec::clone(ids);
            if let Err(place) = ids.binary_search(&id) {
                ids.insert(place, id);
            }
            ids
        });
    }

    /// Up to `limit` coupons after `after`, in the order in which they were made.
    ///
    /// # Errors
    /// If the store can't be read, and nothing was read before.
    pub async fn page(
        &self,
        app: &App,
        after: Option<CouponId>,
        limit: usize,
    ) -> Answer<Vec<CouponId>> {
        self.refresh(app).await?;
        let ids = self.ids.load();
        let from = after.map_or(0, |after| ids.partition_point(|id| *id <= after));
        Ok(ids.iter().skip(from).take(limit).copied().collect())
    }

    fn is_fresh(&self, app: &App) -> bool {
        // Where there are no other nodes, nobody else makes any.
        let is_alone = app.node.route.peers().is_none();
        let read_at = *self.read_at.lock();
        read_at.is_some_and(|at| is_alone || monotonic() - at < AGE_MAX)
    }

    async fn refresh(&self, app: &App) -> Answer<()> {
        if self.is_fresh(app) {
            return Ok(());
        }
        let _one = self.reading.lock().await;
        if self.is_fresh(app) {
            return Ok(());
        }
        match app.node.store.coupons().await {
            Ok(read) => {
                // One that was made here meanwhile stays.
                self.ids.rcu(|ids| {
                    let mut all = read.clone();
                    all.extend(ids.iter().copied());
                    all.sort_unstable();
                    all.dedup();
                    all
                });
            }
            // Those that are known are shown for as long.
            Err(error) if self.read_at.lock().is_some() => {
                tracing::debug!(%error, "the list of coupons can't be read");
            }
            Err(error) => return Err(error.into()),
        }
        *self.read_at.lock() = Some(monotonic());
        Ok(())
    }
}

impl App {
    /// What a coupon is, and how many are left: as of now, by its owner.
    ///
    /// # Errors
    /// If there is no such coupon, or its owner can't be asked.
    pub async fn coupon_view(&self, id: CouponId) -> Answer<View> {
        let node = &self.node;
        if node.coupons.is_here(id.0)
            && let Some(view) = node.coupon_boards.get(id)
        {
            return Ok(view);
        }
        match node.coupons.ask(id.0, Command::View).await? {
            Ok(Reply::View(view)) => Ok(view),
            Ok(_) => Err(Problem::internal_text("a coupon answered something else")),
            Err(refusal) => Err(coupon_refusal(&refusal)),
        }
    }

    /// The same of several, in the order given.
    ///
    /// # Errors
    /// If an owner can't be asked.
    pub async fn coupon_views(self: &Arc<Self>, ids: &[CouponId]) -> Answer<Vec<(CouponId, View)>> {
        let asked = ids.iter().copied().map(|id| {
            let app = Arc::clone(self);
            async move { Ok((id, app.coupon_view(id).await?)) }
        });
        let asked = stream::iter(asked).buffered(ASKED_AT_ONCE);
        asked.try_collect().await
    }
}
