//! What each setting may be, so that the rest of the program never meets one
//! that it can't use.

use config::{Value, ValueKind};

/// What a setting may be.
pub(super) enum Rule {
    Integer {
        min: i64,
        max: i64,
    },
    /// A share, from 0 to 1.
    Share,
    Boolean,
    OneOf(&'static [&'static str]),
    Text {
        allowed: &'static str,
        is_allowed: fn(&str) -> bool,
    },
    Texts {
        allowed: &'static str,
        is_allowed: fn(&str) -> bool,
    },
    Secret,
    SecretText {
        allowed: &'static str,
        is_allowed: fn(&str) -> bool,
    },
    Secrets,
}

const SECONDS_A_DAY: i64 = 86_400;
const SECONDS_A_YEAR: i64 = 365 * SECONDS_A_DAY;

const POSTGRES_OR_NOTHING: Rule = Rule::Text {
    allowed: "postgres://USER:PASSWORD@HOST:PORT/DATABASE, or nothing",
    is_allowed: |text| text.is_empty() || is_postgres_url(text),
};

const fn from_to(min: i64, max: i64) -> Rule {
    Rule::Integer { min, max }
}

/// Every key and what it may be; a test checks that these are the keys of
/// `config.toml`.
pub(super) const RULES: &[(&str, Rule)] = &[
    (
        "http.listen",
        Rule::Text {
            allowed: "an address and a port, as 127.0.0.1:8080",
            is_allowed: is_address,
        },
    ),
    (
        "http.cors_origins",
        Rule::Texts {
            allowed: "origins as https://tickets.example, or *",
            is_allowed: is_origin,
        },
    ),
    ("http.request_timeout_seconds", from_to(1, 3_600)),
    ("http.body_timeout_seconds", from_to(1, 3_600)),
    ("http.connections_max", from_to(1, 1_000_000)),
    ("http.sockets_max", from_to(1, 1_000_000)),
    ("http.sockets_per_user_max", from_to(1, 10_000)),
    (
        "ops.listen",
        Rule::Text {
            allowed: "an address and a port, as 127.0.0.1:9090, or nothing",
            is_allowed: |text| text.is_empty() || is_address(text),
        },
    ),
    (
        "node.data_dir",
        Rule::Text {
            allowed: "a folder",
            is_allowed: |text| !text.is_empty(),
        },
    ),
    (
        "node.id",
        Rule::Text {
            allowed: "up to 40 letters, digits, dots, dashes and underscores, or nothing",
            is_allowed: is_node_id,
        },
    ),
    (
        "node.internal_listen",
        Rule::Text {
            allowed: "an address and a port, as 10.0.0.7:7400, or nothing",
            is_allowed: |text| text.is_empty() || is_address(text),
        },
    ),
    (
        "node.address",
        Rule::Text {
            allowed: "an address and a port, as 10.0.0.7:7400, or nothing",
            is_allowed: |text| text.is_empty() || is_address(text),
        },
    ),
    (
        "store.url",
        Rule::Text {
            allowed: "sqlite://PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE",
            is_allowed: is_store_url,
        },
    ),
    ("store.pooled", Rule::Boolean),
    ("store.direct_url", POSTGRES_OR_NOTHING),
    ("store.replica_url", POSTGRES_OR_NOTHING),
    ("store.migrate", Rule::Boolean),
    ("store.readers", from_to(1, 256)),
    ("store.lanes", from_to(0, 64)),
    ("store.dirty_bytes_max", from_to(1 << 20, 1 << 40)),
    ("store.batch_rows_max", from_to(1, 10_000)),
    (
        "kafka.brokers",
        Rule::Texts {
            allowed: "addresses with a port, as broker-1:9092",
            is_allowed: is_address,
        },
    ),
    (
        "kafka.prefix",
        Rule::Text {
            allowed: "up to 100 letters, digits, dots, dashes and underscores, or nothing",
            is_allowed: is_topic_prefix,
        },
    ),
    ("kafka.partitions", from_to(1, 1_000)),
    ("kafka.replication", from_to(0, 16)),
    (
        "redis.url",
        Rule::SecretText {
            allowed: "redis://HOST:PORT, several with commas for a cluster, or nothing",
            is_allowed: is_redis_url,
        },
    ),
    (
        "redis.prefix",
        Rule::Text {
            allowed: "1 to 32 of a-z, 0-9, - and _",
            is_allowed: is_prefix,
        },
    ),
    (
        "durability.holds",
        Rule::OneOf(&["auto", "memory", "checkpoint", "database"]),
    ),
    (
        "durability.joins",
        Rule::OneOf(&["auto", "memory", "checkpoint", "database"]),
    ),
    ("auth.secret", Rule::Secret),
    ("auth.previous_secrets", Rule::Secrets),
    ("auth.access_ttl_seconds", from_to(1, SECONDS_A_DAY)),
    ("auth.refresh_ttl_seconds", from_to(1, SECONDS_A_YEAR)),
    ("auth.hashing_threads", from_to(0, 1_024)),
    ("auth.hashing_line_max", from_to(1, 1_000_000)),
    ("wallet.top_up", Rule::OneOf(&["free"])),
    ("actors.permits_max", from_to(1, 1_000_000)),
    ("actors.ask_timeout_ms", from_to(1, 600_000)),
    ("actors.account_idle_seconds", from_to(1, SECONDS_A_DAY)),
    ("actors.timetable_idle_seconds", from_to(1, SECONDS_A_DAY)),
    ("queue.places_max", from_to(1, 100_000_000)),
    ("queue.permits_max", from_to(1, 1_000_000)),
    ("queue.proof_of_work.enabled", Rule::Boolean),
    ("queue.proof_of_work.bits_min", from_to(1, 32)),
    ("queue.proof_of_work.bits_max", from_to(1, 32)),
    (
        "queue.proof_of_work.joins_per_second",
        from_to(1, 1_000_000_000),
    ),
    ("queue.proof_of_work.waiting", from_to(1, 1_000_000_000)),
    ("queue.proof_of_work.ttl_seconds", from_to(1, 3_600)),
    ("queue.proof_of_work.fresh_seconds", from_to(0, 3_600)),
    (
        "queue.human_check.url",
        Rule::Text {
            allowed: "http://HOST/PATH or https://HOST/PATH, or nothing",
            is_allowed: |text| text.is_empty() || is_http_url(text),
        },
    ),
    ("queue.human_check.secret", Rule::Secret),
    ("queue.human_check.timeout_ms", from_to(1, 10_000)),
    ("queue.human_check.concurrency_max", from_to(1, 10_000)),
    (
        "queue.human_check.on_outage",
        Rule::OneOf(&["admit", "refuse"]),
    ),
    ("rates.holds_per_second", from_to(1, 1_000_000)),
    ("rates.holds_burst", from_to(1, 1_000_000)),
    ("rates.queue_per_second", from_to(1, 1_000_000)),
    ("rates.queue_burst", from_to(1, 1_000_000)),
    ("rates.failed_sign_ins_max", from_to(1, 1_000_000)),
    (
        "rates.failed_sign_ins_window_seconds",
        from_to(1, SECONDS_A_DAY),
    ),
    ("telemetry.metrics", Rule::Boolean),
    (
        "telemetry.otlp_url",
        Rule::Text {
            allowed: "http://HOST:PORT, or nothing",
            is_allowed: is_collector_url,
        },
    ),
    ("telemetry.trace_sample", Rule::Share),
    ("log.format", Rule::OneOf(&["text", "json"])),
    (
        "log.filter",
        Rule::Text {
            allowed: "a level, or target=level pairs, as info,onsale=debug",
            is_allowed: is_filter,
        },
    ),
];

fn is_node_id(text: &str) -> bool {
    text.len() <= 40
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(' ') && port.parse::<u16>().is_ok()
    })
}

fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    text == "*"
        || host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ', '?', '#', '@']))
}

fn is_http_url(text: &str) -> bool {
    let is_web = text.starts_with("http://") || text.starts_with("https://");
    let uri = text.parse::<axum::http::Uri>();
    is_web && uri.is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()))
}

/// There is no TLS in the client: a collector beside the server is meant.
fn is_collector_url(text: &str) -> bool {
    text.is_empty() || (text.starts_with("http://") && is_http_url(text))
}

fn is_store_url(text: &str) -> bool {
    text.strip_prefix("sqlite:")
        .is_some_and(|path| !path.trim_start_matches('/').is_empty())
        || is_postgres_url(text)
}

fn is_postgres_url(text: &str) -> bool {
    let is_one = text.starts_with("postgres://") || text.starts_with("postgresql://");
    is_one && text.parse::<sqlx::postgres::PgConnectOptions>().is_ok()
}

fn is_topic_prefix(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    text.len() <= 100 && text.chars().all(allowed)
}

fn is_redis_url(text: &str) -> bool {
    let mut urls = text.split(',').map(str::trim);
    text.is_empty()
        || urls.all(|url| {
            let rest = url.strip_prefix("redis://");
            rest.is_some_and(|rest| is_address(rest.rsplit('@').next().unwrap_or_default()))
        })
}

fn is_prefix(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    (1..=32).contains(&text.len()) && text.chars().all(is_allowed)
}

fn is_filter(text: &str) -> bool {
    text.parse::<tracing_subscriber::EnvFilter>().is_ok()
}

impl Rule {
    pub(super) fn check(&self, value: &ValueKind) -> Option<ValueKind> {
        match self {
            Self::Integer { min, max } => {
                let number = match value {
                    ValueKind::I64(number) => *number,
                    ValueKind::String(text) => text.trim().parse().ok()?,
                    _ => return None,
                };
                (*min..=*max)
                    .contains(&number)
                    .then_some(ValueKind::I64(number))
            }
            Self::Share => {
                let number = match value {
                    ValueKind::Float(number) => *number,
                    #[allow(clippy::cast_precision_loss, reason = "0 or 1, or refused")]
                    ValueKind::I64(number) => *number as f64,
                    ValueKind::String(text) => text.trim().parse().ok()?,
                    _ => return None,
                };
                (0.0..=1.0)
                    .contains(&number)
                    .then_some(ValueKind::Float(number))
            }
            Self::Boolean => match value {
                ValueKind::Boolean(truth) => Some(ValueKind::Boolean(*truth)),
                ValueKind::String(text) => text.trim().parse().ok().map(ValueKind::Boolean),
                _ => None,
            },
            Self::OneOf(names) => text_of(value)
                .filter(|text| names.contains(text))
                .map(owned),
            Self::Text { is_allowed, .. } | Self::SecretText { is_allowed, .. } => {
                text_of(value).filter(|text| is_allowed(text)).map(owned)
            }
            Self::Texts { is_allowed, .. } => list_of(value, is_allowed),
            Self::Secret => text_of(value).map(owned),
            Self::Secrets => list_of(value, &|_| true),
        }
    }

    pub(super) fn allowed(&self) -> String {
        match self {
            Self::Integer { min, max } if min == max => format!("{min}"),
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Share => "a number from 0 to 1".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::OneOf(names) => names.join(", "),
            Self::Text { allowed, .. } | Self::SecretText { allowed, .. } => (*allowed).to_owned(),
            Self::Texts { allowed, .. } => format!("a list of {allowed}"),
            Self::Secret => "a text".to_owned(),
            Self::Secrets => "a list of texts".to_owned(),
        }
    }

    pub(super) fn is_secret(&self) -> bool {
        matches!(self, Self::Secret | Self::SecretText { .. } | Self::Secrets)
    }
}

fn text_of(value: &ValueKind) -> Option<&str> {
    match value {
        ValueKind::String(text) => Some(text),
        _ => None,
    }
}

fn owned(text: &str) -> ValueKind {
    ValueKind::String(text.to_owned())
}

/// A list, or (from the environment) a text with commas.
fn list_of(value: &ValueKind, is_allowed: &dyn Fn(&str) -> bool) -> Option<ValueKind> {
    let items: Vec<&str> = match value {
        ValueKind::String(text) => text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .collect(),
        ValueKind::Array(items) => items
            .iter()
            .map(|item| text_of(&item.kind))
            .collect::<Option<_>>()?,
        _ => return None,
    };
    let all = items.iter().all(|item| is_allowed(item));
    all.then(|| ValueKind::Array(items.into_iter().map(Value::from).collect()))
}
