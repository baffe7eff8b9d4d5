//! `onsale-load run`: a sale with many buyers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use onsale::config::Config;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::api::{BASE, Counts, Items, Layout, Performance, Timetable};
use crate::buyer::{Habits, Sale};
use crate::client::{Request, Target};
use crate::pool::Pool;
use crate::prepare::BuyersFile;
use crate::report::{Durability, Report};
use crate::seat_map::SeatMap;
use crate::tally::Tally;

/// How often the progress bar is brought up to date.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Where the server is.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The accounts that `prepare` made.
    #[arg(long, value_name = "FILE", default_value = "buyers.json")]
    buyers_file: PathBuf,
    /// Which timetable is sold; without it, see --first.
    #[arg(long, value_name = "ID", conflicts_with = "first")]
    timetable: Option<String>,
    /// The first timetable on sale that has free seats. This is the default.
    #[arg(long)]
    first: bool,
    /// How many of the accounts buy; all by default.
    #[arg(long)]
    buyers: Option<usize>,
    /// How many buyers leave the choice of seats to the server, from 0 to 1;
    /// the others click on what the map shows.
    #[arg(long, default_value_t = 0.7, value_parser = parse_share)]
    best_share: f64,
    /// How long a buyer thinks before paying, in milliseconds: a number, or a
    /// range such as 500..3000.
    #[arg(long, default_value = "0", value_parser = parse_range)]
    think_ms: (u64, u64),
    /// Over how many seconds the buyers arrive; 0: all at once.
    #[arg(long, default_value_t = 0.0)]
    arrive_over: f64,
    /// No buyer begins later than so many seconds after the start.
    #[arg(long, default_value_t = 60)]
    duration: u64,
    /// How many connections the buyers share: so many requests are in flight, and
    /// an eighth more of those who look for their tickets.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..=16_000))]
    connections: u16,
    /// How many buyers cancel what they bought, or one seat of it, once they have
    /// their tickets, from 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = parse_share)]
    cancel_share: f64,
    /// How old the seat map may be that a buyer looks at, in milliseconds.
    #[arg(long, default_value_t = 100)]
    map_ms: u64,
    /// Where the report goes, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Audit the store afterwards, as `onsale verify` does.
    #[arg(long)]
    audit: bool,
    /// The settings of the server, to find its store and its data folder for
    /// --audit and for the time that a durable write takes.
    #[arg(long, value_name = "FILE")]
    store_config: Option<PathBuf>,
}

/// One connection for owners of tickets to so many for buyers.
const OWNERS_SHARE: usize = 8;

/// Runs a sale; `Ok(false)` if anything failed or the audit has findings.
///
/// # Errors
/// If it can't begin; a line for a person.
pub(crate) async fn run(args: RunArgs) -> Result<bool, String> {
    let settings = settings(&args)?;
    let file = BuyersFile::read(&args.buyers_file)?;
    let wanted = args.buyers.unwrap_or(file.buyers.len());
    if wanted > file.buyers.len() {
        let there = file.buyers.len();
        return Err(format!("--buyers {wanted}: the file has {there}"));
    }
    let durability = settings.as_ref().map(Durability::measure).transpose()?;
    let connections = usize::from(args.connections);
    let pool = Pool::new(Target::of(&args.url).await?, connections);
    let for_owners = (connections / OWNERS_SHARE).max(1);
    let pool_of_owners = Pool::new(Target::of(&args.url).await?, for_owners);
    let timetable = match &args.timetable {
        Some(id) => id.clone(),
        None => first_on_sale(&pool).await?,
    };
    let (map, before) = open_map(&pool, &timetable).await?;
    let started = Instant::now();
    let sale = Arc::new(Sale {
        pool,
        pool_of_owners,
        timetable,
        map: Mutex::new(map),
        map_read_at: Mutex::new(started),
        habits: Habits {
            best_share: args.best_share,
            think_ms: args.think_ms,
            cancel_share: args.cancel_share,
            map_age: Duration::from_millis(args.map_ms),
        },
        tally: Tally::default(),
        ends_at: started + Duration::from_secs(args.duration),
        sold_out: AtomicBool::new(false),
        run: uuid::Uuid::now_v7().simple().to_string(),
    });
    let mut tasks = JoinSet::new();
    for (number, buyer) in file.buyers.into_iter().take(wanted).enumerate() {
        let sale = Arc::clone(&sale);
        let after = args.arrive_over * number as f64 / wanted as f64;
        let arrives = started + Duration::from_secs_f64(after.max(0.0));
        tasks.spawn(async move {
            if arrives > Instant::now() {
                sleep_until(arrives).await;
            }
            sale.serve(number, &buyer).await;
        });
    }
    watch(&sale, tasks, before.available, wanted).await;
    let seconds = started.elapsed().as_secs_f64();
    let after = counts(&sale.pool, &sale.timetable).await?;
    let audit = match &settings {
        Some(config) if args.audit => Some(onsale::persistence::verify::run(config).await),
        _ => None,
    };
    let report = Report {
        url: args.url,
        timetable: sale.timetable.clone(),
        buyers: wanted,
        connections: args.connections,
        best_share: args.best_share,
        think_ms: args.think_ms,
        seconds,
        durability,
        seats_before: before,
        seats_after: after,
        summary: sale.tally.summary(),
        audit_exit: audit,
    };
    report.print();
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    Ok(report.is_clean())
}

/// The server's settings, where they are needed.
fn settings(args: &RunArgs) -> Result<Option<Config>, String> {
    if !args.audit && args.store_config.is_none() {
        return Ok(None);
    }
    let (config, _) = Config::load(args.store_config.as_deref()).map_err(|e| e.to_string())?;
    Ok(Some(config))
}

async fn first_on_sale(pool: &Pool) -> Result<String, String> {
    let path = format!("{BASE}/performances?status=on_sale&limit=100");
    let performances: Items<Performance> = pool.expect(200, &Request::get(&path)).await?;
    for performance in performances.items {
        let path = format!(
            "{BASE}/performances/{}/timetables",
            performance.performance_id
        );
        let timetables: Items<Timetable> = pool.expect(200, &Request::get(&path)).await?;
        if let Some(timetable) = timetables.items.into_iter().find(|t| t.available > 0) {
            println!(
                "{}: timetable {}",
                performance.title, timetable.timetable_id
            );
            return Ok(timetable.timetable_id);
        }
    }
    Err("nothing is on sale: see `onsale-load arena`".to_owned())
}

/// The layout once, and the map as it is now.
async fn open_map(pool: &Pool, timetable: &str) -> Result<(SeatMap, Counts), String> {
    let path = format!("{BASE}/timetables/{timetable}/layout");
    let layout: Layout = pool.expect(200, &Request::get(&path)).await?;
    let path = format!("{BASE}/timetables/{timetable}/seats");
    let mut map = SeatMap::new(layout);
    let body: serde_json::Value = pool.expect(200, &Request::get(&path)).await?;
    let unreadable = |error: serde_json::Error| format!("GET {path}: {error}");
    let counts = <Counts as serde::Deserialize>::deserialize(&body).map_err(unreadable)?;
    let seats = serde_json::from_value(body).map_err(unreadable)?;
    map.update(&seats);
    Ok((map, counts))
}

async fn counts(pool: &Pool, timetable: &str) -> Result<Counts, String> {
    let path = format!("{BASE}/timetables/{timetable}/seats");
    pool.expect(200, &Request::get(&path)).await
}

/// Shows the progress until all buyers are done.
async fn watch(sale: &Sale, mut tasks: JoinSet<()>, seats: u32, buyers: usize) {
    let bar = ProgressBar::new(seats.into());
    if let Ok(style) =
        ProgressStyle::with_template("{elapsed_precise} [{wide_bar}] {pos}/{len} seats sold  {msg}")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    let started = Instant::now();
    let mut done = 0;
    loop {
        let (sold, orders) = sale.tally.progress();
        bar.set_position(sold);
        let rate = orders as f64 / started.elapsed().as_secs_f64().max(0.001);
        bar.set_message(format!("{rate:.0} orders/s  {done}/{buyers} buyers done"));
        tokio::select! {
            () = sleep(PROGRESS_EVERY) => {}
            ended = tasks.join_next() => {
                if ended.is_none() {
                    break;
                }
                done += 1;
                // Those that ended meanwhile, without a redraw for each.
                while tasks.try_join_next().is_some() {
                    done += 1;
                }
                sleep(PROGRESS_EVERY.min(Duration::from_millis(20))).await;
            }
        }
    }
    bar.finish_and_clear();
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("from 0 to 1".to_owned()),
    }
}

/// `500` or `500..3000`, each at most an hour.
fn parse_range(text: &str) -> Result<(u64, u64), String> {
    const MAX: u64 = 3_600_000;
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    match (least.parse(), most.parse()) {
        (Ok(least), Ok(most)) if least <= most && most <= MAX => Ok((least, most)),
        _ => Err(format!(
            "a number up to {MAX}, or a range such as 500..3000"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_think_time_is_a_number_or_a_range() {
        assert_eq!(parse_range("0"), Ok((0, 0)));
        assert_eq!(parse_range("500..3000"), Ok((500, 3000)));
        for bad in ["", "..", "5..", "9..3", "-1", "99999999"] {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
    }
}
