//! Everything the store knows about a person, as it may be handed out to them.

use sqlx::{FromRow, Sqlite};
use uuid::Uuid;

use super::super::SqliteStore;
use super::unreadable;
use crate::domain::ids::UserId;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::export::{
    EXPORT_ROWS_MAX, OrderRow, PersonalRows, SeatRow, SessionRow, TicketRow, WalletRow,
};

type OrderColumns = (
    Uuid,
    Uuid,
    String,
    String,
    Uuid,
    i64,
    i64,
    i64,
    i64,
    i64,
    String,
);

impl SqliteStore {
    pub(crate) async fn personal_rows(&self, user: UserId) -> Result<PersonalRows, StoreError> {
        let sessions: Vec<(Uuid, i64, i64, Option<i64>)> = self
            .rows_of(
                "SELECT id, created_at, expires_at, ended_at FROM session
                 WHERE user_id = ? ORDER BY id DESC LIMIT ?",
                user,
            )
            .await?;
        // An aborted order is a note of ours that it never came about.
        let orders: Vec<OrderColumns> = self
            .rows_of(
                "SELECT id, timetable_id, status, method, payment_id, subtotal, discount, amount,
                        refunded, created_at, seats FROM orders
                 WHERE user_id = ? AND status <> 'aborted' ORDER BY id DESC LIMIT ?",
                user,
            )
            .await?;
        let wallet: Vec<(i64, String, String, i64, String, Uuid)> = self
            .rows_of(
                "SELECT at, debit, credit, amount, cause, cause_id FROM transfer
                 WHERE user_id = ? ORDER BY seq DESC LIMIT ?",
                user,
            )
            .await?;
        let tickets: Vec<(Uuid, Uuid, Uuid, u32, String, i64)> = self
            .rows_of(
                "SELECT id, order_id, timetable_id, seat, status, issued_at FROM ticket
                 WHERE user_id = ? ORDER BY id DESC LIMIT ?",
                user,
            )
            .await?;
        Ok(PersonalRows {
            sessions: sessions.into_iter().map(session_row).collect(),
            orders: orders
                .into_iter()
                .map(order_row)
                .collect::<Result<_, _>>()?,
            wallet_entries: wallet.into_iter().map(wallet_row).collect(),
            tickets: tickets.into_iter().map(ticket_row).collect(),
            // Read apart, the same for both stores.
            coupons: Vec::new(),
        })
    }

    async fn rows_of<R>(&self, sql: &'static str, user: UserId) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, <Sqlite as sqlx::Database>::Row> + Send + Unpin,
    {
        let query = sqlx::query_as(sql).bind(user.0).bind(EXPORT_ROWS_MAX);
        Ok(query.fetch_all(&self.readers).await?)
    }
}

fn session_row((id, created, expires, ended): (Uuid, i64, i64, Option<i64>)) -> SessionRow {
    SessionRow {
        session_id: id,
        created_at: Timestamp(created),
        expires_at: Timestamp(expires),
        ended_at: ended.map(Timestamp),
    }
}

fn order_row(columns: OrderColumns) -> Result<OrderRow, StoreError> {
    let (order_id, timetable_id, status, method, payment_id, ..) = columns;
    let (_, _, _, _, _, subtotal, discount, amount, refunded, created_at, seats) = columns;
    let seats: Vec<(u32, i64)> = serde_json::from_str(&seats).map_err(unreadable)?;
    Ok(OrderRow {
        order_id,
        timetable_id,
        status,
        method,
        payment_id,
        subtotal,
        discount,
        amount,
        refunded,
        created_at: Timestamp(created_at),
        seats: seats
            .into_iter()
            .map(|(seat_index, price)| SeatRow { seat_index, price })
            .collect(),
    })
}

fn wallet_row(columns: (i64, String, String, i64, String, Uuid)) -> WalletRow {
    let (at, debit, credit, amount, cause, cause_id) = columns;
    WalletRow {
        at: Timestamp(at),
        debit,
        credit,
        amount,
        cause,
        cause_id,
    }
}

fn ticket_row(columns: (Uuid, Uuid, Uuid, u32, String, i64)) -> TicketRow {
    let (ticket_id, order_id, timetable_id, seat_index, status, issued_at) = columns;
    TicketRow {
        ticket_id,
        order_id,
        timetable_id,
        seat_index,
        status,
        issued_at: Timestamp(issued_at),
    }
}
