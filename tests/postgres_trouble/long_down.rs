//! The server is down for longer than holds last.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::Place;
use crate::common::process::{ServerProcess, sign_up};
use crate::common::scene::Show;

/// By how much an outage may prolong a hold, and no more.
const GRACE: SignedDuration = SignedDuration::from_secs(5);

/// A hold of this many seconds is over, with its grace, when the server returns.
const SHORT_SECONDS: i64 = 2;
/// One that would end about then.
const MIDDLE_SECONDS: i64 = 10;
/// One that has time left.
const LONG_SECONDS: i64 = 300;

/// How long the server is down: for the short hold and its grace.
const DOWN: Duration = Duration::from_millis(7_500);

const SEAT: &str = "G-A-1";

fn end_of(hold: &Value) -> Timestamp {
    hold["expires_at"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_expired_holds_are_free_and_none_lost_its_time() {
    let place = Place::fresh().await;
    let mut world = place.world(&[]).await;
    let admin = world.server.admin().await;
    let mut scenes = Vec::new();
    for seconds in [SHORT_SECONDS, MIDDLE_SECONDS, LONG_SECONDS] {
        let show = Show::grid(2, 10, 100).limit("hold_ttl_seconds", seconds);
        scenes.push(show.open(&admin).await.timetable);
    }
    let [short, middle, long] = scenes.try_into().unwrap();
    let buyer = world.client(0);
    buyer.charge(1_000).await;
    // The short one last, so that the others are the older.
    let lasting = buyer.hold_seats(&long, &[SEAT]).await;
    let ending = buyer.hold_seats(&middle, &[SEAT]).await;
    let ended = buyer.hold_seats(&short, &[SEAT]).await;

    world.server.kill();
    let killed = Instant::now();
    tokio::time::sleep(DOWN).await;
    world.server = ServerProcess::start(&world.settings);
    let back = Timestamp::now();
    eprintln!("back {:?} after", killed.elapsed());
    let buyer = world.client(0);
    let other = sign_up(
        &world.server.client(),
        "other@example.com",
        "a long enough password",
    )
    .await;

    // At once, for somebody else.
    other.hold_seats(&short, &[SEAT]).await;
    let path = |hold: &Value| format!("/holds/{}", hold["hold_id"].as_str().unwrap());
    let gone = buyer.get(&path(&ended)).send().await;
    gone.assert_problem(409, "hold-expired");

    let now = buyer.get(&path(&lasting)).ok(200).await;
    assert_eq!(end_of(&now), end_of(&lasting), "it had time left");

    let now = buyer.get(&path(&ending)).ok(200).await;
    let (was, is) = (end_of(&ending), end_of(&now));
    assert!(is >= was && is <= was + GRACE, "{was} became {is}");
    assert!(is > back, "an outage steals no hold");
    // It is as good as any.
    let taken = other.hold(&middle, &serde_json::json!({ "seat_ids": [SEAT] }));
    taken.problem(409, "seat-unavailable").await;
    let hold = ending["hold_id"].as_str().unwrap();
    buyer.order(hold).ok(201).await;

    world.settings.assert_audit_is_clean();
}
