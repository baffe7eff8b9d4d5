//! What a crowd of clients can know of a queue's fairness.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::api::{Policy, Summary};

/// So many findings are kept in words; all are counted.
const WORDS_MAX: usize = 20;

/// What was found out, shared by the whole crowd.
#[derive(Debug)]
pub(super) struct Checks {
    policy: Policy,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Whose number it is, by the place in the file of buyers.
    numbers: HashMap<u32, usize>,
    /// The highest number of which a client knew that it was admitted.
    admitted_max: u32,
    admitted: u64,
    /// Looks at the summary: when it was asked for, and how many had been
    /// admitted.
    looks: VecDeque<(Instant, u64)>,
    active_max: u32,
    findings: u64,
    words: Vec<String>,
}

/// How it stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) places: usize,
    pub(super) admitted: u64,
}

impl Checks {
    pub(super) fn of(policy: Policy) -> Self {
        Self {
            policy,
            inner: Mutex::default(),
        }
    }

    /// Something that must not be.
    pub(super) fn found(&self, what: String) {
        self.inner.lock().found(what);
    }

    /// Buyer `who` has `number`: nobody else may.
    pub(super) fn has(&self, who: usize, number: u32) {
        let mut inner = self.inner.lock();
        if let Some(other) = inner.numbers.insert(number, who)
            && other != who
        {
            inner.found(format!(
                "number {number} is both buyer {other}'s and {who}'s"
            ));
        }
    }

    /// The highest number that is known to be inside: to be taken before a
    /// question, for [`Checks::waits`].
    pub(super) fn admitted_max(&self) -> u32 {
        self.inner.lock().admitted_max
    }

    /// An answer to a question that was asked when `admitted_max` was known to
    /// be inside says that `number` waits: then nobody behind it was inside.
    pub(super) fn waits(&self, number: u32, admitted_max: u32) {
        if number < admitted_max {
            self.found(format!(
                "number {admitted_max} was inside while number {number} waited"
            ));
        }
    }

    /// `number` is inside, for the first time.
    pub(super) fn entered(&self, number: u32) {
        let mut inner = self.inner.lock();
        inner.admitted += 1;
        inner.admitted_max = inner.admitted_max.max(number);
    }

    /// The figures of the queue, asked for at `asked` and here at `came`: within
    /// any time between an answer and a later one's question no more were
    /// admitted than the policy lets.
    pub(super) fn look(&self, summary: &Summary, asked: Instant, came: Instant) {
        let mut inner = self.inner.lock();
        inner.active_max = inner.active_max.max(summary.active);
        if let Some(most) = self.policy.max_active.filter(|most| summary.active > *most) {
            inner.found(format!("{} are inside, the cap is {most}", summary.active));
        }
        let Some(admit) = self.policy.admit else {
            return;
        };
        let every = Duration::from_secs(admit.every_seconds.into());
        // Who enters freely has the first numbers, and so entered first.
        let metered = summary
            .admitted_total
            .saturating_sub(self.policy.free_admission.into());
        // Both ends of the time are within it: it is shorter than `every`.
        while inner
            .looks
            .front()
            .is_some_and(|(asked, _)| came.duration_since(*asked) >= every)
        {
            inner.looks.pop_front();
        }
        if let Some((_, before)) = inner.looks.front() {
            let within = metered.saturating_sub(*before);
            if within > admit.count.into() {
                inner.found(format!(
                    "{within} were admitted within {} s, {} are allowed",
                    admit.every_seconds, admit.count
                ));
            }
        }
        inner.looks.push_back((asked, metered));
    }

    pub(super) fn progress(&self) -> Progress {
        let inner = self.inner.lock();
        Progress {
            places: inner.numbers.len(),
            admitted: inner.admitted,
        }
    }

    /// How many findings, the first of them in words, and the most that were
    /// seen inside.
    pub(super) fn result(&self) -> (u64, Vec<String>, u32) {
        let inner = self.inner.lock();
        (inner.findings, inner.words.clone(), inner.active_max)
    }
}

impl Inner {
    fn found(&mut self, what: String) {
        self.findings += 1;
        if self.words.len() < WORDS_MAX {
            self.words.push(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::Admit;
    use super::*;

    fn findings(checks: &Checks) -> u64 {
        checks.result().0
    }

    fn looked(active: u32, admitted_total: u64) -> Summary {
        Summary {
            waiting: 0,
            active,
            admitted_total,
        }
    }

    #[test]
    fn a_number_of_two_buyers_is_found_and_one_told_twice_is_not() {
        let checks = Checks::of(Policy::default());
        checks.has(1, 7);
        checks.has(1, 7);
        assert_eq!(findings(&checks), 0);
        checks.has(2, 7);
        assert_eq!(findings(&checks), 1);
    }

    #[test]
    fn who_waits_behind_somebody_inside_is_no_finding_who_waits_before_is() {
        let checks = Checks::of(Policy::default());
        checks.entered(10);
        let known = checks.admitted_max();
        checks.waits(11, known);
        assert_eq!(findings(&checks), 0);
        checks.waits(9, known);
        assert_eq!(findings(&checks), 1);
    }

    #[test]
    fn the_cap_and_the_window_are_watched() {
        let checks = Checks::of(Policy {
            free_admission: 5,
            admit: Some(Admit {
                count: 10,
                every_seconds: 10,
            }),
            max_active: Some(20),
            ..Policy::default()
        });
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        checks.look(&looked(15, 15), at(0), at(0));
        checks.look(&looked(20, 15), at(9), at(9));
        // The next window.
        checks.look(&looked(20, 25), at(10), at(10));
        assert_eq!(findings(&checks), 0);
        checks.look(&looked(21, 25), at(11), at(11));
        assert_eq!(findings(&checks), 1);
        checks.look(&looked(20, 26), at(12), at(12));
        assert_eq!(findings(&checks), 2);
    }
}
