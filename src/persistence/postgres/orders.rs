//! Reading orders, tickets and wallet entries: always of the primary, because
//! they belong to who asks.

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{Link, PostgresStore};
use crate::domain::ids::{HoldId, OrderId, PaymentId, TicketId, TimetableId, UserId};
use crate::persistence::StoreError;
use crate::persistence::store::orders::{EntryRow, OrderFilter, OrderRow, TicketRow};
use crate::persistence::stored::orders as stored;

macro_rules! select_orders {
    ($rest:literal) => {
        concat!(
            "SELECT id, timetable_id, user_id, hold_id, payment_id, method, status, discount, \
                    refunded, created_at, seats, cancelled FROM orders ",
            $rest
        )
    };
}

macro_rules! select_tickets {
    ($rest:literal) => {
        concat!(
            "SELECT ticket.id, order_id, timetable_id, seat, user_id, kid, status, issued_at, \
                    coalesce(u.name, '') FROM ticket LEFT JOIN \"user\" AS u ON u.id = user_id ",
            $rest
        )
    };
}

impl PostgresStore {
    pub(crate) async fn order_of(
        &self,
        user: UserId,
        id: OrderId,
    ) -> Result<Option<OrderRow>, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let rows = c.sql(select_orders!("WHERE id = $1 AND user_id = $2"));
                let rows = rows.bind(id.0).bind(user.0).fetch_all(c.on()).await?;
                Ok(with_tickets(c, &rows).await?.pop())
            })
        })
        .await
    }

    pub(crate) async fn any_order(&self, id: OrderId) -> Result<Option<OrderRow>, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let rows = c.sql(select_orders!("WHERE id = $1"));
                let rows = rows.bind(id.0).fetch_all(c.on()).await?;
                Ok(with_tickets(c, &rows).await?.pop())
            })
        })
        .await
    }

    pub(crate) async fn timetable_of_hold(
        &self,
        user: UserId,
        hold: HoldId,
    ) -> Result<Option<TimetableId>, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let row = c.sql(
                    "SELECT timetable_id FROM hold WHERE user_id = $1 AND id = $2 \
                     UNION ALL SELECT timetable_id FROM orders WHERE user_id = $1 AND hold_id = $2",
                );
                let row = row.bind(user.0).bind(hold.0);
                let row = row.fetch_optional(c.on()).await?;
                row.map(|row| Ok(TimetableId(row.try_get(0)?))).transpose()
            })
        })
        .await
    }

    pub(crate) async fn order_of_payment(
        &self,
        user: UserId,
        payment: PaymentId,
    ) -> Result<Option<OrderRow>, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let rows = c.sql(select_orders!("WHERE user_id = $2 AND payment_id = $1"));
                let rows = rows.bind(payment.0).bind(user.0).fetch_all(c.on()).await?;
                Ok(with_tickets(c, &rows).await?.pop())
            })
        })
        .await
    }

    pub(crate) async fn orders_of(
        &self,
        user: UserId,
        filter: OrderFilter,
    ) -> Result<Vec<OrderRow>, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let rows = c.sql(select_orders!(
                    "WHERE user_id = $1 AND ($2::bigint IS NULL OR created_at >= $2) \
                       AND ($3::bigint IS NULL OR created_at < $3) \
                       AND ($4::text IS NULL OR status = $4) \
                       AND ($5::uuid IS NULL OR id < $5) ORDER BY id DESC LIMIT $6"
                ));
                let rows = rows
                    .bind(user.0)
                    .bind(filter.from.map(|at| at.0))
                    .bind(filter.to.map(|at| at.0))
                    .bind(filter.status)
                    .bind(filter.after.map(|id| id.0))
                    .bind(i64::from(filter.limit))
                    .fetch_all(c.on())
                    .await?;
                with_tickets(c, &rows).await
            })
        })
        .await
    }

    pub(crate) async fn tickets_of(
        &self,
        user: UserId,
        after: Option<TicketId>,
        limit: u32,
    ) -> Result<Vec<TicketRow>, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let rows = c.sql(select_tickets!(
                    "WHERE user_id = $1 AND ($2::uuid IS NULL OR ticket.id < $2) \
                     ORDER BY ticket.id DESC LIMIT $3"
                ));
                let rows = rows
                    .bind(user.0)
                    .bind(after.map(|id| id.0))
                    .bind(i64::from(limit))
                    .fetch_all(c.on())
                    .await?;
                rows.iter().map(stored::ticket).collect()
            })
        })
        .await
    }

    pub(crate) async fn ticket_of(
        &self,
        user: UserId,
        id: TicketId,
    ) -> Result<Option<TicketRow>, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let row = c.sql(select_tickets!("WHERE ticket.id = $1 AND user_id = $2"));
                let row = row.bind(id.0).bind(user.0);
                let row = row.fetch_optional(c.on()).await?;
                row.as_ref().map(stored::ticket).transpose()
            })
        })
        .await
    }

    pub(crate) async fn entries_of(
        &self,
        user: UserId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<EntryRow>, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let rows = c.sql(
                    "SELECT seq, at, debit, credit, amount, cause, cause_id FROM transfer \
                     WHERE user_id = $1 AND ($2::bigint IS NULL OR seq < $2) \
                     ORDER BY seq DESC LIMIT $3",
                );
                let rows = rows
                    .bind(user.0)
                    .bind(before.map(u64::cast_signed))
                    .bind(i64::from(limit))
                    .fetch_all(c.on())
                    .await?;
                rows.iter().map(stored::entry).collect()
            })
        })
        .await
    }
}

async fn with_tickets(c: &mut Link, rows: &[PgRow]) -> Result<Vec<OrderRow>, StoreError> {
    let mut orders = rows
        .iter()
        .map(stored::order)
        .collect::<Result<Vec<_>, _>>()?;
    if orders.is_empty() {
        return Ok(orders);
    }
    let ids: Vec<Uuid> = orders.iter().map(|order| order.id.0).collect();
    let tickets =
        c.sql("SELECT order_id, id FROM ticket WHERE order_id = ANY($1) ORDER BY order_id, seat");
    let tickets = tickets.bind(ids).fetch_all(c.on()).await?;
    stored::add_tickets(&mut orders, &tickets)?;
    Ok(orders)
}
