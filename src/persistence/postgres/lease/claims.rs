//! Shards change hands: taken from one whose lease has run out, or handed over.

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use super::Line;
use crate::domain::ids::{Epoch, Incarnation, NodeId, ShardId};
use crate::persistence::StoreError;
use crate::persistence::lease::{Claim, Ground, Registered, application_name};

/// How long a claim of many shards waits for the batches that are open on them;
/// then the shards are claimed one by one, and those that are locked are left
/// for later.
const LOCK_MANY_MAX: &str = "SET LOCAL lock_timeout = '300ms'";
const LOCK_ONE_MAX: &str = "SET LOCAL lock_timeout = '20ms'";

/// Takes shards and hands them over, for one life of a node.
#[derive(Debug)]
pub struct Claims {
    pub(super) line: Line,
    pub(super) me: Registered,
}

impl Claims {
    /// Takes what can be had of `claim`. When this returns, the shards in the
    /// answer are this node's, in the epochs told, and no batch of anybody else
    /// is written to them any more.
    ///
    /// # Errors
    /// If the database can't be reached in time: the outcome is unknown, and the
    /// next heartbeat tells it.
    pub async fn claim(&mut self, claim: &Claim) -> Result<Vec<(ShardId, Epoch)>, StoreError> {
        let (me, claim) = (self.me.clone(), claim.clone());
        self.line
            .run(move |connection| {
                Box::pin(async move {
                    match take(connection, &me, &claim, &claim.shards, LOCK_MANY_MAX).await {
                        Err(error) if is_locked(&error) => {}
                        taken => return taken,
                    }
                    let mut taken = Vec::new();
                    for shard in &claim.shards {
                        let one = std::slice::from_ref(shard);
                        match take(connection, &me, &claim, one, LOCK_ONE_MAX).await {
                            Err(error) if is_locked(&error) => {}
                            result => taken.extend(result?),
                        }
                    }
                    Ok(taken)
                })
            })
            .await
    }

    /// Hands `shards`, each in the epoch in which it is ours, over to `to`.
    /// Returns those for which that was done: nothing that this node decides for
    /// them is written any more.
    ///
    /// # Errors
    /// If the database can't be reached in time: the outcome is unknown, and the
    /// next heartbeat tells it.
    pub async fn hand_over(
        &mut self,
        to: &(NodeId, Incarnation),
        shards: &[(ShardId, Epoch)],
    ) -> Result<Vec<ShardId>, StoreError> {
        let (me, to, shards) = (self.me.clone(), to.clone(), shards.to_vec());
        self.line
            .run(move |connection| {
                Box::pin(async move { give(connection, &me, &to, &shards).await })
            })
            .await
    }

    /// Ends the connections of a life of a node that has lost its shards: an
    /// open batch of a frozen process would go on holding locks.
    ///
    /// # Errors
    /// If the database can't be reached in time.
    pub async fn terminate(&mut self, old: &(NodeId, Incarnation)) -> Result<u64, StoreError> {
        let name = application_name(&old.0, old.1);
        self.line
            .run(move |connection| {
                Box::pin(async move {
                    let ended = sqlx::query(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE application_name = $1 AND pid <> pg_backend_pid()",
                    )
                    .bind(&*name)
                    .fetch_all(connection)
                    .await?;
                    Ok(ended.len() as u64)
                })
            })
            .await
    }
}

/// One transaction that takes `shards`. The order of its locks matters: shards
/// by number, as batches do; then the owner's row, which holds up its heartbeat
/// for the rest of the transaction, so that a renewal comes either before (and
/// the claim is off) or after (and reads back the loss).
async fn take(
    connection: &mut PgConnection,
    me: &Registered,
    claim: &Claim,
    shards: &[(ShardId, Epoch, Epoch)],
    lock_timeout: &'static str,
) -> Result<Vec<(ShardId, Epoch)>, StoreError> {
    let mut transaction = connection.begin().await?;
    sqlx::query(lock_timeout).execute(&mut *transaction).await?;
    let ids: Vec<i32> = shards.iter().map(|(id, _, _)| i32::from(id.0)).collect();
    let epochs: Vec<i32> = shards.iter().map(|(_, at, _)| at.0.cast_signed()).collect();
    let lowest: Vec<i32> = shards.iter().map(|(_, _, to)| to.0.cast_signed()).collect();
    let (owner, incarnation) = match &claim.from {
        Some((node, incarnation)) => (node.as_str(), incarnation.0.cast_signed()),
        None => ("", 0),
    };
    // The order is that of the batches' own locks, or they would deadlock.
    sqlx::query(
        "SELECT shard.id FROM shard \
         JOIN unnest($1::int[], $2::int[]) AS wanted (id, epoch) \
           ON shard.id = wanted.id AND shard.epoch = wanted.epoch \
         WHERE shard.owner = $3 AND shard.incarnation = $4 \
         ORDER BY shard.id FOR UPDATE OF shard",
    )
    .bind(&ids)
    .bind(&epochs)
    .bind(owner)
    .bind(incarnation)
    .fetch_all(&mut *transaction)
    .await?;
    if claim.ground == Ground::Expired {
        let expired = sqlx::query(
            // A later life of the node, if there is one, must be over too.
            "SELECT 1 FROM node WHERE id = $1 AND incarnation >= $2 \
             AND lease_until < clock_timestamp() FOR UPDATE",
        )
        .bind(owner)
        .bind(incarnation)
        .fetch_optional(&mut *transaction)
        .await?;
        if expired.is_none() {
            transaction.rollback().await?;
            return Ok(Vec::new());
        }
    }
    let rows = sqlx::query(
        "UPDATE shard SET owner = $3, incarnation = $4, \
                epoch = greatest(shard.epoch + 1, wanted.lowest) \
         FROM unnest($1::int[], $2::int[], $7::int[]) AS wanted (id, epoch, lowest) \
         WHERE shard.id = wanted.id AND shard.epoch = wanted.epoch \
           AND shard.owner = $5 AND shard.incarnation = $6 \
         RETURNING shard.id::int, shard.epoch::int",
    )
    .bind(&ids)
    .bind(&epochs)
    .bind(me.node.as_str())
    .bind(me.incarnation.0.cast_signed())
    .bind(owner)
    .bind(incarnation)
    .bind(&lowest)
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    rows.iter()
        .map(|row| {
            let epoch = Epoch(row.try_get::<i32, _>(1)?.cast_unsigned());
            Ok((shard_id(row.try_get(0)?), epoch))
        })
        .collect()
}

async fn give(
    connection: &mut PgConnection,
    me: &Registered,
    to: &(NodeId, Incarnation),
    shards: &[(ShardId, Epoch)],
) -> Result<Vec<ShardId>, StoreError> {
    let mut transaction = connection.begin().await?;
    sqlx::query(LOCK_MANY_MAX)
        .execute(&mut *transaction)
        .await?;
    let ids: Vec<i32> = shards.iter().map(|(id, _)| i32::from(id.0)).collect();
    let epochs: Vec<i32> = shards.iter().map(|(_, at)| at.0.cast_signed()).collect();
    sqlx::query("SELECT id FROM shard WHERE id = ANY ($1) ORDER BY id FOR UPDATE")
        .bind(&ids)
        .fetch_all(&mut *transaction)
        .await?;
    // Not to a node that has gone meanwhile.
    let rows = sqlx::query(
        "UPDATE shard SET owner = node.id, incarnation = node.incarnation, \
                epoch = shard.epoch + 1 \
         FROM unnest($1::int[], $2::int[]) AS given (id, epoch), node \
         WHERE shard.id = given.id AND shard.epoch = given.epoch \
           AND shard.owner = $3 AND shard.incarnation = $4 \
           AND node.id = $5 AND node.incarnation = $6 AND node.state = 'up' \
           AND node.lease_until > clock_timestamp() \
         RETURNING shard.id::int",
    )
    .bind(&ids)
    .bind(&epochs)
    .bind(me.node.as_str())
    .bind(me.incarnation.0.cast_signed())
    .bind(to.0.as_str())
    .bind(to.1.0.cast_signed())
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    rows.iter()
        .map(|row| Ok(shard_id(row.try_get(0)?)))
        .collect()
}

fn shard_id(id: i32) -> ShardId {
    // The table checks that it is one.
    ShardId(u16::try_from(id).unwrap_or_default())
}

/// Whether a lock was not had in time (`lock_not_available`).
fn is_locked(error: &StoreError) -> bool {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    let (StoreError::Unavailable(cause) | StoreError::Defect(cause)) = error else {
        return false;
    };
    let code = cause.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some(LOCK_NOT_AVAILABLE)
}
