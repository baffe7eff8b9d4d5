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

#[path = "support/store.rs"]
mod store;

use std::sync::Arc;
use std::time::Instant;

use onsale::domain::coupon::{Claim, Coupon, Discount, STOCK_MAX, Terms, View};
use onsale::domain::ids::{CouponClaimId, CouponId, UserId};
use onsale::domain::time::Timestamp;
use onsale::persistence::Store;
use store::{LOADS, NOW, Size};
use uuid::Uuid;

fn main() {
    store::run(measure);
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

async fn measure(store: &Store, size: Size) {
    let count = size.count;
    let (id, terms) = (CouponId(Uuid::now_v7()), terms());
    store::write(store, id.into(), (size, "claims"), |batch, numbers| {
        let rows = batch.coupon().unwrap();
        let claimed = numbers.end;
        rows.claims.extend(numbers.map(|_| Claim {
            id: CouponClaimId(Uuid::now_v7()),
            // In no order, as users come.
            user: UserId(Uuid::new_v4()),
            at: NOW,
            key: None,
        }));
        let terms = Arc::clone(&terms);
        rows.coupon = Some(View {
            terms,
            claimed,
            claimed_at: None,
        });
    })
    .await;
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
}
