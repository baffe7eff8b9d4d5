//! The confirmed orders of a timetable, by id and by the hold they came from.
//!
//! A sold-out arena keeps one of each for good, cancelled ones too (who asks for
//! one is told what became of it), so they lie in one list, and
//! the two indexes have four bytes an entry: two maps with ids of their own took
//! three times as much.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use uuid::Uuid;

use crate::domain::ids::{HoldId, OrderId};
use crate::domain::order::{Cancel, Order};

/// Confirmed orders, in the order in which they were confirmed.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    list: Vec<Arc<Order>>,
    /// Places in the list.
    by_id: HashTable<u32>,
    by_hold: HashTable<u32>,
    hasher: RandomState,
}

impl Orders {
    /// Adds an order, unless it is there.
    pub(super) fn insert(&mut self, order: Arc<Order>) {
        if self.get(order.id).is_some() {
            return;
        }
        // Each takes a decision, two idempotency keys and a hundred bytes: there
        // is no memory for so many.
        let Ok(place) = u32::try_from(self.list.len()) else {
            return;
        };
        let (id, hold) = (order.id.0, order.hold.0);
        self.list.push(order);
        let Self {
            list,
            by_id,
            by_hold,
            hasher,
        } = self;
        let key = |place: &u32, of: fn(&Order) -> Uuid| {
            list.get(*place as usize)
                .map_or(0, |order| hasher.hash_one(of(order)))
        };
        by_id.insert_unique(hasher.hash_one(id), place, |p| key(p, |order| order.id.0));
        by_hold.insert_unique(hasher.hash_one(hold), place, |p| {
            key(p, |order| order.hold.0)
        });
    }

    /// Adds a cancel to an order, and gives it as it is then.
    pub(super) fn cancel(&mut self, id: OrderId, cancel: Cancel) -> Option<&Arc<Order>> {
        let is_it = |order: &Order| order.id == id;
        let place = self.place(&self.by_id, id.0, is_it)?;
        let order = self.list.get_mut(place)?;
        Arc::make_mut(order).cancel(cancel);
        Some(order)
    }

    /// The order of this id.
    pub(super) fn get(&self, id: OrderId) -> Option<&Arc<Order>> {
        let is_it = |order: &Order| order.id == id;
        self.find(&self.by_id, id.0, is_it)
    }

    /// The order that was made from this hold.
    pub(super) fn of_hold(&self, hold: HoldId) -> Option<&Arc<Order>> {
        let is_it = |order: &Order| order.hold == hold;
        self.find(&self.by_hold, hold.0, is_it)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Order>> {
        self.list.iter()
    }

    fn find(
        &self,
        index: &HashTable<u32>,
        key: Uuid,
        is_it: impl Fn(&Order) -> bool,
    ) -> Option<&Arc<Order>> {
        self.list.get(self.place(index, key, is_it)?)
    }

    fn place(
        &self,
        index: &HashTable<u32>,
        key: Uuid,
        is_it: impl Fn(&Order) -> bool,
    ) -> Option<usize> {
        let at = |place: &u32| self.list.get(*place as usize);
        let place = index.find(self.hasher.hash_one(key), |place| {
            at(place).is_some_and(|order| is_it(order))
        })?;
        Some(*place as usize)
    }
}
