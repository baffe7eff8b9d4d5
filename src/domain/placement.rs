//! Which node should own which shard: rendezvous hashing (highest random
//! weight) over the nodes that live.
//!
//! Every node computes the same placement from the same list, with nobody to
//! ask. When a node comes or goes, only the shards that it gets or had move.

use super::ids::{NodeId, SHARDS, ShardId};

/// A node that may own shards.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Candidate {
    node: NodeId,
    seed: u64,
}

/// The nodes among which shards are placed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    candidates: Vec<Candidate>,
}

impl Placement {
    /// Over these nodes; their order, and repetitions, don't matter.
    #[must_use]
    pub fn over(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let mut candidates: Vec<Candidate> = nodes
            .into_iter()
            .map(|node| Candidate {
                seed: seed_of(&node),
                node,
            })
            .collect();
        candidates.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        candidates.dedup_by(|a, b| a.node == b.node);
        Self { candidates }
    }

    /// The node that should own `shard`; `None` if there is none at all.
    #[must_use]
    pub fn owner(&self, shard: ShardId) -> Option<&NodeId> {
        self.candidates
            .iter()
            // Equal weights (one in 2^64) go to the later name, on every node.
            .max_by_key(|candidate| weight(candidate.seed, shard))
            .map(|candidate| &candidate.node)
    }

    /// The shards that `node` should own.
    pub fn shards_of<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = ShardId> + 'a {
        (0..SHARDS)
            .map(ShardId)
            .filter(move |shard| self.owner(*shard) == Some(node))
    }
}

/// The same in every process and version: FNV-1a of the name, well mixed.
fn seed_of(node: &NodeId) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = node.as_str().bytes();
    mix(bytes.fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    }))
}

fn weight(seed: u64, shard: ShardId) -> u64 {
    mix(seed ^ mix(u64::from(shard.0) + 1))
}

/// The finaliser of SplitMix64: every bit of the input changes half of the
/// output's.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn placement(names: &[String]) -> Placement {
        Placement::over(names.iter().map(|name| NodeId::new(name)))
    }

    fn names() -> impl Strategy<Value = Vec<String>> {
        prop::collection::hash_set("[a-z0-9]{1,12}", 1..8)
            .prop_map(|names| names.into_iter().collect())
    }

    proptest! {
        #[test]
        fn every_node_computes_the_same_whatever_the_order(names in names()) {
            let mut turned = names.clone();
            turned.reverse();
            turned.push(names[0].clone());
            prop_assert_eq!(placement(&names), placement(&turned));
        }

        #[test]
        fn a_node_that_comes_takes_only_its_own_and_one_that_goes_leaves_only_its_own(
            names in names(), newcomer in "[A-Z]{1,12}",
        ) {
            let before = placement(&names);
            let after = placement(&[names.as_slice(), std::slice::from_ref(&newcomer)].concat());
            let newcomer = NodeId::new(&newcomer);
            for shard in (0..SHARDS).map(ShardId) {
                let (old, new) = (before.owner(shard), after.owner(shard));
                prop_assert!(old == new || new == Some(&newcomer), "{shard} moved for nothing");
            }
        }

        #[test]
        fn every_node_gets_about_its_share(names in names()) {
            let placement = placement(&names);
            let share = usize::from(SHARDS) / names.len();
            for name in &names {
                let own = placement.shards_of(&NodeId::new(name)).count();
                // A share of n has a standard deviation below sqrt(n): five of them.
                let slack = 5 * share.isqrt() + 1;
                prop_assert!(own.abs_diff(share) <= slack, "{own} of {share}");
            }
        }
    }

    #[test]
    fn nobody_owns_anything_where_there_is_nobody() {
        assert_eq!(Placement::default().owner(ShardId(7)), None);
    }
}
