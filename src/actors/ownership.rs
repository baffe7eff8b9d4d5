//! Which shards this node owns, in which epoch, and until when it may say so.
//!
//! A node decides for the entities of its shards alone, and acknowledges
//! nothing once its lease has run out by its own clock: by then another node
//! may decide for them. Ownership is gained and lost by the
//! [`keeper`](super::keeper); everybody else only reads it, with one atomic
//! load on the hot path.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::clock;
use crate::domain::decision::Tier;
use crate::domain::ids::{Activation, Epoch, Incarnation, NodeId, SHARDS, ShardId};
use crate::domain::time::{Millis, Timestamp};
use crate::telemetry;

/// How long a node goes on acknowledging what the checkpoint store has accepted
/// once its lease has run out: that store refuses it as soon as another node
/// owns the shard.
const CHECKPOINT_GRACE: Millis = Millis::from_secs(30);

/// What a node knows of one shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shard {
    /// Another node's, or nobody's yet.
    Elsewhere {
        /// Who owns it, as far as is known.
        owner: Option<Owner>,
        /// In which epoch.
        epoch: Epoch,
    },
    /// This node's.
    Ours {
        /// Since which epoch.
        epoch: Epoch,
        /// The last sign of life of an owner that died with it; `None` if it
        /// was handed over in order, or never owned.
        alive_before: Option<Timestamp>,
    },
    /// This node's, for the moment: nothing new is begun on it.
    HandingOver {
        /// Since which epoch.
        epoch: Epoch,
        /// Who gets it.
        to: NodeId,
    },
}

/// A node that owns shards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Which node.
    pub node: NodeId,
    /// Which of its lives.
    pub incarnation: Incarnation,
    /// Where its internal interface listens, e.g. `10.0.0.7:7400`.
    pub address: Arc<str>,
}

struct Slot {
    /// The epoch, twice, plus one where the shard is ours and serves: what the
    /// hot path reads of `state`.
    word: AtomicU64,
    /// The last activation number given in this epoch.
    activations: AtomicU32,
    state: RwLock<Shard>,
}

/// Which shards are ours, and until when.
pub struct Ownership {
    slots: Box<[Slot]>,
    /// Milliseconds since boot, by which the lease ends unless it is renewed;
    /// `i64::MAX` where the lock of the data folder is the lease.
    stops_at: AtomicI64,
    changes: watch::Sender<u64>,
}

impl std::fmt::Debug for Ownership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ownership")
            .field("shards", &self.owned().len())
            .finish_non_exhaustive()
    }
}

impl Ownership {
    /// No shard is ours yet, and there is no lease.
    #[must_use]
    pub fn none() -> Self {
        Self::with(|| Shard::Elsewhere {
            owner: None,
            epoch: Epoch(0),
        })
    }

    /// All shards, in `epoch`, for as long as the process lives.
    #[must_use]
    pub fn of_all(epoch: Epoch, alive_before: Option<Timestamp>) -> Self {
        let all = Self::with(|| Shard::Ours {
            epoch,
            alive_before,
        });
        all.stops_at.store(i64::MAX, Ordering::Relaxed);
        all
    }

    fn with(state: impl Fn() -> Shard) -> Self {
        let slot = || {
            let state = state();
            Slot {
                word: AtomicU64::new(word(&state)),
                activations: AtomicU32::new(0),
                state: RwLock::new(state),
            }
        };
        Self {
            slots: (0..SHARDS).map(|_| slot()).collect(),
            stops_at: AtomicI64::new(i64::MIN),
            changes: watch::Sender::new(0),
        }
    }

    /// Whether commands for the entities of `shard` run here.
    #[must_use]
    pub fn is_here(&self, shard: ShardId) -> bool {
        self.word(shard) & 1 == 1
    }

    /// The epoch in which `shard` is ours, handed over or not.
    #[must_use]
    pub fn epoch(&self, shard: ShardId) -> Option<Epoch> {
        match self.state(shard) {
            Shard::Ours { epoch, .. } | Shard::HandingOver { epoch, .. } => Some(epoch),
            Shard::Elsewhere { .. } => None,
        }
    }

    /// What is known of `shard`.
    #[must_use]
    pub fn state(&self, shard: ShardId) -> Shard {
        self.slot(shard).state.read().clone()
    }

    /// The other node that owns `shard`; `None` if it is ours, or nobody's as
    /// far as is known.
    #[must_use]
    pub fn owner(&self, shard: ShardId) -> Option<Owner> {
        match self.state(shard) {
            Shard::Elsewhere { owner, .. } => owner,
            Shard::Ours { .. } | Shard::HandingOver { .. } => None,
        }
    }

    /// The last sign of life of the owner that `shard` was taken from.
    #[must_use]
    pub fn alive_before(&self, shard: ShardId) -> Option<Timestamp> {
        match self.state(shard) {
            Shard::Ours { alive_before, .. } => alive_before,
            Shard::Elsewhere { .. } | Shard::HandingOver { .. } => None,
        }
    }

    /// A new life of an entity in `shard`, with the epoch that its
    /// contributions carry: never the same twice. `None` if the shard isn't
    /// ours any more.
    #[must_use]
    pub fn activate(&self, shard: ShardId) -> Option<(Epoch, Activation)> {
        let slot = self.slot(shard);
        // Held, so that the epoch and the count belong together.
        let state = slot.state.read();
        let (Shard::Ours { epoch, .. } | Shard::HandingOver { epoch, .. }) = &*state else {
            return None;
        };
        let number = slot.activations.fetch_add(1, Ordering::Relaxed) + 1;
        Some((*epoch, Activation(number)))
    }

    /// All shards that are ours, handed over or not, with their epochs.
    #[must_use]
    pub fn owned(&self) -> Vec<(ShardId, Epoch)> {
        (0..SHARDS)
            .map(ShardId)
            .filter_map(|shard| Some((shard, self.epoch(shard)?)))
            .collect()
    }

    /// The other nodes that own shards.
    #[must_use]
    pub fn others(&self) -> Vec<Owner> {
        let mut others: Vec<Owner> = Vec::new();
        for slot in &self.slots {
            if let Shard::Elsewhere {
                owner: Some(owner), ..
            } = &*slot.state.read()
                && !others.contains(owner)
            {
                others.push(owner.clone());
            }
        }
        others
    }

    /// Whether an output of `tier` may leave now. Asked when it leaves: a
    /// process that was frozen must find out before it says anything.
    #[must_use]
    pub fn may_acknowledge(&self, tier: Tier) -> bool {
        let stops_at = self.stops_at.load(Ordering::Relaxed);
        if stops_at == i64::MAX {
            return true;
        }
        let grace = match tier {
            Tier::Memory | Tier::Database => 0,
            Tier::Checkpoint => CHECKPOINT_GRACE.0,
        };
        clock::since_boot().0 < stops_at.saturating_add(grace)
    }

    /// The lease was renewed: it ends at `stops_at` since boot. It never moves
    /// back.
    pub fn renewed(&self, stops_at: Millis) {
        self.stops_at.fetch_max(stops_at.0, Ordering::Relaxed);
    }

    /// What is left of the lease; `None` where the lock of the data folder is the
    /// lease.
    #[must_use]
    pub fn lease_left(&self) -> Option<Millis> {
        let stops_at = self.stops_at.load(Ordering::Relaxed);
        let left = stops_at.saturating_sub(clock::since_boot().0);
        // Given up, it has run out; how long ago means nothing.
        (stops_at != i64::MAX).then_some(Millis(left.max(-CHECKPOINT_GRACE.0)))
    }

    /// The lease is given up: nothing is acknowledged any more.
    pub fn resign(&self) {
        self.stops_at.store(i64::MIN, Ordering::Relaxed);
    }

    /// `shard` is ours from now on, in `epoch`. Its directory must be empty.
    pub fn gain(&self, shard: ShardId, epoch: Epoch, alive_before: Option<Timestamp>) {
        let slot = self.slot(shard);
        let mut state = slot.state.write();
        slot.activations.store(0, Ordering::Relaxed);
        telemetry::shard_gained();
        *state = Shard::Ours {
            epoch,
            alive_before,
        };
        self.publish(slot, &state);
    }

    /// `shard` is another node's (or nobody's): nothing is begun on it here.
    /// Empty its directory next.
    pub fn lose(&self, shard: ShardId, owner: Option<Owner>, epoch: Epoch) {
        let slot = self.slot(shard);
        let mut state = slot.state.write();
        let lost = Shard::Elsewhere { owner, epoch };
        if *state != lost {
            if !matches!(*state, Shard::Elsewhere { .. }) {
                telemetry::shard_lost();
            }
            *state = lost;
            self.publish(slot, &state);
        }
    }

    /// Another node says who owns `shard`. Believed only of shards that aren't
    /// ours: those we know from the database.
    pub fn learn(&self, shard: ShardId, said: Owner, said_epoch: Epoch) {
        let slot = self.slot(shard);
        let mut state = slot.state.write();
        let Shard::Elsewhere { owner, epoch } = &*state else {
            return;
        };
        if said_epoch > *epoch && owner.as_ref() != Some(&said) {
            *state = Shard::Elsewhere {
                owner: Some(said),
                epoch: said_epoch,
            };
            self.publish(slot, &state);
        }
    }

    /// `shard` is on its way to `to`: nothing new is begun on it. `false` if it
    /// isn't ours.
    pub fn begin_hand_over(&self, shard: ShardId, to: NodeId) -> bool {
        let slot = self.slot(shard);
        let mut state = slot.state.write();
        let Shard::Ours { epoch, .. } = *state else {
            return false;
        };
        *state = Shard::HandingOver { epoch, to };
        self.publish(slot, &state);
        true
    }

    /// The hand-over came to nothing: `shard` serves again.
    pub fn keep(&self, shard: ShardId) {
        let slot = self.slot(shard);
        let mut state = slot.state.write();
        if let Shard::HandingOver { epoch, .. } = *state {
            *state = Shard::Ours {
                epoch,
                alive_before: None,
            };
            self.publish(slot, &state);
        }
    }

    /// Told whenever a shard changes hands, for who waits for that.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn publish(&self, slot: &Slot, state: &Shard) {
        slot.word.store(word(state), Ordering::Release);
        self.changes.send_modify(|count| *count += 1);
    }

    fn word(&self, shard: ShardId) -> u64 {
        self.slot(shard).word.load(Ordering::Acquire)
    }

    fn slot(&self, shard: ShardId) -> &Slot {
        // There are as many as shards, and `shard_of` and `shard_in` give no more.
        &self.slots[usize::from(shard.0 % SHARDS)]
    }
}

fn word(state: &Shard) -> u64 {
    match state {
        Shard::Elsewhere { epoch, .. } | Shard::HandingOver { epoch, .. } => {
            u64::from(epoch.0) << 1
        }
        Shard::Ours { epoch, .. } => (u64::from(epoch.0) << 1) | 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(7);

    #[test]
    fn activation_numbers_begin_at_1_in_each_epoch_and_never_repeat_within_it() {
        let ownership = Ownership::none();
        assert_eq!(ownership.activate(SHARD), None);
        ownership.gain(SHARD, Epoch(4), None);
        assert_eq!(ownership.activate(SHARD), Some((Epoch(4), Activation(1))));
        assert_eq!(ownership.activate(SHARD), Some((Epoch(4), Activation(2))));
        ownership.lose(SHARD, None, Epoch(5));
        assert_eq!(ownership.activate(SHARD), None);
        ownership.gain(SHARD, Epoch(6), None);
        assert_eq!(ownership.activate(SHARD), Some((Epoch(6), Activation(1))));
    }

    #[test]
    fn nothing_but_the_checkpoint_is_acknowledged_past_the_lease() {
        let ownership = Ownership::none();
        assert!(!ownership.may_acknowledge(Tier::Memory));
        let now = clock::since_boot();
        ownership.renewed(Millis(now.0 + 60_000));
        assert!(ownership.may_acknowledge(Tier::Memory));
        let ended = Ownership::none();
        ended.renewed(Millis(now.0 - 1));
        assert!(!ended.may_acknowledge(Tier::Memory));
        assert!(!ended.may_acknowledge(Tier::Database));
        assert!(ended.may_acknowledge(Tier::Checkpoint));
        let long_ended = Ownership::none();
        long_ended.renewed(Millis(now.0 - CHECKPOINT_GRACE.0 - 1));
        assert!(!long_ended.may_acknowledge(Tier::Checkpoint));
        assert!(Ownership::of_all(Epoch(1), None).may_acknowledge(Tier::Memory));
    }

    #[test]
    fn a_shard_that_is_handed_over_takes_nothing_new_until_it_is_kept() {
        let ownership = Ownership::none();
        let to = NodeId::new("b");
        assert!(!ownership.begin_hand_over(SHARD, to.clone()));
        ownership.gain(SHARD, Epoch(2), None);
        assert!(ownership.is_here(SHARD));
        assert!(ownership.begin_hand_over(SHARD, to));
        assert!(!ownership.is_here(SHARD));
        assert_eq!(ownership.epoch(SHARD), Some(Epoch(2)));
        ownership.keep(SHARD);
        assert!(ownership.is_here(SHARD));
    }

    #[test]
    fn another_nodes_word_about_our_own_shards_counts_for_nothing() {
        let ownership = Ownership::none();
        let liar = Owner {
            node: NodeId::new("b"),
            incarnation: Incarnation(1),
            address: "127.0.0.1:1".into(),
        };
        ownership.gain(SHARD, Epoch(2), None);
        ownership.learn(SHARD, liar.clone(), Epoch(9));
        assert!(ownership.is_here(SHARD));
        ownership.lose(SHARD, None, Epoch(9));
        ownership.learn(SHARD, liar.clone(), Epoch(8));
        assert_eq!(
            ownership.state(SHARD),
            Shard::Elsewhere {
                owner: None,
                epoch: Epoch(9)
            }
        );
        ownership.learn(SHARD, liar.clone(), Epoch(10));
        assert_eq!(
            ownership.state(SHARD),
            Shard::Elsewhere {
                owner: Some(liar),
                epoch: Epoch(10)
            }
        );
    }
}
