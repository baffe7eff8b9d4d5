//! What each section of the settings has in it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::Config;

/// How many write lanes Postgres gets at most where none are named.
const POSTGRES_LANES_MAX: usize = 4;

/// `[http]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Http {
    pub listen: String,
    pub cors_origins: Vec<String>,
    pub request_timeout_seconds: u32,
    pub body_timeout_seconds: u32,
    pub connections_max: u32,
    pub sockets_max: u32,
    pub sockets_per_user_max: u32,
}

impl Http {
    /// `request_timeout_seconds`.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds.into())
    }

    /// `body_timeout_seconds`.
    #[must_use]
    pub fn body_timeout(&self) -> Duration {
        Duration::from_secs(self.body_timeout_seconds.into())
    }
}

/// `[ops]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Ops {
    pub listen: String,
}

/// `[node]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Node {
    pub data_dir: PathBuf,
    pub id: String,
    pub internal_listen: String,
    pub address: String,
}

/// `[store]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Store {
    pub url: String,
    pub pooled: bool,
    pub direct_url: String,
    pub replica_url: String,
    pub migrate: bool,
    pub readers: u32,
    pub lanes: u32,
    pub dirty_bytes_max: u64,
    pub batch_rows_max: u32,
}

impl Store {
    /// Whether it is a server, which several nodes may share.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.url.starts_with("postgres")
    }

    /// How many write lanes there are: `lanes`, or what suits the store and the
    /// machine. One lane has the largest batches, and an order is one commit where
    /// it has both its account and its timetable; more lanes pay only where there
    /// are processors to run them at the same time (README: durable wallet orders).
    #[must_use]
    pub fn lanes(&self) -> usize {
        match self.lanes {
            0 if self.is_server() => {
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                (processors / 2).clamp(1, POSTGRES_LANES_MAX)
            }
            0 => 1,
            lanes => lanes as usize,
        }
    }

    /// `url` without a password.
    #[must_use]
    pub fn shown(&self) -> String {
        match self
            .url
            .split_once("://")
            .map(|(_, rest)| rest.rsplit_once('@'))
        {
            Some(Some((login, place))) if self.is_server() => {
                let user = login.split(':').next().unwrap_or_default();
                format!("postgres://{user}@{place}")
            }
            _ => self.url.clone(),
        }
    }

    /// The url for what PgBouncer can't do: migrations, LISTEN.
    #[must_use]
    pub fn direct_url(&self) -> &str {
        if self.direct_url.is_empty() {
            &self.url
        } else {
            &self.direct_url
        }
    }

    /// The defaults, with this `url`.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Config::default().store
        }
    }
}

/// `[kafka]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Kafka {
    pub brokers: Vec<String>,
    pub prefix: String,
    pub partitions: u32,
    pub replication: u32,
}

/// `[redis]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Redis {
    /// May carry a password.
    pub url: Secret,
    pub prefix: String,
}

impl Redis {
    /// The addresses in `url`: none, one, or those of a cluster.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let urls = self.url.expose().split(',').map(str::trim);
        urls.filter(|url| !url.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// `[durability]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Durability {
    pub holds: Acknowledged,
    pub joins: Acknowledged,
}

/// When something fast is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledged {
    /// As suits the stores.
    Auto,
    /// At once.
    Memory,
    /// After the checkpoint, or the commit if that comes first.
    Checkpoint,
    /// After the commit.
    Database,
}

/// `[auth]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Auth {
    pub secret: Secret,
    pub previous_secrets: Vec<Secret>,
    pub access_ttl_seconds: u32,
    pub refresh_ttl_seconds: u32,
    pub hashing_threads: u32,
    pub hashing_line_max: u32,
}

/// A text that never reaches a log.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub(super) String);

impl Secret {
    /// Keeps `text` secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "\"…\"" })
    }
}

/// `[wallet]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Wallet {
    pub top_up: TopUp,
}

/// How a wallet is charged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopUp {
    /// Points, at once.
    Free,
}

/// `[actors]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Actors {
    pub permits_max: u32,
    pub ask_timeout_ms: u32,
    pub account_idle_seconds: u32,
    pub timetable_idle_seconds: u32,
}

impl Actors {
    /// How long an actor's answer is waited for.
    #[must_use]
    pub fn ask_timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.ask_timeout_ms))
    }
}

/// `[queue]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Queue {
    pub places_max: u32,
    pub permits_max: u32,
    pub proof_of_work: ProofOfWork,
    pub human_check: HumanCheck,
}

/// `[queue.proof_of_work]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct ProofOfWork {
    pub enabled: bool,
    pub bits_min: u8,
    pub bits_max: u8,
    pub joins_per_second: u32,
    pub waiting: u32,
    pub ttl_seconds: u32,
    pub fresh_seconds: u32,
}

/// `[queue.human_check]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct HumanCheck {
    pub url: String,
    pub secret: Secret,
    pub timeout_ms: u32,
    pub concurrency_max: u32,
    pub on_outage: OnOutage,
}

impl HumanCheck {
    /// `timeout_ms`.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }
}

/// What becomes of who can't be checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnOutage {
    /// They get in.
    Admit,
    /// They don't.
    Refuse,
}

/// `[rates]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Rates {
    pub holds_per_second: u32,
    pub holds_burst: u32,
    pub queue_per_second: u32,
    pub queue_burst: u32,
    pub failed_sign_ins_max: u32,
    pub failed_sign_ins_window_seconds: u32,
}

/// `[telemetry]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Telemetry {
    pub metrics: bool,
    pub otlp_url: String,
    pub trace_sample: f64,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

/// What a line of the log looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// To read in a terminal.
    Text,
    /// One object a line.
    Json,
}

/// The administrator that is made at start.
#[derive(Clone, Debug, Default)]
pub struct Admin {
    /// `ONSALE_ADMIN_EMAIL`
    pub email: Option<String>,
    /// `ONSALE_ADMIN_PASSWORD`
    pub password: Option<Secret>,
}
