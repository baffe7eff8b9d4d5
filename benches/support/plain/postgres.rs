//! The plain shop on a pool of connections to Postgres.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Answer, BALANCE, HOLD_MS, HoldsWanted, Wanted, failed, seats_of};
use crate::support::peer;

type Shop = super::Shop<PgPool>;

/// Serves until the process is killed, in the empty database at `url`.
pub(crate) fn serve(url: &str) {
    let options = peer::new_postgres(url, include_str!("postgres.sql"));
    peer::serve_peer(move || {
        Router::new()
            .route("/holds", post(hold))
            .route("/orders", post(order))
            .with_state(Arc::new(Shop::on(peer::pool(options))))
    });
}

/// What comes before the orders is not measured.
async fn hold(State(shop): State<Arc<Shop>>, Query(wanted): Query<HoldsWanted>) -> Json<Vec<Uuid>> {
    let holds = wanted.holds();
    let now = shop.clock.now().0;
    sqlx::query("INSERT INTO wallet (user_id, balance) SELECT u, $2 FROM unnest($1::uuid[]) AS u")
        .bind(&holds.users)
        .bind(BALANCE)
        .execute(&shop.store)
        .await
        .unwrap();
    let count = holds.ids.len();
    let of: Vec<Uuid> = holds.users.iter().cycle().take(count).copied().collect();
    let seats: Vec<String> = (0..count).map(seats_of).collect();
    sqlx::query(
        "INSERT INTO hold (id, timetable_id, user_id, created_at, expires_at, under_pass, seats) \
         SELECT id, $4, u, $5, $6, false, seats \
         FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS n (id, u, seats)",
    )
    .bind(&holds.ids)
    .bind(of)
    .bind(seats)
    .bind(holds.timetable)
    .bind(now)
    .bind(now + HOLD_MS)
    .execute(&shop.store)
    .await
    .unwrap();
    // As autovacuum would have done by the time of a sale.
    sqlx::raw_sql("ANALYZE hold, wallet")
        .execute(&shop.store)
        .await
        .unwrap();
    Json(holds.ids)
}

async fn order(State(shop): State<Arc<Shop>>, Json(wanted): Json<Wanted>) -> Answer {
    let stamp = shop.stamp();
    let mut transaction = shop.store.begin().await.map_err(failed)?;
    let sold = sell(&mut transaction, wanted.hold_id, stamp).await;
    match sold.map_err(failed)? {
        Some(answer) => {
            transaction.commit().await.map_err(failed)?;
            Ok((StatusCode::CREATED, Json(answer)))
        }
        None => Err(StatusCode::CONFLICT),
    }
}

// Two orders of one hold must not both find it.
super::sell_on!(PgConnection, " FOR UPDATE");
