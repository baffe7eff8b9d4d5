//! What the benches over HTTP share: servers in processes of their own, on
//! stores of their own, and a client that drives them.
//!
//! Client and server share the machine, so absolute figures move with it: every
//! bench prints the ratio to a peer that is driven by the same client in the
//! same run, in turns.

#![allow(
    dead_code,
    unused_imports,
    reason = "each bench uses a part of it, and is a crate of its own"
)]

use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

#[path = "../../src/bin/onsale-load/client.rs"]
pub(crate) mod client;
mod figures;
#[path = "../../src/bin/onsale-load/fsync.rs"]
pub(crate) mod fsync;
pub(crate) mod ground;
pub(crate) mod holds;
pub(crate) mod peer;
#[path = "../../tests/common/services.rs"]
pub(crate) mod services;

pub(crate) use figures::{
    Figures, Times, drive, median, print_conditions, print_fsync, print_header, print_ratio,
    print_row, print_times,
};
pub(crate) use peer::{peer_role, serve_peer};

use client::{Answer, Connection, Request, Target};
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

/// Whatever else came back ends the bench.
pub(crate) fn assert_status(answer: &Answer<'_>, status: u16) {
    assert_eq!(
        answer.status,
        status,
        "{}",
        String::from_utf8_lossy(answer.body)
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
