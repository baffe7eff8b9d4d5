//! The names of all metrics, with what is known of them beforehand. Units are
//! Prometheus' base units and stand last; what is only counted up ends in
//! `_total`. `docs/metrics.md` tells operators the same, and a test holds it, this
//! table and what a server exports to each other.

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

impl Kind {
    /// As Prometheus calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Which servers export a metric.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// All.
    Always,
    /// Those that share a Postgres with others.
    Cluster,
    /// Those with a checkpoint store.
    Redis,
    /// Those whose events go over Kafka.
    Kafka,
    /// Those on which a waiting room has had people.
    Queues,
    /// Those on which a coupon was sold out.
    Coupons,
    /// Those that have asked a newcomer for a proof of work or a human check.
    Door,
}

/// What is known of a metric beforehand.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How its values move.
    pub kind: Kind,
    /// Its labels; the values of each are few.
    pub labels: &'static [&'static str],
    /// Who exports it.
    pub scope: Scope,
    /// What it tells, as Prometheus is told.
    pub help: &'static str,
}

/// One constant for each name and the table of all; the comment is the help.
macro_rules! metrics {
    ($(
        $(#[doc = $help:literal])+
        $scope:ident $kind:ident $constant:ident = $name:literal [$($label:ident),*];
    )+) => {
        $($(#[doc = $help])+ pub const $constant: &str = $name;)+
        /// All metrics.
        pub const ALL: &[Metric] = &[
            $(Metric {
                name: $name,
                kind: Kind::$kind,
                labels: &[$(stringify!($label)),*],
                scope: Scope::$scope,
                help: concat!($($help),+),
            }),+
        ];
    };
}

metrics! {
    /// Messages that actors have handled.
    Always Counter ACTOR_MESSAGES_TOTAL = "onsale_actor_messages_total" [kind];
    /// Time an actor took to handle a message.
    Always Histogram ACTOR_HANDLING_SECONDS = "onsale_actor_handling_seconds" [kind];
    /// Requests that wait in mailboxes.
    Always Gauge ACTOR_MAILBOX_MESSAGES = "onsale_actor_mailbox_messages" [kind];
    /// Actors that live.
    Always Gauge ACTORS = "onsale_actors" [kind];
    /// Entities (or, as kind host, whole actors) that were discarded and loaded anew.
    Always Counter ACTOR_RESTARTS_TOTAL = "onsale_actor_restarts_total" [kind];
    /// Entities that stay away until the process is started again.
    Always Gauge QUARANTINED_ENTITIES = "onsale_quarantined_entities" [kind];
    /// Requests under way at the actors of a kind.
    Always Gauge PERMITS_USED = "onsale_permits_used" [kind];
    /// Requests under way at the fullest actor of a kind.
    Always Gauge PERMITS_USED_FULLEST = "onsale_permits_used_fullest" [kind];
    /// Requests that may be under way at one actor.
    Always Gauge PERMITS_LIMIT = "onsale_permits_limit" [kind];
    /// Time a finished reply waited until it was as durable as it promises.
    Always Histogram GATE_WAIT_SECONDS = "onsale_gate_wait_seconds" [tier];
    /// Time a write lane took for one batch.
    Always Histogram FLUSH_SECONDS = "onsale_flush_seconds" [tier, lane];
    /// Rows that one batch of a write lane wrote.
    Always Histogram FLUSH_ROWS = "onsale_flush_rows" [tier, lane];
    /// Batches of a write lane that failed, by the class of the error.
    Always Counter FLUSH_FAILURES_TOTAL = "onsale_flush_failures_total" [tier, class];
    /// Writes that were refused because another life owns the entity.
    Always Counter FENCED_WRITES_TOTAL = "onsale_fenced_writes_total" [tier];
    /// Changes that wait to be written to the database.
    Always Gauge DIRTY_BYTES = "onsale_dirty_bytes" [];
    /// The most changes that may wait before new work is refused.
    Always Gauge DIRTY_LIMIT_BYTES = "onsale_dirty_limit_bytes" [];
    /// How long the oldest change has waited to be written to the database.
    Always Gauge DIRTY_AGE_SECONDS = "onsale_dirty_age_seconds" [];
    /// Whether the last write of every lane to the database succeeded: 1, or 0.
    Always Gauge STORE_USABLE = "onsale_store_usable" [];
    /// Whether checkpoints can be used: 1, or 0.
    Redis Gauge CHECKPOINT_USABLE = "onsale_checkpoint_usable" [];
    /// Replies of tier checkpoint that waited for the database instead.
    Always Counter CHECKPOINT_FALLBACKS_TOTAL = "onsale_checkpoint_fallbacks_total" [];
    /// Entities that were recovered although their checkpoint could not be read.
    Always Counter CHECKPOINT_UNREAD_TOTAL = "onsale_checkpoint_unread_total" [];
    /// Shards that this node owns.
    Always Gauge OWNED_SHARDS = "onsale_owned_shards" [];
    /// The highest epoch of the shards that this node owns.
    Always Gauge SHARD_EPOCH = "onsale_shard_epoch" [];
    /// Shards that this node has begun to own.
    Always Counter SHARDS_GAINED_TOTAL = "onsale_shards_gained_total" [];
    /// Shards that this node has ceased to own.
    Always Counter SHARDS_LOST_TOTAL = "onsale_shards_lost_total" [];
    /// How long this node may still acknowledge without renewing its lease; negative once it
    /// has run out.
    Cluster Gauge LEASE_REMAINING_SECONDS = "onsale_lease_remaining_seconds" [];
    /// Attempts to renew the lease that failed.
    Cluster Counter LEASE_RENEWAL_FAILURES_TOTAL = "onsale_lease_renewal_failures_total" [];
    /// How often this node has taken shards from one that had gone.
    Always Counter TAKE_OVERS_TOTAL = "onsale_take_overs_total" [];
    /// How far the clock of this node may be off that of the database.
    Cluster Gauge CLOCK_UNCERTAINTY_SECONDS = "onsale_clock_uncertainty_seconds" [];
    /// Events that wait to be published.
    Always Gauge OUTBOX_EVENTS = "onsale_outbox_events" [];
    /// Age of the oldest event that waits to be published.
    Always Gauge OUTBOX_AGE_SECONDS = "onsale_outbox_age_seconds" [];
    /// Events behind a hole in the numbers of their entity: for an operator.
    Always Gauge OUTBOX_BEHIND_EVENTS = "onsale_outbox_behind_events" [];
    /// Events in Kafka that this node's part of a consumer group has not read.
    Kafka Gauge CONSUMER_LAG_EVENTS = "onsale_consumer_lag_events" [consumer, topic];
    /// Events that were read from Kafka and wait for one before them.
    Kafka Gauge CONSUMER_WAITING_EVENTS = "onsale_consumer_waiting_events" [consumer];
    /// Events that a consumer could not act on.
    Always Counter DEAD_LETTERS_TOTAL = "onsale_dead_letters_total" [topic];
    /// Purchases and holds of which a waiting room could not be told.
    Always Counter QUEUE_NOTICES_LOST_TOTAL = "onsale_queue_notices_lost_total" [];
    /// Attempts to hold seats: ok, or the code of the problem.
    Always Counter HOLDS_TOTAL = "onsale_holds_total" [outcome];
    /// Attempts to order: ok, or the code of the problem.
    Always Counter ORDERS_TOTAL = "onsale_orders_total" [outcome];
    /// Attempts to cancel: ok, or the code of the problem.
    Always Counter CANCELS_TOTAL = "onsale_cancels_total" [outcome];
    /// Attempts to claim coupons: ok, or the code of the problem.
    Always Counter COUPON_CLAIMS_TOTAL = "onsale_coupon_claims_total" [outcome];
    /// What became of claims in orders: reserved, then used, or released with an order that
    /// came to nothing, or returned with one that was cancelled.
    Always Counter COUPON_USES_TOTAL = "onsale_coupon_uses_total" [step];
    /// Claims there are of a coupon on its node: the first 64 that were claimed here, the others
    /// together.
    Always Gauge COUPON_STOCK_CLAIMS = "onsale_coupon_stock_claims" [coupon];
    /// How many of them are left.
    Always Gauge COUPON_REMAINING_CLAIMS = "onsale_coupon_remaining_claims" [coupon];
    /// How long after its opening a coupon was sold out; no number once there are some left
    /// again, the least of all others.
    Coupons Gauge COUPON_SOLD_OUT_SECONDS = "onsale_coupon_sold_out_seconds" [coupon];
    /// Seats of all loaded timetables.
    Always Gauge SEATS = "onsale_seats" [status];
    /// People who wait: the first 64 queues by their performances' ids, the others together.
    Queues Gauge QUEUE_WAITING_PEOPLE = "onsale_queue_waiting_people" [queue];
    /// People inside.
    Queues Gauge QUEUE_ACTIVE_PEOPLE = "onsale_queue_active_people" [queue];
    /// People who got a pass.
    Queues Counter QUEUE_ADMISSIONS_TOTAL = "onsale_queue_admissions_total" [queue];
    /// People who left, waiting or inside.
    Queues Counter QUEUE_LEFT_TOTAL = "onsale_queue_left_total" [queue];
    /// People whose time ran out, waiting or inside.
    Queues Counter QUEUE_EXPIRED_TOTAL = "onsale_queue_expired_total" [queue];
    /// Whether somebody who waits could be let in: open, not paused, seats left: 1, or 0.
    Queues Gauge QUEUE_ADMITTING = "onsale_queue_admitting" [queue];
    /// By how much entries came at another time than was told on joining.
    Queues Histogram QUEUE_ETA_ERROR_SECONDS = "onsale_queue_eta_error_seconds" [direction];
    /// Proofs of work that newcomers of waiting rooms were asked for or gave.
    Door Counter QUEUE_PROOFS_TOTAL = "onsale_queue_proofs_total" [outcome];
    /// The difficulty of the proof of work that was asked for last.
    Door Gauge QUEUE_PROOF_BITS = "onsale_queue_proof_bits" [];
    /// Checks whether who joins a waiting room is a person; failed-open got in unchecked
    /// because the service was away.
    Door Counter QUEUE_HUMAN_CHECKS_TOTAL = "onsale_queue_human_checks_total" [outcome];
    /// Time that the service for these checks took to answer.
    Door Histogram QUEUE_HUMAN_CHECK_SECONDS = "onsale_queue_human_check_seconds" [];
    /// Live sockets of a waiting room on this node.
    Queues Gauge QUEUE_SOCKETS = "onsale_queue_sockets" [queue];
    /// Frames that were skipped for sockets that were too slow for them.
    Queues Counter QUEUE_FRAMES_DROPPED_TOTAL = "onsale_queue_frames_dropped_total" [queue];
    /// Answers.
    Always Counter HTTP_REQUESTS_TOTAL = "onsale_http_requests_total" [route, method, status];
    /// Time from the headers of a request to those of its answer.
    Always Histogram HTTP_REQUEST_SECONDS = "onsale_http_request_seconds" [route, method];
    /// Requests that were refused for want of room.
    Always Counter SHED_TOTAL = "onsale_shed_total" [reason];
    /// Live sockets on this node.
    Always Gauge SOCKETS = "onsale_sockets" [];
    /// Live sockets that this node takes.
    Always Gauge SOCKETS_LIMIT = "onsale_sockets_limit" [];
    /// Broken invariants: any but zero is an alarm.
    Always Counter INVARIANT_VIOLATIONS_TOTAL = "onsale_invariant_violations_total" [id];
    /// Whether this node can serve: 1, or 0.
    Always Gauge READY = "onsale_ready" [];
    /// Always 1: which program this is, and what it stands on.
    Always Gauge BUILD_INFO = "onsale_build_info" [version, store, checkpoints, bus];
    /// Processor time used.
    Always Counter PROCESS_CPU_SECONDS_TOTAL = "process_cpu_seconds_total" [];
    /// Memory in use.
    Always Gauge PROCESS_RESIDENT_MEMORY_BYTES = "process_resident_memory_bytes" [];
    /// Address space in use.
    Always Gauge PROCESS_VIRTUAL_MEMORY_BYTES = "process_virtual_memory_bytes" [];
    /// Open files, sockets included.
    Always Gauge PROCESS_OPEN_FDS = "process_open_fds" [];
    /// Files that may be open.
    Always Gauge PROCESS_MAX_FDS = "process_max_fds" [];
    /// Threads.
    Always Gauge PROCESS_THREADS = "process_threads" [];
    /// When the process began, in seconds since 1970.
    Always Gauge PROCESS_START_TIME_SECONDS = "process_start_time_seconds" [];
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_practice_of_prometheus() {
        let mut seen = HashSet::new();
        for Metric {
            name, kind, help, ..
        } in ALL
        {
            assert!(seen.insert(name), "{name} is there twice");
            let is_snake = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(is_snake), "{name}");
            assert!(
                name.starts_with("onsale_") || name.starts_with("process_"),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            for (scaled, base) in [
                ("milli", "seconds"),
                ("micro", "seconds"),
                ("kilo", "bytes"),
                ("kib", "bytes"),
            ] {
                assert!(!name.contains(scaled), "{name}: in {base}");
            }
            // A unit is the last word, but for that of a counter.
            let bare = name.strip_suffix("_total").unwrap_or(name);
            for unit in ["seconds", "bytes"] {
                let is_last = bare.ends_with(unit);
                assert!(
                    is_last || !bare.contains(unit),
                    "{name}: {unit} stands last"
                );
            }
            if *kind == Kind::Histogram {
                assert!(
                    name.ends_with("_seconds") || name.ends_with("_rows"),
                    "{name} has no buckets"
                );
            }
            assert!(
                help.trim().ends_with('.') && !help.contains("  "),
                "{name}: {help}"
            );
        }
    }
}
