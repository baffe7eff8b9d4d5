//! Logs and metrics.
//!
//! All metric names are here, unit last. What is counted on a hot path is
//! counted through a struct of handles that is made once: looking a metric up by
//! its name and labels costs more than the counting.

mod queue;

use std::sync::OnceLock;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

pub use self::queue::{QueueMetrics, SocketMetrics, eta_error};
use crate::config::{Log, LogFormat};
use crate::domain::time::Timestamp;

/// Messages that actors have handled, by `kind`.
pub const ACTOR_MESSAGES_TOTAL: &str = "onsale_actor_messages_total";
/// Time an actor took to handle a message, by `kind`.
pub const ACTOR_HANDLING_SECONDS: &str = "onsale_actor_handling_seconds";
/// Messages that wait in mailboxes, by `kind`.
pub const ACTOR_MAILBOX_MESSAGES: &str = "onsale_actor_mailbox_messages";
/// Actors that live, by `kind`.
pub const ACTORS_LIVE: &str = "onsale_actors_live";
/// Actors that were discarded and loaded anew, by `kind`.
pub const ACTOR_RESTARTS_TOTAL: &str = "onsale_actor_restarts_total";
/// Entities whose gate stays broken, by `kind`.
pub const ENTITIES_QUARANTINED: &str = "onsale_entities_quarantined";
/// Time a finished reply waited until it was as durable as its `tier`.
pub const GATE_WAIT_SECONDS: &str = "onsale_gate_wait_seconds";
/// Time a write lane took for one batch, by `tier` and `lane`.
pub const FLUSH_SECONDS: &str = "onsale_flush_seconds";
/// Rows that one batch of a write lane wrote, by `tier` and `lane`.
pub const FLUSH_ROWS: &str = "onsale_flush_rows";
/// Batches of a write lane that failed, by `tier` and `class` of the error.
pub const FLUSH_FAILURES_TOTAL: &str = "onsale_flush_failures_total";
/// Changes that wait to be written.
pub const DIRTY_BYTES: &str = "onsale_dirty_bytes";
/// Whether checkpoints can be used: 1, or 0.
pub const CHECKPOINT_USABLE: &str = "onsale_checkpoint_usable";
/// Replies of tier checkpoint that waited for the database instead.
pub const CHECKPOINT_FALLBACKS_TOTAL: &str = "onsale_checkpoint_fallbacks_total";
/// Entities that were recovered although their checkpoint could not be read.
pub const CHECKPOINT_UNREAD_TOTAL: &str = "onsale_checkpoint_unread_total";
/// Events that wait to be published.
pub const OUTBOX_EVENTS: &str = "onsale_outbox_events";
/// Age of the oldest event that waits to be published.
pub const OUTBOX_AGE_SECONDS: &str = "onsale_outbox_age_seconds";
/// Events in Kafka that this node's part of a consumer group has not read, by
/// `consumer` and `topic`.
pub const CONSUMER_LAG_EVENTS: &str = "onsale_consumer_lag_events";
/// Events that were read from Kafka and wait for one before them, by `consumer`.
pub const CONSUMER_WAITING_EVENTS: &str = "onsale_consumer_waiting_events";
/// Events that a consumer could not act on, by `topic`.
pub const DEAD_LETTERS_TOTAL: &str = "onsale_dead_letters_total";
/// Events behind a hole in the numbers of their entity: for an operator.
pub const OUTBOX_BEHIND_EVENTS: &str = "onsale_outbox_behind_events";
/// Purchases and holds of which a waiting room could not be told.
pub const QUEUE_NOTICES_LOST_TOTAL: &str = "onsale_queue_notices_lost_total";
/// Attempts to hold seats, by `outcome`.
pub const HOLDS_TOTAL: &str = "onsale_holds_total";
/// Attempts to order, by `outcome`.
pub const ORDERS_TOTAL: &str = "onsale_orders_total";
/// People who wait, by `queue`: the busiest by their performances' ids, the
/// others together.
pub const QUEUE_WAITING: &str = "onsale_queue_waiting";
/// People inside, by `queue`.
pub const QUEUE_ACTIVE: &str = "onsale_queue_active";
/// People who ever got a pass, by `queue`.
pub const QUEUE_ADMITTED: &str = "onsale_queue_admitted";
/// People who left since their queue was loaded, by `queue`.
pub const QUEUE_LEFT: &str = "onsale_queue_left";
/// People whose time ran out since their queue was loaded, by `queue`.
pub const QUEUE_EXPIRED: &str = "onsale_queue_expired";
/// Live sockets of a waiting room on this node.
pub const QUEUE_SOCKETS: &str = "onsale_queue_sockets";
/// Frames that were skipped for sockets that were too slow for them.
pub const QUEUE_FRAMES_DROPPED: &str = "onsale_queue_frames_dropped";
/// People who enter a second, as measured, by `queue`.
pub const QUEUE_ADMISSIONS_PER_SECOND: &str = "onsale_queue_admissions_per_second";
/// By how much entries came at another time than was told on joining, by
/// `direction`.
pub const QUEUE_ETA_ERROR_SECONDS: &str = "onsale_queue_eta_error_seconds";
/// Seats of all loaded timetables, by `status`.
pub const SEATS: &str = "onsale_seats";
/// Requests that were refused for want of room, by `reason`.
pub const SHED_TOTAL: &str = "onsale_shed_total";
/// Answers, by `route`, `method` and `status`.
pub const HTTP_REQUESTS_TOTAL: &str = "onsale_http_requests_total";
/// Time from the headers of a request to those of its answer, by `route` and
/// `method`.
pub const HTTP_REQUEST_SECONDS: &str = "onsale_http_request_seconds";
/// Shards that this node owns.
pub const SHARDS_OWNED: &str = "onsale_shards_owned";
/// How often this node has taken shards from one that had gone.
pub const TAKE_OVERS_TOTAL: &str = "onsale_take_overs_total";
/// How far the clock of this node may be off that of the database.
pub const CLOCK_UNCERTAINTY_SECONDS: &str = "onsale_clock_uncertainty_seconds";
/// Broken invariants, by `id`: any but zero is an alarm.
pub const INVARIANT_VIOLATIONS_TOTAL: &str = "onsale_invariant_violations_total";

/// Upper bounds of the buckets of everything that ends in `_seconds`: from a
/// decision in memory (1 µs) to the longest request (15 s).
const SECONDS_BUCKETS: &[f64] = &[
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
];
/// Upper bounds of the buckets of the error of a forecast: up to an hour.
const ETA_BUCKETS: &[f64] = &[
    0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0,
];
/// Upper bounds of the buckets of everything that ends in `_rows`.
const ROWS_BUCKETS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0,
];

/// How often recorded times are folded into their buckets, in seconds. Until
/// then each takes 8 bytes.
const UPKEEP_SECONDS: u64 = 2;

/// The recorder of this process, installed at the first call. `None` if another
/// one had been installed before.
pub fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER
        .get_or_init(|| match install_recorder() {
            Ok(handle) => Some(handle),
            Err(error) => {
                tracing::warn!(%error, "metrics are not collected");
                None
            }
        })
        .as_ref()
}

fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_rows".to_owned()), ROWS_BUCKETS)?
        .set_buckets_for_metric(
            Matcher::Full(QUEUE_ETA_ERROR_SECONDS.to_owned()),
            ETA_BUCKETS,
        )?
        .install_recorder()?;
    describe();
    let upkeep = handle.clone();
    // A thread rather than a task: it outlives any runtime, as the recorder does.
    let started = std::thread::Builder::new()
        .name("metrics-upkeep".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs(UPKEEP_SECONDS));
                upkeep.run_upkeep();
            }
        });
    if let Err(error) = started {
        tracing::warn!(%error, "metrics are folded only when they are read");
    }
    Ok(handle)
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!(ACTOR_MESSAGES_TOTAL, "Messages that actors have handled");
    describe_histogram!(
        ACTOR_HANDLING_SECONDS,
        "Time an actor took to handle a message"
    );
    describe_gauge!(ACTOR_MAILBOX_MESSAGES, "Messages that wait in mailboxes");
    describe_gauge!(ACTORS_LIVE, "Actors that live");
    describe_counter!(
        ACTOR_RESTARTS_TOTAL,
        "Actors that were discarded and loaded anew"
    );
    describe_gauge!(ENTITIES_QUARANTINED, "Entities whose gate stays broken");
    describe_histogram!(
        GATE_WAIT_SECONDS,
        "Time a finished reply waited until it was durable"
    );
    describe_histogram!(FLUSH_SECONDS, "Time a write lane took for one batch");
    describe_histogram!(
        FLUSH_ROWS,
        "Rows that one transaction of a write lane wrote"
    );
    describe_counter!(
        FLUSH_FAILURES_TOTAL,
        "Transactions of a write lane that failed"
    );
    describe_gauge!(DIRTY_BYTES, "Changes that wait to be written");
    describe_gauge!(SHARDS_OWNED, "Shards that this node owns");
    describe_counter!(
        TAKE_OVERS_TOTAL,
        "How often this node has taken shards from one that had gone"
    );
    describe_gauge!(
        CLOCK_UNCERTAINTY_SECONDS,
        "How far the clock may be off that of the database"
    );
    describe_gauge!(CHECKPOINT_USABLE, "Whether checkpoints can be used");
    describe_counter!(
        CHECKPOINT_FALLBACKS_TOTAL,
        "Replies of tier checkpoint that waited for the database instead"
    );
    describe_counter!(
        CHECKPOINT_UNREAD_TOTAL,
        "Entities recovered although their checkpoint could not be read"
    );
    describe_gauge!(OUTBOX_EVENTS, "Events that wait to be published");
    describe_gauge!(
        OUTBOX_AGE_SECONDS,
        "Age of the oldest event that waits to be published"
    );
    describe_gauge!(
        CONSUMER_LAG_EVENTS,
        "Events in Kafka that this node's consumers have not read"
    );
    describe_gauge!(
        CONSUMER_WAITING_EVENTS,
        "Events that were read from Kafka and wait for one before them"
    );
    describe_counter!(
        DEAD_LETTERS_TOTAL,
        "Events that a consumer could not act on"
    );
    describe_gauge!(
        OUTBOX_BEHIND_EVENTS,
        "Events that can't be published because of a hole in the numbers of their entity"
    );
    describe_counter!(
        QUEUE_NOTICES_LOST_TOTAL,
        "Purchases and holds of which a waiting room could not be told"
    );
    describe_counter!(HOLDS_TOTAL, "Attempts to hold seats");
    describe_counter!(ORDERS_TOTAL, "Attempts to order");
    describe_gauge!(QUEUE_WAITING, "People who wait");
    describe_gauge!(QUEUE_ACTIVE, "People inside");
    describe_gauge!(QUEUE_SOCKETS, "Live sockets of waiting rooms on this node");
    describe_gauge!(
        QUEUE_FRAMES_DROPPED,
        "Frames skipped for slow sockets since the first one came"
    );
    describe_gauge!(QUEUE_ADMITTED, "People who ever got a pass");
    describe_gauge!(QUEUE_LEFT, "People who left since their queue was loaded");
    describe_gauge!(
        QUEUE_EXPIRED,
        "People whose time ran out since their queue was loaded"
    );
    describe_gauge!(
        QUEUE_ADMISSIONS_PER_SECOND,
        "People who enter a second, as measured"
    );
    describe_histogram!(
        QUEUE_ETA_ERROR_SECONDS,
        "By how much entries came at another time than was told on joining"
    );
    describe_gauge!(SEATS, "Seats of all loaded timetables");
    describe_counter!(SHED_TOTAL, "Requests that were refused for want of room");
    describe_counter!(HTTP_REQUESTS_TOTAL, "Answers");
    describe_histogram!(
        HTTP_REQUEST_SECONDS,
        "Time from the headers of a request to those of its answer"
    );
    describe_counter!(
        INVARIANT_VIOLATIONS_TOTAL,
        "Broken invariants: any but zero is an alarm"
    );
}

/// What Prometheus is told.
#[must_use]
pub fn render() -> String {
    recorder().map(PrometheusHandle::render).unwrap_or_default()
}

/// Starts the log on stderr, and sends panics there. Later calls do nothing.
pub fn init(log: &Log) {
    // The configuration was checked; `info` is what the defaults say.
    let filter = log
        .filter
        .parse()
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            lines.with_ansi(ansi).try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    if started.is_ok() {
        log_panics();
    }
    recorder();
}

/// A panic is a line of the log like any other failure.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(panic.location = %location, panic.message = %message, "a task panicked");
    }));
}

/// What is measured of the actors of one kind.
#[derive(Clone, Debug)]
pub struct ActorMetrics {
    /// Messages handled.
    pub messages: Counter,
    /// Time to handle one, in seconds.
    pub handling_seconds: Histogram,
    /// Messages in the mailboxes.
    pub mailbox: Gauge,
    /// Actors that live.
    pub live: Gauge,
    /// Actors discarded and loaded anew.
    pub restarts: Counter,
    /// Entities whose gate stays broken.
    pub quarantined: Gauge,
}

impl ActorMetrics {
    /// Those of the actors of `kind`.
    #[must_use]
    pub fn for_kind(kind: &'static str) -> Self {
        recorder();
        Self {
            messages: counter!(ACTOR_MESSAGES_TOTAL, "kind" => kind),
            handling_seconds: histogram!(ACTOR_HANDLING_SECONDS, "kind" => kind),
            mailbox: gauge!(ACTOR_MAILBOX_MESSAGES, "kind" => kind),
            live: gauge!(ACTORS_LIVE, "kind" => kind),
            restarts: counter!(ACTOR_RESTARTS_TOTAL, "kind" => kind),
            quarantined: gauge!(ENTITIES_QUARANTINED, "kind" => kind),
        }
    }
}

/// How long replies waited in gates until `tier` had been reached.
pub fn gate_wait(tier: &'static str) -> Histogram {
    recorder();
    histogram!(GATE_WAIT_SECONDS, "tier" => tier)
}

/// What is measured of a write lane.
#[derive(Clone, Debug)]
pub struct FlushMetrics {
    tier: &'static str,
    seconds: Histogram,
    rows: Histogram,
}

impl FlushMetrics {
    /// Those of lane `number` of a tier.
    #[must_use]
    pub fn of_lane(tier: &'static str, number: usize) -> Self {
        recorder();
        let lane = number.to_string();
        Self {
            tier,
            seconds: histogram!(FLUSH_SECONDS, "tier" => tier, "lane" => lane.clone()),
            rows: histogram!(FLUSH_ROWS, "tier" => tier, "lane" => lane),
        }
    }

    /// A write of so many rows took so long.
    pub fn flushed(&self, took: Duration, rows: usize) {
        self.seconds.record(took.as_secs_f64());
        #[allow(clippy::cast_precision_loss, reason = "a metric")]
        self.rows.record(rows as f64);
    }

    /// Counts a failed write, by the class of its error.
    pub fn failed(&self, class: &'static str) {
        counter!(FLUSH_FAILURES_TOTAL, "tier" => self.tier, "class" => class).increment(1);
    }
}

/// Changes that wait to be written to the database, in bytes.
pub fn dirty_bytes(bytes: usize) {
    recorder();
    #[allow(clippy::cast_precision_loss, reason = "a metric")]
    gauge!(DIRTY_BYTES).set(bytes as f64);
}

/// Whether checkpoints can be used.
pub fn checkpoint_usable(usable: bool) {
    recorder();
    gauge!(CHECKPOINT_USABLE).set(if usable { 1.0 } else { 0.0 });
}

/// Counts a reply of tier checkpoint that waits for the database instead.
pub fn checkpoint_fallback() {
    counter!(CHECKPOINT_FALLBACKS_TOTAL).increment(1);
}

/// Counts an entity whose checkpoint could not be read.
pub fn recovered_without_checkpoint() {
    counter!(CHECKPOINT_UNREAD_TOTAL).increment(1);
}

/// How an attempt ended, counted by outcome. Outcomes are few and fixed:
/// `"ok"` or the code of a problem.
#[derive(Debug)]
pub struct Outcomes {
    name: &'static str,
    ok: Counter,
}

impl Outcomes {
    /// Those of holds.
    #[must_use]
    pub fn of_holds() -> Self {
        Self::new(HOLDS_TOTAL)
    }

    /// Those of orders.
    #[must_use]
    pub fn of_orders() -> Self {
        Self::new(ORDERS_TOTAL)
    }

    fn new(name: &'static str) -> Self {
        recorder();
        Self {
            name,
            ok: counter!(name, "outcome" => "ok"),
        }
    }

    /// Counts a success.
    pub fn ok(&self) {
        self.ok.increment(1);
    }

    /// Counts a refusal by its problem's code.
    pub fn refused(&self, code: &'static str) {
        counter!(self.name, "outcome" => code).increment(1);
    }
}

/// The seats of all loaded timetables by status. Not by timetable, of which
/// there may be any number.
#[derive(Clone, Debug)]
pub struct SeatMetrics {
    /// Seats anyone may hold.
    pub available: Gauge,
    /// Seats held.
    pub held: Gauge,
    /// Seats sold.
    pub sold: Gauge,
    /// Seats off sale.
    pub blocked: Gauge,
}

impl SeatMetrics {
    /// The gauges.
    #[must_use]
    pub fn new() -> Self {
        recorder();
        Self {
            available: gauge!(SEATS, "status" => "available"),
            held: gauge!(SEATS, "status" => "held"),
            sold: gauge!(SEATS, "status" => "sold"),
            blocked: gauge!(SEATS, "status" => "blocked"),
        }
    }
}

impl Default for SeatMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// What waits in the outbox, and since when.
#[allow(clippy::cast_precision_loss, reason = "a metric")]
pub fn outbox(events: u64, oldest: Option<Timestamp>, now: Timestamp) {
    let age_ms = oldest.map_or(0, |oldest| now.since(oldest).0.max(0));
    gauge!(OUTBOX_EVENTS).set(events as f64);
    gauge!(OUTBOX_AGE_SECONDS).set(age_ms as f64 / 1000.0);
}

/// An event died.
pub fn dead_letter(topic: &str) {
    counter!(DEAD_LETTERS_TOTAL, "topic" => topic.to_owned()).increment(1);
}

/// Counts a request that was refused for want of room.
pub fn shed(reason: &'static str) {
    counter!(SHED_TOTAL, "reason" => reason).increment(1);
}

/// Counts a broken invariant.
pub fn invariant_violated(id: &'static str) {
    counter!(INVARIANT_VIOLATIONS_TOTAL, "id" => id).increment(1);
}

/// Methods that have their own label; all others are "other".
const METHODS: [Method; 7] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
];
/// Statuses are counted by class (1xx to 5xx) and place within it.
const STATUS_CLASSES: usize = 5;
/// How many statuses of a class have a place; those in use are below x40.
const STATUSES_PER_CLASS: usize = 40;

/// What is measured of one endpoint: made when it answers for the first time,
/// afterwards found by index.
#[derive(Debug, Default)]
pub struct EndpointMetrics {
    by_method: [OnceLock<MethodMetrics>; METHODS.len() + 1],
}

#[derive(Debug)]
struct MethodMetrics {
    route: String,
    method: &'static str,
    seconds: Histogram,
    by_status: Box<[OnceLock<Counter>]>,
}

impl EndpointMetrics {
    /// Counts an answer. `route` is the pattern of the path, never the path.
    pub fn answered(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let index = METHODS
            .iter()
            .position(|known| known == method)
            .unwrap_or(METHODS.len());
        let Some(slot) = self.by_method.get(index) else {
            return;
        };
        let of_method = slot.get_or_init(|| MethodMetrics::new(route, index));
        of_method.seconds.record(took.as_secs_f64());
        let Some(slot) = status_index(status).and_then(|at| of_method.by_status.get(at)) else {
            return;
        };
        slot.get_or_init(|| of_method.counter(status)).increment(1);
    }
}

fn status_index(status: StatusCode) -> Option<usize> {
    let (class, place) = (
        usize::from(status.as_u16() / 100),
        usize::from(status.as_u16() % 100),
    );
    let has_place = (1..=STATUS_CLASSES).contains(&class) && place < STATUSES_PER_CLASS;
    has_place.then(|| (class - 1) * STATUSES_PER_CLASS + place)
}

impl MethodMetrics {
    fn new(route: &str, index: usize) -> Self {
        recorder();
        const NAMES: [&str; METHODS.len()] =
            ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
        let method = NAMES.get(index).copied().unwrap_or("other");
        Self {
            route: route.to_owned(),
            method,
            seconds: histogram!(HTTP_REQUEST_SECONDS, "route" => route.to_owned(), "method" => method),
            by_status: (0..STATUS_CLASSES * STATUSES_PER_CLASS)
                .map(|_| OnceLock::new())
                .collect(),
        }
    }

    fn counter(&self, status: StatusCode) -> Counter {
        counter!(
            HTTP_REQUESTS_TOTAL,
            "route" => self.route.clone(), "method" => self.method, "status" => status.as_u16().to_string(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_counted_can_be_read_and_the_recorder_is_installed_once() {
        assert!(recorder().is_some());
        assert!(recorder().is_some());
        ActorMetrics::for_kind("test-kind").messages.increment(3);
        gate_wait("test-tier").record(0.003);
        FlushMetrics::of_lane("test-tier", 3).flushed(Duration::from_millis(2), 100);
        Outcomes::of_holds().refused("seat-unavailable");
        let endpoint = EndpointMetrics::default();
        for _ in 0..2 {
            endpoint.answered(
                "/test/{id}",
                &Method::POST,
                StatusCode::CREATED,
                Duration::from_micros(7),
            );
        }
        let text = render();
        for line in [
            "onsale_actor_messages_total{kind=\"test-kind\"} 3",
            "onsale_gate_wait_seconds_bucket{tier=\"test-tier\",le=\"0.005\"} 1",
            "onsale_flush_rows_bucket{tier=\"test-tier\",lane=\"3\",le=\"128\"} 1",
            "onsale_holds_total{outcome=\"seat-unavailable\"}",
            "onsale_http_requests_total{route=\"/test/{id}\",method=\"POST\",status=\"201\"} 2",
            "onsale_http_request_seconds_count{route=\"/test/{id}\",method=\"POST\"} 2",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
