//! Queues: the database is behind, the checkpoint has the rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use onsale::domain::decision::{Machine as _, step};
use onsale::domain::ids::{EntityId, PerformanceId, QueueTicketId, Seq, UserId};
use onsale::domain::queue::policy::QueuePolicy;
use onsale::domain::queue::restore::{PlaceRow, QueueState};
use onsale::domain::queue::{Command, Queue, QueuePlan};
use onsale::domain::time::Timestamp;
use onsale::persistence::checkpoint::rows::{Checkpointed, RowChange, RowChanges};
use onsale::persistence::checkpoint::{Base, Delta, Outcome, Row};
use uuid::Uuid;

use super::{Place, raise, read, stamp, write};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn plan(id: PerformanceId) -> QueuePlan {
    QueuePlan {
        performance_id: id,
        policy: QueuePolicy {
            max_active: Some(2),
            ..QueuePolicy::PLAIN
        },
        opens_at: NOW,
        closes_at: Timestamp(NOW.0 + 1_000_000),
        capacity: 1_000,
        places_max: 1_000,
        withdrawn: false,
    }
}

fn person(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

fn state_of(queue: &Queue) -> QueueState {
    QueueState {
        queue: queue.row(),
        places: queue.place_rows().collect(),
    }
}

/// Everybody who waits or has left; what a pass is, only the database knows.
fn places_of(queue: &Queue) -> BTreeMap<UserId, PlaceRow> {
    queue
        .place_rows()
        .map(|place| (place.user, place))
        .collect()
}

/// A queue with its checkpoint, as its owner runs it.
struct Owner<'p> {
    place: &'p Place,
    entity: EntityId,
    queue: Queue,
    seq: Seq,
    written: Base,
}

impl Owner<'_> {
    async fn ask(&mut self, command: Command) {
        let before = self.seq;
        let done = step(&mut self.queue, &mut self.seq, NOW, command);
        assert!(done.outcome.is_ok());
        if self.seq == before {
            return;
        }
        let after = stamp(1, 1, self.seq.0);
        let mut delta = Delta::new(self.entity, self.written, after);
        let mut changes = RowChanges::new();
        for (_, event) in &done.events {
            self.queue.checkpoint(event, &mut changes);
        }
        for (row, change) in changes {
            match change {
                RowChange::Put(body) | RowChange::Over(body) => delta.put(row, body),
                RowChange::Spent => {}
            }
        }
        assert_eq!(
            write(&self.place.checkpoints, delta).await,
            Outcome::Written
        );
        self.written = Base::After(after);
    }

    async fn join(&mut self, number: u128) {
        let join = Command::Join {
            user: person(number),
            ticket: QueueTicketId(Uuid::now_v7()),
            claim: None,
        };
        self.ask(join).await;
    }

    async fn leave(&mut self, number: u128) {
        let user = person(number);
        self.ask(Command::Leave { user }).await;
    }
}

/// What the next owner makes of the database's state and the checkpoint.
fn next_owner(id: PerformanceId, stored: &QueueState, rows: &[Row]) -> Queue {
    let mut queue = Queue::restore(Arc::new(plan(id)), stored.clone());
    let events = Checkpointed::recover(&mut queue, rows);
    for event in events {
        queue.apply(Seq(1_000), &event);
    }
    queue
}

pub(super) async fn a_queue_comes_back_with_all_that_the_database_lacks(place: Place) {
    let id = PerformanceId(Uuid::now_v7());
    let entity = EntityId::from(id);
    raise(&place.checkpoints, entity, 1).await;
    let mut owner = Owner {
        place: &place,
        entity,
        queue: Queue::new(Arc::new(plan(id))),
        seq: Seq(0),
        written: Base::Whole,
    };
    for number in 1..=20 {
        owner.join(number).await;
    }
    owner.leave(7).await;
    // So far the database has come.
    owner.queue.settle(owner.seq);
    let (stored, watermark) = (state_of(&owner.queue), stamp(1, 1, owner.seq.0));
    for number in 21..=40 {
        owner.join(number).await;
    }
    // Who joined before, and who has just joined; and one comes again.
    for number in [9, 33, 7, 7] {
        match number {
            7 => owner.join(7).await,
            number => owner.leave(number).await,
        }
    }
    let is_of_the_line = |(_, place): &(UserId, PlaceRow)| {
        // The first ones have passes, or will have them.
        place.number.is_some_and(|number| number.0 > 2)
    };
    let expected: BTreeMap<_, _> = places_of(&owner.queue)
        .into_iter()
        .filter(is_of_the_line)
        .collect();

    let found = read(&place.checkpoints, entity).await.unwrap();
    let upto = found.upto;
    let rows = found.clone().above(watermark);
    assert_eq!(
        rows.len(),
        20 + 2 + 1,
        "joins, ends, and one who came again"
    );
    let next = next_owner(id, &stored, &rows);
    let recovered: BTreeMap<_, _> = places_of(&next)
        .into_iter()
        .filter(is_of_the_line)
        .collect();
    assert_eq!(recovered, expected);

    // A database that has everything learns nothing from it, and one that has
    // lost the watermark of its rows no place twice.
    let everything = state_of(&owner.queue);
    assert_eq!(found.clone().above(upto), []);
    let again = next_owner(id, &everything, &found.rows);
    let whole: BTreeMap<_, _> = places_of(&again)
        .into_iter()
        .filter(is_of_the_line)
        .collect();
    assert_eq!(whole, expected);

    // Without it, the database alone is right as far as it goes.
    place.flush().await;
    assert_eq!(read(&place.checkpoints, entity).await, None);
    let alone = next_owner(id, &stored, &[]);
    assert_eq!(places_of(&alone), {
        let of_the_store = Queue::restore(Arc::new(plan(id)), stored.clone());
        places_of(&of_the_store)
    });
    assert!(alone.row().next > owner.queue.row().next, "no number twice");
}
