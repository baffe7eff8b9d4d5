//! Ownership on one machine: the node takes all shards at each start, with a
//! new epoch, so that nothing of an earlier process can still be written.

use std::collections::HashMap;

use sqlx::Row;

use super::SqliteStore;
use super::rows::json;
use crate::domain::ids::{Epoch, SHARDS, ShardId};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::shards::Claim;

impl SqliteStore {
    pub(crate) async fn claim_all_shards(
        &self,
        node: String,
        address: String,
        now: Timestamp,
        above: Epoch,
    ) -> Result<Claim, StoreError> {
        self.transaction(move |connection| {
            Box::pin(async move {
                let alive_at: Option<i64> = sqlx::query("SELECT max(alive_at) FROM node")
                    .fetch_one(&mut *connection)
                    .await?
                    .try_get(0)?;
                let incarnation: u32 = sqlx::query(
                    "INSERT INTO node (id, incarnation, address, alive_at) VALUES (?1, 1, ?2, ?3) \
                     ON CONFLICT (id) DO UPDATE SET incarnation = incarnation + 1, \
                     address = excluded.address, alive_at = excluded.alive_at \
                     RETURNING incarnation",
                )
                .bind(&node)
                .bind(address)
                .bind(now.0)
                .fetch_one(&mut *connection)
                .await?
                .try_get(0)?;
                let last: Option<u32> = sqlx::query("SELECT max(epoch) FROM shard")
                    .fetch_one(&mut *connection)
                    .await?
                    .try_get(0)?;
                let epoch = last.unwrap_or(0).max(above.0) + 1;
                let shards: Vec<u16> = (0..SHARDS).collect();
                sqlx::query(
                    "INSERT INTO shard (id, owner, incarnation, epoch) \
                     SELECT value, ?2, ?3, ?4 FROM json_each(?1) WHERE true \
                     ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, \
                     incarnation = excluded.incarnation, epoch = excluded.epoch",
                )
                .bind(json(&shards)?)
                .bind(node)
                .bind(incarnation)
                .bind(epoch)
                .execute(&mut *connection)
                .await?;
                Ok(Claim {
                    epoch: Epoch(epoch),
                    incarnation,
                    alive_at: alive_at.map(Timestamp),
                })
            })
        })
        .await
    }

    pub(crate) async fn epochs(&self) -> Result<HashMap<ShardId, Epoch>, StoreError> {
        let rows = sqlx::query("SELECT id, epoch FROM shard")
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| Ok((ShardId(row.try_get(0)?), Epoch(row.try_get(1)?))))
            .collect()
    }

    pub(crate) async fn signing_key(
        &self,
        purpose: &str,
    ) -> Result<Option<(String, Vec<u8>)>, StoreError> {
        let row = sqlx::query(
            "SELECT kid, private FROM signing_key WHERE purpose = ?1 \
             ORDER BY created_at DESC LIMIT 1",
        )
        .bind(purpose)
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .transpose()
    }

    pub(crate) async fn add_signing_key(
        &self,
        purpose: &'static str,
        kid: String,
        private: Vec<u8>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO signing_key (purpose, kid, private, created_at) \
                     SELECT ?1, ?2, ?3, ?4 \
                     WHERE NOT EXISTS (SELECT 1 FROM signing_key WHERE purpose = ?1)",
                )
                .bind(purpose)
                .bind(kid)
                .bind(private)
                .bind(now.0)
                .execute(connection)
                .await?;
                Ok(())
            })
        })
        .await
    }

    pub(crate) async fn note_alive(&self, node: String, now: Timestamp) -> Result<(), StoreError> {
        self.transaction(move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE node SET alive_at = ?2 WHERE id = ?1")
                    .bind(node)
                    .bind(now.0)
                    .execute(connection)
                    .await?;
                Ok(())
            })
        })
        .await
    }
}
