//! The plain shop on one writing connection of SQLite.

use std::path::Path;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{Answer, BALANCE, HOLD_MS, HoldsWanted, Wanted, failed, seats_of};
use crate::support::peer;

type Shop = super::Shop<Mutex<SqliteConnection>>;

/// Serves until the process is killed, on a new file in `folder`.
pub(crate) fn serve(folder: &Path) {
    let writer = peer::new_sqlite(folder, include_str!("sqlite.sql"));
    let shop = Arc::new(Shop::on(Mutex::new(writer)));
    peer::serve_peer(|| {
        Router::new()
            .route("/holds", post(hold))
            .route("/orders", post(order))
            .with_state(shop)
    });
}

/// All holds in one transaction: what comes before the orders is not measured.
async fn hold(State(shop): State<Arc<Shop>>, Query(wanted): Query<HoldsWanted>) -> Json<Vec<Uuid>> {
    let holds = wanted.holds();
    let now = shop.clock.now().0;
    let mut writer = shop.store.lock().await;
    let c = &mut *writer;
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut *c)
        .await
        .unwrap();
    for user in &holds.users {
        sqlx::query("INSERT INTO wallet (user_id, balance) VALUES (?, ?)")
            .bind(user)
            .bind(BALANCE)
            .execute(&mut *c)
            .await
            .unwrap();
    }
    for (seat, hold) in holds.ids.iter().enumerate() {
        sqlx::query(
            "INSERT INTO hold (id, timetable_id, user_id, created_at, expires_at, under_pass, seats) \
             VALUES (?, ?, ?, ?, ?, 0, ?)",
        )
        .bind(hold)
        .bind(holds.timetable)
        .bind(holds.users[seat % holds.users.len()])
        .bind(now)
        .bind(now + HOLD_MS)
        .bind(seats_of(seat))
        .execute(&mut *c)
        .await
        .unwrap();
    }
    sqlx::query("COMMIT").execute(c).await.unwrap();
    Json(holds.ids)
}

async fn order(State(shop): State<Arc<Shop>>, Json(wanted): Json<Wanted>) -> Answer {
    let stamp = shop.stamp();
    let mut writer = shop.store.lock().await;
    let c = &mut *writer;
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    match sell(c, wanted.hold_id, stamp).await {
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

super::sell_on!(SqliteConnection, "");
