//! The actors: thin shells around the state machines of [`crate::domain`].
//!
//! * [`host`]: the ractor actor that runs entities of one kind; handlers never
//!   await.
//! * [`shell`]: one entity in it: decide, apply, hand over to the lane, park
//!   the reply in the [`gate`].
//! * `fences`: what a change of owner does to the checkpoints.
//! * [`lane`]: a write lane, which takes all that waits and writes it as one;
//!   [`sql_lane`]: one to the database; [`checkpoint_lane`]: one to the
//!   checkpoints; [`lanes`]: all of a node's.
//! * [`directory`]: which entity runs where; starts hosts and supervises them.
//! * [`loader`]: reads entities back from the store.
//! * [`board`]: the published seat map of a timetable, for readers;
//!   [`queue_board`]: what a waiting room publishes.
//! * [`coupon`]: how a coupon lives in its actor, and what it publishes.
//! * [`purchase`]: the saga of an order.
//! * [`ownership`]: which shards are ours, in which epoch, until when.
//! * [`keeper`]: keeps that in step with the database: leases, take-over,
//!   hand-over.
//! * [`stats`]: what is counted of each actor; [`observe`]: what operators see
//!   of all of them; [`busiest`]: which of them have the most to do.
//! * [`route`]: where a command runs: here, or at the node that owns its entity.
//! * [`node`]: all of it together, as one value.
//!
//! The rest of the crate sees [`Handle`], never an `ActorRef`.

pub mod account;
pub mod board;
pub mod busiest;
pub mod checkpoint_lane;
mod contain;
pub mod coupon;
pub mod directory;
mod fences;
pub mod gate;
pub mod host;
pub mod keeper;
pub mod lane;
pub mod lanes;
pub mod loader;
pub mod node;
pub mod observe;
pub mod ownership;
pub mod purchase;
pub mod queue;
pub mod queue_board;
pub mod refund;
pub mod route;
pub mod shell;
pub mod sql_lane;
pub mod stats;
pub mod timetable;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError, oneshot};
use uuid::Uuid;

use self::directory::TooLate;
use self::route::{Door, Route};
use crate::domain::decision::Tier;
use crate::domain::ids::{Activation, Seq, shard_of};
use crate::persistence::batch::{Persisted, Tie};
use crate::trace::{self, Span, Trace};

/// What an entity answers to a command: its reply, or its refusal.
pub type Outcome<M> = Result<
    <M as crate::domain::decision::Machine>::Reply,
    <M as crate::domain::decision::Machine>::Refusal,
>;

/// Why there is no outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum AskError {
    /// Too many requests are under way; nothing was done.
    #[error("too many requests are under way")]
    Overloaded,
    /// The store can't be read or written now. Nothing was done.
    #[error("the store is unavailable")]
    StoreUnavailable,
    /// No answer in time, or the entity was reloaded meanwhile: the outcome is
    /// unknown.
    #[error("the outcome is unknown")]
    Unknown,
}

/// A command on its way, with the place that it takes at the door.
pub struct Request<M: Persisted> {
    /// What is asked.
    pub command: M::Command,
    /// Where the outcome goes, and when.
    pub reply: ReplyTo<M>,
    /// What is decided is tied to that.
    pub tie: Option<Tie>,
    /// Given back when the reply has left. Continuations have none: they are
    /// bounded by the number of open orders.
    pub permit: Option<OwnedSemaphorePermit>,
    /// The trace that it is a part of: its events carry it on.
    pub trace: Option<Trace>,
    /// Its part of that trace, until its reply has left.
    pub span: Span,
}

/// Where the outcome of a command goes.
pub enum ReplyTo<M: Persisted> {
    /// Once it is as durable as it promises.
    Durable(oneshot::Sender<Result<Outcome<M>, AskError>>),
    /// At once, to somebody who ties to it whatever follows from it.
    Ahead(oneshot::Sender<Result<(Outcome<M>, Tie), AskError>>),
}

impl<M: Persisted> ReplyTo<M> {
    /// There is no outcome.
    pub fn fail(self, error: AskError) {
        // Nobody listens any more: nothing was done anyway.
        match self {
            Self::Durable(to) => drop(to.send(Err(error))),
            Self::Ahead(to) => drop(to.send(Err(error))),
        }
    }
}

/// What a host can be told.
pub enum Message<M: host::Hosted> {
    /// Run a command on an entity.
    Ask {
        /// Which entity.
        id: Uuid,
        /// The command.
        request: Request<M>,
    },
    /// An entity has been read.
    Loaded {
        /// Which entity.
        id: Uuid,
        /// Its state; `None` if it could not be read.
        loaded: Option<Box<loader::Entity<M>>>,
    },
    /// All decisions of an entity up to `upto` are as durable as `tier` says.
    Durable {
        /// Which entity.
        id: Uuid,
        /// Of which of its lives.
        activation: Activation,
        /// Where they are.
        tier: Tier,
        /// Up to here.
        upto: Seq,
    },
    /// A write of an entity was refused: its memory is not the truth any more.
    Discard {
        /// Which entity.
        id: Uuid,
        /// Of which of its lives.
        activation: Activation,
    },
    /// The checkpoint of an entity wants all of its rows.
    Rebase {
        /// Which entity.
        id: Uuid,
        /// Of which of its lives.
        activation: Activation,
    },
    /// Checkpoints can be used again: have all rows of all entities written.
    RewriteCheckpoints,
    /// A deadline may have passed.
    Tick {
        /// What the timer was armed for.
        of: crate::domain::time::Timestamp,
    },
    /// Forget what nobody has used for a while.
    Sweep,
    /// The clock has jumped: deadlines are nearer than the timer was told.
    Rearm,
    /// Give up replies that have waited for too long.
    GiveUp,
    /// The catalogue's part of an entity has changed.
    Replan {
        /// Which entity.
        id: Uuid,
    },
    /// Have an entity in memory, because it has something to do by itself.
    Wake {
        /// Which entity.
        id: Uuid,
    },
    /// Say how an entity is, without reading it.
    Observe {
        /// Which entity.
        id: Uuid,
        /// `None` if it isn't in memory, `Some(None)` while it is being read.
        reply: oneshot::Sender<Option<Option<observe::Life>>>,
    },
}

/// How commands reach the entities of one kind, wherever they are.
#[derive(Debug)]
pub struct Handle<M: host::Hosted> {
    directory: Arc<directory::Directory<M>>,
    route: Route,
}

impl<M: host::Hosted> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self {
            directory: Arc::clone(&self.directory),
            route: self.route.clone(),
        }
    }
}

impl<M: host::Hosted> Handle<M> {
    /// How to reach the entities in `directory`, or by `route` those of other
    /// nodes.
    #[must_use]
    pub fn new(directory: Arc<directory::Directory<M>>, route: Route) -> Self {
        Self { directory, route }
    }

    /// Asks entity `id`, on behalf of a client: refused at once if too many
    /// are asking already.
    ///
    /// # Errors
    /// [`AskError`]
    pub async fn ask(&self, id: Uuid, command: M::Command) -> Result<Outcome<M>, AskError> {
        self.run(id, command, Door::Client).await
    }

    /// Asks entity `id` to go on with something that was begun: never refused.
    ///
    /// # Errors
    /// [`AskError`], but not [`AskError::Overloaded`].
    pub async fn resume(&self, id: Uuid, command: M::Command) -> Result<Outcome<M>, AskError> {
        self.run(id, command, Door::Continuation).await
    }

    /// Has entity `id` loaded, because it has something to do by itself, if it
    /// is ours.
    pub async fn wake(&self, id: Uuid) {
        if self.is_here(id) {
            self.deliver(id, Message::Wake { id }).await;
        }
    }

    /// Tells entity `id`, if it is in memory, that its catalogue entry changed.
    pub fn replan(&self, id: Uuid) {
        if let Some(host) = self.directory.running(id) {
            // One that has just ended has no entity to be told of.
            let _ = host.tell(Message::Replan { id });
        }
    }

    /// Whether entity `id` runs on this node.
    #[must_use]
    pub fn is_here(&self, id: Uuid) -> bool {
        self.route.is_here(shard_of(id))
    }

    /// Sends a message to whichever actor runs entity `id`: one that was retired
    /// on the way gives it back.
    pub async fn deliver(&self, id: Uuid, message: Message<M>) {
        let host = self.directory.host(id).await;
        self.deliver_by(host, id, message).await;
    }

    async fn deliver_by(&self, host: directory::HostRef<M>, id: Uuid, message: Message<M>) {
        if let Err(late) = host.tell(message) {
            // Boxed: it is rare.
            Box::pin(self.deliver_late(id, late)).await;
        }
    }

    async fn deliver_late(&self, id: Uuid, mut late: TooLate<M>) {
        while let TooLate(Some(message)) = late {
            let host = self.directory.host(id).await;
            match host.tell(*message) {
                Ok(()) => return,
                Err(again) => late = again,
            }
        }
        // Lost with its reply address: the caller learns that the outcome is
        // unknown.
        tracing::debug!("a message was lost with its actor");
    }

    /// Runs a command on entity `id`, which is on this node.
    ///
    /// # Errors
    /// [`AskError`]
    pub async fn run_here(
        &self,
        id: Uuid,
        command: M::Command,
        door: Door,
    ) -> Result<Outcome<M>, AskError> {
        self.run_tied_by(id, command, None, door).await
    }

    /// Goes on with something that was begun, on entity `id`, which is on this node,
    /// ahead of durability: the outcome comes at once, with what has to be tied to
    /// it. It may never become durable.
    ///
    /// # Errors
    /// As [`Handle::resume`]
    pub async fn resume_ahead(
        &self,
        id: Uuid,
        command: M::Command,
    ) -> Result<(Outcome<M>, Tie), AskError> {
        let (reply, answer) = oneshot::channel();
        let (host, _) = self.enter(id, Door::Continuation).await?;
        let request = Self::request(id, command, ReplyTo::Ahead(reply), None);
        self.deliver_by(host, id, Message::Ask { id, request })
            .await;
        answer.await.unwrap_or(Err(AskError::Unknown))
    }

    /// Goes on with something that was begun, on entity `id`, which is on this node
    /// and writes by the same lane as `tie`: what is decided is durable only if all
    /// of that is.
    ///
    /// # Errors
    /// As [`Handle::resume`]
    pub async fn resume_tied(
        &self,
        id: Uuid,
        command: M::Command,
        tie: Tie,
    ) -> Result<Outcome<M>, AskError> {
        self.run_tied_by(id, command, Some(tie), Door::Continuation)
            .await
    }

    async fn run_tied_by(
        &self,
        id: Uuid,
        command: M::Command,
        tie: Option<Tie>,
        door: Door,
    ) -> Result<Outcome<M>, AskError> {
        let (host, permit) = self.enter(id, door).await?;
        let (reply, answer) = oneshot::channel();
        let mut request = Self::request(id, command, ReplyTo::Durable(reply), tie);
        request.permit = permit;
        self.deliver_by(host, id, Message::Ask { id, request })
            .await;
        // No deadline of its own, which would be a timer for each request: the
        // host gives up what waits for too long, and a client's request has the
        // edge's deadline.
        answer.await.unwrap_or(Err(AskError::Unknown))
    }

    fn request(id: Uuid, command: M::Command, reply: ReplyTo<M>, tie: Option<Tie>) -> Request<M> {
        let above = trace::current();
        let mut span = Span::begin(M::KIND.as_str(), trace::Kind::Internal, above.as_deref());
        if span.is_recorded() {
            span.tell("onsale.part", "actor");
            span.tell("onsale.entity", id.to_string());
        }
        Request {
            command,
            reply,
            tie,
            permit: None,
            trace: span.trace().or(above),
            span,
        }
    }

    /// The directory behind it.
    #[must_use]
    pub fn directory(&self) -> &directory::Directory<M> {
        &self.directory
    }

    /// The actor of entity `id`, and a place at its door, for a client.
    async fn enter(
        &self,
        id: Uuid,
        door: Door,
    ) -> Result<(directory::HostRef<M>, Option<OwnedSemaphorePermit>), AskError> {
        loop {
            let host = self.directory.host(id).await;
            if door == Door::Continuation {
                return Ok((host, None));
            }
            match Arc::clone(&host.permits).try_acquire_owned() {
                Ok(permit) => return Ok((host, Some(permit))),
                // Retired since it was looked up.
                Err(TryAcquireError::Closed) => {}
                Err(TryAcquireError::NoPermits) => {
                    crate::telemetry::shed(M::KIND.as_str());
                    return Err(AskError::Overloaded);
                }
            }
        }
    }

    async fn run(&self, id: Uuid, command: M::Command, door: Door) -> Result<Outcome<M>, AskError> {
        if self.route.takes(shard_of(id), door) {
            return self.run_here(id, command, door).await;
        }
        // Boxed: its state is large, and this is not the hot path.
        Box::pin(self.route.forward(self, id, command, door)).await
    }
}
