//! Rows of coupons, in columns.

use super::row::StoredRow;
use crate::domain::account::KeyHash;
use crate::domain::coupon::{Claim, Discount, Prepare, Terms};
use crate::domain::ids::{CouponClaimId, CouponId, OrderId, PerformanceId, TimetableId, UserId};
use crate::persistence::StoreError;
use crate::persistence::store::coupons::{ClaimRow, ClaimUse};

/// name, `discount_kind`, `discount_value`, stock, `starts_at`, `ends_at`,
/// `performance_id`, owner, `created_at`; from column `at` on
pub(in crate::persistence) fn terms(row: &impl StoredRow, at: usize) -> Result<Terms, StoreError> {
    let kind: String = row.cell(at + 1)?;
    let value = row.cell(at + 2)?;
    let discount = Discount::of(&kind, value)
        .ok_or_else(|| StoreError::Unreadable(format!("a discount: {kind} {value}")))?;
    Ok(Terms {
        name: row.cell(at)?,
        discount,
        stock: row.unsigned(at + 3)?,
        starts_at: row.time(at + 4)?,
        ends_at: row.time(at + 5)?,
        performance: row.cell::<Option<uuid::Uuid>>(at + 6)?.map(PerformanceId),
        owner: UserId(row.cell(at + 7)?),
        created_at: row.time(at + 8)?,
    })
}

/// id, user, `claimed_at`, key
pub(in crate::persistence) fn claim(row: &impl StoredRow) -> Result<Claim, StoreError> {
    Ok(Claim {
        id: CouponClaimId(row.cell(0)?),
        user: UserId(row.cell(1)?),
        at: row.time(2)?,
        // The column is signed; the bits are what counts.
        key: row
            .cell::<Option<i64>>(3)?
            .map(|key| KeyHash(key.cast_unsigned())),
    })
}

/// A claim, the coupon, state and order of its live use (or null), and terms.
pub(in crate::persistence) fn claim_row(row: &impl StoredRow) -> Result<ClaimRow, StoreError> {
    let state: Option<String> = row.cell(5)?;
    let order = || row.cell(6).map(OrderId);
    let used = match state.as_deref() {
        None => ClaimUse::Available,
        Some("prepared") => ClaimUse::Reserved(order()?),
        Some("posted") => ClaimUse::Used(order()?),
        Some(other) => {
            return Err(StoreError::Unreadable(format!(
                "the state of a use: {other}"
            )));
        }
    };
    Ok(ClaimRow {
        claim: claim(row)?,
        coupon: CouponId(row.cell(4)?),
        terms: terms(row, 7)?,
        used,
    })
}

/// user, order, timetable, time
pub(in crate::persistence) fn prepare(row: &impl StoredRow) -> Result<Prepare, StoreError> {
    Ok(Prepare {
        user: UserId(row.cell(0)?),
        order: OrderId(row.cell(1)?),
        timetable: TimetableId(row.cell(2)?),
        at: row.time(3)?,
    })
}
