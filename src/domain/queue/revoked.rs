//! Passes that are over before the time that is signed into them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::line::TicketNumber;
use crate::domain::ids::UserId;
use crate::domain::time::Timestamp;

/// The passes of one place are void. A user who joins again gets another
/// number, so its passes are not meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Revoked {
    /// Its place in the set; the set's version once it is in.
    pub version: u64,
    /// Whose passes.
    pub user: UserId,
    /// Of which place.
    pub number: TicketNumber,
    /// When the last of them ends by itself.
    pub until: Timestamp,
}

/// The set of them, versioned: it only grows, and what would have ended anyway
/// falls out.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    version: u64,
    /// By version.
    revoked: VecDeque<Revoked>,
}

impl Revocations {
    /// Its version: that of the last one. Begins anew with each load of the
    /// queue.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Those that came after `version`; of all versions before the first, those
    /// that still matter.
    pub fn since(&self, version: u64) -> impl Iterator<Item = &Revoked> {
        let newer = self
            .revoked
            .partition_point(|revoked| revoked.version <= version);
        self.revoked.range(newer..)
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.revoked.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.revoked.is_empty()
    }

    pub(super) fn push(
        &mut self,
        user: UserId,
        number: TicketNumber,
        until: Timestamp,
        now: Timestamp,
    ) {
        while self.revoked.front().is_some_and(|first| first.until <= now) {
            self.revoked.pop_front();
        }
        if until <= now {
            return;
        }
        self.version += 1;
        self.revoked.push_back(Revoked {
            version: self.version,
            user,
            number,
            until,
        });
    }
}
