//! Dead letters in Postgres.

use uuid::Uuid;

use super::outbox::insert_tickets;
use super::{Link, PostgresStore};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::dead_letters::{DeadLetter, NewDeadLetter};
use crate::persistence::store::outbox::NewTicket;
use crate::persistence::stored::orders as stored;

impl PostgresStore {
    pub(crate) async fn add_dead_letter(
        &self,
        consumer: &'static str,
        letter: NewDeadLetter,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction(move |c| {
            Box::pin(async move { insert_dead_letter(c, consumer, &letter, now).await })
        })
        .await
    }

    pub(crate) async fn dead_letter(&self, id: Uuid) -> Result<Option<DeadLetter>, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let row = c.sql(
                    "SELECT id, consumer, topic, body, reason, attempts, died_at, requeued_at \
                     FROM dead_letter WHERE id = $1",
                );
                let row = row.bind(id).fetch_optional(c.on()).await?;
                row.as_ref().map(stored::letter).transpose()
            })
        })
        .await
    }

    pub(crate) async fn dead_letters(
        &self,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let rows = c.sql(
                    "SELECT id, consumer, topic, body, reason, attempts, died_at, requeued_at \
                     FROM dead_letter WHERE requeued_at IS NULL AND id > $1 ORDER BY id LIMIT $2",
                );
                let rows = rows
                    .bind(after.unwrap_or_default())
                    .bind(i64::from(limit))
                    .fetch_all(c.on())
                    .await?;
                rows.iter().map(stored::letter).collect()
            })
        })
        .await
    }

    pub(crate) async fn issue_dead_letter(
        &self,
        id: Uuid,
        tickets: Vec<NewTicket>,
        kid: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                // Of two at once the second waits here, and finds it done.
                let noted = c.sql(
                    "UPDATE dead_letter SET requeued_at = $2, attempts = attempts + 1 \
                     WHERE id = $1 AND requeued_at IS NULL",
                );
                let noted = noted.bind(id).bind(now.0).execute(c.on()).await?;
                if noted.rows_affected() == 0 {
                    return Ok(());
                }
                let tickets: Vec<&NewTicket> = tickets.iter().collect();
                insert_tickets(c, &tickets, &kid, now).await
            })
        })
        .await
    }

    pub(crate) async fn keep_dead_letter(
        &self,
        id: Uuid,
        reason: String,
    ) -> Result<(), StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                c.sql(
                    "UPDATE dead_letter SET reason = $2, attempts = attempts + 1 \
                     WHERE id = $1 AND requeued_at IS NULL",
                )
                .bind(id)
                .bind(reason)
                .execute(c.on())
                .await?;
                Ok(())
            })
        })
        .await
    }
}

pub(super) async fn insert_dead_letter(
    c: &mut Link,
    consumer: &'static str,
    letter: &NewDeadLetter,
    now: Timestamp,
) -> Result<(), StoreError> {
    c.sql(
        "INSERT INTO dead_letter (id, consumer, topic, source, body, reason, attempts, died_at) \
         VALUES ($1, $2, $3, $4, $5, $6, 1, $7) ON CONFLICT (consumer, source) DO NOTHING",
    )
    .bind(letter.id)
    .bind(consumer)
    .bind(letter.topic.clone())
    .bind(letter.source.clone())
    .bind(letter.body.clone())
    .bind(letter.reason.clone())
    .bind(now.0)
    .execute(c.on())
    .await?;
    Ok(())
}
