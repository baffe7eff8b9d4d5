//! What a state machine is: it decides, and it applies what was decided.

use smallvec::SmallVec;

use super::ids::Seq;
use super::invariant::Violation;
use super::time::Timestamp;

/// When the outputs of a decision may leave: as soon as what they promise is
/// that durable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Tier {
    /// At once.
    Memory,
    /// After the fenced write of the checkpoint, or the SQL commit if that
    /// comes first.
    Checkpoint,
    /// After the SQL commit.
    Database,
}

/// The events of one decision: one or two, nearly always.
pub type Events<E> = SmallVec<[E; 1]>;

/// What was decided: what changes, and what the caller is told.
#[derive(Debug)]
pub struct Decision<E, R> {
    /// Applied in order; none for a read or a repetition.
    pub events: Events<E>,
    /// Leaves when the command's tier allows.
    pub reply: R,
}

impl<E, R> Decision<E, R> {
    /// Nothing changes.
    pub fn unchanged(reply: R) -> Self {
        Self {
            events: Events::new(),
            reply,
        }
    }

    /// One thing changes.
    pub fn one(event: E, reply: R) -> Self {
        let mut events = Events::new();
        events.push(event);
        Self { events, reply }
    }
}

/// A pure state machine. Production, recovery, audit and simulation run it
/// alike.
pub trait Machine {
    /// What it can be asked.
    type Command;
    /// What can happen to it. Carries all that [`Machine::apply`] needs.
    type Event: Clone;
    /// What it answers.
    type Reply;
    /// Why it did not do what was asked: an outcome, not an error.
    type Refusal;

    /// What is due by `now` and must happen before anything else is decided.
    fn due(&self, now: Timestamp) -> Events<Self::Event>;

    /// Decides `command`. Nothing is due when this is called.
    ///
    /// # Errors
    /// The refusal; nothing changes then.
    fn decide(
        &self,
        now: Timestamp,
        command: Self::Command,
    ) -> Result<Decision<Self::Event, Self::Reply>, Self::Refusal>;

    /// Looks once more at what was decided, by other means than the decision:
    /// whether `event` keeps the promises. Before it is applied; not asked on
    /// recovery.
    ///
    /// # Errors
    /// The promise that it would break, which is a defect.
    fn check(&self, _event: &Self::Event) -> Result<(), Violation> {
        Ok(())
    }

    /// Makes `event` so. Can't fail. `seq` is the decision's number; of a
    /// volatile event, that of the last decision.
    fn apply(&mut self, seq: Seq, event: &Self::Event);

    /// Whether `event` outlives the process. Volatile ones (a reserved key, a
    /// pinned hold) have no number, and recovery does without them.
    fn is_durable(event: &Self::Event) -> bool;

    /// How durable the machine's state must be before `outcome` may leave, where
    /// that is more than its command's tier asks: it shows a stronger change.
    fn reveals(&self, outcome: &Result<Self::Reply, Self::Refusal>) -> Tier;

    /// Told when all decisions up to `upto` are in the database: what they
    /// freed may be given out from now on, what they sold may be shown.
    fn settle(&mut self, upto: Seq);

    /// When [`Machine::due`] will next have something.
    fn next_deadline(&self) -> Option<Timestamp>;
}

/// What one command did to a machine.
pub struct Step<M: Machine> {
    /// All that was applied, in order: first what was due, then what the
    /// command decided.
    pub events: SmallVec<[(Seq, M::Event); 2]>,
    /// What the caller is told.
    pub outcome: Result<M::Reply, M::Refusal>,
}

/// Lets happen what is due, numbering durable decisions from `seq` on.
/// Returns the events with their numbers.
pub fn catch_up<M: Machine>(
    machine: &mut M,
    seq: &mut Seq,
    now: Timestamp,
    into: &mut SmallVec<[(Seq, M::Event); 2]>,
) {
    while catch_up_partly(machine, seq, now, into, usize::MAX) {}
}

/// The same, but stops once there are `events_max` events, or a decision's more.
/// Whether more may be due.
pub fn catch_up_partly<M: Machine>(
    machine: &mut M,
    seq: &mut Seq,
    now: Timestamp,
    into: &mut SmallVec<[(Seq, M::Event); 2]>,
    events_max: usize,
) -> bool {
    while into.len() < events_max {
        let due = machine.due(now);
        if due.is_empty() {
            return false;
        }
        apply_all(machine, seq, due, into);
    }
    true
}

/// Runs one command: what is due first, then the decision.
pub fn step<M: Machine>(
    machine: &mut M,
    seq: &mut Seq,
    now: Timestamp,
    command: M::Command,
) -> Step<M> {
    let mut events = SmallVec::new();
    catch_up(machine, seq, now, &mut events);
    let outcome = match machine.decide(now, command) {
        Ok(decision) => {
            apply_all(machine, seq, decision.events, &mut events);
            Ok(decision.reply)
        }
        Err(refusal) => Err(refusal),
    };
    Step { events, outcome }
}

/// One decision has one number, however many events it has.
fn apply_all<M: Machine>(
    machine: &mut M,
    seq: &mut Seq,
    events: Events<M::Event>,
    into: &mut SmallVec<[(Seq, M::Event); 2]>,
) {
    if events.iter().any(M::is_durable) {
        *seq = seq.next();
    }
    for event in events {
        if let Err(violation) = machine.check(&event) {
            violation.raise();
        }
        machine.apply(*seq, &event);
        into.push((*seq, event));
    }
}
