//! The people of a waiting room, for its benches.

use std::sync::Arc;

use onsale::domain::decision::{Machine as _, step};
use onsale::domain::ids::{PerformanceId, QueueTicketId, Seq, UserId};
use onsale::domain::queue::policy::Preset;
use onsale::domain::queue::{Command, Queue, QueuePlan};
use onsale::domain::time::Timestamp;
use uuid::Uuid;

use crate::scene::scattered;

/// Before the opening.
pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// One that opens later, with room for so many and some more.
pub(crate) fn waiting_room(size: u32) -> Queue {
    Queue::new(Arc::new(QueuePlan {
        performance_id: PerformanceId(Uuid::from_u128(1)),
        policy: Preset::AmusementPark.policy(),
        opens_at: Timestamp(NOW.0 + 3_600_000),
        closes_at: Timestamp(NOW.0 + 7_200_000),
        capacity: 20_000,
        places_max: size * 2,
        withdrawn: false,
    }))
}

/// Somebody.
pub(crate) fn member(number: u32) -> UserId {
    UserId(scattered(number.into(), 4))
}

/// So many join; every so many are in the database.
pub(crate) fn joined(queue: &mut Queue, size: u32, settled_every: u32) -> Seq {
    let mut seq = Seq::default();
    for number in 0..size {
        let join = Command::Join {
            user: member(number),
            ticket: QueueTicketId(scattered(number.into(), 5)),
            claim: None,
        };
        let outcome = step(queue, &mut seq, NOW, join).outcome;
        assert!(outcome.is_ok(), "{outcome:?}");
        if number % settled_every == 0 {
            queue.settle(seq);
        }
    }
    queue.settle(seq);
    seq
}
