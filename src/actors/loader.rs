//! Reads entities back from the store, after everything that was decided about
//! them before has been written.

use std::sync::Arc;

use ractor::ActorRef;
use tokio::sync::mpsc;

use super::Message;
use super::node::Node;
use crate::domain::account::Account;
use crate::domain::ids::{EntityId, Stamp, TimetableId, UserId};
use crate::domain::timetable::Timetable;

/// How many accounts may wait to be read.
pub const ACCOUNTS_WAITING_MAX: usize = 65_536;

/// How many are read in one go.
const ACCOUNTS_READ_MAX: usize = 512;

/// An entity as it was read.
#[derive(Debug)]
pub struct Entity<M> {
    /// Its state.
    pub machine: M,
    /// The version of its rows.
    pub stamp: Stamp,
    /// The number of its last published event.
    pub last_event_seq: u64,
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
            node.lane.settled(EntityId::from(one.user)).await;
            users.push(one.user);
        }
        let mut read = match node.store.load_accounts(&users, node.clock.now()).await {
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
                })
            });
            let _ = host.cast(Message::Loaded { id: user.0, loaded });
        }
    }
}

/// Reads a timetable and sends it to `host`.
pub async fn read_timetable(node: Arc<Node>, id: TimetableId, host: ActorRef<Message<Timetable>>) {
    node.lane.settled(EntityId::from(id)).await;
    let loaded = match (node.catalogue.plan(id), node.store.load_timetable(id).await) {
        (Some(plan), Ok(stored)) => Some(Box::new(Entity {
            machine: Timetable::restore(plan, stored.state),
            stamp: stored.stamp,
            last_event_seq: stored.last_event_seq,
        })),
        (None, _) => None,
        (_, Err(error)) => {
            tracing::warn!(%error, timetable.id = %id, "a timetable could not be read");
            None
        }
    };
    let _ = host.cast(Message::Loaded { id: id.0, loaded });
}
