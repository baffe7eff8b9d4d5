//! Memory while Postgres is away: it is stopped (and, in a second round,
//! frozen) for a minute, and 64 connections go on asking at full speed for
//! holds and orders. What waits to be written is bounded by
//! `store.dirty_bytes_max` and by 30 s; then holds are refused, too.
//!
//! `cargo bench --bench outage`, or `… -- stopped`, `… -- frozen`; run it while
//! nothing else builds or runs. `ONSALE_BENCH_OUTAGE_SECONDS`: how long (60).

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench prints figures, and ends at the first surprise"
)]

mod support;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use support::client::{Connection, Request, Target};
use support::ground::{self, Ground, Holds};
use support::services::Services;
use support::{BUYERS, Buyer, CONNECTIONS, Server, Times};
use tokio::time::{Instant, sleep};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEATS: usize = 20_000;
/// The buyers and seats of one connection, which it goes round.
const ROUND: usize = BUYERS / CONNECTIONS;
/// How long the load runs before and after.
const BEFORE: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(5);
/// Work resumes within this after the return.
const RESUMED_AIM: Duration = Duration::from_secs(2);
/// After so long nothing is taken any more that has to be written.
const TAKEN_FOR: u64 = 30;
/// How much more memory there may be at the end than then.
const GROWTH_AIM: f64 = 1.05;
/// A line of the table.
const EVERY: Duration = Duration::from_secs(5);

fn outage() -> Duration {
    let seconds = std::env::var("ONSALE_BENCH_OUTAGE_SECONDS");
    Duration::from_secs(seconds.map_or(60, |seconds| seconds.parse().unwrap()))
}

#[derive(Clone, Copy)]
enum Trouble {
    Stopped,
    Frozen,
}

fn main() {
    support::block_on(bench());
}

async fn bench() {
    for (name, trouble) in [("stopped", Trouble::Stopped), ("frozen", Trouble::Frozen)] {
        if support::is_wanted(name) {
            println!("Postgres {name} for {:?}", outage());
            survive(&ground::services(), trouble).await;
        }
    }
}

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    taken: AtomicU64,
    refused: AtomicU64,
}

async fn survive(services: &Rc<Services>, trouble: Trouble) {
    let ground = Ground::cluster(services, Holds::Checkpoint).await;
    let server = Server::onsale(ground).await;
    support::print_conditions(server.ground()).await;
    let buyers = Arc::new(server.buyers());
    let timetable = server.arena(SEATS, 1).remove(0);
    let load = Arc::new(Load::default());
    let pushing = support::drive(&server, CONNECTIONS, |number| {
        push(
            server.target.clone(),
            timetable.clone(),
            Arc::clone(&buyers),
            Arc::clone(&load),
            number,
        )
    });
    let watching = async {
        println!(
            "{:>8} {:>10} {:>10} {:>12} {:>12}",
            "second", "RSS MiB", "dirty MiB", "taken/s", "refused/s"
        );
        watch(&server, &load, BEFORE, "before").await;
        match trouble {
            Trouble::Stopped => services.stop_postgres_immediately(),
            Trouble::Frozen => services.freeze_postgres(),
        }
        let rss = watch(&server, &load, outage(), "").await;
        match trouble {
            Trouble::Stopped => services.restart("postgres"),
            Trouble::Frozen => services.thaw_postgres(),
        }
        let back = Instant::now();
        charge(&server.target, &buyers[0]).await;
        let resumed = back.elapsed();
        watch(&server, &load, AFTER, "after").await;
        load.stop.store(true, Ordering::Relaxed);
        (rss, resumed)
    };
    let (_, (rss, resumed)) = tokio::join!(pushing, watching);
    let steady = rss.iter().filter(|(second, _)| *second >= TAKEN_FOR);
    let steady: Vec<f64> = steady.map(|(_, mib)| *mib).collect();
    if let (Some(first), Some(last)) = (steady.first(), steady.last()) {
        println!(
            "memory: {first:.0} MiB {TAKEN_FOR} s into it, {last:.0} MiB at its end: {:.3} × (aim: at most {GROWTH_AIM})",
            last / first
        );
    }
    support::print_times("money is taken again after", vec![resumed], RESUMED_AIM);
    server.audit();
}

/// Holds, orders and releases until told to stop. Nobody waits after a
/// refusal, as a bad client doesn't.
async fn push(
    target: Target,
    timetable: String,
    buyers: Arc<Vec<Buyer>>,
    load: Arc<Load>,
    number: usize,
) -> Times {
    let mut connection = Connection::to(&target);
    let holds = format!("/api/v1/timetables/{timetable}/holds");
    let count = |status: u16| {
        let counter = match status {
            200..=299 => &load.taken,
            _ => &load.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    };
    for at in (0..ROUND).cycle() {
        if load.stop.load(Ordering::Relaxed) {
            break;
        }
        let token = &buyers[number * ROUND + at].token;
        let seat = support::seat_name(number * ROUND + at);
        let body = format!(r#"{{"seat_ids":["{seat}"]}}"#);
        let request = Request::post(&holds, body.as_bytes()).by(token);
        let answer = connection.send(&request).await.unwrap();
        count(answer.status);
        if answer.status != 201 {
            continue;
        }
        let hold = support::member(answer.body, "hold_id").to_owned();
        // Every eighth of them wants to buy, and is refused; it would be sold
        // out soon otherwise.
        if at % 8 == 0 && load.refused.load(Ordering::Relaxed) > 0 {
            let body = format!(r#"{{"hold_id":"{hold}","payment":{{"method":"wallet"}}}}"#);
            let request = Request::post("/api/v1/orders", body.as_bytes());
            let request = request.by(token).keyed(&hold);
            count(connection.send(&request).await.unwrap().status);
        }
        let path = format!("/api/v1/holds/{hold}");
        let request = Request::delete(&path).by(token);
        count(connection.send(&request).await.unwrap().status);
    }
    Times::new()
}

/// Tells how it goes every few seconds; returns the memory at each of them.
async fn watch(server: &Server, load: &Load, length: Duration, what: &str) -> Vec<(u64, f64)> {
    let (begun, mut seen) = (Instant::now(), Vec::new());
    let counted = || {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&load.taken), count(&load.refused))
    };
    let mut before = counted();
    while begun.elapsed() < length {
        let since = Instant::now();
        sleep(EVERY.min(length)).await;
        let (second, now) = (begun.elapsed().as_secs(), counted());
        let rate = |now: u64, before: u64| (now - before) as f64 / since.elapsed().as_secs_f64();
        let (mib, dirty) = (server.rss_mib(), dirty_mib(&server.target).await);
        println!(
            "{:>8} {mib:>10.1} {dirty:>10.1} {:>12.0} {:>12.0}",
            if what.is_empty() {
                second.to_string()
            } else {
                what.to_owned()
            },
            rate(now.0, before.0),
            rate(now.1, before.1),
        );
        before = now;
        seen.push((second, mib));
    }
    seen
}

async fn dirty_mib(target: &Target) -> f64 {
    let mut connection = Connection::to(target);
    let answer = connection.send(&Request::get("/metrics")).await.unwrap();
    let text = String::from_utf8_lossy(answer.body);
    let lines = text
        .lines()
        .filter(|line| line.starts_with("onsale_dirty_bytes "));
    let bytes = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
    lines.map(bytes).sum::<f64>() / f64::from(1 << 20)
}

/// Returns once a wallet can be charged.
async fn charge(target: &Target, buyer: &Buyer) {
    let mut connection = Connection::to(target);
    for number in 0.. {
        let key = format!("after-{number}");
        let request = Request::post("/api/v1/wallet/charges", br#"{"amount":1}"#);
        let request = request.by(&buyer.token).keyed(&key);
        if connection.send(&request).await.unwrap().status == 201 {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}
