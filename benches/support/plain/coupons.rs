//! The plain design of coupons: each claim is a transaction of its own on the
//! request's path, with the coupon's row locked, statements prepared.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use onsale::clock::Clock;
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::support::peer;

const SQLITE: &str = "CREATE TABLE coupon (id BLOB PRIMARY KEY, stock INTEGER NOT NULL, \
       claimed INTEGER NOT NULL) STRICT, WITHOUT ROWID; \
     CREATE TABLE coupon_claim (coupon_id BLOB NOT NULL, user_id BLOB NOT NULL, id BLOB NOT NULL, \
       claimed_at INTEGER NOT NULL, PRIMARY KEY (coupon_id, user_id)) STRICT, WITHOUT ROWID; \
     CREATE INDEX coupon_claim_by_user ON coupon_claim (user_id, id);";
const POSTGRES: &str = "CREATE TABLE coupon (id uuid PRIMARY KEY, stock integer NOT NULL, \
       claimed integer NOT NULL) WITH (fillfactor = 50); \
     CREATE TABLE coupon_claim (coupon_id uuid NOT NULL, user_id uuid NOT NULL, id uuid NOT NULL, \
       claimed_at bigint NOT NULL, PRIMARY KEY (coupon_id, user_id)); \
     CREATE INDEX coupon_claim_by_user ON coupon_claim (user_id, id);";

enum Store {
    /// One writer, as SQLite has it anyway.
    Sqlite(Mutex<SqliteConnection>),
    Postgres(PgPool),
}

struct Shop {
    store: Store,
    clock: Clock,
}

/// Serves until the process is killed: in a folder, or an empty database.
pub(crate) fn serve(kind: &str, place: &str) {
    match kind {
        "sqlite" => {
            let writer = peer::new_sqlite(place.as_ref(), SQLITE);
            peer::serve_peer(|| routes(Store::Sqlite(Mutex::new(writer))));
        }
        _ => {
            let options = peer::new_postgres(place, POSTGRES);
            peer::serve_peer(|| routes(Store::Postgres(peer::pool(options))));
        }
    }
}

fn routes(store: Store) -> Router {
    let clock = Clock::system();
    Router::new()
        .route("/coupons", post(make))
        .route("/coupons/{id}/claims", post(claim))
        .with_state(Arc::new(Shop { store, clock }))
}

#[derive(Deserialize)]
struct Wanted {
    stock: i32,
}

async fn make(State(shop): State<Arc<Shop>>, Query(wanted): Query<Wanted>) -> Json<Uuid> {
    const SQL: &str = "INSERT INTO coupon (id, stock, claimed) VALUES ($1, $2, 0)";
    let id = Uuid::now_v7();
    match &shop.store {
        Store::Sqlite(writer) => {
            let insert = sqlx::query(SQL).bind(id).bind(wanted.stock);
            insert.execute(&mut *writer.lock().await).await.unwrap();
        }
        Store::Postgres(pool) => {
            let insert = sqlx::query(SQL).bind(id).bind(wanted.stock);
            insert.execute(pool).await.unwrap();
        }
    }
    Json(id)
}

/// The user is a hash of the token: nobody is signed in here.
fn user_of(headers: &HeaderMap) -> Uuid {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    headers.get("authorization").hash(&mut hasher);
    let low = hasher.finish();
    "more".hash(&mut hasher);
    Uuid::from_u64_pair(hasher.finish(), low)
}

async fn claim(
    State(shop): State<Arc<Shop>>,
    Path(coupon): Path<Uuid>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<Value>), StatusCode> {
    let (user, id, now) = (user_of(&headers), Uuid::now_v7(), shop.clock.now().0);
    let claimed = match &shop.store {
        Store::Sqlite(writer) => on_sqlite(&mut *writer.lock().await, coupon, user, id, now).await,
        Store::Postgres(pool) => on_postgres(pool, coupon, user, id, now).await,
    };
    match claimed {
        Ok(true) => {
            let answer = json!({ "coupon_claim_id": id, "coupon_id": coupon, "claimed_at": now });
            Ok((StatusCode::CREATED, Json(answer)))
        }
        Ok(false) => Err(StatusCode::CONFLICT),
        Err(error) => {
            eprintln!("plain: {error}");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

const INSERT: &str =
    "INSERT INTO coupon_claim (coupon_id, user_id, id, claimed_at) VALUES ($1, $2, $3, $4)";
const COUNT: &str = "UPDATE coupon SET claimed = claimed + 1 WHERE id = $1";

async fn on_sqlite(
    c: &mut SqliteConnection,
    coupon: Uuid,
    user: Uuid,
    id: Uuid,
    now: i64,
) -> Result<bool, sqlx::Error> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *c).await?;
    let row = sqlx::query("SELECT stock, claimed FROM coupon WHERE id = $1");
    let row = row.bind(coupon).fetch_one(&mut *c).await?;
    if row.try_get::<i64, _>(1)? >= row.try_get::<i64, _>(0)? {
        sqlx::query("ROLLBACK").execute(c).await?;
        return Ok(false);
    }
    let insert = sqlx::query(INSERT)
        .bind(coupon)
        .bind(user)
        .bind(id)
        .bind(now);
    insert.execute(&mut *c).await?;
    sqlx::query(COUNT).bind(coupon).execute(&mut *c).await?;
    sqlx::query("COMMIT").execute(c).await?;
    Ok(true)
}

async fn on_postgres(
    pool: &PgPool,
    coupon: Uuid,
    user: Uuid,
    id: Uuid,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let c = &mut *transaction;
    let row = sqlx::query("SELECT stock, claimed FROM coupon WHERE id = $1 FOR UPDATE");
    let row = row.bind(coupon).fetch_one(&mut *c).await?;
    if row.try_get::<i32, _>(1)? >= row.try_get::<i32, _>(0)? {
        return Ok(false);
    }
    let insert = sqlx::query(INSERT)
        .bind(coupon)
        .bind(user)
        .bind(id)
        .bind(now);
    insert.execute(&mut *c).await?;
    sqlx::query(COUNT).bind(coupon).execute(&mut *c).await?;
    transaction.commit().await?;
    Ok(true)
}
