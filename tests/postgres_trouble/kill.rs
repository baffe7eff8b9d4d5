//! The server on Postgres is killed at random moments under load.

use crate::Place;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_on_postgres_survives_kill_9() {
    let place = Place::fresh().await;
    // Several: some orders are one commit then, most are two.
    let mut world = place.world(&[("ONSALE_STORE__LANES", "4")]).await;
    world.assert_kills_lose_nothing().await;
}

/// With checkpoints on their way to Redis, too.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panics_on_purpose_under_load_on_postgres_lose_and_double_nothing() {
    let place = Place::fresh().await;
    let panics = crate::world::World::panics();
    let mut world = place.world(&[("ONSALE_SABOTAGE", &panics)]).await;
    world.assert_panics_lose_nothing().await;
}

/// Also at the one between Redis and its answer.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_on_postgres_survives_a_death_on_purpose_at_any_point() {
    let place = Place::fresh().await;
    // One: every order is one commit.
    let mut world = place.world(&[("ONSALE_STORE__LANES", "1")]).await;
    let points = [crate::on_purpose::POINTS, &["checkpointed"]].concat();
    world.assert_nothing_is_lost_at(&points).await;
}

/// A server that answers before it commits must be found out, or the test
/// above shows nothing.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_acknowledges_before_it_commits_to_postgres_is_found_out() {
    let place = Place::fresh().await;
    let mut world = place
        .world(&[("ONSALE_SABOTAGE", "ack-before-commit")])
        .await;
    world.assert_kills_find_it_out().await;
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_leaves_before_the_point_of_its_commit_to_postgres_is_found_out() {
    let place = Place::fresh().await;
    let mut world = place.world(&[]).await;
    world.assert_found_out_if_it_acknowledges_too_early().await;
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_is_written_to_postgres_before_its_money_is_found_out() {
    let place = Place::fresh().await;
    let mut world = place.world(&[("ONSALE_STORE__LANES", "1")]).await;
    world
        .assert_found_out_if_sales_come_before_their_money()
        .await;
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_on_postgres_is_whole_or_nothing_whenever_the_process_dies() {
    let place = Place::fresh().await;
    let mut world = place.world(&[]).await;
    world
        .assert_a_cancel_is_whole_or_nothing_at_each_step()
        .await;
}

/// A server that notes too early that a refund came in, and dies, must be found out,
/// or the test above shows nothing.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_a_refund_on_postgres_is_found_out() {
    let place = Place::fresh().await;
    let mut world = place.world(&[]).await;
    let broken = "refund-not-due,die-at:cancel-true:1";
    let lost = world.lost_by_a_cancel_with(broken).await;
    assert_eq!(lost, (2 * crate::world::PRICE, true));
}
