//! A coupon in the saga of an order: its claim is set aside before the money is,
//! and used once the order is confirmed.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::{Retry, resolve};
use crate::actors::node::Node;
use crate::domain::coupon::{Command, Prepare};
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
