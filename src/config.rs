//! The settings of the program: what they are, where they come from and what
//! is allowed.
//!
//! The defaults are `config.toml`, documented there line by line and compiled
//! in. A file and then the environment (`ONSALE_SECTION__KEY`) change them.
//! Every value is checked against `RULES` before anything starts, so that the
//! rest of the program never meets a setting that it can't use.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{FileFormat, Source as _, Value, ValueKind};
use serde::Deserialize;

use crate::domain::decision::Tier;

#[path = "config_rules.rs"]
mod rules;
use rules::RULES;

/// The defaults, as text.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// The file that is read where none is named, if it exists.
pub const DEFAULT_FILE: &str = "config.toml";

const ENV_PREFIX: &str = "ONSALE_";
/// How many write lanes Postgres gets where none are named.
const POSTGRES_LANES: usize = 4;
/// Below so many characters a secret can be guessed.
const SECRET_CHARS_ADVISED: usize = 32;

/// All settings. See `config.toml` for what each one means.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Config {
    pub http: Http,
    pub ops: Ops,
    pub node: Node,
    pub store: Store,
    pub kafka: Kafka,
    pub redis: Redis,
    pub durability: Durability,
    pub auth: Auth,
    pub wallet: Wallet,
    pub actors: Actors,
    pub rates: Rates,
    pub log: Log,
    /// From `ONSALE_ADMIN_EMAIL` and `ONSALE_ADMIN_PASSWORD` alone.
    #[serde(skip)]
    pub admin: Admin,
}

/// `[http]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Http {
    pub listen: String,
    pub cors_origins: Vec<String>,
    pub request_timeout_seconds: u32,
    pub body_timeout_seconds: u32,
    pub connections_max: u32,
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

    /// How many write lanes there are: `lanes`, or what suits the store.
    #[must_use]
    pub fn lanes(&self) -> usize {
        match self.lanes {
            0 if self.is_server() => POSTGRES_LANES,
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
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Durability {
    pub holds: Holds,
}

/// When a hold is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
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
pub struct Secret(String);

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

/// `[rates]`
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Rates {
    pub holds_per_second: u32,
    pub holds_burst: u32,
    pub failed_sign_ins_max: u32,
    pub failed_sign_ins_window_seconds: u32,
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

/// Why the program can't start with these settings, in one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named, or that exists, can't be used.
    #[error("{file}: {why}")]
    File {
        /// Its path.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// A key of the file is no setting.
    #[error("{file}: unknown key {key}; allowed here: {allowed}")]
    UnknownKey {
        /// The path of the file.
        file: String,
        /// The key, with its section.
        key: String,
        /// What is known in this place.
        allowed: String,
    },
    /// A value is none that the setting can have.
    #[error("{key} = {value}: allowed is {allowed} (set by {origin})")]
    Value {
        /// The key, with its section.
        key: String,
        /// The value; hidden where it is secret.
        value: String,
        /// What it may be.
        allowed: String,
        /// The file or the variable that it came from.
        origin: String,
    },
    /// Settings that are each allowed, but not together.
    #[error("{key} = {value}: allowed is {allowed}")]
    Together {
        /// The key, with its section.
        key: &'static str,
        /// The value.
        value: String,
        /// What it may be, and why.
        allowed: &'static str,
    },
}

impl Default for Config {
    /// The settings of `config.toml`.
    #[allow(clippy::expect_used)] // The text is compiled in; a test reads it.
    fn default() -> Self {
        Self::assemble(None, std::iter::empty())
            .expect("the compiled-in defaults are valid")
            .0
    }
}

impl Config {
    /// The defaults, changed by `file` (or by `./config.toml` if there is one)
    /// and then by the environment. Also returns warnings, each a line.
    ///
    /// # Errors
    /// An unreadable file, an unknown key in it, or a value that is not
    /// allowed.
    pub fn load(file: Option<&Path>) -> Result<(Self, Vec<String>), ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let file = file.or_else(|| default.exists().then_some(default));
        Self::load_with(file, std::env::vars_os())
    }

    /// [`Config::load`] with this file and this environment, and no other.
    ///
    /// # Errors
    /// Those of [`Config::load`].
    pub fn load_with(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let text = match file {
            None => None,
            Some(path) => Some((
                path.display().to_string(),
                std::fs::read_to_string(path).map_err(|error| ConfigError::File {
                    file: path.display().to_string(),
                    why: error.to_string(),
                })?,
            )),
        };
        let env = env.into_iter().filter_map(|(name, value)| {
            let name = name
                .into_string()
                .ok()
                .filter(|name| name.starts_with(ENV_PREFIX))?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        Self::assemble(
            text.as_ref()
                .map(|(name, text)| (name.as_str(), text.as_str())),
            env,
        )
    }

    fn assemble(
        file: Option<(&str, &str)>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let mut warnings = Vec::new();
        let mut admin = Admin::default();
        // Later ones win.
        let mut settings = keys_of("the defaults", DEFAULTS)?;
        if let Some((name, text)) = file {
            for setting in keys_of(name, text)? {
                if !RULES.iter().any(|(key, _)| *key == setting.key) {
                    return Err(unknown_key(name, setting.key));
                }
                settings.push(setting);
            }
        }
        for (name, value) in env {
            match name.strip_prefix(ENV_PREFIX).unwrap_or_default() {
                "ADMIN_EMAIL" => admin.email = Some(value).filter(|email| !email.is_empty()),
                "ADMIN_PASSWORD" => {
                    admin.password = Some(Secret(value)).filter(|password| !password.is_empty());
                }
                "LOG" => settings.push(Setting {
                    key: "log.filter".into(),
                    value: value.into(),
                    origin: name,
                }),
                rest => {
                    let key = rest.to_lowercase().replace("__", ".");
                    if RULES.iter().any(|(known, _)| *known == key) {
                        settings.push(Setting {
                            key,
                            value: value.into(),
                            origin: name,
                        });
                    } else {
                        warnings.push(format!("unknown environment variable {name}: ignored"));
                    }
                }
            }
        }
        let mut builder = config::Config::builder();
        for setting in settings {
            let (key, value) = setting.checked()?;
            builder = builder.set_override(&key, value).map_err(impossible)?;
        }
        let mut config: Self = builder
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(impossible)?;
        config.admin = admin;
        config.check()?;
        warnings.extend(config.advice());
        Ok((config, warnings))
    }

    /// What single rules can't tell: settings that don't go together.
    fn check(&self) -> Result<(), ConfigError> {
        if self.store.lanes > 1 && self.store.url.starts_with("sqlite:") {
            return Err(ConfigError::Together {
                key: "store.lanes",
                value: self.store.lanes.to_string(),
                allowed: "0 or 1 on SQLite, which has one writer",
            });
        }
        if self.durability.holds == Holds::Memory && self.store.is_server() {
            return Err(ConfigError::Together {
                key: "durability.holds",
                value: "\"memory\"".to_owned(),
                allowed: "auto, checkpoint or database where several nodes may share the store",
            });
        }
        self.check_server()?;
        Ok(())
    }

    /// What Postgres needs, and what only it can have.
    fn check_server(&self) -> Result<(), ConfigError> {
        let store = &self.store;
        let together = |key, value: &str, allowed| {
            Err(ConfigError::Together {
                key,
                value: format!("{value:?}"),
                allowed,
            })
        };
        if !store.is_server() {
            return match (store.pooled, &*store.direct_url, &*store.replica_url) {
                (false, "", "") => Ok(()),
                (true, ..) => together("store.pooled", "true", "false on SQLite"),
                (_, "", url) => together("store.replica_url", url, "nothing on SQLite"),
                (_, url, _) => together("store.direct_url", url, "nothing on SQLite"),
            };
        }
        if store.pooled && store.direct_url.is_empty() {
            let allowed = "a url past PgBouncer, because store.pooled is true";
            return together("store.direct_url", "", allowed);
        }
        if self.auth.secret.expose().chars().count() < SECRET_CHARS_ADVISED {
            let allowed = "a text of at least 32 characters, the same on all nodes, on Postgres";
            return together("auth.secret", "…", allowed);
        }
        Ok(())
    }

    /// How durable a hold is when it is acknowledged.
    #[must_use]
    pub fn holds_tier(&self) -> Tier {
        match self.durability.holds {
            Holds::Auto if !self.store.is_server() => Tier::Memory,
            Holds::Auto if self.redis.url.is_empty() => Tier::Database,
            Holds::Auto | Holds::Checkpoint => Tier::Checkpoint,
            Holds::Memory => Tier::Memory,
            Holds::Database => Tier::Database,
        }
    }

    /// What is allowed but unwise.
    fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let secrets = std::iter::once(&self.auth.secret).chain(&self.auth.previous_secrets);
        for secret in secrets {
            if !secret.is_empty() && secret.expose().chars().count() < SECRET_CHARS_ADVISED {
                advice.push(format!(
                    "a secret of auth has fewer than {SECRET_CHARS_ADVISED} characters"
                ));
            }
        }
        if self.admin.email.is_some() && self.admin.password.is_none() {
            advice.push("ONSALE_ADMIN_EMAIL does nothing without ONSALE_ADMIN_PASSWORD".to_owned());
        }
        advice
    }
}

/// The rules let nothing through that the types refuse; if one did, this says
/// so in a line, too.
#[allow(clippy::needless_pass_by_value)]
fn impossible(error: config::ConfigError) -> ConfigError {
    ConfigError::File {
        file: "settings".to_owned(),
        why: error.to_string(),
    }
}

fn unknown_key(file: &str, key: String) -> ConfigError {
    let section = key
        .split_once('.')
        .map(|(section, _)| format!("{section}."));
    let mut allowed: Vec<&str> = RULES
        .iter()
        .filter_map(|(known, _)| {
            section
                .as_ref()
                .and_then(|section| known.strip_prefix(section.as_str()))
        })
        .collect();
    if allowed.is_empty() {
        allowed = RULES
            .iter()
            .filter_map(|(known, _)| known.split('.').next())
            .collect();
        allowed.dedup();
    }
    ConfigError::UnknownKey {
        file: file.to_owned(),
        key,
        allowed: allowed.join(", "),
    }
}

/// One key with the value that one source gives it.
struct Setting {
    key: String,
    value: Value,
    origin: String,
}

/// The keys of a TOML text, with their sections.
fn keys_of(file: &str, text: &str) -> Result<Vec<Setting>, ConfigError> {
    let table = config::File::from_str(text, FileFormat::Toml)
        .collect()
        .map_err(|error| {
            // A TOML error draws the line and a caret below it: keep its first line.
            let text = error.to_string();
            let lines: Vec<&str> = text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect();
            let why = match lines.as_slice() {
                [first, .., last] => format!("{first}: {last}"),
                _ => text,
            };
            ConfigError::File {
                file: file.to_owned(),
                why,
            }
        })?;
    let mut settings = Vec::new();
    for (section, value) in table {
        match value.kind {
            ValueKind::Table(keys) => {
                settings.extend(keys.into_iter().map(|(key, value)| Setting {
                    key: format!("{section}.{key}"),
                    value,
                    origin: file.to_owned(),
                }));
            }
            _ => settings.push(Setting {
                key: section,
                value,
                origin: file.to_owned(),
            }),
        }
    }
    Ok(settings)
}

impl Setting {
    /// The value in the type that the rule asks for.
    fn checked(self) -> Result<(String, Value), ConfigError> {
        let Some((_, rule)) = RULES.iter().find(|(key, _)| *key == self.key) else {
            return Err(unknown_key(&self.origin, self.key));
        };
        match rule.check(&self.value.kind) {
            Some(value) => Ok((self.key, Value::new(Some(&self.origin), value))),
            None => Err(ConfigError::Value {
                key: self.key,
                value: if rule.is_secret() {
                    "…".to_owned()
                } else {
                    shown(&self.value.kind)
                },
                allowed: rule.allowed(),
                origin: self.origin,
            }),
        }
    }
}

fn shown(value: &ValueKind) -> String {
    match value {
        ValueKind::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
