//! The outbox, as the relay reads it, and the tables of the ticket consumer.

use uuid::Uuid;

use super::Store;
use crate::domain::ids::ShardId;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

/// Where an event stands in the outbox: entity, topic, number.
pub type Place = (Uuid, String, u64);

/// A published event.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The entity it happened to.
    pub entity: Uuid,
    /// Where it was published.
    pub topic: String,
    /// Gap-free per entity and topic.
    pub event_seq: u64,
    /// Identifies the event.
    pub event_id: Uuid,
    /// What happened.
    pub kind: String,
    /// Of the payload's schema.
    pub version: u16,
    /// When.
    pub at: Timestamp,
    /// JSON.
    pub payload: String,
}

/// A ticket to issue.
#[derive(Clone, Debug)]
pub struct NewTicket {
    /// Which one.
    pub id: Uuid,
    /// The order it is of.
    pub order: Uuid,
    /// The seat.
    pub seat: u32,
    /// The timetable.
    pub timetable: Uuid,
    /// Its owner.
    pub user: Uuid,
}

impl Store {
    /// The first unpublished events behind `after` (`None`: of all), by entity,
    /// topic and number; only those of entities of these `shards` (`None`: of
    /// all).
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn unpublished(
        &self,
        shards: Option<&[ShardId]>,
        after: Option<&Place>,
        limit: u32,
    ) -> Result<Vec<Envelope>, StoreError> {
        on_backend!(self, unpublished(shards, after, limit))
    }

    /// How many events wait to be published.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn outbox_lag(&self) -> Result<u64, StoreError> {
        on_backend!(self, outbox_lag())
    }

    /// Notes that the bus has these events.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn mark_published(
        &self,
        events: &[Envelope],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        on_backend!(self, mark_published(events, now))
    }

    /// Issues tickets for those of `events` that are next for the consumer, in
    /// one transaction with its marks: a repeated event is dropped, one behind
    /// a gap is left for later. A ticket is made only while its order owns the
    /// seat, and only once. Tells of each event whether it was taken or dropped.
    ///
    /// # Errors
    /// If the store can't be written; nothing was issued then.
    pub async fn issue_tickets(
        &self,
        consumer: &'static str,
        events: Vec<(Envelope, Vec<NewTicket>)>,
        kid: String,
        now: Timestamp,
    ) -> Result<Vec<bool>, StoreError> {
        on_backend!(self, issue_tickets(consumer, events, kid, now))
    }
}
