//! What the operators' page draws, and from which metric each line is taken.

use super::exposition::Label;
use super::names::*;
use crate::domain::ids::EntityKind;

/// What the values of a series are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    /// A number of things.
    Count,
    /// Things a second.
    PerSecond,
    /// A time.
    Seconds,
    /// An amount of memory.
    Bytes,
    /// Processors that are busy.
    Cores,
}

impl Unit {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::PerSecond => "per_second",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Cores => "cores",
        }
    }
}

/// How a value is taken from the points of a metric.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Take {
    /// Their sum.
    Sum,
    /// Their sum, counted since the process began.
    Total,
    /// How much their sum grows a second.
    Rate,
    /// The value that this share of what came lately is below.
    Quantile(f64),
    /// The processor time of this process, finer than its metric, which counts
    /// whole seconds.
    ProcessorTime,
}

/// A line of the page.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) unit: Unit,
    pub(super) metric: &'static str,
    pub(super) labels: Vec<Label>,
    pub(super) take: Take,
}

impl Series {
    /// Whether its metric is exported by every server: what has not happened
    /// yet is 0 then, rather than unknown.
    pub(super) fn is_always(&self) -> bool {
        let mut known = ALL.iter();
        known.any(|known| known.name == self.metric && known.scope == Scope::Always)
    }
}

/// The tiers that something waits for.
const TIERS: [&str; 2] = ["checkpoint", "database"];

/// The median, what most are below, and what nearly all are below.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

const SEAT_STATUSES: [&str; 4] = ["available", "held", "sold", "blocked"];

/// All series.
pub(super) fn all() -> Vec<Series> {
    let mut all = Vec::new();
    traffic(&mut all);
    sales(&mut all);
    queues(&mut all);
    durability(&mut all);
    for kind in EntityKind::ALL {
        actors(&mut all, kind.as_str());
    }
    process(&mut all);
    all
}

fn add(
    all: &mut Vec<Series>,
    name: impl Into<String>,
    (unit, take): (Unit, Take),
    metric: &'static str,
    labels: &[Label],
) {
    all.push(Series {
        name: name.into(),
        unit,
        metric,
        labels: labels.to_vec(),
        take,
    });
}

fn add_quantiles(all: &mut Vec<Series>, name: &str, metric: &'static str, labels: &[Label]) {
    for (word, share) in QUANTILES {
        let taken = (Unit::Seconds, Take::Quantile(share));
        add(all, format!("{name}.{word}"), taken, metric, labels);
    }
}

const RATE: (Unit, Take) = (Unit::PerSecond, Take::Rate);
const GAUGE: (Unit, Take) = (Unit::Count, Take::Sum);
const TOTAL: (Unit, Take) = (Unit::Count, Take::Total);
const BYTES: (Unit, Take) = (Unit::Bytes, Take::Sum);
const SECONDS: (Unit, Take) = (Unit::Seconds, Take::Sum);

fn traffic(all: &mut Vec<Series>) {
    add(all, "http.requests", RATE, HTTP_REQUESTS_TOTAL, &[]);
    for (name, class) in [("client_errors", "4"), ("server_errors", "5")] {
        let of_class = [Label::Begins("status", class)];
        let name = format!("http.{name}");
        add(all, name, RATE, HTTP_REQUESTS_TOTAL, &of_class);
    }
    add_quantiles(all, "http", HTTP_REQUEST_SECONDS, &[]);
    add(all, "http.shed", RATE, SHED_TOTAL, &[]);
    add(all, "sockets", GAUGE, SOCKETS, &[]);
    add(all, "sockets.limit", GAUGE, SOCKETS_LIMIT, &[]);
}

fn sales(all: &mut Vec<Series>) {
    let (ok, refused) = (Label::Is("outcome", "ok"), Label::IsNot("outcome", "ok"));
    for (name, metric) in [
        ("holds", HOLDS_TOTAL),
        ("orders", ORDERS_TOTAL),
        ("claims", COUPON_CLAIMS_TOTAL),
    ] {
        add(all, format!("{name}.ok"), RATE, metric, &[ok]);
        add(all, format!("{name}.refused"), RATE, metric, &[refused]);
        add(all, format!("{name}.ok_total"), TOTAL, metric, &[ok]);
        let total = format!("{name}.refused_total");
        add(all, total, TOTAL, metric, &[refused]);
    }
    for status in SEAT_STATUSES {
        let of_status = [Label::Is("status", status)];
        add(all, format!("seats.{status}"), GAUGE, SEATS, &of_status);
    }
}

fn queues(all: &mut Vec<Series>) {
    add(all, "queues.waiting", GAUGE, QUEUE_WAITING_PEOPLE, &[]);
    add(all, "queues.active", GAUGE, QUEUE_ACTIVE_PEOPLE, &[]);
    add(all, "queues.admitted", RATE, QUEUE_ADMISSIONS_TOTAL, &[]);
    add(all, "queues.left", RATE, QUEUE_LEFT_TOTAL, &[]);
    add(all, "queues.expired", RATE, QUEUE_EXPIRED_TOTAL, &[]);
    add(all, "queues.sockets", GAUGE, QUEUE_SOCKETS, &[]);
}

fn durability(all: &mut Vec<Series>) {
    for tier in TIERS {
        let of_tier = [Label::Is("tier", tier)];
        add_quantiles(all, &format!("gate.{tier}"), GATE_WAIT_SECONDS, &of_tier);
        add_quantiles(all, &format!("flush.{tier}"), FLUSH_SECONDS, &of_tier);
        for (word, share) in QUANTILES {
            let taken = (Unit::Count, Take::Quantile(share));
            let name = format!("flush.{tier}.rows_{word}");
            add(all, name, taken, FLUSH_ROWS, &of_tier);
        }
        let name = format!("flush.{tier}.batches");
        add(all, name, RATE, FLUSH_ROWS_COUNT, &of_tier);
        let name = format!("flush.{tier}.failures_total");
        add(all, name, TOTAL, FLUSH_FAILURES_TOTAL, &of_tier);
    }
    add(all, "dirty.bytes", BYTES, DIRTY_BYTES, &[]);
    add(all, "dirty.limit", BYTES, DIRTY_LIMIT_BYTES, &[]);
    add(all, "dirty.age", SECONDS, DIRTY_AGE_SECONDS, &[]);
    add(all, "outbox.events", GAUGE, OUTBOX_EVENTS, &[]);
    add(all, "outbox.age", SECONDS, OUTBOX_AGE_SECONDS, &[]);
    add(all, "outbox.behind", GAUGE, OUTBOX_BEHIND_EVENTS, &[]);
    add(all, "consumers.lag", GAUGE, CONSUMER_LAG_EVENTS, &[]);
    add(
        all,
        "consumers.waiting",
        GAUGE,
        CONSUMER_WAITING_EVENTS,
        &[],
    );
    add(all, "dead_letters.total", TOTAL, DEAD_LETTERS_TOTAL, &[]);
    add(all, "shards.owned", GAUGE, OWNED_SHARDS, &[]);
    add(all, "lease.left", SECONDS, LEASE_REMAINING_SECONDS, &[]);
    let uncertainty = CLOCK_UNCERTAINTY_SECONDS;
    add(all, "clock.uncertainty", SECONDS, uncertainty, &[]);
    let violations = INVARIANT_VIOLATIONS_TOTAL;
    add(all, "invariants.broken_total", TOTAL, violations, &[]);
}

fn actors(all: &mut Vec<Series>, kind: &'static str) {
    let of_kind = [Label::Is("kind", kind)];
    let mut figure = |name: &str, taken, metric| {
        add(
            all,
            format!("actors.{kind}.{name}"),
            taken,
            metric,
            &of_kind,
        );
    };
    figure("live", GAUGE, ACTORS);
    figure("mailbox", GAUGE, ACTOR_MAILBOX_MESSAGES);
    figure("messages", RATE, ACTOR_MESSAGES_TOTAL);
    figure("messages_total", TOTAL, ACTOR_MESSAGES_TOTAL);
    figure("restarts_total", TOTAL, ACTOR_RESTARTS_TOTAL);
    figure("quarantined", GAUGE, QUARANTINED_ENTITIES);
    figure("permits", GAUGE, PERMITS_USED);
    figure("permits_fullest", GAUGE, PERMITS_USED_FULLEST);
    figure("permits_limit", GAUGE, PERMITS_LIMIT);
    let (name, metric) = (format!("actors.{kind}"), ACTOR_HANDLING_SECONDS);
    add_quantiles(all, &name, metric, &of_kind);
}

fn process(all: &mut Vec<Series>) {
    let cpu = (Unit::Cores, Take::ProcessorTime);
    add(all, "process.cpu", cpu, PROCESS_CPU_SECONDS_TOTAL, &[]);
    let memory = PROCESS_RESIDENT_MEMORY_BYTES;
    add(all, "process.memory", BYTES, memory, &[]);
    add(all, "process.files", GAUGE, PROCESS_OPEN_FDS, &[]);
    add(all, "process.files_limit", GAUGE, PROCESS_MAX_FDS, &[]);
    add(all, "process.threads", GAUGE, PROCESS_THREADS, &[]);
}

/// How many batches there were: the count of a histogram is a metric, too.
const FLUSH_ROWS_COUNT: &str = "onsale_flush_rows_count";
