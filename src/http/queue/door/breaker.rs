//! A circuit breaker: after some failures in a row a service is left alone for
//! a while; then one question finds out whether it is back.

use crate::domain::time::{Millis, Timestamp};

/// So many failures in a row, and nobody asks any more.
pub(super) const FAILURES_MAX: u32 = 5;

/// How long the service is left alone.
pub(super) const ALONE: Millis = Millis::from_secs(10);

/// Whether a service may be asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// It is left alone until then; after that the first who asks may.
    alone_until: Option<Timestamp>,
}

impl Breaker {
    /// Whether one question may be asked now. While the service is thought to
    /// be away, one in each [`ALONE`] may, whose answer is to be told.
    pub(super) fn may_ask(&mut self, now: Timestamp) -> bool {
        match self.alone_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                // Should the answer never be told, the next one tries.
                self.alone_until = Some(now.plus(ALONE));
                true
            }
        }
    }

    /// Whether the service is left alone.
    pub(super) fn is_open(&self, now: Timestamp) -> bool {
        self.alone_until.is_some_and(|until| now < until)
    }

    /// It has answered. `true` if it was thought to be away.
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(self).alone_until.is_some()
    }

    /// It has not. `true` if it is left alone from now on.
    pub(super) fn failed(&mut self, now: Timestamp) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_MAX {
            return false;
        }
        self.alone_until.replace(now.plus(ALONE)).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        for n in 1..=FAILURES_MAX {
            assert!(breaker.may_ask(NOW));
            assert_eq!(breaker.failed(NOW), n == FAILURES_MAX);
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_not_before() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            for _ in 1..FAILURES_MAX {
                assert!(!breaker.failed(NOW));
            }
            assert!(!breaker.succeeded());
            assert!(breaker.may_ask(NOW) && !breaker.is_open(NOW));
        }
        let mut breaker = open();
        assert!(breaker.is_open(NOW) && !breaker.may_ask(NOW));
    }

    #[test]
    fn one_question_in_a_while_finds_out_whether_the_service_is_back() {
        let mut breaker = open();
        let later = NOW.plus(ALONE);
        assert!(breaker.may_ask(later));
        assert!(!breaker.may_ask(later), "one is enough");
        assert!(!breaker.failed(later), "it was open before");
        assert!(!breaker.may_ask(later.plus(Millis(ALONE.0 - 1))));
        // The answer of this one is never told.
        assert!(breaker.may_ask(later.plus(ALONE)));
        let last = later.plus(ALONE).plus(ALONE);
        assert!(breaker.may_ask(last));
        assert!(breaker.succeeded());
        assert!(breaker.may_ask(last) && breaker.may_ask(last));
    }
}
