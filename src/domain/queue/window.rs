//! The sliding window of a policy: how many entered within the last so many
//! seconds.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::policy::Admit;
use crate::domain::time::{Millis, Timestamp};

/// So many moments are told apart within a window. Those who enter within one
/// share its last moment: never more enter than allowed, the last of them count
/// for at most a 64th of the window longer.
const GRAINS: i64 = 64;

/// Some entered at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// When their passes were given.
    pub at: Timestamp,
    /// How many of them count in the window.
    pub count: u32,
}

/// Who entered within the window, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Window {
    grants: VecDeque<Grant>,
}

impl Window {
    pub(super) fn restore(grants: impl IntoIterator<Item = Grant>) -> Self {
        Self {
            grants: grants.into_iter().collect(),
        }
    }

    pub(super) fn grants(&self) -> impl Iterator<Item = Grant> + '_ {
        self.grants.iter().copied()
    }

    /// `count` enter at `at`.
    pub(super) fn push(&mut self, admit: Admit, at: Timestamp, count: u32) {
        let every = Millis::from_secs(admit.every_seconds);
        while self
            .grants
            .front()
            .is_some_and(|grant| grant.at.plus(every) <= at)
        {
            self.grants.pop_front();
        }
        let grain = (every.0 / GRAINS).max(1);
        match self.grants.back_mut() {
            Some(last) if last.at.0.div_euclid(grain) >= at.0.div_euclid(grain) => {
                last.at = last.at.max(at);
                last.count = last.count.saturating_add(count);
            }
            _ => self.grants.push_back(Grant { at, count }),
        }
    }

    /// How many more may enter at `now`.
    pub(super) fn room(&self, admit: Admit, now: Timestamp) -> u32 {
        let every = Millis::from_secs(admit.every_seconds);
        let within = |grant: &&Grant| grant.at.plus(every) > now;
        let count = self.grants.iter().rev().take_while(within);
        let taken = count.fold(0u32, |sum, grant| sum.saturating_add(grant.count));
        admit.count.saturating_sub(taken)
    }

    /// When one more may enter, if not at once.
    pub(super) fn free_at(&self, admit: Admit) -> Option<Timestamp> {
        let every = Millis::from_secs(admit.every_seconds);
        let mut taken = 0u32;
        for grant in self.grants.iter().rev() {
            taken = taken.saturating_add(grant.count);
            if taken >= admit.count {
                return Some(grant.at.plus(every));
            }
        }
        None
    }
}
