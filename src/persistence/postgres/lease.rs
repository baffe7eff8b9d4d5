//! Leases and shards in Postgres.
//!
//! A heartbeat touches the node's own row alone, over a connection of its own:
//! on the fenced rows of `shard` it would wait behind open batches (1.25 s when
//! that was tried). A claim locks the shards in the order of their numbers, as
//! batches do, and so waits for the batches that are open on them; batches that
//! come later see the new epoch, and write nothing.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Row as _};

use crate::actors::ownership::Owner;
use crate::clock::{monotonic, since_boot};
use crate::domain::ids::{Epoch, Incarnation, NodeId, SHARDS, ShardId};
use crate::domain::time::{Millis, Timestamp};
use crate::persistence::StoreError;
use crate::persistence::lease::{
    Assigned, Claim, Ground, LEASE_MARGIN, LEASE_TTL, Member, NodeState, Registered, View,
    application_name,
};

/// How long a heartbeat may take before its connection is given up.
const BEAT_MAX: Duration = Duration::from_millis(900);

/// How long a claim or a hand-over may take as a whole.
const CLAIM_MAX: Duration = Duration::from_secs(5);

/// How long a claim of many shards waits for the batches that are open on them;
/// then the shards are claimed one by one, and those that are locked are left
/// for later.
const LOCK_MANY_MAX: &str = "SET LOCAL lock_timeout = '300ms'";
const LOCK_ONE_MAX: &str = "SET LOCAL lock_timeout = '20ms'";

/// What the lease's statements run on: one connection, made anew after any
/// failure.
#[derive(Debug)]
struct Line {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    patience: Duration,
}

impl Line {
    /// Runs `work` on the connection; gives it up if anything goes wrong, so
    /// that no half-finished transaction is ever continued.
    async fn run<T>(
        &mut self,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let taken = self.connection.take();
        let options = &self.options;
        let running = async {
            let mut connection = match taken {
                Some(connection) => connection,
                None => PgConnection::connect_with(options).await?,
            };
            let result = work(&mut connection).await?;
            Ok((connection, result))
        };
        match tokio::time::timeout(self.patience, running).await {
            Ok(Ok((connection, result))) => {
                self.connection = Some(connection);
                Ok(result)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }
}

/// A renewal of the lease, and what was learnt by it.
#[derive(Debug)]
pub struct Beat {
    /// What the database said.
    pub view: View,
    /// Since boot: nothing is acknowledged from here on without another one.
    pub stops_at: Millis,
    /// When `view.now` was, at the earliest and at the latest: the read was sent
    /// and answered then.
    pub read: (tokio::time::Instant, tokio::time::Instant),
}

/// Renews the lease of one life of a node.
#[derive(Debug)]
pub struct Heart {
    line: Line,
    me: Registered,
}

impl Heart {
    /// Renews the lease and reads who owns what. The lease may have run out: it
    /// is this node's nevertheless as long as nobody has taken its shards, which
    /// the view tells.
    ///
    /// # Errors
    /// If the database can't be reached in time; [`StoreError::Unreadable`] if a
    /// later life of this node has begun: this one must end.
    pub async fn beat(&mut self, state: NodeState) -> Result<Beat, StoreError> {
        let sent = since_boot();
        let me = self.me.clone();
        self.line
            .run(move |connection| {
                Box::pin(async move {
                    renew(connection, &me, state).await?;
                    let read_from = monotonic();
                    let (now, members) = members(connection).await?;
                    let read = (read_from, monotonic());
                    let shards = shards(connection).await?;
                    Ok(Beat {
                        view: View {
                            now,
                            members,
                            shards,
                        },
                        stops_at: Millis(sent.0 + LEASE_TTL.0 - LEASE_MARGIN.0),
                        read,
                    })
                })
            })
            .await
    }

    /// Gives the lease up: whoever wants the node's shards may take them.
    ///
    /// # Errors
    /// If the database can't be reached in time.
    pub async fn resign(&mut self) -> Result<(), StoreError> {
        let me = self.me.clone();
        self.line
            .run(move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "UPDATE node SET lease_until = clock_timestamp(), state = 'draining' \
                     WHERE id = $1 AND incarnation = $2",
                    )
                    .bind(me.node.as_str())
                    .bind(me.incarnation.0.cast_signed())
                    .execute(connection)
                    .await?;
                    Ok(())
                })
            })
            .await
    }
}

/// Takes shards and hands them over, for one life of a node.
#[derive(Debug)]
pub struct Claims {
    line: Line,
    me: Registered,
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

/// Begins a life of `node`, which can be reached at `address`. The caller holds
/// the lock of the folder in which its name is written. An earlier life that
/// still runs elsewhere ends with its next heartbeat.
///
/// # Errors
/// If the database can't be reached in time.
pub async fn register(
    options: &PgConnectOptions,
    node: &NodeId,
    address: &str,
) -> Result<(Registered, Heart, Claims), StoreError> {
    let line = |options: PgConnectOptions, patience| Line {
        options,
        connection: None,
        patience,
    };
    let mut first = line(options.clone(), CLAIM_MAX);
    let (name, at) = (node.clone(), address.to_owned());
    let me = first
        .run(move |connection| Box::pin(async move { enter(connection, &name, &at).await }))
        .await?;
    // Not that of the write lanes: ending their transactions must not end these.
    let name = format!("onsale-lease {node} {}", me.incarnation.0);
    let options = options.clone().application_name(&name);
    let heart = Heart {
        line: line(options.clone(), BEAT_MAX),
        me: me.clone(),
    };
    let claims = Claims {
        line: line(options, CLAIM_MAX),
        me: me.clone(),
    };
    Ok((me, heart, claims))
}

async fn enter(
    connection: &mut PgConnection,
    node: &NodeId,
    address: &str,
) -> Result<Registered, StoreError> {
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "INSERT INTO shard (id, owner, incarnation, epoch) \
         SELECT id, '', 0, 0 FROM generate_series(0, $1 - 1) AS id ON CONFLICT DO NOTHING",
    )
    .bind(i32::from(SHARDS))
    .execute(&mut *transaction)
    .await?;
    let before = sqlx::query(
        "SELECT (extract(epoch FROM lease_until) * 1000)::bigint FROM node \
         WHERE id = $1 FOR UPDATE",
    )
    .bind(node.as_str())
    .fetch_optional(&mut *transaction)
    .await?;
    let lease_until: Option<i64> = before.map(|row| row.try_get(0)).transpose()?;
    let row = sqlx::query(
        "INSERT INTO node (id, incarnation, address, state, lease_until) \
         VALUES ($1, 1, $2, 'up', clock_timestamp()) \
         ON CONFLICT (id) DO UPDATE SET incarnation = node.incarnation + 1, \
         address = excluded.address, state = excluded.state \
         RETURNING incarnation",
    )
    .bind(node.as_str())
    .bind(address)
    .fetch_one(&mut *transaction)
    .await?;
    let incarnation = Incarnation(row.try_get::<i32, _>(0)?.cast_unsigned());
    transaction.commit().await?;
    Ok(Registered {
        node: node.clone(),
        incarnation,
        alive_before: lease_until.map(|until| Timestamp(until - LEASE_TTL.0)),
    })
}

async fn renew(
    connection: &mut PgConnection,
    me: &Registered,
    state: NodeState,
) -> Result<(), StoreError> {
    let renewed = sqlx::query(
        "UPDATE node SET lease_until = clock_timestamp() + $3 * interval '1 millisecond', \
         state = $4 WHERE id = $1 AND incarnation = $2",
    )
    .bind(me.node.as_str())
    .bind(me.incarnation.0.cast_signed())
    .bind(f64::from(u16::try_from(LEASE_TTL.0).unwrap_or(u16::MAX)))
    .bind(state.as_str())
    .execute(connection)
    .await?;
    if renewed.rows_affected() == 0 {
        return Err(StoreError::Unreadable(format!(
            "another server runs as node {}",
            me.node
        )));
    }
    Ok(())
}

async fn members(connection: &mut PgConnection) -> Result<(Timestamp, Vec<Member>), StoreError> {
    let rows = sqlx::query(
        "SELECT id, incarnation, address, state, \
                (extract(epoch FROM lease_until - now.at) * 1000)::bigint, \
                (extract(epoch FROM now.at) * 1000)::bigint \
         FROM node, (SELECT clock_timestamp() AS at) AS now",
    )
    .fetch_all(connection)
    .await?;
    let mut now = Timestamp::default();
    let mut members = Vec::with_capacity(rows.len());
    for row in rows {
        let address: &str = row.try_get(2)?;
        let state: &str = row.try_get(3)?;
        now = Timestamp(row.try_get(5)?);
        members.push(Member {
            owner: Owner {
                node: NodeId::new(row.try_get(0)?),
                incarnation: Incarnation(row.try_get::<i32, _>(1)?.cast_unsigned()),
                address: address.into(),
            },
            state: if state == NodeState::Up.as_str() {
                NodeState::Up
            } else {
                NodeState::Draining
            },
            lease_left: Millis(row.try_get(4)?),
        });
    }
    Ok((now, members))
}

/// All shards; a row for each owner, so that little travels.
async fn shards(connection: &mut PgConnection) -> Result<Vec<Assigned>, StoreError> {
    let rows = sqlx::query(
        "SELECT owner, incarnation, array_agg(id::int), array_agg(epoch::int) \
         FROM shard GROUP BY owner, incarnation",
    )
    .fetch_all(connection)
    .await?;
    let nobody = Assigned {
        to: None,
        epoch: Epoch(0),
    };
    let mut shards = vec![nobody; usize::from(SHARDS)];
    for row in rows {
        let owner: &str = row.try_get(0)?;
        let incarnation = Incarnation(row.try_get::<i32, _>(1)?.cast_unsigned());
        let to = (!owner.is_empty()).then(|| (NodeId::new(owner), incarnation));
        let ids: Vec<i32> = row.try_get(2)?;
        let epochs: Vec<i32> = row.try_get(3)?;
        for (id, epoch) in ids.into_iter().zip(epochs) {
            if let Some(shard) = usize::try_from(id).ok().and_then(|id| shards.get_mut(id)) {
                *shard = Assigned {
                    to: to.clone(),
                    epoch: Epoch(epoch.cast_unsigned()),
                };
            }
        }
    }
    Ok(shards)
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
