//! The group commit: many entities' contributions in one transaction, a fixed
//! number of set-based statements whatever their number.
//!
//! Rows travel as one JSON array a statement: row by row through sqlx was
//! measured at a fiftieth of the speed. Ids in it are hexadecimal.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::SqliteStore;
use super::cancels::CancelRows;
use super::coupons::CouponRows;
use super::queues::QueueRows;
use crate::domain::ids::{EntityId, Epoch, ShardId, Stamp};
use crate::domain::money::Money;
use crate::domain::order::Order;
use crate::domain::order::PricedSeats;
use crate::persistence::StoreError;
use crate::persistence::batch::{
    AccountChanges, Changes, Contribution, HoldChange, KeyAnswer, TimetableChanges,
};
use crate::persistence::store::commit::Verdict;
use crate::persistence::stored::entity_kind;
use crate::persistence::stored::reader::version;
#[cfg(feature = "sabotage")]
use crate::sabotage::{self, Point, Switch};

impl SqliteStore {
    pub(crate) async fn commit(
        &self,
        contributions: std::sync::Arc<Vec<Contribution>>,
    ) -> Result<Vec<Verdict>, StoreError> {
        self.transaction(move |connection| {
            Box::pin(async move { write(connection, &contributions).await })
        })
        .await
    }
}

async fn write(
    connection: &mut SqliteConnection,
    contributions: &[Contribution],
) -> Result<Vec<Verdict>, StoreError> {
    let owned = owned_shards(connection, contributions).await?;
    let mine: Vec<&Contribution> = contributions
        .iter()
        .filter(|c| owned.contains(&shard_and_epoch(c)))
        .collect();
    let advanced = advance(connection, &mine).await?;
    #[cfg(feature = "sabotage")]
    let advanced = if sabotage::is_on(Switch::RetryBlindly) {
        mine.iter().map(|c| c.entity).collect()
    } else {
        advanced
    };
    let mut written = advanced.clone();
    if advanced.len() < mine.len() {
        let late = mine.iter().filter(|c| !advanced.contains(&c.entity));
        for contribution in late {
            if version(connection, contribution.entity).await? == Some(contribution.after) {
                written.insert(contribution.entity);
            }
        }
    }
    let fresh: Vec<&Contribution> = mine
        .into_iter()
        .filter(|c| advanced.contains(&c.entity))
        .collect();
    write_rows(connection, &fresh).await?;
    #[cfg(feature = "sabotage")]
    sabotage::pass(Point::Written);
    let verdict = |c: &Contribution| {
        if written.contains(&c.entity) {
            Verdict::Written
        } else {
            Verdict::Fenced
        }
    };
    Ok(contributions.iter().map(verdict).collect())
}

/// The shards of the batch, with their epochs, that are still owned in that
/// epoch.
async fn owned_shards(
    connection: &mut SqliteConnection,
    contributions: &[Contribution],
) -> Result<HashSet<(ShardId, Epoch)>, StoreError> {
    let wanted: HashSet<(ShardId, Epoch)> = contributions.iter().map(shard_and_epoch).collect();
    let wanted: Vec<(ShardId, Epoch)> = wanted.into_iter().collect();
    let rows = sqlx::query(
        "SELECT shard.id, shard.epoch FROM json_each(?1) AS wanted \
         JOIN shard ON shard.id = wanted.value ->> 0 AND shard.epoch = wanted.value ->> 1",
    )
    .bind(json(&wanted)?)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Ok((ShardId(row.try_get(0)?), Epoch(row.try_get(1)?))))
        .collect()
}

fn shard_and_epoch(contribution: &Contribution) -> (ShardId, Epoch) {
    (contribution.entity.shard(), contribution.after.epoch)
}

/// Moves the version of each entity from the expected one on. Returns those
/// that were at the expected one: only their rows may be written.
async fn advance(
    connection: &mut SqliteConnection,
    contributions: &[&Contribution],
) -> Result<HashSet<EntityId>, StoreError> {
    type VersionRow = (String, &'static str, u16, Stamp3, Stamp3);
    type Stamp3 = (u32, u32, u64);
    fn stamp(s: Stamp) -> Stamp3 {
        (s.epoch.0, s.activation.0, s.seq.0)
    }
    let row = |c: &&Contribution| -> VersionRow {
        let EntityId { kind, id } = c.entity;
        (
            hex(id),
            kind.as_str(),
            c.entity.shard().0,
            stamp(c.expected),
            stamp(c.after),
        )
    };
    let is_new = |c: &&&Contribution| c.expected == Stamp::default();
    let new: Vec<_> = contributions.iter().filter(is_new).map(row).collect();
    let known: Vec<_> = contributions
        .iter()
        .filter(|c| !is_new(c))
        .map(row)
        .collect();
    let mut advanced = HashSet::with_capacity(contributions.len());
    if !new.is_empty() {
        let rows = sqlx::query(
            "INSERT INTO entity (id, kind, shard, epoch, activation, seq) \
             SELECT unhex(value ->> 0), value ->> 1, value ->> 2, \
                    value ->> '$[4][0]', value ->> '$[4][1]', value ->> '$[4][2]' \
             FROM json_each(?1) WHERE true \
             ON CONFLICT DO NOTHING RETURNING id, kind",
        )
        .bind(json(&new)?)
        .fetch_all(&mut *connection)
        .await?;
        collect_entities(&rows, &mut advanced)?;
    }
    if !known.is_empty() {
        let rows = sqlx::query(
            "UPDATE entity SET epoch = n.value ->> '$[4][0]', \
                    activation = n.value ->> '$[4][1]', seq = n.value ->> '$[4][2]' \
             FROM json_each(?1) AS n \
             WHERE entity.id = unhex(n.value ->> 0) AND entity.kind = n.value ->> 1 \
               AND entity.epoch = n.value ->> '$[3][0]' \
               AND entity.activation = n.value ->> '$[3][1]' \
               AND entity.seq = n.value ->> '$[3][2]' \
             RETURNING entity.id, entity.kind",
        )
        .bind(json(&known)?)
        .fetch_all(&mut *connection)
        .await?;
        collect_entities(&rows, &mut advanced)?;
    }
    Ok(advanced)
}

fn collect_entities(
    rows: &[sqlx::sqlite::SqliteRow],
    into: &mut HashSet<EntityId>,
) -> Result<(), StoreError> {
    for row in rows {
        let id = row.try_get(0)?;
        let kind = entity_kind(row.try_get(1)?)?;
        into.insert(EntityId { kind, id });
    }
    Ok(())
}

async fn write_rows(
    connection: &mut SqliteConnection,
    contributions: &[&Contribution],
) -> Result<(), StoreError> {
    let mut rows = Rows::default();
    for contribution in contributions {
        rows.add(contribution);
    }
    rows.write(connection).await
}

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
struct Rows {
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
    fn add(&mut self, c: &Contribution) {
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

    async fn write(self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
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
