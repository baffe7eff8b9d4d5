//! A Redis server of a test's own, to be stopped, flushed and killed.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::common::eventually;

/// How long it may take to answer after a start.
const START_LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Redis {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let redis = Self {
            child: spawn(port, &folder),
            port,
            folder,
        };
        redis.until_it_answers().await;
        redis
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// SIGSTOP: it takes connections and commands, and answers nothing.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// `kill -9`, and everything is lost with it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// After [`Redis::kill`]: it comes back, empty.
    pub(crate) async fn come_back(&mut self) {
        self.child = spawn(self.port, &self.folder);
        self.until_it_answers().await;
    }

    pub(crate) async fn flush(&self) {
        let flush = redis::cmd("FLUSHALL");
        let done: redis::RedisResult<()> =
            flush.query_async(&mut self.connect().await.unwrap()).await;
        done.unwrap();
    }

    /// How many keys it has.
    pub(crate) async fn keys(&self) -> usize {
        let size = redis::cmd("DBSIZE");
        size.query_async(&mut self.connect().await.unwrap())
            .await
            .unwrap()
    }

    async fn connect(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(self.url())?;
        client.get_multiplexed_async_connection().await
    }

    async fn until_it_answers(&self) {
        eventually("redis answers", START_LIMIT, async || {
            self.connect().await.ok().map(drop)
        })
        .await;
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("kill is installed").success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, folder: &TempDir) -> Child {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("redis-server: {error}; `scripts/services start redis` installs it")
        })
}
