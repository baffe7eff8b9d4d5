//! Orders: the purchase of a hold's seats.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::ids::{HoldId, OrderId, PaymentId, UserId};
use super::money::Money;
use super::seat::SeatIndex;
use super::time::Timestamp;

/// A seat at the price it had when it was held: later changes of prices don't
/// touch it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PricedSeat {
    /// Which seat.
    pub seat: SeatIndex,
    /// At which price.
    pub price: Money,
}

/// The seats of one hold or order.
pub type PricedSeats = SmallVec<[PricedSeat; 2]>;

/// What all `seats` cost.
#[must_use]
pub fn total(seats: &[PricedSeat]) -> Money {
    seats.iter().map(|seat| seat.price).sum()
}

/// How an order is paid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// From the buyer's wallet.
    Wallet,
    /// By a card, at the gateway.
    Card,
}

impl Method {
    /// As in the HTTP contract and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wallet => "wallet",
            Self::Card => "card",
        }
    }
}

/// How far an order has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Its hold is pinned; the money is on its way.
    AwaitingPayment,
    /// Its seats are sold.
    Confirmed,
}

impl OrderStatus {
    /// As in the HTTP contract and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingPayment => "awaiting_payment",
            Self::Confirmed => "confirmed",
        }
    }
}

/// A purchase. It is part of its timetable's state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Which one.
    pub id: OrderId,
    /// The buyer.
    pub user: UserId,
    /// The hold it was made from.
    pub hold: HoldId,
    /// Its payment.
    pub payment: PaymentId,
    /// How it is paid.
    pub method: Method,
    /// How far it has come.
    pub status: OrderStatus,
    /// What is bought.
    pub seats: PricedSeats,
    /// What is taken off the price.
    pub discount: Money,
    /// When it was opened.
    pub created_at: Timestamp,
}

impl Order {
    /// The price before the discount.
    #[must_use]
    pub fn subtotal(&self) -> Money {
        total(&self.seats)
    }

    /// What is paid.
    #[must_use]
    pub fn amount(&self) -> Money {
        self.subtotal().minus(self.discount)
    }
}
