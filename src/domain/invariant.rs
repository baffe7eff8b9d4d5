//! The promises of the system, by name: the same names in the code, the tests,
//! the metrics and the audit.

/// A named invariant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Invariant {
    /// A seat of a timetable is sold at most once at a time.
    I1,
    /// Available + held + sold + blocked = capacity.
    I2,
    /// A sale follows a live or payment-pending hold of the same user.
    I3,
    /// An acknowledged hold is nobody else's before its deadline, within its
    /// tier.
    I4,
    /// Claims of a coupon never exceed its stock.
    I5,
    /// One claim a user.
    I6,
    /// Transfers balance; captured − refunded = price of sold seats −
    /// discounts; no balance below zero; no confirmed order without its seats
    /// and its money, no money without its order.
    I7,
    /// Admission in order of number, within cap and rate.
    I8,
    /// One (epoch, activation) acknowledges per entity; what the database tier
    /// acknowledged survives any crash.
    I9,
    /// One outcome per idempotency key.
    I10,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I10,
    ];

    /// The name, as in metrics and the audit.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::I1 => "I1",
            Self::I2 => "I2",
            Self::I3 => "I3",
            Self::I4 => "I4",
            Self::I5 => "I5",
            Self::I6 => "I6",
            Self::I7 => "I7",
            Self::I8 => "I8",
            Self::I9 => "I9",
            Self::I10 => "I10",
        }
    }
}

/// A decision that would break a promise: it is never applied. Whoever runs the
/// machine stops that entity, counts this, and reads it back from the store.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {what}", .invariant.id())]
pub struct Violation {
    /// Which promise.
    pub invariant: Invariant,
    /// How.
    pub what: String,
}

impl Violation {
    /// Ends the decision as the defect that it is.
    ///
    /// # Panics
    /// Always, with itself.
    pub fn raise(self) -> ! {
        std::panic::panic_any(self)
    }
}
