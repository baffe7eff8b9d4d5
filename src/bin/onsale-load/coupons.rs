//! `onsale-load coupons`: many claim one coupon at once, also across a `kill -9`
//! of the server: exactly the stock, one each, and `remaining` right at every
//! read.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use onsale::clock::Clock;
use onsale::domain::time::Millis;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::api::BASE;
use crate::buyer::Buyer;
use crate::client::{Request, Target};
use crate::pool::Pool;
use crate::prepare::BuyersFile;
use crate::tally::LATENCY_MAX_US;

/// How long a claim is tried again while the server is away or has too much to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// How often each of those who watch reads how many are left.
const WATCH_EVERY: Duration = Duration::from_millis(10);

/// How many watch, each on a connection of their own.
const WATCHERS: usize = 2;

const DAY_SECONDS: u32 = 86_400;

#[derive(Debug, Args)]
pub(crate) struct CouponsArgs {
    /// Where the server is.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The administrator who makes the coupon.
    #[arg(long, env = "ONSALE_ADMIN_EMAIL")]
    email: String,
    /// The administrator's password.
    #[arg(long, env = "ONSALE_ADMIN_PASSWORD", hide_env_values = true)]
    password: String,
    /// The accounts that `prepare` made; all of them claim.
    #[arg(long, value_name = "FILE", default_value = "buyers.json")]
    buyers_file: PathBuf,
    /// How many there are.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    stock: u32,
    /// How many claim at a time.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=16_000))]
    connections: u16,
    /// Says when the claims begin, on stdout, so that somebody may kill the server.
    #[arg(long)]
    announce: bool,
    /// Where the report goes, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Session {
    access_token: String,
}

#[derive(Deserialize)]
struct Coupon {
    coupon_id: String,
    remaining: i64,
}

#[derive(Deserialize)]
struct Coupons {
    items: Vec<Coupon>,
}

#[derive(Deserialize)]
struct Claim {
    coupon_claim_id: String,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

/// What one of them came away with.
enum Outcome {
    Claimed(String),
    /// They have it: the answer to an earlier try was lost with the server.
    Had,
    SoldOut,
    Failed(String),
}

/// What everybody shares.
struct Rush {
    pool: Pool,
    watching: Pool,
    coupon: String,
    path: String,
    stock: i64,
    /// How many were acknowledged so far.
    claimed: AtomicU64,
    is_over: AtomicBool,
    times: Mutex<Histogram<u64>>,
    findings: Mutex<Vec<String>>,
}

/// All that is known after a run.
#[derive(Debug, Serialize)]
struct Report {
    url: String,
    buyers: usize,
    stock: u32,
    connections: u16,
    seconds: f64,
    claimed: u64,
    /// Of those, how many learned it by asking again.
    had: u64,
    sold_out: u64,
    failed: u64,
    answers_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    reads: u64,
    remaining: i64,
    findings: Vec<String>,
}

/// Runs it; `Ok(false)` if anything is wrong.
///
/// # Errors
/// If it can't begin; a line for a person.
pub(crate) async fn coupons(args: CouponsArgs) -> Result<bool, String> {
    let file = BuyersFile::read(&args.buyers_file)?;
    let target = Target::of(&args.url).await?;
    let pool = Pool::new(target.clone(), args.connections.into());
    let coupon = make(&pool, &args).await?;
    let times = Histogram::new_with_max(LATENCY_MAX_US, 3).map_err(|e| e.to_string())?;
    let rush = Arc::new(Rush {
        path: format!("{BASE}/coupons/{coupon}/claims"),
        pool,
        watching: Pool::new(target, WATCHERS),
        coupon,
        stock: args.stock.into(),
        claimed: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        times: Mutex::new(times),
        findings: Mutex::default(),
    });
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|_| tokio::spawn(Arc::clone(&rush).watch()))
        .collect();
    if args.announce {
        println!("claiming");
    }
    let buyers = file.buyers.len();
    let started = Instant::now();
    let tally = rush.run(file.buyers).await;
    let seconds = started.elapsed().as_secs_f64();
    rush.is_over.store(true, Ordering::Relaxed);
    let mut reads = 0;
    for watcher in watchers {
        reads += watcher.await.unwrap_or(0);
    }
    let report = rush.report(&args, buyers, seconds, reads, &tally).await;
    report.print();
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?;
        std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(report.findings.is_empty())
}

/// Makes the coupon; returns its id.
async fn make(pool: &Pool, args: &CouponsArgs) -> Result<String, String> {
    let body = json!({ "email": args.email, "password": args.password }).to_string();
    let path = format!("{BASE}/sessions");
    let session: Session = pool
        .expect(200, &Request::post(&path, body.as_bytes()))
        .await?;
    let now = Clock::system().now();
    let body = json!({
        "name": "Load", "discount": { "kind": "percent", "value": 10 }, "stock": args.stock,
        "starts_at": now, "ends_at": now.plus(Millis::from_secs(DAY_SECONDS)),
    });
    let (path, body) = (format!("{BASE}/admin/coupons"), body.to_string());
    let make = Request::post(&path, body.as_bytes()).by(&session.access_token);
    let made: Coupon = pool.expect(201, &make).await?;
    Ok(made.coupon_id)
}

/// How many came away with what.
#[derive(Default)]
struct Tally {
    claims: HashSet<String>,
    had: u64,
    sold_out: u64,
    failed: u64,
}

impl Rush {
    fn found(&self, what: String) {
        self.findings.lock().push(what);
    }

    /// Everybody claims once, until each has an answer.
    async fn run(self: &Arc<Self>, buyers: Vec<Buyer>) -> Tally {
        let mut tasks = JoinSet::new();
        for buyer in buyers {
            let rush = Arc::clone(self);
            tasks.spawn(async move { rush.claim(&buyer).await });
        }
        let mut tally = Tally::default();
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(Outcome::Claimed(claim)) => {
                    if let Some(twice) = tally.claims.replace(claim) {
                        self.found(format!("claim {twice} was given twice"));
                    }
                }
                Ok(Outcome::Had) => tally.had += 1,
                Ok(Outcome::SoldOut) => tally.sold_out += 1,
                Ok(Outcome::Failed(why)) => {
                    tally.failed += 1;
                    self.found(why);
                }
                Err(error) => self.found(format!("a buyer broke: {error}")),
            }
        }
        tally
    }

    async fn claim(&self, buyer: &Buyer) -> Outcome {
        let begun = Instant::now();
        let mut is_first = true;
        loop {
            let request = Request::post(&self.path, b"").by(&buyer.token);
            let why = match self.pool.call(&request).await {
                Ok(reply) => match reply.status {
                    201 => {
                        self.answered(reply.took);
                        self.claimed.fetch_add(1, Ordering::Relaxed);
                        return match serde_json::from_slice::<Claim>(&reply.body) {
                            Ok(claim) => Outcome::Claimed(claim.coupon_claim_id),
                            Err(error) => Outcome::Failed(error.to_string()),
                        };
                    }
                    409 => {
                        self.answered(reply.took);
                        return refused(&reply.body, is_first, &self.claimed);
                    }
                    429 | 503 => "overloaded".to_owned(),
                    other => {
                        let text = String::from_utf8_lossy(&reply.body);
                        return Outcome::Failed(format!("{other} {text}"));
                    }
                },
                Err(error) => error,
            };
            // It may have been carried out all the same.
            is_first = false;
            if begun.elapsed() > PATIENCE {
                return Outcome::Failed(why);
            }
            sleep(PAUSE).await;
        }
    }

    fn answered(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.times.lock().saturating_record(us);
    }

    /// Reads how many are left, again and again: never up, never below zero, never
    /// more than those that were acknowledged before leave. How often it was read.
    async fn watch(self: Arc<Self>) -> u64 {
        let (mut last, mut reads) = (self.stock, 0);
        while !self.is_over.load(Ordering::Relaxed) {
            let acknowledged = self.claimed.load(Ordering::Relaxed).cast_signed();
            if let Some(remaining) = self.remaining().await {
                reads += 1;
                if !(0..=last.min(self.stock - acknowledged)).contains(&remaining) {
                    self.found(format!(
                        "{remaining} were left after {last}, with {acknowledged} acknowledged"
                    ));
                }
                last = remaining;
            }
            sleep(WATCH_EVERY).await;
        }
        reads
    }

    /// `None` while the server doesn't answer.
    async fn remaining(&self) -> Option<i64> {
        let path = format!("{BASE}/coupons?limit=100");
        let reply = self.watching.call(&Request::get(&path)).await.ok()?;
        let coupons: Coupons = serde_json::from_slice(&reply.body).ok()?;
        let is_it = |coupon: &&Coupon| coupon.coupon_id == self.coupon;
        coupons
            .items
            .iter()
            .find(is_it)
            .map(|coupon| coupon.remaining)
    }

    async fn report(
        &self,
        args: &CouponsArgs,
        buyers: usize,
        seconds: f64,
        reads: u64,
        tally: &Tally,
    ) -> Report {
        let claimed = tally.claims.len() as u64 + tally.had;
        let expected = (buyers as u64).min(args.stock.into());
        if claimed != expected {
            self.found(format!("{claimed} have one, and {expected} should"));
        }
        let remaining = self.remaining().await.unwrap_or(-1);
        if remaining != self.stock - claimed.cast_signed() {
            self.found(format!("{remaining} are left of {}", self.stock));
        }
        let times = self.times.lock();
        let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        Report {
            url: args.url.clone(),
            buyers,
            stock: args.stock,
            connections: args.connections,
            seconds,
            claimed,
            had: tally.had,
            sold_out: tally.sold_out,
            failed: tally.failed,
            answers_per_second: times.len() as f64 / seconds,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            reads,
            remaining,
            findings: self.findings.lock().clone(),
        }
    }
}

fn refused(body: &[u8], is_first: bool, claimed: &AtomicU64) -> Outcome {
    let code = serde_json::from_slice::<Problem>(body).map(|problem| problem.code);
    match code.as_deref() {
        Ok("coupon-sold-out") => Outcome::SoldOut,
        Ok("coupon-already-claimed") if !is_first => {
            claimed.fetch_add(1, Ordering::Relaxed);
            Outcome::Had
        }
        _ => Outcome::Failed(String::from_utf8_lossy(body).into_owned()),
    }
}

impl Report {
    fn print(&self) {
        println!(
            "{} claimed by {} of {} in {:.2} s ({} told at a second try), {} sold out, {} failed",
            self.stock,
            self.claimed,
            self.buyers,
            self.seconds,
            self.had,
            self.sold_out,
            self.failed
        );
        println!(
            "{:.0} answers/s over {} connections, p50 {:.2} ms, p99 {:.2} ms; {} reads, {} left",
            self.answers_per_second,
            self.connections,
            self.p50_ms,
            self.p99_ms,
            self.reads,
            self.remaining
        );
        for finding in self.findings.iter().take(10) {
            println!("WRONG: {finding}");
        }
        let verdict = if self.findings.is_empty() {
            "passed"
        } else {
            "FAILED"
        };
        println!("{verdict}");
    }
}
