//! Users.

use super::Store;
use crate::domain::ids::UserId;
use crate::domain::roles::Roles;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

/// A user to be made.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Made by the caller.
    pub id: UserId,
    /// Normalised.
    pub email: String,
    /// As shown to others.
    pub name: String,
    /// PHC string.
    pub password_hash: String,
    /// What the account may do.
    pub roles: Roles,
    /// When it is made.
    pub created_at: Timestamp,
}

/// A stored user.
#[derive(Clone, Debug)]
pub struct StoredUser {
    /// Its id.
    pub id: UserId,
    /// Normalised; an erased user has none that anybody could sign in with.
    pub email: String,
    /// As shown to others.
    pub name: String,
    /// PHC string; empty for an erased user.
    pub password_hash: String,
    /// What the account may do.
    pub roles: Roles,
    /// When it was made.
    pub created_at: Timestamp,
    /// Tokens granted before this are dead.
    pub sessions_from: Timestamp,
    /// When it was deleted or erased, if it was.
    pub deleted_at: Option<Timestamp>,
}

/// How a change of roles went.
#[derive(Clone, Debug)]
pub struct RolesSet {
    /// The user after it.
    pub user: StoredUser,
    /// Whether the roles are others than before, so that the sessions ended.
    pub changed: bool,
}

impl Store {
    /// Makes a user. On disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::Constraint`] of [`EMAIL_IS_UNIQUE`](crate::persistence::constraints::EMAIL_IS_UNIQUE) if there is one with
    /// this e-mail.
    pub async fn insert_user(&self, user: NewUser) -> Result<(), StoreError> {
        on_backend!(self, insert_user(user))
    }

    /// Makes many users, some thousands a statement, in one transaction; skips
    /// those whose e-mail has an account. Returns how many were made.
    ///
    /// # Errors
    /// Those of the store; none was made then.
    pub async fn insert_users(&self, users: Vec<NewUser>) -> Result<u64, StoreError> {
        on_backend!(self, insert_users(users))
    }

    /// The user with this id, also a deleted one.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn user(&self, id: UserId) -> Result<Option<StoredUser>, StoreError> {
        on_backend!(self, user(id))
    }

    /// The live user with this e-mail.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<StoredUser>, StoreError> {
        on_backend!(self, user_by_email(email))
    }

    /// The ids of the live users with these e-mails, by e-mail.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn user_ids_by_email(
        &self,
        emails: &[String],
    ) -> Result<Vec<(String, UserId)>, StoreError> {
        on_backend!(self, user_ids_by_email(emails))
    }

    /// Users with an id above `after`, in the order of their ids, live and
    /// deleted; all with `email` if it is given.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn users(
        &self,
        email: Option<&str>,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<StoredUser>, StoreError> {
        on_backend!(self, users(email, after, limit))
    }

    /// Renames a live user; `None` if there is none. On disk when this returns.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn rename_user(
        &self,
        id: UserId,
        name: String,
    ) -> Result<Option<StoredUser>, StoreError> {
        on_backend!(self, rename_user(id, name))
    }

    /// Gives a live user these roles and, if they are others than before, ends
    /// all sessions; `None` if there is no such user. On disk when this returns.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn set_roles(
        &self,
        id: UserId,
        roles: Roles,
        now: Timestamp,
    ) -> Result<Option<RolesSet>, StoreError> {
        on_backend!(self, set_roles(id, roles, now))
    }

    /// Deletes a live user so that [`Self::restore_user`] can undo it, and ends
    /// all sessions; `None` if there is no such user. On disk when this returns.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn delete_user(
        &self,
        id: UserId,
        now: Timestamp,
    ) -> Result<Option<StoredUser>, StoreError> {
        on_backend!(self, delete_user(id, now))
    }

    /// Overwrites what says who a live user is (e-mail, name, password) and
    /// ends all sessions; orders and money stay. Nothing undoes it. `None` if
    /// there is no such user. On disk when this returns.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn erase_user(
        &self,
        id: UserId,
        now: Timestamp,
    ) -> Result<Option<StoredUser>, StoreError> {
        on_backend!(self, erase_user(id, now))
    }

    /// Undoes [`Self::delete_user`]; the sessions stay ended. A user who was
    /// not deleted is returned as it is; `None` for an erased or unknown one.
    ///
    /// # Errors
    /// [`StoreError::Constraint`] of [`EMAIL_IS_UNIQUE`](crate::persistence::constraints::EMAIL_IS_UNIQUE) if somebody has signed
    /// up with this e-mail since.
    pub async fn restore_user(&self, id: UserId) -> Result<Option<StoredUser>, StoreError> {
        on_backend!(self, restore_user(id))
    }
}
