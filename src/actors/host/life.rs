//! How entities come into memory and leave it: read, woken, discarded, forgotten;
//! and the end of a host that has none.

use std::sync::Arc;

use ractor::ActorRef;
use uuid::Uuid;

use super::super::contain::contain;
use super::super::lane::Sink;
use super::super::loader::Entity;
use super::super::shell::{Pen, Shell};
use super::super::{AskError, Message, Request};
use super::{Entities, Host, Hosted, LIVES_MAX, Slot, refuse};
use crate::clock::monotonic;
use crate::domain::decision::Tier;
use crate::domain::ids::{Activation, EntityId, Seq};

impl<M: Hosted> Host<M> {
    pub(super) fn load(
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

    pub(super) fn loaded(
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
    pub(super) fn discard(&self, myself: &ActorRef<Message<M>>, state: &mut Entities<M>, id: Uuid) {
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

    /// Takes up what dead nodes have left, and forgets idle entities; without any,
    /// ends itself: an actor costs 8 KB.
    pub(super) fn sweep(&self, myself: &ActorRef<Message<M>>, state: &mut Entities<M>) {
        let now = self.node.clock.now();
        self.each_alive(myself, state, |shell| M::take_up(shell, &self.node, now));
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
    pub(super) fn pass_on(&self, id: Uuid, message: Message<M>) {
        let node = Arc::clone(&self.node);
        tokio::spawn(async move { M::handle(&node).deliver(id, message).await });
    }

    pub(super) fn wake(&self, myself: &ActorRef<Message<M>>, state: &mut Entities<M>, id: Uuid) {
        if state.retired {
            self.pass_on(id, Message::Wake { id });
        } else if !state.slots.contains_key(&id) {
            self.load(myself, state, id, None);
        }
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
}

/// Tells a host what became of its writes.
struct Mailbox<M: Hosted>(ActorRef<Message<M>>);

impl<M: Hosted> Sink for Mailbox<M> {
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
