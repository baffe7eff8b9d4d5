//! The group commit: many entities' contributions in one transaction, and in a
//! fixed number of round trips whatever their number.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::entities::version;
use super::queues::Queues;
use super::rows::{self, Accounts, History, Timetables};
use super::{Link, PostgresStore};
use crate::domain::ids::{EntityId, Epoch, ShardId};
use crate::persistence::StoreError;
use crate::persistence::batch::{Changes, Contribution};
use crate::persistence::store::commit::Verdict;
use crate::persistence::stored::entity_kind;
#[cfg(feature = "sabotage")]
use crate::sabotage::{self, Point, Switch};

/// The shards of a batch that are still owned in its epochs, locked until its
/// end, and only these.
///
/// `FOR SHARE` and nothing weaker: it makes the taker's change of the epoch wait
/// for this batch, and this batch for that, after which it finds no row. With
/// `FOR KEY SHARE`, or with a condition on the epoch instead of a lock, a stale
/// owner's batch commits: `a_taker_waits_for_the_batch_that_is_open` and
/// `a_batch_that_waited_for_the_taker_writes_nothing` of
/// `tests/store_conformance` break.
const FENCE: &str = "SELECT s.id, s.epoch FROM unnest($1::smallint[], $2::integer[]) AS w (id, epoch) \
     JOIN shard AS s ON s.id = w.id AND s.epoch = w.epoch ORDER BY s.id FOR SHARE OF s";

/// Moves the version of each entity from the expected one on, and returns those
/// that were at the expected one: only their rows may be written. A conditional
/// change, and no look before it: a twin could pass that too.
const ADVANCE: &str = "WITH n AS ( \
         SELECT * FROM unnest($1::uuid[], $2::text[], $3::smallint[], \
             $4::integer[], $5::integer[], $6::bigint[], \
             $7::integer[], $8::integer[], $9::bigint[]) \
         AS n (id, kind, shard, old_epoch, old_activation, old_seq, epoch, activation, seq)), \
     known AS ( \
         UPDATE entity SET epoch = n.epoch, activation = n.activation, seq = n.seq FROM n \
         WHERE entity.id = n.id AND entity.kind = n.kind AND entity.epoch = n.old_epoch \
           AND entity.activation = n.old_activation AND entity.seq = n.old_seq \
         RETURNING entity.id, entity.kind), \
     new AS ( \
         INSERT INTO entity (id, kind, shard, epoch, activation, seq) \
         SELECT id, kind, shard, epoch, activation, seq FROM n \
         WHERE old_epoch = 0 AND old_activation = 0 AND old_seq = 0 \
         ON CONFLICT DO NOTHING RETURNING id, kind) \
     SELECT id, kind FROM known UNION ALL SELECT id, kind FROM new";

impl PostgresStore {
    pub(crate) async fn commit(
        &self,
        contributions: Arc<Vec<Contribution>>,
    ) -> Result<Vec<Verdict>, StoreError> {
        let rows = contributions.iter().map(Contribution::rows).sum();
        self.transaction_of(extra_time(rows), move |c| {
            Box::pin(async move { write(c, &contributions).await })
        })
        .await
    }
}

/// What a batch of so many rows gets beyond the limits of a small one. An
/// entity's rows can't be parted: after an outage a waiting room may have hundreds
/// of thousands, which must not be tried in vain for ever.
fn extra_time(rows: usize) -> Duration {
    const ROWS_IN_TIME: usize = 10_000;
    const A_ROW: Duration = Duration::from_micros(100);
    const EXTRA_MAX: Duration = Duration::from_secs(60);
    let more = u32::try_from(rows.saturating_sub(ROWS_IN_TIME)).unwrap_or(u32::MAX);
    A_ROW.saturating_mul(more).min(EXTRA_MAX)
}

async fn write(c: &mut Link, contributions: &[Contribution]) -> Result<Vec<Verdict>, StoreError> {
    let owned = fence(c, contributions).await?;
    let mut mine: Vec<&Contribution> = contributions
        .iter()
        .filter(|c| owned.contains(&shard_and_epoch(c)))
        .collect();
    mine.sort_unstable_by_key(|c| (c.entity.shard().0, c.entity.id));
    let advanced = advance(c, &mine).await?;
    #[cfg(feature = "sabotage")]
    let advanced = if sabotage::is_on(Switch::RetryBlindly) {
        mine.iter().map(|c| c.entity).collect()
    } else {
        advanced
    };
    let mut written = advanced.clone();
    for late in mine.iter().filter(|c| !advanced.contains(&c.entity)) {
        // Applied by an earlier commit whose answer was lost?
        if version(c, late.entity).await? == Some(late.after) {
            written.insert(late.entity);
        }
    }
    mine.retain(|c| advanced.contains(&c.entity));
    write_rows(c, &mine).await?;
    #[cfg(feature = "sabotage")]
    sabotage::pass(Point::Written);
    let verdict = |c: &Contribution| {
        if written.contains(&c.entity) {
            Verdict::Written
        } else {
            Verdict::Fenced
        }
    };
    Ok(contributions.iter().map(verdict).collect())
}

fn shard_and_epoch(contribution: &Contribution) -> (ShardId, Epoch) {
    (contribution.entity.shard(), contribution.after.epoch)
}

async fn fence(
    c: &mut Link,
    contributions: &[Contribution],
) -> Result<HashSet<(ShardId, Epoch)>, StoreError> {
    let mut wanted: Vec<(i16, i32)> = contributions
        .iter()
        .map(shard_and_epoch)
        .map(|(shard, epoch)| (shard.0.cast_signed(), epoch.0.cast_signed()))
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    #[cfg(feature = "sabotage")]
    if sabotage::is_on(Switch::NoFence) {
        return Ok(contributions.iter().map(shard_and_epoch).collect());
    }
    let (shards, epochs): (Vec<i16>, Vec<i32>) = wanted.into_iter().unzip();
    let sql = FENCE;
    #[cfg(feature = "sabotage")]
    let sql = super::broken::fence(sql);
    let rows = c.sql(sql).bind(shards).bind(epochs);
    let rows = rows.fetch_all(c.on()).await?;
    let owned = |row: &PgRow| {
        let (shard, epoch): (i16, i32) = (row.try_get(0)?, row.try_get(1)?);
        Ok((ShardId(shard.cast_unsigned()), Epoch(epoch.cast_unsigned())))
    };
    rows.iter().map(owned).collect()
}

async fn advance(
    c: &mut Link,
    contributions: &[&Contribution],
) -> Result<HashSet<EntityId>, StoreError> {
    if contributions.is_empty() {
        return Ok(HashSet::new());
    }
    let each = contributions.iter();
    let ids: Vec<Uuid> = each.clone().map(|c| c.entity.id).collect();
    let kinds: Vec<&str> = each.clone().map(|c| c.entity.kind.as_str()).collect();
    let shards: Vec<i16> = each
        .clone()
        .map(|c| c.entity.shard().0.cast_signed())
        .collect();
    let (old, new) = (
        rows::stamps(each.clone().map(|c| c.expected)),
        rows::stamps(each.map(|c| c.after)),
    );
    let sql = ADVANCE;
    #[cfg(feature = "sabotage")]
    let sql = super::broken::advance(sql);
    let rows = c
        .sql(sql)
        .bind(ids)
        .bind(kinds)
        .bind(shards)
        .bind(old.epochs)
        .bind(old.activations)
        .bind(old.seqs)
        .bind(new.epochs)
        .bind(new.activations)
        .bind(new.seqs)
        .fetch_all(c.on())
        .await?;
    let entity = |row: &PgRow| {
        let id = row.try_get(0)?;
        let kind = entity_kind(row.try_get(1)?)?;
        Ok(EntityId { kind, id })
    };
    rows.iter().map(entity).collect()
}

async fn write_rows(c: &mut Link, contributions: &[&Contribution]) -> Result<(), StoreError> {
    if contributions.is_empty() {
        return Ok(());
    }
    let mut history = History::default();
    let (mut timetables, mut accounts) = (Timetables::default(), Accounts::default());
    let mut queues = Queues::default();
    for contribution in contributions {
        history.add(contribution);
        match &contribution.changes {
            Changes::Timetable(changes) => timetables.add(contribution.entity.id, changes),
            Changes::Account(changes) => accounts.add(contribution.entity.id, changes),
            Changes::Queue(changes) => queues.add(contribution.entity.id, changes),
        }
    }
    history.write(c).await?;
    timetables.write(c).await?;
    accounts.write(c).await?;
    queues.write(c).await
}
