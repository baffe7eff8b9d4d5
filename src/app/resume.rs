//! What is loaded at the start, because it has something to do by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{App, StartError};
use crate::actors::board::SeatCounts;
use crate::domain::ids::{CouponId, EntityKind, PerformanceId, ShardId, TimetableId};

/// How long the start waits for one timetable with live holds or due refunds.
const LOAD_MAX: Duration = Duration::from_secs(10);

impl App {
    /// Has everything loaded that has something to do by itself: holds that
    /// end, orders and refunds that were under way, people who wait.
    pub(super) async fn resume(&self) -> Result<(), StartError> {
        for (timetable, sold, blocked) in self.store.seat_counts().await? {
            let Some(plan) = self.catalogue.plan(timetable) else {
                continue;
            };
            // What the bus has delivered by now may have opened it already.
            self.node.board(&plan).count(SeatCounts {
                available: plan.layout.capacity().saturating_sub(sold + blocked),
                held: 0,
                sold,
                blocked,
            });
        }
        for performance in self.catalogue.performances() {
            for timetable in &performance.timetables {
                drop(self.node.board(&timetable.plan));
            }
        }
        // One after the other, before anything is served: who asks for their holds
        // must not be told that there are none.
        let mut to_wake: BTreeSet<TimetableId> =
            self.store.timetables_to_wake().await?.into_iter().collect();
        let owned = self.node.ownership.owned();
        let shards: Vec<ShardId> = owned.into_iter().map(|(shard, _)| shard).collect();
        let mut with_people: BTreeSet<PerformanceId> = self
            .store
            .queues_with_people(&shards.iter().copied().collect())
            .await?
            .into_iter()
            .collect();
        let mut coupons: BTreeSet<CouponId> =
            self.store.coupons_in_doubt().await?.into_iter().collect();
        for entity in self.node.with_checkpoints(&shards).await {
            match entity.kind {
                EntityKind::Timetable => {
                    to_wake.insert(TimetableId(entity.id));
                }
                EntityKind::Queue => {
                    with_people.insert(PerformanceId(entity.id));
                }
                EntityKind::Coupon => {
                    coupons.insert(CouponId(entity.id));
                }
                EntityKind::Account => {}
            }
        }
        for timetable in to_wake {
            let Some(plan) = self.catalogue.plan(timetable) else {
                continue;
            };
            if !self.node.timetables.is_here(timetable.0) {
                continue;
            }
            let board = self.node.board(&plan);
            let mut versions = board.versions();
            self.node.timetables.wake(timetable.0).await;
            let loaded = versions.wait_for(|_| board.is_loaded());
            if tokio::time::timeout(LOAD_MAX, loaded).await.is_err() {
                tracing::warn!(timetable.id = %timetable, "a timetable that has something to do takes long to load");
            }
        }
        for user in self.store.accounts_in_doubt().await? {
            self.node.accounts.wake(user.0).await;
        }
        self.node.wake_queues(with_people).await;
        for coupon in coupons {
            self.node.coupons.wake(coupon.0).await;
        }
        Ok(())
    }
}
