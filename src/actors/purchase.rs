//! The saga of an order that is paid from the wallet.
//!
//! 1. The account reserves the request's idempotency key (in memory):
//!    [`reserve_key`], before anything else is looked at.
//! 2. The timetable pins the hold (in memory).
//! 3. The coupon, if there is one, sets its claim aside: a commit of its own
//!    ([`participant`]). Its reply says what it takes off.
//! 4. The account sets the money aside and claims the key: first commit.
//! 5. The timetable sells the seats: second commit, the only point at which
//!    the order becomes true. The answer leaves. Where one write lane has both
//!    the account and the timetable, the two are one commit (`together`).
//! 6. The account spends the money, and the claim is used, after the answer.
//!
//! An unknown outcome is never compensated, only asked again: every step is
//! idempotent by order id. If the process dies in between, the account finds
//! the money set aside when it is next loaded (at start), and [`settle`] asks
//! the timetable, which answers from what is durable. A coupon does the same. If
//! only the node of the saga dies, and the account lives on elsewhere, it does so
//! once no order can be open for so long ([`is_gone`]).
//!
//! The saga runs in a task of its own: a client that hangs up doesn't stop it.

mod keys;
pub mod participant;
mod together;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub use self::keys::{ask_for_key, free_key, reserve_key};
use super::AskError;
use super::node::{Node, SWEEP_EVERY};
use crate::domain::account::{self, KeyClaim, Prepare};
use crate::domain::coupon;
use crate::domain::ids::{
    CouponId, HoldId, OrderId, PaymentId, PerformanceId, TimetableId, UserId, shard_of, with_shard,
};
use crate::domain::money::Money;
use crate::domain::order::{Method, Order};
use crate::domain::time::Timestamp;
use crate::domain::timetable::command::{LostHold, Redeemed};
use crate::domain::timetable::{self, OPEN_FOR_MAX, OrderTerms, Resolution};
#[cfg(feature = "sabotage")]
use crate::sabotage::{self, Point, Switch};
use crate::trace;

/// The first wait before an unknown outcome is asked about again, and the
/// longest.
const RETRY_MIN_MS: u64 = 20;
const RETRY_MAX_MS: u64 = 1_000;

/// What a buyer asks for.
#[derive(Clone, Debug)]
pub struct Purchase {
    /// The buyer.
    pub user: UserId,
    /// The hold.
    pub hold: HoldId,
    /// The timetable it is on.
    pub timetable: TimetableId,
    /// The hold as its token tells it, if the buyer sent one, and the id under
    /// which it comes back.
    pub lost: Option<(HoldId, LostHold)>,
    /// The request's idempotency key, reserved.
    pub key: KeyClaim,
    /// How it is paid. An order of amount 0 is confirmed by any method.
    pub method: Method,
    /// A coupon that the buyer has claimed.
    pub coupon: Option<CouponId>,
    /// What the timetable is a date of.
    pub performance: PerformanceId,
    /// The buyer has shown a pass of the waiting room that lets them in now.
    pub may_order: bool,
    /// Only holds made under a pass may be ordered without one.
    pub needs_pass: bool,
}

/// How a purchase ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// The order is confirmed; `replayed` if it was before.
    Confirmed { order: Arc<Order>, replayed: bool },
    /// An earlier request under the key has this stored answer.
    Answered,
    /// An earlier request under the key still runs.
    KeyInUse,
    /// The timetable refused.
    Timetable(timetable::Refusal),
    /// The account refused.
    Account(account::Refusal),
    /// The coupon refused.
    Coupon(coupon::Refusal),
    /// The performance has a waiting room, and neither the hold nor the buyer
    /// has a pass.
    PassRequired,
    /// There is no card gateway to pay at.
    GatewayUnavailable,
}

/// Runs a purchase to its end, whoever waits for it.
///
/// # Errors
/// [`AskError`]; unless it is [`AskError::Unknown`], nothing was done.
pub async fn purchase(node: Arc<Node>, purchase: Purchase) -> Result<Ended, AskError> {
    let saga = Saga { node, purchase };
    tokio::spawn(trace::carried(saga.run()))
        .await
        .unwrap_or(Err(AskError::Unknown))
}

struct Saga {
    node: Arc<Node>,
    purchase: Purchase,
}

impl Saga {
    async fn run(self) -> Result<Ended, AskError> {
        let order = OrderId(self.new_id());
        let terms = match self.open(order).await {
            Ok(Ok(terms)) => terms,
            Ok(Err(ended)) => return Ok(ended),
            Err(error) => {
                // It may be open all the same.
                self.abort(order).await;
                self.free_key(None).await;
                return Err(error);
            }
        };
        if self.purchase.needs_pass && !terms.under_pass && !self.purchase.may_order {
            self.abort(order).await;
            return Ok(Ended::PassRequired);
        }
        #[cfg(feature = "sabotage")]
        sabotage::pass(Point::OrderOpened);
        let redeemed = match self.redeem(order, terms).await {
            Ok(Ok(redeemed)) => redeemed,
            Ok(Err(ended)) => {
                self.abort(order).await;
                return Ok(ended);
            }
            Err(error) => {
                self.abort(order).await;
                self.free_key(None).await;
                return Err(error);
            }
        };
        #[cfg(feature = "sabotage")]
        sabotage::pass(Point::OrderDiscounted);
        let amount = terms
            .amount
            .minus(redeemed.map_or(Money::ZERO, |redeemed| redeemed.discount));
        if self.purchase.method == Method::Card && amount > Money::ZERO {
            self.give_up(order).await;
            return Ok(Ended::GatewayUnavailable);
        }
        if let Some(order) = self.sell_together(order, amount, redeemed).await {
            return Ok(self.confirmed(order));
        }
        match self.prepare(order, amount).await {
            Ok(None) => {
                #[cfg(feature = "sabotage")]
                sabotage::pass(Point::OrderPrepared);
                self.sell(order, redeemed).await
            }
            Ok(Some(ended)) => {
                self.give_up(order).await;
                Ok(ended)
            }
            Err(error) => {
                self.give_up(order).await;
                self.free_key(Some(order)).await;
                Err(error)
            }
        }
    }

    /// The order comes to nothing: its coupon is free again, and its hold.
    async fn give_up(&self, order: OrderId) {
        self.void_claim(order).await;
        self.abort(order).await;
    }

    async fn void_claim(&self, order: OrderId) {
        #[cfg(feature = "sabotage")]
        if sabotage::is_on(Switch::NoClaimVoid) {
            return;
        }
        let (user, timetable) = (self.purchase.user, self.purchase.timetable);
        if let Some(coupon) = self.purchase.coupon {
            participant::void(&self.node, coupon, user, order, timetable).await;
        }
    }

    /// Sets the claim aside, durably, and tells what it takes off.
    async fn redeem(
        &self,
        order: OrderId,
        terms: OrderTerms,
    ) -> Result<Result<Option<Redeemed>, Ended>, AskError> {
        let Some(coupon) = self.purchase.coupon else {
            return Ok(Ok(None));
        };
        let prepared = participant::prepare(&self.node, coupon, &self.purchase, order).await?;
        Ok(prepared.map_err(Ended::Coupon).map(|discount| {
            Some(Redeemed {
                coupon,
                discount: discount.off(terms.amount),
            })
        }))
    }

    fn new_id(&self) -> Uuid {
        with_shard(Uuid::now_v7(), shard_of(self.purchase.timetable.0))
    }

    /// Pins the hold; one that the server lost is first restored by its token.
    async fn open(&self, order: OrderId) -> Result<Result<OrderTerms, Ended>, AskError> {
        match self.open_hold(order, self.purchase.hold).await? {
            Err(timetable::Refusal::HoldNotFound) => {}
            Ok(terms) => return Ok(Ok(terms)),
            Err(refusal) => return Ok(Err(Ended::Timetable(refusal))),
        }
        let Some((hold, lost)) = self.purchase.lost.clone() else {
            return Ok(Err(Ended::Timetable(timetable::Refusal::HoldNotFound)));
        };
        let restore = timetable::Command::Restore {
            hold,
            user: self.purchase.user,
            lost,
        };
        let restored = self
            .node
            .timetables
            .ask(self.purchase.timetable.0, restore)
            .await?;
        let hold = match restored {
            Ok(timetable::Reply::Hold(hold)) => hold.id,
            Ok(_) => self.purchase.hold,
            Err(refusal) => return Ok(Err(Ended::Timetable(refusal))),
        };
        Ok(self.open_hold(order, hold).await?.map_err(Ended::Timetable))
    }

    async fn open_hold(
        &self,
        order: OrderId,
        hold: HoldId,
    ) -> Result<Result<OrderTerms, timetable::Refusal>, AskError> {
        let open = timetable::Command::OpenOrder {
            order,
            payment: PaymentId(self.new_id()),
            hold,
            user: self.purchase.user,
            method: self.purchase.method,
        };
        match self
            .node
            .timetables
            .ask(self.purchase.timetable.0, open)
            .await?
        {
            Ok(timetable::Reply::Opened(terms)) => Ok(Ok(terms)),
            Ok(_) => Err(AskError::Unknown),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// `None` if the money is set aside, durably.
    async fn prepare(&self, order: OrderId, amount: Money) -> Result<Option<Ended>, AskError> {
        use account::Reply;
        let mut retry = Retry::default();
        loop {
            let prepare = self.prepare_command(order, amount);
            match self
                .node
                .accounts
                .resume(self.purchase.user.0, prepare)
                .await
            {
                // Another request under the key has got ahead of this one.
                Ok(Ok(Reply::KeyIsAnswered)) => return Ok(Some(Ended::Answered)),
                Ok(Ok(Reply::KeyIsRunning(_))) => return Ok(Some(Ended::KeyInUse)),
                Ok(Ok(_)) => return Ok(None),
                Ok(Err(refusal)) => return Ok(Some(Ended::Account(refusal))),
                Err(AskError::Unknown) => retry.wait().await,
                // Certain that nothing was done, unless an earlier try was.
                Err(error) if retry.is_first() => return Err(error),
                Err(_) => retry.wait().await,
            }
        }
    }

    fn prepare_command(&self, order: OrderId, amount: Money) -> account::Command {
        account::Command::Prepare {
            order,
            timetable: self.purchase.timetable,
            amount,
            key: Some(self.purchase.key.clone()),
        }
    }

    /// The order is true: its answer may leave.
    fn confirmed(&self, order: Arc<Order>) -> Ended {
        #[cfg(feature = "sabotage")]
        sabotage::pass(Point::OrderTrue);
        // After the answer: what is set aside can't be spent twice.
        let (node, sold) = (Arc::clone(&self.node), Arc::clone(&order));
        tokio::spawn(trace::carried(async move { post_both(&node, &sold).await }));
        Ended::Confirmed {
            order,
            replayed: false,
        }
    }

    async fn sell(&self, order: OrderId, coupon: Option<Redeemed>) -> Result<Ended, AskError> {
        let timetable = self.purchase.timetable;
        let mut retry = Retry::default();
        loop {
            let sell = timetable::Command::Sell { order, coupon };
            match self.node.timetables.resume(timetable.0, sell).await {
                Ok(Ok(timetable::Reply::Order(order))) => return Ok(self.confirmed(order)),
                // It was reloaded meanwhile, and open orders are volatile.
                Ok(_) => match resolve(&self.node, order, timetable).await {
                    Ok(Resolution::Confirmed(order)) => {
                        post_both(&self.node, &order).await;
                        return Ok(Ended::Confirmed {
                            order,
                            replayed: false,
                        });
                    }
                    Ok(Resolution::Aborted) => {
                        void(&self.node, self.purchase.user, order, timetable).await;
                        self.void_claim(order).await;
                        self.free_key(Some(order)).await;
                        return Err(AskError::StoreUnavailable);
                    }
                    Ok(Resolution::Undecided) | Err(_) => retry.wait().await,
                },
                Err(_) => retry.wait().await,
            }
        }
    }

    async fn abort(&self, order: OrderId) {
        let abort = timetable::Command::Abort { order };
        // If it is not there to hear it, it has forgotten the order already.
        let _ = self
            .node
            .timetables
            .resume(self.purchase.timetable.0, abort)
            .await;
    }

    async fn free_key(&self, order: Option<OrderId>) {
        free_key(&self.node, self.purchase.user, &self.purchase.key, order).await;
    }
}

/// Ends an order whose saga is gone: spends its money if it was confirmed, else
/// gives it back.
pub async fn settle(node: Arc<Node>, user: UserId, prepare: Prepare) {
    let mut retry = Retry::default();
    loop {
        match resolve(&node, prepare.order, prepare.timetable).await {
            Ok(Resolution::Confirmed(_)) => return post(&node, user, prepare.order).await,
            Ok(Resolution::Aborted) => {
                return void(&node, user, prepare.order, prepare.timetable).await;
            }
            Ok(Resolution::Undecided) | Err(_) => retry.wait().await,
        }
    }
}

/// Whether the saga of an order that was prepared at `prepared_at` is gone: none is
/// open for so long.
#[must_use]
pub fn is_gone(prepared_at: Timestamp, now: Timestamp) -> bool {
    now.since(prepared_at) > OPEN_FOR_MAX
}

/// Goes on in the place of a saga that is gone, for as long as it is until somebody
/// looks again: so that no more than one task does, however long the store is away.
pub fn go_on(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        // What isn't done by then is found undone again.
        let _ = tokio::time::timeout(SWEEP_EVERY, work).await;
    });
}

/// What became of an order, by what is durable.
///
/// # Errors
/// [`AskError`]
pub async fn resolve(
    node: &Node,
    order: OrderId,
    timetable: TimetableId,
) -> Result<Resolution, AskError> {
    let command = timetable::Command::Resolve { order };
    match node.timetables.resume(timetable.0, command).await? {
        Ok(timetable::Reply::Resolved(resolution)) => Ok(resolution),
        Ok(_) | Err(_) => Err(AskError::Unknown),
    }
}

/// The order is true: its claim is used, and its money spent.
async fn post_both(node: &Node, order: &Order) {
    if let Some(coupon) = order.coupon {
        participant::post(node, coupon, order.user, order.id).await;
    }
    #[cfg(feature = "sabotage")]
    sabotage::pass(Point::OrderClaimed);
    post(node, order.user, order.id).await;
}

/// Spends the money of an order that is true. Nobody waits for that to be durable:
/// an account that comes back without it asks the timetable again.
async fn post(node: &Node, user: UserId, order: OrderId) {
    let post = || account::Command::Post { order };
    if node.accounts.is_here(user.0) && node.accounts.resume_ahead(user.0, post()).await.is_ok() {
        return;
    }
    until_done(node, user, post).await;
}

async fn void(node: &Node, user: UserId, order: OrderId, timetable: TimetableId) {
    until_done(node, user, || account::Command::Void { order, timetable }).await;
}

async fn until_done(node: &Node, user: UserId, command: impl Fn() -> account::Command) {
    let mut retry = Retry::default();
    while node.accounts.resume(user.0, command()).await.is_err() {
        retry.wait().await;
    }
}

/// Waits that grow, for outcomes that must become known.
#[derive(Debug, Default)]
pub(super) struct Retry {
    tries: u32,
}

impl Retry {
    pub(super) fn is_first(&self) -> bool {
        self.tries == 0
    }

    pub(super) async fn wait(&mut self) {
        let ms = (RETRY_MIN_MS << self.tries.min(10)).min(RETRY_MAX_MS);
        self.tries += 1;
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
