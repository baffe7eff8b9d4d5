//! What a seat can be, and how many are what.

use crate::domain::ids::{HoldId, OrderId};
use crate::domain::seat::SeatStatus;

/// A seat, as its timetable knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seat {
    /// Anyone may hold it.
    Free,
    /// Held, perhaps while it is being paid for.
    Held(HoldId),
    /// Sold, but the sale isn't in the database yet.
    Selling(OrderId),
    /// Sold.
    Sold(OrderId),
    /// Off sale.
    Blocked,
    /// On its way back to the public: by a change that isn't in the database
    /// yet, or until the end of its release jitter.
    Releasing,
}

impl Seat {
    pub(super) fn status(self) -> SeatStatus {
        match self {
            Self::Free => SeatStatus::Available,
            Self::Held(_) | Self::Selling(_) | Self::Releasing => SeatStatus::Held,
            Self::Sold(_) => SeatStatus::Sold,
            Self::Blocked => SeatStatus::Blocked,
        }
    }
}

/// How many seats are in which status; they always sum to the capacity (I2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct SeatCounts {
    /// Anyone may hold them.
    pub available: u32,
    /// Held, or on their way to or from a sale.
    pub held: u32,
    /// Sold.
    pub sold: u32,
    /// Off sale.
    pub blocked: u32,
}

impl SeatCounts {
    /// The place that counts seats of this status.
    pub fn of(&mut self, status: SeatStatus) -> &mut u32 {
        match status {
            SeatStatus::Available => &mut self.available,
            SeatStatus::Held => &mut self.held,
            SeatStatus::Sold => &mut self.sold,
            SeatStatus::Blocked => &mut self.blocked,
        }
    }

    /// All of them.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.available + self.held + self.sold + self.blocked
    }
}
