//! Reading orders, tickets and wallet entries. Only durable ones are here, and
//! only those are shown.

use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::SqliteStore;
use super::rows::{hex, json};
use crate::domain::ids::{HoldId, OrderId, PaymentId, TicketId, TimetableId, UserId};
use crate::persistence::StoreError;
use crate::persistence::store::orders::{EntryRow, OrderFilter, OrderRow, TicketRow};
use crate::persistence::stored::orders as stored;

impl SqliteStore {
    pub(crate) async fn order_of(
        &self,
        user: UserId,
        id: OrderId,
    ) -> Result<Option<OrderRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, timetable_id, user_id, hold_id, payment_id, method, status, discount, \
                    refunded, created_at, seats, cancelled FROM orders WHERE id = ?1 AND user_id = ?2",
        )
        .bind(id.0)
        .bind(user.0)
        .fetch_all(&self.readers)
        .await?;
        Ok(self.with_tickets(&rows).await?.pop())
    }

    pub(crate) async fn any_order(&self, id: OrderId) -> Result<Option<OrderRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, timetable_id, user_id, hold_id, payment_id, method, status, discount, \
                    refunded, created_at, seats, cancelled FROM orders WHERE id = ?1",
        )
        .bind(id.0)
        .fetch_all(&self.readers)
        .await?;
        Ok(self.with_tickets(&rows).await?.pop())
    }

    pub(crate) async fn timetable_of_hold(
        &self,
        user: UserId,
        hold: HoldId,
    ) -> Result<Option<TimetableId>, StoreError> {
        let found: Option<Uuid> = sqlx::query_scalar(
            "SELECT timetable_id FROM hold WHERE user_id = ?1 AND id = ?2 \
             UNION ALL SELECT timetable_id FROM orders WHERE user_id = ?1 AND hold_id = ?2",
        )
        .bind(user.0)
        .bind(hold.0)
        .fetch_optional(&self.readers)
        .await?;
        Ok(found.map(TimetableId))
    }

    pub(crate) async fn order_of_payment(
        &self,
        user: UserId,
        payment: PaymentId,
    ) -> Result<Option<OrderRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, timetable_id, user_id, hold_id, payment_id, method, status, discount, \
                    refunded, created_at, seats, cancelled FROM orders \
             WHERE user_id = ?2 AND payment_id = ?1",
        )
        .bind(payment.0)
        .bind(user.0)
        .fetch_all(&self.readers)
        .await?;
        Ok(self.with_tickets(&rows).await?.pop())
    }

    pub(crate) async fn orders_of(
        &self,
        user: UserId,
        filter: OrderFilter,
    ) -> Result<Vec<OrderRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, timetable_id, user_id, hold_id, payment_id, method, status, discount, \
                    refunded, created_at, seats, cancelled FROM orders \
             WHERE user_id = ?1 AND (?2 IS NULL OR created_at >= ?2) \
               AND (?3 IS NULL OR created_at < ?3) AND (?4 IS NULL OR status = ?4) \
               AND (?5 IS NULL OR id < ?5) ORDER BY id DESC LIMIT ?6",
        )
        .bind(user.0)
        .bind(filter.from.map(|at| at.0))
        .bind(filter.to.map(|at| at.0))
        .bind(filter.status)
        .bind(filter.after.map(|id| id.0))
        .bind(filter.limit)
        .fetch_all(&self.readers)
        .await?;
        self.with_tickets(&rows).await
    }

    pub(crate) async fn tickets_of(
        &self,
        user: UserId,
        after: Option<TicketId>,
        limit: u32,
    ) -> Result<Vec<TicketRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT ticket.id, order_id, timetable_id, seat, user_id, kid, status, issued_at, \
                    coalesce(user.name, '') FROM ticket LEFT JOIN user ON user.id = user_id \
             WHERE user_id = ?1 AND (?2 IS NULL OR ticket.id < ?2) \
             ORDER BY ticket.id DESC LIMIT ?3",
        )
        .bind(user.0)
        .bind(after.map(|id| id.0))
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(stored::ticket).collect()
    }

    pub(crate) async fn ticket_of(
        &self,
        user: UserId,
        id: TicketId,
    ) -> Result<Option<TicketRow>, StoreError> {
        let row = sqlx::query(
            "SELECT ticket.id, order_id, timetable_id, seat, user_id, kid, status, issued_at, \
                    coalesce(user.name, '') FROM ticket LEFT JOIN user ON user.id = user_id \
             WHERE ticket.id = ?1 AND user_id = ?2",
        )
        .bind(id.0)
        .bind(user.0)
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(stored::ticket).transpose()
    }

    pub(crate) async fn entries_of(
        &self,
        user: UserId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<EntryRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT seq, at, debit, credit, amount, cause, cause_id FROM transfer \
             WHERE user_id = ?1 AND (?2 IS NULL OR seq < ?2) ORDER BY seq DESC LIMIT ?3",
        )
        .bind(user.0)
        .bind(before.map(u64::cast_signed))
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(stored::entry).collect()
    }

    async fn with_tickets(&self, rows: &[SqliteRow]) -> Result<Vec<OrderRow>, StoreError> {
        let mut orders = rows
            .iter()
            .map(stored::order)
            .collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<String> = orders.iter().map(|order| hex(order.id.0)).collect();
        let tickets = sqlx::query(
            "SELECT order_id, ticket.id FROM json_each(?1) \
             JOIN ticket ON ticket.order_id = unhex(value) ORDER BY order_id, seat",
        )
        .bind(json(&ids)?)
        .fetch_all(&self.readers)
        .await?;
        stored::add_tickets(&mut orders, &tickets)?;
        Ok(orders)
    }
}
