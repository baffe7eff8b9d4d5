//! The rows of a batch, as the statements that write them take them.
//!
//! They travel as one JSON array a statement: row by row through sqlx was
//! measured at a fiftieth of the speed. Ids in it are hexadecimal.

use serde::Serialize;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::cancels::CancelRows;
use super::coupons::CouponRows;
use super::queues::QueueRows;
use crate::domain::money::Money;
use crate::domain::order::{Order, PricedSeats};
use crate::persistence::StoreError;
use crate::persistence::batch::{
    AccountChanges, Changes, Contribution, HoldChange, KeyAnswer, TimetableChanges,
};

/// `[[seat, price], …]`, as holds and orders keep their seats.
fn seats_json(seats: &PricedSeats) -> Vec<(u32, Money)> {
    seats
        .iter()
        .map(|priced| (priced.seat.0, priced.price))
        .collect()
}

/// The rows of one statement, as the JSON array that `json_each` reads.
#[derive(Default)]
pub(super) struct Lines {
    json: Vec<u8>,
}

impl Lines {
    pub(super) fn push<T: Serialize>(&mut self, row: &T) {
        self.json
            .push(if self.json.is_empty() { b'[' } else { b',' });
        // Writing plain values to memory can't fail.
        let _ = serde_json::to_writer(&mut self.json, row);
    }

    /// Runs a statement over all rows, or not at all if there are none.
    pub(super) async fn run(
        self,
        connection: &mut SqliteConnection,
        sql: &'static str,
    ) -> Result<(), StoreError> {
        if let Some(json) = self.finish()? {
            sqlx::query(sql).bind(json).execute(connection).await?;
        }
        Ok(())
    }

    /// Like [`Lines::run`], with bytes that the rows are slices of.
    async fn run_with(
        self,
        connection: &mut SqliteConnection,
        sql: &'static str,
        bytes: Vec<u8>,
    ) -> Result<(), StoreError> {
        if let Some(json) = self.finish()? {
            let query = sqlx::query(sql).bind(json).bind(bytes);
            query.execute(connection).await?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Option<String>, StoreError> {
        if self.json.is_empty() {
            return Ok(None);
        }
        self.json.push(b']');
        String::from_utf8(self.json)
            .map(Some)
            .map_err(|e| StoreError::Unreadable(e.to_string()))
    }
}

/// The rows of a batch, by statement.
#[derive(Default)]
pub(super) struct Rows {
    journal: Lines,
    /// The events of all journal rows, one after the other.
    events: Vec<u8>,
    outbox: Lines,
    holds: Lines,
    ended: Lines,
    orders: Lines,
    sold: Lines,
    disowned: Lines,
    blocked: Lines,
    unblocked: Lines,
    wallets: Lines,
    transfers: Lines,
    prepares: Lines,
    keys: Lines,
    cancels: CancelRows,
    queues: QueueRows,
    coupons: CouponRows,
}

impl Rows {
    pub(super) fn add(&mut self, c: &Contribution) {
        let id = &hex(c.entity.id);
        let (epoch, activation) = (c.after.epoch, c.after.activation);
        self.journal.push(&(
            id,
            c.entity.kind.as_str(),
            c.first_seq,
            c.after.seq,
            epoch,
            activation,
            c.at.0,
            // substr counts from 1
            (self.events.len() + 1, c.journal.len()),
        ));
        self.events.extend_from_slice(&c.journal);
        for row in &c.outbox {
            self.outbox.push(&(
                id,
                row.topic,
                row.event_seq,
                hex(row.event_id),
                row.kind,
                row.version,
                row.at.0,
                &row.payload,
                &row.trace,
            ));
        }
        match &c.changes {
            Changes::Timetable(changes) => self.add_timetable(id, changes),
            Changes::Account(changes) => self.add_account(id, changes),
            Changes::Queue(changes) => self.queues.add(id, changes),
            Changes::Coupon(changes) => self.coupons.add(id, changes),
        }
    }

    fn add_timetable(&mut self, id: &str, changes: &TimetableChanges) {
        for (hold_id, change) in &changes.holds {
            match change {
                HoldChange::Gone => self.ended.push(&hex(hold_id.0)),
                HoldChange::Put { hold, .. } => self.holds.push(&(
                    hex(hold_id.0),
                    id,
                    hex(hold.user.0),
                    hold.created_at.0,
                    hold.expires_at.0,
                    i32::from(hold.under_pass),
                    seats_json(&hold.seats),
                    hold.deadline.0,
                )),
            }
        }
        for order in &changes.orders {
            self.add_order(id, order);
        }
        for order in &changes.disowned {
            self.disowned.push(&(hex(order.0), id));
        }
        for (seat, is_blocked) in &changes.blocks {
            let rows = if *is_blocked {
                &mut self.blocked
            } else {
                &mut self.unblocked
            };
            rows.push(&(id, seat));
        }
        self.cancels.add(id, changes);
    }

    fn add_order(&mut self, timetable: &str, order: &Order) {
        let (id, user) = (&hex(order.id.0), &hex(order.user.0));
        for priced in &order.seats {
            self.sold
                .push(&(timetable, priced.seat, id, user, priced.price));
        }
        self.orders.push(&(
            id,
            timetable,
            user,
            hex(order.hold.0),
            hex(order.payment.0),
            order.method.as_str(),
            order.status.as_str(),
            (order.subtotal(), order.discount, order.amount()),
            order.created_at.0,
            seats_json(&order.seats),
            order.coupon.map(|coupon| hex(coupon.0)),
        ));
    }

    fn add_account(&mut self, id: &str, changes: &AccountChanges) {
        self.cancels.add_credits(id, changes);
        if let Some(balance) = changes.balance {
            self.wallets.push(&(id, balance));
        }
        for t in &changes.transfers {
            self.transfers.push(&(
                id,
                t.seq,
                t.at.0,
                &t.debit,
                &t.credit,
                t.amount,
                t.cause,
                hex(t.cause_id),
            ));
        }
        for (p, state) in changes.prepares.values() {
            self.prepares.push(&(
                hex(p.order.0),
                id,
                hex(p.timetable.0),
                p.amount,
                state.as_str(),
                p.at.0,
            ));
        }
        for key in changes.keys.values() {
            let (order, timetable, status, body) = match &key.answer {
                KeyAnswer::Order(p) => (Some(hex(p.order.0)), Some(hex(p.timetable.0)), None, None),
                KeyAnswer::Stored { status, body } => (None, None, Some(status), Some(body)),
            };
            // SQLite integers are signed; the bits are what counts.
            let fingerprint = key.fingerprint.cast_signed();
            self.keys.push(&(
                id,
                &key.key,
                fingerprint,
                key.at.0,
                order,
                timetable,
                status,
                body,
            ));
        }
    }

    pub(super) async fn write(self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        let c = connection;
        self.journal.run_with(c, "INSERT INTO journal (entity, kind, first_seq, last_seq, epoch, activation, at, events) \
            SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
                   substr(?2, value ->> '$[7][0]', value ->> '$[7][1]') FROM json_each(?1)", self.events).await?;
        self.ended
            .run(
                c,
                "DELETE FROM hold WHERE id IN (SELECT unhex(value) FROM json_each(?1))",
            )
            .await?;
        self.holds.run(c, "INSERT INTO hold (id, timetable_id, user_id, created_at, expires_at, under_pass, seats, deadline) \
            SELECT unhex(value ->> 0), unhex(value ->> 1), unhex(value ->> 2), value ->> 3, value ->> 4, value ->> 5, \
                   value -> 6, value ->> 7 FROM json_each(?1) WHERE true \
            ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at, \
                   deadline = excluded.deadline, seats = excluded.seats").await?;
        self.orders.run(c, "INSERT INTO orders (id, timetable_id, user_id, hold_id, payment_id, method, status, \
                   subtotal, discount, amount, refunded, created_at, seats, coupon_id) \
            SELECT unhex(value ->> 0), unhex(value ->> 1), unhex(value ->> 2), unhex(value ->> 3), unhex(value ->> 4), \
                   value ->> 5, value ->> 6, value ->> '$[7][0]', value ->> '$[7][1]', value ->> '$[7][2]', 0, \
                   value ->> 8, value -> 9, unhex(value ->> 10) FROM json_each(?1)").await?;
        self.sold.run(c, "INSERT INTO sold_seat (timetable_id, seat, order_id, user_id, price) \
            SELECT unhex(value ->> 0), value ->> 1, unhex(value ->> 2), unhex(value ->> 3), value ->> 4 \
            FROM json_each(?1)").await?;
        self.disowned
            .run(
                c,
                "INSERT INTO disowned_order (id, timetable_id) \
            SELECT unhex(value ->> 0), unhex(value ->> 1) FROM json_each(?1)",
            )
            .await?;
        self.blocked
            .run(
                c,
                "INSERT OR IGNORE INTO blocked_seat (timetable_id, seat) \
            SELECT unhex(value ->> 0), value ->> 1 FROM json_each(?1)",
            )
            .await?;
        self.unblocked
            .run(
                c,
                "DELETE FROM blocked_seat WHERE (timetable_id, seat) IN \
            (SELECT unhex(value ->> 0), value ->> 1 FROM json_each(?1))",
            )
            .await?;
        self.wallets
            .run(
                c,
                "INSERT INTO wallet (user_id, balance) \
            SELECT unhex(value ->> 0), value ->> 1 FROM json_each(?1) WHERE true \
            ON CONFLICT (user_id) DO UPDATE SET balance = excluded.balance",
            )
            .await?;
        self.transfers.run(c, "INSERT INTO transfer (user_id, seq, at, debit, credit, amount, cause, cause_id) \
            SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
                   unhex(value ->> 7) FROM json_each(?1)").await?;
        self.prepares.run(c, "INSERT INTO prepare (order_id, user_id, timetable_id, amount, state, at) \
            SELECT unhex(value ->> 0), unhex(value ->> 1), unhex(value ->> 2), value ->> 3, value ->> 4, value ->> 5 \
            FROM json_each(?1) WHERE true ON CONFLICT (user_id, order_id) DO UPDATE SET state = excluded.state").await?;
        self.keys.run(c, "INSERT INTO idempotency (user_id, key, fingerprint, at, order_id, timetable_id, status, body) \
            SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, unhex(value ->> 4), unhex(value ->> 5), \
                   value ->> 6, value ->> 7 FROM json_each(?1) WHERE true \
            ON CONFLICT (user_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, at = excluded.at, \
                   order_id = excluded.order_id, timetable_id = excluded.timetable_id, \
                   status = excluded.status, body = excluded.body").await?;
        self.outbox.run(c, "INSERT INTO outbox (entity, topic, event_seq, event_id, type, version, at, payload, trace) \
            SELECT unhex(value ->> 0), value ->> 1, value ->> 2, unhex(value ->> 3), value ->> 4, value ->> 5, \
                   value ->> 6, value ->> 7, value ->> 8 FROM json_each(?1)").await?;
        self.cancels.write(c).await?;
        self.queues.write(c).await?;
        self.coupons.write(c).await
    }
}

/// A parameter for `json_each`.
pub(super) fn json<T: Serialize + ?Sized>(rows: &T) -> Result<String, StoreError> {
    serde_json::to_string(rows).map_err(|error| StoreError::Unreadable(error.to_string()))
}

/// An id as `unhex` reads it.
pub(super) fn hex(id: Uuid) -> String {
    id.simple().to_string()
}
