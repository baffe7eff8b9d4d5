//! The write lanes of the checkpoints, and what an entity keeps for them.
//!
//! Nothing here is needed for correctness: what a checkpoint doesn't get, the
//! database does. So a write that fails is not repeated. The tier is given up
//! for all entities at once ([`Health`]), whatever waits is dropped, and replies
//! leave when the database has their decisions. Once the checkpoints are back
//! and fenced, each entity's first write carries all of its rows, and only that
//! write opens its gate again.

mod health;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub use self::health::{Generation, Health, keep_usable};
use super::lane::{Decided, Entry, Lane, Parcel, Sink, Writer};
use crate::clock::monotonic;
use crate::domain::decision::Tier;
use crate::domain::ids::Seq;
use crate::persistence::checkpoint::rows::{Checkpointed, RowChange, RowChanges};
use crate::persistence::checkpoint::{Base, CheckpointError, Checkpoints, Delta, Outcome, RowId};
use crate::telemetry::FlushMetrics;

/// How long a write may take, with a new connection and redirections.
const WRITE_MAX: Duration = Duration::from_millis(1_500);

/// How many rows that aren't needed any more a decision has removed: more than
/// it adds, and few enough for one script.
const TRIMMED_MAX: usize = 256;

impl Parcel for Delta {
    fn begin(decided: &Decided) -> Self {
        Self::new(decided.entity, Base::After(decided.before), decided.after)
    }

    fn extend(&mut self, decided: &Decided) {
        self.after = decided.after;
    }

    fn rows(&self) -> usize {
        1 + self.len()
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

/// Writes batches to the checkpoints.
pub struct CheckpointWriter {
    checkpoints: Arc<Checkpoints>,
    health: Arc<Health>,
    metrics: FlushMetrics,
}

impl CheckpointWriter {
    /// A writer to `checkpoints` that keeps `health` up to date.
    #[must_use]
    pub fn new(checkpoints: Arc<Checkpoints>, health: Arc<Health>, metrics: FlushMetrics) -> Self {
        Self {
            checkpoints,
            health,
            metrics,
        }
    }

    async fn write_all(&self, deltas: &[Delta]) -> Result<Vec<Outcome>, CheckpointError> {
        let begun = monotonic();
        let written = tokio::time::timeout(WRITE_MAX, self.checkpoints.write(deltas))
            .await
            .unwrap_or_else(|_| {
                Err(CheckpointError::Unavailable(
                    "a write takes too long".into(),
                ))
            });
        match &written {
            Ok(_) => {
                #[cfg(feature = "sabotage")]
                crate::sabotage::pass(crate::sabotage::Point::Checkpointed);
                let rows = deltas.iter().map(Parcel::rows).sum();
                self.metrics.flushed(begun.elapsed(), rows);
            }
            Err(_) => self.metrics.failed("unavailable"),
        }
        written
    }

    fn tell(&self, delta: &Delta, sink: &dyn Sink, outcome: Outcome) {
        let (entity, activation) = (delta.entity, delta.after.activation);
        match outcome {
            Outcome::Written => sink.durable(entity, activation, Tier::Checkpoint, delta.after.seq),
            Outcome::Fenced => {
                tracing::warn!(entity.id = %entity.id, entity.kind = entity.kind.as_str(), "a checkpoint was fenced");
                self.metrics.fenced();
                sink.lost(entity, activation);
            }
            Outcome::NoBase => sink.rebase(entity, activation),
            Outcome::NoFence => self.health.lose(&"the fences are gone"),
        }
    }
}

impl Writer<Delta> for CheckpointWriter {
    async fn write(&self, lane: &Lane<Delta>, batch: Vec<Entry<Delta>>) {
        let (deltas, sinks): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|entry| (entry.parcel, entry.sink))
            .unzip();
        if self.health.usable().is_some() {
            match self.write_all(&deltas).await {
                Ok(outcomes) => {
                    for ((delta, sink), outcome) in deltas.iter().zip(&sinks).zip(outcomes) {
                        self.tell(delta, sink.as_ref(), outcome);
                    }
                }
                Err(error) => self.health.lose(&error),
            }
        }
        for delta in &deltas {
            lane.done(delta);
        }
    }
}

/// Where an entity writes its checkpoints.
#[derive(Clone, Debug)]
pub struct CheckpointPen {
    /// Its lane.
    pub lane: Lane<Delta>,
    /// Whether it can be used.
    pub health: Arc<Health>,
}

/// A row that goes once the database has the decision.
struct Spent {
    seq: Seq,
    row: RowId,
    /// What it says until then, if not what it said before.
    over: Option<Vec<u8>>,
}

/// What an entity keeps for its checkpoints.
pub struct Checkpointing {
    pen: CheckpointPen,
    /// In which generation all of its rows were last written.
    complete_in: Option<Generation>,
    /// In the order of the decisions; bounded by what may wait for the database.
    spent: VecDeque<Spent>,
}

impl Checkpointing {
    /// Of an entity that has written nothing yet.
    #[must_use]
    pub fn new(pen: CheckpointPen) -> Self {
        Self {
            pen,
            complete_in: None,
            spent: VecDeque::new(),
        }
    }

    /// Has a decision written, of which `events` were applied to `machine`;
    /// the database has everything up to `stored`. `false` if checkpoints can't
    /// be used.
    pub fn submit<M: Checkpointed>(
        &mut self,
        machine: &M,
        decided: Decided,
        events: &[(Seq, M::Event)],
        stored: Seq,
        sink: &Arc<dyn Sink>,
    ) -> bool {
        let mut changes = RowChanges::new();
        for (_, event) in events {
            machine.checkpoint(event, &mut changes);
        }
        let mut gone: Vec<RowId> = Vec::new();
        while gone.len() < TRIMMED_MAX
            && let Some(spent) = self.spent.pop_front_if(|spent| spent.seq <= stored)
        {
            gone.push(spent.row);
        }
        for (row, change) in &changes {
            let over = match change {
                RowChange::Put(_) => continue,
                RowChange::Over(body) => Some(body.clone()),
                RowChange::Spent => None,
            };
            let (seq, row) = (decided.after.seq, row.clone());
            self.spent.push_back(Spent { seq, row, over });
        }
        let usable = self.pen.health.usable();
        let is_complete = usable.is_some() && usable == self.complete_in;
        self.complete_in = usable;
        if usable.is_none() {
            return false;
        }
        let spent = &self.spent;
        self.pen.lane.submit(decided, sink, |delta| {
            if is_complete {
                put(delta, changes, gone);
            } else {
                put_whole(delta, machine, spent);
            }
        });
        true
    }

    /// The next write carries all rows.
    pub fn forget(&mut self) {
        self.complete_in = None;
    }
}

fn put(delta: &mut Delta, changes: RowChanges, gone: Vec<RowId>) {
    for (row, change) in changes {
        match change {
            RowChange::Put(body) | RowChange::Over(body) => delta.put(row, body),
            RowChange::Spent => {}
        }
    }
    for row in gone {
        delta.remove(row);
    }
}

fn put_whole<M: Checkpointed>(delta: &mut Delta, machine: &M, spent: &VecDeque<Spent>) {
    delta.restart_whole();
    for (row, body) in machine.checkpoint_whole() {
        delta.put(row, body);
    }
    for Spent { row, over, .. } in spent {
        if let Some(body) = over {
            delta.put(row.clone(), body.clone());
        }
    }
}

#[cfg(test)]
mod tests;
