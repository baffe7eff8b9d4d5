//! The saga of a cancel.
//!
//! 1. The timetable cancels the seats: first commit, the only point at which the
//!    cancel becomes true ([`cancel`]).
//! 2. What goes back is given back: with the last seat the coupon, then the refund to
//!    the wallet, in one commit with the answer to the request ([`give_back`]). The
//!    answer leaves.
//! 3. The timetable notes that nothing is owed any more, after the answer.
//!
//! Each step is idempotent, by the request or by order and number of the cancel, and
//! is repeated until its outcome is known. If the process dies after the first, the
//! timetable finds what it owes when it is next loaded (at start, or by the node that
//! takes over), and [`settle`] goes on from there.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::AskError;
use super::node::Node;
use super::purchase::{Retry, participant};
use crate::domain::account::{self, KeyedAnswer, Known, Refund};
use crate::domain::ids::{CouponId, OrderId, TimetableId};
use crate::domain::money::Money;
use crate::domain::order::{Cancel, CancelNo, CancelRequest, Order};
use crate::domain::timetable::{self, CancelledBy, NamedSeats};
#[cfg(feature = "sabotage")]
use crate::sabotage::{self, Point, Switch};
use crate::trace;

/// How many cancels may be under way at once; further ones are shed.
pub const CANCELS_MAX: usize = 4_096;

/// What somebody wants to cancel.
#[derive(Clone, Debug)]
pub struct Cancellation {
    /// Of which order.
    pub order: OrderId,
    /// Which is on this timetable.
    pub timetable: TimetableId,
    /// Who asks.
    pub by: CancelledBy,
    /// These seats; `None`: all that the order still has.
    pub seats: Option<NamedSeats>,
    /// The same for all repetitions of a request.
    pub request: CancelRequest,
}

/// A cancel that is durable.
#[derive(Debug)]
pub struct Cancelled {
    /// The order, which may have been cancelled further since.
    pub order: Arc<Order>,
    /// Which of its cancels it is.
    pub no: CancelNo,
    /// Its place among [`CANCELS_MAX`], until what it owes is given back.
    _place: OwnedSemaphorePermit,
}

/// Cancels, and returns once that is durable. The caller gives back what is owed
/// ([`give_back`]), and doesn't stop in between: it runs in a task of its own.
///
/// # Errors
/// [`AskError`]: nothing was done.
pub async fn cancel(
    node: &Node,
    wanted: &Cancellation,
) -> Result<Result<Cancelled, timetable::Refusal>, AskError> {
    let Ok(place) = Arc::clone(&node.cancels).try_acquire_owned() else {
        return Err(AskError::Overloaded);
    };
    #[cfg(feature = "sabotage")]
    sabotage::pass(Point::CancelAsked);
    let (mut retry, id) = (Retry::default(), wanted.timetable.0);
    loop {
        let command = timetable::Command::Cancel {
            order: wanted.order,
            by: wanted.by,
            seats: wanted.seats.clone(),
            request: wanted.request,
        };
        let asked = if retry.is_first() {
            node.timetables.ask(id, command).await
        } else {
            node.timetables.resume(id, command).await
        };
        match asked {
            Ok(Ok(timetable::Reply::Cancelled { order, no })) => {
                #[cfg(feature = "sabotage")]
                sabotage::pass(Point::CancelTrue);
                return Ok(Ok(Cancelled {
                    order,
                    no,
                    _place: place,
                }));
            }
            Ok(Err(refusal)) => return Ok(Err(refusal)),
            // Certain that nothing was done, unless an earlier try was.
            Err(error) if retry.is_first() && error != AskError::Unknown => return Err(error),
            Ok(Ok(_)) | Err(_) => retry.wait().await,
        }
    }
}

/// Gives back what a cancel owes its buyer, stores `answer` with it, and returns when
/// all of that is durable. `false` if another answer stands under its key.
pub async fn give_back(
    node: &Arc<Node>,
    timetable: TimetableId,
    (order, cancel): (&Order, &Cancel),
    answer: Option<KeyedAnswer>,
) -> bool {
    let is_owed = order.owes(cancel);
    let mut is_ours = true;
    if let Some(coupon) = order.coupon_due(cancel) {
        // Before the refund, with which the answer is stored.
        return_coupon(node, order, coupon, timetable).await;
    }
    if cancel.refund > Money::ZERO || answer.is_some() {
        let refund = Refund {
            order: order.id,
            no: cancel.no,
            timetable,
            amount: cancel.refund,
        };
        is_ours = credit(node, order, refund, answer).await;
    }
    if is_owed {
        // After the answer: nothing is given back twice.
        let (node, order, no) = (Arc::clone(node), order.id, cancel.no);
        tokio::spawn(trace::carried(async move {
            note(&node, timetable, order, no).await;
        }));
    }
    is_ours
}

/// Goes on with a cancel whose saga is gone.
pub async fn settle(node: Arc<Node>, timetable: TimetableId, order: Arc<Order>, no: CancelNo) {
    if let Some(cancel) = order.cancels.iter().find(|cancel| cancel.no == no) {
        give_back(&node, timetable, (&order, cancel), None).await;
    }
}

async fn return_coupon(node: &Node, order: &Order, coupon: CouponId, timetable: TimetableId) {
    #[cfg(feature = "sabotage")]
    if sabotage::is_on(Switch::NoCouponReturn) {
        return;
    }
    participant::give_back(node, coupon, order.user, order.id, timetable).await;
    #[cfg(feature = "sabotage")]
    sabotage::pass(Point::CancelCouponBack);
}

async fn credit(node: &Node, order: &Order, refund: Refund, answer: Option<KeyedAnswer>) -> bool {
    let user = order.user;
    #[cfg(feature = "sabotage")]
    let refund = if sabotage::is_on(Switch::NoCredit) {
        let amount = Money::ZERO;
        Refund { amount, ..refund }
    } else {
        refund
    };
    let (mut retry, mut known) = (Retry::default(), Known::default());
    loop {
        let credit = account::Command::Credit {
            refund,
            answer: answer.clone(),
            known,
        };
        match node.accounts.resume(user.0, credit).await {
            Ok(Err(account::Refusal::AskTheStore { upto })) => {
                let (order, no) = (refund.order, refund.no);
                match node.store.is_credited(user, order, no).await {
                    Ok(true) => known = Known::Credited,
                    Ok(false) => known = Known::NotBy(upto),
                    Err(_) => retry.wait().await,
                }
            }
            Ok(outcome) => {
                #[cfg(feature = "sabotage")]
                sabotage::pass(Point::CancelCredited);
                // It is refused for nothing else.
                return matches!(outcome, Ok(account::Reply::Done));
            }
            Err(_) => retry.wait().await,
        }
    }
}

async fn note(node: &Node, timetable: TimetableId, order: OrderId, no: CancelNo) {
    let mut retry = Retry::default();
    loop {
        let noted = timetable::Command::RefundPaid { order, no };
        if node.timetables.resume(timetable.0, noted).await.is_ok() {
            return;
        }
        retry.wait().await;
    }
}
