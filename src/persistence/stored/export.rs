//! Everything the store knows about a person, in one snapshot.

use super::reader::Reader;
use super::row::StoredRow;
use super::seats;
use crate::domain::ids::UserId;
use crate::persistence::StoreError;
use crate::persistence::store::export::{
    EXPORT_ROWS_MAX, OrderRow, PersonalRows, SeatRow, SessionRow, TicketRow, WalletRow,
};

const SESSIONS: &str = "SELECT id, created_at, expires_at, ended_at FROM session \
     WHERE user_id = $1 ORDER BY id DESC LIMIT $2";

/// An aborted order is a note of ours that it never came about.
const ORDERS: &str = "SELECT id, timetable_id, status, method, payment_id, subtotal, discount, \
     amount, refunded, created_at, seats FROM orders \
     WHERE user_id = $1 AND status <> 'aborted' ORDER BY id DESC LIMIT $2";

const WALLET: &str = "SELECT at, debit, credit, amount, cause, cause_id FROM transfer \
     WHERE user_id = $1 ORDER BY seq DESC LIMIT $2";

const TICKETS: &str = "SELECT id, order_id, timetable_id, seat, status, issued_at FROM ticket \
     WHERE user_id = $1 ORDER BY id DESC LIMIT $2";

pub(in crate::persistence) async fn personal_rows(
    c: &mut impl Reader,
    user: UserId,
) -> Result<PersonalRows, StoreError> {
    let of = [user.0.into(), i64::from(EXPORT_ROWS_MAX).into()];
    let sessions = c.all(SESSIONS, &of).await?;
    let orders = c.all(ORDERS, &of).await?;
    let wallet = c.all(WALLET, &of).await?;
    let tickets = c.all(TICKETS, &of).await?;
    Ok(PersonalRows {
        sessions: sessions.iter().map(session).collect::<Result<_, _>>()?,
        orders: orders.iter().map(order).collect::<Result<_, _>>()?,
        wallet_entries: wallet.iter().map(entry).collect::<Result<_, _>>()?,
        tickets: tickets.iter().map(ticket).collect::<Result<_, _>>()?,
        // Read apart, page by page.
        coupons: Vec::new(),
    })
}

fn session(row: &impl StoredRow) -> Result<SessionRow, StoreError> {
    Ok(SessionRow {
        session_id: row.cell(0)?,
        created_at: row.time(1)?,
        expires_at: row.time(2)?,
        ended_at: row.time_if_any(3)?,
    })
}

fn order(row: &impl StoredRow) -> Result<OrderRow, StoreError> {
    Ok(OrderRow {
        order_id: row.cell(0)?,
        timetable_id: row.cell(1)?,
        status: row.cell(2)?,
        method: row.cell(3)?,
        payment_id: row.cell(4)?,
        subtotal: row.cell(5)?,
        discount: row.cell(6)?,
        amount: row.cell(7)?,
        refunded: row.cell(8)?,
        created_at: row.time(9)?,
        seats: seats(row.text(10)?)?
            .iter()
            .map(|priced| SeatRow {
                seat_index: priced.seat.0,
                price: priced.price.0,
            })
            .collect(),
    })
}

fn entry(row: &impl StoredRow) -> Result<WalletRow, StoreError> {
    Ok(WalletRow {
        at: row.time(0)?,
        debit: row.cell(1)?,
        credit: row.cell(2)?,
        amount: row.cell(3)?,
        cause: row.cell(4)?,
        cause_id: row.cell(5)?,
    })
}

fn ticket(row: &impl StoredRow) -> Result<TicketRow, StoreError> {
    Ok(TicketRow {
        ticket_id: row.cell(0)?,
        order_id: row.cell(1)?,
        timetable_id: row.cell(2)?,
        seat_index: row.unsigned(3)?,
        status: row.cell(4)?,
        issued_at: row.time(5)?,
    })
}
