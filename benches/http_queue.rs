//! Joining a waiting room over HTTP, with every middleware on, where a million
//! people wait: how much of what the HTTP stack can do at all is left of it.
//!
//! 64 connections join, each time as somebody who has no place: only 201
//! counts. The peer is a bare axum route that answers a JSON body with itself,
//! under the same client, with the same tokens. The million is written to the
//! store by the queue's own rules while no server runs; the server that is
//! measured has loaded it.
//!
//! `cargo bench --bench http_queue`, or `… -- memory`, `checkpoint` for one tier;
//! `ONSALE_BENCH_WAITING` for another number than a million. Run it while
//! nothing else builds or runs.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench prints figures, and ends at the first surprise"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::post;
use axum::{Json, Router};
use onsale::config;
use onsale::domain::decision::{Machine as _, step};
use onsale::domain::ids::{
    Activation, EntityId, PerformanceId, QueueTicketId, Seq, SessionId, Stamp, UserId,
};
use onsale::domain::queue::policy::QueuePolicy;
use onsale::domain::queue::{Command, Queue, QueuePlan};
use onsale::domain::roles::Roles;
use onsale::domain::time::{Millis, Timestamp};
use onsale::http::tokens::{AccessTokens, Grant, Identity};
use onsale::persistence::Store;
use onsale::persistence::batch::{Contribution, Persisted as _};
use onsale::persistence::store::commit::Verdict;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use support::client::{Connection, Request};
use support::ground::{self, Ground, Holds};
use support::{CONNECTIONS, Figures, RUNS, Server, Times};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The tiers that are the default, on one machine and in a cluster.
const TIERS: [Holds; 2] = [Holds::Memory, Holds::Checkpoint];

/// How much of the peer is left, at least.
const AIM: f64 = 0.5;

/// Nobody enters but the first, so that all others wait.
const POLICY: &str =
    r#"{"free_admission": 0, "admit": null, "max_active": 1, "active_ttl_seconds": 86400}"#;

/// Places that one commit writes.
const BATCH: u32 = 10_000;

/// So many new users a second are made before a run; should it come further, it
/// ends with the last of them.
const USERS_PER_SECOND: f64 = 60_000.0;

/// How long a million may take to be loaded.
const LOAD_PATIENCE: Duration = Duration::from_secs(120);

#[derive(Serialize, Deserialize)]
struct Echo {
    seat_ids: Vec<String>,
}

/// Tokens of users whom nobody has seen.
type Newcomers = Arc<Mutex<Vec<String>>>;

/// What was answered but 201, by status.
type Others = Arc<Mutex<BTreeMap<u16, u64>>>;

#[derive(Deserialize)]
struct Summary {
    waiting: u32,
}

fn main() {
    if support::peer_role().is_some() {
        let echo = |Json(body): Json<Echo>| async { Json(body) };
        support::serve_peer(|| Router::new().route("/echo", post(echo)));
        return;
    }
    support::block_on(bench());
}

fn waiting() -> u32 {
    let set = std::env::var("ONSALE_BENCH_WAITING").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(1_000_000)
}

async fn bench() {
    let peer = Server::peer(&["echo"]).await;
    for tier in TIERS {
        if !support::is_wanted(tier.as_str()) {
            continue;
        }
        let ground = match tier {
            Holds::Memory => Ground::embedded(),
            _ => Ground::cluster(&ground::services(), tier).await,
        };
        let ground = ground.env("ONSALE_DURABILITY__JOINS", tier.as_str());
        in_tier(tier, ground, &peer).await;
    }
}

async fn in_tier(tier: Holds, ground: Ground, peer: &Server) {
    let mut onsale = Server::onsale(ground).await;
    support::print_conditions(onsale.ground()).await;
    let timetable = onsale.arena_behind(1_000, POLICY).remove(0);
    let performance = performance_of(&onsale, &timetable).await;
    onsale.kill();
    let crowd = waiting();
    fill(onsale.ground(), performance, crowd).await;
    let relaunched = Instant::now();
    onsale.relaunch();
    let path: Arc<str> = format!("/api/v1/performances/{performance}/queue").into();
    wait_until_loaded(&onsale, &path, crowd).await;
    println!(
        "{crowd} people wait; the server had them {:.2} s after its start and has {:.0} MiB",
        relaunched.elapsed().as_secs_f64(),
        onsale.rss_mib()
    );
    let length = Duration::from_secs_f64(support::run_seconds());
    let others = Others::default();
    // A short round first: caches, connections, the first blocks of numbers.
    join(&onsale, &path, length / 8, &Others::default()).await;
    echo(peer, onsale.ground(), length / 8).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(join(&onsale, &path, length, &others).await);
        theirs.push(echo(peer, onsale.ground(), length).await);
    }
    let (ours, theirs) = (support::median(ours), support::median(theirs));
    let tier = tier.as_str();
    support::print_header(&format!("tier {tier}, {CONNECTIONS} connections"));
    support::print_row("onsale: POST queue, new users, 201", &ours);
    support::print_row("peer: axum, JSON echo", &theirs);
    println!("answers that did not count, by status: {:?}", others.lock());
    support::print_ratio(&format!("joins by {tier} over HTTP"), &ours, &theirs, AIM);
}

async fn performance_of(server: &Server, timetable: &str) -> PerformanceId {
    let path = format!("/api/v1/timetables/{timetable}");
    let mut connection = Connection::to(&server.target);
    let answer = connection.send(&Request::get(&path)).await.unwrap();
    assert_eq!(answer.status, 200);
    PerformanceId(
        support::member(answer.body, "performance_id")
            .parse()
            .unwrap(),
    )
}

/// Has so many join by the rules of the queue, and writes that as its owner
/// would. No server runs.
async fn fill(ground: &Ground, id: PerformanceId, count: u32) {
    let store = Store::open(&config::Store::at(ground.store()))
        .await
        .unwrap();
    let now = onsale::clock::Clock::system().now();
    let loaded = store.load_queue(id, now).await.unwrap();
    let plan = QueuePlan {
        performance_id: id,
        policy: QueuePolicy {
            max_active: Some(1),
            ..QueuePolicy::PLAIN
        },
        opens_at: now.plus(Millis::from_secs(3_600)),
        closes_at: Timestamp(i64::MAX),
        capacity: 1_000,
        places_max: u32::MAX,
        withdrawn: false,
    };
    let mut queue = Queue::restore(Arc::new(plan), loaded.state);
    let (mut stored, mut left) = (loaded.stamp, count);
    let epochs = store.epochs().await.unwrap();
    let epoch = epochs[&EntityId::from(id).shard()];
    // Above all that a server in this epoch had.
    let activation = Activation(stored.activation.0 + 1);
    let mut seq = Seq(0);
    while left > 0 {
        let many = left.min(BATCH);
        left -= many;
        let mut events = Vec::with_capacity(many as usize);
        for _ in 0..many {
            let command = Command::Join {
                user: UserId(Uuid::now_v7()),
                ticket: QueueTicketId(Uuid::now_v7()),
                claim: None,
            };
            let joined = step(&mut queue, &mut seq, now, command);
            assert!(joined.outcome.is_ok(), "{:?}", joined.outcome);
            events.extend(joined.events);
        }
        let after = Stamp {
            epoch,
            activation,
            seq,
        };
        let mut batch = Contribution::new(id.into(), stored, after, now);
        for (seq, event) in &events {
            batch.journalise(*seq, now, event);
            queue.record(event, &mut batch);
        }
        let verdicts = store.commit(Arc::new(vec![batch])).await.unwrap();
        assert!(matches!(verdicts[..], [Verdict::Written]), "{verdicts:?}");
        queue.settle(seq);
        stored = after;
    }
    store.close().await;
}

async fn wait_until_loaded(server: &Server, path: &str, crowd: u32) {
    let started = Instant::now();
    let mut connection = Connection::to(&server.target);
    let path = format!("{path}/summary");
    loop {
        if let Ok(answer) = connection.send(&Request::get(&path)).await
            && answer.status == 200
        {
            let summary: Summary = serde_json::from_slice(answer.body).unwrap();
            // One may have entered.
            assert!((crowd - 1..=crowd).contains(&summary.waiting));
            return;
        }
        assert!(started.elapsed() < LOAD_PATIENCE, "the crowd isn't loaded");
        sleep(Duration::from_millis(50)).await;
    }
}

/// New users for a run of this length.
fn newcomers(ground: &Ground, length: Duration) -> Newcomers {
    let tokens = AccessTokens::new(&ground.keys(), Millis::from_secs(3_600));
    let now = onsale::clock::Clock::system().now();
    let count = (length.as_secs_f64() * USERS_PER_SECOND) as usize;
    let token = |_| {
        let identity = Identity {
            user_id: UserId(Uuid::now_v7()),
            roles: Roles::CUSTOMER,
            session: SessionId(Uuid::now_v7()),
        };
        let grant = Grant {
            identity,
            sessions_from: now,
        };
        tokens.mint(&grant, now)
    };
    Arc::new(Mutex::new((0..count).map(token).collect()))
}

async fn join(server: &Server, path: &Arc<str>, length: Duration, others: &Others) -> Figures {
    let newcomers = newcomers(server.ground(), length);
    let end = Instant::now() + length;
    support::drive(server, CONNECTIONS, |_| {
        let mut connection = Connection::to(&server.target);
        let (newcomers, path) = (Arc::clone(&newcomers), Arc::clone(path));
        let others = Arc::clone(others);
        async move {
            let mut times = Times::new();
            loop {
                let sent = Instant::now();
                let Some(token) = newcomers.lock().pop().filter(|_| sent < end) else {
                    return times;
                };
                let request = Request {
                    method: "POST",
                    ..Request::get(&path)
                };
                let answer = connection.send(&request.by(&token)).await.unwrap();
                match answer.status {
                    201 => times.record(sent.elapsed()),
                    other => *others.lock().entry(other).or_default() += 1,
                }
            }
        }
    })
    .await
}

/// The same to the peer, with a body for it to echo.
async fn echo(server: &Server, ground: &Ground, length: Duration) -> Figures {
    let newcomers = newcomers(ground, length);
    let seat_ids = vec![support::seat_name(0)];
    let body = serde_json::to_vec(&Echo { seat_ids }).unwrap();
    let body: Arc<[u8]> = body.into();
    let end = Instant::now() + length;
    support::drive(server, CONNECTIONS, |_| {
        let mut connection = Connection::to(&server.target);
        let (newcomers, body) = (Arc::clone(&newcomers), Arc::clone(&body));
        async move {
            let mut times = Times::new();
            // Somebody again, once all have come: the peer doesn't mind.
            let mut token = String::new();
            loop {
                let sent = Instant::now();
                if sent >= end {
                    return times;
                }
                token = newcomers.lock().pop().unwrap_or(token);
                let request = Request::post("/echo", &body).by(&token);
                let answer = connection.send(&request).await.unwrap();
                assert_eq!(answer.status, 200);
                times.record(sent.elapsed());
            }
        }
    })
    .await
}
