//! Orders: the purchase of a hold's seats.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::ids::{CouponId, HoldId, OrderId, PaymentId, UserId};
use super::money::Money;
use super::seat::{SeatIndex, Seats};
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
    /// They were, and all of them were cancelled.
    Cancelled,
}

impl OrderStatus {
    /// As in the HTTP contract and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingPayment => "awaiting_payment",
            Self::Confirmed => "confirmed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Which of the cancels of an order, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CancelNo(pub u32);

impl std::fmt::Display for CancelNo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Names the request that asked for a cancel, so that its repetition, whenever it
/// comes, is told what became of the first: a hash of its idempotency key and of
/// what it asked, or a random number where it has no key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CancelRequest(pub u64);

/// Seats of an order that were given back, once and for all.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cancel {
    /// Which one.
    pub no: CancelNo,
    /// Who asked for it.
    pub request: CancelRequest,
    /// The seats, in the order's order; one at least.
    pub seats: Seats,
    /// What goes back for them; zero where nothing was paid.
    pub refund: Money,
    /// When.
    pub at: Timestamp,
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
    /// The coupon that takes it off.
    pub coupon: Option<CouponId>,
    /// When it was opened.
    pub created_at: Timestamp,
    /// What was cancelled of it since, in the order in which that happened.
    pub cancels: Vec<Cancel>,
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

    /// What was paid for each of [`Order::seats`]; together it is the amount.
    #[must_use]
    pub fn paid(&self) -> SmallVec<[Money; 2]> {
        paid(&self.seats, self.discount)
    }

    /// Whether a seat of it was given back.
    #[must_use]
    pub fn is_cancelled(&self, seat: SeatIndex) -> bool {
        self.is_cancelled_by(seat, CancelNo(u32::MAX))
    }

    /// The same, as it was after the cancel `upto`.
    #[must_use]
    pub fn is_cancelled_by(&self, seat: SeatIndex, upto: CancelNo) -> bool {
        let cancels = self.cancels.iter().take_while(|cancel| cancel.no <= upto);
        cancels
            .flat_map(|cancel| &cancel.seats)
            .any(|gone| *gone == seat)
    }

    /// The seats that are its buyer's still.
    #[must_use]
    pub fn kept(&self) -> PricedSeats {
        let kept = |priced: &&PricedSeat| !self.is_cancelled(priced.seat);
        self.seats.iter().filter(kept).copied().collect()
    }

    /// How far it had come after the cancel `upto`.
    #[must_use]
    pub fn status_after(&self, upto: CancelNo) -> OrderStatus {
        let mut seats = self.seats.iter();
        if seats.all(|priced| self.is_cancelled_by(priced.seat, upto)) {
            OrderStatus::Cancelled
        } else {
            OrderStatus::Confirmed
        }
    }

    /// What had gone back after the cancel `upto`.
    #[must_use]
    pub fn refunded_after(&self, upto: CancelNo) -> Money {
        let cancels = self.cancels.iter().take_while(|cancel| cancel.no <= upto);
        cancels.map(|cancel| cancel.refund).sum()
    }

    /// What went back of it, or is on its way.
    #[must_use]
    pub fn refunded(&self) -> Money {
        self.refunded_after(CancelNo(u32::MAX))
    }

    /// Whether something goes back for a cancel of it, which has to be looked after
    /// until it has come in.
    #[must_use]
    pub fn owes(&self, cancel: &Cancel) -> bool {
        let is_money_due = self.method == Method::Wallet && cancel.refund > Money::ZERO;
        is_money_due || self.coupon_due(cancel).is_some()
    }

    /// The coupon that goes back with a cancel of it: that of the last seat.
    #[must_use]
    pub fn coupon_due(&self, cancel: &Cancel) -> Option<CouponId> {
        let before = CancelNo(cancel.no.0.saturating_sub(1));
        let is_last = self.status_after(cancel.no) == OrderStatus::Cancelled
            && self.status_after(before) != OrderStatus::Cancelled;
        self.coupon.filter(|_| is_last)
    }

    /// Adds a cancel; with the last seat the order is over.
    pub fn cancel(&mut self, cancel: Cancel) {
        self.cancels.push(cancel);
        self.status = self.status_after(CancelNo(u32::MAX));
    }
}

/// What each of `seats` costs once `discount`, at most their total, is spread over
/// them: by price, rounded down, and what remains on the last (the HTTP contract);
/// what the last can't take, because no seat costs less than nothing, the one before
/// it does, and so on.
#[must_use]
pub fn paid(seats: &[PricedSeat], discount: Money) -> SmallVec<[Money; 2]> {
    let subtotal = i128::from(total(seats).0).max(1);
    let part = |priced: &PricedSeat| {
        let part = i128::from(priced.price.0) * i128::from(discount.0) / subtotal;
        // No more than the price, which is an `i64`.
        priced.price.minus(Money(i64::try_from(part).unwrap_or(0)))
    };
    let mut paid: SmallVec<[Money; 2]> = seats.iter().map(part).collect();
    let taken = total(seats).minus(paid.iter().copied().sum());
    let mut rest = discount.minus(taken);
    for price in paid.iter_mut().rev() {
        let more = rest.min(*price);
        *price = price.minus(more);
        rest = rest.minus(more);
    }
    paid
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seats(prices: &[i64]) -> PricedSeats {
        let priced = |(seat, price): (u32, &i64)| PricedSeat {
            seat: SeatIndex(seat),
            price: Money(*price),
        };
        (0u32..).zip(prices).map(priced).collect()
    }

    fn spread(prices: &[i64], discount: i64) -> Vec<i64> {
        let paid = paid(&seats(prices), Money(discount));
        paid.iter().map(|money| money.0).collect()
    }

    #[test]
    fn a_discount_is_spread_by_price_and_what_remains_is_on_the_last() {
        assert_eq!(spread(&[300, 200, 500], 100), [270, 180, 450]);
        assert_eq!(spread(&[100, 100, 100], 100), [67, 67, 66]);
        assert_eq!(spread(&[100, 100], 0), [100, 100]);
        assert_eq!(spread(&[0, 0], 0), [0, 0]);
        // The last can't take all that remains.
        assert_eq!(spread(&[1, 1, 1], 2), [1, 0, 0]);
    }

    proptest! {
        #[test]
        fn what_is_paid_for_each_seat_sums_to_the_amount_and_is_never_negative(
            prices in prop::collection::vec(0i64..=Money::MAX_ENTERED.0, 1..8),
            share in 0u32..=1_000,
        ) {
            let subtotal: i64 = prices.iter().sum();
            let discount = i64::try_from(i128::from(subtotal) * i128::from(share) / 1_000).unwrap();
            let paid = spread(&prices, discount);
            prop_assert_eq!(paid.iter().sum::<i64>(), subtotal - discount);
            for (paid, price) in paid.iter().zip(&prices) {
                prop_assert!((0..=*price).contains(paid));
            }
        }
    }
}
