//! The report of a crowd: a table for a person, JSON for a program.

use std::path::Path;

use serde::Serialize;

use super::api::Policy;
use crate::tally::Summary;

/// All that is known afterwards.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) url: String,
    pub(super) performance: String,
    pub(super) policy: Policy,
    pub(super) joined: usize,
    pub(super) seconds: f64,
    pub(super) admitted: u64,
    pub(super) waiting_after: u64,
    pub(super) active_after: u32,
    pub(super) active_max: u32,
    pub(super) bought: u64,
    pub(super) left: u64,
    pub(super) expired: u64,
    /// How many things were found that must not be; the first in words.
    pub(super) findings: u64,
    pub(super) words: Vec<String>,
    #[serde(flatten)]
    pub(super) summary: Summary,
    /// What `onsale verify` exits with: 0 clean, 1 findings, 2 could not run.
    pub(super) audit_exit: Option<i32>,
}

impl Report {
    pub(super) fn is_clean(&self) -> bool {
        self.findings == 0
            && self.summary.failed == 0
            && self.summary.sold_twice.is_empty()
            && self.audit_exit.is_none_or(|exit| exit == 0)
    }

    /// Writes it as JSON.
    pub(super) fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))
    }

    pub(super) fn print(&self) {
        self.summary.print_tables();
        println!(
            "\n{} joined in one instant; {:.1} s: {} admitted, {} bought, {} left, {} ran out, {} wait, {} inside (at most {})",
            self.joined,
            self.seconds,
            self.admitted,
            self.bought,
            self.left,
            self.expired,
            self.waiting_after,
            self.active_after,
            self.active_max
        );
        println!("{} answers 503 or 429", self.summary.shed_answers);
        for finding in &self.words {
            println!("FOUND: {finding}");
        }
        if self.findings > self.words.len() as u64 {
            println!("... {} findings in all", self.findings);
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
