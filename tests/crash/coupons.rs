//! Coupons across `kill -9`, and servers that get them wrong.

#[cfg(feature = "sabotage")]
use crate::on_purpose::POINTS;
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_acknowledged_survives_kill_9_and_there_are_no_more() {
    let mut world = World::start(&[], true).await;
    world
        .assert_claims_survive(crate::rounds::rounds(), async || ())
        .await;
}

/// A server whose claims are acknowledged and not stored must be found out, or the
/// test above shows nothing.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_store_claims_is_found_out() {
    let mut world = World::start(&[("ONSALE_SABOTAGE", "claim-not-stored")], true).await;
    world.assert_lost_claims_are_found_out().await;
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_with_a_coupon_is_whole_or_nothing_whenever_the_process_dies() {
    let mut world = World::start(&[], false).await;
    world
        .assert_an_order_with_a_coupon_is_whole_or_nothing(POINTS)
        .await;
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_gives_the_coupon_back_once_whenever_the_process_dies() {
    let mut world = World::start(&[], false).await;
    world
        .assert_a_cancel_gives_the_coupon_back_once(POINTS)
        .await;
}

/// A server that leaves the return of the coupon out must be found out, or the test
/// above shows nothing.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_keeps_the_coupon_of_a_cancelled_order_is_found_out() {
    let mut world = World::start(&[("ONSALE_SABOTAGE", "no-coupon-return")], false).await;
    world.assert_a_kept_coupon_of_a_cancel_is_found_out().await;
}

/// The same of one that forgets to free the claim of an order without money.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_keeps_the_coupon_of_a_failed_order_is_found_out() {
    let mut world = World::start(&[("ONSALE_SABOTAGE", "no-claim-void")], false).await;
    world
        .assert_a_kept_coupon_of_a_failed_order_is_found_out()
        .await;
}
