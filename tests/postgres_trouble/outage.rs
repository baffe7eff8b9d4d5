//! Postgres is gone under load: what doesn't need it goes on, the rest is
//! refused in time, and all of it comes back by itself.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::Place;
use crate::common::client::Client;
use crate::common::process::sign_up;
use crate::common::{eventually, fresh_key};
use crate::world::World;

/// The store is known to be gone, and the lease has run out, long before this.
const NOTICED_AFTER: Duration = Duration::from_secs(3);

/// Work resumes within 2 s of the return; a test asserts ten times that.
const RESUMED_LIMIT: Duration = Duration::from_secs(20);

/// How long the load runs before each outage.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long a hold may take while the database is away.
const HOLD_LIMIT: Duration = Duration::from_secs(2);

fn outage() -> Duration {
    let seconds = std::env::var("ONSALE_OUTAGE_SECONDS").map_or(4, |s| s.parse().unwrap());
    Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_holds_go_on_while_postgres_is_frozen() {
    let place = Place::fresh().await;
    let mut world = place.world(&[]).await;
    let services = &place.services;
    survive(
        &mut world,
        || services.freeze_postgres(),
        || {
            services.thaw_postgres();
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_holds_go_on_while_postgres_is_down() {
    let place = Place::fresh().await;
    let mut world = place.world(&[]).await;
    let services = &place.services;
    survive(
        &mut world,
        || services.stop_postgres_immediately(),
        || {
            services.restart("postgres");
        },
    )
    .await;
}

/// One outcome a key: whoever is told one must be told the same for ever, and so
/// is told none that may be forgotten yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_under_a_key_is_not_told_before_it_is_stored() {
    let place = Place::fresh().await;
    let world = place
        .world(&[("ONSALE_ACTORS__ASK_TIMEOUT_MS", "1000")])
        .await;
    let buyer = world.client(0);
    buyer.charge(1).await;
    let wish = json!({ "best_available": { "count": 1 } });
    let hold = buyer.hold(&world.scene.timetable, &wish).ok(201).await;
    let key = fresh_key();
    let body = json!({ "hold_id": hold["hold_id"], "payment": { "method": "wallet" } });
    let order = || buyer.order_body(&body).key(&key).send();

    place.services.freeze_postgres();
    // The money doesn't do, which is known without the database.
    order().await.assert_problem(503, "store-unavailable");
    place.services.thaw_postgres();
    eventually("the refusal", RESUMED_LIMIT, async || {
        let answer = order().await;
        (answer.status == 402).then_some(())
    })
    .await;
    let again = order().await;
    again.assert_problem(402, "insufficient-balance");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
}

async fn survive(world: &mut World, take_away: impl Fn(), bring_back: impl Fn()) {
    // Not one of the recorded customers, and known: an account that has never
    // been here would have to be read from the database.
    let email = "beside@example.com";
    let buyer = sign_up(&world.server.client(), email, "a long enough password").await;
    buyer.charge(1_000).await;
    let load = world.load();
    tokio::time::sleep(WARM_UP).await;
    let before = world.acknowledged().await;
    assert!(before > 0, "there is load");

    take_away();
    let gone = Instant::now();
    tokio::time::sleep(NOTICED_AFTER).await;
    let mut holds = 0;
    while gone.elapsed() < outage() {
        refuses_money(&buyer).await;
        hold_and_release(&buyer, &world.scene.timetable).await;
        holds += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(holds > 0, "the outage is long enough");

    bring_back();
    let back = Instant::now();
    eventually("money taken again", RESUMED_LIMIT, async || {
        let charge = json!({ "amount": 1 });
        let charge = buyer.post("/wallet/charges", &charge).key(&fresh_key());
        (charge.send().await.status == 201).then_some(())
    })
    .await;
    eprintln!(
        "away for {:?}: {holds} holds meanwhile; took money again {:?} after",
        back - gone,
        back.elapsed()
    );
    let before = world.acknowledged().await;
    tokio::time::sleep(WARM_UP).await;
    load.end().await;
    assert!(world.acknowledged().await > before, "the load goes on");

    let held = world.check_holds(None).await;
    assert!(held.is_empty(), "{held:#?}");
    let findings = world.settle().await;
    assert!(findings.is_empty(), "{findings:#?}");
    world.settings.assert_audit_is_clean();
}

async fn refuses_money(buyer: &Client) {
    let charge = json!({ "amount": 1 });
    let charge = buyer.post("/wallet/charges", &charge).key(&fresh_key());
    // With Retry-After, as every 503.
    charge.problem(503, "store-unavailable").await;
}

async fn hold_and_release(buyer: &Client, timetable: &str) {
    let begun = Instant::now();
    let wish = json!({ "best_available": { "count": 1 } });
    let hold = buyer.hold(timetable, &wish).ok(201).await;
    assert!(begun.elapsed() < HOLD_LIMIT, "{:?}", begun.elapsed());
    let hold = hold["hold_id"].as_str().unwrap();
    buyer.delete(&format!("/holds/{hold}")).ok(204).await;
}
