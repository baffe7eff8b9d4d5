//! The plain design of a ticket shop on Postgres: each order is a transaction of
//! its own on the request's path, statement by statement, all of them prepared.

use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use onsale::clock::Clock;
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Row as _};
use uuid::Uuid;

const TABLES: &str = include_str!("plain_postgres.sql");
const PRICE: i64 = 1_000;
const BALANCE: i64 = 1_000_000_000;
/// A hold lives longer than the bench.
const HOLD_MS: i64 = 3_600_000;
/// Transactions that are open at once: a usual pool, and the size with which it
/// was fastest here (of 8, 16, 32 and 64).
const CONNECTIONS: u32 = 16;

struct Shop {
    pool: PgPool,
    clock: Clock,
    /// Numbers the entries of the ledger and the events.
    next: AtomicI64,
}

/// Serves until the process is killed, in the empty database at `url`.
pub(crate) fn serve(url: &str) {
    let options = PgConnectOptions::from_str(url)
        .unwrap()
        .disable_statement_logging();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(TABLES)
            .execute(&mut connection)
            .await
            .unwrap();
    });
    crate::support::serve_peer(move || {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        let shop = Arc::new(Shop {
            pool,
            clock: Clock::system(),
            next: AtomicI64::new(1),
        });
        Router::new()
            .route("/holds", post(hold))
            .route("/orders", post(order))
            .with_state(shop)
    });
}

#[derive(Deserialize)]
struct HoldsWanted {
    count: usize,
    buyers: usize,
}

/// Makes holds of one seat each on a new date: what comes before the orders is
/// not measured.
async fn hold(State(shop): State<Arc<Shop>>, Query(wanted): Query<HoldsWanted>) -> Json<Vec<Uuid>> {
    let timetable = Uuid::now_v7();
    let users: Vec<Uuid> = (0..wanted.buyers).map(|_| Uuid::now_v7()).collect();
    let holds: Vec<Uuid> = (0..wanted.count).map(|_| Uuid::now_v7()).collect();
    let now = shop.clock.now().0;
    sqlx::query("INSERT INTO wallet (user_id, balance) SELECT u, $2 FROM unnest($1::uuid[]) AS u")
        .bind(&users)
        .bind(BALANCE)
        .execute(&shop.pool)
        .await
        .unwrap();
    let of: Vec<Uuid> = users.iter().cycle().take(holds.len()).copied().collect();
    let seats = |seat| json!([[seat, PRICE]]).to_string();
    let seats: Vec<String> = (0..holds.len()).map(seats).collect();
    sqlx::query(
        "INSERT INTO hold (id, timetable_id, user_id, created_at, expires_at, under_pass, seats) \
         SELECT id, $4, u, $5, $6, false, seats \
         FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS n (id, u, seats)",
    )
    .bind(&holds)
    .bind(of)
    .bind(seats)
    .bind(timetable)
    .bind(now)
    .bind(now + HOLD_MS)
    .execute(&shop.pool)
    .await
    .unwrap();
    // As autovacuum would have done by the time of a sale.
    sqlx::raw_sql("ANALYZE hold, wallet")
        .execute(&shop.pool)
        .await
        .unwrap();
    Json(holds)
}

#[derive(Deserialize)]
struct Wanted {
    hold_id: Uuid,
    #[serde(rename = "payment")]
    _payment: Value,
}

async fn order(
    State(shop): State<Arc<Shop>>,
    Json(wanted): Json<Wanted>,
) -> Result<(StatusCode, Json<Value>), StatusCode> {
    let now = shop.clock.now().0;
    let number = shop.next.fetch_add(1, Ordering::Relaxed);
    let mut transaction = shop.pool.begin().await.map_err(failed)?;
    let sold = sell(&mut transaction, wanted.hold_id, now, number).await;
    match sold.map_err(failed)? {
        Some(answer) => {
            transaction.commit().await.map_err(failed)?;
            Ok((StatusCode::CREATED, Json(answer)))
        }
        None => Err(StatusCode::CONFLICT),
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "it is used as `map_err(failed)`"
)]
fn failed(error: sqlx::Error) -> StatusCode {
    eprintln!("plain: {error}");
    StatusCode::INTERNAL_SERVER_ERROR
}

/// The statements of one order; `None`: there is no such hold, or no money.
async fn sell(
    c: &mut PgConnection,
    hold: Uuid,
    now: i64,
    number: i64,
) -> Result<Option<Value>, sqlx::Error> {
    let found = sqlx::query(
        "SELECT timetable_id, user_id, seats FROM hold WHERE id = $1 AND expires_at > $2 \
         FOR UPDATE",
    )
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
        "INSERT INTO orders (id, timetable_id, user_id, hold_id, payment_id, method, status, \
         subtotal, discount, amount, refunded, created_at, seats) \
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
    let answer = json!({
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
        "INSERT INTO outbox (entity, topic, event_seq, event_id, type, version, at, payload) \
         VALUES ($1, 'onsale.orders', $2, $3, 'order.confirmed', 1, $4, $5)",
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
