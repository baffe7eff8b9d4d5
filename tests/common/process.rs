//! The real program as a child process: started, killed, started again.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Client;

/// How long a start may take, with migrations and recovery, in a debug build
/// on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long an orderly stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What the program prints when it is ready.
const READY_PREFIX: &str = "listening on ";

pub(crate) const ADMIN_EMAIL: &str = "admin@example.com";
pub(crate) const ADMIN_PASSWORD: &str = "correct horse battery staple";

/// The settings of a server whose data are in one folder.
#[derive(Clone)]
pub(crate) struct Settings {
    data_dir: PathBuf,
    extra: Vec<(String, String)>,
}

impl Settings {
    pub(crate) fn in_folder(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            extra: Vec::new(),
        }
    }

    /// With one more environment variable (or another value of one).
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.extra.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with its data in another folder.
    pub(crate) fn elsewhere(self, data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            ..self
        }
    }

    /// The SQLite file.
    pub(crate) fn store(&self) -> PathBuf {
        self.data_dir.join("onsale.db")
    }

    /// The program with `arguments`, and nothing of this process's environment
    /// that could change what it does.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onsale"));
        command
            .args(arguments)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"))
            .env("ONSALE_HTTP__LISTEN", "127.0.0.1:0")
            .env("ONSALE_NODE__DATA_DIR", &self.data_dir)
            .env(
                "ONSALE_STORE__URL",
                format!("sqlite://{}", self.store().display()),
            )
            .env("ONSALE_ADMIN_EMAIL", ADMIN_EMAIL)
            .env("ONSALE_ADMIN_PASSWORD", ADMIN_PASSWORD)
            .envs(self.extra.iter().cloned())
            .current_dir(&self.data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// `onsale verify`; panics with what it found unless the audit is clean.
    pub(crate) fn assert_audit_is_clean(&self) {
        let output = self.run(&["verify"]);
        assert_eq!(
            output.status.code(),
            Some(0),
            "onsale verify:\n{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A running server.
pub(crate) struct ServerProcess {
    child: Child,
    base: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl ServerProcess {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(settings: &Settings) -> Self {
        match Self::try_start(settings) {
            Ok(server) => server,
            Err(log) => panic!("the server didn't start:\n{log}"),
        }
    }

    /// Starts it; where it ends instead of getting ready, what it said.
    pub(crate) fn try_start(settings: &Settings) -> Result<Self, String> {
        let mut child = settings
            .command(&["serve"])
            .spawn()
            .expect("the program starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (ready, is_ready) = mpsc::channel();
        collect(child.stdout.take().expect("stdout"), &log, Some(ready));
        collect(child.stderr.take().expect("stderr"), &log, None);
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match is_ready.recv_timeout(Duration::from_millis(50)) {
                Ok(base) => return Ok(Self { child, base, log }),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {
                    if child.try_wait().expect("a child").is_some() {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        let _ = child.kill();
        let status = child.wait();
        let said = log.lock().unwrap().join("\n");
        Err(format!("{status:?}\n{said}"))
    }

    /// Somebody who calls it.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.base)
    }

    /// The administrator that the start made.
    pub(crate) async fn admin(&self) -> Client {
        sign_in(&self.client(), ADMIN_EMAIL, ADMIN_PASSWORD).await
    }

    /// What it has printed so far, on both streams.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("an end");
    }

    /// How it has ended by itself, if it does so within `limit`.
    pub(crate) async fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }

    /// SIGTERM; gives how it ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let sent = Command::new("kill")
            .args(["-TERM", &self.pid().to_string()])
            .status();
        assert!(sent.expect("kill is installed").success());
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "still running {STOP_LIMIT:?} after SIGTERM:\n{}",
                self.log().join("\n")
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- the server said:\n{}", self.log().join("\n"));
        }
    }
}

/// Reads a stream to its end in a thread of its own, so that the child never
/// waits for a reader; tells `ready` the address from the ready line.
fn collect(
    stream: impl Read + Send + 'static,
    log: &Arc<Mutex<Vec<String>>>,
    ready: Option<mpsc::Sender<String>>,
) {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            if let (Some(ready), Some(base)) = (&ready, line.strip_prefix(READY_PREFIX)) {
                let _ = ready.send(base.trim().to_owned());
            }
            log.lock().unwrap().push(line);
        }
    });
}

/// Signs in an account that exists.
pub(crate) async fn sign_in(client: &Client, email: &str, password: &str) -> Client {
    let session = client
        .anonymous()
        .post(
            "/sessions",
            &json!({ "email": email, "password": password }),
        )
        .ok(200)
        .await;
    client.with_token(session["access_token"].as_str().expect("a token"))
}

/// Makes an account and signs it in.
pub(crate) async fn sign_up(client: &Client, email: &str, password: &str) -> Client {
    client
        .anonymous()
        .post(
            "/users",
            &json!({ "email": email, "password": password, "name": "Buyer" }),
        )
        .ok(201)
        .await;
    sign_in(client, email, password).await
}
