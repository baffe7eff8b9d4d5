//! Servers of a test's own, which it may freeze and kill: started by
//! `scripts/services` in a folder and on ports of their own. One that can't be
//! started is a failed test.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where free ports are looked for: above those of `scripts/services` itself and
/// of the other tests, below the ephemeral ones, so that nobody else gets the
/// port of a server that is down.
const PORTS: std::ops::Range<u16> = 16_000..30_000;

/// How many ports `scripts/services` may use from the first one on.
const PORTS_EACH: usize = 30;

/// How long an immediate stop may take.
const END_LIMIT: Duration = Duration::from_secs(20);

/// Of these ports, where Redis is, and the replica of Postgres.
const REDIS_OFFSET: u16 = 2;
const REPLICA_OFFSET: u16 = 5;

/// Servers in a folder of their own; they end with this.
pub(crate) struct Services {
    folder: TempDir,
    port: u16,
}

impl Services {
    /// Starts these services, by their names in `scripts/services`.
    pub(crate) fn start(names: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        // Their user must be able to reach it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let services = Self {
            folder,
            port: free_ports(),
        };
        services.run("start", names);
        services
    }

    /// Where their data is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `postgres://…`: a database that is this test's alone.
    pub(crate) fn postgres_url(&self) -> String {
        self.postgres_url_at(self.port)
    }

    /// The same through a proxy on another port.
    pub(crate) fn postgres_url_at(&self, port: u16) -> String {
        let own = format!(":{}/", self.port);
        let environment = self.run("env", &[]);
        let line = environment
            .lines()
            .find_map(|line| line.strip_prefix("ONSALE_STORE__URL="));
        line.expect("a URL").replace(&own, &format!(":{port}/"))
    }

    pub(crate) fn postgres_port(&self) -> u16 {
        self.port
    }

    /// That database on its replica, once `postgres-replica` is started.
    pub(crate) fn postgres_replica_url(&self) -> String {
        self.postgres_url_at(self.port + REPLICA_OFFSET)
    }

    pub(crate) fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port + REDIS_OFFSET)
    }

    /// Starts one more service, or one again that was stopped or killed.
    pub(crate) fn restart(&self, name: &str) {
        self.run("start", &[name]);
    }

    /// Stops it in good order.
    pub(crate) fn stop(&self, name: &str) {
        self.run("stop", &[name]);
    }

    /// What `pg_ctl stop -m immediate` does: SIGQUIT to the postmaster, upon
    /// which all its processes end at once, without a checkpoint; the next start
    /// recovers. Returns when they have ended.
    pub(crate) fn stop_postgres_immediately(&self) {
        let postmaster = self.pid("postgres");
        signal("QUIT", &[postmaster]);
        let ended = Instant::now() + END_LIMIT;
        while is_alive(postmaster) {
            assert!(Instant::now() < ended, "Postgres goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Freezes all processes of Postgres: connections stay, and are taken, but
    /// nothing is answered.
    pub(crate) fn freeze_postgres(&self) {
        let postmaster = self.pid("postgres");
        // First, so that it starts no more.
        signal("STOP", &[postmaster]);
        signal("STOP", &children_of(postmaster));
    }

    /// Lets them go on.
    pub(crate) fn thaw_postgres(&self) {
        let postmaster = self.pid("postgres");
        signal("CONT", &children_of(postmaster));
        signal("CONT", &[postmaster]);
    }

    /// Of a service that was started. Not by `scripts/services status`, which
    /// waits for one that is frozen.
    fn pid(&self, name: &str) -> u32 {
        let file = self.folder.path().join(name).join("pid");
        let text = std::fs::read_to_string(&file).unwrap();
        let pid = text.split(' ').next().unwrap();
        pid.parse().unwrap_or_else(|_| panic!("no pid in {text:?}"))
    }

    fn run(&self, verb: &str, names: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services");
        let output = Command::new(script)
            .arg(verb)
            .args(names)
            .env("ONSALE_SERVICES_DIR", self.folder.path())
            .env("ONSALE_SERVICES_PORT", self.port.to_string())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "scripts/services {verb} {names:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // Who is frozen can't end. A service that failed to start has no pid.
        if self.folder.path().join("postgres/pid").exists() {
            self.thaw_postgres();
        }
        self.run("stop", &[]);
    }
}

fn signal(signal: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    // One of them may have ended by itself.
    let _ = Command::new("kill")
        .args(["-s", signal])
        .args(&pids)
        .stderr(Stdio::null())
        .status()
        .expect("kill is installed");
}

/// Whether a process runs: one that has ended may still wait to be reaped.
fn is_alive(pid: u32) -> bool {
    !matches!(
        status_of(pid).first().map(String::as_str),
        None | Some("Z" | "X")
    )
}

/// The state of a process, its parent, and what else `/proc` tells.
fn status_of(pid: u32) -> Vec<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // "pid (name) state parent …"; a name may hold anything.
    let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest);
    let fields = after_name.unwrap_or_default().split_whitespace();
    fields.map(str::to_owned).collect()
}

fn children_of(parent: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("Linux").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        if status_of(pid).get(1) == Some(&parent.to_string()) {
            children.push(pid);
        }
    }
    children
}

fn free_ports() -> u16 {
    // Tests that run at the same time begin to look in different places.
    let skip = usize::try_from(std::process::id()).unwrap() % 400;
    let all: Vec<u16> = PORTS.step_by(PORTS_EACH).collect();
    let mut from_here = all.iter().cycle().skip(skip).take(all.len());
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let free = from_here.find(|first| is_free(**first) && is_free(**first + REDIS_OFFSET));
    *free.expect("free ports")
}
