//! Messages behind a gap: kept until it is filled, within a bound.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use crate::persistence::store::outbox::Envelope;

/// How many messages are kept. Beyond it they are left in Kafka, and read again
/// when some that were kept have gone on.
const PARKED_MAX: usize = 8_192;

type Key = (Uuid, String);

/// Where a message is in its topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct At {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

#[derive(Debug, Default)]
struct Partition {
    /// Behind the last message that was taken up.
    next: i64,
    /// Where messages that still wait are.
    waiting: BTreeSet<i64>,
    /// The first one that there was no room for.
    left: Option<i64>,
}

/// What waits, and how far each partition is done with.
#[derive(Debug, Default)]
pub(super) struct Parked {
    messages: HashMap<Key, BTreeMap<u64, (At, Envelope)>>,
    count: usize,
    partitions: HashMap<i32, Partition>,
}

impl Parked {
    /// A message was taken up, whatever becomes of it.
    pub(super) fn seen(&mut self, at: At) {
        let partition = self.partitions.entry(at.partition).or_default();
        partition.next = partition.next.max(at.offset + 1);
    }

    /// Keeps a message for later.
    pub(super) fn keep(&mut self, at: At, event: Envelope) {
        let partition = self.partitions.entry(at.partition).or_default();
        if self.count >= PARKED_MAX {
            partition.left = Some(partition.left.map_or(at.offset, |left| left.min(at.offset)));
            return;
        }
        let key = (event.entity, event.topic.clone());
        let line = self.messages.entry(key).or_default();
        // A repetition: its first occurrence already waits.
        if let std::collections::btree_map::Entry::Vacant(place) = line.entry(event.event_seq) {
            place.insert((at, event));
            partition.waiting.insert(at.offset);
            self.count += 1;
        }
    }

    /// Takes back what waits of an entity, in order.
    pub(super) fn of(&mut self, entity: Uuid, topic: &str) -> Vec<(At, Envelope)> {
        let Some(line) = self.messages.remove(&(entity, topic.to_owned())) else {
            return Vec::new();
        };
        self.count -= line.len();
        for (at, _) in line.values() {
            if let Some(partition) = self.partitions.get_mut(&at.partition) {
                partition.waiting.remove(&at.offset);
            }
        }
        line.into_values().collect()
    }

    /// Where each partition would be read on after a restart: at the first
    /// message that isn't done with.
    pub(super) fn offsets(&self) -> impl Iterator<Item = At> {
        self.partitions.iter().map(|(partition, state)| {
            let first = state.waiting.first().copied();
            let offset = [first, state.left].into_iter().flatten().min();
            At {
                partition: *partition,
                offset: offset.unwrap_or(state.next),
            }
        })
    }

    /// Where partitions are to be read again, now that there is room.
    pub(super) fn read_again(&mut self) -> Vec<At> {
        if self.count > PARKED_MAX / 2 {
            return Vec::new();
        }
        let partitions = self.partitions.iter_mut();
        partitions
            .filter_map(|(partition, state)| {
                let offset = state.left.take()?;
                state.next = offset;
                Some(At {
                    partition: *partition,
                    offset,
                })
            })
            .collect()
    }

    /// Forgets partitions that another node reads from now on.
    pub(super) fn forget(&mut self, partitions: &[i32]) {
        self.partitions
            .retain(|partition, _| !partitions.contains(partition));
        let mut gone = 0;
        for line in self.messages.values_mut() {
            let before = line.len();
            line.retain(|_, (at, _)| !partitions.contains(&at.partition));
            gone += before - line.len();
        }
        self.messages.retain(|_, line| !line.is_empty());
        self.count -= gone;
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    fn event(entity: u128, event_seq: u64) -> Envelope {
        Envelope {
            entity: Uuid::from_u128(entity),
            topic: "orders".to_owned(),
            event_seq,
            event_id: Uuid::from_u128(u128::from(event_seq)),
            kind: "order.confirmed".to_owned(),
            version: 1,
            at: Timestamp(0),
            trace: None,
            payload: "{}".to_owned(),
        }
    }

    const fn at(offset: i64) -> At {
        At {
            partition: 3,
            offset,
        }
    }

    fn offset(parked: &Parked) -> i64 {
        parked.offsets().next().unwrap().offset
    }

    #[test]
    fn a_partition_is_done_with_up_to_the_first_message_that_waits() {
        let mut parked = Parked::default();
        for number in 10..=13 {
            parked.seen(at(number));
        }
        parked.keep(at(11), event(1, 5));
        parked.keep(at(12), event(1, 6));
        parked.keep(at(13), event(1, 5));
        assert_eq!(offset(&parked), 11);
        let back: Vec<u64> = parked
            .of(Uuid::from_u128(1), "orders")
            .iter()
            .map(|(_, event)| event.event_seq)
            .collect();
        assert_eq!(back, [5, 6]);
        assert_eq!((offset(&parked), parked.len()), (14, 0));
    }

    #[test]
    fn what_there_is_no_room_for_is_read_again_once_there_is() {
        let mut parked = Parked::default();
        let many = i64::try_from(PARKED_MAX).unwrap();
        for number in 0..many + 5 {
            parked.seen(at(number));
            parked.keep(at(number), event(1, 2 + number.cast_unsigned()));
        }
        assert_eq!(parked.len(), PARKED_MAX);
        assert!(parked.read_again().is_empty());
        parked.of(Uuid::from_u128(1), "orders");
        assert_eq!(offset(&parked), many);
        assert_eq!(parked.read_again(), [at(many)]);
        assert!(parked.read_again().is_empty());
    }

    #[test]
    fn a_partition_that_is_lost_is_forgotten() {
        let mut parked = Parked::default();
        parked.seen(at(10));
        parked.keep(at(10), event(1, 5));
        parked.forget(&[3]);
        assert_eq!((parked.len(), parked.offsets().count()), (0, 0));
    }
}
