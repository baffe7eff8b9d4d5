//! How fast people enter, as measured.

use std::collections::VecDeque;

use super::places::Seconds;
use crate::domain::time::Timestamp;

/// How long admissions are remembered for the rate, in seconds.
const HORIZON_SECONDS: u32 = 120;

/// How many enter a second, over the admissions that became durable within the
/// last two minutes.
///
/// Admissions come in batches (3,000 every 10 s), so the rate is what came
/// after the first one remembered by the time from it to the last: exact for
/// any regular policy. Only when the next batch is overdue does it fall.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate {
    /// By second, so at most [`HORIZON_SECONDS`] + 1.
    batches: VecDeque<(Seconds, u32)>,
}

impl Rate {
    /// `count` entered at `at`.
    pub(super) fn push(&mut self, at: Timestamp, count: u32) {
        let second = Seconds::of(at);
        let horizon = Seconds(second.0.saturating_sub(HORIZON_SECONDS));
        while self.batches.front().is_some_and(|(at, _)| *at < horizon) {
            self.batches.pop_front();
        }
        match self.batches.back_mut() {
            Some((last, sum)) if *last >= second => *sum = sum.saturating_add(count),
            _ => self.batches.push_back((second, count)),
        }
    }

    /// How many a second; `None` if too little has been seen lately.
    pub(super) fn per_second(&self, now: Timestamp) -> Option<f64> {
        let now = Seconds::of(now);
        let (first, _) = self.batches.front()?;
        let (last, _) = self.batches.back()?;
        let between = last.0 - first.0;
        if between == 0 || now.0.saturating_sub(last.0) > HORIZON_SECONDS {
            return None;
        }
        let intervals = self.batches.len() as f64 - 1.0;
        let counted = self
            .batches
            .iter()
            .skip(1)
            .map(|(_, count)| f64::from(*count));
        let interval = f64::from(between) / intervals;
        let overdue = (f64::from(now.0.saturating_sub(last.0)) - 2.0 * interval).max(0.0);
        Some(counted.sum::<f64>() / (f64::from(between) + overdue))
    }
}
