//! What all sockets have seen, and what they cost the servers.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::proc::Usage;

/// The longest time that is told apart, in milliseconds.
pub(super) const MILLIS_MAX: u64 = 120_000;

/// What one process has seen.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Seen {
    /// From a tick to its receipt: milliseconds and how often.
    pub(super) late_ms: Vec<(u64, u64)>,
    /// Between two ticks of a socket.
    pub(super) gap_ms: Vec<(u64, u64)>,
    /// Positions that grew, sockets that ended before they should.
    pub(super) faults: u64,
    /// Sockets of users who were admitted: they have no position any more.
    pub(super) admitted: u64,
}

/// What a server's process used: before the sockets, with all of them, and
/// after they were watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) empty: Usage,
    pub(super) open: Usage,
    pub(super) after: Usage,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Spread {
    p50: u64,
    p99: u64,
    max: u64,
}

impl Spread {
    fn of(times: &Histogram<u64>) -> Self {
        Self {
            p50: times.value_at_quantile(0.5),
            p99: times.value_at_quantile(0.99),
            max: times.max(),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {}, p99 {}, max {}", self.p50, self.p99, self.max)
    }
}

/// One server.
#[derive(Debug, Serialize)]
pub(super) struct NodeReport {
    pub(super) url: String,
    sockets: usize,
    late_ms: Spread,
    bytes_per_socket: Option<f64>,
    cpu_percent: Option<f64>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    sockets: usize,
    processes: usize,
    seconds: u64,
    ticks: u64,
    late_ms: Spread,
    gap_ms: Spread,
    faults: u64,
    admitted: u64,
    nodes: Vec<NodeReport>,
}

impl Report {
    /// Of processes that each watched the sockets of one node: its index, how
    /// many, and what they saw.
    pub(super) fn of(seconds: u64, took: f64, parts: &[(usize, usize, Seen)]) -> Self {
        let seen = || parts.iter().map(|(_, _, seen)| seen);
        let late = merged(seen().map(|seen| &seen.late_ms));
        Self {
            sockets: parts.iter().map(|(_, count, _)| count).sum(),
            processes: parts.len(),
            seconds: seconds.max(took as u64),
            ticks: late.len(),
            late_ms: Spread::of(&late),
            gap_ms: Spread::of(&merged(seen().map(|seen| &seen.gap_ms))),
            faults: seen().map(|seen| seen.faults).sum(),
            admitted: seen().map(|seen| seen.admitted).sum(),
            nodes: Vec::new(),
        }
    }

    /// Adds node `index`, whose process used this while it was watched for
    /// `took` seconds.
    pub(super) fn add_node(
        &mut self,
        (index, url): (usize, &str),
        used: Option<Used>,
        took: f64,
        parts: &[(usize, usize, Seen)],
    ) {
        let own = || parts.iter().filter(|(node, ..)| *node == index);
        let sockets: usize = own().map(|(_, count, _)| count).sum();
        self.nodes.push(NodeReport {
            url: url.to_owned(),
            sockets,
            late_ms: Spread::of(&merged(own().map(|(_, _, seen)| &seen.late_ms))),
            bytes_per_socket: used.map(|used| {
                let bytes = used.open.resident_bytes as f64 - used.empty.resident_bytes as f64;
                bytes / sockets.max(1) as f64
            }),
            cpu_percent: used
                .map(|used| (used.after.cpu_seconds - used.open.cpu_seconds) / took * 100.0),
        });
    }

    pub(super) fn is_clean(&self) -> bool {
        self.faults == 0 && self.ticks > 0
    }

    pub(super) fn print(&self) {
        println!(
            "{} sockets from {} processes, watched for {} s: {} ticks, {} admitted meanwhile",
            self.sockets, self.processes, self.seconds, self.ticks, self.admitted
        );
        println!("from tick to receipt, ms: {}", self.late_ms);
        println!("between two ticks of a socket, ms: {}", self.gap_ms);
        for node in &self.nodes {
            println!("server {}: {} sockets", node.url, node.sockets);
            if self.nodes.len() > 1 {
                println!("  from tick to receipt, ms: {}", node.late_ms);
            }
            if let Some(bytes) = node.bytes_per_socket {
                println!("  {bytes:.0} bytes of memory a socket");
            }
            if let Some(percent) = node.cpu_percent {
                println!("  {percent:.0} % of one processor");
            }
        }
        if self.faults > 0 {
            println!("{} sockets failed or positions grew", self.faults);
        }
        println!("{}", if self.is_clean() { "passed" } else { "FAILED" });
    }
}

fn merged<'a>(parts: impl Iterator<Item = &'a Vec<(u64, u64)>>) -> Histogram<u64> {
    let mut all = histogram();
    for (value, count) in parts.flatten() {
        all.saturating_record_n(*value, *count);
    }
    all
}

#[expect(clippy::expect_used, reason = "the bounds are constants")]
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MILLIS_MAX, 3).expect("1 < max, and 3 digits are allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_told_what_its_own_sockets_saw_and_cost() {
        let seen = |ms: u64| Seen {
            late_ms: vec![(ms, 10)],
            ..Seen::default()
        };
        let parts = [(0, 3, seen(5)), (1, 2, seen(90)), (0, 1, seen(5))];
        let used = |mib: u64, cpu_seconds: f64| Usage {
            resident_bytes: mib << 20,
            cpu_seconds,
        };
        let mut report = Report::of(10, 10.0, &parts);
        let of_second = Used {
            empty: used(10, 1.0),
            open: used(12, 2.0),
            after: used(20, 4.0),
        };
        report.add_node((0, "a"), None, 10.0, &parts);
        report.add_node((1, "b"), Some(of_second), 10.0, &parts);
        assert_eq!(
            (report.sockets, report.ticks, report.late_ms.max),
            (6, 30, 90)
        );
        let [first, second] = &report.nodes[..] else {
            panic!("{report:?}");
        };
        assert_eq!((first.sockets, first.late_ms.max), (4, 5));
        assert_eq!(first.bytes_per_socket, None);
        assert_eq!((second.sockets, second.late_ms.p50), (2, 90));
        assert_eq!(second.bytes_per_socket, Some(f64::from(1 << 20)));
        assert_eq!(second.cpu_percent, Some(20.0));
        assert!(report.is_clean());
    }
}
