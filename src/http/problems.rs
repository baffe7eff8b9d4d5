//! How refusals and failures become problems: the only place where that is
//! decided.

use serde_json::{Value, json};

use super::error::{Code, Problem};
use crate::actors::AskError;
use crate::domain::account;
use crate::domain::coupon::{self, Unusable};
use crate::domain::plan::Plan;
use crate::domain::queue;
use crate::domain::seat::SeatIndex;
use crate::domain::timetable;
use crate::persistence::StoreError;

/// How long a client waits after a limit on unfinished work, in seconds.
const UNFINISHED_RETRY_SECONDS: u32 = 5;

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Overloaded => Self::overloaded(),
            AskError::StoreUnavailable => Self::store_unavailable(),
            AskError::Unknown => Self::store_unavailable().detail(
                "It is not known whether the request was carried out. Send it again with the same \
                 Idempotency-Key, or look at the result first.",
            ),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => {
                Self::store_unavailable().caused_by(cause.to_string())
            }
            StoreError::Constraint { .. }
            | StoreError::Broken(_)
            | StoreError::Unfit(_)
            | StoreError::Defect(_)
            | StoreError::Apart
            | StoreError::Unreadable(_) => Self::internal(&error),
        }
    }
}

/// The refusal of a timetable.
pub fn timetable_refusal(plan: &Plan, refusal: timetable::Refusal) -> Problem {
    use timetable::Refusal as R;
    match refusal {
        R::SaleNotOpen {
            opens_at,
            closes_at,
        } => Problem::new(Code::SaleNotOpen)
            .with("opens_at", json!(opens_at))
            .with("closes_at", json!(closes_at)),
        R::SaleClosed {
            opens_at,
            closes_at,
        } => Problem::new(Code::SaleClosed)
            .with("opens_at", json!(opens_at))
            .with("closes_at", json!(closes_at)),
        R::SeatLimitExceeded { limit, have, grade } => {
            let grade = grade
                .and_then(|index| plan.grade(index))
                .map(|grade| &grade.name);
            Problem::new(Code::SeatLimitExceeded)
                .with("limit", limit)
                .with("have", have)
                .with("grade", json!(grade))
        }
        R::UnknownSeat { names, seats } => {
            let mut ids = names;
            ids.extend(
                seats
                    .iter()
                    .map(|seat| plan.layout.name_of(*seat).to_string()),
            );
            Problem::new(Code::UnknownSeat).with("seat_ids", json!(ids))
        }
        R::SeatUnavailable { seats } => {
            Problem::new(Code::SeatUnavailable).with("seat_ids", seat_ids(plan, &seats))
        }
        R::NoSeatsMatch { available } => {
            Problem::new(Code::NoSeatsMatch).with("available", available)
        }
        R::HoldNotFound => Code::HoldNotFound.into(),
        R::HoldExpired => Code::HoldExpired.into(),
        R::HoldReleased => Problem::new(Code::HoldNotFound).detail("the hold was released"),
        R::HoldAlreadyOrdered { order } => {
            Problem::new(Code::HoldAlreadyOrdered).with("order_id", json!(order))
        }
        R::OrderNotOpen => Problem::store_unavailable(),
        R::OrderNotFound => Code::OrderNotFound.into(),
        R::NotCancellable(why) => not_cancellable(plan, &why),
        R::TooManyOpenOrders => Problem::overloaded().retry_after(UNFINISHED_RETRY_SECONDS),
    }
}

fn not_cancellable(plan: &Plan, why: &timetable::NotCancellable) -> Problem {
    use timetable::NotCancellable as N;
    let problem = Problem::new(Code::NotCancellable);
    match why {
        N::TooLate { until } => problem
            .detail("It is too late: it could be cancelled until `until`.")
            .with("until", json!(until)),
        N::NotConfirmed => problem.detail("The order is not confirmed."),
        N::Cancelled { seats } => problem
            .detail("The seats in `seat_ids` were cancelled before.")
            .with("seat_ids", seat_ids(plan, seats)),
    }
}

/// The refusal of an account.
pub fn account_refusal(refusal: &account::Refusal) -> Problem {
    use account::Refusal as R;
    match refusal {
        R::KeyReused => Code::IdempotencyKeyReused.into(),
        R::TooManyKeys => Problem::new(Code::RateLimited)
            .detail(format!(
                "more than {} idempotency keys within a day",
                account::KEYS_MAX
            ))
            .retry_after(3600),
        R::InsufficientBalance { balance } => {
            Problem::new(Code::InsufficientBalance).with("balance", json!(balance))
        }
        R::BalanceTooLarge => Problem::invalid_field(
            "amount",
            format!("the balance may not pass {}", account::BALANCE_MAX),
        ),
        R::TooManyUnfinishedOrders => Problem::overloaded().retry_after(UNFINISHED_RETRY_SECONDS),
        // Of a saga's steps: it asks again by itself.
        R::OrderIsVoid | R::AskTheStore { .. } => Problem::store_unavailable(),
    }
}

/// The refusal of a coupon.
pub fn coupon_refusal(refusal: &coupon::Refusal) -> Problem {
    use coupon::Refusal as R;
    match refusal {
        R::NotFound => Code::CouponNotFound.into(),
        R::NotOpen { starts_at, ends_at } => Problem::new(Code::CouponNotOpen)
            .with("starts_at", json!(starts_at))
            .with("ends_at", json!(ends_at)),
        R::SoldOut => Code::CouponSoldOut.into(),
        R::AlreadyClaimed => Code::CouponAlreadyClaimed.into(),
        R::HasClaims { claimed } => Problem::new(Code::CouponHasClaims).with("claimed", *claimed),
        R::EndsBeforeStart => Problem::invalid_field("ends_at", "must be after starts_at"),
        R::NotUsable(why) => Problem::new(Code::CouponNotUsable).detail(match why {
            Unusable::NotClaimed => "no such coupon claim of yours",
            Unusable::Used => "an order has used it",
            Unusable::Expired => "the coupon is over",
            Unusable::OtherPerformance => "the coupon is for another performance",
        }),
        R::InUse(_) => {
            Problem::new(Code::CouponNotUsable).detail("an order that is under way has it")
        }
        R::OrderIsVoid => Problem::store_unavailable(),
        R::TooManyUnfinishedOrders => Problem::overloaded().retry_after(UNFINISHED_RETRY_SECONDS),
    }
}

/// The refusal of a queue.
pub fn queue_refusal(refusal: queue::Refusal) -> Problem {
    use queue::Refusal as R;
    match refusal {
        R::NotInQueue => Code::NotInQueue.into(),
        R::QueueFull => Code::QueueFull.into(),
        R::QueueClosed => Code::QueueClosed.into(),
        R::NothingToExtend => Code::NothingToExtend.into(),
        // It has been given one; that it isn't there means that it was reloaded.
        R::SeedMissing => Problem::store_unavailable(),
        R::NoDraw => Problem::new(Code::NotFound).detail("This queue opens without a lottery."),
    }
}

fn seat_ids(plan: &Plan, seats: &[SeatIndex]) -> Value {
    seats
        .iter()
        .map(|seat| plan.layout.name_of(*seat).to_string())
        .collect()
}
