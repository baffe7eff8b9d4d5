//! The whole seat map of 20,000 seats over HTTP, while 100 holds a second
//! change it, against a bare axum route that returns as many bytes.
//!
//! `cargo bench --bench http_seats`; run it while nothing else builds or runs.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench prints figures, and ends at the first surprise"
)]

mod support;

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use support::client::{Connection, Request, Target};
use support::ground::Ground;
use support::{Buyer, CONNECTIONS, Figures, RUNS, Server, Times};
use tokio::time::{Instant, MissedTickBehavior, interval};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much of the peer is left, at least.
const AIM: f64 = 0.7;
const SEATS: usize = 20_000;
/// 100 holds a second, each released half a second later.
const HOLD_EVERY: Duration = Duration::from_millis(10);
const HELD_AT_ONCE: usize = 50;

fn main() {
    if let Some(role) = support::peer_role() {
        let bytes: usize = role[0].parse().unwrap();
        support::serve_peer(|| {
            let body = bytes::Bytes::from(vec![b'A'; bytes]);
            let answer = move || {
                let body = body.clone();
                async move { ([(CONTENT_TYPE, "application/json")], body) }
            };
            Router::new().route("/seats", get(answer))
        });
        return;
    }
    support::block_on(bench());
}

async fn bench() {
    let onsale = Server::onsale(Ground::embedded()).await;
    let buyers = onsale.buyers();
    let timetable = onsale.arena(SEATS, 1).remove(0);
    let path = format!("/api/v1/timetables/{timetable}/seats");
    let bytes = size(&onsale.target, &path).await;
    let peer = Server::peer(&[&bytes.to_string()]).await;
    support::print_conditions(onsale.ground()).await;
    let holds = format!("/api/v1/timetables/{timetable}/holds");
    let changing = tokio::spawn(change(onsale.target.clone(), holds, buyers));
    let length = Duration::from_secs_f64(support::run_seconds());
    read(&onsale, &path, length / 8).await;
    read(&peer, "/seats", length / 8).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(read(&onsale, &path, length).await);
        theirs.push(read(&peer, "/seats", length).await);
        assert!(!changing.is_finished(), "the map does not change any more");
    }
    changing.abort();
    let (ours, theirs) = (support::median(ours), support::median(theirs));
    support::print_header(&format!("{CONNECTIONS} connections, {bytes} bytes"));
    support::print_row("onsale: seat map, 100 holds/s", &ours);
    support::print_row("peer: axum, as many bytes", &theirs);
    support::print_ratio("seat maps over HTTP", &ours, &theirs, AIM);
}

async fn size(target: &Target, path: &str) -> usize {
    let mut connection = Connection::to(target);
    let answer = connection.send(&Request::get(path)).await.unwrap();
    support::assert_status(&answer, 200);
    answer.body.len()
}

async fn read(server: &Server, path: &str, length: Duration) -> Figures {
    let end = Instant::now() + length;
    support::drive(server, CONNECTIONS, |_| {
        let mut connection = Connection::to(&server.target);
        let path = path.to_owned();
        async move {
            let mut times = Times::new();
            loop {
                let sent = Instant::now();
                if sent >= end {
                    return times;
                }
                let answer = connection.send(&Request::get(&path)).await.unwrap();
                assert_eq!(answer.status, 200);
                assert!(answer.body.len() >= SEATS, "not the whole map");
                times.record(sent.elapsed());
            }
        }
    })
    .await
}

/// Holds a seat each [`HOLD_EVERY`], and releases the oldest.
async fn change(target: Target, path: String, buyers: Vec<Buyer>) {
    let mut connection = Connection::to(&target);
    let mut ticks = interval(HOLD_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut held: VecDeque<(usize, String)> = VecDeque::new();
    for turn in 0.. {
        ticks.tick().await;
        let buyer = turn % buyers.len();
        let seat = support::seat_name(turn * 7 % SEATS);
        let body = serde_json::json!({ "seat_ids": [seat] }).to_string();
        let request = Request::post(&path, body.as_bytes()).by(&buyers[buyer].token);
        let answer = connection.send(&request).await.unwrap();
        support::assert_status(&answer, 201);
        let hold = support::member(answer.body, "hold_id").to_owned();
        held.push_back((buyer, hold));
        if held.len() > HELD_AT_ONCE
            && let Some((buyer, hold)) = held.pop_front()
        {
            let path = format!("/api/v1/holds/{hold}");
            let request = Request::delete(&path).by(&buyers[buyer].token);
            assert_eq!(connection.send(&request).await.unwrap().status, 204);
        }
    }
}
