//! What the benches of the store share: a store that `ONSALE_STORE__URL` names (an
//! empty database), or SQLite in a folder that is removed afterwards; and one entity
//! in it that is written commit by commit.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use onsale::config;
use onsale::domain::ids::{Activation, EntityId, Seq, Stamp};
use onsale::domain::time::Timestamp;
use onsale::persistence::Store;
use onsale::persistence::batch::Contribution;

pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// How much is written, and how much of it by one commit.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) count: u32,
    in_one: u32,
}

/// How often it is loaded.
pub(crate) const LOADS: u32 = 3;

/// Runs `measure` with so many as the command line says (100,000), and so many of
/// them a commit (10,000).
pub(crate) fn run(measure: impl AsyncFnOnce(&Store, Size)) {
    let mut numbers = std::env::args().filter_map(|word| word.parse().ok());
    let size = Size {
        count: numbers.next().unwrap_or(100_000),
        in_one: numbers.next().unwrap_or(10_000),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = format!("sqlite://{}", folder.path().join("it.db").display());
        let url = std::env::var("ONSALE_STORE__URL").unwrap_or(file);
        let store = Store::open(&config::Store::at(url)).await.unwrap();
        measure(&store, size).await;
        store.close().await;
    });
}

/// Writes so many of `what` to a new entity; `add` adds those with these numbers to
/// a contribution.
pub(crate) async fn write(
    store: &Store,
    id: EntityId,
    (Size { count, in_one }, what): (Size, &str),
    mut add: impl FnMut(&mut Contribution, Range<u32>),
) {
    let claim = store.claim_all_shards("bench".into(), "127.0.0.1:1".into(), NOW);
    let epoch = claim.await.unwrap().epoch;
    let begun = Instant::now();
    let mut stored = Stamp::default();
    let (mut from, mut longest) = (0, 0.0_f64);
    while from < count {
        let upto = count.min(from + in_one);
        let after = Stamp {
            epoch,
            activation: Activation(1),
            seq: Seq(stored.seq.0 + 1),
        };
        let mut batch = Contribution::new(id, stored, after, NOW);
        batch.journalise(after.seq, NOW, &what);
        add(&mut batch, from..upto);
        let committing = Instant::now();
        store.commit(Arc::new(vec![batch])).await.unwrap();
        longest = longest.max(committing.elapsed().as_secs_f64());
        (stored, from) = (after, upto);
    }
    let written = begun.elapsed().as_secs_f64();
    println!(
        "wrote  {count:>9} {what} in {written:.3} s, {in_one} a commit, {longest:.3} s at the most"
    );
}
