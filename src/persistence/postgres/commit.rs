//! The group commit: many entities' contributions in one transaction.
//!
//! Nearly always all of them are of entities that are ours and at the version
//! which was expected. So first the whole batch goes to the server as one
//! statement, which refuses to change anything if that is not so: one round trip,
//! in which the transaction begins and is committed. Only then it is taken step by
//! step, to find out whose contributions are to be left out. (A batch with cancels
//! always is: they need two statements, one after the other.)

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::cancels::{void_tickets, voids_tickets};
use super::coupons::Coupons;
use super::queues::Queues;
use super::rows::{self, Accounts, History, Timetables};
use super::statement::Statement;
use super::{Link, PostgresStore};
use crate::domain::ids::{EntityId, Epoch, ShardId};
use crate::persistence::StoreError;
use crate::persistence::batch::{Changes, Contribution};
use crate::persistence::store::commit::Verdict;
use crate::persistence::stored::entity_kind;
use crate::persistence::stored::reader::version;
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

/// What a whole batch has to find: so many shards of ours, so many entities.
const WANTED: &str = "SELECT $1::bigint AS shards, $2::bigint AS entities";

const VERSIONS: &str = "SELECT * FROM unnest($1::uuid[], $2::text[], $3::smallint[], \
         $4::integer[], $5::integer[], $6::bigint[], \
         $7::integer[], $8::integer[], $9::bigint[]) \
     AS n (id, kind, shard, old_epoch, old_activation, old_seq, epoch, activation, seq)";

/// None at all unless every shard is ours: and the shards are locked before the
/// entities, as everywhere.
const OURS: &str = "SELECT * FROM version \
     WHERE (SELECT count(*) FROM fence) = (SELECT shards FROM wanted)";

/// Moves the version of each entity from the expected one on. A conditional
/// change, and no look before it: a twin could pass that too.
const KNOWN: &str = "UPDATE entity \
     SET epoch = mine.epoch, activation = mine.activation, seq = mine.seq FROM mine \
     WHERE entity.id = mine.id AND entity.kind = mine.kind AND entity.epoch = mine.old_epoch \
       AND entity.activation = mine.old_activation AND entity.seq = mine.old_seq \
     RETURNING entity.id, entity.kind";

/// The same for those that are new.
const NEW: &str = "INSERT INTO entity (id, kind, shard, epoch, activation, seq) \
     SELECT id, kind, shard, epoch, activation, seq FROM mine \
     WHERE old_epoch = 0 AND old_activation = 0 AND old_seq = 0 \
     ON CONFLICT DO NOTHING RETURNING id, kind";

/// Those that were at the expected version: only their rows may be written.
const MOVED: &str = "SELECT id, kind FROM known UNION ALL SELECT id, kind FROM new";

/// Refuses the statement unless those are all.
const ALL_MOVED: &str = "SELECT every_entity_moved( \
     (SELECT count(*) FROM known) + (SELECT count(*) FROM new), (SELECT entities FROM wanted))";

impl PostgresStore {
    pub(crate) async fn commit(
        &self,
        contributions: Arc<Vec<Contribution>>,
    ) -> Result<Vec<Verdict>, StoreError> {
        match self.commit_together(Arc::clone(&contributions)).await {
            Ok(()) => return Ok(vec![Verdict::Written; contributions.len()]),
            Err(error) => tracing::debug!(%error, "a batch could not be written as a whole"),
        }
        let extra = extra_time(&contributions);
        self.transaction_of(extra, move |c| {
            Box::pin(async move { write(c, &contributions).await })
        })
        .await
    }

    /// Writes all of the contributions in one statement. Otherwise none, or nobody
    /// knows (the connection was dead, or cut): the steps find out, too, what is
    /// written already.
    pub(crate) async fn commit_together(
        &self,
        contributions: Arc<Vec<Contribution>>,
    ) -> Result<(), StoreError> {
        let is_one = extra_time(&contributions).is_zero()
            && !contributions.iter().any(|c| voids_tickets(&c.changes));
        #[cfg(feature = "sabotage")]
        let is_one = is_one && !super::broken::is_taken_step_by_step();
        if !is_one {
            return Err(StoreError::Apart);
        }
        self.statement(move |c| {
            Box::pin(async move {
                whole(&contributions).fetch(c, ALL_MOVED).await?;
                #[cfg(feature = "sabotage")]
                sabotage::pass(Point::Written);
                Ok(())
            })
        })
        .await
    }
}

/// What a batch of very many rows gets beyond the limits of a small one. An
/// entity's rows can't be parted: after an outage a waiting room may have hundreds
/// of thousands, which must not be tried in vain for ever.
fn extra_time(contributions: &[Contribution]) -> Duration {
    const ROWS_IN_TIME: usize = 10_000;
    const A_ROW: Duration = Duration::from_micros(100);
    const EXTRA_MAX: Duration = Duration::from_secs(60);
    let rows: usize = contributions.iter().map(Contribution::rows).sum();
    let more = u32::try_from(rows.saturating_sub(ROWS_IN_TIME)).unwrap_or(u32::MAX);
    A_ROW.saturating_mul(more).min(EXTRA_MAX)
}

async fn write(c: &mut Link, contributions: &[Contribution]) -> Result<Vec<Verdict>, StoreError> {
    let owned = fence(c, contributions).await?;
    let mut mine: Vec<&Contribution> = contributions
        .iter()
        .filter(|c| owned.contains(&shard_and_epoch(c)))
        .collect();
    in_order(&mut mine);
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
    if !mine.is_empty() {
        let mut statement = Statement::default();
        put_rows(&mut statement, &mine);
        statement.fetch(c, "SELECT").await?;
        void_tickets(c, &mine).await?;
    }
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

/// The shards of these entities in their epochs.
fn shards(contributions: &[Contribution]) -> (Vec<i16>, Vec<i32>) {
    let mut shards: Vec<(i16, i32)> = contributions
        .iter()
        .map(shard_and_epoch)
        .map(|(shard, epoch)| (shard.0.cast_signed(), epoch.0.cast_signed()))
        .collect();
    shards.sort_unstable();
    shards.dedup();
    shards.into_iter().unzip()
}

async fn fence(
    c: &mut Link,
    contributions: &[Contribution],
) -> Result<HashSet<(ShardId, Epoch)>, StoreError> {
    #[cfg(feature = "sabotage")]
    if sabotage::is_on(Switch::NoFence) {
        return Ok(contributions.iter().map(shard_and_epoch).collect());
    }
    let (shards, epochs) = shards(contributions);
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
    let mut statement = Statement::default();
    versions(&mut statement, "mine", contributions);
    moved(&mut statement);
    let rows = statement.fetch(c, MOVED).await?;
    let entity = |row: &PgRow| {
        let id = row.try_get(0)?;
        let kind = entity_kind(row.try_get(1)?)?;
        Ok(EntityId { kind, id })
    };
    rows.iter().map(entity).collect()
}

/// The versions of these entities, as the rows of `name`.
fn versions(statement: &mut Statement, name: &'static str, contributions: &[&Contribution]) {
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
    statement
        .named(name, VERSIONS)
        .bind(ids)
        .bind(kinds)
        .bind(shards)
        .bind(old.epochs)
        .bind(old.activations)
        .bind(old.seqs)
        .bind(new.epochs)
        .bind(new.activations)
        .bind(new.seqs);
}

/// Moves the versions of `mine` on.
fn moved(statement: &mut Statement) {
    #[cfg(feature = "sabotage")]
    if sabotage::is_on(Switch::SelectNotUpdate) {
        return super::broken::moved(statement);
    }
    statement.named("known", KNOWN).named("new", NEW);
}

/// Everything, to be ended with [`ALL_MOVED`].
fn whole(contributions: &[Contribution]) -> Statement {
    let (shards, epochs) = shards(contributions);
    let mut all: Vec<&Contribution> = contributions.iter().collect();
    in_order(&mut all);
    let mut statement = Statement::default();
    statement
        .named("wanted", WANTED)
        .bind(as_count(shards.len()))
        .bind(as_count(all.len()))
        .named("fence", FENCE)
        .bind(shards)
        .bind(epochs);
    versions(&mut statement, "version", &all);
    statement.named("mine", OURS);
    moved(&mut statement);
    put_rows(&mut statement, &all);
    statement
}

fn as_count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Locks are taken in one order.
fn in_order(contributions: &mut [&Contribution]) {
    contributions.sort_unstable_by_key(|c| (c.entity.shard().0, c.entity.id));
}

fn put_rows(statement: &mut Statement, contributions: &[&Contribution]) {
    let mut history = History::default();
    let (mut timetables, mut accounts) = (Timetables::default(), Accounts::default());
    let (mut queues, mut coupons) = (Queues::default(), Coupons::default());
    for contribution in contributions {
        history.add(contribution);
        match &contribution.changes {
            Changes::Timetable(changes) => timetables.add(contribution.entity.id, changes),
            Changes::Account(changes) => accounts.add(contribution.entity.id, changes),
            Changes::Queue(changes) => queues.add(contribution.entity.id, changes),
            Changes::Coupon(changes) => coupons.add(contribution.entity.id, changes),
        }
    }
    history.put(statement);
    timetables.put(statement);
    accounts.put(statement);
    queues.put(statement);
    coupons.put(statement);
}
