//! The output gate: what a reply promises must be durable before it leaves.

use std::collections::VecDeque;

use crate::domain::decision::Tier;
use crate::domain::ids::Seq;

/// Replies of one entity that wait for their decision to be durable, in the
/// order of the decisions.
#[derive(Debug)]
pub struct Gate<T> {
    parked: VecDeque<(Seq, T)>,
    durable: Seq,
}

impl<T> Gate<T> {
    /// A gate of an entity whose state at `durable` is stored.
    #[must_use]
    pub fn new(durable: Seq) -> Self {
        Self {
            parked: VecDeque::new(),
            durable,
        }
    }

    /// Gives `output` back if it may leave now, else parks it. `seq` is the
    /// last decision that it reveals.
    pub fn pass(&mut self, tier: Tier, seq: Seq, output: T) -> Option<T> {
        match tier {
            Tier::Memory => Some(output),
            // One machine has no checkpoint but the database.
            Tier::Checkpoint | Tier::Database if seq <= self.durable => Some(output),
            Tier::Checkpoint | Tier::Database => {
                debug_assert!(self.parked.back().is_none_or(|(last, _)| *last <= seq));
                self.parked.push_back((seq, output));
                None
            }
        }
    }

    /// All decisions up to `upto` are in the database: what may leave now, in
    /// order.
    pub fn open(&mut self, upto: Seq) -> impl Iterator<Item = T> + '_ {
        self.durable = self.durable.max(upto);
        let leaving = self
            .parked
            .iter()
            .take_while(|(seq, _)| *seq <= self.durable)
            .count();
        self.parked.drain(..leaving).map(|(_, output)| output)
    }

    /// Takes out what has waited for too long: the oldest that are `overdue`.
    pub fn give_up(&mut self, overdue: impl Fn(&T) -> bool) -> impl Iterator<Item = T> + '_ {
        let leaving = self
            .parked
            .iter()
            .take_while(|(_, output)| overdue(output))
            .count();
        self.parked.drain(..leaving).map(|(_, output)| output)
    }

    /// Up to where the state is stored.
    #[must_use]
    pub fn durable(&self) -> Seq {
        self.durable
    }

    /// How many replies wait.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.parked.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_stronger_tier_leaves_before_its_decision_is_stored() {
        let mut gate = Gate::new(Seq(4));
        assert_eq!(gate.pass(Tier::Memory, Seq(9), 'm'), Some('m'));
        assert_eq!(gate.pass(Tier::Database, Seq(4), 'd'), Some('d'));
        assert_eq!(gate.pass(Tier::Database, Seq(5), 'a'), None);
        assert_eq!(gate.pass(Tier::Checkpoint, Seq(6), 'b'), None);
        assert_eq!(gate.open(Seq(5)).collect::<Vec<_>>(), ['a']);
        assert_eq!(gate.parked(), 1);
        assert_eq!(gate.open(Seq(7)).collect::<Vec<_>>(), ['b']);
        assert_eq!(gate.durable(), Seq(7));
    }
}
