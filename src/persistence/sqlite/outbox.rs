//! The outbox, as the relay reads it, and the tables of the ticket consumer.

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::SqliteStore;
use super::dead_letters::insert_dead_letter;
use super::rows::{hex, json};
use crate::domain::ids::ShardId;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::outbox::{
    Asked, Backlog, Came, Due, Envelope, Marks, NewTicket, Place,
};
use crate::persistence::stored::orders as stored;

impl SqliteStore {
    pub(crate) async fn unpublished(
        &self,
        shards: Option<&[ShardId]>,
        after: Option<&Place>,
        limit: u32,
    ) -> Result<Vec<Envelope>, StoreError> {
        let (entity, topic, event_seq) = after.cloned().unwrap_or_default();
        // One node owns all shards of an embedded store, so that the shard of
        // an event is rarely asked for: its entity's row says it.
        let rows = sqlx::query(
            "SELECT entity, topic, event_seq, event_id, type, version, at, payload, trace FROM outbox \
             WHERE published_at IS NULL AND (entity, topic, event_seq) > (?2, ?3, ?4) \
               AND (?5 IS NULL OR entity IN ( \
                 SELECT id FROM entity WHERE shard IN (SELECT value FROM json_each(?5)))) \
             ORDER BY entity, topic, event_seq LIMIT ?1",
        )
        .bind(limit)
        .bind(entity)
        .bind(topic)
        .bind(event_seq.cast_signed())
        .bind(shards.map(json).transpose()?)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(stored::envelope).collect()
    }

    pub(crate) async fn published(&self, places: &[Place]) -> Result<Vec<Place>, StoreError> {
        let keys: Vec<_> = places.iter().map(|p| (hex(p.0), &p.1, p.2)).collect();
        let rows = sqlx::query(
            "SELECT entity, topic, event_seq FROM json_each(?1) JOIN outbox \
             ON entity = unhex(value ->> 0) AND topic = value ->> 1 AND event_seq = value ->> 2 \
             WHERE published_at IS NOT NULL",
        )
        .bind(json(&keys)?)
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                let number = row.try_get::<i64, _>(2)?.cast_unsigned();
                Ok((row.try_get(0)?, row.try_get(1)?, number))
            })
            .collect()
    }

    pub(crate) async fn backlog(&self) -> Result<Backlog, StoreError> {
        let row = sqlx::query("SELECT count(*), min(at) FROM outbox WHERE published_at IS NULL")
            .fetch_one(&self.readers)
            .await?;
        Ok(Backlog {
            events: row.try_get::<i64, _>(0)?.cast_unsigned(),
            oldest: row.try_get::<Option<i64>, _>(1)?.map(Timestamp),
        })
    }

    pub(crate) async fn mark_published(
        &self,
        events: &[Envelope],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let events = events.to_vec();
        self.transaction(move |connection| {
            Box::pin(async move { publish(connection, &events, now).await })
        })
        .await
    }

    pub(crate) async fn issue_tickets(
        &self,
        consumer: &'static str,
        came: Came,
        events: Vec<(Envelope, Asked)>,
        kid: String,
        now: Timestamp,
    ) -> Result<Vec<bool>, StoreError> {
        self.transaction(move |connection| {
            Box::pin(async move {
                let mut marks = marks(connection, consumer, &events).await?;
                let due = Due::of(&events, &mut marks);
                insert_tickets(connection, &due.tickets, &kid, now).await?;
                for letter in due.dead {
                    insert_dead_letter(connection, consumer, letter, now).await?;
                }
                save_marks(connection, consumer, &marks).await?;
                if came == Came::FromOutbox {
                    let done = events.iter().zip(&due.taken).filter(|(_, taken)| **taken);
                    publish(connection, done.map(|((event, _), _)| event), now).await?;
                }
                Ok(due.taken)
            })
        })
        .await
    }
}

/// Marks events as published.
async fn publish(
    connection: &mut SqliteConnection,
    events: impl IntoIterator<Item = &Envelope>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let places = events.into_iter();
    let keys: Vec<_> = places
        .map(|e| (hex(e.entity), &e.topic, e.event_seq))
        .collect();
    sqlx::query(
        "UPDATE outbox SET published_at = ?2 FROM json_each(?1) AS done \
         WHERE outbox.entity = unhex(done.value ->> 0) \
           AND outbox.topic = done.value ->> 1 \
           AND outbox.event_seq = done.value ->> 2",
    )
    .bind(json(&keys)?)
    .bind(now.0)
    .execute(connection)
    .await?;
    Ok(())
}

async fn marks(
    connection: &mut SqliteConnection,
    consumer: &str,
    events: &[(Envelope, Asked)],
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

pub(super) async fn insert_tickets(
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
