//! How long a million claims take to be written and loaded, by the store that
//! `ONSALE_STORE__URL` names (an empty database), or SQLite in a folder that is
//! removed afterwards; and what they take in memory.
//!
//! `cargo bench --bench coupon_store -- 1000000`

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement, not a server"
)]

use std::sync::Arc;
use std::time::Instant;

use onsale::config;
use onsale::domain::coupon::{Claim, Coupon, Discount, STOCK_MAX, Terms, View};
use onsale::domain::ids::{Activation, CouponClaimId, CouponId, Seq, Stamp, UserId};
use onsale::domain::time::Timestamp;
use onsale::persistence::Store;
use onsale::persistence::batch::Contribution;
use uuid::Uuid;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// How many claims are written by one commit.
const BATCH: u32 = 10_000;

const LOADS: u32 = 3;

fn main() {
    let count = std::env::args().filter_map(|word| word.parse().ok()).next();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure(count.unwrap_or(100_000)));
}

fn terms() -> Arc<Terms> {
    Arc::new(Terms {
        name: "bench".to_owned(),
        discount: Discount::Percent(10),
        stock: STOCK_MAX,
        starts_at: NOW,
        ends_at: Timestamp(NOW.0 + 1),
        performance: None,
        owner: UserId(Uuid::now_v7()),
        created_at: NOW,
    })
}

async fn measure(count: u32) {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite://{}", folder.path().join("it.db").display());
    let url = std::env::var("ONSALE_STORE__URL").unwrap_or(file);
    let store = Store::open(&config::Store::at(url)).await.unwrap();
    let claim = store.claim_all_shards("bench".into(), "127.0.0.1:1".into(), NOW);
    let epoch = claim.await.unwrap().epoch;
    let (id, terms) = (CouponId(Uuid::now_v7()), terms());
    let begun = Instant::now();
    let mut stored = Stamp::default();
    let mut claimed = 0;
    while claimed < count {
        let after = Stamp {
            epoch,
            activation: Activation(1),
            seq: Seq(stored.seq.0 + 1),
        };
        let mut batch = Contribution::new(id.into(), stored, after, NOW);
        batch.journalise(after.seq, NOW, &"claims");
        let rows = batch.coupon().unwrap();
        for _ in 0..BATCH.min(count - claimed) {
            claimed += 1;
            rows.claims.push(Claim {
                id: CouponClaimId(Uuid::now_v7()),
                // In no order, as users come.
                user: UserId(Uuid::new_v4()),
                at: NOW,
                key: None,
            });
        }
        let terms = Arc::clone(&terms);
        rows.coupon = Some(View {
            terms,
            claimed,
            claimed_at: None,
        });
        store.commit(Arc::new(vec![batch])).await.unwrap();
        stored = after;
    }
    let written = begun.elapsed().as_secs_f64();
    println!("wrote  {count:>9} claims in {written:.3} s, {BATCH} a commit");
    for _ in 0..LOADS {
        let begun = Instant::now();
        let loaded = store.load_coupon(id).await.unwrap();
        let bytes = loaded.state.claimants.bytes();
        let coupon = Coupon::restore(id, loaded.state);
        let read = begun.elapsed().as_secs_f64();
        assert_eq!(coupon.claimed(), count);
        println!(
            "loaded {count:>9} claims in {read:.3} s, {} bytes a claim",
            bytes / count.max(1) as usize
        );
    }
    store.close().await;
}
