//! Nodes, the ownership of a lone one, and keys that never leave the store.

use std::collections::HashMap;

use sqlx::Row;

use super::PostgresStore;
use crate::domain::ids::{Epoch, SHARDS, ShardId};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::shards::Claim;

impl PostgresStore {
    pub(crate) async fn claim_all_shards(
        &self,
        node: String,
        address: String,
        now: Timestamp,
        above: Epoch,
    ) -> Result<Claim, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let alive = c.sql("SELECT max(alive_at) FROM node");
                let alive_at: Option<i64> = alive.fetch_one(c.on()).await?.try_get(0)?;
                let incarnation = c.sql(
                    "INSERT INTO node (id, incarnation, address, alive_at) VALUES ($1, 1, $2, $3) \
                     ON CONFLICT (id) DO UPDATE SET incarnation = node.incarnation + 1, \
                     address = excluded.address, alive_at = excluded.alive_at, state = 'up' \
                     RETURNING incarnation",
                );
                let incarnation: i32 = incarnation
                    .bind(&node)
                    .bind(address)
                    .bind(now.0)
                    .fetch_one(c.on())
                    .await?
                    .try_get(0)?;
                // In order of their ids, like batches lock them; `FOR UPDATE`
                // waits for those that are under way.
                c.sql("SELECT id FROM shard ORDER BY id FOR UPDATE")
                    .execute(c.on())
                    .await?;
                let last = c.sql("SELECT coalesce(max(epoch), 0) FROM shard");
                let last: i32 = last.fetch_one(c.on()).await?.try_get(0)?;
                let epoch = last.max(above.0.cast_signed()) + 1;
                let shards: Vec<i16> = (0..SHARDS).map(u16::cast_signed).collect();
                c.sql(
                    "INSERT INTO shard (id, owner, incarnation, epoch) \
                     SELECT id, $2, $3, $4 FROM unnest($1::smallint[]) AS n (id) ORDER BY id \
                     ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, \
                     incarnation = excluded.incarnation, epoch = excluded.epoch",
                )
                .bind(shards)
                .bind(node)
                .bind(incarnation)
                .bind(epoch)
                .execute(c.on())
                .await?;
                Ok(Claim {
                    epoch: Epoch(epoch.cast_unsigned()),
                    incarnation: incarnation.cast_unsigned(),
                    alive_at: alive_at.map(Timestamp),
                })
            })
        })
        .await
    }

    pub(crate) async fn epochs(&self) -> Result<HashMap<ShardId, Epoch>, StoreError> {
        self.read(|c| {
            Box::pin(async move {
                let rows = c.sql("SELECT id, epoch FROM shard");
                let rows = rows.fetch_all(c.on()).await?;
                rows.iter()
                    .map(|row| {
                        let (shard, epoch): (i16, i32) = (row.try_get(0)?, row.try_get(1)?);
                        Ok((ShardId(shard.cast_unsigned()), Epoch(epoch.cast_unsigned())))
                    })
                    .collect()
            })
        })
        .await
    }

    pub(crate) async fn signing_key(
        &self,
        purpose: &str,
    ) -> Result<Option<(String, Vec<u8>)>, StoreError> {
        let purpose = purpose.to_owned();
        self.read(move |c| {
            Box::pin(async move {
                let row = c.sql(
                    "SELECT kid, private FROM signing_key WHERE purpose = $1 \
                     ORDER BY created_at DESC LIMIT 1",
                );
                let row = row.bind(purpose).fetch_optional(c.on()).await?;
                row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                    .transpose()
            })
        })
        .await
    }

    pub(crate) async fn add_signing_key(
        &self,
        purpose: &'static str,
        kid: String,
        private: Vec<u8>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                // One at a time: of two nodes that start together, the second
                // finds the first one's.
                c.sql("LOCK TABLE signing_key IN SHARE ROW EXCLUSIVE MODE")
                    .execute(c.on())
                    .await?;
                c.sql(
                    "INSERT INTO signing_key (purpose, kid, private, created_at) \
                     SELECT $1, $2, $3, $4 \
                     WHERE NOT EXISTS (SELECT FROM signing_key WHERE purpose = $1)",
                )
                .bind(purpose)
                .bind(kid)
                .bind(private)
                .bind(now.0)
                .execute(c.on())
                .await?;
                Ok(())
            })
        })
        .await
    }

    pub(crate) async fn note_alive(&self, node: String, now: Timestamp) -> Result<(), StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                c.sql("UPDATE node SET alive_at = $2 WHERE id = $1")
                    .bind(node)
                    .bind(now.0)
                    .execute(c.on())
                    .await?;
                Ok(())
            })
        })
        .await
    }
}
