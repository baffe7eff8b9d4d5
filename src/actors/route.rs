//! Where a command runs: here, or at the node that owns its entity.
//!
//! A command whose entity isn't ours is sent once to the owner, over HTTP/2
//! with prior knowledge, signed with a key derived from `auth.secret`. Only an
//! answer 421 (the owner is another) and a connection that could not be made
//! lead to another try, because both mean that nothing was done; everything
//! else that goes wrong is an unknown outcome. While a shard is on its way from
//! one node to another, its commands are parked for a moment.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use uuid::Uuid;

use super::host::Hosted;
use super::ownership::{Owner, Ownership, Shard};
use super::{AskError, Handle, Outcome};
use crate::clock::monotonic;
use crate::domain::ids::{EntityKind, Epoch, Incarnation, NodeId, ShardId, shard_of};
use crate::keys::{Keys, Purpose};
use crate::trace::{self, Context};

/// How long a command waits for its shard to be owned by somebody who can be
/// reached.
const PARKED_FOR_MAX: Duration = Duration::from_millis(500);

/// How many commands may wait so at once.
const PARKED_MAX: usize = 4_096;

/// How often a parked command looks whether its owner can be reached again.
const PARKED_PAUSE: Duration = Duration::from_millis(50);

/// How many commands of clients may be under way to other nodes at once.
const FORWARDED_MAX: usize = 16_384;

/// How long a connection to another node may take: it is in the same network.
const CONNECT_MAX: Duration = Duration::from_millis(300);

/// A node that is frozen or unplugged is noticed by pings on its connection:
/// how often, and how long one may take.
const PING_EVERY: Duration = Duration::from_millis(500);
const PING_MAX: Duration = Duration::from_secs(1);

/// How long another node may take for anything that isn't a command.
const CALL_MAX: Duration = Duration::from_secs(2);

/// The header that carries the signature.
pub const MAC_HEADER: &str = "onsale-mac";

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Door {
    /// A client: refused at once if too many are asking already.
    Client,
    /// Something that was begun: never refused.
    Continuation,
}

/// A command on its way to the owner of its entity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// What it is a part of.
    pub context: Context,
    /// Of the entity.
    pub kind: EntityKind,
    /// Of the entity.
    pub id: Uuid,
    /// Of the entity.
    pub shard: ShardId,
    /// In which the sender believes the receiver to own the shard.
    pub epoch: Epoch,
    /// How long the sender waits, in milliseconds.
    pub wait_ms: u32,
    /// The owner runs no command twice.
    pub command_id: Uuid,
    /// Who asks.
    pub door: Door,
    /// The command, in postcard.
    pub command: Bytes,
}

/// The answer 421: who owns the shard, if that is known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Elsewhere {
    owner: Option<(NodeId, Incarnation, String)>,
    epoch: Epoch,
}

impl Elsewhere {
    /// What `ownership` knows of a shard that isn't served here.
    #[must_use]
    pub fn told_by(ownership: &Ownership, shard: ShardId) -> Self {
        match ownership.state(shard) {
            Shard::Elsewhere { owner, epoch } => Self {
                owner: owner.map(|o| (o.node, o.incarnation, o.address.as_ref().to_owned())),
                epoch,
            },
            Shard::Ours { epoch, .. } | Shard::HandingOver { epoch, .. } => {
                Self { owner: None, epoch }
            }
        }
    }
}

/// Why another node did not answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection: nothing was done.
    #[error("the node can't be reached: {0}")]
    Unreachable(#[source] reqwest::Error),
    /// It doesn't own the shard: nothing was done.
    #[error("the shard is elsewhere")]
    Elsewhere(Bytes),
    /// It is not known whether anything was done.
    #[error("the node did not answer: {0}")]
    Lost(#[source] reqwest::Error),
    /// It answered something else.
    #[error("the node answered {0}")]
    Refused(u16),
}

/// The way to the other nodes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peers {
    client: reqwest::Client,
    keys: Keys,
}

impl Peers {
    /// Signs with `keys`.
    ///
    /// # Errors
    /// If the client can't be built.
    pub fn new(keys: Keys) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .http2_prior_knowledge()
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_MAX)
            .connect_timeout(CONNECT_MAX)
            .no_proxy()
            .build()?;
        Ok(Self { client, keys })
    }

    /// Posts `body` to `path` of the node at `address`; waits for the answer
    /// for at most `wait`.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn call(
        &self,
        address: &str,
        path: &'static str,
        body: Vec<u8>,
        wait: Duration,
    ) -> Result<Bytes, CallError> {
        let mac = self.keys.sign(Purpose::Internal, &signed(path, &body));
        let sent = self
            .client
            .post(format!("http://{address}{path}"))
            .header(MAC_HEADER, BASE64_URL_SAFE_NO_PAD.encode(mac))
            .timeout(wait)
            .body(body)
            .send()
            .await;
        let response = sent.map_err(|error| {
            if error.is_connect() {
                CallError::Unreachable(error)
            } else {
                CallError::Lost(error)
            }
        })?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(CallError::Lost)?;
        match status {
            200 => Ok(body),
            421 => Err(CallError::Elsewhere(body)),
            other => Err(CallError::Refused(other)),
        }
    }

    /// Asks for something that isn't a command, in postcard.
    ///
    /// # Errors
    /// [`CallError`]; an answer that can't be read counts as refused.
    pub async fn query<Q: Serialize, A: DeserializeOwned>(
        &self,
        address: &str,
        path: &'static str,
        question: &Q,
    ) -> Result<A, CallError> {
        // Questions are plain data, which postcard always writes.
        let body = postcard::to_stdvec(question).unwrap_or_default();
        let answer = self.call(address, path, body, CALL_MAX).await?;
        postcard::from_bytes(&answer).map_err(|_| CallError::Refused(200))
    }
}

/// What a signature covers.
#[must_use]
pub fn signed(path: &str, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(path.len() + 1 + body.len());
    message.extend_from_slice(path.as_bytes());
    message.push(b'\n');
    message.extend_from_slice(body);
    message
}

/// Where commands run. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Route {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ownership: Arc<Ownership>,
    peers: Option<Peers>,
    patience: Duration,
    forwarded: Semaphore,
    parked: Semaphore,
}

impl Route {
    /// By `ownership`; what isn't ours goes to `peers`, or nowhere. A forwarded
    /// command waits for its answer for at most `patience`.
    #[must_use]
    pub fn new(ownership: Arc<Ownership>, peers: Option<Peers>, patience: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                ownership,
                peers,
                patience,
                forwarded: Semaphore::new(FORWARDED_MAX),
                parked: Semaphore::new(PARKED_MAX),
            }),
        }
    }

    /// Whether commands for the entities of `shard` run here.
    #[must_use]
    pub fn is_here(&self, shard: ShardId) -> bool {
        self.shared.ownership.is_here(shard)
    }

    /// Whether a command that comes by `door` runs here: while a shard is handed
    /// over, what was begun on it goes on to its end.
    #[must_use]
    pub fn takes(&self, shard: ShardId, door: Door) -> bool {
        let ownership = &self.shared.ownership;
        ownership.is_here(shard) || (door == Door::Continuation && ownership.epoch(shard).is_some())
    }

    /// The way to the other nodes, if there can be any.
    #[must_use]
    pub fn peers(&self) -> Option<&Peers> {
        self.shared.peers.as_ref()
    }

    /// Runs a command at the owner of its entity, which isn't this node, or
    /// wasn't a moment ago.
    ///
    /// # Errors
    /// [`AskError`]; unless it is [`AskError::Unknown`], nothing was done.
    pub async fn forward<M: Hosted>(
        &self,
        handle: &Handle<M>,
        id: Uuid,
        command: M::Command,
        door: Door,
    ) -> Result<Outcome<M>, AskError> {
        let Some(peers) = &self.shared.peers else {
            return Err(AskError::StoreUnavailable);
        };
        let _place = self.place(door)?;
        let shard = shard_of(id);
        let ownership = &self.shared.ownership;
        let mut ask = Ask {
            context: trace::context(),
            kind: M::KIND,
            id,
            shard,
            epoch: Epoch(0),
            wait_ms: u32::try_from(self.shared.patience.as_millis()).unwrap_or(u32::MAX),
            command_id: Uuid::now_v7(),
            door,
            // Commands are plain data, which postcard always writes.
            command: postcard::to_stdvec(&command).unwrap_or_default().into(),
        };
        let mut parking = Parking::new(&self.shared);
        loop {
            match ownership.state(shard) {
                Shard::Ours { .. } => return handle.run_here(id, command, door).await,
                Shard::Elsewhere {
                    owner: Some(owner),
                    epoch,
                } => {
                    ask.epoch = epoch;
                    match self.send(peers, &owner, &ask).await {
                        Ok(answer) => return read_answer::<M>(&answer),
                        Err(CallError::Elsewhere(told)) => learn(ownership, shard, &told),
                        Err(CallError::Unreachable(_)) => {}
                        Err(CallError::Lost(error)) => {
                            tracing::debug!(%error, "a forwarded command has no answer");
                            return Err(AskError::Unknown);
                        }
                        Err(CallError::Refused(status)) => {
                            tracing::warn!(
                                status,
                                node.id = %owner.node,
                                "another node refused a forwarded command"
                            );
                            return Err(AskError::StoreUnavailable);
                        }
                    }
                }
                Shard::Elsewhere { owner: None, .. } | Shard::HandingOver { .. } => {}
            }
            parking.wait().await?;
        }
    }

    async fn send(&self, peers: &Peers, owner: &Owner, ask: &Ask) -> Result<Bytes, CallError> {
        let body = postcard::to_stdvec(ask).unwrap_or_default();
        peers
            .call(&owner.address, "/internal/ask", body, self.shared.patience)
            .await
    }

    fn place(&self, door: Door) -> Result<Option<SemaphorePermit<'_>>, AskError> {
        match door {
            // Bounded by the number of open orders.
            Door::Continuation => Ok(None),
            Door::Client => self.shared.forwarded.try_acquire().map(Some).map_err(|_| {
                crate::telemetry::shed("forward");
                AskError::Overloaded
            }),
        }
    }
}

/// Reads an owner's answer. One that can't be read (from another version) was
/// an answer nevertheless.
fn read_answer<M: Hosted>(answer: &[u8]) -> Result<Outcome<M>, AskError> {
    postcard::from_bytes(answer).unwrap_or(Err(AskError::Unknown))
}

fn learn(ownership: &Ownership, shard: ShardId, told: &[u8]) {
    let Ok(Elsewhere { owner, epoch }) = postcard::from_bytes(told) else {
        return;
    };
    if let Some((node, incarnation, address)) = owner {
        let owner = Owner {
            node,
            incarnation,
            address: address.into(),
        };
        ownership.learn(shard, owner, epoch);
    }
}

/// The wait of one command for its shard to settle.
struct Parking<'a> {
    shared: &'a Shared,
    place: Option<SemaphorePermit<'a>>,
    changes: watch::Receiver<u64>,
    until: Option<tokio::time::Instant>,
}

impl<'a> Parking<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            place: None,
            changes: shared.ownership.changes(),
            until: None,
        }
    }

    /// Returns when it is worth another try.
    ///
    /// # Errors
    /// If the time for that is over, or too many wait. Nothing was done.
    async fn wait(&mut self) -> Result<(), AskError> {
        let now = monotonic();
        let until = *self.until.get_or_insert(now + PARKED_FOR_MAX);
        if now >= until {
            return Err(AskError::StoreUnavailable);
        }
        if self.place.is_none() {
            let place = self.shared.parked.try_acquire();
            self.place = Some(place.map_err(|_| AskError::Overloaded)?);
        }
        let pause = PARKED_PAUSE.min(until - now);
        // Ended early by any change of ownership.
        let _ = tokio::time::timeout(pause, self.changes.changed()).await;
        Ok(())
    }
}
