//! Everything the store knows about a person, as it may be handed out to them.

use serde::Serialize;
use sqlx::{FromRow, Sqlite};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::SqliteStore;
use super::unreadable;
use crate::domain::ids::UserId;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

/// How many rows of each kind are handed out at most, newest first. Far above
/// what a person collects; a bound on what one call can take.
pub const EXPORT_ROWS_MAX: u32 = 50_000;

/// What belongs to one user besides the account itself, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PersonalRows {
    /// Sign-ins of the last weeks.
    pub sessions: Vec<SessionRow>,
    /// Confirmed and cancelled orders.
    pub orders: Vec<OrderRow>,
    /// Movements of the wallet.
    pub wallet_entries: Vec<WalletRow>,
    /// Tickets, void ones too.
    pub tickets: Vec<TicketRow>,
}

/// A sign-in.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ExportedSession)]
pub struct SessionRow {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub session_id: Uuid,
    /// When it began.
    #[schema(value_type = String, format = "date-time")]
    pub created_at: Timestamp,
    /// When it can't be refreshed any more.
    #[schema(value_type = String, format = "date-time")]
    pub expires_at: Timestamp,
    /// When it ended before that.
    #[schema(value_type = Option<String>, format = "date-time", required = true)]
    pub ended_at: Option<Timestamp>,
}

/// An order. Money is in minor units of the performance's currency.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ExportedOrder)]
pub struct OrderRow {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub order_id: Uuid,
    /// The date that it is for.
    #[schema(value_type = String, format = "uuid")]
    pub timetable_id: Uuid,
    /// How far it has come.
    pub status: String,
    /// How it was paid.
    pub method: String,
    /// Its payment.
    #[schema(value_type = String, format = "uuid")]
    pub payment_id: Uuid,
    /// Price of the seats.
    pub subtotal: i64,
    /// Taken off by a coupon.
    pub discount: i64,
    /// What was to be paid.
    pub amount: i64,
    /// What was given back.
    pub refunded: i64,
    /// When it was made.
    #[schema(value_type = String, format = "date-time")]
    pub created_at: Timestamp,
    /// Its seats.
    pub seats: Vec<SeatRow>,
}

/// A seat of an order.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = ExportedSeat)]
pub struct SeatRow {
    /// Which one, counted in layout order from 0.
    pub seat_index: u32,
    /// What it cost.
    pub price: i64,
}

/// A movement of the wallet.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ExportedWalletEntry)]
pub struct WalletRow {
    /// When.
    #[schema(value_type = String, format = "date-time")]
    pub at: Timestamp,
    /// From which account.
    pub debit: String,
    /// To which account.
    pub credit: String,
    /// How much.
    pub amount: i64,
    /// Why.
    pub cause: String,
    /// What caused it, e.g. the id of the order.
    #[schema(value_type = String, format = "uuid")]
    pub cause_id: Uuid,
}

/// A ticket.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ExportedTicket)]
pub struct TicketRow {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub ticket_id: Uuid,
    /// The order that it comes from.
    #[schema(value_type = String, format = "uuid")]
    pub order_id: Uuid,
    /// The date that it is for.
    #[schema(value_type = String, format = "uuid")]
    pub timetable_id: Uuid,
    /// Which seat, counted in layout order from 0.
    pub seat_index: u32,
    /// What it is good for.
    pub status: String,
    /// When it was issued.
    #[schema(value_type = String, format = "date-time")]
    pub issued_at: Timestamp,
}

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
    /// What belongs to `user`, as of the last commit.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn personal_rows(&self, user: UserId) -> Result<PersonalRows, StoreError> {
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
