//! Leases and shards in Postgres.
//!
//! A heartbeat touches the node's own row alone, over a connection of its own:
//! on the fenced rows of `shard` it would wait behind open batches (1.25 s when
//! that was tried). A claim locks the shards in the order of their numbers, as
//! batches do, and so waits for the batches that are open on them; batches that
//! come later see the new epoch, and write nothing.

mod claims;

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Row as _};

pub use self::claims::Claims;
use crate::actors::ownership::Owner;
use crate::clock::{monotonic, since_boot};
use crate::domain::ids::{Epoch, Incarnation, NodeId, SHARDS};
use crate::domain::time::{Millis, Timestamp};
use crate::persistence::StoreError;
use crate::persistence::lease::{
    Assigned, LEASE_MARGIN, LEASE_TTL, Member, NodeState, Registered, View,
};

/// How long a heartbeat may take before its connection is given up.
const BEAT_MAX: Duration = Duration::from_millis(900);

/// How long a claim or a hand-over may take as a whole.
const CLAIM_MAX: Duration = Duration::from_secs(5);

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
