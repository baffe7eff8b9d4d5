//! Users.

use sqlx::Row;
use uuid::Uuid;

use super::{Link, PostgresStore};
use crate::domain::ids::UserId;
use crate::domain::roles::Roles;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::accounts::{NewUser, RolesSet, StoredUser};
use crate::persistence::store::export::PersonalRows;
use crate::persistence::stored::entities as stored;
use crate::persistence::stored::export::personal_rows;

/// How many users one statement of [`PostgresStore::insert_users`] inserts.
const INSERT_ROWS_MAX: usize = 2_000;

/// The columns of a stored user.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, email, name, password_hash, roles, created_at, sessions_from, deleted_at \
             FROM \"user\" ",
            $rest
        )
    };
}

/// A change of one user that returns it.
macro_rules! update {
    ($rest:literal) => {
        concat!(
            "UPDATE \"user\" SET ",
            $rest,
            " RETURNING id, email, name, password_hash, roles, created_at, sessions_from, \
              deleted_at"
        )
    };
}

impl PostgresStore {
    pub(crate) async fn insert_user(&self, user: NewUser) -> Result<(), StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                insert(c, INSERT_USERS, std::slice::from_ref(&user)).await?;
                Ok(())
            })
        })
        .await
    }

    pub(crate) async fn insert_users(&self, users: Vec<NewUser>) -> Result<u64, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let mut made = 0;
                for chunk in users.chunks(INSERT_ROWS_MAX) {
                    made += insert(c, INSERT_USERS_OR_SKIP, chunk).await?;
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
        self.read(move |c| {
            Box::pin(async move {
                let row = c.sql(select!("WHERE id = $1")).bind(id.0);
                let row = row.fetch_optional(c.on()).await?;
                row.as_ref().map(stored::user).transpose()
            })
        })
        .await
    }

    pub(crate) async fn user_by_email(
        &self,
        email: &str,
    ) -> Result<Option<StoredUser>, StoreError> {
        let email = email.to_owned();
        self.read(move |c| {
            Box::pin(async move {
                let sql = select!("WHERE email = $1 AND deleted_at IS NULL");
                let row = c.sql(sql).bind(email).fetch_optional(c.on()).await?;
                row.as_ref().map(stored::user).transpose()
            })
        })
        .await
    }

    pub(crate) async fn user_ids_by_email(
        &self,
        emails: &[String],
    ) -> Result<Vec<(String, UserId)>, StoreError> {
        let emails = emails.to_vec();
        self.read(move |c| {
            Box::pin(async move {
                let sql = "SELECT email, id FROM \"user\" \
                           WHERE email = ANY($1) AND deleted_at IS NULL";
                let rows = c.sql(sql).bind(emails).fetch_all(c.on()).await?;
                rows.iter()
                    .map(|row| Ok((row.try_get(0)?, UserId(row.try_get(1)?))))
                    .collect()
            })
        })
        .await
    }

    pub(crate) async fn users(
        &self,
        email: Option<&str>,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<StoredUser>, StoreError> {
        let after = after.map_or(Uuid::nil(), |id| id.0);
        let email = email.map(ToOwned::to_owned);
        self.read(move |c| {
            Box::pin(async move {
                let query = match email {
                    Some(email) => c
                        .sql(select!("WHERE id > $1 AND email = $3 ORDER BY id LIMIT $2"))
                        .bind(after)
                        .bind(i64::from(limit))
                        .bind(email),
                    None => c
                        .sql(select!("WHERE id > $1 ORDER BY id LIMIT $2"))
                        .bind(after)
                        .bind(i64::from(limit)),
                };
                let rows = query.fetch_all(c.on()).await?;
                rows.iter().map(stored::user).collect()
            })
        })
        .await
    }

    pub(crate) async fn rename_user(
        &self,
        id: UserId,
        name: String,
    ) -> Result<Option<StoredUser>, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let sql = update!("name = $1 WHERE id = $2 AND deleted_at IS NULL");
                let row = c.sql(sql).bind(name).bind(id.0);
                let row = row.fetch_optional(c.on()).await?;
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
                let Some(user) = locked_user(c, id).await? else {
                    return Ok(None);
                };
                if user.roles == roles {
                    return Ok(Some(RolesSet {
                        user,
                        changed: false,
                    }));
                }
                let sql = update!(
                    "roles = $1, sessions_from = greatest($2, sessions_from + 1) WHERE id = $3"
                );
                let row = c.sql(sql).bind(text).bind(now.0).bind(id.0);
                let row = row.fetch_one(c.on()).await?;
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
            update!(
                "deleted_at = $1, sessions_from = greatest($1, sessions_from + 1) \
                 WHERE id = $2 AND deleted_at IS NULL"
            ),
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
            update!(
                "deleted_at = $1, sessions_from = greatest($1, sessions_from + 1), \
                 email = 'deleted-' || replace(CAST(id AS text), '-', ''), name = 'deleted', \
                 password_hash = '' WHERE id = $2 AND deleted_at IS NULL"
            ),
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
                let row = c.sql(sql).bind(now.0).bind(id.0);
                let row = row.fetch_optional(c.on()).await?;
                end_sessions(c, id, now).await?;
                row.as_ref().map(stored::user).transpose()
            })
        })
        .await
    }

    pub(crate) async fn restore_user(&self, id: UserId) -> Result<Option<StoredUser>, StoreError> {
        self.transaction(move |c| {
            Box::pin(async move {
                let sql = update!("deleted_at = NULL WHERE id = $1 AND password_hash <> ''");
                let row = c.sql(sql).bind(id.0).fetch_optional(c.on()).await?;
                row.as_ref().map(stored::user).transpose()
            })
        })
        .await
    }
}

/// The columns that [`insert`] binds.
macro_rules! insert_users {
    ($rest:literal) => {
        concat!(
            "INSERT INTO \"user\" \
               (id, email, name, password_hash, roles, created_at, sessions_from) \
             SELECT id, email, name, password_hash, roles, at, at \
             FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[]) \
               AS n (id, email, name, password_hash, roles, at)",
            $rest
        )
    };
}

const INSERT_USERS: &str = insert_users!("");
const INSERT_USERS_OR_SKIP: &str = insert_users!(" ON CONFLICT DO NOTHING");

/// Returns how many were made.
async fn insert(c: &mut Link, sql: &'static str, users: &[NewUser]) -> Result<u64, StoreError> {
    let roles: Vec<String> = users
        .iter()
        .map(|user| serde_json::to_string(&user.roles).map_err(unreadable))
        .collect::<Result<_, _>>()?;
    let texts = |of: fn(&NewUser) -> &str| users.iter().map(of).collect::<Vec<&str>>();
    let done = c
        .sql(sql)
        .bind(users.iter().map(|user| user.id.0).collect::<Vec<_>>())
        .bind(texts(|user| &user.email))
        .bind(texts(|user| &user.name))
        .bind(texts(|user| &user.password_hash))
        .bind(roles)
        .bind(
            users
                .iter()
                .map(|user| user.created_at.0)
                .collect::<Vec<_>>(),
        )
        .execute(c.on())
        .await?;
    Ok(done.rows_affected())
}

/// A live user, whose roles stay as they are until the end of the transaction.
pub(super) async fn locked_user(
    c: &mut Link,
    id: UserId,
) -> Result<Option<StoredUser>, StoreError> {
    let sql = select!("WHERE id = $1 AND deleted_at IS NULL FOR UPDATE");
    let row = c.sql(sql).bind(id.0).fetch_optional(c.on()).await?;
    row.as_ref().map(stored::user).transpose()
}

async fn end_sessions(c: &mut Link, user: UserId, now: Timestamp) -> Result<(), StoreError> {
    c.sql("UPDATE session SET ended_at = $1 WHERE user_id = $2 AND ended_at IS NULL")
        .bind(now.0)
        .bind(user.0)
        .execute(c.on())
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
