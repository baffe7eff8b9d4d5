//! Sessions: lines of refresh tokens, of which the newest is good.

use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::super::SqliteStore;
use super::live_user;
use crate::domain::ids::{SessionId, UserId};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::sessions::{
    NewSession, RecentRevocations, Rotation, SESSIONS_MAX, SessionGrant,
};

impl SqliteStore {
    pub(crate) async fn begin_session(
        &self,
        new: NewSession,
    ) -> Result<Option<(SessionGrant, Vec<SessionId>)>, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let Some(user) = live_user(c, new.user).await? else {
                    return Ok(None);
                };
                sqlx::query(
                    "INSERT INTO session (id, user_id, generation, created_at, expires_at)
                     VALUES (?, ?, 1, ?, ?)",
                )
                .bind(new.id.0)
                .bind(new.user.0)
                .bind(new.now.0)
                .bind(new.expires_at.0)
                .execute(&mut *c)
                .await?;
                let ended = end_oldest_sessions(c, new.user, new.now).await?;
                Ok(Some((SessionGrant::from(&user), ended)))
            })
        })
        .await
    }

    pub(crate) async fn rotate_session(
        &self,
        id: SessionId,
        generation: u32,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Rotation, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let rotated: Option<Uuid> = sqlx::query_scalar(
                    "UPDATE session SET generation = generation + 1, expires_at = ?1
                     WHERE id = ?2 AND generation = ?3 AND ended_at IS NULL AND expires_at > ?4
                     RETURNING user_id",
                )
                .bind(expires_at.0)
                .bind(id.0)
                .bind(generation)
                .bind(now.0)
                .fetch_optional(&mut *c)
                .await?;
                if let Some(user) = rotated {
                    // A deleted user's sessions have ended, so this finds one.
                    let user = live_user(c, UserId(user)).await?;
                    return Ok(user.map_or(Rotation::Ended, |user| {
                        Rotation::Rotated(SessionGrant::from(&user))
                    }));
                }
                let spent = sqlx::query(
                    "UPDATE session SET ended_at = ?
                     WHERE id = ? AND generation > ? AND ended_at IS NULL",
                )
                .bind(now.0)
                .bind(id.0)
                .bind(generation)
                .execute(c)
                .await?;
                Ok(if spent.rows_affected() > 0 {
                    Rotation::Spent
                } else {
                    Rotation::Ended
                })
            })
        })
        .await
    }

    pub(crate) async fn end_session(
        &self,
        id: SessionId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                sqlx::query("UPDATE session SET ended_at = ? WHERE id = ? AND ended_at IS NULL")
                    .bind(now.0)
                    .bind(id.0)
                    .execute(c)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    pub(crate) async fn revoked_after(
        &self,
        since: Timestamp,
    ) -> Result<RecentRevocations, StoreError> {
        // The conditions repeat those of the partial indexes.
        let users: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT id, sessions_from FROM user WHERE sessions_from > ? AND sessions_from > created_at",
        )
        .bind(since.0)
        .fetch_all(&self.readers)
        .await?;
        let sessions: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT id, ended_at FROM session WHERE ended_at > ? AND ended_at IS NOT NULL",
        )
        .bind(since.0)
        .fetch_all(&self.readers)
        .await?;
        Ok(RecentRevocations {
            users: users
                .into_iter()
                .map(|(id, from)| (UserId(id), Timestamp(from)))
                .collect(),
            sessions: sessions
                .into_iter()
                .map(|(id, at)| (SessionId(id), Timestamp(at)))
                .collect(),
        })
    }

    pub(crate) async fn remove_old_sessions(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let removed = sqlx::query(
                    "DELETE FROM session WHERE id IN (
                         SELECT id FROM (SELECT id FROM session WHERE expires_at < ?1 LIMIT ?2)
                         UNION
                         SELECT id FROM (SELECT id FROM session
                                         WHERE ended_at < ?1 AND ended_at IS NOT NULL LIMIT ?2)
                         LIMIT ?2)",
                )
                .bind(before.0)
                .bind(limit)
                .execute(c)
                .await?;
                Ok(removed.rows_affected())
            })
        })
        .await
    }
}

async fn end_oldest_sessions(
    c: &mut SqliteConnection,
    user: UserId,
    now: Timestamp,
) -> Result<Vec<SessionId>, StoreError> {
    let ended: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE session SET ended_at = ?1 WHERE id IN (
             SELECT id FROM session WHERE user_id = ?2 AND ended_at IS NULL
             ORDER BY id DESC LIMIT -1 OFFSET ?3)
         RETURNING id",
    )
    .bind(now.0)
    .bind(user.0)
    .bind(SESSIONS_MAX)
    .fetch_all(c)
    .await?;
    Ok(ended.into_iter().map(SessionId).collect())
}
