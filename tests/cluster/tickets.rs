//! Tickets are issued by a group of consumers, one a node: what one of them
//! leaves, another takes up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::eventually;
use crate::common::process::ServerProcess;
use crate::{Cluster, World, hold_at_last, order_at_last};

/// How long there is load before the kill, and after it.
const LOAD: Duration = Duration::from_secs(3);

/// The broker gives a dead node's partitions away after 6 s, and its shards'
/// events are published by another after 3 s; tests allow ten times that.
const ISSUED_LIMIT: Duration = Duration::from_secs(90);

/// Who buy at the same time, each seats of a column of its own.
const BUYERS: usize = 4;

/// Buys a seat of each date, again and again, until told to stop; returns what
/// was bought: timetable and seat.
async fn buy(
    client: Client,
    timetables: Vec<String>,
    column: usize,
    stop: Arc<AtomicBool>,
) -> Vec<(String, String)> {
    let mut bought = Vec::new();
    let seats = ["A", "B", "C", "D"].map(|row| format!("G-{row}-{column}"));
    for seat in seats {
        for timetable in &timetables {
            if stop.load(Ordering::Relaxed) {
                return bought;
            }
            let hold = hold_at_last(&client, timetable, &seat).await;
            order_at_last(&client, &hold).await;
            bought.push((timetable.clone(), seat.clone()));
        }
    }
    bought
}

/// How many tickets there are, by timetable and seat.
async fn tickets(client: &Client) -> BTreeMap<(String, String), u32> {
    let mut tickets = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/tickets?limit=100&cursor={cursor}");
        let page = client.get(&path).ok(200).await;
        for ticket in page["items"].as_array().unwrap() {
            let text = |name: &str| ticket[name].as_str().unwrap().to_owned();
            *tickets
                .entry((text("timetable_id"), text("seat_id")))
                .or_default() += 1;
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return tickets,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_is_killed_the_other_issues_each_ticket_exactly_once() {
    let mut world = World::on(Cluster::with_kafka().await).await;
    let stop = Arc::new(AtomicBool::new(false));
    // Both issue: tickets of all dates come, and each node has some of them.
    let first = world.at_a();
    for timetable in world.timetables() {
        let hold = hold_at_last(&first, &timetable, "G-A-10").await;
        order_at_last(&first, &hold).await;
    }
    let expected = world.timetables().len();
    eventually("the first tickets", ISSUED_LIMIT, || async {
        (tickets(&first).await.len() == expected).then_some(())
    })
    .await;
    let mut buying = Vec::new();
    for column in 1..=BUYERS {
        let (client, stop) = (world.at_a(), Arc::clone(&stop));
        buying.push(tokio::spawn(buy(client, world.timetables(), column, stop)));
    }
    tokio::time::sleep(LOAD).await;
    world.b.kill();
    let killed = Instant::now();
    tokio::time::sleep(LOAD).await;
    stop.store(true, Ordering::Relaxed);
    let mut sold: Vec<(String, String)> = Vec::new();
    for buyer in buying {
        sold.extend(buyer.await.unwrap());
    }
    let of_first = |timetable| (timetable, "G-A-10".to_owned());
    sold.extend(world.timetables().into_iter().map(of_first));
    sold.sort_unstable();

    let a = world.at_a();
    eventually("a ticket for each seat", ISSUED_LIMIT, || async {
        (tickets(&a).await.len() >= sold.len()).then_some(())
    })
    .await;
    println!(
        "{} tickets, the last {:?} after kill -9",
        sold.len(),
        killed.elapsed()
    );
    // Whoever reads the topic again: a second ticket would be seen by now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let issued = tickets(&a).await;
    assert!(
        issued.values().all(|count| *count == 1),
        "one ticket a seat"
    );
    assert_eq!(issued.into_keys().collect::<Vec<_>>(), sold);

    // The one that comes back takes its part again.
    world.b = tokio::task::block_in_place(|| ServerProcess::start(&world.b_settings));
    world.balanced().await;
    let b = world.at_b();
    for timetable in world.timetables() {
        let hold = hold_at_last(&b, &timetable, "G-B-10").await;
        order_at_last(&b, &hold).await;
    }
    let all = sold.len() + world.timetables().len();
    eventually("the tickets of the new orders", ISSUED_LIMIT, || async {
        (tickets(&b).await.len() == all).then_some(())
    })
    .await;
    world.audit();
}
