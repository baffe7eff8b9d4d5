//! What a queue decides by: its part of the catalogue.

use super::policy::QueuePolicy;
use crate::domain::ids::PerformanceId;
use crate::domain::time::Timestamp;

/// The rules of one queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueuePlan {
    /// Whose waiting room it is.
    pub performance_id: PerformanceId,
    /// How it admits.
    pub policy: QueuePolicy,
    /// When the sale opens: nobody enters before.
    pub opens_at: Timestamp,
    /// When it closes: nobody enters or joins from then on.
    pub closes_at: Timestamp,
    /// How many seats all timetables have together: what is told to be
    /// available until [`super::Command::Seats`] tells better. Until then nobody
    /// enters.
    pub capacity: u32,
    /// How many places may be kept in memory at once: waiting, inside, and
    /// those that ended lately.
    pub places_max: u32,
    /// The performance was deleted or is a draft: nobody enters or joins.
    pub withdrawn: bool,
}

impl QueuePlan {
    /// Whether nobody enters or joins any more: there is nothing left to do for
    /// the queue but to tell that.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.withdrawn || now >= self.closes_at
    }
}
