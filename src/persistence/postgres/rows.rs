//! The rows of a batch, as one array a column: they are read with `unnest`, and
//! all tables are written by one [`Statement`].

mod accounts;

use uuid::Uuid;

pub(super) use accounts::Accounts;

use super::cancels::Cancels;
use super::statement::Statement;
use crate::domain::ids::Stamp;
use crate::domain::order::{Order, PricedSeats};
use crate::persistence::batch::{Contribution, HoldChange, TimetableChanges};

/// Versions of entities.
#[derive(Default)]
pub(super) struct Stamps {
    pub(super) epochs: Vec<i32>,
    pub(super) activations: Vec<i32>,
    pub(super) seqs: Vec<i64>,
}

pub(super) fn stamps(stamps: impl Iterator<Item = Stamp>) -> Stamps {
    let mut columns = Stamps::default();
    for stamp in stamps {
        columns.epochs.push(stamp.epoch.0.cast_signed());
        columns.activations.push(stamp.activation.0.cast_signed());
        columns.seqs.push(stamp.seq.0.cast_signed());
    }
    columns
}

/// `[[seat, price], …]`, as holds and orders keep their seats.
fn seats_json(seats: &PricedSeats) -> String {
    let seats: Vec<(u32, i64)> = seats
        .iter()
        .map(|priced| (priced.seat.0, priced.price.0))
        .collect();
    // Plain numbers always serialise.
    serde_json::to_string(&seats).unwrap_or_default()
}

/// What happened, and what is to be published of it.
#[derive(Default)]
pub(super) struct History<'a> {
    entities: Vec<Uuid>,
    kinds: Vec<&'static str>,
    first_seqs: Vec<i64>,
    after: Vec<Stamp>,
    times: Vec<i64>,
    events: Vec<&'a [u8]>,
    outbox: Outbox<'a>,
}

#[derive(Default)]
struct Outbox<'a> {
    entities: Vec<Uuid>,
    shards: Vec<i16>,
    topics: Vec<&'static str>,
    numbers: Vec<i64>,
    ids: Vec<Uuid>,
    kinds: Vec<&'static str>,
    versions: Vec<i32>,
    times: Vec<i64>,
    payloads: Vec<&'a str>,
    traces: Vec<Option<&'a str>>,
}

const JOURNAL: &str = "INSERT INTO journal \
       (entity, kind, first_seq, last_seq, epoch, activation, at, events) \
     SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::integer[], \
       $6::integer[], $7::bigint[], $8::bytea[])";

const OUTBOX: &str = "INSERT INTO outbox \
       (entity, shard, topic, event_seq, event_id, type, version, at, payload, trace) \
     SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::bigint[], $5::uuid[], \
       $6::text[], $7::integer[], $8::bigint[], $9::text[], $10::text[])";

impl<'a> History<'a> {
    pub(super) fn add(&mut self, c: &'a Contribution) {
        self.entities.push(c.entity.id);
        self.kinds.push(c.entity.kind.as_str());
        self.first_seqs.push(c.first_seq.0.cast_signed());
        self.after.push(c.after);
        self.times.push(c.at.0);
        self.events.push(&c.journal);
        for row in &c.outbox {
            let outbox = &mut self.outbox;
            outbox.entities.push(c.entity.id);
            outbox.shards.push(c.entity.shard().0.cast_signed());
            outbox.topics.push(row.topic);
            outbox.numbers.push(row.event_seq.cast_signed());
            outbox.ids.push(row.event_id);
            outbox.kinds.push(row.kind);
            outbox.versions.push(i32::from(row.version));
            outbox.times.push(row.at.0);
            outbox.payloads.push(&row.payload);
            outbox.traces.push(row.trace.as_deref());
        }
    }

    pub(super) fn put(self, into: &mut Statement) {
        let after = stamps(self.after.into_iter());
        into.part(JOURNAL)
            .bind(self.entities)
            .bind(self.kinds)
            .bind(self.first_seqs)
            .bind(after.seqs)
            .bind(after.epochs)
            .bind(after.activations)
            .bind(self.times)
            .bind(self.events);
        let outbox = self.outbox;
        if outbox.entities.is_empty() {
            return;
        }
        into.part(OUTBOX)
            .bind(outbox.entities)
            .bind(outbox.shards)
            .bind(outbox.topics)
            .bind(outbox.numbers)
            .bind(outbox.ids)
            .bind(outbox.kinds)
            .bind(outbox.versions)
            .bind(outbox.times)
            .bind(outbox.payloads)
            .bind(outbox.traces);
    }
}

/// Rows of timetables.
#[derive(Default)]
pub(super) struct Timetables {
    ended: Vec<Uuid>,
    holds: Holds,
    orders: Orders,
    sold: SoldSeats,
    /// Order, timetable.
    disowned: (Vec<Uuid>, Vec<Uuid>),
    /// Timetable, seat.
    blocked: (Vec<Uuid>, Vec<i32>),
    unblocked: (Vec<Uuid>, Vec<i32>),
    cancels: Cancels,
}

#[derive(Default)]
struct Holds {
    ids: Vec<Uuid>,
    timetables: Vec<Uuid>,
    users: Vec<Uuid>,
    created: Vec<i64>,
    expires: Vec<i64>,
    deadlines: Vec<i64>,
    under_pass: Vec<bool>,
    seats: Vec<String>,
}

#[derive(Default)]
struct Orders {
    ids: Vec<Uuid>,
    timetables: Vec<Uuid>,
    users: Vec<Uuid>,
    holds: Vec<Uuid>,
    payments: Vec<Uuid>,
    methods: Vec<&'static str>,
    statuses: Vec<&'static str>,
    subtotals: Vec<i64>,
    discounts: Vec<i64>,
    amounts: Vec<i64>,
    created: Vec<i64>,
    seats: Vec<String>,
    coupons: Vec<Option<Uuid>>,
}

#[derive(Default)]
struct SoldSeats {
    timetables: Vec<Uuid>,
    seats: Vec<i32>,
    orders: Vec<Uuid>,
    users: Vec<Uuid>,
    prices: Vec<i64>,
}

/// Never of a hold that lives in the same batch.
const ENDED: &str = "DELETE FROM hold WHERE id = ANY($1::uuid[])";

const HOLDS: &str = "INSERT INTO hold \
       (id, timetable_id, user_id, created_at, expires_at, deadline, under_pass, seats) \
     SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], \
       $6::bigint[], $7::boolean[], $8::text[]) \
     ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at, \
       deadline = excluded.deadline, seats = excluded.seats";

const ORDERS: &str = "INSERT INTO orders \
       (id, timetable_id, user_id, hold_id, payment_id, method, status, \
        subtotal, discount, amount, created_at, seats, coupon_id, refunded) \
     SELECT n.*, 0 FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], \
       $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], \
       $12::text[], $13::uuid[]) AS n";

/// A seat that is sold already refuses the batch.
const SOLD: &str = "INSERT INTO sold_seat (timetable_id, seat, order_id, user_id, price) \
     SELECT * FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::uuid[], $5::bigint[])";

/// Orders that never come to be, and seats on and off sale.
const DISOWNED: &str = "INSERT INTO disowned_order (id, timetable_id) \
     SELECT * FROM unnest($1::uuid[], $2::uuid[])";

const UNBLOCKED: &str = "DELETE FROM blocked_seat USING \
       unnest($1::uuid[], $2::integer[]) AS n (id, seat) \
     WHERE timetable_id = n.id AND blocked_seat.seat = n.seat";

const BLOCKED: &str = "INSERT INTO blocked_seat (timetable_id, seat) \
     SELECT * FROM unnest($1::uuid[], $2::integer[]) ON CONFLICT DO NOTHING";

impl Timetables {
    pub(super) fn add(&mut self, id: Uuid, changes: &TimetableChanges) {
        for (hold_id, change) in &changes.holds {
            match change {
                HoldChange::Gone => self.ended.push(hold_id.0),
                HoldChange::Put { hold, .. } => {
                    let holds = &mut self.holds;
                    holds.ids.push(hold_id.0);
                    holds.timetables.push(id);
                    holds.users.push(hold.user.0);
                    holds.created.push(hold.created_at.0);
                    holds.expires.push(hold.expires_at.0);
                    holds.deadlines.push(hold.deadline.0);
                    holds.under_pass.push(hold.under_pass);
                    holds.seats.push(seats_json(&hold.seats));
                }
            }
        }
        for order in &changes.orders {
            self.add_order(id, order);
        }
        for order in &changes.disowned {
            self.disowned.0.push(order.0);
            self.disowned.1.push(id);
        }
        for (seat, is_blocked) in &changes.blocks {
            let seats = if *is_blocked {
                &mut self.blocked
            } else {
                &mut self.unblocked
            };
            seats.0.push(id);
            seats.1.push(seat.0.cast_signed());
        }
        self.cancels.add(id, changes);
    }

    fn add_order(&mut self, timetable: Uuid, order: &Order) {
        for priced in &order.seats {
            self.sold.timetables.push(timetable);
            self.sold.seats.push(priced.seat.0.cast_signed());
            self.sold.orders.push(order.id.0);
            self.sold.users.push(order.user.0);
            self.sold.prices.push(priced.price.0);
        }
        let orders = &mut self.orders;
        orders.ids.push(order.id.0);
        orders.timetables.push(timetable);
        orders.users.push(order.user.0);
        orders.holds.push(order.hold.0);
        orders.payments.push(order.payment.0);
        orders.methods.push(order.method.as_str());
        orders.statuses.push(order.status.as_str());
        orders.subtotals.push(order.subtotal().0);
        orders.discounts.push(order.discount.0);
        orders.amounts.push(order.amount().0);
        orders.created.push(order.created_at.0);
        orders.seats.push(seats_json(&order.seats));
        orders.coupons.push(order.coupon.map(|coupon| coupon.0));
    }

    pub(super) fn put(self, into: &mut Statement) {
        let Self {
            ended,
            holds,
            orders,
            sold,
            disowned,
            blocked,
            unblocked,
            cancels,
        } = self;
        if !ended.is_empty() || !holds.ids.is_empty() {
            into.part(ENDED).bind(ended);
            holds.put(into);
        }
        if !orders.ids.is_empty() {
            orders.put(into);
            sold.put(into);
        }
        // Rare.
        if !(disowned.0.is_empty() && blocked.0.is_empty() && unblocked.0.is_empty()) {
            into.part(DISOWNED).bind(disowned.0).bind(disowned.1);
            into.part(UNBLOCKED).bind(unblocked.0).bind(unblocked.1);
            into.part(BLOCKED).bind(blocked.0).bind(blocked.1);
        }
        cancels.put(into);
    }
}

impl Holds {
    fn put(self, into: &mut Statement) {
        into.part(HOLDS)
            .bind(self.ids)
            .bind(self.timetables)
            .bind(self.users)
            .bind(self.created)
            .bind(self.expires)
            .bind(self.deadlines)
            .bind(self.under_pass)
            .bind(self.seats);
    }
}

impl Orders {
    fn put(self, into: &mut Statement) {
        into.part(ORDERS)
            .bind(self.ids)
            .bind(self.timetables)
            .bind(self.users)
            .bind(self.holds)
            .bind(self.payments)
            .bind(self.methods)
            .bind(self.statuses)
            .bind(self.subtotals)
            .bind(self.discounts)
            .bind(self.amounts)
            .bind(self.created)
            .bind(self.seats)
            .bind(self.coupons);
    }
}

impl SoldSeats {
    fn put(self, into: &mut Statement) {
        into.part(SOLD)
            .bind(self.timetables)
            .bind(self.seats)
            .bind(self.orders)
            .bind(self.users)
            .bind(self.prices);
    }
}
