//! Sessions: lines of refresh tokens, of which the newest is good.

use super::Store;
use super::accounts::StoredUser;
use crate::domain::ids::{SessionId, UserId};
use crate::domain::roles::Roles;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

/// How many sessions a user may have at a time; a further sign-in ends the
/// oldest.
pub(in crate::persistence) const SESSIONS_MAX: i64 = 100;

/// A session to begin.
#[derive(Clone, Copy, Debug)]
pub struct NewSession {
    /// Made by the caller.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// When it begins.
    pub now: Timestamp,
    /// When its first refresh token expires.
    pub expires_at: Timestamp,
}

/// What a session lets its user do, as of the same transaction.
#[derive(Clone, Copy, Debug)]
pub struct SessionGrant {
    /// Whose it is.
    pub user: UserId,
    /// What the user may do.
    pub roles: Roles,
    /// The user's `sessions_from`.
    pub sessions_from: Timestamp,
}

impl From<&StoredUser> for SessionGrant {
    fn from(user: &StoredUser) -> Self {
        Self {
            user: user.id,
            roles: user.roles,
            sessions_from: user.sessions_from,
        }
    }
}

/// How a refresh token fared.
#[derive(Clone, Copy, Debug)]
pub enum Rotation {
    /// It was the live one; the next generation is live now.
    Rotated(SessionGrant),
    /// It had been used before: its session has ended with this.
    Spent,
    /// Its session had ended or expired, or is unknown.
    Ended,
}

/// What was revoked lately.
#[derive(Clone, Debug, Default)]
pub struct RecentRevocations {
    /// Users and their `sessions_from`.
    pub users: Vec<(UserId, Timestamp)>,
    /// Sessions and when they ended.
    pub sessions: Vec<(SessionId, Timestamp)>,
}

impl Store {
    /// Begins a session of a live user, with generation 1. `None` if there is
    /// no such user. Also returns the sessions that ended to make room. On disk
    /// when this returns.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn begin_session(
        &self,
        new: NewSession,
    ) -> Result<Option<(SessionGrant, Vec<SessionId>)>, StoreError> {
        on_backend!(self, begin_session(new))
    }

    /// Uses the refresh token of this generation up, once and for all: of two
    /// calls with the same one, the second ends the session. On disk when this
    /// returns.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn rotate_session(
        &self,
        id: SessionId,
        generation: u32,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Rotation, StoreError> {
        on_backend!(self, rotate_session(id, generation, now, expires_at))
    }

    /// Ends a session. On disk when this returns.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn end_session(&self, id: SessionId, now: Timestamp) -> Result<(), StoreError> {
        on_backend!(self, end_session(id, now))
    }

    /// What was revoked after `since`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn revoked_after(&self, since: Timestamp) -> Result<RecentRevocations, StoreError> {
        on_backend!(self, revoked_after(since))
    }

    /// Removes up to `limit` sessions that expired or ended before `before`;
    /// returns how many.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn remove_old_sessions(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u64, StoreError> {
        on_backend!(self, remove_old_sessions(before, limit))
    }
}
