//! What it costs the holds (tier memory, over HTTP) to be watched: runs without
//! and with it in pairs, one after the other and in changing order, because the
//! machine drifts by more than the difference.
//!
//! * `metrics`: a server that measures nothing against one that measures
//!   everything and is scraped every 15 s;
//! * `dashboard`: one server, with the operators' page closed and open (its calls,
//!   as often as a browser makes them);
//! * `traces`: a server without traces against one that samples 1 % of them (the
//!   default), and one that samples all, with a collector that takes them.
//!
//! `cargo bench --bench overhead`, or `... -- metrics`, `dashboard`, `traces`; run
//! it while nothing else builds or runs. `ONSALE_BENCH_SECONDS`: how long a run
//! takes (8), `ONSALE_BENCH_PAIRS`: how many pairs (8).

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

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use support::client::{Connection, Request, Target};
use support::ground::Ground;
use support::holds::hold;
use support::{Buyer, CONNECTIONS, Figures, Server};
use tokio::task::JoinHandle;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much slower watched holds may be.
const AIM: f64 = 0.05;
const SEATS: usize = 20_000;
const PAIRS: usize = 8;
const SCRAPE_EVERY: Duration = Duration::from_secs(15);
/// What the operators' page asks for, and how often.
const PAGE_CALLS: [(&str, Duration); 2] = [
    ("/api/v1/admin/ops", Duration::from_secs(1)),
    ("/api/v1/admin/cluster", Duration::from_secs(2)),
];

fn main() {
    if support::peer_role().is_some() {
        // The collector: takes spans and forgets them.
        let take = |body: Bytes| async move { drop(body) };
        support::serve_peer(|| Router::new().route("/v1/traces", post(take)));
        return;
    }
    support::block_on(bench());
}

async fn bench() {
    if support::is_wanted("metrics") {
        let off = Side::on(Ground::embedded().env("ONSALE_TELEMETRY__METRICS", "false")).await;
        let on = Side::on(Ground::embedded()).await;
        let scrapes = every(&on.server.target, "/metrics", None, SCRAPE_EVERY);
        in_pairs("metrics", &off, &on, Vec::new).await;
        scrapes.abort();
    }
    if support::is_wanted("dashboard") {
        let side = Side::on(Ground::embedded()).await;
        let token = side.server.admin_token().await;
        let target = side.server.target.clone();
        let open = || {
            let calls = PAGE_CALLS.into_iter();
            calls
                .map(|(path, pause)| every(&target, path, Some(&token), pause))
                .collect()
        };
        in_pairs("dashboard", &side, &side, open).await;
    }
    if support::is_wanted("traces") {
        let collector = Server::peer(&["collector"]).await;
        let off = Side::on(Ground::embedded()).await;
        for sample in ["0.01", "1"] {
            let ground = Ground::embedded()
                .env("ONSALE_TELEMETRY__OTLP_URL", collector.url())
                .env("ONSALE_TELEMETRY__TRACE_SAMPLE", sample);
            let on = Side::on(ground).await;
            in_pairs(&format!("traces, share {sample}"), &off, &on, Vec::new).await;
        }
    }
}

/// A server with what the holds need.
struct Side {
    server: Server,
    buyers: Arc<Vec<Buyer>>,
    timetable: String,
}

impl Side {
    async fn on(ground: Ground) -> Self {
        let server = Server::onsale(ground).await;
        let buyers = Arc::new(server.buyers());
        let timetable = server.arena(SEATS, 1).remove(0);
        Self {
            server,
            buyers,
            timetable,
        }
    }

    async fn run(&self, length: Duration) -> Figures {
        hold(&self.server, &self.buyers, &self.timetable, length).await
    }
}

/// Asks again and again.
fn every(target: &Target, path: &str, token: Option<&str>, pause: Duration) -> JoinHandle<()> {
    let (target, path) = (target.clone(), path.to_owned());
    let token = token.map(str::to_owned);
    tokio::spawn(async move {
        let mut connection = Connection::to(&target);
        loop {
            let mut request = Request::get(&path);
            if let Some(token) = &token {
                request = request.by(token);
            }
            let answer = connection.send(&request).await.unwrap();
            assert_eq!(answer.status, 200, "{path}");
            tokio::time::sleep(pause).await;
        }
    })
}

/// Measures `plain` and `watched` in turns; `watch` begins what only the watched
/// runs have beside them.
async fn in_pairs(
    what: &str,
    plain: &Side,
    watched: &Side,
    watch: impl Fn() -> Vec<JoinHandle<()>>,
) {
    let length = Duration::from_secs_f64(support::run_seconds());
    support::print_conditions(plain.server.ground()).await;
    plain.run(length / 4).await;
    watched.run(length / 4).await;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for pair in 0..pairs() {
        let watched_run = async || {
            let watching = watch();
            let figures = watched.run(length).await;
            for task in watching {
                assert!(!task.is_finished(), "{what}: nobody watched");
                task.abort();
            }
            figures
        };
        // Whichever is first has no advantage of it.
        if pair % 2 == 0 {
            without.push(plain.run(length).await);
            with.push(watched_run().await);
        } else {
            with.push(watched_run().await);
            without.push(plain.run(length).await);
        }
    }
    print(what, &without, &with);
}

fn pairs() -> usize {
    let wanted = std::env::var("ONSALE_BENCH_PAIRS").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(PAIRS)
}

fn print(what: &str, without: &[Figures], with: &[Figures]) {
    support::print_header(&format!("{what}, {CONNECTIONS} connections"));
    for (without, with) in without.iter().zip(with) {
        support::print_row("  without", without);
        support::print_row("  with", with);
    }
    let of = |figure: fn(&Figures) -> f64| {
        let pairs = without.iter().zip(with);
        let mut costs: Vec<f64> = pairs.map(|(a, b)| figure(b) / figure(a) - 1.0).collect();
        costs.sort_by(f64::total_cmp);
        (costs[costs.len() / 2], costs[0], costs[costs.len() - 1])
    };
    // Time a request, so that more is worse in both.
    for (name, (median, least, most)) in [
        ("time a request", of(|figures| 1.0 / figures.per_second)),
        (
            "server's processor time a request",
            of(|figures| figures.cpu_us),
        ),
    ] {
        println!(
            "{what}: {name} {:+.1} % (median of {} pairs, {:+.1} to {:+.1}; aim: at most {:.0} %)",
            median * 100.0,
            with.len(),
            least * 100.0,
            most * 100.0,
            AIM * 100.0
        );
    }
}
