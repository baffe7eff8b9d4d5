//! What is measured of waiting rooms.

use std::collections::HashMap;

use metrics::{Counter, Gauge, counter, gauge, histogram};

use super::names::*;
use super::recorder;
use crate::domain::ids::PerformanceId;
use crate::domain::queue::{Phase, Summary};

/// So many queues have figures of their own; what is measured can't be taken
/// back, so that they are the first ones of this process that had people.
const NAMED_MAX: usize = 64;

/// The figures of all others together.
const OTHERS: &str = "others";

/// What is told of one queue, or of several together.
#[derive(Debug)]
struct Told {
    waiting: Gauge,
    active: Gauge,
    admitting: Gauge,
    admitted: Counter,
    left: Counter,
    expired: Counter,
}

/// How a queue stands.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    waiting: u64,
    active: u64,
    admitting: bool,
}

/// What a queue has counted. `left` and `expired` begin again when it is loaded.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    admitted: u64,
    left: u64,
    expired: u64,
}

impl Told {
    fn of(queue: &str) -> Self {
        recorder();
        let queue = || queue.to_owned();
        Self {
            waiting: gauge!(QUEUE_WAITING_PEOPLE, "queue" => queue()),
            active: gauge!(QUEUE_ACTIVE_PEOPLE, "queue" => queue()),
            admitting: gauge!(QUEUE_ADMITTING, "queue" => queue()),
            admitted: counter!(QUEUE_ADMISSIONS_TOTAL, "queue" => queue()),
            left: counter!(QUEUE_LEFT_TOTAL, "queue" => queue()),
            expired: counter!(QUEUE_EXPIRED_TOTAL, "queue" => queue()),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "metrics")]
    fn set(&self, figures: Figures) {
        self.waiting.set(figures.waiting as f64);
        self.active.set(figures.active as f64);
        self.admitting.set(f64::from(u8::from(figures.admitting)));
    }

    fn add(&self, counts: Counts) {
        self.admitted.increment(counts.admitted);
        self.left.increment(counts.left);
        self.expired.increment(counts.expired);
    }
}

impl Figures {
    fn of(summary: &Summary) -> Self {
        Self {
            waiting: u64::from(summary.waiting),
            active: u64::from(summary.active),
            admitting: summary.phase == Phase::Open
                && !summary.paused
                && summary.seats.available > 0,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            waiting: self.waiting + other.waiting,
            active: self.active + other.active,
            admitting: self.admitting || other.admitting,
        }
    }

    fn has_people(self) -> bool {
        self.waiting + self.active > 0
    }
}

impl Counts {
    fn of(summary: &Summary) -> Self {
        Self {
            admitted: summary.admitted_total,
            left: summary.left,
            expired: summary.expired,
        }
    }

    /// What came since `before`.
    fn since(self, before: Self) -> Self {
        let of = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        Self {
            // Over all lives of the queue: it never begins again.
            admitted: self.admitted.saturating_sub(before.admitted),
            left: of(self.left, before.left),
            expired: of(self.expired, before.expired),
        }
    }
}

/// The figures of the waiting rooms that live on this node.
#[derive(Debug)]
pub struct QueueMetrics {
    named: HashMap<PerformanceId, Told>,
    others: Told,
    /// What each queue had counted when it was last looked at: as many as have
    /// a board.
    counted: HashMap<PerformanceId, Counts>,
}

impl QueueMetrics {
    /// Of none yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            named: HashMap::new(),
            others: Told::of(OTHERS),
            counted: HashMap::new(),
        }
    }

    /// These live here now, and no others.
    pub fn show(&mut self, summaries: &[(PerformanceId, Summary)]) {
        for told in self.named.values() {
            told.set(Figures::default());
        }
        let mut others = Figures::default();
        for (id, summary) in summaries {
            let figures = Figures::of(summary);
            if figures.has_people() && !self.named.contains_key(id) && self.named.len() < NAMED_MAX
            {
                self.named.insert(*id, Told::of(&id.to_string()));
            }
            let counts = Counts::of(summary);
            let before = self.counted.insert(*id, counts).unwrap_or_default();
            let told = match self.named.get(id) {
                Some(told) => {
                    told.set(figures);
                    told
                }
                None => {
                    others = others.plus(figures);
                    &self.others
                }
            };
            told.add(counts.since(before));
        }
        self.others.set(others);
    }
}

impl Default for QueueMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The live sockets of waiting rooms on this node.
#[derive(Debug, Default)]
pub struct SocketMetrics {
    named: HashMap<PerformanceId, (Gauge, Counter)>,
    /// How many frames each queue had skipped when it was last looked at.
    dropped: HashMap<PerformanceId, u64>,
}

impl SocketMetrics {
    /// So many sockets has each queue, and so many frames were skipped for
    /// them; those of queues that came late are told together.
    #[allow(clippy::cast_precision_loss, reason = "metrics")]
    pub fn show(&mut self, feeds: &[(PerformanceId, usize, u64)]) {
        for (sockets, _) in self.named.values() {
            sockets.set(0.0);
        }
        let (others, others_dropped) = socket_metrics(OTHERS);
        let mut others_sockets = 0.0;
        for (id, sockets, dropped) in feeds {
            let before = self.dropped.insert(*id, *dropped).unwrap_or_default();
            let more = dropped.checked_sub(before).unwrap_or(*dropped);
            if !self.named.contains_key(id) && self.named.len() < NAMED_MAX {
                self.named.insert(*id, socket_metrics(&id.to_string()));
            }
            if let Some((gauge, counter)) = self.named.get(id) {
                gauge.set(*sockets as f64);
                counter.increment(more);
            } else {
                others_sockets += *sockets as f64;
                others_dropped.increment(more);
            }
        }
        others.set(others_sockets);
        // Feeds come and go with their sockets.
        let live = |id: &PerformanceId| feeds.iter().any(|(live, ..)| live == id);
        self.dropped.retain(|id, _| live(id));
    }
}

fn socket_metrics(queue: &str) -> (Gauge, Counter) {
    recorder();
    let queue = || queue.to_owned();
    (
        gauge!(QUEUE_SOCKETS, "queue" => queue()),
        counter!(QUEUE_FRAMES_DROPPED_TOTAL, "queue" => queue()),
    )
}

/// Somebody entered so many seconds later than was foretold, or earlier.
pub fn eta_error(seconds: f64) {
    recorder();
    let direction = if seconds < 0.0 { "early" } else { "late" };
    histogram!(QUEUE_ETA_ERROR_SECONDS, "direction" => direction).record(seconds.abs());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::queue::SeatsLeft;
    use crate::telemetry::render;

    fn summary(waiting: u32) -> Summary {
        Summary {
            waiting,
            active: 0,
            admitted_total: 0,
            admission_per_second: 0.0,
            estimated_wait_seconds: None,
            paused: false,
            draining: false,
            phase: Phase::Open,
            seats: SeatsLeft::default(),
            left: 0,
            expired: 0,
        }
    }

    #[test]
    fn sockets_are_told_by_queue_and_those_of_late_queues_together() {
        let mut metrics = SocketMetrics::default();
        let many = (0..NAMED_MAX + 2).map(|_| PerformanceId(uuid::Uuid::now_v7()));
        let many: Vec<_> = many.map(|id| (id, 3, 1)).collect();
        metrics.show(&many);
        let text = render();
        assert!(
            text.contains("onsale_queue_sockets{queue=\"others\"} 6"),
            "{text}"
        );
        let first = many[0].0;
        assert!(text.contains(&format!(
            "onsale_queue_frames_dropped_total{{queue=\"{first}\"}} 1"
        )));
        metrics.show(&[]);
        assert!(render().contains(&format!("onsale_queue_sockets{{queue=\"{first}\"}} 0")));
    }

    #[test]
    fn people_who_left_are_counted_over_the_reloads_of_their_queue() {
        let mut metrics = QueueMetrics::new();
        let id = PerformanceId(uuid::Uuid::now_v7());
        let show = |metrics: &mut QueueMetrics, left, admitted_total| {
            let summary = Summary {
                left,
                admitted_total,
                ..summary(1)
            };
            metrics.show(&[(id, summary)]);
        };
        show(&mut metrics, 5, 10);
        show(&mut metrics, 7, 12);
        // Loaded again: what has left is counted from 0, who came in is stored.
        show(&mut metrics, 3, 12);
        let text = render();
        let left = format!("onsale_queue_left_total{{queue=\"{id}\"}} 10");
        let admitted = format!("onsale_queue_admissions_total{{queue=\"{id}\"}} 12");
        assert!(text.contains(&left) && text.contains(&admitted), "{text}");
    }

    #[test]
    fn however_many_queues_there_are_only_some_are_named_and_none_is_lost() {
        let mut metrics = QueueMetrics::new();
        let many = (0..NAMED_MAX + 3).map(|_| PerformanceId(uuid::Uuid::now_v7()));
        let many: Vec<_> = many.map(|id| (id, summary(2))).collect();
        metrics.show(&many);
        assert_eq!(metrics.named.len(), NAMED_MAX);
        let text = render();
        assert!(
            text.contains("onsale_queue_waiting_people{queue=\"others\"} 6"),
            "{text}"
        );
        let first = &many[0].0;
        assert!(text.contains(&format!(
            "onsale_queue_waiting_people{{queue=\"{first}\"}} 2"
        )));
        metrics.show(&[]);
        assert!(render().contains(&format!(
            "onsale_queue_waiting_people{{queue=\"{first}\"}} 0"
        )));
        eta_error(-3.0);
        let early = "onsale_queue_eta_error_seconds_bucket{direction=\"early\",le=\"5\"} 1";
        assert!(render().contains(early));
    }
}
