//! What is measured of waiting rooms.

use std::collections::HashMap;

use metrics::{Gauge, gauge, histogram};

use super::{
    QUEUE_ACTIVE, QUEUE_ADMISSIONS_PER_SECOND, QUEUE_ADMITTED, QUEUE_ETA_ERROR_SECONDS,
    QUEUE_EXPIRED, QUEUE_FRAMES_DROPPED, QUEUE_LEFT, QUEUE_SOCKETS, QUEUE_WAITING, recorder,
};
use crate::domain::ids::PerformanceId;
use crate::domain::queue::Summary;

/// So many queues have figures of their own; what is measured can't be taken
/// back, so that they are the first ones of this process that had people.
const NAMED_MAX: usize = 64;

/// The figures of all others together.
const OTHERS: &str = "others";

/// The gauges of one queue, or of several together.
#[derive(Debug)]
struct Gauges {
    waiting: Gauge,
    active: Gauge,
    admitted: Gauge,
    left: Gauge,
    expired: Gauge,
    per_second: Gauge,
}

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    waiting: f64,
    active: f64,
    admitted: f64,
    left: f64,
    expired: f64,
    per_second: f64,
}

impl Gauges {
    fn of(queue: &str) -> Self {
        recorder();
        let queue = || queue.to_owned();
        Self {
            waiting: gauge!(QUEUE_WAITING, "queue" => queue()),
            active: gauge!(QUEUE_ACTIVE, "queue" => queue()),
            admitted: gauge!(QUEUE_ADMITTED, "queue" => queue()),
            left: gauge!(QUEUE_LEFT, "queue" => queue()),
            expired: gauge!(QUEUE_EXPIRED, "queue" => queue()),
            per_second: gauge!(QUEUE_ADMISSIONS_PER_SECOND, "queue" => queue()),
        }
    }

    fn set(&self, figures: Figures) {
        self.waiting.set(figures.waiting);
        self.active.set(figures.active);
        self.admitted.set(figures.admitted);
        self.left.set(figures.left);
        self.expired.set(figures.expired);
        self.per_second.set(figures.per_second);
    }
}

impl Figures {
    fn of(summary: &Summary) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "metrics")]
        Self {
            waiting: f64::from(summary.waiting),
            active: f64::from(summary.active),
            admitted: summary.admitted_total as f64,
            left: summary.left as f64,
            expired: summary.expired as f64,
            per_second: summary.admission_per_second,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            waiting: self.waiting + other.waiting,
            active: self.active + other.active,
            admitted: self.admitted + other.admitted,
            left: self.left + other.left,
            expired: self.expired + other.expired,
            per_second: self.per_second + other.per_second,
        }
    }

    fn has_people(&self) -> bool {
        self.waiting + self.active > 0.0
    }
}

/// The figures of the waiting rooms that live on this node.
#[derive(Debug)]
pub struct QueueMetrics {
    named: HashMap<PerformanceId, Gauges>,
    others: Gauges,
}

impl QueueMetrics {
    /// Of none yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            named: HashMap::new(),
            others: Gauges::of(OTHERS),
        }
    }

    /// These live here now, and no others.
    pub fn show(&mut self, summaries: &[(PerformanceId, Summary)]) {
        for gauges in self.named.values() {
            gauges.set(Figures::default());
        }
        let mut others = Figures::default();
        for (id, summary) in summaries {
            let figures = Figures::of(summary);
            if figures.has_people() && !self.named.contains_key(id) && self.named.len() < NAMED_MAX
            {
                self.named.insert(*id, Gauges::of(&id.to_string()));
            }
            match self.named.get(id) {
                Some(gauges) => gauges.set(figures),
                None => others = others.plus(figures),
            }
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
    named: HashMap<PerformanceId, (Gauge, Gauge)>,
}

impl SocketMetrics {
    /// So many sockets has each queue, and so many frames were skipped for
    /// them; those of queues that came late are told together.
    #[allow(clippy::cast_precision_loss, reason = "metrics")]
    pub fn show(&mut self, feeds: &[(PerformanceId, usize, u64)]) {
        for (sockets, _) in self.named.values() {
            sockets.set(0.0);
        }
        let mut others = (0.0, 0.0);
        for (id, sockets, dropped) in feeds {
            let (sockets, dropped) = (*sockets as f64, *dropped as f64);
            if !self.named.contains_key(id) && self.named.len() < NAMED_MAX {
                self.named.insert(*id, socket_gauges(&id.to_string()));
            }
            match self.named.get(id) {
                Some(gauges) => {
                    gauges.0.set(sockets);
                    gauges.1.set(dropped);
                }
                None => others = (others.0 + sockets, others.1 + dropped),
            }
        }
        let gauges = socket_gauges(OTHERS);
        gauges.0.set(others.0);
        gauges.1.set(others.1);
    }
}

fn socket_gauges(queue: &str) -> (Gauge, Gauge) {
    recorder();
    let queue = || queue.to_owned();
    (
        gauge!(QUEUE_SOCKETS, "queue" => queue()),
        gauge!(QUEUE_FRAMES_DROPPED, "queue" => queue()),
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
    use crate::domain::queue::{Phase, SeatsLeft};
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
            "onsale_queue_frames_dropped{{queue=\"{first}\"}} 1"
        )));
        metrics.show(&[]);
        assert!(render().contains(&format!("onsale_queue_sockets{{queue=\"{first}\"}} 0")));
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
            text.contains("onsale_queue_waiting{queue=\"others\"} 6"),
            "{text}"
        );
        let first = &many[0].0;
        assert!(text.contains(&format!("onsale_queue_waiting{{queue=\"{first}\"}} 2")));
        metrics.show(&[]);
        assert!(render().contains(&format!("onsale_queue_waiting{{queue=\"{first}\"}} 0")));
        eta_error(-3.0);
        let early = "onsale_queue_eta_error_seconds_bucket{direction=\"early\",le=\"5\"} 1";
        assert!(render().contains(early));
    }
}
