//! `onsale-load queue sockets`: how late positions arrive at many sockets, and
//! what a socket costs the server.
//!
//! A process may open so many files, so that the sockets are shared by several
//! processes: each is told by the first one, over its standard input, when to
//! measure.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use onsale::clock::Clock;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::api::performance_of;
use super::proc::{Usage, usage};
use super::sockets_report::{MILLIS_MAX, Report, Seen, Used, histogram};
use super::ws::{Frame, Socket};
use crate::api::BASE;
use crate::buyer::Buyer;
use crate::client::{Request, Target};
use crate::pool::Pool;
use crate::prepare::BuyersFile;

/// How many connections join, and how many sockets are opened at once.
const JOINING: usize = 128;
const OPENING: usize = 64;

/// After all are open, before anything is measured.
const CALM: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(crate) struct SocketsArgs {
    /// Where the server is; once for each node of a cluster.
    #[arg(long = "url", default_value = "http://127.0.0.1:8080")]
    urls: Vec<String>,
    /// The accounts that `prepare` made: one for each socket.
    #[arg(long, value_name = "FILE", default_value = "buyers.json")]
    buyers_file: PathBuf,
    /// A timetable of the performance with the queue; its policy must admit
    /// all the time, so that positions move.
    #[arg(long, value_name = "ID")]
    timetable: String,
    /// How many.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sockets: u32,
    /// In how many processes; each opens its sockets at one node, in turns.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    processes: u16,
    /// For how many seconds they are watched.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// The server's process, on this machine: tells what a socket costs it. Once
    /// for each --url, in the same order.
    #[arg(long = "server-pid")]
    server_pids: Vec<u32>,
    /// Where the report goes, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[arg(long)]
    url: String,
    #[arg(long)]
    buyers_file: PathBuf,
    #[arg(long)]
    performance: String,
    #[arg(long)]
    skip: usize,
    #[arg(long)]
    count: usize,
    #[arg(long)]
    seconds: u64,
}

/// Measures; `Ok(false)` if a socket failed or a position grew.
///
/// # Errors
/// If it can't begin; a line for a person.
pub(crate) async fn sockets(args: SocketsArgs) -> Result<bool, String> {
    let mut file = BuyersFile::read(&args.buyers_file)?;
    let wanted = args.sockets as usize;
    if wanted > file.buyers.len() {
        return Err(format!(
            "--sockets {wanted}: the file has {}",
            file.buyers.len()
        ));
    }
    file.buyers.truncate(wanted);
    let nodes = args.urls.len();
    if usize::from(args.processes) < nodes || ![0, nodes].contains(&args.server_pids.len()) {
        return Err("--processes and --server-pid: at least one for each --url".to_owned());
    }
    let mut pools = Vec::with_capacity(nodes);
    for url in &args.urls {
        pools.push(Arc::new(Pool::new(Target::of(url).await?, JOINING / nodes)));
    }
    let first = pools.first().ok_or("--url: none")?;
    let (performance, _) = performance_of(first, &args.timetable).await?;
    join_all(&pools, &performance, file.buyers).await?;
    drop(pools);
    let used = || -> Result<Vec<Usage>, String> {
        let pids = args.server_pids.iter();
        pids.map(|pid| usage(*pid)).collect()
    };
    let empty = used()?;
    let mut workers = Workers::start(&args, &performance)?;
    workers.all_say("open")?;
    sleep(CALM).await;
    let open = used()?;
    workers.tell("measure")?;
    let begun = Instant::now();
    let seen = workers.results()?;
    let took = begun.elapsed().as_secs_f64();
    let after = used()?;
    let mut report = Report::of(args.seconds, took, &seen);
    for (index, url) in args.urls.iter().enumerate() {
        let costs = empty.get(index).zip(open.get(index)).zip(after.get(index));
        let costs = costs.map(|((&empty, &open), &after)| Used { empty, open, after });
        report.add_node((index, url), costs, took, &seen);
    }
    report.print();
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?;
        std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(report.is_clean())
}

async fn join_all(
    pools: &[Arc<Pool>],
    performance: &str,
    buyers: Vec<Buyer>,
) -> Result<(), String> {
    let bar = ProgressBar::new(buyers.len() as u64);
    let path: Arc<str> = format!("{BASE}/performances/{performance}/queue").into();
    let mut tasks = JoinSet::new();
    for (buyer, pool) in buyers.into_iter().zip(pools.iter().cycle()) {
        let (pool, path) = (Arc::clone(pool), Arc::clone(&path));
        tasks.spawn(async move {
            let request = Request {
                method: "POST",
                ..Request::get(&path)
            };
            let reply = pool.call(&request.by(&buyer.token)).await?;
            match reply.status {
                200 | 201 => Ok(()),
                status => Err(format!("POST queue: {status}")),
            }
        });
    }
    while let Some(joined) = tasks.join_next().await {
        joined.map_err(|error| error.to_string())??;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// The other processes. They are ended with this value.
struct Workers {
    processes: Vec<(Child, BufReader<ChildStdout>)>,
    /// The index of the node of each, and how many sockets it has there.
    shares: Vec<(usize, usize)>,
}

impl Workers {
    fn start(args: &SocketsArgs, performance: &str) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut workers = Self {
            processes: Vec::new(),
            shares: Vec::new(),
        };
        let processes = usize::from(args.processes);
        let total = args.sockets as usize;
        for n in 0..processes {
            let (from, upto) = (total * n / processes, total * (n + 1) / processes);
            let node = n % args.urls.len().max(1);
            let url = args.urls.get(node).ok_or("--url: none")?;
            let mut child = Command::new(&program)
                .args(["queue", "sockets-worker", "--url", url])
                .arg("--buyers-file")
                .arg(&args.buyers_file)
                .args(["--performance", performance])
                .args(["--skip", &from.to_string()])
                .args(["--count", &(upto - from).to_string()])
                .args(["--seconds", &args.seconds.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|error| format!("{}: {error}", program.display()))?;
            let output = child.stdout.take().ok_or("a process without output")?;
            workers.processes.push((child, BufReader::new(output)));
            workers.shares.push((node, upto - from));
        }
        Ok(workers)
    }

    fn lines(&mut self) -> Result<Vec<String>, String> {
        let read = |(_, output): &mut (Child, BufReader<ChildStdout>)| {
            let mut line = String::new();
            match output.read_line(&mut line) {
                Ok(0) => Err("a process of sockets has ended".to_owned()),
                Ok(_) => Ok(line.trim().to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        self.processes.iter_mut().map(read).collect()
    }

    fn all_say(&mut self, word: &str) -> Result<(), String> {
        match self.lines()?.into_iter().find(|line| line != word) {
            Some(other) => Err(format!("a process of sockets: {other}")),
            None => Ok(()),
        }
    }

    fn tell(&mut self, word: &str) -> Result<(), String> {
        for (child, _) in &mut self.processes {
            let input = child.stdin.as_mut().ok_or("a process without input")?;
            writeln!(input, "{word}").map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// What each has seen, after its node and the number of its sockets.
    fn results(&mut self) -> Result<Vec<(usize, usize, Seen)>, String> {
        let lines = self.lines()?.into_iter();
        let parts = lines.zip(&self.shares).map(|(line, &(node, sockets))| {
            let seen = serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))?;
            Ok((node, sockets, seen))
        });
        parts.collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for (child, _) in &mut self.processes {
            // One that has ended needs no end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What the sockets of this process share.
#[derive(Debug)]
struct Watch {
    measuring: AtomicBool,
    ends: AtomicBool,
    faults: AtomicU64,
    admitted: AtomicU64,
    late: Mutex<Histogram<u64>>,
    gap: Mutex<Histogram<u64>>,
    clock: Clock,
}

/// Opens its sockets, says so, measures when told to, and prints what it saw.
///
/// # Errors
/// A line for a person.
pub(crate) async fn worker(args: WorkerArgs) -> Result<(), String> {
    let file = BuyersFile::read(&args.buyers_file)?;
    let target = Target::of(&args.url).await?;
    let path: Arc<str> = format!("{BASE}/performances/{}/queue/live", args.performance).into();
    let watch = Arc::new(Watch {
        measuring: AtomicBool::new(false),
        ends: AtomicBool::new(false),
        faults: AtomicU64::new(0),
        admitted: AtomicU64::new(0),
        late: Mutex::new(histogram()),
        gap: Mutex::new(histogram()),
        clock: Clock::system(),
    });
    let opening = Arc::new(Semaphore::new(OPENING));
    let (opened, mut all) = tokio::sync::mpsc::channel::<Result<(), String>>(OPENING);
    for buyer in file.buyers.into_iter().skip(args.skip).take(args.count) {
        let (target, path, opened) = (target.clone(), Arc::clone(&path), opened.clone());
        let (watch, opening) = (Arc::clone(&watch), Arc::clone(&opening));
        tokio::spawn(async move {
            let turn = opening.acquire_owned().await;
            let socket = open(&target, &path, &buyer).await;
            drop(turn);
            let (socket, is_open) = match socket {
                Ok(socket) => (Some(socket), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // Nobody listens after the first failure.
            let _ = opened.send(is_open).await;
            drop(opened);
            if let Some(socket) = socket {
                watch.follow(socket).await;
            }
        });
    }
    drop(opened);
    while let Some(is_open) = all.recv().await {
        is_open?;
    }
    println!("open");
    let told =
        tokio::task::spawn_blocking(|| std::io::stdin().lock().read_line(&mut String::new()));
    told.await
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())?;
    watch.measuring.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(args.seconds)).await;
    watch.ends.store(true, Ordering::Relaxed);
    watch.measuring.store(false, Ordering::Relaxed);
    let counts = |histogram: &Mutex<Histogram<u64>>| {
        let histogram = histogram.lock();
        let recorded = histogram.iter_recorded();
        recorded
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect()
    };
    let seen = Seen {
        late_ms: counts(&watch.late),
        gap_ms: counts(&watch.gap),
        faults: watch.faults.load(Ordering::Relaxed),
        admitted: watch.admitted.load(Ordering::Relaxed),
    };
    println!(
        "{}",
        serde_json::to_string(&seen).map_err(|e| e.to_string())?
    );
    Ok(())
}

/// A socket after its first frame.
async fn open(target: &Target, path: &str, buyer: &Buyer) -> Result<Socket, String> {
    let opened = Socket::open(target, path, &buyer.token).await;
    let mut socket = opened.map_err(|error| format!("a socket can't be opened: {error}"))?;
    match socket.next().await {
        Ok(Frame::Text(text)) if text.starts_with(br#"{"type":"state""#) => Ok(socket),
        Ok(other) => Err(format!("the first frame is {other:?}")),
        Err(error) => Err(format!("no first frame: {error}")),
    }
}

impl Watch {
    /// Reads to the end.
    async fn follow(&self, mut socket: Socket) {
        let mut before = u64::MAX;
        let mut last: Option<i64> = None;
        loop {
            let frame = socket.next().await;
            if self.ends.load(Ordering::Relaxed) {
                return;
            }
            let Ok(Frame::Text(text)) = frame else {
                self.faults.fetch_add(1, Ordering::Relaxed);
                return;
            };
            let text = std::str::from_utf8(text).unwrap_or_default();
            if !text.starts_with(r#"{"type":"tick""#) {
                if text.contains(r#""state":"admitted""#) {
                    self.admitted.fetch_add(1, Ordering::Relaxed);
                    before = u64::MAX;
                    last = None;
                }
                continue;
            }
            let now = self.clock.now().0;
            let (Some(at), Some(position)) = (
                member(text, r#""at":""#).and_then(|at| at.parse::<jiff::Timestamp>().ok()),
                member(text, r#""position":"#).and_then(|digits| digits.parse().ok()),
            ) else {
                self.faults.fetch_add(1, Ordering::Relaxed);
                return;
            };
            if position > before {
                self.faults.fetch_add(1, Ordering::Relaxed);
            }
            before = position;
            let gap = last.replace(now).map(|last| now - last);
            if self.measuring.load(Ordering::Relaxed) {
                let millis = |millis: i64| u64::try_from(millis).unwrap_or(0).clamp(1, MILLIS_MAX);
                self.late
                    .lock()
                    .saturating_record(millis(now - at.as_millisecond()));
                if let Some(gap) = gap {
                    self.gap.lock().saturating_record(millis(gap));
                }
            }
        }
    }
}

/// What follows `name`, up to the end of the value. A tick has no text with
/// these signs in it.
fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(name)?;
    after.split([',', '"', '}']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_of_a_tick_are_found_without_parsing_it() {
        let tick = r#"{"type":"tick","at":"2026-05-01T12:00:00.123Z","paused":false,"seq":4,"position":17}"#;
        assert_eq!(member(tick, r#""at":""#), Some("2026-05-01T12:00:00.123Z"));
        assert_eq!(member(tick, r#""position":"#), Some("17"));
        assert_eq!(member(tick, r#""other":"#), None);
    }
}
