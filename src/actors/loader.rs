//! Reads entities back from the store, after everything that was decided about
//! them before has been written.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::mpsc;

use super::Message;
use super::node::Node;
use crate::clock::monotonic;
use crate::domain::account::Account;
use crate::domain::coupon::Coupon;
use crate::domain::ids::{CouponId, EntityId, PerformanceId, Stamp, TimetableId, UserId};
use crate::domain::queue::Queue;
use crate::domain::timetable::Timetable;
use crate::persistence::StoreError;
use crate::persistence::checkpoint::Row;
use crate::telemetry;
#[cfg(feature = "sabotage")]
use crate::{
    domain::queue::restore::QueueState,
    persistence::store::entities::Loaded,
    sabotage::{self, Switch},
};

/// How many accounts may wait to be read.
pub const ACCOUNTS_WAITING_MAX: usize = 65_536;

/// How many are read in one go.
const ACCOUNTS_READ_MAX: usize = 512;

/// How often a read is tried while the store is busy, and how long apart.
const READ_TRIES_MAX: u32 = 5;
const READ_PAUSE: Duration = Duration::from_millis(200);

/// How long a checkpoint that could be used lately is waited for.
const CHECKPOINT_WAIT_MAX: Duration = Duration::from_secs(2);

/// An entity as it was read.
#[derive(Debug)]
pub struct Entity<M> {
    /// Its state.
    pub machine: M,
    /// The version of its rows.
    pub stamp: Stamp,
    /// The number of its last published event.
    pub last_event_seq: u64,
    /// What its checkpoint knows more than that version, oldest first.
    pub checkpoint: Vec<Row>,
}

/// An account that somebody waits for.
#[derive(Debug)]
pub struct WantedAccount {
    user: UserId,
    host: ActorRef<Message<Account>>,
}

/// The door of the account loader.
#[derive(Clone, Debug)]
pub struct AccountLoader {
    wanted: mpsc::Sender<WantedAccount>,
}

impl AccountLoader {
    /// The door, and the line behind it, for [`read_accounts`].
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<WantedAccount>) {
        let (wanted, line) = mpsc::channel(ACCOUNTS_WAITING_MAX);
        (Self { wanted }, line)
    }

    /// Has an account read and sent to `host`; `false` if too many wait.
    #[must_use]
    pub fn want(&self, user: UserId, host: ActorRef<Message<Account>>) -> bool {
        self.wanted.try_send(WantedAccount { user, host }).is_ok()
    }
}

/// Reads accounts, many in one go, for as long as the node lives.
pub async fn read_accounts(node: Arc<Node>, mut line: mpsc::Receiver<WantedAccount>) {
    let mut wanted = Vec::new();
    while line.recv_many(&mut wanted, ACCOUNTS_READ_MAX).await > 0 {
        let mut users = Vec::with_capacity(wanted.len());
        for one in &wanted {
            node.lanes.settled(EntityId::from(one.user)).await;
            users.push(one.user);
        }
        let now = node.clock.now();
        let mut read = match retried(|| node.store.load_accounts(&users, now)).await {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "accounts could not be read");
                std::collections::HashMap::new()
            }
        };
        for WantedAccount { user, host } in wanted.drain(..) {
            let loaded = read.remove(&user).map(|account| {
                Box::new(Entity {
                    machine: account.state,
                    stamp: account.stamp,
                    last_event_seq: account.last_event_seq,
                    checkpoint: Vec::new(),
                })
            });
            let _ = host.cast(Message::Loaded { id: user.0, loaded });
        }
    }
}

/// Reads a timetable and sends it to `host`, whatever happens on the way.
pub async fn read_timetable(node: Arc<Node>, id: TimetableId, host: ActorRef<Message<Timetable>>) {
    let reading = tokio::spawn(timetable(node, id));
    // A panic is reported by its hook; who waits is told that there is nothing.
    let loaded = reading.await.unwrap_or_default();
    let _ = host.cast(Message::Loaded { id: id.0, loaded });
}

async fn timetable(node: Arc<Node>, id: TimetableId) -> Option<Box<Entity<Timetable>>> {
    node.lanes.settled(EntityId::from(id)).await;
    let plan = node.catalogue.plan(id)?;
    let stored = retried(|| node.store.load_timetable(id)).await;
    match stored {
        Ok(stored) => Some(Box::new(Entity {
            machine: Timetable::restore(plan, stored.state),
            stamp: stored.stamp,
            last_event_seq: stored.last_event_seq,
            checkpoint: checkpoint(&node, id.into(), stored.stamp).await,
        })),
        Err(error) => {
            tracing::warn!(%error, timetable.id = %id, "a timetable could not be read");
            None
        }
    }
}

/// Reads a queue and sends it to `host`, whatever happens on the way.
pub async fn read_queue(node: Arc<Node>, id: PerformanceId, host: ActorRef<Message<Queue>>) {
    let reading = tokio::spawn(queue(node, id));
    // As of timetables.
    let loaded = reading.await.unwrap_or_default();
    let _ = host.cast(Message::Loaded { id: id.0, loaded });
}

async fn queue(node: Arc<Node>, id: PerformanceId) -> Option<Box<Entity<Queue>>> {
    node.lanes.settled(EntityId::from(id)).await;
    let plan = Arc::new(node.queue_plan(id)?);
    let now = node.clock.now();
    // Without them it admits nobody, and asks again.
    if let Err(error) = retried(|| node.count_seats(id)).await {
        tracing::warn!(%error, performance.id = %id, "the seats of a queue could not be counted");
    }
    let stored = retried(|| node.store.load_queue(id, now)).await;
    #[cfg(feature = "sabotage")]
    let stored = stored.map(forget_block_in_a_broken_build);
    match stored {
        Ok(stored) => Some(Box::new(Entity {
            machine: Queue::restore(plan, stored.state),
            stamp: stored.stamp,
            last_event_seq: stored.last_event_seq,
            checkpoint: checkpoint(&node, id.into(), stored.stamp).await,
        })),
        Err(error) => {
            tracing::warn!(%error, performance.id = %id, "a queue could not be read");
            None
        }
    }
}

/// As if no number had been given out but those of places that were written.
#[cfg(feature = "sabotage")]
fn forget_block_in_a_broken_build(mut stored: Loaded<QueueState>) -> Loaded<QueueState> {
    if sabotage::is_on(Switch::ForgetBlock) {
        let queue = &mut stored.state.queue;
        queue.reserved_upto.0 = queue.next.0 - 1;
    }
    stored
}

/// Reads a coupon and sends it to `host`, whatever happens on the way.
pub async fn read_coupon(node: Arc<Node>, id: CouponId, host: ActorRef<Message<Coupon>>) {
    let reading = tokio::spawn(coupon(node, id));
    // As of timetables.
    let loaded = reading.await.unwrap_or_default();
    let _ = host.cast(Message::Loaded { id: id.0, loaded });
}

/// Its checkpoint isn't read: what it tells, the database decides.
async fn coupon(node: Arc<Node>, id: CouponId) -> Option<Box<Entity<Coupon>>> {
    node.lanes.settled(EntityId::from(id)).await;
    match retried(|| node.store.load_coupon(id)).await {
        Ok(stored) => Some(Box::new(Entity {
            machine: Coupon::restore(id, stored.state),
            stamp: stored.stamp,
            last_event_seq: stored.last_event_seq,
            checkpoint: Vec::new(),
        })),
        Err(error) => {
            tracing::warn!(%error, coupon.id = %id, "a coupon could not be read");
            None
        }
    }
}

/// What the checkpoint of `entity` knows more than a database at `watermark`.
///
/// If it can't be read, that is nothing: what was acknowledged by a checkpoint
/// and is in no database is lost then, and everything else is as it should be.
/// So who only loses a connection is waited for.
async fn checkpoint(node: &Node, entity: EntityId, watermark: Stamp) -> Vec<Row> {
    let Some((checkpoints, health)) = node.lanes.checkpoints() else {
        return Vec::new();
    };
    let begun = monotonic();
    loop {
        match checkpoints.read(entity).await {
            Ok(found) => return found.map_or_else(Vec::new, |found| found.above(watermark)),
            Err(error) => {
                let is_known_lost = health.usable().is_none();
                if is_known_lost || begun.elapsed() > CHECKPOINT_WAIT_MAX {
                    tracing::warn!(
                        %error,
                        entity.id = %entity.id,
                        "a checkpoint can't be read; recovering from the store alone"
                    );
                    telemetry::recovered_without_checkpoint();
                    return Vec::new();
                }
            }
        }
        tokio::time::sleep(READ_PAUSE).await;
    }
}

/// Reads again for a while if the store is busy: at start everything is read at
/// once.
async fn retried<T, F>(read: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut tries = 1;
    loop {
        match read().await {
            Err(error) if error.is_transient() && tries < READ_TRIES_MAX => {
                tries += 1;
                tokio::time::sleep(READ_PAUSE).await;
            }
            result => return result,
        }
    }
}
