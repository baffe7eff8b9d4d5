//! What is measured at the door of waiting rooms: what newcomers had to show.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::names::*;
use super::recorder;

/// Proofs of work.
#[derive(Clone, Debug)]
pub struct ProofMetrics {
    /// Newcomers who were given a challenge.
    pub required: Counter,
    /// Solutions.
    pub solved: Counter,
    /// Solutions that came too late.
    pub expired: Counter,
    /// Solutions of less than newcomers have to do by now.
    pub outdated: Counter,
    /// What was none.
    pub invalid: Counter,
    /// The difficulty that was asked for last.
    pub bits: Gauge,
}

impl ProofMetrics {
    /// The handles.
    #[must_use]
    pub fn new() -> Self {
        recorder();
        let outcome = |outcome: &'static str| counter!(QUEUE_PROOFS_TOTAL, "outcome" => outcome);
        Self {
            required: outcome("required"),
            solved: outcome("solved"),
            expired: outcome("expired"),
            outdated: outcome("outdated"),
            invalid: outcome("invalid"),
            bits: gauge!(QUEUE_PROOF_BITS),
        }
    }
}

impl Default for ProofMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Checks whether somebody is a person.
#[derive(Clone, Debug)]
pub struct HumanMetrics {
    /// Newcomers who came without anything to check.
    pub required: Counter,
    /// Who passed.
    pub passed: Counter,
    /// Who didn't.
    pub refused: Counter,
    /// Who got in unchecked, because the service was away.
    pub failed_open: Counter,
    /// Who was turned away, because the service was away.
    pub failed_closed: Counter,
    /// Who was turned away, because too many were being checked.
    pub busy: Counter,
    /// How long the service took.
    pub seconds: Histogram,
}

impl HumanMetrics {
    /// The handles.
    #[must_use]
    pub fn new() -> Self {
        recorder();
        let outcome =
            |outcome: &'static str| counter!(QUEUE_HUMAN_CHECKS_TOTAL, "outcome" => outcome);
        Self {
            required: outcome("required"),
            passed: outcome("passed"),
            refused: outcome("refused"),
            failed_open: outcome("failed-open"),
            failed_closed: outcome("failed-closed"),
            busy: outcome("busy"),
            seconds: histogram!(QUEUE_HUMAN_CHECK_SECONDS),
        }
    }
}

impl Default for HumanMetrics {
    fn default() -> Self {
        Self::new()
    }
}
