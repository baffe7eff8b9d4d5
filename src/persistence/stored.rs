//! What both stores keep in the same form, and how it is read.

pub(super) mod catalogue;
pub(super) mod coupon;
pub(super) mod entities;
pub(super) mod export;
pub(super) mod orders;
pub(super) mod queue;
pub(super) mod reader;
pub(super) mod row;

use uuid::Uuid;

use super::StoreError;
use super::store::entities::Loaded;
use crate::domain::account::{Account, KeyHash, KeyState, Keys, Prepare, PrepareState};
use crate::domain::ids::{EntityKind, OrderId, Stamp, TimetableId};
use crate::domain::money::Money;
use crate::domain::order::{CancelNo, Method, PricedSeat, PricedSeats};
use crate::domain::seat::SeatIndex;
use crate::domain::time::Timestamp;

/// How many settled orders an account gets back: as many as it remembers.
pub(super) const SETTLED_LOADED_MAX: i64 = 128;

/// A stored kind of entity.
pub(super) fn entity_kind(name: &str) -> Result<EntityKind, StoreError> {
    EntityKind::named(name).ok_or_else(|| StoreError::Unreadable(format!("entity kind {name}")))
}

/// A stored method of payment.
pub(super) fn method(text: &str) -> Result<Method, StoreError> {
    match text {
        "wallet" => Ok(Method::Wallet),
        "card" => Ok(Method::Card),
        other => Err(StoreError::Unreadable(format!("payment method {other}"))),
    }
}

/// Stored seats: `[[seat, price], …]`.
pub(super) fn seats(text: &str) -> Result<PricedSeats, StoreError> {
    let seats: Vec<(u32, Money)> =
        serde_json::from_str(text).map_err(|e| StoreError::Unreadable(e.to_string()))?;
    Ok(seats
        .into_iter()
        .map(|(seat, price)| PricedSeat {
            seat: SeatIndex(seat),
            price,
        })
        .collect())
}

/// Stored seats without prices: `[seat, …]`.
pub(super) fn plain_seats(text: &str) -> Result<Vec<SeatIndex>, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::Unreadable(e.to_string()))
}

/// At or below every UUIDv7 that was made at `at` or later (RFC 9562 §5.7: the
/// first 48 bits are the milliseconds).
pub(super) fn first_id_at(at: Timestamp) -> Uuid {
    let ms = u64::try_from(at.0).unwrap_or(0);
    Uuid::from_u64_pair(ms << 16, 0)
}

/// The parts of an account, while they are read table by table.
#[derive(Default)]
pub(super) struct AccountRows {
    stamp: Stamp,
    balance: Money,
    prepared: Vec<Prepare>,
    settled: Vec<(OrderId, PrepareState)>,
    credited: Vec<(OrderId, CancelNo)>,
    keys: Keys,
}

/// An idempotency key as stored, without its answer.
struct StoredKey {
    key: String,
    fingerprint: i64,
    at: Timestamp,
    order: Option<Uuid>,
    timetable: Option<Uuid>,
}

impl AccountRows {
    fn restore_key(&mut self, stored: &StoredKey) {
        let state = match (stored.order, stored.timetable) {
            (Some(order), Some(timetable)) => {
                KeyState::Ordered(OrderId(order), TimetableId(timetable))
            }
            _ => KeyState::Answered,
        };
        self.keys.restore(
            KeyHash::of(&stored.key),
            stored.fingerprint.cast_unsigned(),
            stored.at,
            state,
        );
    }

    pub(super) fn into_loaded(self) -> Loaded<Account> {
        Loaded {
            state: Account::restore(
                self.balance,
                self.prepared,
                self.settled,
                (self.credited, self.stamp.seq),
                self.keys,
            ),
            stamp: self.stamp,
            last_event_seq: 0,
        }
    }
}
