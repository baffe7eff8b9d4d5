//! The actor that runs entities of one kind: one timetable, or the accounts of
//! a shard. Its handler never awaits: what takes time (reading, writing) is
//! done elsewhere and comes back as a message.

mod kind;
mod life;
mod timer;

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;
use uuid::Uuid;

pub use self::kind::{Hosted, Needs, Travels};
use super::contain::contain;
use super::node::Node;
use super::shell::{GateWait, Shell};
use super::stats::ActorStats;
use super::{AskError, Message, Request};
use crate::clock::monotonic;
use crate::domain::decision::Tier;
use crate::domain::ids::{Activation, Seq, shard_of};
use crate::domain::time::Timestamp;
use crate::persistence::batch::Persisted;
use crate::telemetry::ActorMetrics;

/// After so many panics or refused writes an entity is not loaded again until
/// the process restarts: something about it is broken.
const LIVES_MAX: u32 = 3;

/// The actor.
#[derive(Debug)]
pub struct Host<M: Hosted> {
    node: Arc<Node>,
    /// Its place in the directory.
    key: Uuid,
    metrics: ActorMetrics,
    gate_wait: GateWait,
    kind: std::marker::PhantomData<fn() -> M>,
}

/// An entity, or its place.
pub(super) enum Slot<M: Hosted> {
    /// It is being read; these wait for it.
    Loading(Vec<Request<M>>),
    /// In memory.
    Alive(Box<Shell<M>>),
}

/// What the actor keeps.
pub struct Entities<M: Hosted> {
    slots: HashMap<Uuid, Slot<M>, RandomState>,
    /// How often each troubled entity was discarded.
    discarded: HashMap<Uuid, u32, RandomState>,
    /// When the timer will fire.
    armed: Option<Timestamp>,
    stats: Arc<ActorStats>,
    /// It is out of the directory: what still comes is for its successor.
    retired: bool,
}

impl<M: Hosted> Entities<M> {
    pub(super) fn slot(&self, id: Uuid) -> Option<&Slot<M>> {
        self.slots.get(&id)
    }

    /// Whether entity `id` isn't read again.
    pub(super) fn is_quarantined(&self, id: Uuid) -> bool {
        let lives = self.discarded.get(&id);
        lives.is_some_and(|lives| *lives >= LIVES_MAX)
    }
}

impl<M: Hosted> Host<M> {
    /// A host of `node`, whose place in the directory is `key`.
    #[must_use]
    pub fn new(node: Arc<Node>, key: Uuid) -> Self {
        Self {
            node,
            key,
            metrics: ActorMetrics::for_kind(M::KIND.as_str()),
            gate_wait: GateWait::new(),
            kind: std::marker::PhantomData,
        }
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    fn ask(
        &self,
        myself: &ActorRef<Message<M>>,
        state: &mut Entities<M>,
        id: Uuid,
        (request, since): (Request<M>, Instant),
    ) {
        if state.retired {
            return self.pass_on(id, Message::Ask { id, request });
        }
        if !self.has(id, M::needs(&self.node, &request.command)) {
            return refuse(request, AskError::StoreUnavailable);
        }
        // Neither what waits for its entity nor what is parked in its gate is
        // counted here: a client's request keeps its place at the door until its
        // answer has left, and continuations are bounded by what was let in.
        match state.slots.get_mut(&id) {
            Some(Slot::Alive(shell)) => {
                let tier = M::tier(&self.node, &request.command);
                let now = self.node.clock.now();
                shell.used_at = now;
                let ran = contain::<M, _>(id, || {
                    shell.run(now, tier, (request, since), |m, events| {
                        m.applied(&self.node, events);
                    });
                    shell.machine.next_deadline()
                });
                match ran {
                    Ok(deadline) => self.arm(myself, &mut state.armed, deadline),
                    Err(()) => self.discard(myself, state, id),
                }
            }
            Some(Slot::Loading(waiting)) => waiting.push(request),
            None => self.load(myself, state, id, Some(request)),
        }
    }

    /// Whether what a command on entity `id` needs is there.
    fn has(&self, id: Uuid, needs: Needs) -> bool {
        let lanes = &self.node.lanes;
        let lane = || lanes.of(shard_of(id));
        match needs {
            Needs::Nothing => true,
            Needs::Room => lanes.has_room(lane()),
            Needs::Store => lanes.has_room(lane()) && lane().is_healthy(),
        }
    }

    fn each_alive(
        &self,
        myself: &ActorRef<Message<M>>,
        state: &mut Entities<M>,
        mut act: impl FnMut(&mut Shell<M>),
    ) {
        let mut troubled = Vec::new();
        for (id, slot) in &mut state.slots {
            let Slot::Alive(shell) = slot else { continue };
            if contain::<M, _>(*id, || act(shell)).is_err() {
                troubled.push(*id);
            }
        }
        for id in troubled {
            self.discard(myself, state, id);
        }
    }

    /// Does something to entity `id`, if it is in memory.
    fn if_alive(
        &self,
        myself: &ActorRef<Message<M>>,
        state: &mut Entities<M>,
        id: Uuid,
        act: impl FnOnce(&mut Shell<M>),
    ) {
        let Some(Slot::Alive(shell)) = state.slots.get_mut(&id) else {
            return;
        };
        if contain::<M, _>(id, || act(shell)).is_err() {
            self.discard(myself, state, id);
        }
    }

    fn durable(
        &self,
        myself: &ActorRef<Message<M>>,
        state: &mut Entities<M>,
        id: Uuid,
        activation: Activation,
        (tier, upto): (Tier, Seq),
    ) {
        let mut deadline = None;
        self.if_alive(myself, state, id, |shell| {
            if shell.activation() == activation {
                shell.durable(tier, upto, |machine| machine.applied(&self.node, &[]));
                // What is in the database may let something happen.
                deadline = shell.machine.next_deadline();
            }
        });
        self.arm(myself, &mut state.armed, deadline);
    }
}

impl<M: Hosted> Actor for Host<M> {
    type Msg = Message<M>;
    type State = Entities<M>;
    type Arguments = Arc<ActorStats>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        stats: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Entities {
            slots: HashMap::default(),
            discarded: HashMap::default(),
            armed: None,
            stats,
            retired: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let begun = monotonic();
        match message {
            Message::Ask { id, request } => {
                state.stats.taken();
                self.ask(&myself, state, id, (request, begun));
            }
            Message::Loaded { id, loaded } => self.loaded(&myself, state, id, loaded),
            Message::Durable {
                id,
                activation,
                tier,
                upto,
            } => self.durable(&myself, state, id, activation, (tier, upto)),
            Message::Discard { id, activation } => {
                let is_it = |slot: &Slot<M>| matches!(slot, Slot::Alive(shell) if shell.activation() == activation);
                if state.slots.get(&id).is_some_and(is_it) {
                    self.discard(&myself, state, id);
                }
            }
            Message::Rebase { id, activation } => self.if_alive(&myself, state, id, |shell| {
                if shell.activation() == activation {
                    shell.rewrite_checkpoint(self.node.clock.now());
                }
            }),
            Message::RewriteCheckpoints => {
                let now = self.node.clock.now();
                self.each_alive(&myself, state, |shell| shell.rewrite_checkpoint(now));
            }
            Message::Tick { of } => self.tick(&myself, state, of),
            Message::Rearm => self.rearm(&myself, state),
            Message::Sweep => self.sweep(&myself, state),
            Message::GiveUp => {
                let patience = self.node.options.patience;
                self.each_alive(&myself, state, |shell| shell.give_up(patience));
            }
            Message::Replan { id } => {
                self.if_alive(&myself, state, id, |shell| {
                    shell.machine.replan(&self.node);
                });
                // By the new plan something may be due.
                self.rearm(&myself, state);
            }
            Message::Wake { id } => self.wake(&myself, state, id),
            Message::Observe { id, reply } => {
                // Nobody listens any more: it has given up.
                let _ = reply.send(self.observe(state, id));
            }
        }
        let took = begun.elapsed();
        self.metrics.messages.increment(1);
        self.metrics.handling_seconds.record(took.as_secs_f64());
        state.stats.handled(took, state.slots.len());
        Ok(())
    }
}

fn refuse<M: Persisted>(request: Request<M>, error: AskError) {
    request.reply.fail(error);
}
