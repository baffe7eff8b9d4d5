//! Durable orders by wallet over HTTP against the plain design: the same HTTP
//! stack, the same tables and settings of the store, one transaction an order;
//! on SQLite, and on Postgres.
//!
//! Both sides order seats that were held before; only the orders are timed. The
//! peer is favoured: it checks no token, no idempotency key and no limit, and
//! publishes to nobody.
//!
//! `cargo bench --bench orders`, or `… -- sqlite`, `… -- postgres`; run it while
//! nothing else builds or runs.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench prints figures, and ends at the first surprise"
)]

mod support;

#[path = "support/plain/mod.rs"]
mod plain;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::client::{Connection, Request};
use support::ground::{self, Ground, Holds};
use support::{Buyer, CONNECTIONS, Figures, RUNS, Server, Times};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much faster than the plain design, at least.
const AIM: f64 = 5.0;
/// Orders in flight, each on a connection of its own.
const IN_FLIGHT: [usize; 2] = [64, 256];
/// More holds than either side can order in a second of a run.
const HOLDS_PER_SECOND: f64 = 20_000.0;
/// The largest hall.
const SEATS_MAX: usize = 200_000;

/// Far longer than what was held waits to be written.
const WRITE_BEHIND: Duration = Duration::from_secs(1);

/// A hold that waits to be ordered.
struct Waiting {
    token: String,
    hold: String,
}

fn main() {
    if let Some(role) = support::peer_role() {
        match role[0].as_str() {
            "sqlite" => plain::sqlite::serve(role[1].as_ref()),
            _ => plain::postgres::serve(&role[1]),
        }
        return;
    }
    support::block_on(bench());
}

async fn bench() {
    if support::is_wanted("sqlite") {
        let folder = ground::folder();
        let peer = Server::peer(&["sqlite", folder.path().to_str().unwrap()]).await;
        on(Ground::embedded(), peer).await;
    }
    if support::is_wanted("postgres") {
        let services = ground::services();
        let database = ground::new_database(&services).await;
        let peer = Server::peer(&["postgres", &database]).await;
        let ground = Ground::cluster(&services, Holds::Checkpoint).await;
        on(ground, peer).await;
    }
}

async fn on(ground: Ground, peer: Server) {
    let onsale = Server::onsale(ground).await;
    support::print_conditions(onsale.ground()).await;
    let buyers = Arc::new(onsale.buyers());
    let seconds = support::run_seconds();
    let length = Duration::from_secs_f64(seconds);
    let seats = ((seconds * HOLDS_PER_SECOND) as usize).min(SEATS_MAX);
    let mut timetables = onsale.arena(seats, IN_FLIGHT.len() * RUNS).into_iter();
    wake(&onsale, &buyers).await;
    for in_flight in IN_FLIGHT {
        // Disks have their moods: each figure has its own.
        support::print_fsync(onsale.ground().disk());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let timetable = timetables.next().expect("one for each run");
            let holds = hold_all(&onsale, &buyers, &timetable, seats).await;
            ours.push(order(&onsale, "/api/v1/orders", holds, in_flight, length).await);
            let holds = plain_holds(&peer, seats).await;
            theirs.push(order(&peer, "/orders", holds, in_flight, length).await);
        }
        let (ours, theirs) = (support::median(ours), support::median(theirs));
        support::print_header(&format!("{in_flight} orders in flight"));
        support::print_row("onsale: durable wallet orders", &ours);
        support::print_row("peer: a transaction an order", &theirs);
        support::print_ratio("durable orders", &ours, &theirs, AIM);
    }
    support::print_fsync(onsale.ground().disk());
}

/// Orders `holds`, `in_flight` at a time, until all are ordered or the time is
/// up.
async fn order(
    server: &Server,
    path: &'static str,
    holds: Vec<Waiting>,
    in_flight: usize,
    length: Duration,
) -> Figures {
    let mut connections = connected(server, in_flight).await;
    let (holds, next) = (Arc::new(holds), Arc::new(AtomicUsize::new(0)));
    let end = Instant::now() + length;
    let figures = support::drive(server, in_flight, |_| {
        let mut connection = connections.pop().expect("one for each");
        let (holds, next) = (Arc::clone(&holds), Arc::clone(&next));
        async move {
            let mut times = Times::new();
            while let Some(waiting) = holds.get(next.fetch_add(1, Ordering::Relaxed)) {
                let sent = Instant::now();
                if sent >= end {
                    break;
                }
                let body = format!(
                    r#"{{"hold_id":"{}","payment":{{"method":"wallet"}}}}"#,
                    waiting.hold
                );
                // The hold's id, because any key serves that is used once.
                let request = Request::post(path, body.as_bytes())
                    .by(&waiting.token)
                    .keyed(&waiting.hold);
                let answer = connection.send(&request).await.unwrap();
                support::assert_status(&answer, 201);
                times.record(sent.elapsed());
            }
            times
        }
    })
    .await;
    if next.load(Ordering::Relaxed) >= holds.len() {
        println!(
            "(all {} holds were ordered before the time was up)",
            holds.len()
        );
    }
    figures
}

/// Open connections: opening hundreds at once would be timed otherwise.
async fn connected(server: &Server, count: usize) -> Vec<Connection> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = Connection::to(&server.target);
        // Whatever the answer is, the connection is there.
        connection.send(&Request::get("/readyz")).await.unwrap();
        connections.push(connection);
    }
    connections
}

/// Loads the accounts, as the peer's rows are in its page cache.
async fn wake(server: &Server, buyers: &Arc<Vec<Buyer>>) {
    support::drive(server, CONNECTIONS, |number| {
        let mut connection = Connection::to(&server.target);
        let buyers = Arc::clone(buyers);
        async move {
            for buyer in buyers.iter().skip(number).step_by(CONNECTIONS) {
                let request = Request::get("/api/v1/wallet").by(&buyer.token);
                assert_eq!(connection.send(&request).await.unwrap().status, 200);
            }
            Times::new()
        }
    })
    .await;
}

/// Holds all seats one by one, so that each is an order.
async fn hold_all(
    server: &Server,
    buyers: &Arc<Vec<Buyer>>,
    timetable: &str,
    seats: usize,
) -> Vec<Waiting> {
    let path: Arc<str> = format!("/api/v1/timetables/{timetable}/holds").into();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        let mut connection = Connection::to(&server.target);
        let (buyers, path) = (Arc::clone(buyers), Arc::clone(&path));
        tasks.spawn(async move {
            let mut waiting = Vec::with_capacity(seats / CONNECTIONS + 1);
            for seat in (number..seats).step_by(CONNECTIONS) {
                let token = &buyers[seat % buyers.len()].token;
                let body = format!(r#"{{"seat_ids":["{}"]}}"#, support::seat_name(seat));
                let request = Request::post(&path, body.as_bytes()).by(token);
                waiting.push(Waiting {
                    token: token.clone(),
                    hold: hold(&mut connection, &request).await,
                });
            }
            waiting
        });
    }
    let waiting = tasks.join_all().await.into_iter().flatten().collect();
    // Until the holds are written behind: they are not what is measured.
    tokio::time::sleep(WRITE_BEHIND).await;
    waiting
}

/// Holds; comes back later if more waits to be written than may.
async fn hold(connection: &mut Connection, request: &Request<'_>) -> String {
    loop {
        let answer = connection.send(request).await.unwrap();
        match answer.status {
            201 => return support::member(answer.body, "hold_id").to_owned(),
            503 => tokio::time::sleep(Duration::from_millis(100)).await,
            _ => panic!("{}", String::from_utf8_lossy(answer.body)),
        }
    }
}

/// As many holds in the peer's table, written by itself in one go.
async fn plain_holds(server: &Server, count: usize) -> Vec<Waiting> {
    let mut connection = Connection::to(&server.target);
    let path = format!("/holds?count={count}&buyers={}", support::BUYERS);
    let answer = connection.send(&Request::post(&path, b"")).await.unwrap();
    support::assert_status(&answer, 200);
    let ids: Vec<String> = serde_json::from_slice(answer.body).unwrap();
    let waiting = |hold| Waiting {
        token: "none".to_owned(),
        hold,
    };
    ids.into_iter().map(waiting).collect()
}
