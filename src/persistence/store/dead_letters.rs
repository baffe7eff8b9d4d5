//! Dead letters: events that a consumer could not act on.

use uuid::Uuid;

use super::Store;
use super::outbox::NewTicket;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

/// An event that a consumer can't act on.
#[derive(Clone, Debug)]
pub struct NewDeadLetter {
    /// Names the letter.
    pub id: Uuid,
    /// Where it came from.
    pub topic: String,
    /// Names the event or the message for ever: a repetition is no new letter.
    pub source: String,
    /// What came.
    pub body: String,
    /// Why it can't be acted on.
    pub reason: String,
}

/// A dead letter, as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// Names it.
    pub id: Uuid,
    /// Whose it is.
    pub consumer: String,
    /// Where it came from.
    pub topic: String,
    /// What came.
    pub body: String,
    /// Why it can't be acted on, as of the last attempt.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it died.
    pub died_at: Timestamp,
    /// When its consumer has acted on it after all.
    pub requeued_at: Option<Timestamp>,
}

impl Store {
    /// Keeps a dead letter of `consumer`, unless there is one of its source.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn add_dead_letter(
        &self,
        consumer: &'static str,
        letter: NewDeadLetter,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        on_backend!(self, add_dead_letter(consumer, letter, now))
    }

    /// A dead letter, also one that was acted on since.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn dead_letter(&self, id: Uuid) -> Result<Option<DeadLetter>, StoreError> {
        on_backend!(self, dead_letter(id))
    }

    /// The first dead letters behind `after` that nobody has acted on since, in
    /// the order in which they died.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn dead_letters(
        &self,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        on_backend!(self, dead_letters(after, limit))
    }

    /// Issues what a dead letter asks for, like
    /// [`issue_tickets`](Store::issue_tickets), and notes that it was acted on,
    /// in one transaction. Nothing more happens if that was before.
    ///
    /// # Errors
    /// If the store can't be written; nothing was issued then.
    pub async fn issue_dead_letter(
        &self,
        id: Uuid,
        tickets: Vec<NewTicket>,
        kid: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        on_backend!(self, issue_dead_letter(id, tickets, kid, now))
    }

    /// Notes one more attempt at a dead letter, and why it failed.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn keep_dead_letter(&self, id: Uuid, reason: String) -> Result<(), StoreError> {
        on_backend!(self, keep_dead_letter(id, reason))
    }
}
