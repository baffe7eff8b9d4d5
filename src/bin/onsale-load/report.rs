//! The report of a run: a table for a person, JSON for a program.

use std::path::Path;

use onsale::config::Config;
use onsale::domain::decision::Tier;
use serde::Serialize;

use crate::api::Counts;
use crate::fsync;
use crate::tally::Summary;

/// What durability costs and means where the server writes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Durability {
    /// Of a page written to the data folder, before the run.
    pub(crate) fsync_p50_ms: f64,
    /// When holds are acknowledged, by the settings; orders always wait for
    /// the database.
    pub(crate) holds: &'static str,
}

impl Durability {
    /// By the settings of a server on this machine.
    pub(crate) fn measure(config: &Config) -> Result<Self, String> {
        let folder = &config.node.data_dir;
        let p50 = fsync::p50(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Self {
            fsync_p50_ms: p50.as_secs_f64() * 1e3,
            holds: match config.holds_tier() {
                Tier::Memory => "memory",
                Tier::Checkpoint => "checkpoint",
                Tier::Database => "database",
            },
        })
    }
}

/// All that is known after a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) url: String,
    pub(crate) timetable: String,
    pub(crate) buyers: usize,
    pub(crate) connections: u16,
    pub(crate) best_share: f64,
    pub(crate) think_ms: (u64, u64),
    /// From the first buyer to the last, with tickets and refusals.
    pub(crate) seconds: f64,
    pub(crate) durability: Option<Durability>,
    pub(crate) seats_before: Counts,
    pub(crate) seats_after: Counts,
    #[serde(flatten)]
    pub(crate) summary: Summary,
    /// What `onsale verify` exits with: 0 clean, 1 findings, 2 could not run.
    pub(crate) audit_exit: Option<i32>,
}

impl Report {
    /// Whether nothing failed, no seat was sold twice, the server's count of
    /// sold seats agrees, and the audit, if there was one, found nothing.
    pub(crate) fn is_clean(&self) -> bool {
        self.summary.failed == 0
            && self.summary.sold_twice.is_empty()
            && self.missing_seats() == 0
            && self.audit_exit.is_none_or(|exit| exit == 0)
    }

    /// Seats that were acknowledged as sold to buyers of this run, and that the
    /// server does not count as sold. (It may count more: other buyers.)
    fn missing_seats(&self) -> u64 {
        let counted = self.seats_after.sold.saturating_sub(self.seats_before.sold);
        self.summary.seats.saturating_sub(counted.into())
    }

    /// Writes it as JSON.
    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Shows it.
    pub(crate) fn print(&self) {
        let summary = &self.summary;
        summary.print_tables();
        println!(
            "\n{} orders of {} seats in {:.2} s: {:.0} completed orders/s; {} tickets",
            summary.orders,
            summary.seats,
            summary.selling_seconds,
            summary.orders_per_second,
            summary.tickets
        );
        println!(
            "{} buyers over {} connections, {:.2} s in all; {} holds lost to somebody faster, {} answers 503 or 429",
            self.buyers, self.connections, self.seconds, summary.lost_races, summary.shed_answers
        );
        if summary.cancels > 0 {
            println!(
                "{} cancels of {} seats, which were free again",
                summary.cancels, summary.seats_back
            );
        }
        let seats = &self.seats_after;
        println!(
            "seats: {} of {} sold, {} held, {} available, {} blocked",
            seats.sold, seats.capacity, seats.held, seats.available, seats.blocked
        );
        if let Some(durability) = &self.durability {
            println!(
                "durability: orders after the commit, holds after {}; a durable write of a page takes {:.3} ms (p50)",
                durability.holds, durability.fsync_p50_ms
            );
        }
        self.print_verdict();
    }

    fn print_verdict(&self) {
        let summary = &self.summary;
        if !summary.sold_twice.is_empty() {
            println!("SOLD TWICE: {}", summary.sold_twice.join(", "));
        }
        if self.missing_seats() > 0 {
            println!(
                "LOST: {} seats were acknowledged that the server does not count as sold",
                self.missing_seats()
            );
        }
        match self.audit_exit {
            None => println!("audit: not asked for (--audit)"),
            Some(0) => println!("audit: clean"),
            Some(1) => println!("audit: FINDINGS"),
            Some(_) => println!("audit: could not run"),
        }
        println!("{}", if self.is_clean() { "passed" } else { "FAILED" });
    }
}

impl Summary {
    /// Shows how the buyers ended, and how long their steps took.
    pub(crate) fn print_tables(&self) {
        println!("\n{:<28} {:>9}", "outcome", "buyers");
        for (outcome, count) in &self.outcomes {
            println!("{outcome:<28} {count:>9}");
        }
        println!(
            "\n{:<10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "step, ms", "count", "p50", "p90", "p99", "p99.9", "max"
        );
        for step in &self.latencies {
            println!(
                "{:<10} {:>9} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
                format!("{:?}", step.step).to_lowercase(),
                step.count,
                step.p50_ms,
                step.p90_ms,
                step.p99_ms,
                step.p999_ms,
                step.max_ms
            );
        }
    }
}
