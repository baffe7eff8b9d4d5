//! Rows of accounts.

use uuid::Uuid;

use super::super::cancels::Credits;
use super::super::statement::Statement;
use crate::persistence::batch::{AccountChanges, KeyAnswer};

/// Rows of accounts.
#[derive(Default)]
pub(in super::super) struct Accounts<'a> {
    /// User, balance.
    wallets: (Vec<Uuid>, Vec<i64>),
    transfers: Transfers<'a>,
    prepares: Prepares,
    keys: Keys<'a>,
    credits: Credits,
}

#[derive(Default)]
struct Transfers<'a> {
    users: Vec<Uuid>,
    seqs: Vec<i64>,
    times: Vec<i64>,
    debits: Vec<&'a str>,
    credits: Vec<&'a str>,
    amounts: Vec<i64>,
    causes: Vec<&'static str>,
    cause_ids: Vec<Uuid>,
}

#[derive(Default)]
struct Prepares {
    users: Vec<Uuid>,
    orders: Vec<Uuid>,
    timetables: Vec<Uuid>,
    amounts: Vec<i64>,
    states: Vec<&'static str>,
    times: Vec<i64>,
}

#[derive(Default)]
struct Keys<'a> {
    users: Vec<Uuid>,
    keys: Vec<&'a str>,
    fingerprints: Vec<i64>,
    times: Vec<i64>,
    orders: Vec<Option<Uuid>>,
    timetables: Vec<Option<Uuid>>,
    statuses: Vec<Option<i32>>,
    bodies: Vec<Option<&'a str>>,
}

const WALLETS: &str = "INSERT INTO wallet (user_id, balance) \
     SELECT * FROM unnest($1::uuid[], $2::bigint[]) \
     ON CONFLICT (user_id) DO UPDATE SET balance = excluded.balance";

const TRANSFERS: &str = "INSERT INTO transfer \
       (user_id, seq, at, debit, credit, amount, cause, cause_id) \
     SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], \
       $6::bigint[], $7::text[], $8::uuid[])";

const PREPARES: &str = "INSERT INTO prepare (user_id, order_id, timetable_id, amount, state, at) \
     SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], \
       $6::bigint[]) \
     ON CONFLICT (user_id, order_id) DO UPDATE SET state = excluded.state";

const KEYS: &str = "INSERT INTO idempotency \
       (user_id, key, fingerprint, at, order_id, timetable_id, status, body) \
     SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::uuid[], \
       $6::uuid[], $7::integer[], $8::text[]) \
     ON CONFLICT (user_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, \
       at = excluded.at, order_id = excluded.order_id, timetable_id = excluded.timetable_id, \
       status = excluded.status, body = excluded.body";

impl<'a> Accounts<'a> {
    pub(in super::super) fn add(&mut self, id: Uuid, changes: &'a AccountChanges) {
        self.credits.add(id, changes);
        if let Some(balance) = changes.balance {
            self.wallets.0.push(id);
            self.wallets.1.push(balance.0);
        }
        for t in &changes.transfers {
            let transfers = &mut self.transfers;
            transfers.users.push(id);
            transfers.seqs.push(t.seq.0.cast_signed());
            transfers.times.push(t.at.0);
            transfers.debits.push(&t.debit);
            transfers.credits.push(&t.credit);
            transfers.amounts.push(t.amount.0);
            transfers.causes.push(t.cause);
            transfers.cause_ids.push(t.cause_id);
        }
        for (p, state) in changes.prepares.values() {
            let prepares = &mut self.prepares;
            prepares.users.push(id);
            prepares.orders.push(p.order.0);
            prepares.timetables.push(p.timetable.0);
            prepares.amounts.push(p.amount.0);
            prepares.states.push(state.as_str());
            prepares.times.push(p.at.0);
        }
        for key in changes.keys.values() {
            let (order, timetable, status, body) = match &key.answer {
                KeyAnswer::Order(p) => (Some(p.order.0), Some(p.timetable.0), None, None),
                KeyAnswer::Stored { status, body } => {
                    (None, None, Some(i32::from(*status)), Some(body.as_str()))
                }
            };
            let keys = &mut self.keys;
            keys.users.push(id);
            keys.keys.push(&key.key);
            // The column is signed; the bits are what counts.
            keys.fingerprints.push(key.fingerprint.cast_signed());
            keys.times.push(key.at.0);
            keys.orders.push(order);
            keys.timetables.push(timetable);
            keys.statuses.push(status);
            keys.bodies.push(body);
        }
    }

    pub(in super::super) fn put(self, into: &mut Statement) {
        if !(self.wallets.0.is_empty() && self.transfers.users.is_empty()) {
            into.part(WALLETS).bind(self.wallets.0).bind(self.wallets.1);
            self.transfers.put(into);
        }
        if !self.prepares.users.is_empty() {
            self.prepares.put(into);
        }
        if !self.keys.users.is_empty() {
            self.keys.put(into);
        }
        self.credits.put(into);
    }
}

impl Transfers<'_> {
    fn put(self, into: &mut Statement) {
        into.part(TRANSFERS)
            .bind(self.users)
            .bind(self.seqs)
            .bind(self.times)
            .bind(self.debits)
            .bind(self.credits)
            .bind(self.amounts)
            .bind(self.causes)
            .bind(self.cause_ids);
    }
}

impl Prepares {
    fn put(self, into: &mut Statement) {
        into.part(PREPARES)
            .bind(self.users)
            .bind(self.orders)
            .bind(self.timetables)
            .bind(self.amounts)
            .bind(self.states)
            .bind(self.times);
    }
}

impl Keys<'_> {
    fn put(self, into: &mut Statement) {
        into.part(KEYS)
            .bind(self.users)
            .bind(self.keys)
            .bind(self.fingerprints)
            .bind(self.times)
            .bind(self.orders)
            .bind(self.timetables)
            .bind(self.statuses)
            .bind(self.bodies);
    }
}
