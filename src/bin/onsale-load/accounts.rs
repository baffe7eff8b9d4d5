//! `onsale-load accounts`: what signing up and signing in cost.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::api::BASE;
use crate::client::{Request, Target};
use crate::pool::Pool;
use crate::tally::LATENCY_MAX_US;

/// How often a call is repeated when the server has too much to do.
const SHED_TRIES_MAX: u32 = 20;

#[derive(Debug, Args)]
pub(crate) struct AccountsArgs {
    /// Where the server is.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// How many sign up, and then sign in.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// How many at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=16_000))]
    connections: u16,
}

/// Signs up, then signs in; `Ok(false)` if anything failed.
///
/// # Errors
/// If it can't begin; a line for a person.
pub(crate) async fn accounts(args: AccountsArgs) -> Result<bool, String> {
    let pool = Arc::new(Pool::new(
        Target::of(&args.url).await?,
        args.connections.into(),
    ));
    let run = uuid::Uuid::now_v7().simple().to_string();
    println!(
        "{:<8} {:>7} {:>7} {:>6} {:>9} {:>9} {:>9} {:>9}",
        "", "done", "failed", "shed", "per s", "p50 ms", "p99 ms", "max ms"
    );
    let ups = measure(&pool, &args, "sign up", |n| {
        let (email, password) = credentials(&run, n);
        let body = json!({ "email": email, "password": password, "name": format!("Buyer {n}") });
        (format!("{BASE}/users"), body.to_string(), 201)
    })
    .await;
    let ins = measure(&pool, &args, "sign in", |n| {
        let (email, password) = credentials(&run, n);
        let body = json!({ "email": email, "password": password });
        (format!("{BASE}/sessions"), body.to_string(), 200)
    })
    .await;
    Ok(ups && ins)
}

fn credentials(run: &str, number: u32) -> (String, String) {
    (
        format!("load-{run}-{number}@load.invalid"),
        format!("password-{number}-{run}"),
    )
}

/// What one call came to.
struct Call {
    ok: bool,
    shed: u32,
    took: Duration,
}

/// Sends one request of each number, and shows the figures.
async fn measure(
    pool: &Arc<Pool>,
    args: &AccountsArgs,
    what: &str,
    request: impl Fn(u32) -> (String, String, u16),
) -> bool {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..args.count {
        let pool = Arc::clone(pool);
        let (path, body, expected) = request(number);
        tasks.spawn(async move { call(&pool, &path, &body, expected).await });
    }
    let mut times = Histogram::<u64>::new_with_max(LATENCY_MAX_US, 3).ok();
    let (mut done, mut failed, mut shed) = (0u32, 0u32, 0u32);
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(call) if call.ok => {
                done += 1;
                shed += call.shed;
                let us = u64::try_from(call.took.as_micros()).unwrap_or(u64::MAX);
                if let Some(times) = &mut times {
                    times.saturating_record(us);
                }
            }
            Ok(call) => {
                failed += 1;
                shed += call.shed;
            }
            Err(_) => failed += 1,
        }
    }
    let rate = f64::from(done) / started.elapsed().as_secs_f64();
    let ms = |quantile| {
        times
            .as_ref()
            .map_or(0.0, |times| times.value_at_quantile(quantile) as f64 / 1e3)
    };
    println!(
        "{what:<8} {done:>7} {failed:>7} {shed:>6} {rate:>9.1} {:>9.1} {:>9.1} {:>9.1}",
        ms(0.5),
        ms(0.99),
        ms(1.0)
    );
    failed == 0
}

async fn call(pool: &Pool, path: &str, body: &str, expected: u16) -> Call {
    let mut shed = 0;
    loop {
        match pool.call(&Request::post(path, body.as_bytes())).await {
            Ok(reply) if matches!(reply.status, 429 | 503) && shed < SHED_TRIES_MAX => {
                shed += 1;
                sleep(reply.retry_after.unwrap_or(Duration::from_secs(1))).await;
            }
            Ok(reply) => {
                return Call {
                    ok: reply.status == expected,
                    shed,
                    took: reply.took,
                };
            }
            Err(_) => {
                return Call {
                    ok: false,
                    shed,
                    took: Duration::ZERO,
                };
            }
        }
    }
}
