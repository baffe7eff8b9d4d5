//! The rows of orders, tickets and entries as their users see them, of events and
//! of dead letters.

use super::row::StoredRow;
use super::{method, plain_seats, seats};
use crate::domain::ids::{HoldId, OrderId, PaymentId, TicketId, TimetableId, UserId};
use crate::domain::money::Money;
use crate::domain::seat::SeatIndex;
use crate::persistence::StoreError;
use crate::persistence::store::dead_letters::DeadLetter;
use crate::persistence::store::orders::{EntryRow, OrderRow, TicketRow};
use crate::persistence::store::outbox::Envelope;

/// Its tickets are read apart.
pub(in crate::persistence) fn order(row: &impl StoredRow) -> Result<OrderRow, StoreError> {
    Ok(OrderRow {
        id: OrderId(row.cell(0)?),
        timetable: TimetableId(row.cell(1)?),
        user: UserId(row.cell(2)?),
        hold: HoldId(row.cell(3)?),
        payment: PaymentId(row.cell(4)?),
        method: method(&row.cell::<String>(5)?)?,
        status: row.cell(6)?,
        discount: Money(row.cell(7)?),
        refunded: Money(row.cell(8)?),
        created_at: row.time(9)?,
        seats: seats(&row.cell::<String>(10)?)?,
        cancelled: plain_seats(&row.cell::<String>(11)?)?,
        tickets: Vec::new(),
    })
}

/// Gives `orders` their tickets: rows of (order, ticket).
pub(in crate::persistence) fn add_tickets(
    orders: &mut [OrderRow],
    rows: &[impl StoredRow],
) -> Result<(), StoreError> {
    for row in rows {
        let of = OrderId(row.cell(0)?);
        if let Some(order) = orders.iter_mut().find(|order| order.id == of) {
            order.tickets.push(TicketId(row.cell(1)?));
        }
    }
    Ok(())
}

pub(in crate::persistence) fn ticket(row: &impl StoredRow) -> Result<TicketRow, StoreError> {
    Ok(TicketRow {
        id: TicketId(row.cell(0)?),
        order: OrderId(row.cell(1)?),
        timetable: TimetableId(row.cell(2)?),
        seat: SeatIndex(row.unsigned(3)?),
        user: UserId(row.cell(4)?),
        kid: row.cell(5)?,
        status: row.cell(6)?,
        issued_at: row.time(7)?,
        holder: row.cell(8)?,
    })
}

pub(in crate::persistence) fn entry(row: &impl StoredRow) -> Result<EntryRow, StoreError> {
    Ok(EntryRow {
        seq: row.unsigned_long(0)?,
        at: row.time(1)?,
        debit: row.cell(2)?,
        credit: row.cell(3)?,
        amount: Money(row.cell(4)?),
        cause: row.cell(5)?,
        cause_id: row.cell(6)?,
    })
}

pub(in crate::persistence) fn envelope(row: &impl StoredRow) -> Result<Envelope, StoreError> {
    let version = row.unsigned(5)?;
    Ok(Envelope {
        entity: row.cell(0)?,
        topic: row.cell(1)?,
        event_seq: row.unsigned_long(2)?,
        event_id: row.cell(3)?,
        kind: row.cell(4)?,
        version: u16::try_from(version)
            .map_err(|_| StoreError::Unreadable(format!("event version {version}")))?,
        at: row.time(6)?,
        payload: row.cell(7)?,
        trace: row.cell(8)?,
    })
}

pub(in crate::persistence) fn letter(row: &impl StoredRow) -> Result<DeadLetter, StoreError> {
    Ok(DeadLetter {
        id: row.cell(0)?,
        consumer: row.cell(1)?,
        topic: row.cell(2)?,
        body: row.cell(3)?,
        reason: row.cell(4)?,
        attempts: row.unsigned(5)?,
        died_at: row.time(6)?,
        requeued_at: row.time_if_any(7)?,
    })
}
