//! What became of claims in orders.

/// How many claims went which way. A claim may go several times: one that came
/// back is reserved again by the next order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Set aside for an order.
    pub reserved: u32,
    /// Used by an order that was confirmed.
    pub used: u32,
    /// Usable again, because the order came to nothing.
    pub released: u32,
    /// Usable again, because the order was cancelled with its last seat.
    pub returned: u32,
}
