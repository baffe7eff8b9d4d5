//! A coupon in the saga of an order: its claim is set aside before the money is,
//! and used once the order is confirmed.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::{Purchase, Retry, resolve};
use crate::actors::AskError;
use crate::actors::node::Node;
use crate::domain::coupon::{Command, Discount, Prepare, Refusal, Reply};
use crate::domain::ids::{CouponId, OrderId, TimetableId, UserId};
use crate::domain::timetable::Resolution;

/// How many orders of one coupon are asked about at a time.
const ASKED_AT_ONCE: usize = 32;

/// Ends orders whose sagas are gone: their claims are used if they were
/// confirmed, else given back.
pub async fn settle_claims(node: Arc<Node>, coupon: CouponId, in_doubt: Vec<Prepare>) {
    let settled = stream::iter(in_doubt).map(|prepare| settle(&node, coupon, prepare));
    settled
        .buffer_unordered(ASKED_AT_ONCE)
        .for_each(async |()| {})
        .await;
}

async fn settle(node: &Node, coupon: CouponId, prepare: Prepare) {
    let Prepare {
        user,
        order,
        timetable,
        ..
    } = prepare;
    let mut retry = Retry::default();
    loop {
        match resolve(node, order, timetable).await {
            Ok(Resolution::Confirmed(_)) => return post(node, coupon, user, order).await,
            Ok(Resolution::Aborted) => return void(node, coupon, user, order, timetable).await,
            Ok(Resolution::Undecided) | Err(_) => retry.wait().await,
        }
    }
}

/// Sets the buyer's claim aside for `order`, durably; its reply says what it takes
/// off.
///
/// # Errors
/// [`AskError`]: nothing was done.
pub(super) async fn prepare(
    node: &Node,
    coupon: CouponId,
    purchase: &Purchase,
    order: OrderId,
) -> Result<Result<Discount, Refusal>, AskError> {
    let mut retry = Retry::default();
    let mut asked_about = None;
    loop {
        let prepare = Command::Prepare {
            order,
            user: purchase.user,
            timetable: purchase.timetable,
            performance: purchase.performance,
        };
        match node.coupons.resume(coupon.0, prepare).await {
            Ok(Ok(Reply::Prepared(discount))) => return Ok(Ok(discount)),
            // By an order whose saga may be gone: its timetable knows.
            Ok(Err(Refusal::InUse(held))) if asked_about != Some(held.order) => {
                asked_about = Some(held.order);
                if !is_over(node, coupon, held).await {
                    return Ok(Err(Refusal::InUse(held)));
                }
            }
            Ok(Err(refusal)) => return Ok(Err(refusal)),
            // Certain that nothing was done, unless an earlier try was.
            Err(error) if retry.is_first() && error != AskError::Unknown => return Err(error),
            Ok(Ok(_)) | Err(_) => retry.wait().await,
        }
    }
}

/// Whether the order that has a claim came to nothing: then the claim is free.
async fn is_over(node: &Node, coupon: CouponId, held: Prepare) -> bool {
    let resolved = resolve(node, held.order, held.timetable).await;
    let is_over = matches!(resolved, Ok(Resolution::Aborted));
    if is_over {
        void(node, coupon, held.user, held.order, held.timetable).await;
    }
    is_over
}

/// The order was cancelled with its last seat: its claim is free. Returns once that
/// is durable.
pub async fn give_back(
    node: &Node,
    coupon: CouponId,
    user: UserId,
    order: OrderId,
    timetable: TimetableId,
) {
    let command = || Command::Return {
        order,
        user,
        timetable,
    };
    until_done(node, coupon, command).await;
}

/// The order was confirmed: its claim is used. Returns once that is durable.
pub(super) async fn post(node: &Node, coupon: CouponId, user: UserId, order: OrderId) {
    until_done(node, coupon, || Command::Post { order, user }).await;
}

/// The order came to nothing: its claim is free. Returns once that is durable.
pub(super) async fn void(
    node: &Node,
    coupon: CouponId,
    user: UserId,
    order: OrderId,
    timetable: TimetableId,
) {
    let command = || Command::Void {
        order,
        user,
        timetable,
    };
    until_done(node, coupon, command).await;
}

async fn until_done(node: &Node, coupon: CouponId, command: impl Fn() -> Command) {
    let mut retry = Retry::default();
    while node.coupons.resume(coupon.0, command()).await.is_err() {
        retry.wait().await;
    }
}
