//! Accounts, sessions and tokens: what the routes ask for.

use uuid::Uuid;

use super::fields::{Email, NewPassword, PersonName};
use super::refresh_token::RefreshToken;
use crate::clock::Clock;
use crate::domain::ids::{SessionId, UserId};
use crate::domain::roles::Roles;
use crate::domain::time::{Millis, Timestamp};
use crate::http::failed_sign_ins::{FailedSignIns, TooManyFailures};
use crate::http::password::{PasswordError, PasswordPool};
use crate::http::tokens::{AccessTokens, Grant, Identity, Lasting, TokenRefusal};
use crate::keys::Keys;
use crate::persistence::constraints::EMAIL_IS_UNIQUE;
use crate::persistence::store::accounts::{NewUser, StoredUser};
use crate::persistence::store::export::PersonalRows;
use crate::persistence::store::sessions::{NewSession, Rotation, SessionGrant};
use crate::persistence::{Store, StoreError};

/// How many old sessions one sweep removes at most.
const SWEEP_SESSIONS_MAX: u32 = 5_000;

/// What the operator decides about accounts.
#[derive(Clone, Copy, Debug)]
pub struct AccountsOptions {
    /// How long an access token lives.
    pub access_ttl: Millis,
    /// How long a refresh token lives; each use gives a new one.
    pub refresh_ttl: Millis,
    /// How many passwords are hashed at a time.
    pub hashing_threads: usize,
    /// How many callers wait for that at most.
    pub hashing_line_max: usize,
}

impl From<&crate::config::Auth> for AccountsOptions {
    /// `hashing_threads = 0` is half of the processors, at least one: the rest
    /// is for those who are signed in.
    fn from(config: &crate::config::Auth) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let hashing_threads = match config.hashing_threads {
            0 => (processors / 2).max(1),
            threads => threads as usize,
        };
        Self {
            access_ttl: Millis::from_secs(config.access_ttl_seconds),
            refresh_ttl: Millis::from_secs(config.refresh_ttl_seconds),
            hashing_threads,
            hashing_line_max: config.hashing_line_max as usize,
        }
    }
}

/// Why a call on accounts was not done.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// A live account has this e-mail.
    #[error("the e-mail is taken")]
    EmailTaken,
    /// No live account has this e-mail and this password.
    #[error("the e-mail or the password is wrong")]
    BadCredentials,
    /// Too many sign-ins for this e-mail have failed.
    #[error("too many sign-ins have failed")]
    TooManyFailures(TooManyFailures),
    /// The refresh token was not signed by this server.
    #[error("the refresh token is not valid")]
    NotARefreshToken,
    /// The refresh token was used before, has expired, or its session ended.
    #[error("the session has ended")]
    SessionRevoked,
    /// No live account has this id.
    #[error("there is no such user")]
    UnknownUser,
    /// A field may not have this value (which only the command line and the
    /// environment can cause here: the routes check first).
    #[error("{0}")]
    Invalid(&'static str),
    /// The password could not be hashed or compared.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Constraint { constraint } if constraint == EMAIL_IS_UNIQUE => {
                Self::EmailTaken
            }
            other => Self::Store(other),
        }
    }
}

impl From<TooManyFailures> for AccountError {
    fn from(refused: TooManyFailures) -> Self {
        Self::TooManyFailures(refused)
    }
}

/// The two tokens of a session.
#[derive(Clone, Debug)]
pub struct TokenPair {
    /// The JWT.
    pub access_token: String,
    /// Good once.
    pub refresh_token: String,
    /// How long the access token lives.
    pub expires_in: Millis,
}

/// Accounts, their sessions and their tokens.
#[derive(Debug)]
pub struct Accounts {
    pub(super) store: Store,
    keys: Keys,
    clock: Clock,
    tokens: AccessTokens,
    refresh_ttl: Millis,
    pub(super) passwords: PasswordPool,
    failed: FailedSignIns,
}

impl Accounts {
    /// Reads which tokens were revoked while they would still be good.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open(
        store: Store,
        keys: Keys,
        clock: Clock,
        options: &AccountsOptions,
    ) -> Result<Self, StoreError> {
        let tokens = AccessTokens::new(&keys, options.access_ttl);
        let since = tokens.revocations_matter_after(clock.now());
        let accounts = Self {
            store,
            keys,
            clock,
            tokens,
            refresh_ttl: options.refresh_ttl,
            passwords: PasswordPool::new(options.hashing_threads, options.hashing_line_max),
            failed: FailedSignIns::default(),
        };
        accounts.follow_revocations(since).await?;
        Ok(accounts)
    }

    /// When this returns, no access token is taken that any node has revoked
    /// after `since`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn follow_revocations(&self, since: Timestamp) -> Result<(), StoreError> {
        let recent = self.store.revoked_after(since).await?;
        for (user, from) in recent.users {
            self.tokens.revoke_user(user, from, from);
        }
        for (session, at) in recent.sessions {
            self.tokens.revoke_session(session, at);
        }
        Ok(())
    }

    /// Whom an access token identifies now.
    ///
    /// # Errors
    /// If nobody.
    pub fn identify(&self, token: &str) -> Result<Identity, TokenRefusal> {
        self.tokens.identify(token, self.clock.now())
    }

    /// What is needed to ask again later whether an access token is good.
    ///
    /// # Errors
    /// If this server didn't sign it.
    pub fn lasting(&self, token: &str) -> Result<Lasting, TokenRefusal> {
        self.tokens.lasting(token)
    }

    /// Whether the token still identifies somebody.
    #[must_use]
    pub fn still_identifies(&self, token: &Lasting) -> bool {
        self.tokens.still_identifies(token, self.clock.now())
    }

    /// An access token for a user outside of any stored session, e.g. for load
    /// tests. A change of the user's roles ends it like any other.
    #[must_use]
    pub fn mint(&self, user: UserId, roles: Roles) -> String {
        let now = self.clock.now();
        let identity = Identity {
            user_id: user,
            roles,
            session: SessionId(Uuid::now_v7()),
        };
        self.tokens.mint(
            &Grant {
                identity,
                sessions_from: now,
            },
            now,
        )
    }

    /// Makes an account with these roles.
    ///
    /// # Errors
    /// [`AccountError::EmailTaken`] among others.
    pub(crate) async fn register(
        &self,
        email: Email,
        password: NewPassword,
        name: PersonName,
        roles: Roles,
    ) -> Result<StoredUser, AccountError> {
        // Asked first to save the hash; the index decides.
        if self.store.user_by_email(email.as_str()).await?.is_some() {
            return Err(AccountError::EmailTaken);
        }
        let password_hash = self.passwords.hash(password.into_inner()).await?;
        let user = self.new_user(email, name, password_hash, roles);
        self.store.insert_user(user.clone()).await?;
        Ok(StoredUser {
            id: user.id,
            email: user.email,
            name: user.name,
            password_hash: user.password_hash,
            roles: user.roles,
            created_at: user.created_at,
            sessions_from: user.created_at,
            deleted_at: None,
        })
    }

    pub(super) fn new_user(
        &self,
        email: Email,
        name: PersonName,
        password_hash: String,
        roles: Roles,
    ) -> NewUser {
        NewUser {
            id: UserId(Uuid::now_v7()),
            email: email.into_inner(),
            name: name.into_inner(),
            password_hash,
            roles,
            created_at: self.clock.now(),
        }
    }

    /// Begins a session.
    ///
    /// # Errors
    /// [`AccountError::BadCredentials`], [`AccountError::TooManyFailures`] among
    /// others.
    pub(crate) async fn sign_in(
        &self,
        email: &str,
        password: String,
    ) -> Result<TokenPair, AccountError> {
        let email = Email::normalise(email);
        self.failed.check(&email, self.clock.now())?;
        let user = self.store.user_by_email(&email).await?;
        let (user, phc) = user.map(|user| (user.id, user.password_hash)).unzip();
        let right = self.passwords.verify(password, phc).await?;
        let now = self.clock.now();
        let Some(user) = user.filter(|_| right) else {
            self.failed.count(&email, now)?;
            return Err(AccountError::BadCredentials);
        };
        self.failed.check(&email, now)?;
        self.begin_session(user, now).await
    }

    async fn begin_session(&self, user: UserId, now: Timestamp) -> Result<TokenPair, AccountError> {
        let session = SessionId(Uuid::now_v7());
        let expires_at = now.plus(self.refresh_ttl);
        let begun = self
            .store
            .begin_session(NewSession {
                id: session,
                user,
                now,
                expires_at,
            })
            .await?;
        // Deleted while the password was compared.
        let (grant, ended) = begun.ok_or(AccountError::BadCredentials)?;
        for session in ended {
            self.tokens.revoke_session(session, now);
        }
        Ok(self.pair(
            grant,
            RefreshToken {
                session,
                generation: 1,
            },
            now,
        ))
    }

    /// Uses a refresh token up for a new pair. One that was used before ends
    /// its session, access tokens included.
    ///
    /// # Errors
    /// [`AccountError::NotARefreshToken`], [`AccountError::SessionRevoked`]
    /// among others.
    pub(crate) async fn refresh(&self, text: &str) -> Result<TokenPair, AccountError> {
        let token = RefreshToken::decode(text, &self.keys).ok_or(AccountError::NotARefreshToken)?;
        let RefreshToken {
            session,
            generation,
        } = token;
        let now = self.clock.now();
        let expires_at = now.plus(self.refresh_ttl);
        match self
            .store
            .rotate_session(session, generation, now, expires_at)
            .await?
        {
            Rotation::Rotated(grant) => {
                let next = RefreshToken {
                    session,
                    generation: generation.saturating_add(1),
                };
                Ok(self.pair(grant, next, now))
            }
            Rotation::Spent => {
                self.tokens.revoke_session(session, now);
                tracing::warn!(session.id = %session, "a spent refresh token was used: its session has ended");
                Err(AccountError::SessionRevoked)
            }
            Rotation::Ended => Err(AccountError::SessionRevoked),
        }
    }

    fn pair(&self, grant: SessionGrant, refresh: RefreshToken, now: Timestamp) -> TokenPair {
        let SessionGrant {
            user,
            roles,
            sessions_from,
        } = grant;
        let identity = Identity {
            user_id: user,
            roles,
            session: refresh.session,
        };
        TokenPair {
            access_token: self.tokens.mint(
                &Grant {
                    identity,
                    sessions_from,
                },
                now,
            ),
            refresh_token: refresh.encode(&self.keys),
            expires_in: self.tokens.ttl(),
        }
    }

    /// Ends the caller's session, its access token included.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn sign_out(&self, caller: &Identity) -> Result<(), AccountError> {
        let now = self.clock.now();
        self.store.end_session(caller.session, now).await?;
        self.tokens.revoke_session(caller.session, now);
        Ok(())
    }

    /// A live user.
    ///
    /// # Errors
    /// [`AccountError::UnknownUser`] among others.
    pub async fn user(&self, id: UserId) -> Result<StoredUser, AccountError> {
        let user = self.store.user(id).await?;
        user.filter(|user| user.deleted_at.is_none())
            .ok_or(AccountError::UnknownUser)
    }

    /// Users, live and deleted, in the order of their ids; `limit` of those
    /// after `after`, with this e-mail if one is given.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn users(
        &self,
        email: Option<&str>,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<StoredUser>, AccountError> {
        let email = email.map(Email::normalise);
        Ok(self.store.users(email.as_deref(), after, limit).await?)
    }

    /// What belongs to a user besides the account.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn personal_rows(&self, id: UserId) -> Result<PersonalRows, AccountError> {
        Ok(self.store.personal_rows(id).await?)
    }

    /// Changes a live user's name.
    ///
    /// # Errors
    /// [`AccountError::UnknownUser`] among others.
    pub(crate) async fn rename(
        &self,
        id: UserId,
        name: PersonName,
    ) -> Result<StoredUser, AccountError> {
        let renamed = self.store.rename_user(id, name.into_inner()).await?;
        renamed.ok_or(AccountError::UnknownUser)
    }

    /// Gives a live user these roles. If they are others than before, the
    /// user's sessions and tokens end.
    ///
    /// # Errors
    /// [`AccountError::UnknownUser`] among others.
    pub async fn set_roles(&self, id: UserId, roles: Roles) -> Result<StoredUser, AccountError> {
        let now = self.clock.now();
        let set = self
            .store
            .set_roles(id, roles, now)
            .await?
            .ok_or(AccountError::UnknownUser)?;
        if set.changed {
            self.tokens.revoke_user(id, set.user.sessions_from, now);
        }
        Ok(set.user)
    }

    /// Overwrites what says who the user is, and ends the sessions. Orders and
    /// money stay. Nothing undoes it.
    ///
    /// # Errors
    /// [`AccountError::UnknownUser`] among others.
    pub(crate) async fn erase(&self, id: UserId) -> Result<(), AccountError> {
        let now = self.clock.now();
        let erased = self
            .store
            .erase_user(id, now)
            .await?
            .ok_or(AccountError::UnknownUser)?;
        self.tokens.revoke_user(id, erased.sessions_from, now);
        Ok(())
    }

    /// Closes an account so that [`Self::restore`] can undo it, and ends the
    /// sessions.
    ///
    /// # Errors
    /// [`AccountError::UnknownUser`] among others.
    pub(crate) async fn delete(&self, id: UserId) -> Result<(), AccountError> {
        let now = self.clock.now();
        let deleted = self
            .store
            .delete_user(id, now)
            .await?
            .ok_or(AccountError::UnknownUser)?;
        self.tokens.revoke_user(id, deleted.sessions_from, now);
        Ok(())
    }

    /// Undoes [`Self::delete`].
    ///
    /// # Errors
    /// [`AccountError::UnknownUser`] if there is no such user or it was erased,
    /// [`AccountError::EmailTaken`] if somebody signed up with the e-mail since.
    pub(crate) async fn restore(&self, id: UserId) -> Result<StoredUser, AccountError> {
        self.store
            .restore_user(id)
            .await?
            .ok_or(AccountError::UnknownUser)
    }

    /// Removes some of the sessions that ended or expired so long ago that no
    /// token of theirs lives; returns how many. To be called every now and
    /// then, again at once while it removes any.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sweep_sessions(&self) -> Result<u64, StoreError> {
        let before = self.tokens.revocations_matter_after(self.clock.now());
        self.store
            .remove_old_sessions(before, SWEEP_SESSIONS_MAX)
            .await
    }
}
