//! Several real processes on one Postgres: each owns its share; what one
//! leaves, in whichever way, another serves; and no seat is sold twice.
//!
//! Needs `ONSALE_STORE__URL`, `ONSALE_REDIS__URL` and `ONSALE_KAFKA__BROKERS`, as
//! `scripts/services run` sets them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test may panic, that is how it fails; it measures real time, and tells it"
)]

mod cancels;
mod changes;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/database.rs"]
mod database;
mod proxy;
mod queue;
mod queue_live;
#[path = "../common/socket.rs"]
mod socket;
mod tickets;
mod world;

use std::time::{Duration, Instant};

use common::eventually;
use common::process::ServerProcess;
use proxy::Proxy;
use serde_json::{Value, json};

use world::{
    Cluster, DATES, PASSWORD, PRICE, SETTLE_LIMIT, TAKE_OVER_LIMIT, World, hold_at_last,
    order_at_last, shares, signal,
};

#[tokio::test(flavor = "multi_thread")]
async fn each_node_owns_its_share_and_serves_all_of_it_through_either() {
    let world = World::start().await;
    let (a, b) = (world.at_a(), world.at_b());
    for (number, timetable) in world.timetables().iter().enumerate() {
        let (one, other) = if number % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let hold = one.hold_seats(timetable, &["G-A-1", "G-A-2"]).await;
        let id = hold["hold_id"].as_str().unwrap();
        let seen = other.get(&format!("/holds/{id}")).ok(200).await;
        assert_eq!(seen["seats"], hold["seats"]);
        for client in [&a, &b] {
            let mine = client.get("/me/holds").ok(200).await;
            assert_eq!(mine["items"][0]["hold_id"], hold["hold_id"]);
        }
        let order = other.order(id).ok(201).await;
        assert_eq!(order["status"], "confirmed");
        for client in [&a, &b] {
            let taken = json!({ "seat_ids": ["G-A-2"] });
            client
                .hold(timetable, &taken)
                .send()
                .await
                .assert_problem(409, "seat-unavailable");
            eventually("the map shows it", SETTLE_LIMIT, || async {
                let map = client.map(timetable).await;
                (map["sold"] == 2 && map["held"] == 0).then_some(())
            })
            .await;
        }
    }
    let spent = PRICE * 2 * DATES as i64;
    assert_eq!(a.balance().await, 1_000_000 - spent);
    assert_eq!(b.balance().await, 1_000_000 - spent);
    world.audit();
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_the_actors_of_all_nodes_and_which_node_does_not_answer() {
    let world = World::start().await;
    let (a, admin) = (world.at_a(), world.a.admin().await);
    for timetable in world.timetables() {
        a.hold_seats(&timetable, &["G-A-1"]).await;
    }
    let path = "/admin/actors?limit=100";
    let seen = admin.get(path).ok(200).await;
    assert_eq!(seen["unanswered"], json!([]));
    let rows = seen["items"].as_array().unwrap().iter();
    let dates: Vec<&Value> = rows.filter(|row| row["kind"] == "timetable").collect();
    assert_eq!(dates.len(), DATES);
    for node in ["node-a", "node-b"] {
        assert!(dates.iter().any(|row| row["node"] == node), "{seen}");
    }
    // Each says of itself what it is, wherever it is.
    for row in dates {
        let one = format!("/admin/actors/timetable/{}", row["name"].as_str().unwrap());
        let one = admin.get(&one).ok(200).await;
        assert_eq!(one["life"]["observed"]["held"], 1);
        assert_eq!(one["actor"]["node"], row["node"]);
    }
    // The page of either node shows both.
    for node in ["node-a", "node-b"] {
        let page = admin.get(&format!("/admin/ops?node={node}")).ok(200).await;
        assert_eq!(
            (&page["node"], &page["nodes"]),
            (&json!(node), &json!(["node-a", "node-b"]))
        );
        assert_eq!(page["ready"], true);
    }
    let cluster = admin.get("/admin/cluster").ok(200).await;
    let owners = cluster["shards"]["owners"].as_array().unwrap();
    assert_eq!(
        owners.len(),
        cluster["shards"]["epochs"].as_array().unwrap().len()
    );
    for (index, share) in shares(&cluster).into_iter().enumerate() {
        let owned = owners.iter().filter(|owner| **owner == json!(index));
        assert_eq!(owned.count() as u64, share);
    }
    signal(&world.b, "-STOP");
    let asked = Instant::now();
    let seen = admin.get(path).ok(200).await;
    signal(&world.b, "-CONT");
    assert_eq!(seen["unanswered"], json!(["node-b"]));
    assert!(asked.elapsed() < TAKE_OVER_LIMIT, "{:?}", asked.elapsed());
    let rows = seen["items"].as_array().unwrap();
    assert!(!rows.is_empty() && rows.iter().all(|row| row["node"] == "node-a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_is_killed_the_other_serves_all_and_shares_again_once_it_is_back() {
    kill_one(World::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_is_killed_the_checkpoints_of_its_holds_are_served_too() {
    kill_one(World::on(Cluster::with_checkpoints().await).await).await;
}

async fn kill_one(mut world: World) {
    let a = world.at_a();
    let mut holds = Vec::new();
    for timetable in world.timetables() {
        holds.push(a.hold_seats(&timetable, &["G-A-1"]).await);
    }
    world.b.kill();
    let killed = Instant::now();
    for timetable in world.timetables() {
        hold_at_last(&a, &timetable, "G-B-1").await;
    }
    println!("served again {:?} after kill -9", killed.elapsed());
    for hold in &holds {
        let id = hold["hold_id"].as_str().unwrap();
        a.get(&format!("/holds/{id}")).ok(200).await;
        order_at_last(&a, hold).await;
    }
    world.b = tokio::task::block_in_place(|| ServerProcess::start(&world.b_settings));
    world.balanced().await;
    let b = world.at_b();
    for timetable in world.timetables() {
        hold_at_last(&b, &timetable, "G-C-1").await;
        assert_eq!(b.map(&timetable).await["sold"], 1);
    }
    world.audit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_acknowledges_nothing_after_another_has_taken_over() {
    freeze_one(World::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_is_kept_out_of_the_checkpoints_too() {
    freeze_one(World::on(Cluster::with_checkpoints().await).await).await;
}

async fn freeze_one(world: World) {
    let (a, b) = (world.at_a(), world.at_b());
    // The frozen one wakes up with requests waiting for it.
    signal(&world.b, "-STOP");
    let frozen = Instant::now();
    let late: Vec<_> = world
        .timetables()
        .into_iter()
        .map(|timetable| {
            let client = b.with_own_connections();
            tokio::spawn(async move {
                let wish = json!({ "seat_ids": ["G-A-1"] });
                let answer = client.hold(&timetable, &wish).send().await;
                (timetable, answer)
            })
        })
        .collect();
    for timetable in world.timetables() {
        let hold = hold_at_last(&a, &timetable, "G-A-1").await;
        order_at_last(&a, &hold).await;
    }
    println!(
        "served and sold again {:?} after the freeze",
        frozen.elapsed()
    );
    tokio::time::sleep(Duration::from_secs(5).saturating_sub(frozen.elapsed())).await;
    signal(&world.b, "-CONT");
    for waiting in late {
        let (timetable, answer) = waiting.await.unwrap();
        let status = answer.status;
        assert!(
            matches!(status, 409 | 503 | 504),
            "{timetable}: {status} {}",
            answer.text()
        );
    }
    world.balanced().await;
    for timetable in world.timetables() {
        for client in [&a, &b] {
            let map = eventually("the map is back", SETTLE_LIMIT, || async {
                let path = format!("/timetables/{timetable}/seats");
                let answer = client.get(&path).send().await;
                (answer.status == 200).then(|| answer.json())
            })
            .await;
            assert_eq!(map["sold"], 1, "sold once");
        }
    }
    world.audit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_end_hands_everything_over_first() {
    let mut world = World::start().await;
    let a = world.at_a();
    let mut holds = Vec::new();
    for timetable in world.timetables() {
        holds.push(a.hold_seats(&timetable, &["G-A-1"]).await);
    }
    let status = tokio::task::block_in_place(|| world.b.terminate());
    assert!(status.success(), "{status:?}");
    // At once: no lease has to run out.
    for hold in &holds {
        let id = hold["hold_id"].as_str().unwrap();
        let seen = a.get(&format!("/holds/{id}")).ok(200).await;
        assert_eq!(seen["expires_at"], hold["expires_at"], "no time was lost");
    }
    for hold in &holds {
        order_at_last(&a, hold).await;
    }
    world.audit();
}

#[tokio::test(flavor = "multi_thread")]
async fn buyers_notice_nothing_of_a_hand_over() {
    let mut world = World::start().await;
    let buyers: Vec<_> = (1..=8)
        .map(|column| {
            let (client, timetables) = (world.at_a(), world.timetables());
            tokio::spawn(async move {
                for timetable in timetables {
                    let seat = format!("G-D-{column}");
                    let hold = hold_at_last(&client, &timetable, &seat).await;
                    // None is refused for good, whichever node it was begun on.
                    order_at_last(&client, &hold).await;
                }
            })
        })
        .collect();
    let status = tokio::task::block_in_place(|| world.b.terminate());
    assert!(status.success(), "{status:?}");
    for buyer in buyers {
        buyer.await.unwrap();
    }
    let a = world.at_a();
    for timetable in world.timetables() {
        assert_eq!(a.map(&timetable).await["sold"], 8);
    }
    let spent = PRICE * 8 * DATES as i64;
    assert_eq!(a.balance().await, 1_000_000 - spent);
    world.audit();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_database_moves_no_shard() {
    let mut cluster = Cluster::create().await;
    let options = cluster.database.options();
    let proxy = Proxy::before(options.get_host().to_owned(), options.get_port()).await;
    cluster.url = cluster.url.replace(
        &format!(":{}/", options.get_port()),
        &format!(":{}/", proxy.port()),
    );
    assert!(cluster.url.contains(&proxy.port().to_string()));
    let world = World::on(cluster).await;
    let (a, admin) = (world.at_a(), world.a.admin().await);
    let before = admin.get("/admin/cluster").ok(200).await;
    proxy.cut();
    tokio::time::sleep(Duration::from_secs(10)).await;
    proxy.heal();
    for timetable in world.timetables() {
        let hold = hold_at_last(&a, &timetable, "G-A-1").await;
        order_at_last(&a, &hold).await;
    }
    // What a node tells of the other is as old as its own last renewal, which may
    // have been before the other's first.
    let after = eventually("both nodes see each other live", SETTLE_LIMIT, || async {
        let seen = admin.get("/admin/cluster").ok(200).await;
        (shares(&seen).len() == 2).then_some(seen)
    })
    .await;
    assert_eq!(shares(&after), shares(&before));
    assert_eq!(after["shards"], before["shards"]);
    world.audit();
}
