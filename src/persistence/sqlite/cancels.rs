//! The rows of cancels, in a batch and when they are read back.

use sqlx::sqlite::SqliteConnection;

use super::rows::{Lines, hex};
use crate::persistence::StoreError;
use crate::persistence::batch::{AccountChanges, TimetableChanges};

/// The rows of a batch, by statement.
#[derive(Default)]
pub(super) struct CancelRows {
    seats: Lines,
    tickets: Lines,
    orders: Lines,
    cancels: Lines,
    refunded: Lines,
    credits: Lines,
}

impl CancelRows {
    pub(super) fn add(&mut self, timetable: &str, changes: &TimetableChanges) {
        for row in &changes.cancels {
            let (order, cancel) = (&hex(row.order.0), &row.cancel);
            for seat in &cancel.seats {
                self.seats.push(&(timetable, seat, order));
                self.tickets.push(&(order, seat));
            }
            self.cancels.push(&(
                order,
                cancel.no,
                timetable,
                hex(row.user.0),
                // SQLite integers are signed; the bits are what counts.
                cancel.request.0.cast_signed(),
                &cancel.seats,
                (cancel.refund, cancel.at.0, row.refunded_at.map(|at| at.0)),
            ));
        }
        for order in changes.cancelled.values() {
            let cancelled = order.cancels.iter().flat_map(|cancel| &cancel.seats);
            self.orders.push(&(
                hex(order.id.0),
                order.status.as_str(),
                order.refunded(),
                cancelled.collect::<Vec<_>>(),
            ));
        }
        for (order, no, at) in &changes.refunded {
            self.refunded.push(&(hex(order.0), no, at.0));
        }
    }

    pub(super) fn add_credits(&mut self, user: &str, changes: &AccountChanges) {
        for row in &changes.credits {
            let refund = &row.refund;
            self.credits.push(&(
                user,
                hex(refund.order.0),
                refund.no,
                row.seq,
                refund.amount,
                row.at.0,
            ));
        }
    }

    pub(super) async fn write(self, c: &mut SqliteConnection) -> Result<(), StoreError> {
        self.seats
            .run(
                c,
                "DELETE FROM sold_seat WHERE (timetable_id, seat) IN ( \
            SELECT s.timetable_id, s.seat FROM json_each(?1) AS n JOIN sold_seat AS s \
              ON s.timetable_id = unhex(n.value ->> 0) AND s.seat = n.value ->> 1 \
             AND s.order_id = unhex(n.value ->> 2))",
            )
            .await?;
        self.tickets
            .run(
                c,
                "UPDATE ticket SET status = 'void' FROM json_each(?1) AS n \
            WHERE ticket.order_id = unhex(n.value ->> 0) AND ticket.seat = n.value ->> 1",
            )
            .await?;
        self.orders
            .run(
                c,
                "UPDATE orders SET status = n.value ->> 1, refunded = n.value ->> 2, \
                   cancelled = n.value -> 3 \
            FROM json_each(?1) AS n WHERE orders.id = unhex(n.value ->> 0)",
            )
            .await?;
        self.cancels.run(c, "INSERT INTO cancellation (order_id, no, timetable_id, user_id, request, seats, \
                   refund, at, refunded_at) \
            SELECT unhex(value ->> 0), value ->> 1, unhex(value ->> 2), unhex(value ->> 3), value ->> 4, \
                   value -> 5, value ->> '$[6][0]', value ->> '$[6][1]', value ->> '$[6][2]' \
            FROM json_each(?1)").await?;
        self.refunded
            .run(
                c,
                "UPDATE cancellation SET refunded_at = n.value ->> 2 \
            FROM json_each(?1) AS n \
            WHERE cancellation.order_id = unhex(n.value ->> 0) AND cancellation.no = n.value ->> 1",
            )
            .await?;
        self.credits.run(c, "INSERT INTO credit (user_id, order_id, no, seq, amount, at) \
            SELECT unhex(value ->> 0), unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4, value ->> 5 \
            FROM json_each(?1)").await
    }
}
