//! What a timetable can be asked, what can happen to it, and what it answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::domain::decision::Tier;
use crate::domain::ids::{CouponId, HoldId, OrderId, PaymentId, UserId};
use crate::domain::layout::SectionIndex;
use crate::domain::money::Money;
use crate::domain::order::{Cancel, CancelNo, CancelRequest, Method, Order, PricedSeats};
use crate::domain::plan::GradeIndex;
use crate::domain::seat::{SeatIndex, Seats};
use crate::domain::time::Timestamp;

use super::Hold;

/// Which seats are wanted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Choice {
    /// These very seats, each named once. `unknown` are the names that the
    /// layout doesn't know; any makes the whole choice refused.
    Seats { seats: Seats, unknown: Vec<String> },
    /// The best that are free.
    Best {
        count: u32,
        grade: Option<GradeIndex>,
        section: Option<SectionIndex>,
        adjacent: bool,
    },
    /// Any free units of a section without numbered seats; `Err` is a name that
    /// no such section has.
    Units {
        section: Result<SectionIndex, String>,
        count: u32,
    },
}

impl Choice {
    /// How many seats are wanted.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Seats { seats, unknown } => seats.len() + unknown.len(),
            Self::Best { count, .. } | Self::Units { count, .. } => *count as usize,
        }
    }
}

/// A hold that the server has lost, as its signed token tells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LostHold {
    /// What it was called.
    pub id: HoldId,
    /// Its seats.
    pub seats: Seats,
    /// When it would have ended.
    pub expires_at: Timestamp,
    /// It was made with a pass of the waiting room.
    pub under_pass: bool,
}

/// Seats by name, each named once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NamedSeats {
    /// Those that the layout knows.
    pub seats: Seats,
    /// The names that it doesn't.
    pub unknown: Vec<String>,
}

/// Who cancels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CancelledBy {
    /// The buyer, who must be this one, and in time.
    Buyer(UserId),
    /// The organizer, of anybody's order and at any time.
    Organizer,
}

/// A coupon that is set aside for an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Redeemed {
    /// Which one.
    pub coupon: CouponId,
    /// What it takes off the price.
    pub discount: Money,
}

/// What a timetable can be asked. Ids are made by the caller. Travels between
/// nodes of the same version only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Take seats for a while, all or nothing.
    Hold {
        hold: HoldId,
        user: UserId,
        choice: Choice,
        under_pass: bool,
    },
    /// Add seats to a hold, all or nothing; its deadline stays.
    AddSeats {
        hold: HoldId,
        user: UserId,
        choice: Choice,
    },
    /// Take a lost hold's seats again, as the new hold `hold`.
    Restore {
        hold: HoldId,
        user: UserId,
        lost: LostHold,
    },
    /// Give a hold back.
    Release { hold: HoldId, user: UserId },
    /// Give one seat of a hold back.
    DropSeat {
        hold: HoldId,
        user: UserId,
        seat: SeatIndex,
    },
    /// Read a hold.
    FindHold { hold: HoldId, user: UserId },
    /// Begin an order: pins the hold.
    OpenOrder {
        order: OrderId,
        payment: PaymentId,
        hold: HoldId,
        user: UserId,
        method: Method,
    },
    /// The order's money is set aside, and its coupon: sell its seats.
    Sell {
        order: OrderId,
        coupon: Option<Redeemed>,
    },
    /// The order's money can't be had: give the hold back to its buyer.
    Abort { order: OrderId },
    /// What became of an order? An unknown one is aborted for ever.
    Resolve { order: OrderId },
    /// Take free seats off sale.
    Block { seats: Seats },
    /// Put them back.
    Unblock { seats: Seats },
    /// Give seats of a confirmed order back; `None`: all that it still has.
    Cancel {
        order: OrderId,
        by: CancelledBy,
        seats: Option<NamedSeats>,
        request: CancelRequest,
    },
    /// The money of a cancel is with its buyer again, durably.
    RefundPaid { order: OrderId, no: CancelNo },
}

impl Command {
    /// How durable its outputs must be before they leave; `holds` is the tier
    /// configured for holds and releases.
    #[must_use]
    pub fn tier(&self, holds: Tier) -> Tier {
        match self {
            Self::Hold { .. }
            | Self::AddSeats { .. }
            | Self::Restore { .. }
            | Self::Release { .. }
            | Self::DropSeat { .. } => holds,
            // A pin is volatile, and what can be read of a hold is no more
            // than its own answer said.
            Self::FindHold { .. } | Self::OpenOrder { .. } | Self::Abort { .. } => Tier::Memory,
            // If this is lost, the refund is looked after once more.
            Self::RefundPaid { .. } => Tier::Memory,
            Self::Sell { .. }
            | Self::Cancel { .. }
            | Self::Resolve { .. }
            | Self::Block { .. }
            | Self::Unblock { .. } => Tier::Database,
        }
    }
}

/// How a hold ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum HoldEnd {
    /// Its owner gave it back.
    Released,
    /// Its time was up.
    Expired,
    /// It was restored by its token, as this hold.
    Restored(HoldId),
}

/// What can happen to a timetable. Serialised into the journal: variants are
/// appended, never reordered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// Seats were taken for a while.
    Held {
        hold: HoldId,
        user: UserId,
        seats: PricedSeats,
        created_at: Timestamp,
        expires_at: Timestamp,
        under_pass: bool,
        /// The lost hold whose place it takes.
        restores: Option<HoldId>,
    },
    /// Seats were added to a hold.
    SeatsAdded { hold: HoldId, seats: PricedSeats },
    /// Seats of a hold were given back; some remain.
    SeatsDropped { hold: HoldId, seats: Seats },
    /// A hold is over; its seats are free at once, or at `free_at`.
    HoldEnded {
        hold: HoldId,
        user: UserId,
        end: HoldEnd,
        free_at: Option<Timestamp>,
    },
    /// A hold lives longer: after a failed payment, or after an outage, which
    /// doesn't move its `deadline`.
    HoldProlonged {
        hold: HoldId,
        expires_at: Timestamp,
        deadline: Timestamp,
    },
    /// Seats whose release was delayed are free. Volatile.
    SeatsCooled { seats: Vec<(Timestamp, SeatIndex)> },
    /// An order pins its hold. Volatile.
    OrderOpened { order: Arc<Order> },
    /// An order came to nothing; its hold is as before. Volatile.
    OrderAborted { order: OrderId },
    /// The seats of an order are sold.
    OrderConfirmed { order: Arc<Order> },
    /// An unknown order was asked about; it can't be opened any more.
    OrderDisowned { order: OrderId },
    /// Seats were taken off sale.
    SeatsBlocked { seats: Seats },
    /// Seats are on sale again.
    SeatsUnblocked { seats: Seats },
    /// Seats of an order were given back; they are free once this is durable, or
    /// at `free_at` if that is later.
    SeatsCancelled {
        order: OrderId,
        cancel: Cancel,
        free_at: Option<Timestamp>,
    },
    /// What a cancel refunds is in the wallet.
    RefundPaid { order: OrderId, no: CancelNo },
}

/// A hold, as its owner sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HoldView {
    /// Which one.
    pub id: HoldId,
    /// What is held.
    pub seats: PricedSeats,
    /// When it ends.
    pub expires_at: Timestamp,
    /// It was made with a pass of the waiting room.
    pub under_pass: bool,
}

impl From<&Hold> for HoldView {
    fn from(hold: &Hold) -> Self {
        Self {
            id: hold.id,
            seats: hold.seats.clone(),
            expires_at: hold.expires_at,
            under_pass: hold.under_pass,
        }
    }
}

/// What the buyer of an order owes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OrderTerms {
    /// How much, before a coupon takes something off.
    pub amount: Money,
    /// The hold was made with a pass of the waiting room.
    pub under_pass: bool,
}

/// What became of an order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Resolution {
    /// Its seats are sold.
    Confirmed(Arc<Order>),
    /// It came to nothing, for ever.
    Aborted,
    /// Its money is still on its way.
    Undecided,
}

/// What a timetable answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The hold as it is now.
    Hold(HoldView),
    /// The hold is over.
    Released,
    /// The hold is pinned.
    Opened(OrderTerms),
    /// The order as it is now.
    Order(Arc<Order>),
    /// The order is not pinned any more.
    Aborted,
    /// What became of the order.
    Resolved(Resolution),
    /// The seats are blocked, or on sale.
    Blocked,
    /// The order, and which of its cancels is the one that was asked for.
    Cancelled { order: Arc<Order>, no: CancelNo },
    /// The refund needs no more looking after.
    RefundNoted,
}

/// Why a timetable did not do what was asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// The sale, or that of a grade, opens later.
    SaleNotOpen {
        opens_at: Timestamp,
        closes_at: Timestamp,
    },
    /// It is over, or the performance is withdrawn.
    SaleClosed {
        opens_at: Timestamp,
        closes_at: Timestamp,
    },
    /// The user would have more seats than allowed.
    SeatLimitExceeded {
        limit: u32,
        have: u32,
        grade: Option<GradeIndex>,
    },
    /// No such seat, or the wrong kind of section.
    UnknownSeat { names: Vec<String>, seats: Seats },
    /// These are taken.
    SeatUnavailable { seats: SmallVec<[SeatIndex; 8]> },
    /// Not that many that fit.
    NoSeatsMatch { available: u32 },
    /// No such hold of this user.
    HoldNotFound,
    /// The hold's time is up.
    HoldExpired,
    /// The hold was given back.
    HoldReleased,
    /// The hold has become an order, or is becoming one.
    HoldAlreadyOrdered { order: OrderId },
    /// The order is not open: it was aborted, or never opened.
    OrderNotOpen,
    /// Too many unfinished orders.
    TooManyOpenOrders,
    /// No such order, or somebody else's.
    OrderNotFound,
    /// The order, or a part of it, can't be cancelled.
    NotCancellable(NotCancellable),
}

/// Why something can't be cancelled.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum NotCancellable {
    /// It could until then.
    TooLate { until: Timestamp },
    /// The order isn't confirmed.
    NotConfirmed,
    /// It was cancelled before: the whole order, or these seats of it.
    Cancelled { seats: Seats },
}
