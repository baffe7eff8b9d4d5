//! What operators see of the actors: a row for each, of all nodes; and what one
//! entity says of itself.

use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use super::Message;
use super::directory::{Directory, HostRef};
use super::host::{Entities, Host, Hosted, Slot};
use super::node::Node;
use super::stats::Reading;
use crate::domain::ids::{CouponId, EntityKind, PerformanceId, TimetableId, shard_of};
use crate::domain::time::Timestamp;

/// How long an actor of this node may take to say how it is: it may have a full
/// mailbox.
const OBSERVE_MAX: Duration = Duration::from_secs(2);

/// How many rows one question may ask for.
const ROWS_MAX: usize = 101;

/// How an actor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ActorState {
    /// Its entity is being read.
    Loading,
    /// It takes commands.
    Running,
    /// It has no entity in memory, and ends soon.
    Idle,
    /// An entity of it isn't read again until the process starts anew.
    Quarantined,
    /// It ends.
    Stopping,
}

impl ActorState {
    /// The name that operators see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Running => "running",
            Self::Idle => "idle",
            Self::Quarantined => "quarantined",
            Self::Stopping => "stopping",
        }
    }

    fn of(reading: &Reading, is_alive: bool) -> Self {
        if !is_alive {
            Self::Stopping
        } else if reading.quarantined > 0 {
            Self::Quarantined
        } else if reading.entities == 0 {
            Self::Idle
        } else if reading.loading >= reading.entities {
            Self::Loading
        } else {
            Self::Running
        }
    }
}

/// Where an actor stands in the list of all.
pub type Place = (EntityKind, String, String);

/// One actor, at one moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ActorRow {
    /// What it runs.
    pub kind: EntityKind,
    /// The id of its entity; `shard-0017` for the accounts of a shard.
    pub name: String,
    /// What people call it, if anything.
    pub title: Option<String>,
    /// The node that it runs on.
    pub node: String,
    /// See [`ActorState`].
    pub state: ActorState,
    /// Entities in memory.
    pub entities: u64,
    /// Requests in its mailbox.
    pub mailbox_depth: u64,
    /// Places at its door that are taken: requests that have no answer yet.
    pub permits_in_use: u64,
    /// Messages handled, and the time that took.
    pub messages: u64,
    /// Likewise.
    pub busy_ns: u64,
    /// The mean of that time.
    pub mean_ns: u64,
    /// The time that half, or 99 %, of the messages were done within.
    pub p50_ns: u64,
    /// Likewise.
    pub p99_ns: u64,
    /// How often an entity of it was discarded and read again.
    pub restarts: u32,
    /// Since when it runs, in milliseconds.
    pub uptime_ms: u64,
}

impl ActorRow {
    /// Where it stands in the list.
    #[must_use]
    pub fn place(&self) -> Place {
        (self.kind, self.name.clone(), self.node.clone())
    }
}

/// A page of the list.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// In order; one more than was asked for, if there are more.
    pub rows: Vec<ActorRow>,
    /// The nodes that did not answer in time: their actors aren't listed.
    pub unanswered: Vec<String>,
}

/// One entity in memory, and what it says of itself.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Observed {
    /// Its actor.
    pub actor: ActorRow,
    /// `None` while it is being read, and in quarantine.
    pub life: Option<Life>,
}

/// The life of an entity in memory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Life {
    /// The epoch of its shard in which it was loaded.
    pub epoch: u32,
    /// Which of its lives in that epoch.
    pub activation: u32,
    /// Its last decision.
    pub seq: u64,
    /// The last one that is in the database.
    pub stored_seq: u64,
    /// Replies that wait until they are durable.
    pub parked_replies: u64,
    /// When it was last asked.
    pub used_at: Timestamp,
    /// When it has something to do by itself.
    pub next_deadline: Option<Timestamp>,
    /// Its state, as JSON: the bodies between nodes can't carry free forms.
    pub state: String,
}

impl Node {
    /// The actors of this node that stand after `after`, in order: at most
    /// `limit`.
    #[must_use]
    pub fn own_actors(&self, after: Option<&Place>, limit: usize) -> Vec<ActorRow> {
        let mut rows = self.rows_of(self.timetables.directory());
        rows.extend(self.rows_of(self.accounts.directory()));
        rows.extend(self.rows_of(self.queues.directory()));
        rows.extend(self.rows_of(self.coupons.directory()));
        rows.retain(|row| after.is_none_or(|after| row.place() > *after));
        rows.sort_unstable_by_key(ActorRow::place);
        rows.truncate(limit.min(ROWS_MAX));
        for row in &mut rows {
            row.title = self.title_of(row.kind, &row.name);
        }
        rows
    }

    /// The actor of this node at `key` of the directory of `kind`, if it lives.
    #[must_use]
    pub fn own_actor(&self, kind: EntityKind, key: Uuid) -> Option<ActorRow> {
        let mut row = match kind {
            EntityKind::Timetable => self.row_of(self.timetables.directory(), key),
            EntityKind::Account => self.row_of(self.accounts.directory(), key),
            EntityKind::Queue => self.row_of(self.queues.directory(), key),
            EntityKind::Coupon => self.row_of(self.coupons.directory(), key),
        }?;
        row.title = self.title_of(kind, &row.name);
        Some(row)
    }

    /// The actors of all nodes that stand after `after`, in order: at most
    /// `limit`. Each node has the time of one call between nodes; one that
    /// doesn't answer by then is named.
    pub async fn actors(&self, after: Option<Place>, limit: usize) -> Rows {
        let mut found = Rows {
            rows: self.own_actors(after.as_ref(), limit),
            unanswered: Vec::new(),
        };
        let Some(peers) = self.route.peers() else {
            return found;
        };
        let question = &(after, limit as u64);
        let asked = self.ownership.others().into_iter().map(|owner| async move {
            let rows = peers
                .query::<_, Vec<ActorRow>>(&owner.address, "/internal/actors", question)
                .await;
            (owner.node, rows)
        });
        for (node, rows) in join_all(asked).await {
            match rows {
                Ok(rows) => found.rows.extend(rows),
                Err(error) => {
                    tracing::debug!(%error, node.id = %node, "a node did not list its actors");
                    found.unanswered.push(node.to_string());
                }
            }
        }
        found.rows.sort_unstable_by_key(ActorRow::place);
        found.rows.dedup_by_key(|row| row.place());
        found.rows.truncate(limit);
        found.unanswered.sort_unstable();
        found.unanswered.dedup();
        found
    }

    /// What entity `id` says of itself, on whichever node it is; `None` if it
    /// isn't in memory.
    ///
    /// # Errors
    /// The name of the node that should have answered.
    pub async fn observe_entity(
        &self,
        kind: EntityKind,
        id: Uuid,
    ) -> Result<Option<Observed>, String> {
        let owner = self.ownership.owner(shard_of(id));
        let (Some(peers), Some(owner)) = (self.route.peers(), owner) else {
            return Ok(self.observe_own(kind, id).await);
        };
        let question = &(kind, id);
        peers
            .query(&owner.address, "/internal/observe", question)
            .await
            .map_err(|error| {
                tracing::debug!(%error, node.id = %owner.node, "an entity could not be observed");
                owner.node.to_string()
            })
    }

    /// The same, if it is on this node.
    pub async fn observe_own(&self, kind: EntityKind, id: Uuid) -> Option<Observed> {
        match kind {
            EntityKind::Timetable => self.observe_in(self.timetables.directory(), id).await,
            EntityKind::Account => self.observe_in(self.accounts.directory(), id).await,
            EntityKind::Queue => self.observe_in(self.queues.directory(), id).await,
            EntityKind::Coupon => self.observe_in(self.coupons.directory(), id).await,
        }
    }

    async fn observe_in<M: Hosted>(&self, directory: &Directory<M>, id: Uuid) -> Option<Observed> {
        let host = directory.running(id)?;
        let (reply, answer) = oneshot::channel();
        host.tell(Message::Observe { id, reply }).ok()?;
        let seen = timeout(OBSERVE_MAX, answer).await.ok()?.ok()??;
        let mut actor = self.row(M::host_key(id), &host, directory.permits_max());
        actor.title = self.title_of(M::KIND, &actor.name);
        Some(Observed { actor, life: seen })
    }

    fn rows_of<M: Hosted>(&self, directory: &Directory<M>) -> Vec<ActorRow> {
        let hosts = directory.all();
        hosts
            .iter()
            .map(|(key, host)| self.row(*key, host, directory.permits_max()))
            .collect()
    }

    fn row_of<M: Hosted>(&self, directory: &Directory<M>, key: Uuid) -> Option<ActorRow> {
        let host = directory.at(key)?;
        Some(self.row(key, &host, directory.permits_max()))
    }

    fn row<M: Hosted>(&self, key: Uuid, host: &HostRef<M>, permits_max: usize) -> ActorRow {
        let read = host.stats().read();
        ActorRow {
            kind: M::KIND,
            name: M::host_name(key),
            title: None,
            node: self.name.to_string(),
            state: ActorState::of(&read, host.is_alive()),
            entities: read.entities as u64,
            mailbox_depth: read.depth as u64,
            permits_in_use: host.permits_used(permits_max) as u64,
            messages: read.messages,
            busy_ns: read.busy_ns,
            mean_ns: read.mean_ns,
            p50_ns: read.p50_ns,
            p99_ns: read.p99_ns,
            restarts: read.restarts,
            uptime_ms: u64::try_from(read.uptime.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// What people call an actor: the title of its performance, and of a date
    /// when it is.
    #[must_use]
    pub fn title_of(&self, kind: EntityKind, name: &str) -> Option<String> {
        let id: Uuid = name.parse().ok()?;
        match kind {
            EntityKind::Timetable => {
                let (performance, date) = self.catalogue.timetable(TimetableId(id))?;
                let starts_at = date.row.starts_at.to_string();
                // RFC 3339 in UTC, to the minute.
                let (day, time) = (starts_at.get(..10)?, starts_at.get(11..16)?);
                Some(format!("{} · {day} {time} UTC", performance.row.title))
            }
            EntityKind::Queue => self.catalogue.title(PerformanceId(id)),
            EntityKind::Coupon => {
                let view = self.coupon_boards.get(CouponId(id))?;
                Some(view.terms.name.clone())
            }
            EntityKind::Account => None,
        }
    }
}

impl<M: Hosted> Host<M> {
    /// How entity `id` is: `None` if it isn't in memory, `Some(None)` while it
    /// is being read or if it won't be.
    pub(super) fn observe(&self, state: &Entities<M>, id: Uuid) -> Option<Option<Life>> {
        let shell = match state.slot(id) {
            Some(Slot::Alive(shell)) => shell,
            Some(Slot::Loading(_)) => return Some(None),
            None => return state.is_quarantined(id).then_some(None),
        };
        let now = self.node().clock.now();
        Some(Some(Life {
            epoch: shell.epoch().0,
            activation: shell.activation().0,
            seq: shell.seq().0,
            stored_seq: shell.stored().0,
            parked_replies: shell.parked() as u64,
            used_at: shell.used_at,
            next_deadline: shell.machine.next_deadline(),
            state: shell.machine.observe(now).to_string(),
        }))
    }
}
