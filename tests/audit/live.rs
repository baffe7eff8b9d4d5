//! Entities that live by themselves, without actors.

use onsale::domain::decision::step;
use onsale::domain::ids::{Activation, EntityId, Epoch, Seq, Stamp};
use onsale::domain::time::Timestamp;
use onsale::persistence::batch::{Contribution, Persisted};

/// An entity with its version, as its actor would have it.
pub(crate) struct Live<M> {
    pub(crate) machine: M,
    pub(crate) entity: EntityId,
    pub(crate) epoch: Epoch,
    pub(crate) activation: Activation,
    pub(crate) seq: Seq,
    pub(crate) stored: Stamp,
    pub(crate) events: u64,
    pub(crate) waiting: Option<Contribution>,
}

impl<M: Persisted> Live<M> {
    pub(crate) fn new(machine: M, entity: impl Into<EntityId>, epoch: Epoch) -> Self {
        let (seq, stored) = (Seq(0), Stamp::default());
        Self {
            machine,
            entity: entity.into(),
            epoch,
            activation: Activation(1),
            seq,
            stored,
            events: 0,
            waiting: None,
        }
    }

    pub(crate) fn run(
        &mut self,
        now: Timestamp,
        command: M::Command,
    ) -> Result<M::Reply, M::Refusal> {
        let before = self.seq;
        let done = step(&mut self.machine, &mut self.seq, now, command);
        if self.seq > before {
            let after = Stamp {
                epoch: self.epoch,
                activation: self.activation,
                seq: self.seq,
            };
            let entry = self.waiting.get_or_insert_with(|| Contribution {
                first_seq: before.next(),
                ..Contribution::new(self.entity, self.stored, after, now)
            });
            (entry.after, entry.at) = (after, now);
            for (seq, event) in done.events.iter().filter(|(_, event)| M::is_durable(event)) {
                entry.journalise(*seq, now, event);
                let published = entry.outbox.len();
                self.machine.record(event, entry);
                for row in entry.outbox.iter_mut().skip(published) {
                    self.events += 1;
                    row.event_seq = self.events;
                }
            }
        }
        done.outcome
    }

    pub(crate) fn take(&mut self) -> Option<Contribution> {
        let contribution = self.waiting.take()?;
        self.stored = contribution.after;
        self.machine.settle(self.stored.seq);
        Some(contribution)
    }
}
