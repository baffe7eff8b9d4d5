//! What was cancelled of a timetable's orders.

use std::collections::HashMap;

use futures_util::TryStreamExt as _;
use serde::Deserialize;

use super::{OrderFacts, Rows};
use crate::domain::ids::{OrderId, TimetableId, UserId};
use crate::domain::money::Money;
use crate::domain::order::{Cancel, CancelNo, CancelRequest, Order, PricedSeat};
use crate::domain::seat::SeatIndex;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::rows::ORDERS_TOPIC;
use crate::persistence::stored::reader::{Reader as _, Value};
use crate::persistence::verify::replay::Replay;
use crate::persistence::verify::report::{Book, Rule};
use crate::persistence::verify::snapshot::Snapshot;

/// What is known of a stored cancel while its events are read.
#[derive(Debug)]
pub(super) struct CancelFacts {
    seats: Vec<SeatIndex>,
    refund: Money,
    events: u32,
}

impl Rows {
    pub(super) async fn cancels(
        &mut self,
        c: &mut Snapshot,
        replay: Option<&Replay>,
        book: &mut Book,
    ) -> Result<(), StoreError> {
        let mut rows = c.rows(
            "SELECT order_id, no, user_id, request, seats, refund, at, refunded_at \
             FROM cancellation WHERE timetable_id = $1",
            &[self.id.0.into()],
        );
        let mut count = 0;
        while let Some(row) = rows.try_next().await? {
            count += 1;
            let (id, no) = (OrderId(row.get(0)?), CancelNo(row.seats(1)?));
            let seats = plain_seats(row.get(4)?);
            let cancel = Cancel {
                no,
                request: CancelRequest(row.int(3)?.cast_unsigned()),
                refund: Money(row.int(5)?),
                at: Timestamp(row.int(6)?),
                seats: seats.iter().copied().collect(),
            };
            let refunded_at = row.int_or_null(7)?.map(Timestamp);
            if let Some(replay) = replay {
                let told = replay.orders.get(&id).and_then(|order| {
                    let is_its = order.user.0 == row.get::<uuid::Uuid>(2).ok()?;
                    order.cancels.iter().find(|c| c.no == no).filter(|_| is_its)
                });
                // Where nothing was to come, it was so at once.
                let order = replay.orders.get(&id);
                let is_due = order.is_some_and(|order| order.owes(&cancel));
                let noted = replay.refunded.get(&(id, no)).copied();
                let noted = noted.or((!is_due).then_some(cancel.at));
                let is_the_same = told == Some(&cancel) && noted == refunded_at;
                book.expect(Rule::CancelsMatchJournal, is_the_same, || {
                    format!(
                        "order {id} has {cancel:?}, refunded {refunded_at:?}; in the journal \
                         {told:?}, refunded {noted:?}"
                    )
                });
            }
            if let Some(order) = self.orders.get_mut(&id) {
                let facts = CancelFacts {
                    seats,
                    refund: cancel.refund,
                    events: 0,
                };
                order.cancels.insert(no.0, facts);
            }
        }
        if let Some(replay) = replay {
            let told: usize = replay.orders.values().map(|o| o.cancels.len()).sum();
            book.expect(Rule::CancelsMatchJournal, told == count, || {
                format!(
                    "timetable {} has {count} cancels, {told} by the journal",
                    self.id
                )
            });
        }
        Ok(())
    }
}

/// The events of cancels.
pub(super) async fn events(
    id: TimetableId,
    orders: &mut HashMap<OrderId, OrderFacts>,
    c: &mut Snapshot,
    book: &mut Book,
) -> Result<(), StoreError> {
    let mut rows = c.rows(
        "SELECT event_seq, payload FROM outbox \
         WHERE entity = $1 AND topic = $2 AND type = 'order.cancelled'",
        &[id.0.into(), Value::Text(ORDERS_TOPIC)],
    );
    while let Some(row) = rows.try_next().await? {
        let payload = serde_json::from_str::<OrderCancelled>(row.get(1)?).ok();
        let is_true = payload.is_some_and(|payload| payload.tells(orders));
        if !is_true {
            let seq = row.int(0)?;
            book.found(Rule::OrderIsPublished, || {
                format!("event {seq} of timetable {id} is not of a cancel as it is")
            });
        }
    }
    for (id, order) in orders.iter() {
        for (no, cancel) in &order.cancels {
            book.expect(Rule::OrderIsPublished, cancel.events == 1, || {
                format!("cancel {no} of order {id} has {} events", cancel.events)
            });
        }
    }
    Ok(())
}

/// The seats of an order that were given back, one cancel after the other.
pub(super) fn cancelled_seats(order: &Order) -> impl Iterator<Item = SeatIndex> {
    order
        .cancels
        .iter()
        .flat_map(|cancel| &cancel.seats)
        .copied()
}

/// Stored seats: `[seat, …]`; none if they can't be read, which the comparison
/// with the journal finds.
pub(super) fn plain_seats(text: &str) -> Vec<SeatIndex> {
    serde_json::from_str(text).unwrap_or_default()
}

/// What an event tells of its cancel.
#[derive(Deserialize)]
struct OrderCancelled {
    order_id: OrderId,
    user_id: UserId,
    cancel_no: u32,
    refund: Money,
    seats: Vec<PricedSeat>,
}

impl OrderCancelled {
    fn tells(&self, orders: &mut HashMap<OrderId, OrderFacts>) -> bool {
        let Some(order) = orders.get_mut(&self.order_id) else {
            return false;
        };
        let Some(cancel) = order.cancels.get_mut(&self.cancel_no) else {
            return false;
        };
        cancel.events += 1;
        let has = |priced: &PricedSeat| order.seats.contains(priced);
        self.user_id == order.user
            && self.refund == cancel.refund
            && self
                .seats
                .iter()
                .map(|priced| priced.seat)
                .eq(cancel.seats.iter().copied())
            && self.seats.iter().all(has)
    }
}
