//! The settings of the program: what they are, where they come from and what
//! is allowed.
//!
//! The defaults are `config.toml`, documented there line by line and compiled
//! in. A file and then the environment (`ONSALE_SECTION__KEY`) change them.
//! Every value is checked against `RULES` before anything starts, so that the
//! rest of the program never meets a setting that it can't use.

use std::ffi::OsString;

use std::path::Path;

use config::{FileFormat, Source as _, Value, ValueKind};
use serde::Deserialize;

use crate::domain::decision::Tier;

#[path = "config_rules.rs"]
mod rules;
#[path = "config_sections.rs"]
mod sections;

pub use self::sections::{
    Acknowledged, Actors, Admin, Auth, Durability, Http, HumanCheck, Kafka, Log, LogFormat, Node,
    OnOutage, Ops, ProofOfWork, Queue, Rates, Redis, Secret, Store, Telemetry, TopUp, Wallet,
};
use rules::RULES;

/// The defaults, as text.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// The file that is read where none is named, if it exists.
pub const DEFAULT_FILE: &str = "config.toml";

const ENV_PREFIX: &str = "ONSALE_";
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
    pub queue: Queue,
    pub rates: Rates,
    pub telemetry: Telemetry,
    pub log: Log,
    /// From `ONSALE_ADMIN_EMAIL` and `ONSALE_ADMIN_PASSWORD` alone.
    #[serde(skip)]
    pub admin: Admin,
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
                #[cfg(feature = "sabotage")]
                "SABOTAGE" => warnings.push(crate::sabotage::warning()),
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
        let Durability { holds, joins } = self.durability;
        for (key, acknowledged) in [("durability.holds", holds), ("durability.joins", joins)] {
            if acknowledged == Acknowledged::Memory && self.store.is_server() {
                return Err(ConfigError::Together {
                    key,
                    value: "\"memory\"".to_owned(),
                    allowed: "auto, checkpoint or database where several nodes may share the store",
                });
            }
        }
        let proof = &self.queue.proof_of_work;
        if proof.bits_min > proof.bits_max {
            return Err(ConfigError::Together {
                key: "queue.proof_of_work.bits_min",
                value: proof.bits_min.to_string(),
                allowed: "at most queue.proof_of_work.bits_max",
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
        self.tier(self.durability.holds)
    }

    /// How durable a place in a waiting room is when it is acknowledged.
    #[must_use]
    pub fn joins_tier(&self) -> Tier {
        self.tier(self.durability.joins)
    }

    fn tier(&self, acknowledged: Acknowledged) -> Tier {
        use Acknowledged as A;
        match acknowledged {
            A::Auto if !self.store.is_server() => Tier::Memory,
            A::Auto if self.redis.url.is_empty() => Tier::Database,
            A::Auto | A::Checkpoint => Tier::Checkpoint,
            A::Memory => Tier::Memory,
            A::Database => Tier::Database,
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
    for (key, value) in table {
        flatten(file, key, value, &mut settings);
    }
    Ok(settings)
}

/// A value, or those of its section, which may have sections of its own.
fn flatten(file: &str, key: String, value: Value, into: &mut Vec<Setting>) {
    match value.kind {
        // A setting that was written as a table: its rule says so.
        ValueKind::Table(keys) if !RULES.iter().any(|(known, _)| *known == key) => {
            for (name, value) in keys {
                flatten(file, format!("{key}.{name}"), value, into);
            }
        }
        _ => into.push(Setting {
            key,
            value,
            origin: file.to_owned(),
        }),
    }
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
