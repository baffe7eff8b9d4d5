//! Rows of coupons, in columns.

use futures_util::TryStreamExt as _;

use super::reader::{Reader, last_event_seq, version};
use super::row::StoredRow;
use crate::domain::account::KeyHash;
use crate::domain::coupon::{Claim, Claimants, CouponState, Discount, Prepare, Terms, VOID_MAX};
use crate::domain::ids::{CouponClaimId, CouponId, OrderId, PerformanceId, TimetableId, UserId};
use crate::persistence::StoreError;
use crate::persistence::rows::COUPONS_TOPIC;
use crate::persistence::store::coupons::{ClaimRow, ClaimUse};
use crate::persistence::store::entities::Loaded;

/// Reads a coupon. It takes one snapshot to do that.
pub(in crate::persistence) async fn load(
    c: &mut impl Reader,
    id: CouponId,
) -> Result<Loaded<CouponState>, StoreError> {
    let stamp = version(c, id.into()).await?.unwrap_or_default();
    let of = id.0.into();
    let coupon = c.one(COUPON, &[of]).await?;
    let about = coupon.as_ref().map_or(Ok(0), claimed)?;
    let terms = coupon.as_ref().map(|row| terms(row, 0)).transpose()?;
    let claimants = claimants(c, id, about).await?;
    let prepared = c.all(PREPARED, &[of]).await?;
    let posted = c.all(POSTED, &[of]).await?;
    let void_max = i64::try_from(VOID_MAX).unwrap_or(i64::MAX);
    let void = c.all(VOID, &[of, void_max.into()]).await?;
    let last_event_seq = last_event_seq(c, id.0, COUPONS_TOPIC).await?;
    let state = CouponState {
        terms,
        claimants,
        prepared: prepared.iter().map(prepare).collect::<Result<_, _>>()?,
        posted: posted
            .iter()
            .map(|row| Ok((UserId(row.cell(0)?), OrderId(row.cell(1)?))))
            .collect::<Result<_, StoreError>>()?,
        void: void
            .iter()
            .rev()
            .map(|row| row.cell(0).map(OrderId))
            .collect::<Result<_, _>>()?,
    };
    Ok(Loaded {
        state,
        stamp,
        last_event_seq,
    })
}

async fn claimants(c: &mut impl Reader, id: CouponId, about: u32) -> Result<Claimants, StoreError> {
    let mut claimants = Claimants::with_room(about as usize);
    let mut users = c.rows(CLAIMANTS, &[id.0.into()]);
    while let Some(row) = users.try_next().await? {
        claimants.insert(UserId(row.cell(0)?));
    }
    Ok(claimants)
}

const CLAIMANTS: &str = "SELECT user_id FROM coupon_claim WHERE coupon_id = $1";

const PREPARED: &str = "SELECT user_id, order_id, timetable_id, at FROM coupon_use \
     WHERE coupon_id = $1 AND state = 'prepared'";

const POSTED: &str =
    "SELECT user_id, order_id FROM coupon_use WHERE coupon_id = $1 AND state = 'posted'";

/// The last ones: ids of orders begin with the time.
const VOID: &str = "SELECT order_id FROM coupon_use \
     WHERE coupon_id = $1 AND state IN ('void', 'returned') ORDER BY order_id DESC LIMIT $2";

/// One coupon: its [`terms`], and how many claims it counts.
pub(in crate::persistence) const COUPON: &str = "SELECT name, discount_kind, discount_value, \
     stock, starts_at, ends_at, performance_id, owner, created_at, claimed FROM coupon \
     WHERE id = $1";

/// How many claims the row of [`COUPON`] counts.
pub(in crate::persistence) fn claimed(row: &impl StoredRow) -> Result<u32, StoreError> {
    row.unsigned(9)
}

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

/// The claim of a user on a coupon.
pub(in crate::persistence) const CLAIM: &str = "SELECT id, user_id, claimed_at, key \
     FROM coupon_claim WHERE coupon_id = $1 AND user_id = $2";

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

/// The claims of user `$1`, newest first, each a [`claim_row`]; the rest of the
/// statement says which.
macro_rules! select_claims {
    ($rest:literal) => {
        concat!(
            "SELECT c.id, c.user_id, c.claimed_at, c.key, c.coupon_id, u.state, u.order_id, \
                    p.name, p.discount_kind, p.discount_value, p.stock, p.starts_at, p.ends_at, \
                    p.performance_id, p.owner, p.created_at \
             FROM coupon_claim AS c JOIN coupon AS p ON p.id = c.coupon_id \
             LEFT JOIN coupon_use AS u ON u.coupon_id = c.coupon_id AND u.user_id = c.user_id \
               AND u.state IN ('prepared', 'posted') \
             WHERE c.user_id = $1 ",
            $rest
        )
    };
}
pub(in crate::persistence) use select_claims;

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
