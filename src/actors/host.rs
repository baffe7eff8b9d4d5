//! The actor that runs entities of one kind: one timetable, or the accounts of
//! a shard. Its handler never awaits: what takes time (reading, writing) is
//! done elsewhere and comes back as a message.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use uuid::Uuid;

use super::contain::contain;
use super::loader::Entity;
use super::node::Node;
use super::shell::{GateWait, Pen, Shell};
use super::stats::ActorStats;
use super::{AskError, Handle, Message, Request};
use crate::clock::monotonic;
use crate::domain::decision::Tier;
use crate::domain::ids::{Activation, EntityId, Seq, shard_of};
use crate::domain::time::{Millis, Timestamp};
use crate::persistence::batch::Persisted;
use crate::persistence::checkpoint::Row;
use crate::persistence::checkpoint::rows::Checkpointed;
use crate::telemetry::ActorMetrics;

/// After so many panics or refused writes an entity is not loaded again until
/// the process restarts: something about it is broken.
const LIVES_MAX: u32 = 3;

/// What a command needs to be taken; refused at once if it isn't there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Nothing: it reads, or goes on with something that was begun.
    Nothing,
    /// Room for more that waits to be written.
    Room,
    /// The store, now: its caller is answered after the commit.
    Store,
}

/// What goes from node to node.
pub trait Travels: Serialize + DeserializeOwned + Send {}

impl<T: Serialize + DeserializeOwned + Send> Travels for T {}

/// A kind of entity that a host can run.
pub trait Hosted:
    Checkpointed<Command: Travels, Event: Send, Reply: Travels, Refusal: Travels> + Send + 'static
{
    /// How durable the outputs of `command` must be before they leave.
    fn tier(node: &Node, command: &Self::Command) -> Tier;

    /// What must be there for `command` to be taken.
    fn needs(node: &Node, command: &Self::Command) -> Needs;

    /// How the actors of this kind are reached.
    fn handle(node: &Node) -> &Handle<Self>
    where
        Self: Sized;

    /// Who runs entity `id`: entities with the same key share an actor.
    fn host_key(id: Uuid) -> Uuid;

    /// Has entity `id` read, and sends it to `host` as [`Message::Loaded`].
    /// `false` if too many are being read already.
    fn load(node: &Arc<Node>, id: Uuid, host: ActorRef<Message<Self>>) -> bool
    where
        Self: Sized;

    /// Called once an entity is alive, before anything runs on it. `rows` are
    /// what its checkpoint knows more than the database.
    fn woken(shell: &mut Shell<Self>, node: &Arc<Node>, now: Timestamp, rows: &[Row])
    where
        Self: Sized;

    /// Called after each run with what was applied, before any reply to it can
    /// have reached its caller's next request: publishes what readers see.
    fn applied(&mut self, node: &Node, events: &[(Seq, Self::Event)]);

    /// The catalogue's part has changed.
    fn replan(&mut self, node: &Node);

    /// Whether it may be forgotten when nobody asks.
    fn is_idle(&self) -> bool;

    /// How long nobody must have asked before that.
    fn idle_after(node: &Node) -> Millis;

    /// What operators see of its state: an object of few members.
    fn observe(&self, now: Timestamp) -> serde_json::Value;

    /// What operators call the actor with this [`Hosted::host_key`].
    fn host_name(key: Uuid) -> String {
        key.to_string()
    }
}

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

    fn pen(&self, myself: &ActorRef<Message<M>>, entity: EntityId) -> Pen {
        Pen {
            lane: self.node.lanes.of(entity.shard()).lane.clone(),
            checkpoint: self
                .node
                .lanes
                .checkpoint_of(entity.shard())
                .filter(|_| M::HAS_CHECKPOINTS),
            sink: Arc::new(Mailbox(myself.clone())),
            gate_wait: self.gate_wait.clone(),
            ownership: Arc::clone(&self.node.ownership),
        }
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

    fn load(
        &self,
        myself: &ActorRef<Message<M>>,
        state: &mut Entities<M>,
        id: Uuid,
        request: Option<Request<M>>,
    ) {
        if state.is_quarantined(id) {
            request
                .into_iter()
                .for_each(|r| refuse(r, AskError::StoreUnavailable));
            return;
        }
        if M::load(&self.node, id, myself.clone()) {
            let waiting = request.into_iter().collect();
            state.slots.insert(id, Slot::Loading(waiting));
            state.stats.loading();
        } else {
            request
                .into_iter()
                .for_each(|r| refuse(r, AskError::Overloaded));
        }
    }

    fn loaded(
        &self,
        myself: &ActorRef<Message<M>>,
        state: &mut Entities<M>,
        id: Uuid,
        loaded: Option<Box<Entity<M>>>,
    ) {
        let Some(Slot::Loading(waiting)) = state.slots.remove(&id) else {
            return;
        };
        state.stats.loaded();
        let begun = monotonic();
        let Some(entity) = loaded else {
            waiting
                .into_iter()
                .for_each(|r| refuse(r, AskError::StoreUnavailable));
            return;
        };
        let address = EntityId { kind: M::KIND, id };
        let Some(life) = self.node.ownership.activate(address.shard()) else {
            // Lost while it was read.
            waiting
                .into_iter()
                .for_each(|r| refuse(r, AskError::StoreUnavailable));
            return;
        };
        let Entity {
            machine,
            stamp,
            last_event_seq,
            checkpoint,
        } = *entity;
        let pen = self.pen(myself, address);
        let mut shell = Box::new(Shell::new(
            machine,
            address,
            stamp,
            last_event_seq,
            life,
            pen,
        ));
        let now = self.node.clock.now();
        shell.used_at = now;
        let woken = contain::<M, _>(id, || {
            // The catalogue may have changed while it was read.
            shell.machine.replan(&self.node);
            M::woken(&mut shell, &self.node, now, &checkpoint);
            shell.machine.next_deadline()
        });
        let Ok(deadline) = woken else {
            waiting
                .into_iter()
                .for_each(|r| refuse(r, AskError::StoreUnavailable));
            return self.discard(myself, state, id);
        };
        self.arm(myself, &mut state.armed, deadline);
        state.slots.insert(id, Slot::Alive(shell));
        for request in waiting {
            self.ask(myself, state, id, (request, begun));
        }
    }

    /// A panic or a refused write: memory is not to be trusted. The entity is
    /// read again when it is next asked; who waited learns that the outcome is
    /// unknown.
    fn discard(&self, myself: &ActorRef<Message<M>>, state: &mut Entities<M>, id: Uuid) {
        state.slots.remove(&id);
        let lives = state.discarded.entry(id).or_default();
        *lives += 1;
        self.metrics.restarts.increment(1);
        state.stats.restarted();
        if *lives >= LIVES_MAX {
            self.metrics.quarantined.increment(1);
            state.stats.quarantined();
            tracing::error!(entity.id = %id, entity.kind = M::KIND.as_str(), "an entity is quarantined");
            return;
        }
        // At once: it may have deadlines, and readers see its old map.
        self.load(myself, state, id, None);
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

    /// Forgets idle entities; without any, ends itself: an actor costs 8 KB.
    fn sweep(&self, myself: &ActorRef<Message<M>>, state: &mut Entities<M>) {
        let now = self.node.clock.now();
        let idle_after = M::idle_after(&self.node);
        state.slots.retain(|_, slot| match slot {
            Slot::Loading(_) => true,
            Slot::Alive(shell) => {
                let recent = now.since(shell.used_at) < idle_after;
                recent || !shell.is_clean() || !shell.machine.is_idle()
            }
        });
        // What was discarded is remembered by this actor only.
        if state.slots.is_empty()
            && state.discarded.is_empty()
            && M::handle(&self.node).directory().retire(self.key, myself)
        {
            state.retired = true;
            // Not `stop`: what is in the mailbox is passed on, and what comes
            // later is given back to its sender. It fails only if it has ended.
            let _ = myself.drain();
        }
    }

    /// Has a message reach the actor that has taken this one's place. Only
    /// continuations and wake-ups get here, whose number is bounded: a client's
    /// request would hold a place at the door, and keep this one from retiring.
    fn pass_on(&self, id: Uuid, message: Message<M>) {
        let node = Arc::clone(&self.node);
        tokio::spawn(async move { M::handle(&node).deliver(id, message).await });
    }

    fn wake(&self, myself: &ActorRef<Message<M>>, state: &mut Entities<M>, id: Uuid) {
        if state.retired {
            self.pass_on(id, Message::Wake { id });
        } else if !state.slots.contains_key(&id) {
            self.load(myself, state, id, None);
        }
    }

    fn tick(&self, myself: &ActorRef<Message<M>>, state: &mut Entities<M>, of: Timestamp) {
        // A timer that an earlier one has replaced.
        if state.armed == Some(of) {
            self.rearm(myself, state);
        }
    }

    /// Does what is due, and sets the timer for what is due next.
    fn rearm(&self, myself: &ActorRef<Message<M>>, state: &mut Entities<M>) {
        state.armed = None;
        let now = self.node.clock.now();
        self.each_alive(myself, state, |shell| {
            let events = shell.catch_up(now);
            shell.machine.applied(&self.node, &events);
        });
        let alive = state.slots.values().filter_map(|slot| match slot {
            Slot::Alive(shell) => shell.machine.next_deadline(),
            Slot::Loading(_) => None,
        });
        let next = alive.min();
        self.arm(myself, &mut state.armed, next);
    }

    /// Has one timer for the earliest deadline of all entities. It may fire
    /// too early (what it was for is gone), never too late.
    fn arm(
        &self,
        myself: &ActorRef<Message<M>>,
        armed: &mut Option<Timestamp>,
        deadline: Option<Timestamp>,
    ) {
        let Some(next) = deadline else { return };
        if armed.is_some_and(|armed| armed <= next) {
            return;
        }
        *armed = Some(next);
        myself.send_after(self.node.clock.until(next), move || Message::Tick {
            of: next,
        });
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
    // Nobody listens any more: nothing was done anyway.
    let _ = request.reply.send(Err(error));
}

/// Tells a host what became of its writes.
struct Mailbox<M: Hosted>(ActorRef<Message<M>>);

impl<M: Hosted> super::lane::Sink for Mailbox<M> {
    fn durable(&self, entity: EntityId, activation: Activation, tier: Tier, upto: Seq) {
        // A host that is gone has nobody waiting.
        let _ = self.0.cast(Message::Durable {
            id: entity.id,
            activation,
            tier,
            upto,
        });
    }

    fn rebase(&self, entity: EntityId, activation: Activation) {
        let _ = self.0.cast(Message::Rebase {
            id: entity.id,
            activation,
        });
    }

    fn lost(&self, entity: EntityId, activation: Activation) {
        let _ = self.0.cast(Message::Discard {
            id: entity.id,
            activation,
        });
    }
}
