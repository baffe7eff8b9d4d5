//! How long a million places take to be written and loaded, by the store that
//! `ONSALE_STORE__URL` names (an empty database), or SQLite in a folder that is
//! removed afterwards.
//!
//! `cargo bench --bench queue_store -- 1000000`, and with another number of places
//! a commit: `… -- 1000000 100000`

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement, not a server"
)]

#[path = "support/store.rs"]
mod store;

use std::sync::Arc;
use std::time::Instant;

use onsale::domain::ids::{PerformanceId, QueueTicketId, UserId};
use onsale::domain::queue::line::TicketNumber;
use onsale::domain::queue::policy::QueuePolicy;
use onsale::domain::queue::restore::{PlaceRow, PlaceState, QueueRow};
use onsale::domain::queue::{Queue, QueuePlan};
use onsale::persistence::Store;
use store::{LOADS, NOW, Size};
use uuid::Uuid;

fn main() {
    store::run(measure);
}

async fn measure(store: &Store, size: Size) {
    let count = size.count;
    let id = PerformanceId(Uuid::now_v7());
    store::write(store, id.into(), (size, "places"), |batch, numbers| {
        let rows = batch.queue().unwrap();
        let last = numbers.end;
        for before in numbers {
            rows.place_changed(PlaceRow {
                ticket: QueueTicketId(Uuid::now_v7()),
                user: UserId(Uuid::now_v7()),
                number: Some(TicketNumber(before + 1)),
                entrant: false,
                joined_at: NOW,
                state: PlaceState::Waiting,
            });
        }
        rows.queue = Some(QueueRow {
            next: TicketNumber(last + 1),
            reserved_upto: TicketNumber(last),
            ..QueueRow::default()
        });
    })
    .await;
    for _ in 0..LOADS {
        let begun = Instant::now();
        let loaded = store.load_queue(id, NOW).await.unwrap();
        let read = begun.elapsed().as_secs_f64();
        assert_eq!(loaded.state.places.len(), count as usize);
        let plan = QueuePlan {
            performance_id: id,
            policy: QueuePolicy::PLAIN,
            opens_at: NOW,
            closes_at: NOW,
            capacity: 1,
            places_max: count,
            withdrawn: false,
        };
        let queue = Queue::restore(Arc::new(plan), loaded.state);
        let restored = begun.elapsed().as_secs_f64() - read;
        assert_eq!(queue.kept(), count);
        println!("loaded {count:>9} places in {read:.3} s, restored in {restored:.3} s");
    }
}
