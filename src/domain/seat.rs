//! Seats as the machine counts them.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// The place of a seat (or of a general-admission unit) in its venue's layout,
/// counted row-major from 0. Stable for the life of the venue.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SeatIndex(pub u32);

impl SeatIndex {
    /// As an offset into per-seat tables.
    #[must_use]
    pub fn offset(self) -> usize {
        self.0 as usize
    }
}

/// The seats of one command: few, nearly always.
pub type Seats = SmallVec<[SeatIndex; 8]>;

/// What a buyer may know of a seat.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum SeatStatus {
    /// Anyone may hold it.
    Available = b'A',
    /// Somebody holds it, or its sale or return isn't durable yet.
    Held = b'H',
    /// Sold, durably.
    Sold = b'S',
    /// Taken off sale by the organizer.
    Blocked = b'X',
}

impl SeatStatus {
    /// The character that stands for it in a seat map.
    #[must_use]
    pub fn letter(self) -> u8 {
        self as u8
    }
}
