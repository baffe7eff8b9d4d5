//! Holds over HTTP, with every middleware on, in each tier of durability: how
//! much of what the HTTP stack can do at all is left of it.
//!
//! 64 connections hold and release in turn, each its own seats; only 201 and
//! 204 count, and both are acknowledged in the tier. The peer is a bare axum
//! route that answers a JSON body with itself, under the same client.
//!
//! `cargo bench --bench http_holds`, or `… -- memory`, `checkpoint`, `database`
//! for one tier; run it while nothing else builds or runs.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench prints figures, and ends at the first surprise"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use axum::routing::post;
use axum::{Json, Router};
use support::client::{Connection, Request};
use support::ground::{self, Ground, Holds};
use support::holds::{Echo, ROUND, body, hold};
use support::{Buyer, CONNECTIONS, Figures, RUNS, Server, Times};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The tiers, and how much of the peer is left, at least.
const TIERS: [(Holds, f64); 3] = [
    (Holds::Memory, 0.65),
    (Holds::Checkpoint, 0.5),
    (Holds::Database, 0.35),
];
const SEATS: usize = 20_000;

fn main() {
    if support::peer_role().is_some() {
        let echo = |Json(body): Json<Echo>| async { Json(body) };
        support::serve_peer(|| Router::new().route("/echo", post(echo)));
        return;
    }
    support::block_on(bench());
}

async fn bench() {
    let peer = Server::peer(&["echo"]).await;
    for (tier, aim) in TIERS {
        if !support::is_wanted(tier.as_str()) {
            continue;
        }
        let ground = match tier {
            Holds::Memory => Ground::embedded(),
            _ => Ground::cluster(&ground::services(), tier).await,
        };
        in_tier(tier, ground, &peer, aim).await;
    }
}

async fn in_tier(tier: Holds, ground: Ground, peer: &Server, aim: f64) {
    let onsale = Server::onsale(ground).await;
    support::print_conditions(onsale.ground()).await;
    let buyers = Arc::new(onsale.buyers());
    let timetable = onsale.arena(SEATS, 1).remove(0);
    let length = Duration::from_secs_f64(support::run_seconds());
    // A short round first: caches, connections, the buyers' accounts.
    hold(&onsale, &buyers, &timetable, length / 8).await;
    echo(peer, &buyers, length / 8).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(hold(&onsale, &buyers, &timetable, length).await);
        theirs.push(echo(peer, &buyers, length).await);
    }
    let (ours, theirs) = (support::median(ours), support::median(theirs));
    let tier = tier.as_str();
    support::print_header(&format!("tier {tier}, {CONNECTIONS} connections"));
    support::print_row("onsale: hold and release in turn", &ours);
    support::print_row("peer: axum, JSON echo", &theirs);
    support::print_ratio(&format!("holds by {tier} over HTTP"), &ours, &theirs, aim);
}

/// The same bytes to the peer.
async fn echo(server: &Server, buyers: &Arc<Vec<Buyer>>, length: Duration) -> Figures {
    let end = Instant::now() + length;
    support::drive(server, CONNECTIONS, |number| {
        let mut connection = Connection::to(&server.target);
        let buyers = Arc::clone(buyers);
        async move {
            let bodies: Vec<Vec<u8>> = (0..ROUND).map(|at| body(number * ROUND + at)).collect();
            let mut times = Times::new();
            for at in (0..ROUND).cycle() {
                let sent = Instant::now();
                if sent >= end {
                    break;
                }
                let token = &buyers[number * ROUND + at].token;
                let request = Request::post("/echo", &bodies[at]).by(token);
                let answer = connection.send(&request).await.unwrap();
                assert_eq!(answer.status, 200);
                times.record(sent.elapsed());
            }
            times
        }
    })
    .await
}
