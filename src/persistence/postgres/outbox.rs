//! The outbox, as the relay reads it, and the tables of the ticket consumer.

use sqlx::Row;
use uuid::Uuid;

use super::dead_letters::insert_dead_letter;
use super::{Link, PostgresStore};
use crate::domain::ids::ShardId;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::outbox::{
    Asked, Backlog, Came, Due, Envelope, Marks, NewTicket, Place,
};
use crate::persistence::stored::orders as stored;

impl PostgresStore {
    pub(crate) async fn unpublished(
        &self,
        shards: Option<&[ShardId]>,
        after: Option<&Place>,
        limit: u32,
    ) -> Result<Vec<Envelope>, StoreError> {
        let (entity, topic, event_seq) = after.cloned().unwrap_or_default();
        let shards: Option<Vec<i16>> =
            shards.map(|shards| shards.iter().map(|shard| shard.0.cast_signed()).collect());
        self.read(move |c| {
            Box::pin(async move {
                let rows = c.sql(
                    "SELECT entity, topic, event_seq, event_id, type, version, at, payload, \
                       trace FROM outbox \
                     WHERE published_at IS NULL AND (entity, topic, event_seq) > ($2, $3, $4) \
                       AND ($5::smallint[] IS NULL OR shard = ANY($5)) \
                     ORDER BY entity, topic, event_seq LIMIT $1",
                );
                let rows = rows
                    .bind(i64::from(limit))
                    .bind(entity)
                    .bind(topic)
                    .bind(event_seq.cast_signed())
                    .bind(shards)
                    .fetch_all(c.on())
                    .await?;
                rows.iter().map(stored::envelope).collect()
            })
        })
        .await
    }

    pub(crate) async fn published(&self, places: &[Place]) -> Result<Vec<Place>, StoreError> {
        let entities: Vec<Uuid> = places.iter().map(|p| p.0).collect();
        let topics: Vec<String> = places.iter().map(|p| p.1.clone()).collect();
        let numbers: Vec<i64> = places.iter().map(|p| p.2.cast_signed()).collect();
        self.read(move |c| {
            Box::pin(async move {
                let rows = c.sql(
                    "SELECT o.entity, o.topic, o.event_seq \
                     FROM unnest($1::uuid[], $2::text[], $3::bigint[]) \
                       AS n (entity, topic, event_seq) \
                     JOIN outbox AS o ON o.entity = n.entity AND o.topic = n.topic \
                      AND o.event_seq = n.event_seq \
                     WHERE o.published_at IS NOT NULL",
                );
                let rows = rows.bind(entities).bind(topics).bind(numbers);
                rows.fetch_all(c.on())
                    .await?
                    .iter()
                    .map(|row| {
                        let number = row.try_get::<i64, _>(2)?.cast_unsigned();
                        Ok((row.try_get(0)?, row.try_get(1)?, number))
                    })
                    .collect()
            })
        })
        .await
    }

    pub(crate) async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.read(|c| {
            Box::pin(async move {
                let row = c.sql("SELECT count(*), min(at) FROM outbox WHERE published_at IS NULL");
                let row = row.fetch_one(c.on()).await?;
                Ok(Backlog {
                    events: row.try_get::<i64, _>(0)?.cast_unsigned(),
                    oldest: row.try_get::<Option<i64>, _>(1)?.map(Timestamp),
                })
            })
        })
        .await
    }

    pub(crate) async fn mark_published(
        &self,
        events: &[Envelope],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let events = events.to_vec();
        self.transaction(move |c| Box::pin(async move { publish(c, &events, now).await }))
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
        self.transaction(move |c| {
            Box::pin(async move {
                let mut marks = marks(c, consumer, &events).await?;
                let due = Due::of(&events, &mut marks);
                insert_tickets(c, &due.tickets, &kid, now).await?;
                for letter in due.dead {
                    insert_dead_letter(c, consumer, letter, now).await?;
                }
                save_marks(c, consumer, &marks).await?;
                if came == Came::FromOutbox {
                    let done = events.iter().zip(&due.taken).filter(|(_, taken)| **taken);
                    publish(c, done.map(|((event, _), _)| event), now).await?;
                }
                Ok(due.taken)
            })
        })
        .await
    }
}

/// Marks events as published.
async fn publish(
    c: &mut Link,
    events: impl IntoIterator<Item = &Envelope>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (mut entities, mut topics, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for event in events {
        entities.push(event.entity);
        topics.push(event.topic.clone());
        numbers.push(event.event_seq.cast_signed());
    }
    c.sql(
        "UPDATE outbox SET published_at = $4 \
         FROM unnest($1::uuid[], $2::text[], $3::bigint[]) \
           AS done (entity, topic, event_seq) \
         WHERE outbox.entity = done.entity AND outbox.topic = done.topic \
           AND outbox.event_seq = done.event_seq",
    )
    .bind(entities)
    .bind(topics)
    .bind(numbers)
    .bind(now.0)
    .execute(c.on())
    .await?;
    Ok(())
}

/// The marks of these events, which stay as they are until the end of the
/// transaction: of two that consume the same events, the second waits here.
async fn marks(
    c: &mut Link,
    consumer: &str,
    events: &[(Envelope, Asked)],
) -> Result<Marks, StoreError> {
    let mut keys: Vec<(Uuid, &str)> = events
        .iter()
        .map(|(event, _)| (event.entity, event.topic.as_str()))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let (entities, topics): (Vec<Uuid>, Vec<&str>) = keys.into_iter().unzip();
    c.sql(
        "INSERT INTO consumer_mark (consumer, entity, topic, event_seq) \
         SELECT $1, entity, topic, 0 FROM unnest($2::uuid[], $3::text[]) AS n (entity, topic) \
         ON CONFLICT DO NOTHING",
    )
    .bind(consumer)
    .bind(&entities)
    .bind(&topics)
    .execute(c.on())
    .await?;
    let rows = c.sql(
        "SELECT m.entity, m.topic, m.event_seq \
         FROM unnest($2::uuid[], $3::text[]) AS n (entity, topic) \
         JOIN consumer_mark AS m \
           ON m.consumer = $1 AND m.entity = n.entity AND m.topic = n.topic \
         ORDER BY m.entity, m.topic FOR UPDATE OF m",
    );
    let rows = rows
        .bind(consumer)
        .bind(&entities)
        .bind(&topics)
        .fetch_all(c.on())
        .await?;
    rows.iter()
        .map(|row| {
            let mark = row.try_get::<i64, _>(2)?.cast_unsigned();
            Ok(((row.try_get(0)?, row.try_get(1)?), mark))
        })
        .collect()
}

/// Each seat is looked at under a lock: a cancel of it, which makes its ticket void,
/// comes either before this, and there is no ticket, or waits for it, and finds one.
pub(super) async fn insert_tickets(
    c: &mut Link,
    tickets: &[&NewTicket],
    kid: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    if tickets.is_empty() {
        return Ok(());
    }
    let ids = |of: fn(&NewTicket) -> Uuid| tickets.iter().map(|t| of(t)).collect::<Vec<_>>();
    let seats: Vec<i32> = tickets.iter().map(|t| t.seat.cast_signed()).collect();
    c.sql(
        "INSERT INTO ticket (id, order_id, seat, timetable_id, user_id, kid, status, issued_at) \
         SELECT n.id, n.order_id, n.seat, n.timetable_id, n.user_id, $6, 'valid', $7 \
         FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::uuid[], $5::uuid[]) \
           AS n (id, order_id, seat, timetable_id, user_id) \
         JOIN sold_seat AS s ON s.timetable_id = n.timetable_id AND s.seat = n.seat \
          AND s.order_id = n.order_id \
         FOR KEY SHARE OF s \
         ON CONFLICT (order_id, seat) DO NOTHING",
    )
    .bind(ids(|t| t.id))
    .bind(ids(|t| t.order))
    .bind(seats)
    .bind(ids(|t| t.timetable))
    .bind(ids(|t| t.user))
    .bind(kid)
    .bind(now.0)
    .execute(c.on())
    .await?;
    Ok(())
}

async fn save_marks(c: &mut Link, consumer: &str, marks: &Marks) -> Result<(), StoreError> {
    let numbers: Vec<i64> = marks.values().map(|mark| mark.cast_signed()).collect();
    c.sql(
        "UPDATE consumer_mark AS m SET event_seq = n.event_seq \
         FROM unnest($2::uuid[], $3::text[], $4::bigint[]) AS n (entity, topic, event_seq) \
         WHERE m.consumer = $1 AND m.entity = n.entity AND m.topic = n.topic \
           AND m.event_seq <> n.event_seq",
    )
    .bind(consumer)
    .bind(marks.keys().map(|(entity, _)| *entity).collect::<Vec<_>>())
    .bind(
        marks
            .keys()
            .map(|(_, topic)| topic.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(numbers)
    .execute(c.on())
    .await?;
    Ok(())
}
