//! What the benches over HTTP share: servers in processes of their own, on
//! stores of their own, and a client that drives them.
//!
//! Client and server share the machine, so absolute figures move with it: every
//! bench prints the ratio to a peer that is driven by the same client in the
//! same run, in turns.

#![allow(
    dead_code,
    reason = "each bench uses a part of it, and is a crate of its own"
)]

use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

#[path = "../../src/bin/onsale-load/client.rs"]
pub(crate) mod client;
#[path = "../../src/bin/onsale-load/fsync.rs"]
pub(crate) mod fsync;
pub(crate) mod ground;
pub(crate) mod holds;
#[path = "../../tests/common/services.rs"]
pub(crate) mod services;

use client::{Connection, Request, Target};
use ground::Ground;

/// Connections of the HTTP benches.
pub(crate) const CONNECTIONS: usize = 64;
/// Buyers: a user may hold 50 times a second, and the holds of one connection
/// go round its own 32 of them.
pub(crate) const BUYERS: usize = 2_048;
/// What each buyer has to spend.
const BALANCE: &str = "1000000000";
/// Measured runs of each side, in turns; the median counts.
pub(crate) const RUNS: usize = 3;
/// How long a server may take to start.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// The longest latency that is told apart, in microseconds.
const LATENCY_MAX_US: u64 = 60_000_000;
/// The unit of the times in `/proc/PID/stat`: USER_HZ, 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);

const ADMIN: (&str, &str) = ("admin@bench.invalid", "bench-password");

/// How long a measured run takes: `ONSALE_BENCH_SECONDS`, 8 by default.
pub(crate) fn run_seconds() -> f64 {
    std::env::var("ONSALE_BENCH_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(8.0)
}

/// Runs `bench` on one thread: the servers need the other.
pub(crate) fn block_on<T>(bench: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(bench)
}

/// Whether the part of a bench with this name is wanted: those that the command
/// line names, or all (`cargo bench --bench http_holds -- database`).
pub(crate) fn is_wanted(part: &str) -> bool {
    let mut named = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .peekable();
    named.peek().is_none() || named.any(|name| name == part)
}

/// The part that this process plays, if it was started as a peer.
pub(crate) fn peer_role() -> Option<Vec<String>> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next().as_deref() == Some("--peer")).then(|| arguments.collect())
}

/// Serves as a peer until this process is killed, on any port, which is told
/// on stdout.
pub(crate) fn serve_peer(routes: impl FnOnce() -> axum::Router) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        axum::serve(tcp_nodelay(listener), routes()).await.unwrap();
    });
}

/// Answers must not wait for Nagle's algorithm.
fn tcp_nodelay(
    listener: tokio::net::TcpListener,
) -> impl axum::serve::Listener<Addr = std::net::SocketAddr> {
    use axum::serve::ListenerExt as _;
    listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    })
}

/// A server in a process of its own; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) target: Target,
    url: String,
    /// The peers have none.
    ground: Option<Ground>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An account to buy with.
#[derive(Clone, serde::Deserialize)]
pub(crate) struct Buyer {
    pub(crate) token: String,
}

impl Server {
    /// This very program, as the peer that `role` says.
    pub(crate) async fn peer(role: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("--peer")
            .args(role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        let url = format!("http://{}", address.trim());
        let target = Target::of(&url).await.unwrap();
        Self {
            child,
            target,
            url,
            ground: None,
        }
    }

    /// The real server on `ground`, once it is ready.
    pub(crate) async fn onsale(ground: Ground) -> Self {
        let server = Self::launch(ground).await;
        server.wait_until_ready().await;
        server
    }

    /// The same without waiting for it.
    pub(crate) async fn launch(ground: Ground) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let url = format!("http://127.0.0.1:{port}");
        Self {
            child: spawn(&ground, port),
            target: Target::of(&url).await.unwrap(),
            url,
            ground: Some(ground),
        }
    }

    /// `kill -9`, and until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the program again where it was killed, without waiting for it.
    pub(crate) fn relaunch(&mut self) {
        let port = self.url.rsplit_once(':').unwrap().1.parse().unwrap();
        self.child = spawn(self.ground(), port);
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success(), "kill -s {name}");
    }

    pub(crate) async fn wait_until_ready(&self) {
        let started = Instant::now();
        let mut connection = Connection::to(&self.target);
        loop {
            if let Ok(answer) = connection.send(&Request::get("/readyz")).await
                && answer.status == 200
            {
                return;
            }
            assert!(
                started.elapsed() < START_PATIENCE,
                "the server is not ready: {}",
                std::fs::read_to_string(self.folder().join("log")).unwrap_or_default()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What it stands on.
    pub(crate) fn ground(&self) -> &Ground {
        self.ground
            .as_ref()
            .expect("the real server stands on something")
    }

    /// Its data folder.
    pub(crate) fn folder(&self) -> &Path {
        self.ground().folder()
    }

    /// Accounts with money, made beside the running server.
    pub(crate) fn buyers(&self) -> Vec<Buyer> {
        self.many_buyers(BUYERS)
    }

    /// So many of them.
    pub(crate) fn many_buyers(&self, count: usize) -> Vec<Buyer> {
        #[derive(serde::Deserialize)]
        struct File {
            buyers: Vec<Buyer>,
        }
        let out = self.folder().join("buyers.json");
        let wanted = count.to_string();
        self.load_tool(
            &[
                "prepare",
                "--buyers",
                &wanted,
                "--balance",
                BALANCE,
                "--out",
            ],
            &out,
        );
        let file: File = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
        assert_eq!(file.buyers.len(), count);
        file.buyers
    }

    /// A hall on sale, with as many dates; returns the timetables.
    pub(crate) fn arena(&self, seats: usize, timetables: usize) -> Vec<String> {
        self.make_arena(seats, &["--timetables", &timetables.to_string()])
    }

    /// A hall on sale behind a waiting room; returns its timetable.
    pub(crate) fn arena_behind(&self, seats: usize, policy: &str) -> Vec<String> {
        self.make_arena(seats, &["--queue", policy])
    }

    fn make_arena(&self, seats: usize, more: &[&str]) -> Vec<String> {
        let seats = seats.to_string();
        let mut arguments = vec![
            "arena",
            "--email",
            ADMIN.0,
            "--password",
            ADMIN.1,
            "--seats",
            &seats,
            "--max-seats-per-user",
            "100000",
            "--price",
            "1000",
        ];
        arguments.extend(more);
        arguments.push("--url");
        let text = self.load_tool(&arguments, Path::new(&self.url));
        text.lines().map(str::to_owned).collect()
    }

    /// The administrator's token.
    pub(crate) async fn admin_token(&self) -> String {
        let mut connection = Connection::to(&self.target);
        let (email, password) = ADMIN;
        let body = format!(r#"{{"email":"{email}","password":"{password}"}}"#);
        let sign_in = Request::post("/api/v1/sessions", body.as_bytes());
        let answer = connection.send(&sign_in).await.unwrap();
        member(answer.body, "access_token").to_owned()
    }

    /// Runs `onsale-load` with this server's settings; returns what it prints.
    fn load_tool(&self, arguments: &[&str], last: &Path) -> String {
        let output = self
            .ground()
            .command(env!("CARGO_BIN_EXE_onsale-load"))
            .args(arguments)
            .arg(last)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "onsale-load {arguments:?} failed");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Audits the store beside it.
    pub(crate) fn audit(&self) {
        let output = self
            .ground()
            .command(env!("CARGO_BIN_EXE_onsale"))
            .arg("verify")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        println!("onsale verify: clean");
    }

    /// The memory that it has now.
    pub(crate) fn rss_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.unwrap().split_ascii_whitespace().nth(1).unwrap();
        kib.parse::<f64>().unwrap() / 1_024.0
    }

    /// The processor time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name, in parentheses, may have spaces; utime and stime are the
        // 14th and 15th field, the 12th and 13th after it.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_ascii_whitespace()
            .collect();
        let ticks: u32 = fields[11..13]
            .iter()
            .map(|field| field.parse::<u32>().unwrap())
            .sum();
        TICK * ticks
    }
}

fn spawn(ground: &Ground, port: u16) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(ground.folder().join("log"))
        .unwrap();
    ground
        .command(env!("CARGO_BIN_EXE_onsale"))
        .env("ONSALE_HTTP__LISTEN", format!("127.0.0.1:{port}"))
        .arg("serve")
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Latencies of the requests that counted.
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).unwrap())
    }

    pub(crate) fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(us.clamp(1, LATENCY_MAX_US));
    }
}

/// What one run showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Of the server's processes, a request.
    pub(crate) cpu_us: f64,
}

/// Runs `workers` at once until each has ended by itself, and adds up.
/// Each gets its number and returns the times of what it did.
pub(crate) async fn drive<W>(
    server: &Server,
    workers: usize,
    mut worker: impl FnMut(usize) -> W,
) -> Figures
where
    W: Future<Output = Times> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let (started, cpu) = (Instant::now(), server.cpu());
    for number in 0..workers {
        tasks.spawn(worker(number));
    }
    let mut all = Times::new();
    while let Some(times) = tasks.join_next().await {
        all.0.add(times.unwrap().0).unwrap();
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), server.cpu() - cpu);
    let ms = |quantile| all.0.value_at_quantile(quantile) as f64 / 1e3;
    Figures {
        per_second: all.0.len() as f64 / seconds,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        cpu_us: cpu.as_secs_f64() * 1e6 / all.0.len().max(1) as f64,
    }
}

/// The run with the median rate.
pub(crate) fn median(mut runs: Vec<Figures>) -> Figures {
    runs.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    runs[runs.len() / 2]
}

pub(crate) fn print_header(what: &str) {
    println!(
        "{what:<34} {:>10} {:>9} {:>9} {:>12}",
        "per second", "p50 ms", "p99 ms", "server µs"
    );
}

pub(crate) fn print_row(what: &str, figures: &Figures) {
    println!(
        "{what:<34} {:>10.0} {:>9.2} {:>9.2} {:>12.1}",
        figures.per_second, figures.p50_ms, figures.p99_ms, figures.cpu_us
    );
}

/// The line that a reader looks for.
pub(crate) fn print_ratio(what: &str, ours: &Figures, peer: &Figures, aim: f64) {
    println!(
        "{what}: {:.2} × the peer (aim: at least {aim})",
        ours.per_second / peer.per_second
    );
}

/// What a figure about durability means little without.
pub(crate) async fn print_conditions(ground: &Ground) {
    println!(
        "{} processors; {}",
        std::thread::available_parallelism().unwrap(),
        ground.durability().await
    );
    print_fsync(ground.disk());
}

pub(crate) fn print_fsync(folder: &Path) {
    let p50 = fsync::p50(folder).unwrap();
    println!(
        "a durable write of a page takes {:.3} ms here (p50)",
        p50.as_secs_f64() * 1e3
    );
}

/// A time that is promised to be at most `limit`.
pub(crate) fn print_times(what: &str, mut times: Vec<Duration>, limit: Duration) {
    times.sort_unstable();
    let at = |quantile: f64| times[((times.len() - 1) as f64 * quantile).round() as usize];
    println!(
        "{what}: p50 {:.2} s, p99 {:.2} s, longest {:.2} s of {} (aim: at most {:.1} s)",
        at(0.5).as_secs_f64(),
        at(0.99).as_secs_f64(),
        at(1.0).as_secs_f64(),
        times.len(),
        limit.as_secs_f64()
    );
}

/// The text after `"<name>":"` in a JSON object that has it once: parsing all
/// of each answer would be the client's main work.
pub(crate) fn member<'a>(body: &'a [u8], name: &str) -> &'a str {
    let text = std::str::from_utf8(body).unwrap();
    let key = format!("\"{name}\":\"");
    let start = text
        .find(&key)
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        + key.len();
    let rest = &text[start..];
    &rest[..rest.find('"').unwrap()]
}

/// The seat with this number in a hall of [`Server::arena`]: sections of 20
/// rows of 50.
pub(crate) fn seat_name(number: usize) -> String {
    let (section, row, seat) = (number / 1_000, number / 50 % 20, number % 50);
    format!("F{}-{}-{}", section + 1, row + 1, seat + 1)
}
