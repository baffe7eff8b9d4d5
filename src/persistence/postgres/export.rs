//! Everything the store knows about a person, in one snapshot.

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::entities::seat;
use super::{Link, PostgresStore};
use crate::domain::ids::UserId;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::export::{
    EXPORT_ROWS_MAX, OrderRow, PersonalRows, SeatRow, SessionRow, TicketRow, WalletRow,
};
use crate::persistence::stored::seats;

impl PostgresStore {
    pub(crate) async fn personal_rows(&self, user: UserId) -> Result<PersonalRows, StoreError> {
        self.load(move |c| {
            Box::pin(async move {
                let sessions = "SELECT id, created_at, expires_at, ended_at FROM session \
                     WHERE user_id = $1 ORDER BY id DESC LIMIT $2";
                // An aborted order is a note of ours that it never came about.
                let orders = "SELECT id, timetable_id, status, method, payment_id, subtotal, \
                            discount, amount, refunded, created_at, seats FROM orders \
                     WHERE user_id = $1 AND status <> 'aborted' ORDER BY id DESC LIMIT $2";
                let wallet = "SELECT at, debit, credit, amount, cause, cause_id FROM transfer \
                     WHERE user_id = $1 ORDER BY seq DESC LIMIT $2";
                let tickets = "SELECT id, order_id, timetable_id, seat, status, issued_at \
                     FROM ticket WHERE user_id = $1 ORDER BY id DESC LIMIT $2";
                Ok(PersonalRows {
                    sessions: rows_of(c, sessions, user, session_row).await?,
                    orders: rows_of(c, orders, user, order_row).await?,
                    wallet_entries: rows_of(c, wallet, user, wallet_row).await?,
                    tickets: rows_of(c, tickets, user, ticket_row).await?,
                    // Read apart, the same for both stores.
                    coupons: Vec::new(),
                })
            })
        })
        .await
    }
}

async fn rows_of<R>(
    c: &mut Link,
    sql: &'static str,
    user: UserId,
    read: fn(&PgRow) -> Result<R, StoreError>,
) -> Result<Vec<R>, StoreError> {
    let rows = c.sql(sql).bind(user.0).bind(i64::from(EXPORT_ROWS_MAX));
    rows.fetch_all(c.on()).await?.iter().map(read).collect()
}

fn session_row(row: &PgRow) -> Result<SessionRow, StoreError> {
    Ok(SessionRow {
        session_id: row.try_get(0)?,
        created_at: Timestamp(row.try_get(1)?),
        expires_at: Timestamp(row.try_get(2)?),
        ended_at: row.try_get::<Option<i64>, _>(3)?.map(Timestamp),
    })
}

fn order_row(row: &PgRow) -> Result<OrderRow, StoreError> {
    Ok(OrderRow {
        order_id: row.try_get(0)?,
        timetable_id: row.try_get(1)?,
        status: row.try_get(2)?,
        method: row.try_get(3)?,
        payment_id: row.try_get(4)?,
        subtotal: row.try_get(5)?,
        discount: row.try_get(6)?,
        amount: row.try_get(7)?,
        refunded: row.try_get(8)?,
        created_at: Timestamp(row.try_get(9)?),
        seats: seats(row.try_get(10)?)?
            .iter()
            .map(|priced| SeatRow {
                seat_index: priced.seat.0,
                price: priced.price.0,
            })
            .collect(),
    })
}

fn wallet_row(row: &PgRow) -> Result<WalletRow, StoreError> {
    Ok(WalletRow {
        at: Timestamp(row.try_get(0)?),
        debit: row.try_get(1)?,
        credit: row.try_get(2)?,
        amount: row.try_get(3)?,
        cause: row.try_get(4)?,
        cause_id: row.try_get(5)?,
    })
}

fn ticket_row(row: &PgRow) -> Result<TicketRow, StoreError> {
    Ok(TicketRow {
        ticket_id: row.try_get(0)?,
        order_id: row.try_get(1)?,
        timetable_id: row.try_get(2)?,
        seat_index: seat(row, 3)?.0,
        status: row.try_get(4)?,
        issued_at: Timestamp(row.try_get(5)?),
    })
}
