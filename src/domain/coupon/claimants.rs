//! Who has claimed a coupon, and who has used it.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::domain::ids::{OrderId, UserId};

/// Everybody who has a claim. Of a claim nothing else is kept in memory: a
/// million take about 36 bytes each just after the table has grown, and half of
/// that just before (`cargo bench --bench memory`).
#[derive(Clone, Debug, Default)]
pub struct Claimants {
    users: HashTable<UserId>,
    hasher: RandomState,
}

impl Claimants {
    /// Room for so many without growing.
    #[must_use]
    pub fn with_room(count: usize) -> Self {
        Self {
            users: HashTable::with_capacity(count),
            hasher: RandomState::default(),
        }
    }

    /// Adds a user; `false` if they were there.
    pub fn insert(&mut self, user: UserId) -> bool {
        let Self { users, hasher } = self;
        let hash = hasher.hash_one(user);
        let found = users.entry(hash, |other| *other == user, |u| hasher.hash_one(u));
        match found {
            hashbrown::hash_table::Entry::Occupied(_) => false,
            hashbrown::hash_table::Entry::Vacant(room) => {
                room.insert(user);
                true
            }
        }
    }

    /// Whether this user is there.
    #[must_use]
    pub fn contains(&self, user: UserId) -> bool {
        let hash = self.hasher.hash_one(user);
        self.users.find(hash, |other| *other == user).is_some()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// How much memory they take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.users.allocation_size()
    }
}

/// The orders in which claims were used, by user.
#[derive(Clone, Debug, Default)]
pub(super) struct Used {
    orders: HashTable<(UserId, OrderId)>,
    hasher: RandomState,
}

impl Used {
    /// The claim of `user` is used by `order`.
    pub(super) fn insert(&mut self, user: UserId, order: OrderId) {
        self.remove(user);
        let Self { orders, hasher } = self;
        orders.insert_unique(hasher.hash_one(user), (user, order), |(u, _)| {
            hasher.hash_one(u)
        });
    }

    /// The claim of `user` isn't used any more.
    pub(super) fn remove(&mut self, user: UserId) {
        let hash = self.hasher.hash_one(user);
        if let Ok(entry) = self.orders.find_entry(hash, |(other, _)| *other == user) {
            entry.remove();
        }
    }

    /// How many are used.
    pub(super) fn len(&self) -> usize {
        self.orders.len()
    }

    /// The order that has used the claim of `user`.
    pub(super) fn get(&self, user: UserId) -> Option<OrderId> {
        let hash = self.hasher.hash_one(user);
        let found = self.orders.find(hash, |(other, _)| *other == user);
        found.map(|(_, order)| *order)
    }
}
