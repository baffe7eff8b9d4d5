//! What actors hand over to be written, and how it coalesces while it waits.
//!
//! A [`Contribution`] is all that one entity has decided since its last write:
//! its new version, the rows as they are now (a hold made and given back while
//! it waited is no row at all), the journal of what happened, which is never
//! coalesced, and the events to publish.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde::Serialize;
use uuid::Uuid;

use crate::domain::account::{KeyHash, Prepare, PrepareState, Refund};
use crate::domain::coupon::{self, Claim};
use crate::domain::decision::Machine;
use crate::domain::ids::{
    Activation, EntityId, EntityKind, HoldId, OrderId, QueueTicketId, Seq, Stamp, UserId,
};
use crate::domain::money::Money;
use crate::domain::order::{Cancel, CancelNo, Order};
use crate::domain::queue::End;
use crate::domain::queue::line::TicketNumber;
use crate::domain::queue::restore::{PlaceRow, PlaceState, QueueRow};
use crate::domain::seat::SeatIndex;
use crate::domain::time::Timestamp;
use crate::domain::timetable::Hold;
use crate::trace::{self, Trace};

type Map<K, V> = HashMap<K, V, RandomState>;

/// Estimated bytes of a row in a waiting contribution, for the bound on dirty
/// data.
const ROW_BYTES: usize = 128;

/// A state machine whose decisions are written behind.
pub trait Persisted: Machine<Event: Serialize> {
    /// Which kind of entity it is.
    const KIND: EntityKind;

    /// Puts what `event` changed into `into`; called right after it was
    /// applied.
    fn record(&self, event: &Self::Event, into: &mut Contribution);
}

/// All that one entity has decided since its last write.
#[derive(Clone, Debug)]
pub struct Contribution {
    /// Whose.
    pub entity: EntityId,
    /// The version that the stored rows must have.
    pub expected: Stamp,
    /// The version that they get.
    pub after: Stamp,
    /// The first decision in it.
    pub first_seq: Seq,
    /// When the last of it was decided.
    pub at: Timestamp,
    /// postcard: a sequence of (seq, time, event).
    pub journal: Vec<u8>,
    /// The rows.
    pub changes: Changes,
    /// What is to be published.
    pub outbox: Vec<OutboxRow>,
    /// Whose work it is, as far as that is recorded.
    pub traces: Vec<Trace>,
    /// What must not be written later than it.
    pub ties: Vec<Tie>,
}

/// To all that one life of an entity has decided so far: what is tied to it is true
/// only if that is, and so is written with it or after it, never before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tie {
    /// Whose.
    pub entity: EntityId,
    /// In which of its lives.
    pub activation: Activation,
}

/// The rows of a contribution.
#[derive(Clone, Debug)]
pub enum Changes {
    /// Of a timetable.
    Timetable(TimetableChanges),
    /// Of an account.
    Account(AccountChanges),
    /// Of a queue.
    Queue(QueueChanges),
    /// Of a coupon.
    Coupon(CouponChanges),
}

/// Rows of a timetable.
#[derive(Clone, Debug, Default)]
pub struct TimetableChanges {
    /// The last state of each hold.
    pub holds: Map<HoldId, HoldChange>,
    /// Orders that were confirmed, with their seats.
    pub orders: Vec<Arc<Order>>,
    /// Orders that can't be opened any more.
    pub disowned: Vec<OrderId>,
    /// Seats that went off sale (true) or came back.
    pub blocks: Map<SeatIndex, bool>,
    /// Cancels: what the store has of these seats, and of their tickets, is over.
    pub cancels: Vec<CancelRow>,
    /// Orders as they are since then.
    pub cancelled: Map<OrderId, Arc<Order>>,
    /// Refunds that came in, and when that was noted.
    pub refunded: Vec<(OrderId, CancelNo, Timestamp)>,
}

/// A cancel.
#[derive(Clone, Debug)]
pub struct CancelRow {
    /// Of which order.
    pub order: OrderId,
    /// Whose.
    pub user: UserId,
    /// What was cancelled.
    pub cancel: Cancel,
    /// When its refund came in, if that needs no looking after.
    pub refunded_at: Option<Timestamp>,
}

/// The last state of a hold.
#[derive(Clone, Debug)]
pub enum HoldChange {
    /// It lives. `born`: within this contribution, so the store has no row.
    Put { hold: Hold, born: bool },
    /// It is over, and the store may have a row.
    Gone,
}

impl TimetableChanges {
    /// A hold began.
    pub fn hold_began(&mut self, hold: Hold) {
        self.holds
            .insert(hold.id, HoldChange::Put { hold, born: true });
    }

    /// A hold changed.
    pub fn hold_changed(&mut self, hold: Hold) {
        let born = matches!(
            self.holds.get(&hold.id),
            Some(HoldChange::Put { born: true, .. })
        );
        self.holds.insert(hold.id, HoldChange::Put { hold, born });
    }

    /// A hold is over. If it began in this very contribution, the store never
    /// hears of it.
    pub fn hold_ended(&mut self, hold: HoldId) {
        match self.holds.get(&hold) {
            Some(HoldChange::Put { born: true, .. }) => {
                self.holds.remove(&hold);
            }
            _ => {
                self.holds.insert(hold, HoldChange::Gone);
            }
        }
    }
}

/// Rows of an account.
#[derive(Clone, Debug, Default)]
pub struct AccountChanges {
    /// The balance, if it changed.
    pub balance: Option<Money>,
    /// Never coalesced.
    pub transfers: Vec<TransferRow>,
    /// The last state of each order's money.
    pub prepares: Map<OrderId, (Prepare, PrepareState)>,
    /// The last state of each key.
    pub keys: Map<KeyHash, KeyRow>,
    /// Never coalesced.
    pub credits: Vec<CreditRow>,
}

/// A refund that came in.
#[derive(Clone, Copy, Debug)]
pub struct CreditRow {
    /// Within the contribution's entity.
    pub seq: Seq,
    /// Which one.
    pub refund: Refund,
    /// When.
    pub at: Timestamp,
}

/// A movement of money: both sides in one row.
#[derive(Clone, Debug)]
pub struct TransferRow {
    /// Within the contribution's entity.
    pub seq: Seq,
    /// When.
    pub at: Timestamp,
    /// Where it comes from, e.g. `wallet:<user>`.
    pub debit: String,
    /// Where it goes to.
    pub credit: String,
    /// How much, more than zero.
    pub amount: Money,
    /// Why: `charge`, `order`, `refund`.
    pub cause: &'static str,
    /// Which one.
    pub cause_id: Uuid,
}

/// An idempotency key.
#[derive(Clone, Debug)]
pub struct KeyRow {
    /// The key.
    pub key: String,
    /// Of method, path and body.
    pub fingerprint: u64,
    /// Since when.
    pub at: Timestamp,
    /// Where its answer is.
    pub answer: KeyAnswer,
}

/// Where the answer to a repeated request is.
#[derive(Clone, Debug)]
pub enum KeyAnswer {
    /// The order decides it.
    Order(Prepare),
    /// Here.
    Stored {
        /// HTTP status.
        status: u16,
        /// The JSON body.
        body: String,
    },
}

/// Rows of a queue.
#[derive(Clone, Debug, Default)]
pub struct QueueChanges {
    /// Its own row as it is last, if it changed.
    pub queue: Option<QueueRow>,
    /// The last state of each place.
    pub places: Map<QueueTicketId, PlaceChange>,
}

/// The last state of a place.
#[derive(Clone, Copy, Debug)]
pub enum PlaceChange {
    /// It is so.
    Put(PlaceRow),
    /// The row that the store has is over; the rest of it isn't known.
    Ended(PlaceEnd),
}

/// How a place ended of which nothing else is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlaceEnd {
    /// Its number; who had none when it ended takes no part in the draw.
    pub number: Option<TicketNumber>,
    /// How it ended.
    pub end: End,
    /// When.
    pub at: Timestamp,
}

impl QueueChanges {
    /// A place is now so.
    pub fn place_changed(&mut self, row: PlaceRow) {
        self.places.insert(row.ticket, PlaceChange::Put(row));
    }

    /// A place is over.
    pub fn place_ended(&mut self, ticket: QueueTicketId, ended: PlaceEnd) {
        match self.places.get_mut(&ticket) {
            Some(PlaceChange::Put(row)) => ended.put_into(row),
            Some(PlaceChange::Ended(_)) => {}
            None => {
                self.places.insert(ticket, PlaceChange::Ended(ended));
            }
        }
    }
}

impl PlaceEnd {
    /// Ends the place of `row`, if it hasn't.
    pub fn put_into(self, row: &mut PlaceRow) {
        let pass_until = match row.state {
            PlaceState::Ended { .. } => return,
            PlaceState::Active { expires_at, .. } => expires_at,
            PlaceState::Waiting | PlaceState::Admitted => self.at,
        };
        row.entrant &= self.number.is_some();
        row.number = row.number.or(self.number);
        row.state = PlaceState::Ended {
            end: self.end,
            at: self.at,
            pass_until,
        };
    }
}

/// Rows of a coupon.
#[derive(Clone, Debug, Default)]
pub struct CouponChanges {
    /// Its own row as it is last, if it changed.
    pub coupon: Option<coupon::View>,
    /// Never coalesced.
    pub claims: Vec<Claim>,
    /// How each order's use of a claim stands last.
    pub uses: Map<OrderId, UseRow>,
}

/// An order's use of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UseRow {
    /// The claim and the order.
    pub prepare: coupon::Prepare,
    /// How it stands.
    pub state: UseState,
    /// Since when.
    pub at: Timestamp,
}

/// How an order's use of a claim stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum UseState {
    /// It came to nothing.
    Void,
    /// The order was cancelled.
    Returned,
    /// The order was confirmed.
    Posted,
    /// The order is under way.
    Prepared,
}

impl UseState {
    /// As in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Void => "void",
            Self::Returned => "returned",
            Self::Posted => "posted",
            Self::Prepared => "prepared",
        }
    }
}

impl CouponChanges {
    /// The uses, those that free a claim before those that have one: no claim
    /// has two at any moment of the write.
    #[must_use]
    pub fn uses_in_order(&self) -> Vec<&UseRow> {
        let mut rows: Vec<&UseRow> = self.uses.values().collect();
        rows.sort_unstable_by_key(|row| row.state);
        rows
    }
}

/// An event to publish.
#[derive(Clone, Debug)]
pub struct OutboxRow {
    /// Where to.
    pub topic: &'static str,
    /// Gap-free per entity and topic, from 1.
    pub event_seq: u64,
    /// Identifies the event for ever.
    pub event_id: Uuid,
    /// What happened, e.g. `order.confirmed`.
    pub kind: &'static str,
    /// Of the payload's schema.
    pub version: u16,
    /// When.
    pub at: Timestamp,
    /// The trace (W3C `traceparent`) of the request that it came of, if it had one.
    pub trace: Option<Trace>,
    /// JSON.
    pub payload: String,
}

/// Of so many requests a contribution tells when it was written.
const TRACES_MAX: usize = 16;

impl Contribution {
    /// An empty contribution of an entity whose rows are at `expected`.
    #[must_use]
    pub fn new(entity: EntityId, expected: Stamp, after: Stamp, at: Timestamp) -> Self {
        let changes = match entity.kind {
            EntityKind::Timetable => Changes::Timetable(TimetableChanges::default()),
            EntityKind::Account => Changes::Account(AccountChanges::default()),
            EntityKind::Queue => Changes::Queue(QueueChanges::default()),
            EntityKind::Coupon => Changes::Coupon(CouponChanges::default()),
        };
        Self {
            entity,
            expected,
            after,
            first_seq: expected.seq.next(),
            at,
            journal: Vec::new(),
            changes,
            outbox: Vec::new(),
            traces: Vec::new(),
            ties: Vec::new(),
        }
    }

    /// What is put into it now is done for `trace`.
    pub fn belongs_to(&mut self, trace: Option<&Trace>) {
        if let Some(trace) = trace.filter(|trace| trace::is_recorded(trace))
            && self.traces.len() < TRACES_MAX
        {
            self.traces.push(Arc::clone(trace));
        }
    }

    /// The rows, of a timetable.
    pub fn timetable(&mut self) -> Option<&mut TimetableChanges> {
        match &mut self.changes {
            Changes::Timetable(changes) => Some(changes),
            Changes::Account(_) | Changes::Queue(_) | Changes::Coupon(_) => None,
        }
    }

    /// The rows, of an account.
    pub fn account(&mut self) -> Option<&mut AccountChanges> {
        match &mut self.changes {
            Changes::Account(changes) => Some(changes),
            Changes::Timetable(_) | Changes::Queue(_) | Changes::Coupon(_) => None,
        }
    }

    /// The rows, of a queue.
    pub fn queue(&mut self) -> Option<&mut QueueChanges> {
        match &mut self.changes {
            Changes::Queue(changes) => Some(changes),
            Changes::Timetable(_) | Changes::Account(_) | Changes::Coupon(_) => None,
        }
    }

    /// The rows, of a coupon.
    pub fn coupon(&mut self) -> Option<&mut CouponChanges> {
        match &mut self.changes {
            Changes::Coupon(changes) => Some(changes),
            Changes::Timetable(_) | Changes::Account(_) | Changes::Queue(_) => None,
        }
    }

    /// Adds one event to the journal.
    pub fn journalise<E: Serialize>(&mut self, seq: Seq, at: Timestamp, event: &E) {
        let journal = std::mem::take(&mut self.journal);
        // Writing to a Vec can't fail, and events have no types that postcard
        // refuses; if that ever changes, the audit finds the hole.
        self.journal = postcard::to_extend(&(seq, at, event), journal).unwrap_or_default();
    }

    /// How many rows it will write, about.
    #[must_use]
    pub fn rows(&self) -> usize {
        let changes = match &self.changes {
            Changes::Timetable(t) => {
                let seats: usize = t.orders.iter().map(|order| 1 + order.seats.len()).sum();
                let cancelled = t.cancels.iter().map(|row| 1 + 2 * row.cancel.seats.len());
                let cancelled = cancelled.sum::<usize>() + t.cancelled.len() + t.refunded.len();
                t.holds.len() + seats + t.disowned.len() + t.blocks.len() + cancelled
            }
            Changes::Account(a) => {
                usize::from(a.balance.is_some())
                    + a.transfers.len()
                    + a.prepares.len()
                    + a.keys.len()
                    + a.credits.len()
            }
            Changes::Queue(q) => usize::from(q.queue.is_some()) + q.places.len(),
            Changes::Coupon(c) => usize::from(c.coupon.is_some()) + c.claims.len() + c.uses.len(),
        };
        // Its version and its journal are a row each.
        2 + changes + self.outbox.len()
    }

    /// How much memory it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.journal.len() + self.rows() * ROW_BYTES
    }
}
