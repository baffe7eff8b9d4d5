//! Identifiers, shards and the version triple of an entity's state.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How many shards the entities are divided into; fixed for ever, because
/// identifiers carry their shard.
pub const SHARDS: u16 = 1024;

/// One of the [`SHARDS`] slices of the entities. Ownership, fencing and write
/// lanes go by shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Some of the shards.
#[derive(Clone, PartialEq, Eq)]
pub struct ShardSet([u64; SHARDS as usize / 64]);

impl ShardSet {
    /// None of them.
    pub const EMPTY: Self = Self([0; SHARDS as usize / 64]);

    /// Puts `shard` in.
    pub fn insert(&mut self, shard: ShardId) {
        if let Some(word) = self.0.get_mut(usize::from(shard.0 / 64)) {
            *word |= 1 << (shard.0 % 64);
        }
    }

    /// Whether `shard` is one of them.
    #[must_use]
    pub fn contains(&self, shard: ShardId) -> bool {
        let word = self.0.get(usize::from(shard.0 / 64));
        word.is_some_and(|word| (word >> (shard.0 % 64)) & 1 == 1)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}

impl fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shards", self.len())
    }
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardId>>(shards: I) -> Self {
        let mut set = Self::EMPTY;
        shards.into_iter().for_each(|shard| set.insert(shard));
        set
    }
}

/// The shard of the entity with this identifier.
///
/// The low 62 bits of a UUIDv7 are random, so their multiplicative hash is an
/// even spread.
#[must_use]
pub fn shard_of(entity: Uuid) -> ShardId {
    let (_, low) = entity.as_u64_pair();
    let mixed = low.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The top ten bits of the product: below SHARDS by construction.
    ShardId((mixed >> 54) as u16)
}

/// Puts `shard` into the ten low bits of `rand_a`, so that every node can route
/// the identifier of a hold, order, payment or ticket without looking it up.
///
/// `rand_a` is the 12 bits after the version of a UUIDv7 (RFC 9562 §5.7); the
/// other two stay random.
#[must_use]
pub fn with_shard(id: Uuid, shard: ShardId) -> Uuid {
    let (high, low) = id.as_u64_pair();
    Uuid::from_u64_pair((high & !0x3ff) | u64::from(shard.0), low)
}

/// The shard that [`with_shard`] put in.
#[must_use]
pub fn shard_in(id: Uuid) -> ShardId {
    let (high, _) = id.as_u64_pair();
    ShardId((high & 0x3ff) as u16)
}

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )*};
}

id! {
    /// A person with an account; also the id of the account entity.
    UserId;
    /// A place with sections, rows and seats.
    VenueId;
    /// A show that is sold, on one or more timetables.
    PerformanceId;
    /// One date of a performance: the entity that seats are sold in.
    TimetableId;
    /// Seats taken for a while by one user. Carries its timetable's shard.
    HoldId;
    /// A purchase of a hold's seats. Carries its timetable's shard.
    OrderId;
    /// The payment of an order or a top-up. Carries the shard of its entity.
    PaymentId;
    /// The right to one seat. Carries its timetable's shard.
    TicketId;
    /// A line of refresh tokens that began with one sign-in.
    SessionId;
    /// A place in the waiting room, from joining to its end.
    QueueTicketId;
    /// A coupon, whose stock is claimed first come, first served.
    CouponId;
    /// A user's claim of a coupon. Carries its coupon's shard.
    CouponClaimId;
}

/// What kind of state machine an entity is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum EntityKind {
    /// [`crate::domain::timetable`]
    Timetable,
    /// [`crate::domain::account`]
    Account,
    /// [`crate::domain::queue`]; its id is the performance's.
    Queue,
    /// [`crate::domain::coupon`]
    Coupon,
}

impl EntityKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Timetable, Self::Account, Self::Queue, Self::Coupon];

    /// The kind of this name; `None` if there is none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The name used in the store, in logs and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timetable => "timetable",
            Self::Account => "account",
            Self::Queue => "queue",
            Self::Coupon => "coupon",
        }
    }
}

/// The address of a state machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct EntityId {
    /// Which state machine.
    pub kind: EntityKind,
    /// Which one of them.
    pub id: Uuid,
}

impl EntityId {
    /// The shard that owns this entity.
    #[must_use]
    pub fn shard(self) -> ShardId {
        shard_of(self.id)
    }
}

impl From<TimetableId> for EntityId {
    fn from(id: TimetableId) -> Self {
        Self {
            kind: EntityKind::Timetable,
            id: id.0,
        }
    }
}

impl From<UserId> for EntityId {
    fn from(id: UserId) -> Self {
        Self {
            kind: EntityKind::Account,
            id: id.0,
        }
    }
}

/// The queue of a performance.
impl From<PerformanceId> for EntityId {
    fn from(id: PerformanceId) -> Self {
        Self {
            kind: EntityKind::Queue,
            id: id.0,
        }
    }
}

impl From<CouponId> for EntityId {
    fn from(id: CouponId) -> Self {
        Self {
            kind: EntityKind::Coupon,
            id: id.0,
        }
    }
}

/// The name of a server: the same over its restarts. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The node of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How often a node has started.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize,
)]
pub struct Incarnation(pub u32);

/// How often the ownership of a shard has changed; a write that carries an old
/// one is refused.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize,
)]
pub struct Epoch(pub u32);

/// How often an entity was loaded within its shard's epoch, counted per shard
/// from 1.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize,
)]
pub struct Activation(pub u32);

/// How many mutating decisions an entity has taken in its life.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize,
)]
pub struct Seq(pub u64);

impl Seq {
    /// The number of the decision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Identifies one state of one entity (DESIGN: `(epoch, activation, seq)`).
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize,
)]
pub struct Stamp {
    /// Epoch of the entity's shard when its owner loaded it.
    pub epoch: Epoch,
    /// Which load of it within that epoch.
    pub activation: Activation,
    /// Which decision.
    pub seq: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routed_id_carries_its_shard_and_stays_a_uuid_v7() {
        for shard in [0, 1, 511, 1023] {
            let id = with_shard(Uuid::now_v7(), ShardId(shard));
            assert_eq!(shard_in(id), ShardId(shard));
            assert_eq!(id.get_version_num(), 7);
        }
    }

    #[test]
    fn shards_are_spread_evenly() {
        let mut counts = vec![0u32; usize::from(SHARDS)];
        for _ in 0..102_400 {
            counts[usize::from(shard_of(Uuid::now_v7()).0)] += 1;
        }
        // Poisson with mean 100: far outside these bounds only if skewed.
        assert!(counts.iter().all(|n| (30..=200).contains(n)));
    }
}
