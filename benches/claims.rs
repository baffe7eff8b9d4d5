//! Durable claims of a coupon over HTTP against the plain design: the same HTTP
//! stack and settings of the store, one transaction a claim with the coupon's row
//! locked; on SQLite, and on Postgres. Besides: what a claim costs without HTTP and
//! store, and how busy the one actor is.
//!
//! The peer is favoured: it checks no token and no window.
//!
//! `cargo bench --bench claims`, or `… -- sqlite`, `… -- postgres`, `… -- process`;
//! run it while nothing else builds or runs.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench prints figures, and ends at the first surprise"
)]

mod support;

#[path = "support/plain/coupons.rs"]
mod plain_coupons;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onsale::domain::coupon::{Command, Coupon, Discount, Terms};
use onsale::domain::decision::{Machine as _, step};
use onsale::domain::ids::{CouponClaimId, CouponId, Seq, UserId};
use onsale::domain::time::Timestamp;
use serde_json::json;
use support::client::{Connection, Request};
use support::ground::{self, Ground, Holds};
use support::{Figures, RUNS, Server, Times};
use tokio::time::Instant;
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much faster than the plain design, at least.
const AIM: f64 = 5.0;
/// Callers, each on a connection of its own.
const CALLERS: [usize; 2] = [64, 256];
/// Who claims: each run is of a new coupon, so that all can claim again.
const USERS: usize = 60_000;
/// Claims of the run without HTTP and store.
const IN_PROCESS: u32 = 1_000_000;

fn main() {
    if let Some(role) = support::peer_role() {
        plain_coupons::serve(&role[0], &role[1]);
        return;
    }
    if support::is_wanted("process") {
        in_process();
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
    let tokens: Vec<String> = onsale
        .many_buyers(USERS)
        .into_iter()
        .map(|b| b.token)
        .collect();
    let tokens = Arc::new(tokens);
    let admin = onsale.admin_token().await;
    let length = Duration::from_secs_f64(support::run_seconds());
    for callers in CALLERS {
        support::print_fsync(onsale.ground().disk());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let path = format!("/api/v1/coupons/{}/claims", coupon(&onsale, &admin).await);
            ours.push(claim(&onsale, path, &tokens, callers, length).await);
            let path = format!("/coupons/{}/claims", plain_coupon(&peer).await);
            theirs.push(claim(&peer, path, &tokens, callers, length).await);
        }
        let (ours, theirs) = (support::median(ours), support::median(theirs));
        support::print_header(&format!("{callers} callers"));
        support::print_row("onsale: durable claims", &ours);
        support::print_row("peer: a transaction a claim", &theirs);
        support::print_ratio("durable claims", &ours, &theirs, AIM);
    }
    support::print_fsync(onsale.ground().disk());
    print_actor(&onsale).await;
    onsale.audit();
}

/// Claims until all have, or the time is up.
async fn claim(
    server: &Server,
    path: String,
    tokens: &Arc<Vec<String>>,
    callers: usize,
    length: Duration,
) -> Figures {
    let (path, next) = (Arc::<str>::from(path), Arc::new(AtomicUsize::new(0)));
    let mut connections = Vec::with_capacity(callers);
    for _ in 0..callers {
        let mut connection = Connection::to(&server.target);
        // Whatever the answer is, the connection is there.
        connection.send(&Request::get("/readyz")).await.unwrap();
        connections.push(connection);
    }
    let end = Instant::now() + length;
    let figures = support::drive(server, callers, |_| {
        let mut connection = connections.pop().expect("one for each");
        let (path, next, tokens) = (Arc::clone(&path), Arc::clone(&next), Arc::clone(tokens));
        async move {
            let mut times = Times::new();
            while let Some(token) = tokens.get(next.fetch_add(1, Ordering::Relaxed)) {
                let sent = Instant::now();
                if sent >= end {
                    break;
                }
                let request = Request::post(&path, b"").by(token);
                let answer = connection.send(&request).await.unwrap();
                let text = String::from_utf8_lossy(answer.body);
                assert_eq!(answer.status, 201, "{text}");
                times.record(sent.elapsed());
            }
            times
        }
    })
    .await;
    if next.load(Ordering::Relaxed) >= tokens.len() {
        println!("(all {} had claimed before the time was up)", tokens.len());
    }
    figures
}

async fn coupon(server: &Server, admin: &str) -> String {
    let now = onsale::clock::Clock::system().now();
    let body = json!({
        "name": "Bench", "discount": { "kind": "percent", "value": 10 }, "stock": USERS,
        "starts_at": now, "ends_at": Timestamp(now.0 + 86_400_000),
    });
    let body = body.to_string();
    let mut connection = Connection::to(&server.target);
    let request = Request::post("/api/v1/admin/coupons", body.as_bytes()).by(admin);
    let answer = connection.send(&request).await.unwrap();
    support::member(answer.body, "coupon_id").to_owned()
}

async fn plain_coupon(server: &Server) -> String {
    let mut connection = Connection::to(&server.target);
    let path = format!("/coupons?stock={USERS}");
    let answer = connection.send(&Request::post(&path, b"")).await.unwrap();
    String::from_utf8_lossy(answer.body)
        .trim_matches('"')
        .to_owned()
}

/// How busy the actors of coupons were with each message: one can't do more.
async fn print_actor(server: &Server) {
    let mut connection = Connection::to(&server.target);
    let answer = connection.send(&Request::get("/metrics")).await.unwrap();
    let text = String::from_utf8_lossy(answer.body);
    let figure = |name: &str| {
        let is_it = |line: &&str| line.starts_with(name) && line.contains("kind=\"coupon\"");
        let line = text.lines().find(is_it)?;
        line.rsplit_once(' ')?.1.parse::<f64>().ok()
    };
    let name = onsale::telemetry::ACTOR_HANDLING_SECONDS;
    let (sum, count) = (
        figure(&format!("{name}_sum")),
        figure(&format!("{name}_count")),
    );
    if let Some((sum, count)) = sum.zip(count).filter(|(_, count)| *count > 0.0) {
        println!(
            "one coupon's actor handles a message in {:.2} µs: at most {:.0} claims/s",
            sum / count * 1e6,
            count / sum
        );
    }
}

/// What the machine takes: decide and apply, nothing else.
fn in_process() {
    let (id, now) = (CouponId(Uuid::now_v7()), Timestamp(1));
    let (mut coupon, mut seq) = (Coupon::new(id), Seq(0));
    let terms = Terms {
        name: "bench".to_owned(),
        discount: Discount::Percent(10),
        stock: IN_PROCESS,
        starts_at: Timestamp(0),
        ends_at: Timestamp(2),
        performance: None,
        owner: UserId(Uuid::nil()),
        created_at: now,
    };
    let made = step(&mut coupon, &mut seq, now, Command::Create(terms));
    assert!(made.outcome.is_ok());
    let users: Vec<Uuid> = (0..IN_PROCESS).map(|_| Uuid::new_v4()).collect();
    let begun = Instant::now();
    for user in users {
        let command = Command::Claim {
            claim: CouponClaimId(user),
            user: UserId(user),
            key: None,
        };
        assert!(step(&mut coupon, &mut seq, now, command).outcome.is_ok());
        coupon.settle(seq);
    }
    let took = begun.elapsed();
    println!(
        "in process, without durability: {:.3} µs a claim, {:.1} million/s ({IN_PROCESS} claims)",
        took.as_secs_f64() * 1e6 / f64::from(IN_PROCESS),
        f64::from(IN_PROCESS) / took.as_secs_f64() / 1e6
    );
}
