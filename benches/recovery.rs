//! How soon a sale goes on: after its only node was killed, and when the second
//! of two nodes was killed, or frozen. On Postgres and Redis, with 100,000 sold
//! seats, 50,000 live holds and 20,000 users.
//!
//! What is timed is seen from outside: from the kill (of a restart: from the
//! start of the process) until every timetable that was there has taken a hold
//! again. Buyers come anew every few milliseconds, each to one timetable.
//!
//! `cargo bench --bench recovery`, or `… -- restart`, `… -- take-over`; run it
//! while nothing else builds or runs. `ONSALE_BENCH_ROUNDS`: how often (8).

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench prints figures, and ends at the first surprise"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onsale::domain::ids::shard_of;
use sqlx::{Connection as _, Row as _};
use support::client::{Connection, Request, Target};
use support::ground::{self, Ground, Holds};
use support::{Buyer, CONNECTIONS, Server, Times};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What there is when it happens.
const USERS: usize = 20_000;
const SOLD: usize = 100_000;
const HELD: usize = 50_000;
/// Dates, and the seats of each: so many that both nodes own some.
const DATES: usize = 8;
const SEATS: usize = 20_000;
/// Seats of an order.
const SEATS_PER_ORDER: usize = 4;

const RESTART_AIM: Duration = Duration::from_secs(1);
const KILLED_AIM: Duration = Duration::from_millis(1_500);
const FROZEN_AIM: Duration = Duration::from_secs(3);

/// How often a buyer comes to each timetable, and for how long.
const COME_EVERY: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(60);
/// Both own their share when each has this many of the 1,024 shards.
const FAIR_SHARE: i64 = 400;
/// What is written behind is written, and the tickets are issued.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

fn rounds() -> usize {
    std::env::var("ONSALE_BENCH_ROUNDS").map_or(8, |rounds| rounds.parse().unwrap())
}

/// For trying it out: a fraction of everything.
fn share(of: usize) -> usize {
    let percent = std::env::var("ONSALE_BENCH_PERCENT").map_or(100, |text| text.parse().unwrap());
    of * percent / 100
}

fn main() {
    support::block_on(bench());
}

async fn bench() {
    let services = ground::services();
    let ground = Ground::cluster(&services, Holds::Checkpoint)
        .await
        .env("ONSALE_RATES__HOLDS_PER_SECOND", "1000000")
        .env("ONSALE_RATES__HOLDS_BURST", "1000000");
    let other = ground.beside();
    let mut sale = Sale::prepare(Server::onsale(ground).await).await;
    support::print_conditions(sale.node.ground()).await;
    if support::is_wanted("restart") {
        restart(&mut sale).await;
    }
    if support::is_wanted("take-over") {
        let mut second = Server::onsale(other).await;
        take_over(&sale, &mut second, Trouble::Killed).await;
        take_over(&sale, &mut second, Trouble::Frozen).await;
    }
    sale.node.audit();
}

/// A node, and the sale that it is in the middle of.
struct Sale {
    node: Server,
    buyers: Arc<Vec<Buyer>>,
    dates: Vec<String>,
    /// Takes the free seats of all dates in turn.
    visitors: Arc<AtomicUsize>,
}

impl Sale {
    async fn prepare(node: Server) -> Self {
        let buyers = Arc::new(node.many_buyers(share(USERS)));
        let dates = node.arena(SEATS, DATES);
        let sale = Self {
            node,
            buyers,
            dates,
            visitors: Arc::default(),
        };
        let begun = Instant::now();
        let orders = share(SOLD) / SEATS_PER_ORDER;
        sale.fill(0, orders, SEATS_PER_ORDER, true).await;
        let unsold = orders.div_ceil(DATES) * SEATS_PER_ORDER;
        sale.fill(unsold, share(HELD), 1, false).await;
        sleep(SETTLED_AFTER).await;
        let (sold, held) = sale.counts().await;
        println!(
            "{sold} seats sold, {held} holds, {} users ({:.0} s to get there)",
            sale.buyers.len(),
            begun.elapsed().as_secs_f64()
        );
        sale
    }

    /// Holds of so many seats each, from seat number `first` of each date on;
    /// `ordered`: and orders them.
    async fn fill(&self, first: usize, holds: usize, seats: usize, ordered: bool) {
        support::drive(&self.node, CONNECTIONS, |worker| {
            let mut connection = Connection::to(&self.node.target);
            let (buyers, dates) = (Arc::clone(&self.buyers), self.dates.clone());
            async move {
                for number in (worker..holds).step_by(CONNECTIONS) {
                    let token = &buyers[number % buyers.len()].token;
                    let seat = first + number / DATES * seats;
                    let path = holds_of(&dates[number % DATES]);
                    let body = wish(seat..seat + seats);
                    let hold = take(&mut connection, &Request::post(&path, &body).by(token)).await;
                    if ordered {
                        let body =
                            format!(r#"{{"hold_id":"{hold}","payment":{{"method":"wallet"}}}}"#);
                        let request = Request::post("/api/v1/orders", body.as_bytes());
                        take(&mut connection, &request.by(token).keyed(&hold)).await;
                    }
                }
                Times::new()
            }
        })
        .await;
    }

    /// How many seats are sold and how many held, as the maps say.
    async fn counts(&self) -> (u64, u64) {
        let (mut sold, mut held) = (0, 0);
        let mut connection = Connection::to(&self.node.target);
        for date in &self.dates {
            let path = format!("/api/v1/timetables/{date}/seats");
            let answer = connection.send(&Request::get(&path)).await.unwrap();
            let map: serde_json::Value = serde_json::from_slice(answer.body).unwrap();
            sold += map["sold"].as_u64().unwrap();
            held += map["held"].as_u64().unwrap();
        }
        (sold, held)
    }

    /// How long after `since` each of `dates` has taken a hold, through the
    /// node; sorted.
    async fn served(&self, dates: &[String], since: Instant) -> Vec<Duration> {
        let mut coming = JoinSet::new();
        for date in dates {
            coming.spawn(come(
                self.node.target.clone(),
                date.clone(),
                Arc::clone(&self.buyers),
                Arc::clone(&self.visitors),
                since,
            ));
        }
        let mut served = coming.join_all().await;
        served.sort_unstable();
        served
    }
}

/// A request that has to succeed; what comes too early comes again.
async fn take(connection: &mut Connection, request: &Request<'_>) -> String {
    loop {
        let answer = connection.send(request).await.unwrap();
        match answer.status {
            201 if request.idempotency_key.is_some() => return String::new(),
            201 => return support::member(answer.body, "hold_id").to_owned(),
            503 => sleep(Duration::from_millis(100)).await,
            _ => panic!("{}", String::from_utf8_lossy(answer.body)),
        }
    }
}

fn holds_of(date: &str) -> String {
    format!("/api/v1/timetables/{date}/holds")
}

fn wish(seats: std::ops::Range<usize>) -> Vec<u8> {
    let seat_ids: Vec<String> = seats.map(support::seat_name).collect();
    serde_json::json!({ "seat_ids": seat_ids })
        .to_string()
        .into_bytes()
}

/// Buyers come to one date until one of them is served; those before may still
/// be waiting then.
async fn come(
    target: Target,
    date: String,
    buyers: Arc<Vec<Buyer>>,
    visitors: Arc<AtomicUsize>,
    since: Instant,
) -> Duration {
    let (path, mut waiting) = (Arc::<str>::from(holds_of(&date)), JoinSet::new());
    loop {
        assert!(since.elapsed() < PATIENCE, "{date} is not served any more");
        let (path, mut connection) = (Arc::clone(&path), Connection::to(&target));
        let visitor = visitors.fetch_add(1, Ordering::Relaxed);
        let token = buyers[visitor % buyers.len()].token.clone();
        waiting.spawn(async move {
            // From the end, where nothing is sold or held.
            let seat = SEATS - 1 - visitor % (SEATS - (SOLD + HELD) / DATES);
            let body = wish(seat..seat + 1);
            let request = Request::post(&path, &body).by(&token);
            let answer = connection.send(&request).await;
            // Taken: by a visitor whose answer was lost. It is served, too.
            answer.is_ok_and(|answer| matches!(answer.status, 201 | 409))
        });
        let pause = sleep(COME_EVERY);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                Some(served) = waiting.join_next() => {
                    if served.unwrap() {
                        return since.elapsed();
                    }
                }
            }
        }
    }
}

async fn restart(sale: &mut Sale) {
    let (mut first, mut all) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        sale.node.kill();
        sale.node.relaunch();
        let served = sale.served(&sale.dates, Instant::now()).await;
        first.push(served[0]);
        all.push(*served.last().unwrap());
        let (sold, held) = sale.counts().await;
        assert!(
            sold as usize >= share(SOLD) && held as usize >= share(HELD),
            "{sold} sold, {held} held: something is lost"
        );
        sleep(SETTLED_AFTER).await;
    }
    support::print_times("restart: the first timetable serves", first, RESTART_AIM);
    support::print_times("restart: all timetables serve", all, RESTART_AIM);
}

#[derive(Clone, Copy)]
enum Trouble {
    Killed,
    Frozen,
}

async fn take_over(sale: &Sale, second: &mut Server, trouble: Trouble) {
    let mut times = Vec::new();
    for _ in 0..rounds() {
        let theirs = balanced(sale, second).await;
        let since = Instant::now();
        match trouble {
            Trouble::Killed => second.kill(),
            Trouble::Frozen => second.signal("STOP"),
        }
        times.push(*sale.served(&theirs, since).await.last().unwrap());
        match trouble {
            Trouble::Killed => second.relaunch(),
            Trouble::Frozen => second.signal("CONT"),
        }
    }
    let (what, aim) = match trouble {
        Trouble::Killed => ("take-over from a killed node", KILLED_AIM),
        Trouble::Frozen => ("take-over from a frozen node", FROZEN_AIM),
    };
    support::print_times(what, times, aim);
}

/// Returns the dates of the second node, once both own their share.
async fn balanced(sale: &Sale, second: &Server) -> Vec<String> {
    let since = Instant::now();
    let name = std::fs::read_to_string(second.folder().join("node-id")).unwrap();
    let mut sql = sale.node.ground().sql().await;
    loop {
        assert!(since.elapsed() < PATIENCE, "the second node gets no shards");
        let owned = "SELECT shard.id FROM shard JOIN node ON node.id = shard.owner \
             WHERE owner = $1 AND shard.incarnation = node.incarnation \
               AND lease_until > now() AND state = 'up'";
        let owned: Vec<i16> = sqlx::query(owned)
            .bind(name.trim())
            .fetch_all(&mut sql)
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        let is_fair = |count: i64| (FAIR_SHARE..=1_024 - FAIR_SHARE).contains(&count);
        if is_fair(owned.len() as i64) {
            sql.close().await.unwrap();
            // Until what was handed over is loaded, and routes are known.
            sleep(SETTLED_AFTER).await;
            let shard = |date: &String| shard_of(date.parse::<Uuid>().unwrap()).0.cast_signed();
            let theirs = sale
                .dates
                .iter()
                .filter(|date| owned.contains(&shard(date)));
            let theirs: Vec<String> = theirs.cloned().collect();
            assert!(!theirs.is_empty(), "a share without one of {DATES} dates");
            return theirs;
        }
        sleep(Duration::from_millis(100)).await;
    }
}
