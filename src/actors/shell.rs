//! The shell around one entity: runs its machine, numbers what it decides,
//! hands it to the write lane, and keeps its replies until they may leave.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::checkpoint_lane::{CheckpointPen, Checkpointing};
use super::gate::Gate;
use super::lane::{Decided, Lane, Sink};
use super::ownership::Ownership;
use super::{AskError, Outcome, ReplyTo, Request};
use crate::domain::decision::{Machine, Tier, catch_up_partly, step};
use crate::domain::ids::{Activation, EntityId, Epoch, Seq, Stamp};
use crate::domain::time::Timestamp;
use crate::persistence::batch::{Contribution, Persisted, Tie};
use crate::persistence::checkpoint::Row;
use crate::persistence::checkpoint::rows::Checkpointed;
#[cfg(feature = "sabotage")]
use crate::sabotage::{self, Point, Switch};
use crate::telemetry;
use crate::trace::{Span, Trace};

/// How many events are handed to the lane at once, of all that is due by the
/// clock: after an outage that may be every pass of a queue, and one write has
/// only so many rows.
const SUBMITTED_MAX: usize = 4_096;

/// What an entity writes with.
#[derive(Clone)]
pub struct Pen {
    /// Where it writes.
    pub lane: Lane<Contribution>,
    /// Where its checkpoints go, if anywhere.
    pub checkpoint: Option<CheckpointPen>,
    /// Who is told that it is written.
    pub sink: Arc<dyn Sink>,
    /// How long replies waited for it.
    pub gate_wait: GateWait,
    /// Whether anything may be acknowledged at all.
    pub ownership: Arc<Ownership>,
}

/// How long replies waited in the gate, by their tier.
#[derive(Clone, Debug)]
pub struct GateWait {
    checkpoint: metrics::Histogram,
    database: metrics::Histogram,
}

impl GateWait {
    /// Of all entities.
    #[must_use]
    pub fn new() -> Self {
        Self {
            checkpoint: telemetry::gate_wait("checkpoint"),
            database: telemetry::gate_wait("database"),
        }
    }

    fn record<M: Persisted>(&self, parked: &Parked<M>) {
        let histogram = match parked.tier {
            // What is of this tier never waits.
            Tier::Memory => return,
            Tier::Checkpoint => &self.checkpoint,
            Tier::Database => &self.database,
        };
        histogram.record(parked.since.elapsed().as_secs_f64());
    }
}

impl Default for GateWait {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Pen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pen")
            .field("lane", &self.lane)
            .finish_non_exhaustive()
    }
}

/// A reply with its address, and what ends when it leaves: its permit, its span.
struct Parked<M: Persisted> {
    outcome: Outcome<M>,
    to: oneshot::Sender<Result<Outcome<M>, AskError>>,
    _permit: Option<tokio::sync::OwnedSemaphorePermit>,
    _span: Span,
    since: tokio::time::Instant,
    tier: Tier,
}

/// The events of one run, for whoever follows the entity.
pub type Applied<M> = SmallVec<[(Seq, <M as Machine>::Event); 2]>;

/// One entity, alive.
pub struct Shell<M: Checkpointed> {
    /// The state.
    pub machine: M,
    entity: EntityId,
    epoch: Epoch,
    activation: Activation,
    seq: Seq,
    /// The version that the stored rows will have once all that was submitted
    /// is written.
    submitted: Stamp,
    last_event_seq: u64,
    gate: Gate<Parked<M>>,
    pen: Pen,
    checkpointing: Option<Checkpointing>,
    gate_wait: GateWait,
    /// When it was last asked.
    pub used_at: Timestamp,
}

impl<M: Checkpointed> Shell<M> {
    /// An entity whose `machine` was read at version `stored`.
    #[must_use]
    pub fn new(
        machine: M,
        entity: EntityId,
        stored: Stamp,
        last_event_seq: u64,
        (epoch, activation): (Epoch, Activation),
        pen: Pen,
    ) -> Self {
        Self {
            machine,
            entity,
            epoch,
            activation,
            seq: stored.seq,
            submitted: stored,
            last_event_seq,
            gate: Gate::new(stored.seq),
            checkpointing: pen.checkpoint.clone().map(Checkpointing::new),
            gate_wait: pen.gate_wait.clone(),
            pen,
            used_at: Timestamp::default(),
        }
    }

    /// Which of the entity's lives this is.
    #[must_use]
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// The epoch in which it was loaded.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Which entity it is.
    #[must_use]
    pub fn entity(&self) -> EntityId {
        self.entity
    }

    /// Its last decision.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The last of its decisions that is in the database.
    #[must_use]
    pub fn stored(&self) -> Seq {
        self.gate.durable()
    }

    /// Whether its stored rows were written in an earlier epoch: nothing of
    /// this one has been submitted yet.
    #[must_use]
    pub fn is_from_another_epoch(&self) -> bool {
        self.submitted.epoch != self.epoch
    }

    /// How many replies wait in the gate.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.gate.parked()
    }

    /// Whether nothing of it waits to be written or to be answered.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.gate.parked() == 0 && self.gate.durable() >= self.seq
    }

    /// Runs a command that came at `since`. `publish` shows readers what was applied; it runs before
    /// the reply leaves, which is now or when it is durable.
    pub fn run(
        &mut self,
        now: Timestamp,
        tier: Tier,
        (request, since): (Request<M>, Instant),
        publish: impl FnOnce(&mut M, &Applied<M>),
    ) {
        let Request {
            command,
            reply,
            tie,
            permit,
            trace,
            span,
        } = request;
        let before = self.seq;
        let result = step(&mut self.machine, &mut self.seq, now, command);
        // Nobody waits for what is told ahead: what follows from it is urgent.
        let waited_for = match &reply {
            ReplyTo::Durable(_) => tier,
            ReplyTo::Ahead(_) => Tier::Memory,
        };
        self.submit(
            now,
            before,
            waited_for,
            &result.events,
            (trace.as_ref(), tie),
        );
        publish(&mut self.machine, &result.events);
        let to = match reply {
            ReplyTo::Durable(to) => to,
            ReplyTo::Ahead(to) => return self.tell_ahead(to, result.outcome),
        };
        let reveals = self.machine.reveals(&result.outcome);
        #[cfg(feature = "sabotage")]
        let reveals = if sabotage::is_on(Switch::RevealEarly) {
            Tier::Memory
        } else {
            reveals
        };
        let tier = tier.max(reveals);
        let parked = Parked {
            outcome: result.outcome,
            to,
            _permit: permit,
            _span: span,
            since,
            tier,
        };
        match self.gate.pass(tier, self.seq, parked) {
            Some(leaving) => leave(&self.pen.ownership, leaving),
            // It shows what nobody has waited for yet.
            None if tier == Tier::Database && self.seq == before => self.pen.lane.hurry(),
            None => {}
        }
    }

    fn tell_ahead(
        &self,
        to: oneshot::Sender<Result<(Outcome<M>, Tie), AskError>>,
        outcome: Outcome<M>,
    ) {
        let tie = Tie {
            entity: self.entity,
            activation: self.activation,
        };
        // Nobody listens any more: the decision stands, and its caller asks again.
        let _ = to.send(Ok((outcome, tie)));
    }

    /// Lets happen what is due.
    pub fn catch_up(&mut self, now: Timestamp) -> Applied<M> {
        let mut all = SmallVec::new();
        loop {
            let (before, mut events) = (self.seq, SmallVec::new());
            let (machine, seq) = (&mut self.machine, &mut self.seq);
            let goes_on = catch_up_partly(machine, seq, now, &mut events, SUBMITTED_MAX);
            self.submit(now, before, Tier::Memory, &events, (None, None));
            all.extend(events);
            if !goes_on {
                return all;
            }
        }
    }

    /// Applies what was decided on loading (the grace after an outage).
    pub fn adopt(&mut self, now: Timestamp, events: impl IntoIterator<Item = M::Event>) {
        let before = self.seq;
        let mut adopted: Applied<M> = SmallVec::new();
        for event in events {
            if adopted.is_empty() {
                self.seq = self.seq.next();
            }
            self.machine.apply(self.seq, &event);
            adopted.push((self.seq, event));
        }
        self.submit(now, before, Tier::Memory, &adopted, (None, None));
    }

    /// Applies what was learnt on loading and has no number: a volatile event.
    pub fn learn(&mut self, event: &M::Event) {
        debug_assert!(!M::is_durable(event), "it would have to be written");
        self.machine.apply(self.seq, event);
    }

    /// Has all rows of its checkpoint written: what is there can't be added to.
    pub fn rewrite_checkpoint(&mut self, now: Timestamp) {
        let life = (self.submitted.epoch, self.submitted.activation);
        let Some(checkpointing) = &mut self.checkpointing else {
            return;
        };
        checkpointing.forget();
        // What an earlier life decided is the database's.
        if life != (self.epoch, self.activation) {
            return;
        }
        let decided = Decided {
            entity: self.entity,
            before: self.submitted,
            after: self.submitted,
            at: now,
            urgent: self.gate.parked() > 0,
        };
        let (machine, stored) = (&self.machine, self.gate.durable());
        checkpointing.submit(machine, decided, &[], stored, &self.pen.sink);
    }

    /// Applies, once and before anything else, what the checkpoint knows more
    /// than the database.
    pub fn recover(&mut self, now: Timestamp, rows: &[Row]) {
        let events = self.machine.recover(rows);
        if !events.is_empty() {
            tracing::info!(
                entity.id = %self.entity.id,
                rows = rows.len(),
                events = events.len(),
                "recovered from the checkpoint"
            );
        }
        self.adopt(now, events);
    }

    /// All decisions up to `upto` are as durable as `tier` says. `publish` runs
    /// before the replies leave, if there is something new to show: only what
    /// is in the database settles anything.
    pub fn durable(&mut self, tier: Tier, upto: Seq, publish: impl FnOnce(&mut M)) {
        if tier == Tier::Database {
            self.machine.settle(upto);
            publish(&mut self.machine);
        }
        for parked in self.gate.open(tier, upto) {
            self.gate_wait.record(&parked);
            leave(&self.pen.ownership, parked);
        }
    }

    /// Tells those who have waited for longer than `patience` that the outcome
    /// is unknown: the decision stands, and may still become durable.
    pub fn give_up(&mut self, patience: Duration) {
        let overdue = |parked: &Parked<M>| parked.since.elapsed() > patience;
        for parked in self.gate.give_up(overdue) {
            let _ = parked.to.send(Err(AskError::Unknown));
        }
    }

    fn submit(
        &mut self,
        now: Timestamp,
        before: Seq,
        tier: Tier,
        events: &[(Seq, M::Event)],
        (trace, tie): (Option<&Trace>, Option<Tie>),
    ) {
        if self.seq == before {
            return;
        }
        #[cfg(feature = "sabotage")]
        sabotage::pass(Point::Applied);
        let after = Stamp {
            epoch: self.epoch,
            activation: self.activation,
            seq: self.seq,
        };
        let mut decided = Decided {
            entity: self.entity,
            before: self.submitted,
            after,
            at: now,
            urgent: tier > Tier::Memory,
        };
        if let Some(checkpointing) = &mut self.checkpointing {
            // Where a checkpoint is on its way, nobody waits for the database.
            decided.urgent = tier == Tier::Checkpoint;
            let (machine, stored) = (&self.machine, self.gate.durable());
            let written = checkpointing.submit(machine, decided, events, stored, &self.pen.sink);
            decided.urgent = tier == Tier::Database || (tier == Tier::Checkpoint && !written);
            if tier == Tier::Checkpoint && !written {
                telemetry::checkpoint_fallback();
            }
        }
        let machine = &self.machine;
        let last_event_seq = &mut self.last_event_seq;
        let record = |into: &mut Contribution| {
            into.belongs_to(trace);
            into.ties.extend(tie);
            for (seq, event) in events.iter().filter(|(_, event)| M::is_durable(event)) {
                into.journalise(*seq, now, event);
                let published = into.outbox.len();
                machine.record(event, into);
                for row in into.outbox.iter_mut().skip(published) {
                    *last_event_seq += 1;
                    row.event_seq = *last_event_seq;
                    row.trace = trace.cloned();
                }
            }
        };
        self.pen.lane.submit(decided, &self.pen.sink, record);
        self.submitted = after;
        #[cfg(feature = "sabotage")]
        self.submitted_in_a_broken_build(after);
    }

    #[cfg(feature = "sabotage")]
    fn submitted_in_a_broken_build(&self, after: Stamp) {
        sabotage::pass(Point::Submitted);
        if sabotage::is_on(Switch::AckBeforeCommit) {
            let (sink, entity) = (&self.pen.sink, self.entity);
            sink.durable(entity, after.activation, Tier::Database, after.seq);
        }
        sabotage::decided(after.seq);
    }
}

/// The last moment at which this node may find out that it was frozen for so
/// long that another has taken over: then what became of the decision is for
/// that one to say.
fn leave<M: Persisted>(ownership: &Ownership, parked: Parked<M>) {
    #[cfg(feature = "sabotage")]
    sabotage::pass(Point::Answer);
    let answer = if ownership.may_acknowledge(parked.tier) {
        Ok(parked.outcome)
    } else {
        Err(AskError::Unknown)
    };
    // Nobody listens any more: the decision stands, and its caller asks again.
    let _ = parked.to.send(answer);
}
