//! The names of the constraints that have a meaning above the store: they are a
//! contract, the same in [`StoreError::Constraint`](super::StoreError) whichever
//! store refused the row.

/// Of the unique index on a live user's e-mail.
pub const EMAIL_IS_UNIQUE: &str = "user_email_is_unique";

/// Of the second barrier behind the timetable's actor.
pub const A_SEAT_IS_SOLD_ONCE: &str = "a_seat_is_sold_once";

/// Of the check on wallets.
pub const A_BALANCE_IS_NEVER_BELOW_ZERO: &str = "a_balance_is_never_below_zero";

/// Of the second barrier behind the queue's actor.
pub const A_NUMBER_IS_GIVEN_ONCE: &str = "a_number_is_given_once";

/// Of the second barrier behind the coupon's actor: one claim a user.
pub const A_COUPON_IS_CLAIMED_ONCE: &str = "a_coupon_is_claimed_once";

/// Of the check on the claims of a coupon.
pub const CLAIMS_ARE_WITHIN_THE_STOCK: &str = "claims_are_within_the_stock";

/// Of the second barrier behind the coupon's actor: one order at a time has a
/// claim.
pub const A_CLAIM_IS_USED_ONCE: &str = "a_claim_is_used_once";

/// Of the second barrier behind the timetable's cancels.
pub const A_CANCEL_IS_NUMBERED_ONCE: &str = "a_cancel_is_numbered_once";

/// Of the second barrier behind an account's refunds.
pub const A_REFUND_IS_CREDITED_ONCE: &str = "a_refund_is_credited_once";

/// SQLite names the columns of a unique constraint, not the constraint.
const BY_COLUMNS: [(&str, &str); 7] = [
    ("user.email", EMAIL_IS_UNIQUE),
    (
        "sold_seat.timetable_id, sold_seat.seat",
        A_SEAT_IS_SOLD_ONCE,
    ),
    (
        "queue_place.queue_id, queue_place.number",
        A_NUMBER_IS_GIVEN_ONCE,
    ),
    (
        "coupon_claim.coupon_id, coupon_claim.user_id",
        A_COUPON_IS_CLAIMED_ONCE,
    ),
    (
        "coupon_use.coupon_id, coupon_use.user_id",
        A_CLAIM_IS_USED_ONCE,
    ),
    (
        "cancellation.order_id, cancellation.no",
        A_CANCEL_IS_NUMBERED_ONCE,
    ),
    (
        "credit.user_id, credit.order_id, credit.no",
        A_REFUND_IS_CREDITED_ONCE,
    ),
];

/// The name of the constraint over these columns, as SQLite tells them; the
/// text itself where it has none.
pub(crate) fn of_columns(columns: &str) -> &str {
    BY_COLUMNS
        .iter()
        .find(|(known, _)| *known == columns)
        .map_or(columns, |(_, name)| name)
}
