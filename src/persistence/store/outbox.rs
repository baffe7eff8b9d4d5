//! The outbox, as the relay reads it, and the tables of the ticket consumer.

use std::collections::HashMap;

use uuid::Uuid;

use super::Store;
use super::dead_letters::NewDeadLetter;
use crate::domain::ids::ShardId;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

/// Where an event stands in the outbox: entity, topic, number.
pub type Place = (Uuid, String, u64);

/// A published event.
#[derive(Clone, PartialEq, Eq, Debug)]
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
    /// The trace (W3C `traceparent`) of the request that it came of, if it had one.
    pub trace: Option<String>,
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

/// What an event asks for.
#[derive(Clone, Debug)]
pub enum Asked {
    /// These tickets, or none.
    Tickets(Vec<NewTicket>),
    /// It can't be acted on.
    Dead(NewDeadLetter),
}

/// How events came to their consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Came {
    /// Straight from this store's outbox: who takes them publishes them.
    FromOutbox,
    /// Over a broker, which has them, whatever becomes of them here.
    OverBroker,
}

/// The highest number of each entity and topic that a consumer has acted on.
pub(in crate::persistence) type Marks = HashMap<(Uuid, String), u64>;

/// What is to be done for events.
#[derive(Debug, Default)]
pub(in crate::persistence) struct Due<'a> {
    /// Of those that are next.
    pub(in crate::persistence) tickets: Vec<&'a NewTicket>,
    /// Of those that are next.
    pub(in crate::persistence) dead: Vec<&'a NewDeadLetter>,
    /// Of each: whether it is next, or a repetition; else it is behind a gap.
    pub(in crate::persistence) taken: Vec<bool>,
}

impl<'a> Due<'a> {
    /// Finds out what is next by the `marks` of the consumer, and moves them.
    pub(in crate::persistence) fn of(events: &'a [(Envelope, Asked)], marks: &mut Marks) -> Self {
        let mut due = Self::default();
        for (event, asked) in events {
            let mark = marks
                .entry((event.entity, event.topic.clone()))
                .or_default();
            due.taken.push(event.event_seq <= *mark + 1);
            if event.event_seq == *mark + 1 {
                *mark += 1;
                match asked {
                    Asked::Tickets(wanted) => due.tickets.extend(wanted),
                    Asked::Dead(letter) => due.dead.push(letter),
                }
            }
        }
        due
    }
}

impl Asked {
    /// The dead letter that it is.
    #[must_use]
    pub fn letter(&self) -> Option<&NewDeadLetter> {
        match self {
            Self::Tickets(_) => None,
            Self::Dead(letter) => Some(letter),
        }
    }
}

/// What waits in the outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backlog {
    /// How many events.
    pub events: u64,
    /// When the oldest of them happened.
    pub oldest: Option<Timestamp>,
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

    /// Those of `places` whose event is marked as published.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn published(&self, places: &[Place]) -> Result<Vec<Place>, StoreError> {
        on_backend!(self, published(places))
    }

    /// What waits to be published.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        on_backend!(self, backlog())
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
    /// seat, and only once. What can't be acted on is kept as a dead letter, and
    /// what is behind it goes on. Tells of each event whether it was taken or
    /// dropped. Those that came straight from the outbox are marked as published
    /// in the same transaction.
    ///
    /// # Errors
    /// If the store can't be written; nothing was issued then.
    pub async fn issue_tickets(
        &self,
        consumer: &'static str,
        came: Came,
        events: Vec<(Envelope, Asked)>,
        kid: String,
        now: Timestamp,
    ) -> Result<Vec<bool>, StoreError> {
        on_backend!(self, issue_tickets(consumer, came, events, kid, now))
    }
}
