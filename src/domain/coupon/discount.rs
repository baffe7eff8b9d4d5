//! What a coupon takes off an order.

use serde::{Deserialize, Serialize};

use crate::domain::money::Money;

/// The largest percentage.
pub const PERCENT_MAX: u8 = 100;

/// What is taken off the price of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Discount {
    /// So much, in minor units of the order's currency.
    Amount(Money),
    /// So many hundredths of the price, from 1 to [`PERCENT_MAX`].
    Percent(u8),
}

impl Discount {
    /// As in the HTTP contract and in the store.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Amount(_) => "amount",
            Self::Percent(_) => "percent",
        }
    }

    /// As in the HTTP contract and in the store.
    #[must_use]
    pub fn value(self) -> i64 {
        match self {
            Self::Amount(amount) => amount.0,
            Self::Percent(percent) => percent.into(),
        }
    }

    /// The discount of this kind and value; `None` if there is no such kind, or
    /// the value is out of its range.
    #[must_use]
    pub fn of(kind: &str, value: i64) -> Option<Self> {
        match kind {
            "amount" if (1..=Money::MAX_ENTERED.0).contains(&value) => {
                Some(Self::Amount(Money(value)))
            }
            "percent" => u8::try_from(value)
                .ok()
                .filter(|percent| (1..=PERCENT_MAX).contains(percent))
                .map(Self::Percent),
            _ => None,
        }
    }

    /// What it takes off `subtotal`: never more than all of it. Parts of a minor
    /// unit stay in the price.
    #[must_use]
    pub fn off(self, subtotal: Money) -> Money {
        let subtotal = subtotal.max(Money::ZERO);
        match self {
            Self::Amount(amount) => amount.clamp(Money::ZERO, subtotal),
            Self::Percent(percent) => share(subtotal, percent.min(PERCENT_MAX).into(), 100),
        }
    }
}

/// `amount` × `part` ÷ `whole`, rounded down; at most `amount` where `part` is
/// at most `whole`.
fn share(amount: Money, part: i64, whole: i64) -> Money {
    let exact = i128::from(amount.0) * i128::from(part) / i128::from(whole.max(1));
    Money(i64::try_from(exact).unwrap_or(amount.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_percentage_leaves_parts_of_a_unit_in_the_price() {
        assert_eq!(Discount::Percent(33).off(Money(100)), Money(33));
        assert_eq!(Discount::Percent(33).off(Money(10)), Money(3));
        assert_eq!(Discount::Percent(100).off(Money(7)), Money(7));
        assert_eq!(Discount::Amount(Money(9)).off(Money(7)), Money(7));
        assert_eq!(Discount::of("percent", 101), None);
        assert_eq!(Discount::of("amount", 0), None);
        assert_eq!(Discount::of("gift", 1), None);
    }

    proptest! {
        #[test]
        fn an_order_never_costs_less_than_nothing(
            subtotal in 0i64..=12 * Money::MAX_ENTERED.0,
            kind in prop::sample::select(vec!["amount", "percent"]),
            value in prop_oneof![1i64..=100, 1i64..=Money::MAX_ENTERED.0],
        ) {
            let Some(discount) = Discount::of(kind, value) else { return Ok(()) };
            prop_assert_eq!(Discount::of(discount.kind(), discount.value()), Some(discount));
            let off = discount.off(Money(subtotal));
            prop_assert!(Money::ZERO <= off && off <= Money(subtotal));
        }
    }
}
