//! Money and seats in one commit, where one write lane has the account and the
//! timetable.
//!
//! The account sets the money aside, and says so before it is durable; the sale is
//! tied to that ([`Tie`](crate::persistence::batch::Tie)). So whatever dies in
//! between, the database has both, or the money alone, or nothing, as it does with
//! two commits, and never the sale alone. Whatever doesn't go as it should is left
//! to the two commits, which find out how far this came: every step is idempotent
//! by order id.

use std::sync::Arc;

use super::Saga;
use crate::actors::route::Door;
use crate::domain::account;
use crate::domain::ids::{OrderId, shard_of};
use crate::domain::money::Money;
use crate::domain::order::Order;
use crate::domain::timetable;
use crate::domain::timetable::command::Redeemed;
#[cfg(feature = "sabotage")]
use crate::sabotage::{self, Point, Switch};

impl Saga {
    /// The order, durable, if it could be done so.
    pub(super) async fn sell_together(
        &self,
        order: OrderId,
        amount: Money,
        coupon: Option<Redeemed>,
    ) -> Option<Arc<Order>> {
        let (user, timetable) = (self.purchase.user.0, self.purchase.timetable.0);
        if !self.is_one_lane() {
            return None;
        }
        let prepare = self.prepare_command(order, amount);
        let ahead = self.node.accounts.resume_ahead(user, prepare).await;
        let Ok((Ok(account::Reply::Done), tie)) = ahead else {
            return None;
        };
        #[cfg(feature = "sabotage")]
        sabotage::pass(Point::OrderPrepared);
        let sell = timetable::Command::Sell { order, coupon };
        let sold = self.node.timetables.resume_tied(timetable, sell, tie).await;
        match sold {
            Ok(Ok(timetable::Reply::Order(order))) => Some(order),
            Ok(_) | Err(_) => None,
        }
    }

    fn is_one_lane(&self) -> bool {
        #[cfg(feature = "sabotage")]
        if sabotage::is_on(Switch::TwoCommits) {
            return false;
        }
        let node = &self.node;
        let account = shard_of(self.purchase.user.0);
        let timetable = shard_of(self.purchase.timetable.0);
        let is_ours = |shard| node.route.takes(shard, Door::Continuation);
        is_ours(account) && is_ours(timetable) && node.lanes.are_one(account, timetable)
    }
}
