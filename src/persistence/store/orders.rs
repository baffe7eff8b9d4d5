//! Reading orders, tickets and wallet entries. Only durable ones are here, and
//! only those are shown.

use uuid::Uuid;

use super::Store;
use crate::domain::ids::{HoldId, OrderId, PaymentId, TicketId, TimetableId, UserId};
use crate::domain::money::Money;
use crate::domain::order::{Method, PricedSeats};
use crate::domain::seat::SeatIndex;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

/// An order as stored.
#[derive(Clone, Debug)]
pub struct OrderRow {
    /// Which one.
    pub id: OrderId,
    /// Of which timetable.
    pub timetable: TimetableId,
    /// The buyer.
    pub user: UserId,
    /// The hold it was made from.
    pub hold: HoldId,
    /// Its payment.
    pub payment: PaymentId,
    /// How it is paid.
    pub method: Method,
    /// `confirmed`, `cancelled`
    pub status: String,
    /// What is taken off the price.
    pub discount: Money,
    /// What went back.
    pub refunded: Money,
    /// When it was opened.
    pub created_at: Timestamp,
    /// What was bought.
    pub seats: PricedSeats,
    /// Those that were given back since.
    pub cancelled: Vec<SeatIndex>,
    /// Its tickets, once they are issued, in seat order; void ones too.
    pub tickets: Vec<TicketId>,
}

/// Which orders of a user are wanted.
#[derive(Clone, Debug, Default)]
pub struct OrderFilter {
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
    /// With this status.
    pub status: Option<String>,
    /// Older than this one (the newest come first).
    pub after: Option<OrderId>,
    /// At most so many.
    pub limit: u32,
}

/// A ticket as stored.
#[derive(Clone, Debug)]
pub struct TicketRow {
    /// Which one.
    pub id: TicketId,
    /// The order it is of.
    pub order: OrderId,
    /// The timetable.
    pub timetable: TimetableId,
    /// The seat.
    pub seat: SeatIndex,
    /// Its owner.
    pub user: UserId,
    /// The key that signs it.
    pub kid: String,
    /// `valid`, `void`
    pub status: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// The owner's name.
    pub holder: String,
}

/// A wallet entry as stored.
#[derive(Clone, Debug)]
pub struct EntryRow {
    /// The decision that made it; entries are listed newest first.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Where from.
    pub debit: String,
    /// Where to.
    pub credit: String,
    /// How much.
    pub amount: Money,
    /// Why.
    pub cause: String,
    /// Which one.
    pub cause_id: Uuid,
}

impl Store {
    /// An order of `user`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn order_of(
        &self,
        user: UserId,
        id: OrderId,
    ) -> Result<Option<OrderRow>, StoreError> {
        on_backend!(self, order_of(user, id))
    }

    /// An order, whoever's it is.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn any_order(&self, id: OrderId) -> Result<Option<OrderRow>, StoreError> {
        on_backend!(self, any_order(id))
    }

    /// The timetable that a live hold of `user` is on, or on which it was bought;
    /// `None` if it is neither.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn timetable_of_hold(
        &self,
        user: UserId,
        hold: HoldId,
    ) -> Result<Option<TimetableId>, StoreError> {
        on_backend!(self, timetable_of_hold(user, hold))
    }

    /// The order that a payment of `user` is for.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn order_of_payment(
        &self,
        user: UserId,
        payment: PaymentId,
    ) -> Result<Option<OrderRow>, StoreError> {
        on_backend!(self, order_of_payment(user, payment))
    }

    /// The orders of `user`, newest first.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn orders_of(
        &self,
        user: UserId,
        filter: OrderFilter,
    ) -> Result<Vec<OrderRow>, StoreError> {
        on_backend!(self, orders_of(user, filter))
    }

    /// The tickets of `user`, newest first, older than `after`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn tickets_of(
        &self,
        user: UserId,
        after: Option<TicketId>,
        limit: u32,
    ) -> Result<Vec<TicketRow>, StoreError> {
        on_backend!(self, tickets_of(user, after, limit))
    }

    /// A ticket of `user`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn ticket_of(
        &self,
        user: UserId,
        id: TicketId,
    ) -> Result<Option<TicketRow>, StoreError> {
        on_backend!(self, ticket_of(user, id))
    }

    /// The wallet entries of `user`, newest first, older than `before`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn entries_of(
        &self,
        user: UserId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<EntryRow>, StoreError> {
        on_backend!(self, entries_of(user, before, limit))
    }
}
