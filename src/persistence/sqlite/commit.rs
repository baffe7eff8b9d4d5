//! The group commit: many entities' contributions in one transaction, a fixed
//! number of set-based statements whatever their number (`rows.rs`).

use std::collections::HashSet;

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::SqliteStore;
use super::rows::{Rows, hex, json};
use crate::domain::ids::{EntityId, Epoch, ShardId, Stamp};
use crate::persistence::StoreError;
use crate::persistence::batch::Contribution;
use crate::persistence::store::commit::Verdict;
use crate::persistence::stored::entity_kind;
use crate::persistence::stored::reader::version;
#[cfg(feature = "sabotage")]
use crate::sabotage::{self, Point, Switch};

impl SqliteStore {
    pub(crate) async fn commit(
        &self,
        contributions: std::sync::Arc<Vec<Contribution>>,
    ) -> Result<Vec<Verdict>, StoreError> {
        self.transaction(move |connection| {
            Box::pin(async move { write(connection, &contributions).await })
        })
        .await
    }

    pub(crate) async fn commit_together(
        &self,
        contributions: std::sync::Arc<Vec<Contribution>>,
    ) -> Result<(), StoreError> {
        self.transaction(move |connection| {
            Box::pin(async move {
                let verdicts = write(connection, &contributions).await?;
                if verdicts.contains(&Verdict::Fenced) {
                    // Undoes what was written of the others.
                    return Err(StoreError::Apart);
                }
                Ok(())
            })
        })
        .await
    }
}

async fn write(
    connection: &mut SqliteConnection,
    contributions: &[Contribution],
) -> Result<Vec<Verdict>, StoreError> {
    let owned = owned_shards(connection, contributions).await?;
    let mine: Vec<&Contribution> = contributions
        .iter()
        .filter(|c| owned.contains(&shard_and_epoch(c)))
        .collect();
    let advanced = advance(connection, &mine).await?;
    #[cfg(feature = "sabotage")]
    let advanced = if sabotage::is_on(Switch::RetryBlindly) {
        mine.iter().map(|c| c.entity).collect()
    } else {
        advanced
    };
    let mut written = advanced.clone();
    if advanced.len() < mine.len() {
        let late = mine.iter().filter(|c| !advanced.contains(&c.entity));
        for contribution in late {
            if version(connection, contribution.entity).await? == Some(contribution.after) {
                written.insert(contribution.entity);
            }
        }
    }
    let fresh: Vec<&Contribution> = mine
        .into_iter()
        .filter(|c| advanced.contains(&c.entity))
        .collect();
    write_rows(connection, &fresh).await?;
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

/// The shards of the batch, with their epochs, that are still owned in that
/// epoch.
async fn owned_shards(
    connection: &mut SqliteConnection,
    contributions: &[Contribution],
) -> Result<HashSet<(ShardId, Epoch)>, StoreError> {
    let wanted: HashSet<(ShardId, Epoch)> = contributions.iter().map(shard_and_epoch).collect();
    let wanted: Vec<(ShardId, Epoch)> = wanted.into_iter().collect();
    let rows = sqlx::query(
        "SELECT shard.id, shard.epoch FROM json_each(?1) AS wanted \
         JOIN shard ON shard.id = wanted.value ->> 0 AND shard.epoch = wanted.value ->> 1",
    )
    .bind(json(&wanted)?)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Ok((ShardId(row.try_get(0)?), Epoch(row.try_get(1)?))))
        .collect()
}

fn shard_and_epoch(contribution: &Contribution) -> (ShardId, Epoch) {
    (contribution.entity.shard(), contribution.after.epoch)
}

/// Moves the version of each entity from the expected one on. Returns those
/// that were at the expected one: only their rows may be written.
async fn advance(
    connection: &mut SqliteConnection,
    contributions: &[&Contribution],
) -> Result<HashSet<EntityId>, StoreError> {
    type VersionRow = (String, &'static str, u16, Stamp3, Stamp3);
    type Stamp3 = (u32, u32, u64);
    fn stamp(s: Stamp) -> Stamp3 {
        (s.epoch.0, s.activation.0, s.seq.0)
    }
    let row = |c: &&Contribution| -> VersionRow {
        let EntityId { kind, id } = c.entity;
        (
            hex(id),
            kind.as_str(),
            c.entity.shard().0,
            stamp(c.expected),
            stamp(c.after),
        )
    };
    let is_new = |c: &&&Contribution| c.expected == Stamp::default();
    let new: Vec<_> = contributions.iter().filter(is_new).map(row).collect();
    let known: Vec<_> = contributions
        .iter()
        .filter(|c| !is_new(c))
        .map(row)
        .collect();
    let mut advanced = HashSet::with_capacity(contributions.len());
    if !new.is_empty() {
        let rows = sqlx::query(
            "INSERT INTO entity (id, kind, shard, epoch, activation, seq) \
             SELECT unhex(value ->> 0), value ->> 1, value ->> 2, \
                    value ->> '$[4][0]', value ->> '$[4][1]', value ->> '$[4][2]' \
             FROM json_each(?1) WHERE true \
             ON CONFLICT DO NOTHING RETURNING id, kind",
        )
        .bind(json(&new)?)
        .fetch_all(&mut *connection)
        .await?;
        collect_entities(&rows, &mut advanced)?;
    }
    if !known.is_empty() {
        let rows = sqlx::query(
            "UPDATE entity SET epoch = n.value ->> '$[4][0]', \
                    activation = n.value ->> '$[4][1]', seq = n.value ->> '$[4][2]' \
             FROM json_each(?1) AS n \
             WHERE entity.id = unhex(n.value ->> 0) AND entity.kind = n.value ->> 1 \
               AND entity.epoch = n.value ->> '$[3][0]' \
               AND entity.activation = n.value ->> '$[3][1]' \
               AND entity.seq = n.value ->> '$[3][2]' \
             RETURNING entity.id, entity.kind",
        )
        .bind(json(&known)?)
        .fetch_all(&mut *connection)
        .await?;
        collect_entities(&rows, &mut advanced)?;
    }
    Ok(advanced)
}

fn collect_entities(
    rows: &[sqlx::sqlite::SqliteRow],
    into: &mut HashSet<EntityId>,
) -> Result<(), StoreError> {
    for row in rows {
        let id = row.try_get(0)?;
        let kind = entity_kind(row.try_get(1)?)?;
        into.insert(EntityId { kind, id });
    }
    Ok(())
}

async fn write_rows(
    connection: &mut SqliteConnection,
    contributions: &[&Contribution],
) -> Result<(), StoreError> {
    let mut rows = Rows::default();
    for contribution in contributions {
        rows.add(contribution);
    }
    rows.write(connection).await
}
