//! Keeps this node's ownership in step with the database: renews the lease,
//! notices what was gained and lost, takes the shards of nodes that died, and
//! hands over those that others should have.
//!
//! Three tasks, so that none waits for another: the heart beats over its own
//! connection; the keeper acts on what the heart has seen; the probe notices
//! processes that are gone before their lease is.

mod probe;
mod pulse;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use self::probe::probe;
use self::pulse::Pulse;
use super::node::Node;
use super::ownership::{Owner, Shard};
use crate::domain::ids::{Epoch, Incarnation, NodeId, ShardId, ShardSet};
use crate::domain::placement::Placement;
use crate::domain::time::{Millis, Timestamp};
use crate::persistence::StoreError;
use crate::persistence::lease::{Claim, Ground, LEASE_TTL, Registered, View};
use crate::persistence::postgres::lease::{Claims, Heart};
use crate::telemetry;

/// How many shards are handed over in one go: their commands are parked
/// meanwhile, so that it must be quick.
const HANDED_OVER_AT_ONCE: usize = 128;

/// How long the flush before a hand-over may take; it is tried again later.
const FLUSH_MAX: Duration = Duration::from_millis(400);

/// How often it is looked whether the mailboxes are empty.
const FLUSH_PAUSE: Duration = Duration::from_millis(2);

/// How long a node that ends tries to hand its shards over.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// How often entities that have something to do are looked for in the store,
/// after a take-over, while it can't be read.
const RESUME_TRIES_MAX: u32 = 50;
const RESUME_PAUSE: Duration = Duration::from_millis(200);

type Life = (NodeId, Incarnation);

/// What the last renewal told.
#[derive(Debug)]
pub struct Seen {
    /// What the database said.
    pub view: View,
    /// Renewals have gone on for a full term: others had the time to renew
    /// theirs after an outage of the database.
    steady: bool,
}

#[derive(Debug)]
struct Shared {
    seen: watch::Sender<Option<Arc<Seen>>>,
    /// Asks for a renewal right now.
    look: Notify,
    leaving: AtomicBool,
    /// Processes that are gone.
    gone: Mutex<HashSet<Life>>,
    /// How far the clock may be off.
    uncertainty: watch::Sender<Duration>,
    me: Registered,
}

/// The keeper, for the rest of the program. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
}

/// What the keeper works with.
#[derive(Debug)]
pub struct Parts {
    /// Which life of this node it keeps.
    pub me: Registered,
    /// Renews its lease.
    pub heart: Heart,
    /// Takes shards, and hands them over.
    pub claims: Claims,
}

impl Keeper {
    /// Begins to keep `node`. When this returns, the node has a lease, and the
    /// shards that it could have at once.
    ///
    /// # Errors
    /// If the lease can't be had.
    pub async fn start(
        node: &Arc<Node>,
        parts: Parts,
    ) -> Result<(Self, Vec<JoinHandle<()>>), StoreError> {
        let Parts { me, heart, claims } = parts;
        let shared = Arc::new(Shared {
            seen: watch::Sender::new(None),
            look: Notify::new(),
            leaving: AtomicBool::new(false),
            gone: Mutex::default(),
            uncertainty: watch::Sender::new(Duration::ZERO),
            me,
        });
        let mut pulse = Pulse::new(node, &shared, heart);
        let mut hands = Hands {
            node: Arc::clone(node),
            shared: Arc::clone(&shared),
            claims,
        };
        pulse.beat().await?;
        let seen = shared.seen.borrow().clone();
        if let Some(seen) = seen {
            hands.act(&seen).await;
        }
        let tasks = vec![
            tokio::spawn(pulse.run()),
            tokio::spawn(hands.run()),
            tokio::spawn(probe(Arc::clone(&shared))),
        ];
        Ok((Self { shared }, tasks))
    }

    /// Something has changed in the database: look at once.
    pub fn look(&self) {
        self.shared.look.notify_one();
    }

    /// What the last renewal told.
    #[must_use]
    pub fn seen(&self) -> Option<Arc<Seen>> {
        self.shared.seen.borrow().clone()
    }

    /// Which life of this node is kept.
    #[must_use]
    pub fn me(&self) -> &Registered {
        &self.shared.me
    }

    /// How far the node's clock may be off the database's.
    #[must_use]
    pub fn uncertainty(&self) -> Duration {
        *self.shared.uncertainty.borrow()
    }

    /// Hands all shards over, as far as there is somebody to take them. Returns
    /// when none is left, or when it takes too long.
    pub async fn leave(&self, node: &Node) {
        self.shared.leaving.store(true, Ordering::Relaxed);
        self.look();
        let mut seen = self.shared.seen.subscribe();
        let handed_over = async {
            loop {
                // A view after the change, and what the keeper made of it.
                if seen.changed().await.is_err() || node.ownership.owned().is_empty() {
                    return;
                }
                let view = seen.borrow_and_update().clone();
                let alone = view.is_none_or(|seen| {
                    let mut live = seen.view.live();
                    !live.any(|member| member.owner.node != self.shared.me.node)
                });
                if alone {
                    return;
                }
                self.look();
            }
        };
        if tokio::time::timeout(LEAVE_MAX, handed_over).await.is_err() {
            tracing::warn!("not all shards could be handed over; others take them later");
        }
    }
}

/// Takes and hands over.
struct Hands {
    node: Arc<Node>,
    shared: Arc<Shared>,
    claims: Claims,
}

impl Hands {
    async fn run(mut self) {
        let mut seen = self.shared.seen.subscribe();
        while seen.changed().await.is_ok() {
            let latest = seen.borrow_and_update().clone();
            if let Some(latest) = latest {
                self.act(&latest).await;
            }
        }
    }

    async fn act(&mut self, seen: &Seen) {
        self.follow(&seen.view).await;
        let leaving = self.shared.leaving.load(Ordering::Relaxed);
        let gone = self.shared.gone.lock().clone();
        let live = seen.view.live().filter(|member| {
            let life = (member.owner.node.clone(), member.owner.incarnation);
            !gone.contains(&life)
        });
        let live = live.map(|member| member.owner.node.clone());
        let me = &self.shared.me.node;
        let placement = if leaving {
            Placement::over(live.filter(|node| node != me))
        } else {
            Placement::over(live.chain([me.clone()]))
        };
        if !leaving {
            for claim in self.claims_of(seen, &placement, &gone) {
                self.take(&seen.view, claim).await;
            }
        }
        self.give(&seen.view, &placement).await;
    }

    /// Brings what this node believes in step with what the database said. The
    /// view may be older than what this node has done since: the higher epoch is
    /// the later truth.
    async fn follow(&mut self, view: &View) {
        let ownership = Arc::clone(&self.node.ownership);
        let mut lost = ShardSet::EMPTY;
        let mut gained = Vec::new();
        for (shard, assigned) in view.assigned() {
            let to = assigned.to.as_ref();
            let is_mine = to.is_some_and(|to| self.shared.me.is(to));
            match ownership.state(shard) {
                Shard::Ours { epoch, .. } | Shard::HandingOver { epoch, .. } => {
                    if epoch > assigned.epoch || (epoch == assigned.epoch && is_mine) {
                        continue;
                    }
                    lost.insert(shard);
                }
                Shard::Elsewhere { epoch, .. } if epoch > assigned.epoch => continue,
                Shard::Elsewhere { .. } => {}
            }
            if is_mine {
                gained.push((shard, assigned.epoch));
            }
            let owner = to.filter(|_| !is_mine).and_then(|to| owner_of(view, to));
            // Ours only once it is gained, below.
            let epoch = Epoch(assigned.epoch.0 - u32::from(is_mine));
            ownership.lose(shard, owner, epoch);
        }
        if !lost.is_empty() {
            tracing::warn!(shards = lost.len(), "lost shards to another node");
            self.node.empty(&lost).await;
        }
        // Handed over by their owner in order: none of their holds lost time.
        self.gain(&gained, None).await;
    }

    /// What should be taken from whom.
    fn claims_of(&self, seen: &Seen, placement: &Placement, gone: &HashSet<Life>) -> Vec<Claim> {
        let me = &self.shared.me;
        let mut claims: HashMap<Option<Life>, Claim> = HashMap::new();
        for (shard, assigned) in seen.view.assigned() {
            let Shard::Elsewhere { epoch, .. } = self.node.ownership.state(shard) else {
                continue;
            };
            if epoch > assigned.epoch {
                continue;
            }
            let is_own_past = |life: &Life| life.0 == me.node && life.1 < me.incarnation;
            let is_mine_anyway = assigned.to.as_ref().is_some_and(is_own_past);
            if !is_mine_anyway && placement.owner(shard) != Some(&me.node) {
                continue;
            }
            let ground = match &assigned.to {
                None => Some(Ground::Gone),
                Some(life) if is_mine_anyway || gone.contains(life) => Some(Ground::Gone),
                Some((node, _)) => {
                    let member = seen.view.member(node);
                    let expired = member.is_some_and(|member| !member.lives());
                    (expired && seen.steady).then_some(Ground::Expired)
                }
            };
            let Some(ground) = ground else { continue };
            let claim = claims.entry(assigned.to.clone()).or_insert_with(|| Claim {
                from: assigned.to.clone(),
                ground,
                shards: Vec::new(),
            });
            claim.shards.push((shard, assigned.epoch, Epoch(0)));
        }
        claims.into_values().collect()
    }

    async fn take(&mut self, view: &View, mut claim: Claim) {
        if !self.node.fence_before(&mut claim).await {
            return;
        }
        let taken = match self.claims.claim(&claim).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(%error, "shards could not be taken");
                return;
            }
        };
        let alive_before = claim.from.as_ref().and_then(|(node, _)| {
            if *node == self.shared.me.node {
                return self.shared.me.alive_before;
            }
            let left = view.member(node)?.lease_left;
            Some(view.now.plus(left).plus(Millis(-LEASE_TTL.0)))
        });
        if let Some(life) = &claim.from {
            // An open batch of a frozen process would hold up those that are left.
            if let Err(error) = self.claims.terminate(life).await {
                tracing::warn!(%error, "old connections could not be ended");
            }
            if !taken.is_empty() {
                tracing::warn!(
                    node.id = %life.0,
                    node.incarnation = life.1.0,
                    shards = taken.len(),
                    "took over shards"
                );
                telemetry::took_over();
            }
        }
        if taken.len() < claim.shards.len() {
            self.shared.look.notify_one();
        }
        self.gain(&taken, alive_before).await;
    }

    /// Begins to serve `shards`, which are this node's in the database.
    async fn gain(&self, shards: &[(ShardId, Epoch)], alive_before: Option<Timestamp>) {
        if shards.is_empty() {
            return;
        }
        let set: ShardSet = shards.iter().map(|(shard, _)| *shard).collect();
        // Nothing of an earlier time may be left, neither state nor a load.
        self.node.empty(&set).await;
        self.node.fence(shards).await;
        for (shard, epoch) in shards {
            self.node.ownership.gain(*shard, *epoch, alive_before);
        }
        tokio::spawn(resume(Arc::clone(&self.node), set));
    }

    /// Hands over what others should have.
    async fn give(&mut self, view: &View, placement: &Placement) {
        let mut parting: HashMap<NodeId, Vec<(ShardId, Epoch)>> = HashMap::new();
        for (shard, epoch) in self.node.ownership.owned() {
            if let Some(to) = placement.owner(shard)
                && *to != self.shared.me.node
            {
                parting.entry(to.clone()).or_default().push((shard, epoch));
            }
        }
        for (to, shards) in parting {
            let Some(member) = view.member(&to) else {
                continue;
            };
            for some in shards.chunks(HANDED_OVER_AT_ONCE) {
                self.hand_over(&member.owner, some).await;
            }
            if let Some(peers) = self.node.route.peers() {
                let told = peers
                    .query::<_, ()>(&member.owner.address, "/internal/look", &())
                    .await;
                if let Err(error) = told {
                    tracing::debug!(%error, "the successor finds its shards with its next heartbeat");
                }
            }
        }
    }

    async fn hand_over(&mut self, to: &Owner, shards: &[(ShardId, Epoch)]) {
        let ownership = Arc::clone(&self.node.ownership);
        let parked = shards
            .iter()
            .filter(|(shard, _)| ownership.begin_hand_over(*shard, to.node.clone()));
        let parked: Vec<(ShardId, Epoch)> = parked.copied().collect();
        let set: ShardSet = parked.iter().map(|(shard, _)| *shard).collect();
        let flushed = tokio::time::timeout(FLUSH_MAX, self.flush(&set)).await;
        let given = match flushed {
            Err(_) => {
                tracing::info!("the flush before a hand-over takes too long; trying again");
                Vec::new()
            }
            Ok(()) => {
                let life = (to.node.clone(), to.incarnation);
                let given = self.claims.hand_over(&life, &parked).await;
                given.unwrap_or_else(|error| {
                    tracing::warn!(%error, "a hand-over failed");
                    // If it was done after all, the next view tells, and the fence
                    // keeps us from writing anything until then.
                    Vec::new()
                })
            }
        };
        let gave: ShardSet = given.iter().copied().collect();
        for (shard, epoch) in &parked {
            if gave.contains(*shard) {
                ownership.lose(*shard, Some(to.clone()), Epoch(epoch.0 + 1));
            } else {
                ownership.keep(*shard);
            }
        }
        self.node.dismiss(&gave).await;
        if !gave.is_empty() {
            tracing::info!(shards = gave.len(), node.id = %to.node, "handed shards over");
        }
    }

    /// Returns once nothing of `shards` waits to be decided or written, and no
    /// order is open there: that is in memory alone.
    async fn flush(&self, shards: &ShardSet) {
        loop {
            while self.node.waiting(shards) > 0 || self.node.open_orders.any(shards) {
                tokio::time::sleep(FLUSH_PAUSE).await;
            }
            self.node.lanes.settled_shards(shards).await;
            if self.node.waiting(shards) == 0 && !self.node.open_orders.any(shards) {
                return;
            }
        }
    }
}

/// The node behind `life`, if the database knows that life of it.
fn owner_of(view: &View, life: &Life) -> Option<Owner> {
    let member = view.member(&life.0)?;
    (member.owner.incarnation == life.1).then(|| member.owner.clone())
}

/// Has everything in `shards` loaded that has something to do by itself: holds
/// that end, orders that were under way.
async fn resume(node: Arc<Node>, shards: ShardSet) {
    for _ in 0..RESUME_TRIES_MAX {
        match node.resume(&shards).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "what has to go on could not be read"),
        }
        tokio::time::sleep(RESUME_PAUSE).await;
    }
}
