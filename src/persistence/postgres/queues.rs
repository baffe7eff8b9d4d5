//! Queues: their rows in a batch, and how they come back.

use sqlx::Row;
use uuid::Uuid;

use super::statement::Statement;
use super::{Link, PostgresStore};
use crate::domain::ids::{PerformanceId, ShardSet, shard_of};
use crate::domain::queue::ENDED_FOR;
use crate::domain::queue::restore::{PlaceRow, QueueRow, QueueState};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::batch::{PlaceChange, PlaceEnd, QueueChanges};
use crate::persistence::store::entities::Loaded;
use crate::persistence::store::queues::QueueFigures;
use crate::persistence::stored::queue::{self as stored, QueueTexts, StateColumns, end_name};

/// Rows of queues, one array a column.
#[derive(Default)]
pub(super) struct Queues {
    rows: Rows,
    places: Places,
    ended: Ended,
}

#[derive(Default)]
struct Rows {
    ids: Vec<Uuid>,
    next: Vec<i32>,
    reserved: Vec<i32>,
    admitted: Vec<i32>,
    totals: Vec<i64>,
    paused: Vec<bool>,
    draining: Vec<bool>,
    grants: Vec<String>,
    gaps: Vec<String>,
    seeds: Vec<Option<Vec<u8>>>,
    drawn: Vec<Option<String>>,
}

#[derive(Default)]
struct Places {
    queues: Vec<Uuid>,
    tickets: Vec<Uuid>,
    users: Vec<Uuid>,
    numbers: Vec<Option<i32>>,
    entrants: Vec<bool>,
    joined: Vec<i64>,
    states: Vec<&'static str>,
    granted: Vec<Option<i64>>,
    passes: Vec<Option<i64>>,
    ended: Vec<Option<i64>>,
}

#[derive(Default)]
struct Ended {
    queues: Vec<Uuid>,
    tickets: Vec<Uuid>,
    numbers: Vec<Option<i32>>,
    states: Vec<&'static str>,
    times: Vec<i64>,
}

const QUEUES: &str = "INSERT INTO queue (id, next_number, reserved_upto, admitted_up_to, \
       admitted_total, paused, draining, grants, gaps, seed, drawn) \
     SELECT * FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::integer[], $5::bigint[], \
       $6::boolean[], $7::boolean[], $8::text[], $9::text[], $10::bytea[], $11::text[]) \
     ON CONFLICT (id) DO UPDATE SET next_number = excluded.next_number, \
       reserved_upto = excluded.reserved_upto, admitted_up_to = excluded.admitted_up_to, \
       admitted_total = excluded.admitted_total, paused = excluded.paused, \
       draining = excluded.draining, grants = excluded.grants, gaps = excluded.gaps, \
       seed = excluded.seed, drawn = excluded.drawn";

const PLACES: &str = "INSERT INTO queue_place (queue_id, ticket_id, user_id, number, entrant, \
       joined_at, state, granted_at, pass_until, ended_at) \
     SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::integer[], $5::boolean[], \
       $6::bigint[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[]) \
     ON CONFLICT (queue_id, ticket_id) DO UPDATE SET number = excluded.number, \
       entrant = excluded.entrant, state = excluded.state, granted_at = excluded.granted_at, \
       pass_until = excluded.pass_until, ended_at = excluded.ended_at";

/// A place that was not in the store is none to end.
const ENDED: &str = "UPDATE queue_place AS p SET state = n.state, ended_at = n.at, \
       granted_at = NULL, \
       pass_until = CASE p.state WHEN 'active' THEN p.pass_until ELSE n.at END, \
       entrant = p.entrant AND n.number IS NOT NULL, number = coalesce(p.number, n.number) \
     FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::bigint[]) \
       AS n (queue_id, ticket_id, number, state, at) \
     WHERE p.queue_id = n.queue_id AND p.ticket_id = n.ticket_id AND p.ended_at IS NULL";

/// Those that another node deletes just now are passed over.
const FORGET: &str = "WITH gap AS MATERIALIZED ( \
         SELECT q.id, CAST(g ->> 0 AS integer) AS first, CAST(g ->> 1 AS integer) AS last \
         FROM queue AS q, jsonb_array_elements(CAST(q.gaps AS jsonb)) AS g) \
     DELETE FROM queue_place WHERE (queue_id, ticket_id) IN ( \
         SELECT p.queue_id, p.ticket_id FROM queue_place AS p JOIN queue ON queue.id = p.queue_id \
         WHERE p.ended_at < $1 AND NOT p.entrant AND coalesce(p.pass_until, 0) <= $2 \
           AND (p.number IS NULL OR (p.number <= queue.admitted_up_to \
                AND NOT EXISTS (SELECT 1 FROM gap WHERE gap.id = p.queue_id \
                    AND p.number BETWEEN gap.first AND gap.last))) \
         ORDER BY p.ended_at LIMIT $3 FOR UPDATE OF p SKIP LOCKED)";

impl Queues {
    pub(super) fn add(&mut self, id: Uuid, changes: &QueueChanges) {
        if let Some(row) = &changes.queue {
            self.rows.add(id, row);
        }
        for (ticket, change) in &changes.places {
            match change {
                PlaceChange::Put(row) => self.places.add(id, row),
                PlaceChange::Ended(PlaceEnd { number, end, at }) => {
                    self.ended.queues.push(id);
                    self.ended.tickets.push(ticket.0);
                    self.ended.numbers.push(number.map(|n| n.0.cast_signed()));
                    self.ended.states.push(end_name(*end));
                    self.ended.times.push(at.0);
                }
            }
        }
    }

    pub(super) fn put(self, into: &mut Statement) {
        if !self.rows.ids.is_empty() {
            self.rows.put(into);
        }
        if !self.ended.queues.is_empty() {
            self.ended.put(into);
        }
        if !self.places.queues.is_empty() {
            self.places.put(into);
        }
    }
}

impl Rows {
    fn add(&mut self, id: Uuid, row: &QueueRow) {
        let texts = QueueTexts::of(row);
        self.ids.push(id);
        self.next.push(row.next.0.cast_signed());
        self.reserved.push(row.reserved_upto.0.cast_signed());
        self.admitted.push(row.admitted_up_to.0.cast_signed());
        self.totals.push(row.admitted_total.cast_signed());
        self.paused.push(row.paused);
        self.draining.push(row.draining);
        self.grants.push(texts.grants);
        self.gaps.push(texts.gaps);
        self.seeds.push(texts.seed);
        self.drawn.push(texts.drawn);
    }

    fn put(self, into: &mut Statement) {
        into.part(QUEUES)
            .bind(self.ids)
            .bind(self.next)
            .bind(self.reserved)
            .bind(self.admitted)
            .bind(self.totals)
            .bind(self.paused)
            .bind(self.draining)
            .bind(self.grants)
            .bind(self.gaps)
            .bind(self.seeds)
            .bind(self.drawn);
    }
}

impl Places {
    fn add(&mut self, id: Uuid, row: &PlaceRow) {
        let state = StateColumns::from(row.state);
        self.queues.push(id);
        self.tickets.push(row.ticket.0);
        self.users.push(row.user.0);
        self.numbers.push(row.number.map(|n| n.0.cast_signed()));
        self.entrants.push(row.entrant);
        self.joined.push(row.joined_at.0);
        self.states.push(state.state);
        self.granted.push(state.granted_at);
        self.passes.push(state.pass_until);
        self.ended.push(state.ended_at);
    }

    fn put(self, into: &mut Statement) {
        into.part(PLACES)
            .bind(self.queues)
            .bind(self.tickets)
            .bind(self.users)
            .bind(self.numbers)
            .bind(self.entrants)
            .bind(self.joined)
            .bind(self.states)
            .bind(self.granted)
            .bind(self.passes)
            .bind(self.ended);
    }
}

impl Ended {
    fn put(self, into: &mut Statement) {
        into.part(ENDED)
            .bind(self.queues)
            .bind(self.tickets)
            .bind(self.numbers)
            .bind(self.states)
            .bind(self.times);
    }
}

impl PostgresStore {
    pub(crate) async fn load_queue(
        &self,
        id: PerformanceId,
        now: Timestamp,
    ) -> Result<Loaded<QueueState>, StoreError> {
        self.load(move |c| Box::pin(stored::load(c, id, now))).await
    }

    pub(crate) async fn queue_figures(
        &self,
        id: PerformanceId,
        now: Timestamp,
    ) -> Result<QueueFigures, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let row = c.sql(
                    "SELECT paused, draining, admitted_total, \
                         (SELECT count(*) FROM queue_place AS p \
                          WHERE p.queue_id = queue.id AND p.state = 'waiting'), \
                         (SELECT count(*) FROM queue_place AS p WHERE p.queue_id = queue.id \
                          AND (p.state = 'admitted' OR (p.state = 'active' AND p.pass_until > $2))) \
                     FROM queue WHERE id = $1",
                );
                let row = row.bind(id.0).bind(now.0).fetch_optional(c.on()).await?;
                let Some(row) = row else {
                    return Ok(QueueFigures::default());
                };
                // More than u32 don't fit into a queue.
                let count = |at: usize| Ok::<_, sqlx::Error>(row.try_get::<i64, _>(at)? as u32);
                Ok(QueueFigures {
                    paused: row.try_get(0)?,
                    draining: row.try_get(1)?,
                    admitted_total: row.try_get::<i64, _>(2)?.cast_unsigned(),
                    waiting: count(3)?,
                    active: count(4)?,
                })
            })
        })
        .await
    }

    pub(crate) async fn queues_with_people(
        &self,
        shards: &ShardSet,
    ) -> Result<Vec<PerformanceId>, StoreError> {
        let shards = shards.clone();
        self.load(move |c| Box::pin(queues_with_people(c, shards)))
            .await
    }

    pub(crate) async fn forget_places(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let done = c.sql(FORGET).bind(now.0 - ENDED_FOR.0).bind(now.0);
                let done = done.bind(i64::from(limit)).execute(c.on()).await?;
                Ok(done.rows_affected())
            })
        })
        .await
    }
}

async fn queues_with_people(
    c: &mut Link,
    shards: ShardSet,
) -> Result<Vec<PerformanceId>, StoreError> {
    let all = c.sql("SELECT id FROM queue").fetch_all(c.on()).await?;
    let mut ours = Vec::new();
    for row in &all {
        let id: Uuid = row.try_get(0)?;
        if shards.contains(shard_of(id)) {
            ours.push(id);
        }
    }
    let with_people = c.sql(
        "SELECT id FROM unnest($1::uuid[]) AS n (id) WHERE EXISTS ( \
             SELECT 1 FROM queue_place WHERE queue_id = n.id AND ended_at IS NULL)",
    );
    let found = with_people.bind(ours).fetch_all(c.on()).await?;
    found
        .iter()
        .map(|row| Ok(PerformanceId(row.try_get(0)?)))
        .collect()
}
