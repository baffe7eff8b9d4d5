//! The plain design of coupons: each claim is a transaction of its own on the
//! request's path, with the coupon's row locked, statements prepared.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use onsale::clock::Clock;
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Row as _};
use tokio::sync::Mutex;
use uuid::Uuid;

/// Transactions that are open at once: a usual pool.
const CONNECTIONS: u32 = 16;

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
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sqlite = kind == "sqlite";
    let writer = runtime.block_on(async {
        if sqlite {
            let mut writer = connect(place).await;
            sqlx::raw_sql(SQLITE).execute(&mut writer).await.unwrap();
            return Some(writer);
        }
        let options = PgConnectOptions::from_str(place).unwrap();
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(POSTGRES)
            .execute(&mut connection)
            .await
            .unwrap();
        None
    });
    let place = place.to_owned();
    crate::support::serve_peer(move || {
        let store = match writer {
            Some(writer) => Store::Sqlite(Mutex::new(writer)),
            None => {
                let options = PgConnectOptions::from_str(&place).unwrap();
                let pool = PgPoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .test_before_acquire(false)
                    .connect_lazy_with(options.disable_statement_logging());
                Store::Postgres(pool)
            }
        };
        let clock = Clock::system();
        Router::new()
            .route("/coupons", post(make))
            .route("/coupons/{id}/claims", post(claim))
            .with_state(Arc::new(Shop { store, clock }))
    });
}

/// With the settings of the real server's writing connection.
async fn connect(folder: &str) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(std::path::Path::new(folder).join("plain.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
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
