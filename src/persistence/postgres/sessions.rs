//! Sessions: lines of refresh tokens, of which the newest is good.

use sqlx::Row;
use uuid::Uuid;

use super::accounts::locked_user;
use super::{Link, PostgresStore};
use crate::domain::ids::{SessionId, UserId};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::sessions::{
    NewSession, RecentRevocations, Rotation, SESSIONS_MAX, SessionGrant,
};

impl PostgresStore {
    pub(crate) async fn begin_session(
        &self,
        new: NewSession,
    ) -> Result<Option<(SessionGrant, Vec<SessionId>)>, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                // Locked: a change of the roles, or the end of the user, comes
                // wholly before this session or wholly after it.
                let Some(user) = locked_user(c, new.user).await? else {
                    return Ok(None);
                };
                c.sql(
                    "INSERT INTO session (id, user_id, generation, created_at, expires_at) \
                     VALUES ($1, $2, 1, $3, $4)",
                )
                .bind(new.id.0)
                .bind(new.user.0)
                .bind(new.now.0)
                .bind(new.expires_at.0)
                .execute(c.on())
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
        let generation = i32::try_from(generation).unwrap_or(i32::MAX);
        self.transaction(move |c| {
            Box::pin(async move {
                // The user first, then the session: the order of those who end
                // all sessions of a user.
                let of = c.sql("SELECT user_id FROM session WHERE id = $1");
                let Some(of) = of.bind(id.0).fetch_optional(c.on()).await? else {
                    return Ok(Rotation::Ended);
                };
                let user = locked_user(c, UserId(of.try_get(0)?)).await?;
                let rotated = c.sql(
                    "UPDATE session SET generation = generation + 1, expires_at = $1 \
                     WHERE id = $2 AND generation = $3 AND ended_at IS NULL AND expires_at > $4",
                );
                let rotated = rotated
                    .bind(expires_at.0)
                    .bind(id.0)
                    .bind(generation)
                    .bind(now.0)
                    .execute(c.on())
                    .await?;
                if rotated.rows_affected() > 0 {
                    // A deleted user's sessions have ended, so there is one.
                    let grant = user.as_ref().map(SessionGrant::from);
                    return Ok(grant.map_or(Rotation::Ended, Rotation::Rotated));
                }
                let spent = c.sql(
                    "UPDATE session SET ended_at = $1 \
                     WHERE id = $2 AND generation > $3 AND ended_at IS NULL",
                );
                let spent = spent
                    .bind(now.0)
                    .bind(id.0)
                    .bind(generation)
                    .execute(c.on())
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
                c.sql("UPDATE session SET ended_at = $1 WHERE id = $2 AND ended_at IS NULL")
                    .bind(now.0)
                    .bind(id.0)
                    .execute(c.on())
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
        self.read(move |c| {
            Box::pin(async move {
                // The conditions repeat those of the partial indexes.
                let users = c.sql(
                    "SELECT id, sessions_from FROM \"user\" \
                     WHERE sessions_from > $1 AND sessions_from > created_at",
                );
                let users = users.bind(since.0).fetch_all(c.on()).await?;
                let sessions = c.sql(
                    "SELECT id, ended_at FROM session \
                     WHERE ended_at > $1 AND ended_at IS NOT NULL",
                );
                let sessions = sessions.bind(since.0).fetch_all(c.on()).await?;
                Ok(RecentRevocations {
                    users: users
                        .iter()
                        .map(|row| Ok((UserId(row.try_get(0)?), Timestamp(row.try_get(1)?))))
                        .collect::<Result<_, StoreError>>()?,
                    sessions: sessions
                        .iter()
                        .map(|row| Ok((SessionId(row.try_get(0)?), Timestamp(row.try_get(1)?))))
                        .collect::<Result<_, StoreError>>()?,
                })
            })
        })
        .await
    }

    pub(crate) async fn remove_old_sessions(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                // Whom somebody else removes or uses just now is left to them.
                let removed = c.sql(
                    "DELETE FROM session WHERE id IN ( \
                         SELECT id FROM session \
                         WHERE expires_at < $1 OR (ended_at < $1 AND ended_at IS NOT NULL) \
                         ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)",
                );
                let removed = removed
                    .bind(before.0)
                    .bind(i64::from(limit))
                    .execute(c.on())
                    .await?;
                Ok(removed.rows_affected())
            })
        })
        .await
    }
}

async fn end_oldest_sessions(
    c: &mut Link,
    user: UserId,
    now: Timestamp,
) -> Result<Vec<SessionId>, StoreError> {
    let ended = c.sql(
        "UPDATE session SET ended_at = $1 WHERE id IN ( \
             SELECT id FROM session WHERE user_id = $2 AND ended_at IS NULL \
             ORDER BY id DESC OFFSET $3) \
         RETURNING id",
    );
    let ended = ended
        .bind(now.0)
        .bind(user.0)
        .bind(SESSIONS_MAX)
        .fetch_all(c.on())
        .await?;
    ended
        .iter()
        .map(|row| Ok(SessionId(row.try_get::<Uuid, _>(0)?)))
        .collect()
}
