//! The plain design of a ticket shop: each order is a transaction of its own on
//! the request's path, statement by statement, on one writing connection.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use onsale::clock::Clock;
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Row as _};
use tokio::sync::Mutex;
use uuid::Uuid;

const TABLES: &str = include_str!("plain.sql");
const PRICE: i64 = 1_000;
const BALANCE: i64 = 1_000_000_000;
/// A hold lives longer than the bench.
const HOLD_MS: i64 = 3_600_000;

struct Shop {
    /// One writer, as SQLite has it anyway.
    writer: Mutex<SqliteConnection>,
    clock: Clock,
    /// Numbers the entries of the ledger and the events.
    next: AtomicI64,
}

/// Serves until the process is killed, on a new file in `folder`.
pub(crate) fn serve(folder: &Path) {
    let path = folder.join("plain.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let writer = runtime.block_on(async {
        let mut writer = connect(&path).await;
        sqlx::raw_sql(TABLES).execute(&mut writer).await.unwrap();
        writer
    });
    let shop = Arc::new(Shop {
        writer: Mutex::new(writer),
        clock: Clock::system(),
        next: AtomicI64::new(1),
    });
    crate::support::serve_peer(|| {
        Router::new()
            .route("/holds", post(hold))
            .route("/orders", post(order))
            .with_state(shop)
    });
}

/// With the settings of the real server's writing connection.
async fn connect(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .foreign_keys(true)
        .statement_cache_capacity(200)
        .page_size(2_048)
        .pragma("wal_autocheckpoint", "16384")
        .pragma("cache_size", "-65536")
        .disable_statement_logging()
        .connect()
        .await
        .unwrap()
}

#[derive(Deserialize)]
struct HoldsWanted {
    count: usize,
    buyers: usize,
}

/// Makes holds of one seat each on a new date, all in one transaction: what
/// comes before the orders is not measured.
async fn hold(State(shop): State<Arc<Shop>>, Query(wanted): Query<HoldsWanted>) -> Json<Vec<Uuid>> {
    let timetable = Uuid::now_v7();
    let users: Vec<Uuid> = (0..wanted.buyers).map(|_| Uuid::now_v7()).collect();
    let holds: Vec<Uuid> = (0..wanted.count).map(|_| Uuid::now_v7()).collect();
    let now = shop.clock.now().0;
    let mut writer = shop.writer.lock().await;
    let c = &mut *writer;
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut *c)
        .await
        .unwrap();
    for user in &users {
        sqlx::query("INSERT INTO wallet (user_id, balance) VALUES (?, ?)")
            .bind(user)
            .bind(BALANCE)
            .execute(&mut *c)
            .await
            .unwrap();
    }
    for (seat, hold) in holds.iter().enumerate() {
        sqlx::query(
            "INSERT INTO hold (id, timetable_id, user_id, created_at, expires_at, under_pass, seats) \
             VALUES (?, ?, ?, ?, ?, 0, ?)",
        )
        .bind(hold)
        .bind(timetable)
        .bind(users[seat % users.len()])
        .bind(now)
        .bind(now + HOLD_MS)
        .bind(json!([[seat, PRICE]]).to_string())
        .execute(&mut *c)
        .await
        .unwrap();
    }
    sqlx::query("COMMIT").execute(c).await.unwrap();
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
    let mut writer = shop.writer.lock().await;
    let c = &mut *writer;
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    match sell(c, wanted.hold_id, now, number).await {
        Ok(Some(answer)) => {
            sqlx::query("COMMIT").execute(c).await.map_err(failed)?;
            Ok((StatusCode::CREATED, Json(answer)))
        }
        Ok(None) => {
            sqlx::query("ROLLBACK").execute(c).await.map_err(failed)?;
            Err(StatusCode::CONFLICT)
        }
        Err(error) => {
            sqlx::query("ROLLBACK").execute(c).await.map_err(failed)?;
            Err(failed(error))
        }
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
    c: &mut SqliteConnection,
    hold: Uuid,
    now: i64,
    number: i64,
) -> Result<Option<Value>, sqlx::Error> {
    let found = sqlx::query(
        "SELECT timetable_id, user_id, seats FROM hold WHERE id = ? AND expires_at > ?",
    )
    .bind(hold)
    .bind(now)
    .fetch_optional(&mut *c)
    .await?;
    let Some(row) = found else { return Ok(None) };
    let (timetable, user): (Uuid, Uuid) = (row.try_get(0)?, row.try_get(1)?);
    let text: String = row.try_get(2)?;
    let seats: Vec<(i64, i64)> =
        serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let amount: i64 = seats.iter().map(|(_, price)| price).sum();
    let (order, payment) = (Uuid::now_v7(), Uuid::now_v7());
    sqlx::query(
        "INSERT INTO orders (id, timetable_id, user_id, hold_id, payment_id, method, status, \
         subtotal, discount, amount, refunded, created_at, seats) \
         VALUES (?, ?, ?, ?, ?, 'wallet', 'confirmed', ?, 0, ?, 0, ?, ?)",
    )
    .bind(order)
    .bind(timetable)
    .bind(user)
    .bind(hold)
    .bind(payment)
    .bind(amount)
    .bind(amount)
    .bind(now)
    .bind(&text)
    .execute(&mut *c)
    .await?;
    for (seat, price) in &seats {
        sqlx::query(
            "INSERT INTO sold_seat (timetable_id, seat, order_id, user_id, price) \
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(timetable)
        .bind(seat)
        .bind(order)
        .bind(user)
        .bind(price)
        .execute(&mut *c)
        .await?;
    }
    let paid = sqlx::query(
        "UPDATE wallet SET balance = balance - ?1 WHERE user_id = ?2 AND balance >= ?1",
    )
    .bind(amount)
    .bind(user)
    .execute(&mut *c)
    .await?;
    if paid.rows_affected() == 0 {
        return Ok(None);
    }
    sqlx::query(
        "INSERT INTO transfer (user_id, seq, at, debit, credit, amount, cause, cause_id) \
         VALUES (?, ?, ?, ?, ?, ?, 'order', ?)",
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
         VALUES (?, 'onsale.orders', ?, ?, 'order.confirmed', 1, ?, ?)",
    )
    .bind(timetable)
    .bind(number)
    .bind(Uuid::now_v7())
    .bind(now)
    .bind(answer.to_string())
    .execute(&mut *c)
    .await?;
    sqlx::query("DELETE FROM hold WHERE id = ?")
        .bind(hold)
        .execute(c)
        .await?;
    Ok(Some(answer))
}
