//! Users, and below them their sessions.
//!
//! Every write is one transaction of the store's single writing connection, so
//! that reading a user's roles and granting a session by them can't be torn
//! apart by a change of the roles.

mod sessions;

use serde::Serialize;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::SqliteStore;
use crate::domain::ids::UserId;
use crate::domain::roles::Roles;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::accounts::{NewUser, RolesSet, StoredUser};
use crate::persistence::store::export::PersonalRows;
use crate::persistence::stored::entities as stored;
use crate::persistence::stored::export::personal_rows;

/// How many users one statement of [`SqliteStore::insert_users`] inserts.
const INSERT_ROWS_MAX: usize = 2_000;

impl SqliteStore {
    pub(crate) async fn insert_user(&self, user: NewUser) -> Result<(), StoreError> {
        let rows = as_json(std::slice::from_ref(&user))?;
        self.transaction(move |c| {
            Box::pin(async move {
                sqlx::query(INSERT_USERS).bind(rows).execute(c).await?;
                Ok(())
            })
        })
        .await
    }

    pub(crate) async fn insert_users(&self, users: Vec<NewUser>) -> Result<u64, StoreError> {
        let chunks: Vec<String> = users
            .chunks(INSERT_ROWS_MAX)
            .map(as_json)
            .collect::<Result<_, _>>()?;
        self.transaction(move |c| {
            Box::pin(async move {
                let mut made = 0;
                for rows in chunks {
                    let sql = INSERT_USERS_OR_SKIP;
                    made += sqlx::query(sql)
                        .bind(rows)
                        .execute(&mut *c)
                        .await?
                        .rows_affected();
                }
                Ok(made)
            })
        })
        .await
    }

    pub(crate) async fn personal_rows(&self, user: UserId) -> Result<PersonalRows, StoreError> {
        self.load(move |c| Box::pin(personal_rows(c, user))).await
    }

    pub(crate) async fn user(&self, id: UserId) -> Result<Option<StoredUser>, StoreError> {
        let row = sqlx::query("SELECT * FROM user WHERE id = ?").bind(id.0);
        row.fetch_optional(&self.readers)
            .await?
            .as_ref()
            .map(stored::user)
            .transpose()
    }

    pub(crate) async fn user_by_email(
        &self,
        email: &str,
    ) -> Result<Option<StoredUser>, StoreError> {
        let row =
            sqlx::query("SELECT * FROM user WHERE email = ? AND deleted_at IS NULL").bind(email);
        row.fetch_optional(&self.readers)
            .await?
            .as_ref()
            .map(stored::user)
            .transpose()
    }

    pub(crate) async fn user_ids_by_email(
        &self,
        emails: &[String],
    ) -> Result<Vec<(String, UserId)>, StoreError> {
        let emails = serde_json::to_string(emails).map_err(unreadable)?;
        let rows = sqlx::query_as(
            "SELECT email, id FROM user
             WHERE email IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL",
        )
        .bind(emails)
        .fetch_all(&self.readers)
        .await?;
        Ok(rows
            .into_iter()
            .map(|(email, id)| (email, UserId(id)))
            .collect())
    }

    pub(crate) async fn users(
        &self,
        email: Option<&str>,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<StoredUser>, StoreError> {
        let after = after.map_or(Uuid::nil(), |id| id.0);
        let query = match email {
            Some(email) => {
                sqlx::query("SELECT * FROM user WHERE email = ? AND id > ? ORDER BY id LIMIT ?")
                    .bind(email)
            }
            None => sqlx::query("SELECT * FROM user WHERE id > ? ORDER BY id LIMIT ?"),
        };
        let rows = query
            .bind(after)
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(stored::user).collect()
    }

    pub(crate) async fn rename_user(
        &self,
        id: UserId,
        name: String,
    ) -> Result<Option<StoredUser>, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let sql =
                    "UPDATE user SET name = ? WHERE id = ? AND deleted_at IS NULL RETURNING *";
                let row = sqlx::query(sql)
                    .bind(name)
                    .bind(id.0)
                    .fetch_optional(c)
                    .await?;
                row.as_ref().map(stored::user).transpose()
            })
        })
        .await
    }

    pub(crate) async fn set_roles(
        &self,
        id: UserId,
        roles: Roles,
        now: Timestamp,
    ) -> Result<Option<RolesSet>, StoreError> {
        let text = serde_json::to_string(&roles).map_err(unreadable)?;
        self.transaction(move |c| {
            Box::pin(async move {
                let Some(user) = live_user(c, id).await? else {
                    return Ok(None);
                };
                if user.roles == roles {
                    return Ok(Some(RolesSet {
                        user,
                        changed: false,
                    }));
                }
                let row = sqlx::query(
                    "UPDATE user SET roles = ?, sessions_from = max(?, sessions_from + 1)
                     WHERE id = ? RETURNING *",
                )
                .bind(text)
                .bind(now.0)
                .bind(id.0)
                .fetch_one(&mut *c)
                .await?;
                end_sessions(c, id, now).await?;
                Ok(Some(RolesSet {
                    user: stored::user(&row)?,
                    changed: true,
                }))
            })
        })
        .await
    }

    pub(crate) async fn delete_user(
        &self,
        id: UserId,
        now: Timestamp,
    ) -> Result<Option<StoredUser>, StoreError> {
        self.end_user(
            "UPDATE user SET deleted_at = ?1, sessions_from = max(?1, sessions_from + 1)
             WHERE id = ?2 AND deleted_at IS NULL RETURNING *",
            id,
            now,
        )
        .await
    }

    pub(crate) async fn erase_user(
        &self,
        id: UserId,
        now: Timestamp,
    ) -> Result<Option<StoredUser>, StoreError> {
        self.end_user(
            "UPDATE user SET deleted_at = ?1, sessions_from = max(?1, sessions_from + 1),
                    email = 'deleted-' || lower(hex(id)), name = 'deleted', password_hash = ''
             WHERE id = ?2 AND deleted_at IS NULL RETURNING *",
            id,
            now,
        )
        .await
    }

    async fn end_user(
        &self,
        sql: &'static str,
        id: UserId,
        now: Timestamp,
    ) -> Result<Option<StoredUser>, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let row = sqlx::query(sql)
                    .bind(now.0)
                    .bind(id.0)
                    .fetch_optional(&mut *c)
                    .await?;
                end_sessions(c, id, now).await?;
                row.as_ref().map(stored::user).transpose()
            })
        })
        .await
    }

    pub(crate) async fn restore_user(&self, id: UserId) -> Result<Option<StoredUser>, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let sql = "UPDATE user SET deleted_at = NULL
                           WHERE id = ? AND password_hash <> '' RETURNING *";
                let row = sqlx::query(sql).bind(id.0).fetch_optional(c).await?;
                row.as_ref().map(stored::user).transpose()
            })
        })
        .await
    }
}

const INSERT_USERS: &str =
    "INSERT INTO user (id, email, name, password_hash, roles, created_at, sessions_from)
     SELECT unhex(value ->> 'id'), value ->> 'email', value ->> 'name', value ->> 'password_hash',
            value ->> 'roles', value ->> 'created_at', value ->> 'created_at'
     FROM json_each(?)";

const INSERT_USERS_OR_SKIP: &str =
    "INSERT INTO user (id, email, name, password_hash, roles, created_at, sessions_from)
     SELECT unhex(value ->> 'id'), value ->> 'email', value ->> 'name', value ->> 'password_hash',
            value ->> 'roles', value ->> 'created_at', value ->> 'created_at'
     FROM json_each(?) WHERE true
     ON CONFLICT DO NOTHING";

/// The rows of the statements above.
fn as_json(users: &[NewUser]) -> Result<String, StoreError> {
    #[derive(Serialize)]
    struct Row<'a> {
        id: String,
        email: &'a str,
        name: &'a str,
        password_hash: &'a str,
        roles: Roles,
        created_at: i64,
    }
    let rows: Vec<Row<'_>> = users
        .iter()
        .map(|user| Row {
            id: user.id.0.simple().to_string(),
            email: &user.email,
            name: &user.name,
            password_hash: &user.password_hash,
            roles: user.roles,
            created_at: user.created_at.0,
        })
        .collect();
    serde_json::to_string(&rows).map_err(unreadable)
}

async fn live_user(c: &mut SqliteConnection, id: UserId) -> Result<Option<StoredUser>, StoreError> {
    let query = sqlx::query("SELECT * FROM user WHERE id = ? AND deleted_at IS NULL").bind(id.0);
    query
        .fetch_optional(c)
        .await?
        .as_ref()
        .map(stored::user)
        .transpose()
}

async fn end_sessions(
    c: &mut SqliteConnection,
    user: UserId,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE session SET ended_at = ? WHERE user_id = ? AND ended_at IS NULL")
        .bind(now.0)
        .bind(user.0)
        .execute(c)
        .await?;
    Ok(())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err takes"
)]
fn unreadable(error: serde_json::Error) -> StoreError {
    StoreError::Unreadable(error.to_string())
}
