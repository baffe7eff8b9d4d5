//! Which rows an event changes. Those of coupons: `coupon`.

mod coupon;

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::batch::{
    CancelRow, Contribution, CreditRow, KeyAnswer, KeyRow, OutboxRow, Persisted, PlaceEnd,
    TransferRow,
};
use crate::domain::account::{self, Account, Charge, KeyClaim, PrepareState};
use crate::domain::ids::{
    CouponId, EntityKind, HoldId, OrderId, PerformanceId, TimetableId, UserId,
};
use crate::domain::money::{Currency, Money};
use crate::domain::order::{Cancel, CancelNo, Order, PricedSeat};
use crate::domain::plan::Plan;
use crate::domain::queue::{self, Queue};
use crate::domain::time::Timestamp;
use crate::domain::timetable::{self, Hold, Timetable};
#[cfg(feature = "sabotage")]
use crate::sabotage::{self, Switch};

/// Where a timetable publishes: orders, and holds of visitors of a waiting room.
pub const ORDERS_TOPIC: &str = "onsale.orders";

/// Where a coupon publishes.
pub const COUPONS_TOPIC: &str = "onsale.coupons";

/// The seats of an order are sold.
pub const ORDER_CONFIRMED: &str = "order.confirmed";

/// Seats of an order were given back: they are free again, their tickets void.
pub const ORDER_CANCELLED: &str = "order.cancelled";

/// A visitor of a waiting room holds seats. Other holds are not published: there
/// are many, and nobody waits to hear of them.
pub const HOLD_MADE: &str = "hold.made";

impl Persisted for Timetable {
    const KIND: EntityKind = EntityKind::Timetable;

    fn record(&self, event: &timetable::Event, into: &mut Contribution) {
        use timetable::Event as E;
        let at = into.at;
        let Some(rows) = into.timetable() else { return };
        match event {
            E::Held { hold, .. } => {
                if let Some(hold) = self.hold(*hold) {
                    rows.hold_began(hold.clone());
                    if hold.under_pass {
                        let payload = HoldMade::new(self, hold);
                        into.outbox.push(published(HOLD_MADE, at, &payload));
                    }
                }
            }
            E::SeatsAdded { hold, .. }
            | E::SeatsDropped { hold, .. }
            | E::HoldProlonged { hold, .. } => {
                if let Some(hold) = self.hold(*hold) {
                    rows.hold_changed(hold.clone());
                }
            }
            E::HoldEnded { hold, .. } => rows.hold_ended(*hold),
            E::OrderConfirmed { order } => {
                rows.hold_ended(order.hold);
                rows.orders.push(order.clone());
                let payload = OrderConfirmed::new(self, order);
                into.outbox.push(published(ORDER_CONFIRMED, at, &payload));
            }
            E::OrderDisowned { order } => rows.disowned.push(*order),
            E::SeatsBlocked { seats } => {
                rows.blocks.extend(seats.iter().map(|seat| (*seat, true)));
            }
            E::SeatsUnblocked { seats } => {
                rows.blocks.extend(seats.iter().map(|seat| (*seat, false)));
            }
            E::SeatsCancelled { order, cancel, .. } => {
                let Some(order) = self.order(*order) else {
                    return;
                };
                let is_owed = order.owes(cancel);
                #[cfg(feature = "sabotage")]
                let is_owed = is_owed && !sabotage::is_on(Switch::RefundNotDue);
                rows.cancels.push(CancelRow {
                    order: order.id,
                    user: order.user,
                    cancel: cancel.clone(),
                    refunded_at: (!is_owed).then_some(cancel.at),
                });
                rows.cancelled.insert(order.id, Arc::clone(order));
                let payload = OrderCancelled::new(self, order, cancel);
                into.outbox.push(published(ORDER_CANCELLED, at, &payload));
            }
            E::RefundPaid { order, no } => rows.refunded.push((*order, *no, at)),
            E::SeatsCooled { .. } | E::OrderOpened { .. } | E::OrderAborted { .. } => {}
        }
    }
}

/// An event, of a timetable unless it says otherwise. All are of version 1 yet.
fn published(kind: &'static str, at: Timestamp, payload: &impl Serialize) -> OutboxRow {
    OutboxRow {
        topic: ORDERS_TOPIC,
        // Numbered by the shell, which knows the last one.
        event_seq: 0,
        event_id: Uuid::now_v7(),
        kind,
        version: 1,
        at,
        // Put in by the shell, which knows who asks.
        trace: None,
        // Plain structs of strings and numbers always serialise.
        payload: serde_json::to_string(payload).unwrap_or_default(),
    }
}

/// The payload of `hold.made`, version 1; described in `docs/events.md`.
#[derive(Debug, Serialize)]
struct HoldMade {
    hold_id: HoldId,
    user_id: UserId,
    performance_id: PerformanceId,
    timetable_id: TimetableId,
}

impl HoldMade {
    fn new(timetable: &Timetable, hold: &Hold) -> Self {
        let plan = timetable.plan();
        Self {
            hold_id: hold.id,
            user_id: hold.user,
            performance_id: plan.performance_id,
            timetable_id: plan.timetable_id,
        }
    }
}

/// The payload of `order.confirmed`, version 1; described in `docs/events.md`.
#[derive(Debug, Serialize)]
pub struct OrderConfirmed<'a> {
    order_id: OrderId,
    user_id: UserId,
    performance_id: PerformanceId,
    timetable_id: TimetableId,
    seats: Vec<SoldSeat<'a>>,
    discount: Money,
    coupon_id: Option<CouponId>,
    amount: Money,
    currency: Currency,
    confirmed_at: Timestamp,
}

#[derive(Debug, Serialize)]
struct SoldSeat<'a> {
    seat: u32,
    seat_id: String,
    grade: &'a str,
    price: Money,
}

impl<'a> SoldSeat<'a> {
    fn new(plan: &'a Plan, priced: &PricedSeat) -> Self {
        Self {
            seat: priced.seat.0,
            seat_id: plan.layout.name_of(priced.seat).to_string(),
            grade: plan.grade_name(priced.seat),
            price: priced.price,
        }
    }
}

/// The payload of `order.cancelled`, version 1; described in `docs/events.md`.
#[derive(Debug, Serialize)]
struct OrderCancelled<'a> {
    order_id: OrderId,
    user_id: UserId,
    performance_id: PerformanceId,
    timetable_id: TimetableId,
    cancel_no: CancelNo,
    seats: Vec<SoldSeat<'a>>,
    refund: Money,
    currency: Currency,
    status: &'static str,
    cancelled_at: Timestamp,
}

impl<'a> OrderCancelled<'a> {
    fn new(timetable: &'a Timetable, order: &Order, cancel: &Cancel) -> Self {
        let plan = timetable.plan();
        let gone = |priced: &&PricedSeat| cancel.seats.contains(&priced.seat);
        let seats = order.seats.iter().filter(gone);
        Self {
            order_id: order.id,
            user_id: order.user,
            performance_id: plan.performance_id,
            timetable_id: plan.timetable_id,
            cancel_no: cancel.no,
            seats: seats.map(|priced| SoldSeat::new(plan, priced)).collect(),
            refund: cancel.refund,
            currency: plan.currency,
            status: order.status_after(cancel.no).as_str(),
            cancelled_at: cancel.at,
        }
    }
}

impl<'a> OrderConfirmed<'a> {
    fn new(timetable: &'a Timetable, order: &Order) -> Self {
        let plan = timetable.plan();
        let seats = order.seats.iter().map(|priced| SoldSeat::new(plan, priced));
        Self {
            order_id: order.id,
            user_id: order.user,
            performance_id: plan.performance_id,
            timetable_id: plan.timetable_id,
            seats: seats.collect(),
            discount: order.discount,
            coupon_id: order.coupon,
            amount: order.amount(),
            currency: plan.currency,
            confirmed_at: order.created_at,
        }
    }
}

impl Persisted for Account {
    const KIND: EntityKind = EntityKind::Account;

    fn record(&self, event: &account::Event, into: &mut Contribution) {
        use account::Event as E;
        let (user, seq) = (into.entity.id, into.after.seq);
        let balance = self.balance();
        let Some(rows) = into.account() else { return };
        match event {
            E::KeyAnswered {
                key,
                status,
                body,
                at,
            } => {
                let answer = KeyAnswer::Stored {
                    status: *status,
                    body: body.clone(),
                };
                rows.keys.insert(key.hash, key_row(key, *at, answer));
            }
            E::Charged { charge, key } => {
                rows.balance = Some(balance);
                rows.transfers.push(TransferRow {
                    seq,
                    at: charge.at,
                    debit: "top-up:free".to_owned(),
                    credit: wallet(user),
                    amount: charge.amount,
                    cause: "charge",
                    cause_id: charge.id,
                });
                if let Some(key) = key {
                    let answer = KeyAnswer::Stored {
                        status: 201,
                        body: charge_body(charge),
                    };
                    rows.keys.insert(key.hash, key_row(key, charge.at, answer));
                }
            }
            E::Prepared { prepare, key } => {
                rows.prepares
                    .insert(prepare.order, (*prepare, PrepareState::Prepared));
                if let Some(key) = key {
                    let answer = KeyAnswer::Order(*prepare);
                    rows.keys.insert(key.hash, key_row(key, prepare.at, answer));
                }
            }
            E::Posted { prepare, at } => {
                rows.prepares
                    .insert(prepare.order, (*prepare, PrepareState::Posted));
                rows.balance = Some(balance);
                // An order of amount 0 moves nothing.
                if prepare.amount > Money::ZERO {
                    rows.transfers.push(TransferRow {
                        seq,
                        at: *at,
                        debit: wallet(user),
                        credit: format!("sales:{}", prepare.timetable),
                        amount: prepare.amount,
                        cause: "order",
                        cause_id: prepare.order.0,
                    });
                }
            }
            E::Voided { prepare, .. } => {
                rows.prepares
                    .insert(prepare.order, (*prepare, PrepareState::Void));
            }
            E::Credited { refund, at } => {
                rows.balance = Some(balance);
                rows.transfers.push(TransferRow {
                    seq,
                    at: *at,
                    debit: format!("sales:{}", refund.timetable),
                    credit: wallet(user),
                    amount: refund.amount,
                    cause: "refund",
                    cause_id: refund.order.0,
                });
                let (refund, at) = (*refund, *at);
                rows.credits.push(CreditRow { seq, refund, at });
            }
            E::KeyReserved { .. } | E::KeyFreed { .. } => {}
        }
    }
}

impl Persisted for Queue {
    const KIND: EntityKind = EntityKind::Queue;

    fn record(&self, event: &queue::Event, into: &mut Contribution) {
        let Some(rows) = into.queue() else { return };
        let changes = self.changes(event);
        if let Some(queue) = changes.queue {
            rows.queue = Some(queue);
        }
        for place in changes.places {
            rows.place_changed(place);
        }
        let queue::Event::Ended {
            ticket,
            number,
            end,
            at,
            ..
        } = *event
        else {
            return;
        };
        // All of a decision's events are applied before the first is recorded:
        // by then the user may have another place, and this one be forgotten.
        rows.place_ended(ticket, PlaceEnd { number, end, at });
    }
}

fn key_row(claim: &KeyClaim, at: Timestamp, answer: KeyAnswer) -> KeyRow {
    KeyRow {
        key: claim.key.clone(),
        fingerprint: claim.fingerprint,
        at,
        answer,
    }
}

fn wallet(user: Uuid) -> String {
    format!("wallet:{user}")
}

/// The body of the answer to `POST /wallet/charges`: one form for the first
/// answer and for its repetitions.
#[must_use]
pub fn charge_body(charge: &Charge) -> String {
    serde_json::json!({
        "charge_id": charge.id,
        "amount": charge.amount,
        "balance": charge.balance,
        "currency": Currency::KRW,
        "created_at": charge.at,
    })
    .to_string()
}
