//! One server: all its actors, what they write with and what they publish, as
//! one value, so that several can live in one test process.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;
use smallvec::SmallVec;
use tokio::sync::Semaphore;

use super::board::{Board, Boards, SeatCounts};
use super::coupon::CouponBoards;
use super::directory::Directory;
use super::host::Hosted;
use super::keeper::Keeper;
use super::lanes::Lanes;
use super::loader::AccountLoader;
use super::ownership::Ownership;
use super::queue_board::QueueBoards;
use super::route::Route;
use super::{Handle, Message};
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::domain::account::Account;
use crate::domain::coupon::Coupon;
use crate::domain::decision::Tier;
use crate::domain::ids::{
    CouponId, EntityKind, HoldId, Incarnation, NodeId, PerformanceId, SHARDS, ShardId, ShardSet,
    TimetableId, UserId, shard_of,
};
use crate::domain::plan::Plan;
use crate::domain::queue::Queue;
use crate::domain::time::Millis;
use crate::domain::timetable::Timetable;
use crate::persistence::{Store, StoreError};
use crate::telemetry::{self, ActorMetrics, CouponUses};

/// How often a node looks for what nobody uses, and for what dead nodes have left.
pub const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// How a node is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a reply waits to be durable before its caller is told that the
    /// outcome is unknown.
    pub patience: Duration,
    /// How durable a hold must be before it is acknowledged.
    pub holds_tier: Tier,
    /// How durable a place in a waiting room must be before it is acknowledged.
    pub joins_tier: Tier,
    /// How many people one waiting room keeps in memory.
    pub queue_places_max: u32,
    /// After how long without a question an account is forgotten.
    pub account_idle: Millis,
    /// After how long without a question a timetable or a queue is unloaded.
    pub timetable_idle: Millis,
}

/// Where each live hold is, by id and by user.
#[derive(Debug, Default)]
pub struct HoldIndex {
    by_id: DashMap<HoldId, TimetableId, foldhash::fast::RandomState>,
    by_user: DashMap<UserId, SmallVec<[HoldId; 2]>, foldhash::fast::RandomState>,
}

impl HoldIndex {
    /// A hold began.
    pub fn insert(&self, hold: HoldId, user: UserId, timetable: TimetableId) {
        self.by_id.insert(hold, timetable);
        let mut holds = self.by_user.entry(user).or_default();
        if !holds.contains(&hold) {
            holds.push(hold);
        }
    }

    /// A hold is over.
    pub fn remove(&self, hold: HoldId, user: UserId) {
        self.by_id.remove(&hold);
        if let dashmap::Entry::Occupied(mut holds) = self.by_user.entry(user) {
            holds.get_mut().retain(|id| *id != hold);
            if holds.get().is_empty() {
                holds.remove();
            }
        }
    }

    /// The timetables of `shards` are another node's affair.
    pub fn forget(&self, shards: &ShardSet) {
        self.by_id
            .retain(|_, timetable| !shards.contains(shard_of(timetable.0)));
        self.by_user.retain(|_, holds| {
            holds.retain(|hold| self.by_id.contains_key(hold));
            !holds.is_empty()
        });
    }

    /// The timetable of a live hold.
    #[must_use]
    pub fn timetable_of(&self, hold: HoldId) -> Option<TimetableId> {
        self.by_id.get(&hold).map(|timetable| *timetable)
    }

    /// The live holds of a user.
    #[must_use]
    pub fn of_user(&self, user: UserId) -> SmallVec<[HoldId; 2]> {
        self.by_user
            .get(&user)
            .map(|holds| holds.clone())
            .unwrap_or_default()
    }
}

/// The timetables on which orders wait for their money.
#[derive(Debug, Default)]
pub struct OpenOrders(DashMap<TimetableId, usize, foldhash::fast::RandomState>);

impl OpenOrders {
    /// A timetable has so many now.
    pub fn set(&self, timetable: TimetableId, open: usize) {
        if open == 0 {
            self.0.remove(&timetable);
        } else {
            self.0.insert(timetable, open);
        }
    }

    /// Whether there are any in `shards`.
    #[must_use]
    pub fn any(&self, shards: &ShardSet) -> bool {
        let mut timetables = self.0.iter();
        timetables.any(|open| shards.contains(shard_of(open.key().0)))
    }

    fn forget(&self, shards: &ShardSet) {
        self.0
            .retain(|timetable, _| !shards.contains(shard_of(timetable.0)));
    }
}

/// One server.
#[derive(Debug)]
pub struct Node {
    /// What it is called: the same over restarts.
    pub name: NodeId,
    /// How often it has started.
    pub incarnation: Incarnation,
    /// What time it is.
    pub clock: Clock,
    /// What outlives the process.
    pub store: Store,
    /// What is sold.
    pub catalogue: Arc<Catalogue>,
    /// Where decisions are written.
    pub lanes: Lanes,
    /// Which shards are its own.
    pub ownership: Arc<Ownership>,
    /// The way to those that aren't.
    pub route: Route,
    /// Keeps them, where there may be other nodes.
    pub keeper: OnceLock<Keeper>,
    /// How it is set up.
    pub options: Options,
    /// The published seat maps.
    pub boards: Boards,
    /// Where live holds are.
    pub holds: HoldIndex,
    /// Where orders are under way.
    pub open_orders: OpenOrders,
    /// How many more cancels may be under way.
    pub cancels: Arc<Semaphore>,
    /// The timetables.
    pub timetables: Handle<Timetable>,
    /// The accounts.
    pub accounts: Handle<Account>,
    /// The waiting rooms.
    pub queues: Handle<Queue>,
    /// The coupons.
    pub coupons: Handle<Coupon>,
    /// What they publish.
    pub coupon_boards: CouponBoards,
    /// What became of their claims.
    pub coupon_uses: CouponUses,
    /// What the waiting rooms publish.
    pub queue_boards: QueueBoards,
    /// Reads accounts for their actors.
    pub account_loader: AccountLoader,
}

impl Node {
    /// Has all actors forget what nobody uses, and take up what dead nodes have left;
    /// every [`SWEEP_EVERY`].
    pub fn sweep(&self) {
        self.timetables.directory().tell_all(|| Message::Sweep);
        self.accounts.directory().tell_all(|| Message::Sweep);
        self.queues.directory().tell_all(|| Message::Sweep);
        self.coupons.directory().tell_all(|| Message::Sweep);
    }

    /// Has all actors look at their deadlines again, because the clock has
    /// jumped.
    pub fn rearm(&self) {
        self.timetables.directory().tell_all(|| Message::Rearm);
        self.accounts.directory().tell_all(|| Message::Rearm);
        self.queues.directory().tell_all(|| Message::Rearm);
        self.coupons.directory().tell_all(|| Message::Rearm);
    }

    /// Has all rows of all checkpoints written again.
    pub fn rewrite_checkpoints(&self) {
        self.timetables
            .directory()
            .tell_all(|| Message::RewriteCheckpoints);
        self.queues
            .directory()
            .tell_all(|| Message::RewriteCheckpoints);
        self.coupons
            .directory()
            .tell_all(|| Message::RewriteCheckpoints);
    }

    /// Has all actors give up replies that have waited for too long.
    pub fn give_up(&self) {
        self.timetables.directory().tell_all(|| Message::GiveUp);
        self.accounts.directory().tell_all(|| Message::GiveUp);
        self.queues.directory().tell_all(|| Message::GiveUp);
        self.coupons.directory().tell_all(|| Message::GiveUp);
    }

    /// Forgets all entities of `shards`, because they were lost or come anew:
    /// whoever waits for one of them learns that the outcome is unknown.
    pub async fn empty(&self, shards: &ShardSet) {
        self.timetables.directory().empty(shards).await;
        self.accounts.directory().empty(shards).await;
        self.queues.directory().empty(shards).await;
        self.coupons.directory().empty(shards).await;
        self.forget(shards);
    }

    /// Forgets all entities of `shards`, which are clean and another node's.
    pub async fn dismiss(&self, shards: &ShardSet) {
        self.timetables.directory().dismiss(shards).await;
        self.accounts.directory().dismiss(shards).await;
        self.queues.directory().dismiss(shards).await;
        self.coupons.directory().dismiss(shards).await;
        self.forget(shards);
    }

    fn forget(&self, shards: &ShardSet) {
        self.holds.forget(shards);
        self.open_orders.forget(shards);
        self.boards.cool(shards);
        self.queue_boards.cool(shards);
        self.coupon_boards.cool(shards);
    }

    /// How many requests wait for entities of `shards`.
    #[must_use]
    pub fn waiting(&self, shards: &ShardSet) -> usize {
        self.timetables.directory().waiting(shards)
            + self.accounts.directory().waiting(shards)
            + self.queues.directory().waiting(shards)
            + self.coupons.directory().waiting(shards)
    }

    /// Has everything in `shards` loaded that has something to do by itself:
    /// holds that end, orders that were under way, people who wait.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn resume(&self, shards: &ShardSet) -> Result<(), StoreError> {
        for (timetable, sold, blocked) in self.store.seat_counts().await? {
            if let Some(plan) = self.catalogue.plan(timetable)
                && shards.contains(shard_of(timetable.0))
            {
                let available = plan.layout.capacity().saturating_sub(sold + blocked);
                self.board(&plan).count(SeatCounts {
                    available,
                    held: 0,
                    sold,
                    blocked,
                });
            }
        }
        let ids = (0..SHARDS).map(ShardId).filter(|id| shards.contains(*id));
        let ids: Vec<ShardId> = ids.collect();
        let mut to_wake = self.store.timetables_to_wake().await?;
        let mut with_people = self.store.queues_with_people(shards).await?;
        let mut coupons = self.store.coupons_in_doubt().await?;
        for entity in self.with_checkpoints(&ids).await {
            match entity.kind {
                EntityKind::Timetable => to_wake.push(TimetableId(entity.id)),
                EntityKind::Queue => with_people.push(PerformanceId(entity.id)),
                EntityKind::Coupon => coupons.push(CouponId(entity.id)),
                EntityKind::Account => {}
            }
        }
        for timetable in to_wake {
            if shards.contains(shard_of(timetable.0)) {
                self.timetables.wake(timetable.0).await;
            }
        }
        for user in self.store.accounts_in_doubt().await? {
            if shards.contains(shard_of(user.0)) {
                self.accounts.wake(user.0).await;
            }
        }
        self.wake_queues(with_people).await;
        for coupon in coupons {
            if shards.contains(shard_of(coupon.0)) {
                self.coupons.wake(coupon.0).await;
            }
        }
        Ok(())
    }

    /// How many seats of each timetable of this node are in which status.
    #[must_use]
    pub fn own_counts(&self) -> Vec<(TimetableId, SeatCounts)> {
        let ownership = &self.ownership;
        self.boards
            .all_counts(|id| ownership.is_here(shard_of(id.0)))
    }

    /// Asks the other nodes for those of theirs, for lists.
    pub async fn fetch_counts(&self) {
        let Some(peers) = self.route.peers() else {
            return;
        };
        for owner in self.ownership.others() {
            let counts: Result<Vec<(TimetableId, SeatCounts)>, _> =
                peers.query(&owner.address, "/internal/counts", &()).await;
            match counts {
                Ok(counts) => {
                    for (timetable, counts) in counts {
                        if let Some(plan) = self.catalogue.plan(timetable) {
                            self.board(&plan).count(counts);
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, node.id = %owner.node, "counts could not be fetched");
                }
            }
        }
    }

    /// Tells the metrics what is known of the actors, the shards and what waits to
    /// be written.
    pub fn observe(&self) {
        observe(self.timetables.directory());
        observe(self.accounts.directory());
        observe(self.queues.directory());
        observe(self.coupons.directory());
        let owned = self.ownership.owned();
        telemetry::owned(telemetry::Owned {
            shards: owned.len(),
            epoch: owned
                .iter()
                .map(|(_, epoch)| *epoch)
                .max()
                .unwrap_or_default(),
            lease_left: self.ownership.lease_left(),
        });
        let lanes = &self.lanes;
        telemetry::dirty(
            lanes.dirty_bytes(),
            lanes.dirty_bytes_max(),
            lanes.dirty_age(),
        );
    }

    /// The seat map of the timetable of `plan`.
    #[must_use]
    pub fn board(&self, plan: &Plan) -> Arc<Board> {
        self.boards.open(plan.timetable_id, || SeatCounts {
            available: plan.layout.capacity(),
            ..SeatCounts::default()
        })
    }
}

#[allow(clippy::cast_precision_loss, reason = "metrics")]
fn observe<M: Hosted>(directory: &Directory<M>) {
    let metrics = ActorMetrics::for_kind(M::KIND.as_str());
    let hosts = directory.all();
    let waiting: usize = hosts.iter().map(|(_, host)| host.depth()).sum();
    metrics.live.set(hosts.len() as f64);
    metrics.mailbox.set(waiting as f64);
    let limit = directory.permits_max();
    let used = hosts.iter().map(|(_, host)| host.permits_used(limit));
    let (sum, fullest) = used.fold((0, 0), |(sum, max), used| (sum + used, used.max(max)));
    metrics.permits_used.set(sum as f64);
    metrics.permits_used_fullest.set(fullest as f64);
    metrics.permits_limit.set(limit as f64);
}
