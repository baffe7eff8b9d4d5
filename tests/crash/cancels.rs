//! A cancel that the process doesn't survive, and servers that get it wrong.

use crate::world::{PRICE, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_is_whole_or_nothing_whenever_the_process_dies() {
    let mut world = World::start(&[], false).await;
    world
        .assert_a_cancel_is_whole_or_nothing_at_each_step()
        .await;
}

/// A server that notes too early that a refund came in, and dies, must be found out,
/// or the test above shows nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_a_refund_is_found_out() {
    let mut world = World::start(&[], false).await;
    let broken = "refund-not-due,die-at:cancel-true:1";
    let lost = world.lost_by_a_cancel_with(broken).await;
    assert_eq!(lost, (2 * PRICE, true));
}

/// The same of one that never pays it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_leaves_the_refund_out_is_found_out() {
    let mut world = World::start(&[], false).await;
    let lost = world.lost_by_a_cancel_with("no-credit").await;
    assert_eq!(lost, (2 * PRICE, true));
}
