//! Dead letters in SQLite.

use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::SqliteStore;
use super::outbox::insert_tickets;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::dead_letters::{DeadLetter, NewDeadLetter};
use crate::persistence::store::outbox::NewTicket;
use crate::persistence::stored::orders as stored;

impl SqliteStore {
    pub(crate) async fn add_dead_letter(
        &self,
        consumer: &'static str,
        letter: NewDeadLetter,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction(move |connection| {
            Box::pin(async move { insert_dead_letter(connection, consumer, &letter, now).await })
        })
        .await
    }

    pub(crate) async fn dead_letter(&self, id: Uuid) -> Result<Option<DeadLetter>, StoreError> {
        let row = sqlx::query(
            "SELECT id, consumer, topic, body, reason, attempts, died_at, requeued_at \
             FROM dead_letter WHERE id = ?1",
        )
        .bind(id)
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(stored::letter).transpose()
    }

    pub(crate) async fn dead_letters(
        &self,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, consumer, topic, body, reason, attempts, died_at, requeued_at \
             FROM dead_letter WHERE requeued_at IS NULL AND id > ?1 ORDER BY id LIMIT ?2",
        )
        .bind(after.unwrap_or_default())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(stored::letter).collect()
    }

    pub(crate) async fn issue_dead_letter(
        &self,
        id: Uuid,
        tickets: Vec<NewTicket>,
        kid: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction(move |connection| {
            Box::pin(async move {
                let noted = sqlx::query(
                    "UPDATE dead_letter SET requeued_at = ?2, attempts = attempts + 1 \
                     WHERE id = ?1 AND requeued_at IS NULL",
                )
                .bind(id)
                .bind(now.0)
                .execute(&mut *connection)
                .await?;
                if noted.rows_affected() == 0 {
                    return Ok(());
                }
                let tickets: Vec<&NewTicket> = tickets.iter().collect();
                insert_tickets(connection, &tickets, &kid, now).await
            })
        })
        .await
    }

    pub(crate) async fn keep_dead_letter(
        &self,
        id: Uuid,
        reason: String,
    ) -> Result<(), StoreError> {
        self.transaction(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE dead_letter SET reason = ?2, attempts = attempts + 1 \
                     WHERE id = ?1 AND requeued_at IS NULL",
                )
                .bind(id)
                .bind(reason)
                .execute(connection)
                .await?;
                Ok(())
            })
        })
        .await
    }
}

pub(super) async fn insert_dead_letter(
    connection: &mut SqliteConnection,
    consumer: &str,
    letter: &NewDeadLetter,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO dead_letter (id, consumer, topic, source, body, reason, attempts, died_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7) ON CONFLICT (consumer, source) DO NOTHING",
    )
    .bind(letter.id)
    .bind(consumer)
    .bind(&letter.topic)
    .bind(&letter.source)
    .bind(&letter.body)
    .bind(&letter.reason)
    .bind(now.0)
    .execute(connection)
    .await?;
    Ok(())
}
