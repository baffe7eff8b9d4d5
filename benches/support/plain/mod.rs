//! The plain design of a ticket shop: each order is a transaction of its own on
//! the request's path, statement by statement, all of them prepared.

pub(crate) mod postgres;
pub(crate) mod sqlite;

use std::sync::atomic::{AtomicI64, Ordering};

use axum::Json;
use axum::http::StatusCode;
use onsale::clock::Clock;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

const PRICE: i64 = 1_000;
const BALANCE: i64 = 1_000_000_000;
/// A hold lives longer than the bench.
const HOLD_MS: i64 = 3_600_000;

/// A shop on one of the stores.
struct Shop<S> {
    store: S,
    clock: Clock,
    /// Numbers the entries of the ledger and the events.
    next: AtomicI64,
}

impl<S> Shop<S> {
    fn on(store: S) -> Self {
        Self {
            store,
            clock: Clock::system(),
            next: AtomicI64::new(1),
        }
    }

    /// What the statements of an order are made of beside its hold.
    fn stamp(&self) -> Stamp {
        Stamp {
            now: self.clock.now().0,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }
}

struct Stamp {
    now: i64,
    number: i64,
}

#[derive(Deserialize)]
struct HoldsWanted {
    count: usize,
    buyers: usize,
}

/// Holds of one seat each on a new date.
struct Holds {
    timetable: Uuid,
    users: Vec<Uuid>,
    ids: Vec<Uuid>,
}

impl HoldsWanted {
    fn holds(&self) -> Holds {
        Holds {
            timetable: Uuid::now_v7(),
            users: (0..self.buyers).map(|_| Uuid::now_v7()).collect(),
            ids: (0..self.count).map(|_| Uuid::now_v7()).collect(),
        }
    }
}

/// The seats of a hold, as they are stored.
fn seats_of(seat: usize) -> String {
    json!([[seat, PRICE]]).to_string()
}

#[derive(Deserialize)]
struct Wanted {
    hold_id: Uuid,
    #[serde(rename = "payment")]
    _payment: Value,
}

type Answer = Result<(StatusCode, Json<Value>), StatusCode>;

#[allow(
    clippy::needless_pass_by_value,
    reason = "it is used as `map_err(failed)`"
)]
fn failed(error: sqlx::Error) -> StatusCode {
    eprintln!("plain: {error}");
    StatusCode::INTERNAL_SERVER_ERROR
}

/// The statements of one order on `$Connection`, the first of which ends in `$lock`;
/// `None`: there is no such hold, or no money.
macro_rules! sell_on {
    ($Connection:ty, $lock:literal) => {
        async fn sell(
            c: &mut $Connection,
            hold: Uuid,
            super::Stamp { now, number }: super::Stamp,
        ) -> Result<Option<serde_json::Value>, sqlx::Error> {
            let found = sqlx::query(concat!(
                "SELECT timetable_id, user_id, seats FROM hold WHERE id = $1 AND expires_at > $2",
                $lock
            ))
            .bind(hold)
            .bind(now)
            .fetch_optional(&mut *c)
            .await?;
            let Some(row) = found else { return Ok(None) };
            let (timetable, user): (Uuid, Uuid) = (row.try_get(0)?, row.try_get(1)?);
            let text: String = row.try_get(2)?;
            let seats: Vec<(i32, i64)> =
                serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(error.into()))?;
            let amount: i64 = seats.iter().map(|(_, price)| price).sum();
            let paid = sqlx::query(
                "UPDATE wallet SET balance = balance - $1 WHERE user_id = $2 AND balance >= $1",
            )
            .bind(amount)
            .bind(user)
            .execute(&mut *c)
            .await?;
            if paid.rows_affected() == 0 {
                return Ok(None);
            }
            let (order, payment) = (Uuid::now_v7(), Uuid::now_v7());
            sqlx::query(
                "INSERT INTO orders (id, timetable_id, user_id, hold_id, payment_id, method, \
                 status, subtotal, discount, amount, refunded, created_at, seats) \
                 VALUES ($1, $2, $3, $4, $5, 'wallet', 'confirmed', $6, 0, $6, 0, $7, $8)",
            )
            .bind(order)
            .bind(timetable)
            .bind(user)
            .bind(hold)
            .bind(payment)
            .bind(amount)
            .bind(now)
            .bind(&text)
            .execute(&mut *c)
            .await?;
            for (seat, price) in &seats {
                sqlx::query(
                    "INSERT INTO sold_seat (timetable_id, seat, order_id, user_id, price) \
                     VALUES ($1, $2, $3, $4, $5)",
                )
                .bind(timetable)
                .bind(seat)
                .bind(order)
                .bind(user)
                .bind(price)
                .execute(&mut *c)
                .await?;
            }
            sqlx::query(
                "INSERT INTO transfer (user_id, seq, at, debit, credit, amount, cause, cause_id) \
                 VALUES ($1, $2, $3, $4, $5, $6, 'order', $7)",
            )
            .bind(user)
            .bind(number)
            .bind(now)
            .bind(format!("wallet:{user}"))
            .bind(format!("sales:{timetable}"))
            .bind(amount)
            .bind(order)
            .execute(&mut *c)
            .await?;
            let answer = serde_json::json!({
                "order_id": order,
                "status": "confirmed",
                "timetable_id": timetable,
                "seats": seats,
                "amount": amount,
                "currency": "KRW",
                "payment": { "payment_id": payment, "method": "wallet", "status": "captured" },
                "tickets": [],
            });
            sqlx::query(
                "INSERT INTO outbox (entity, topic, event_seq, event_id, type, version, at, \
                 payload) VALUES ($1, 'onsale.orders', $2, $3, 'order.confirmed', 1, $4, $5)",
            )
            .bind(timetable)
            .bind(number)
            .bind(Uuid::now_v7())
            .bind(now)
            .bind(answer.to_string())
            .execute(&mut *c)
            .await?;
            sqlx::query("DELETE FROM hold WHERE id = $1")
                .bind(hold)
                .execute(c)
                .await?;
            Ok(Some(answer))
        }
    };
}
use sell_on;
