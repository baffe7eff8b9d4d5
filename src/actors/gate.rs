//! The output gate: what a reply promises must be durable before it leaves.
//!
//! There are two watermarks, and a line of replies for each. A reply of tier
//! `checkpoint` leaves when the checkpoint *or* the database covers it, one of
//! tier `database` when the database does. Neither line waits for the other,
//! and a checkpoint opens nothing of the line of the database.

use std::collections::VecDeque;

use crate::domain::decision::Tier;
use crate::domain::ids::Seq;

/// Replies of one entity that wait for their decision to be durable, each line
/// in the order of the decisions.
#[derive(Debug)]
pub struct Gate<T> {
    checkpoint: Line<T>,
    database: Line<T>,
}

#[derive(Debug)]
struct Line<T> {
    parked: VecDeque<(Seq, T)>,
    /// What may leave: everything up to here.
    open: Seq,
}

impl<T> Line<T> {
    fn pass(&mut self, seq: Seq, output: T) -> Option<T> {
        if seq <= self.open {
            return Some(output);
        }
        debug_assert!(self.parked.back().is_none_or(|(last, _)| *last <= seq));
        self.parked.push_back((seq, output));
        None
    }

    fn open(&mut self, upto: Seq) -> impl Iterator<Item = T> + '_ {
        self.open = self.open.max(upto);
        let open = self.open;
        self.leave(move |seq, _| seq <= open)
    }

    fn leave(&mut self, may: impl Fn(Seq, &T) -> bool) -> impl Iterator<Item = T> + '_ {
        let may_leave = |(seq, output): &&(Seq, T)| may(*seq, output);
        let leaving = self.parked.iter().take_while(may_leave).count();
        self.parked.drain(..leaving).map(|(_, output)| output)
    }
}

impl<T> Gate<T> {
    /// A gate of an entity whose state at `durable` is stored.
    #[must_use]
    pub fn new(durable: Seq) -> Self {
        let line = || Line {
            parked: VecDeque::new(),
            open: durable,
        };
        Self {
            checkpoint: line(),
            database: line(),
        }
    }

    /// Gives `output` back if it may leave now, else parks it. `seq` is the
    /// last decision that it reveals.
    pub fn pass(&mut self, tier: Tier, seq: Seq, output: T) -> Option<T> {
        match tier {
            Tier::Memory => Some(output),
            Tier::Checkpoint => self.checkpoint.pass(seq, output),
            Tier::Database => self.database.pass(seq, output),
        }
    }

    /// All decisions up to `upto` are as durable as `tier` says: what may leave
    /// now, each line in order.
    pub fn open(&mut self, tier: Tier, upto: Seq) -> impl Iterator<Item = T> + '_ {
        let database = match tier {
            Tier::Database => upto,
            Tier::Checkpoint | Tier::Memory => self.database.open,
        };
        let checkpoint = match tier {
            Tier::Database | Tier::Checkpoint => upto,
            Tier::Memory => self.checkpoint.open,
        };
        let Self {
            checkpoint: of_checkpoint,
            database: of_database,
        } = self;
        of_checkpoint
            .open(checkpoint)
            .chain(of_database.open(database))
    }

    /// Takes out what has waited for too long: the oldest that are `overdue`.
    pub fn give_up<F: Fn(&T) -> bool + Copy>(
        &mut self,
        overdue: F,
    ) -> impl Iterator<Item = T> + use<'_, T, F> {
        let of = move |_: Seq, output: &T| overdue(output);
        let Self {
            checkpoint,
            database,
        } = self;
        checkpoint.leave(of).chain(database.leave(of))
    }

    /// Up to where the state is in the database.
    #[must_use]
    pub fn durable(&self) -> Seq {
        self.database.open
    }

    /// How many replies wait.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.checkpoint.parked.len() + self.database.parked.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_of_a_stronger_tier_leaves_before_its_decision_is_stored() {
        let mut gate = Gate::new(Seq(4));
        assert_eq!(gate.pass(Tier::Memory, Seq(9), 'm'), Some('m'));
        assert_eq!(gate.pass(Tier::Database, Seq(4), 'd'), Some('d'));
        assert_eq!(gate.pass(Tier::Database, Seq(5), 'a'), None);
        assert_eq!(gate.pass(Tier::Checkpoint, Seq(6), 'b'), None);
        assert_eq!(gate.open(Tier::Database, Seq(5)).collect::<Vec<_>>(), ['a']);
        assert_eq!(gate.parked(), 1);
        assert_eq!(gate.open(Tier::Database, Seq(7)).collect::<Vec<_>>(), ['b']);
        assert_eq!(gate.durable(), Seq(7));
    }

    #[test]
    fn neither_tier_waits_for_the_replies_of_the_other() {
        let mut gate = Gate::new(Seq(0));
        assert_eq!(gate.pass(Tier::Database, Seq(1), "sale"), None);
        assert_eq!(gate.pass(Tier::Checkpoint, Seq(2), "hold"), None);
        let left: Vec<_> = gate.open(Tier::Checkpoint, Seq(2)).collect();
        assert_eq!(left, ["hold"], "the hold doesn't wait for the sale before");
        assert_eq!(gate.pass(Tier::Checkpoint, Seq(3), "another hold"), None);
        let left: Vec<_> = gate.open(Tier::Database, Seq(1)).collect();
        assert_eq!(left, ["sale"]);
        assert_eq!(gate.parked(), 1);
    }

    /// What happens at a gate: a reply comes, or a write is done.
    #[derive(Clone, Debug)]
    enum Step {
        Reply(Tier, bool),
        Written(Tier, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let tier = || prop_oneof![Just(Tier::Checkpoint), Just(Tier::Database)];
        prop_oneof![
            (
                prop_oneof![
                    Just(Tier::Memory),
                    Just(Tier::Checkpoint),
                    Just(Tier::Database)
                ],
                any::<bool>()
            )
                .prop_map(|(tier, decides)| Step::Reply(tier, decides)),
            (tier(), 0..40u64).prop_map(|(tier, upto)| Step::Written(tier, upto)),
        ]
    }

    proptest! {
        #[test]
        fn a_stronger_change_never_leaks_through_a_weaker_tier(
            steps in proptest::collection::vec(step(), 1..120)
        ) {
            let mut gate = Gate::new(Seq(0));
            let (mut seq, mut checkpointed, mut stored) = (0u64, 0u64, 0u64);
            let mut waiting = Vec::new();
            for step in steps {
                let left: Vec<(Tier, u64)> = match step {
                    Step::Reply(tier, decides) => {
                        seq += u64::from(decides);
                        waiting.push((tier, seq));
                        gate.pass(tier, Seq(seq), (tier, seq)).into_iter().collect()
                    }
                    Step::Written(tier, upto) => {
                        // Nothing is written before it is decided.
                        let upto = upto.min(seq);
                        match tier {
                            Tier::Database => stored = stored.max(upto),
                            _ => checkpointed = checkpointed.max(upto),
                        }
                        gate.open(tier, Seq(upto)).collect()
                    }
                };
                let covered = |tier: Tier, seq: u64| match tier {
                    Tier::Memory => true,
                    Tier::Checkpoint => seq <= checkpointed.max(stored),
                    Tier::Database => seq <= stored,
                };
                for (tier, seq) in left {
                    prop_assert!(covered(tier, seq), "{tier:?} of {seq} left too early");
                    let at = waiting.iter().position(|w| *w == (tier, seq));
                    waiting.remove(at.expect("it waited"));
                }
                for (tier, seq) in &waiting {
                    prop_assert!(!covered(*tier, *seq), "{tier:?} of {seq} waits in vain");
                }
                prop_assert_eq!(gate.parked(), waiting.len());
            }
        }
    }
}
