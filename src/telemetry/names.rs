//! The names of all metrics, with their kinds and what they mean. Units are
//! Prometheus' base units and stand last.

/// How the values of a metric move.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Only up, from 0 at the start of the process.
    Counter,
    /// Up and down.
    Gauge,
    /// Counted by size, in buckets.
    Histogram,
}

/// What is known of a metric beforehand.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How its values move.
    pub kind: Kind,
    /// What it tells, as Prometheus is told.
    pub help: &'static str,
}

/// One constant for each name and the table of all; the comment is the help.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $kind:ident $constant:ident = $name:literal;)+) => {
        $($(#[doc = $help])+ pub const $constant: &str = $name;)+
        /// All metrics.
        pub const ALL: &[Metric] = &[
            $(Metric { name: $name, kind: metrics!(@ $kind), help: concat!($($help),+) }),+
        ];
    };
    (@ counter) => { Kind::Counter };
    (@ gauge) => { Kind::Gauge };
    (@ histogram) => { Kind::Histogram };
}

metrics! {
    /// Messages that actors have handled, by `kind`.
    counter ACTOR_MESSAGES_TOTAL = "onsale_actor_messages_total";
    /// Time an actor took to handle a message, by `kind`.
    histogram ACTOR_HANDLING_SECONDS = "onsale_actor_handling_seconds";
    /// Messages that wait in mailboxes, by `kind`.
    gauge ACTOR_MAILBOX_MESSAGES = "onsale_actor_mailbox_messages";
    /// Actors that live, by `kind`.
    gauge ACTORS_LIVE = "onsale_actors_live";
    /// Actors that were discarded and loaded anew, by `kind`.
    counter ACTOR_RESTARTS_TOTAL = "onsale_actor_restarts_total";
    /// Entities whose gate stays broken, by `kind`.
    gauge ENTITIES_QUARANTINED = "onsale_entities_quarantined";
    /// Time a finished reply waited until it was as durable as its `tier`.
    histogram GATE_WAIT_SECONDS = "onsale_gate_wait_seconds";
    /// Time a write lane took for one batch, by `tier` and `lane`.
    histogram FLUSH_SECONDS = "onsale_flush_seconds";
    /// Rows that one batch of a write lane wrote, by `tier` and `lane`.
    histogram FLUSH_ROWS = "onsale_flush_rows";
    /// Batches of a write lane that failed, by `tier` and `class` of the error.
    counter FLUSH_FAILURES_TOTAL = "onsale_flush_failures_total";
    /// Changes that wait to be written.
    gauge DIRTY_BYTES = "onsale_dirty_bytes";
    /// Whether checkpoints can be used: 1, or 0.
    gauge CHECKPOINT_USABLE = "onsale_checkpoint_usable";
    /// Replies of tier checkpoint that waited for the database instead.
    counter CHECKPOINT_FALLBACKS_TOTAL = "onsale_checkpoint_fallbacks_total";
    /// Entities that were recovered although their checkpoint could not be read.
    counter CHECKPOINT_UNREAD_TOTAL = "onsale_checkpoint_unread_total";
    /// Events that wait to be published.
    gauge OUTBOX_EVENTS = "onsale_outbox_events";
    /// Age of the oldest event that waits to be published.
    gauge OUTBOX_AGE_SECONDS = "onsale_outbox_age_seconds";
    /// Events in Kafka that this node's part of a consumer group has not read, by
    /// `consumer` and `topic`.
    gauge CONSUMER_LAG_EVENTS = "onsale_consumer_lag_events";
    /// Events that were read from Kafka and wait for one before them, by `consumer`.
    gauge CONSUMER_WAITING_EVENTS = "onsale_consumer_waiting_events";
    /// Events that a consumer could not act on, by `topic`.
    counter DEAD_LETTERS_TOTAL = "onsale_dead_letters_total";
    /// Events behind a hole in the numbers of their entity: for an operator.
    gauge OUTBOX_BEHIND_EVENTS = "onsale_outbox_behind_events";
    /// Purchases and holds of which a waiting room could not be told.
    counter QUEUE_NOTICES_LOST_TOTAL = "onsale_queue_notices_lost_total";
    /// Attempts to hold seats, by `outcome`.
    counter HOLDS_TOTAL = "onsale_holds_total";
    /// Attempts to order, by `outcome`.
    counter ORDERS_TOTAL = "onsale_orders_total";
    /// People who wait, by `queue`: the busiest by their performances' ids, the
    /// others together.
    gauge QUEUE_WAITING = "onsale_queue_waiting";
    /// People inside, by `queue`.
    gauge QUEUE_ACTIVE = "onsale_queue_active";
    /// People who ever got a pass, by `queue`.
    gauge QUEUE_ADMITTED = "onsale_queue_admitted";
    /// People who left since their queue was loaded, by `queue`.
    gauge QUEUE_LEFT = "onsale_queue_left";
    /// People whose time ran out since their queue was loaded, by `queue`.
    gauge QUEUE_EXPIRED = "onsale_queue_expired";
    /// Live sockets of a waiting room on this node.
    gauge QUEUE_SOCKETS = "onsale_queue_sockets";
    /// Frames that were skipped for sockets that were too slow for them.
    gauge QUEUE_FRAMES_DROPPED = "onsale_queue_frames_dropped";
    /// People who enter a second, as measured, by `queue`.
    gauge QUEUE_ADMISSIONS_PER_SECOND = "onsale_queue_admissions_per_second";
    /// By how much entries came at another time than was told on joining, by
    /// `direction`.
    histogram QUEUE_ETA_ERROR_SECONDS = "onsale_queue_eta_error_seconds";
    /// Proofs of work that newcomers of waiting rooms were asked for or gave, by
    /// `outcome`.
    counter QUEUE_PROOFS_TOTAL = "onsale_queue_proofs_total";
    /// The difficulty of the proof of work that was asked for last.
    gauge QUEUE_PROOF_BITS = "onsale_queue_proof_bits";
    /// Checks whether who joins a waiting room is a person, by `outcome`;
    /// `failed-open` got in unchecked because the service was away.
    counter QUEUE_HUMAN_CHECKS_TOTAL = "onsale_queue_human_checks_total";
    /// Time that the service for these checks took to answer.
    histogram QUEUE_HUMAN_CHECK_SECONDS = "onsale_queue_human_check_seconds";
    /// Seats of all loaded timetables, by `status`.
    gauge SEATS = "onsale_seats";
    /// Requests that were refused for want of room, by `reason`.
    counter SHED_TOTAL = "onsale_shed_total";
    /// Answers, by `route`, `method` and `status`.
    counter HTTP_REQUESTS_TOTAL = "onsale_http_requests_total";
    /// Time from the headers of a request to those of its answer, by `route` and
    /// `method`.
    histogram HTTP_REQUEST_SECONDS = "onsale_http_request_seconds";
    /// Shards that this node owns.
    gauge SHARDS_OWNED = "onsale_shards_owned";
    /// How often this node has taken shards from one that had gone.
    counter TAKE_OVERS_TOTAL = "onsale_take_overs_total";
    /// How far the clock of this node may be off that of the database.
    gauge CLOCK_UNCERTAINTY_SECONDS = "onsale_clock_uncertainty_seconds";
    /// Broken invariants, by `id`: any but zero is an alarm.
    counter INVARIANT_VIOLATIONS_TOTAL = "onsale_invariant_violations_total";
}
