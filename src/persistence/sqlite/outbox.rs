//! The outbox, as the relay reads it, and the tables of the ticket consumer.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use uuid::Uuid;

use super::SqliteStore;
use super::commit::{hex, json};
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

impl SqliteStore {
    /// The first unpublished events behind `after` (`None`: of all), by entity,
    /// topic and number.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn unpublished(
        &self,
        after: Option<&Place>,
        limit: u32,
    ) -> Result<Vec<Envelope>, StoreError> {
        let (entity, topic, event_seq) = after.cloned().unwrap_or_default();
        let rows = sqlx::query(
            "SELECT entity, topic, event_seq, event_id, type, version, at, payload FROM outbox \
             WHERE published_at IS NULL AND (entity, topic, event_seq) > (?2, ?3, ?4) \
             ORDER BY entity, topic, event_seq LIMIT ?1",
        )
        .bind(limit)
        .bind(entity)
        .bind(topic)
        .bind(event_seq.cast_signed())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(envelope).collect()
    }

    /// How many events wait to be published.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn outbox_lag(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT count(*) FROM outbox WHERE published_at IS NULL")
            .fetch_one(&self.readers)
            .await?;
        Ok(row.try_get::<i64, _>(0)?.cast_unsigned())
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
        let keys: Vec<_> = events
            .iter()
            .map(|e| (hex(e.entity), e.topic.clone(), e.event_seq))
            .collect();
        let keys = json(&keys)?;
        self.transaction(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE outbox SET published_at = ?2 FROM json_each(?1) AS done \
                     WHERE outbox.entity = unhex(done.value ->> 0) \
                       AND outbox.topic = done.value ->> 1 \
                       AND outbox.event_seq = done.value ->> 2",
                )
                .bind(keys)
                .bind(now.0)
                .execute(connection)
                .await?;
                Ok(())
            })
        })
        .await
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
        self.transaction(move |connection| {
            Box::pin(async move {
                let mut marks = marks(connection, consumer, &events).await?;
                let mut tickets = Vec::new();
                let mut taken = Vec::with_capacity(events.len());
                for (event, wanted) in &events {
                    let mark = marks
                        .entry((event.entity, event.topic.clone()))
                        .or_default();
                    taken.push(event.event_seq <= *mark + 1);
                    if event.event_seq == *mark + 1 {
                        *mark += 1;
                        tickets.extend(wanted);
                    }
                }
                insert_tickets(connection, &tickets, &kid, now).await?;
                save_marks(connection, consumer, &marks).await?;
                Ok(taken)
            })
        })
        .await
    }
}

type Marks = HashMap<(Uuid, String), u64>;

async fn marks(
    connection: &mut SqliteConnection,
    consumer: &str,
    events: &[(Envelope, Vec<NewTicket>)],
) -> Result<Marks, StoreError> {
    let entities: Vec<String> = events.iter().map(|(event, _)| hex(event.entity)).collect();
    let rows = sqlx::query(
        "SELECT entity, topic, event_seq FROM consumer_mark WHERE consumer = ?2 \
         AND entity IN (SELECT unhex(value) FROM json_each(?1))",
    )
    .bind(json(&entities)?)
    .bind(consumer)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let mark = row.try_get::<i64, _>(2)?.cast_unsigned();
            Ok(((row.try_get(0)?, row.try_get(1)?), mark))
        })
        .collect()
}

async fn insert_tickets(
    connection: &mut SqliteConnection,
    tickets: &[&NewTicket],
    kid: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rows: Vec<_> = tickets
        .iter()
        .map(|t| {
            (
                hex(t.id),
                hex(t.order),
                t.seat,
                hex(t.timetable),
                hex(t.user),
            )
        })
        .collect();
    sqlx::query(
        "INSERT INTO ticket (id, order_id, seat, timetable_id, user_id, kid, status, issued_at) \
         SELECT unhex(value ->> 0), unhex(value ->> 1), value ->> 2, unhex(value ->> 3), \
                unhex(value ->> 4), ?2, 'valid', ?3 FROM json_each(?1) \
         JOIN sold_seat ON sold_seat.timetable_id = unhex(value ->> 3) \
          AND sold_seat.seat = value ->> 2 AND sold_seat.order_id = unhex(value ->> 1) \
         WHERE true ON CONFLICT (order_id, seat) DO NOTHING",
    )
    .bind(json(&rows)?)
    .bind(kid)
    .bind(now.0)
    .execute(connection)
    .await?;
    Ok(())
}

async fn save_marks(
    connection: &mut SqliteConnection,
    consumer: &str,
    marks: &Marks,
) -> Result<(), StoreError> {
    let rows: Vec<_> = marks
        .iter()
        .map(|((entity, topic), mark)| (hex(*entity), topic.clone(), *mark))
        .collect();
    sqlx::query(
        "INSERT INTO consumer_mark (consumer, entity, topic, event_seq) \
         SELECT ?2, unhex(value ->> 0), value ->> 1, value ->> 2 FROM json_each(?1) WHERE true \
         ON CONFLICT (consumer, entity, topic) DO UPDATE SET event_seq = excluded.event_seq",
    )
    .bind(json(&rows)?)
    .bind(consumer)
    .execute(connection)
    .await?;
    Ok(())
}

fn envelope(row: &SqliteRow) -> Result<Envelope, StoreError> {
    Ok(Envelope {
        entity: row.try_get(0)?,
        topic: row.try_get(1)?,
        event_seq: row.try_get::<i64, _>(2)?.cast_unsigned(),
        event_id: row.try_get(3)?,
        kind: row.try_get(4)?,
        version: row.try_get(5)?,
        at: Timestamp(row.try_get(6)?),
        payload: row.try_get(7)?,
    })
}
