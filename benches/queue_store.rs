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

use std::sync::Arc;
use std::time::Instant;

use onsale::config;
use onsale::domain::ids::{Activation, PerformanceId, QueueTicketId, Seq, Stamp, UserId};
use onsale::domain::queue::line::TicketNumber;
use onsale::domain::queue::policy::QueuePolicy;
use onsale::domain::queue::restore::{PlaceRow, PlaceState, QueueRow};
use onsale::domain::queue::{Queue, QueuePlan};
use onsale::domain::time::Timestamp;
use onsale::persistence::Store;
use onsale::persistence::batch::Contribution;
use uuid::Uuid;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// How many places are written by one commit, unless told otherwise.
const BATCH: u32 = 10_000;

const LOADS: u32 = 3;

fn main() {
    let mut numbers = std::env::args().filter_map(|word| word.parse().ok());
    let (count, batch) = (numbers.next(), numbers.next());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure(count.unwrap_or(100_000), batch.unwrap_or(BATCH)));
}

async fn measure(count: u32, in_one: u32) {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite://{}", folder.path().join("it.db").display());
    let url = std::env::var("ONSALE_STORE__URL").unwrap_or(file);
    let store = Store::open(&config::Store::at(url)).await.unwrap();
    let claim = store.claim_all_shards("bench".into(), "127.0.0.1:1".into(), NOW);
    let epoch = claim.await.unwrap().epoch;
    let id = PerformanceId(Uuid::now_v7());
    let begun = Instant::now();
    let mut stored = Stamp::default();
    let mut number = 0;
    let mut longest = 0.0_f64;
    while number < count {
        let after = Stamp {
            epoch,
            activation: Activation(1),
            seq: Seq(stored.seq.0 + 1),
        };
        let mut batch = Contribution::new(id.into(), stored, after, NOW);
        batch.journalise(after.seq, NOW, &"joins");
        let rows = batch.queue().unwrap();
        for _ in 0..in_one.min(count - number) {
            number += 1;
            rows.place_changed(PlaceRow {
                ticket: QueueTicketId(Uuid::now_v7()),
                user: UserId(Uuid::now_v7()),
                number: Some(TicketNumber(number)),
                entrant: false,
                joined_at: NOW,
                state: PlaceState::Waiting,
            });
        }
        rows.queue = Some(QueueRow {
            next: TicketNumber(number + 1),
            reserved_upto: TicketNumber(number),
            ..QueueRow::default()
        });
        let committing = Instant::now();
        store.commit(Arc::new(vec![batch])).await.unwrap();
        longest = longest.max(committing.elapsed().as_secs_f64());
        stored = after;
    }
    let written = begun.elapsed().as_secs_f64();
    println!(
        "wrote  {count:>9} places in {written:.3} s, {in_one} a commit, {longest:.3} s at the most"
    );
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
    store.close().await;
}
