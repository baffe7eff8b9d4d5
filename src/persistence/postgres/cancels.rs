//! The rows of cancels in a batch, as one array a column.

use uuid::Uuid;

use super::Link;
use super::statement::Statement;
use crate::persistence::StoreError;
use crate::persistence::batch::{
    AccountChanges, CancelRow, Changes, Contribution, TimetableChanges,
};

/// Cancels of timetables.
#[derive(Default)]
pub(super) struct Cancels {
    /// Timetable, seat, order.
    seats: (Vec<Uuid>, Vec<i32>, Vec<Uuid>),
    orders: Orders,
    cancels: Columns,
    /// Order, number, time.
    refunded: (Vec<Uuid>, Vec<i32>, Vec<i64>),
}

#[derive(Default)]
struct Orders {
    ids: Vec<Uuid>,
    statuses: Vec<&'static str>,
    refunded: Vec<i64>,
    cancelled: Vec<String>,
}

#[derive(Default)]
struct Columns {
    orders: Vec<Uuid>,
    numbers: Vec<i32>,
    timetables: Vec<Uuid>,
    users: Vec<Uuid>,
    requests: Vec<i64>,
    seats: Vec<String>,
    refunds: Vec<i64>,
    times: Vec<i64>,
    refunded: Vec<Option<i64>>,
}

/// The seats are nobody's any more. This waits for who is issuing tickets for them.
const SEATS: &str = "DELETE FROM sold_seat AS s USING \
       unnest($1::uuid[], $2::integer[], $3::uuid[]) AS n (timetable_id, seat, order_id) \
     WHERE s.timetable_id = n.timetable_id AND s.seat = n.seat AND s.order_id = n.order_id";

const ORDERS: &str = "UPDATE orders \
     SET status = n.status, refunded = n.refunded, cancelled = n.cancelled \
     FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[]) \
       AS n (id, status, refunded, cancelled) WHERE orders.id = n.id";

const CANCELS: &str = "INSERT INTO cancellation \
       (order_id, no, timetable_id, user_id, request, seats, refund, at, refunded_at) \
     SELECT * FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::uuid[], $5::bigint[], \
       $6::text[], $7::bigint[], $8::bigint[], $9::bigint[])";

const REFUNDED: &str = "UPDATE cancellation AS c SET refunded_at = n.at \
     FROM unnest($1::uuid[], $2::integer[], $3::bigint[]) AS n (order_id, no, at) \
     WHERE c.order_id = n.order_id AND c.no = n.no";

/// A statement of its own, after the seats: by then whoever was issuing tickets for
/// them has ended, and a statement sees what was there when it began. In one
/// statement with them, a ticket that came meanwhile would stay valid:
/// `a_ticket_that_is_being_issued_while_its_seat_is_cancelled_is_void` of
/// `tests/store_conformance` breaks.
const TICKETS: &str = "UPDATE ticket SET status = 'void' \
     FROM unnest($1::uuid[], $2::integer[]) AS n (order_id, seat) \
     WHERE ticket.order_id = n.order_id AND ticket.seat = n.seat";

/// Whether tickets become void by these changes, so that they can't be written in
/// one statement.
pub(super) fn voids_tickets(changes: &Changes) -> bool {
    matches!(changes, Changes::Timetable(changes) if !changes.cancels.is_empty())
}

/// Makes the tickets of seats void whose orders have given them back.
pub(super) async fn void_tickets(
    c: &mut Link,
    contributions: &[&Contribution],
) -> Result<(), StoreError> {
    let (mut orders, mut seats) = (Vec::new(), Vec::new());
    for contribution in contributions {
        let Changes::Timetable(changes) = &contribution.changes else {
            continue;
        };
        for row in &changes.cancels {
            for seat in &row.cancel.seats {
                orders.push(row.order.0);
                seats.push(seat.0.cast_signed());
            }
        }
    }
    if !orders.is_empty() {
        let tickets = c.sql(TICKETS).bind(orders).bind(seats);
        tickets.execute(c.on()).await?;
    }
    Ok(())
}

impl Cancels {
    pub(super) fn add(&mut self, timetable: Uuid, changes: &TimetableChanges) {
        for row in &changes.cancels {
            self.add_cancel(timetable, row);
        }
        for order in changes.cancelled.values() {
            let cancelled = order.cancels.iter().flat_map(|cancel| &cancel.seats);
            let orders = &mut self.orders;
            orders.ids.push(order.id.0);
            orders.statuses.push(order.status.as_str());
            orders.refunded.push(order.refunded().0);
            orders.cancelled.push(json(cancelled.map(|seat| seat.0)));
        }
        for (order, no, at) in &changes.refunded {
            self.refunded.0.push(order.0);
            self.refunded.1.push(no.0.cast_signed());
            self.refunded.2.push(at.0);
        }
    }

    fn add_cancel(&mut self, timetable: Uuid, row: &CancelRow) {
        let cancel = &row.cancel;
        for seat in &cancel.seats {
            self.seats.0.push(timetable);
            self.seats.1.push(seat.0.cast_signed());
            self.seats.2.push(row.order.0);
        }
        let rows = &mut self.cancels;
        rows.orders.push(row.order.0);
        rows.numbers.push(cancel.no.0.cast_signed());
        rows.timetables.push(timetable);
        rows.users.push(row.user.0);
        // The column is signed; the bits are what counts.
        rows.requests.push(cancel.request.0.cast_signed());
        rows.seats
            .push(json(cancel.seats.iter().map(|seat| seat.0)));
        rows.refunds.push(cancel.refund.0);
        rows.times.push(cancel.at.0);
        rows.refunded.push(row.refunded_at.map(|at| at.0));
    }

    pub(super) fn put(self, into: &mut Statement) {
        if !self.cancels.orders.is_empty() {
            let (seats, orders, rows) = (self.seats, self.orders, self.cancels);
            into.part(SEATS).bind(seats.0).bind(seats.1).bind(seats.2);
            into.part(ORDERS)
                .bind(orders.ids)
                .bind(orders.statuses)
                .bind(orders.refunded)
                .bind(orders.cancelled);
            into.part(CANCELS)
                .bind(rows.orders)
                .bind(rows.numbers)
                .bind(rows.timetables)
                .bind(rows.users)
                .bind(rows.requests)
                .bind(rows.seats)
                .bind(rows.refunds)
                .bind(rows.times)
                .bind(rows.refunded);
        }
        if !self.refunded.0.is_empty() {
            let (orders, numbers, times) = self.refunded;
            into.part(REFUNDED).bind(orders).bind(numbers).bind(times);
        }
    }
}

/// Refunds that came in, of accounts.
#[derive(Default)]
pub(super) struct Credits {
    users: Vec<Uuid>,
    orders: Vec<Uuid>,
    numbers: Vec<i32>,
    seqs: Vec<i64>,
    amounts: Vec<i64>,
    times: Vec<i64>,
}

const CREDITS: &str = "INSERT INTO credit (user_id, order_id, no, seq, amount, at) \
     SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::bigint[], $5::bigint[], \
       $6::bigint[])";

impl Credits {
    pub(super) fn add(&mut self, user: Uuid, changes: &AccountChanges) {
        for row in &changes.credits {
            self.users.push(user);
            self.orders.push(row.refund.order.0);
            self.numbers.push(row.refund.no.0.cast_signed());
            self.seqs.push(row.seq.0.cast_signed());
            self.amounts.push(row.refund.amount.0);
            self.times.push(row.at.0);
        }
    }

    pub(super) fn put(self, into: &mut Statement) {
        if self.users.is_empty() {
            return;
        }
        into.part(CREDITS)
            .bind(self.users)
            .bind(self.orders)
            .bind(self.numbers)
            .bind(self.seqs)
            .bind(self.amounts)
            .bind(self.times);
    }
}

/// `[seat, …]`
fn json(seats: impl Iterator<Item = u32>) -> String {
    // Plain numbers always serialise.
    serde_json::to_string(&seats.collect::<Vec<_>>()).unwrap_or_default()
}
