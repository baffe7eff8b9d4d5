//! Access tokens: JWTs signed with HS256, a cache of those already verified,
//! and the list of what was revoked while it would still be valid.
//!
//! A token carries the roles of its user, so most requests need no look at the
//! store. What makes roles stale (a change of them, a deletion) or ends a
//! session (a sign-out) is kept here for as long as tokens made before it live.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use foldhash::quality::RandomState;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::domain::ids::{SessionId, UserId};
use crate::domain::roles::Roles;
use crate::domain::time::{Millis, Timestamp};
use crate::keys::{Keys, Purpose};

/// The longest token that is looked at, in bytes; ours have about 350.
const TOKEN_LEN_MAX: usize = 1024;

/// Verified tokens that are kept: sets times ways, at most 65,536 (about
/// 30 MB with tokens of 350 bytes).
const CACHE_SETS: usize = 16_384;
const CACHE_WAYS: usize = 4;

const ALGORITHM: Algorithm = Algorithm::HS256;

/// How much longer than a token lives its revocation is kept: a sign-in that
/// was under way when the revocation was committed may make its token later.
const REVOCATION_SLACK_MS: i64 = 60_000;

/// How often revocations that nothing needs any more are looked for.
const PRUNE_EVERY_MS: i64 = 60_000;

/// Who makes a request, as its access token says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The user.
    pub user_id: UserId,
    /// What the user may do.
    pub roles: Roles,
    /// The session that the token belongs to.
    pub session: SessionId,
}

/// Why a token identifies nobody. Callers are told 401 in each case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenRefusal {
    /// Not a token of this server.
    #[error("the access token is not valid")]
    Invalid,
    /// Past its time.
    #[error("the access token has expired")]
    Expired,
    /// Its session has ended, or its user's roles have changed.
    #[error("the session of this access token has ended")]
    Revoked,
}

/// A token that was good once, to be looked at again without its text.
#[derive(Clone, Copy, Debug)]
pub struct Lasting(Verified);

/// What a token is made from.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// Whom it will identify.
    pub identity: Identity,
    /// The user's `sessions_from` at the moment the roles were read. Compared
    /// with the current one, so that a token is dead exactly if it carries
    /// roles read before they changed, whatever the clocks said.
    pub sessions_from: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: UserId,
    roles: Roles,
    /// Seconds since 1970, as RFC 7519 wants.
    iat: i64,
    exp: i64,
    sid: SessionId,
    /// [`Grant::sessions_from`] in milliseconds since 1970.
    ver: i64,
}

/// What a verified token says.
#[derive(Clone, Copy, Debug)]
struct Verified {
    grant: Grant,
    expires_at: Timestamp,
}

/// Makes and checks access tokens.
pub struct AccessTokens {
    signing: EncodingKey,
    verifying: Vec<DecodingKey>,
    /// What each token of this server begins with, up to the first dot.
    header: String,
    ttl: Millis,
    cache: Cache,
    revocations: Revocations,
}

impl fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessTokens")
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl AccessTokens {
    /// Tokens that live for `ttl`, signed with the keys for
    /// [`Purpose::AccessToken`].
    #[must_use]
    pub fn new(keys: &Keys, ttl: Millis) -> Self {
        let mut raw = keys.raw(Purpose::AccessToken);
        let signing = EncodingKey::from_secret(raw.next().map_or(&[], |key| key.as_slice()));
        let verifying = keys
            .raw(Purpose::AccessToken)
            .map(|key| DecodingKey::from_secret(key));
        // A header always serialises.
        let header = serde_json::to_vec(&Header::new(ALGORITHM)).unwrap_or_default();
        Self {
            header: URL_SAFE_NO_PAD.encode(header),
            signing,
            verifying: verifying.collect(),
            ttl,
            cache: Cache::new(CACHE_SETS),
            revocations: Revocations::new(Millis(ttl.0.saturating_add(REVOCATION_SLACK_MS))),
        }
    }

    /// How long a token lives.
    #[must_use]
    pub fn ttl(&self) -> Millis {
        self.ttl
    }

    /// A token for `grant`, good for [`Self::ttl`] from `now`.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "these claims are serializable and the key is symmetric"
    )]
    pub fn mint(&self, grant: &Grant, now: Timestamp) -> String {
        let iat = now.0.div_euclid(1000);
        let claims = Claims {
            sub: grant.identity.user_id,
            roles: grant.identity.roles,
            iat,
            exp: iat.saturating_add(self.ttl.0 / 1000),
            sid: grant.identity.session,
            ver: grant.sessions_from.0,
        };
        jsonwebtoken::encode(&Header::new(ALGORITHM), &claims, &self.signing)
            .expect("these claims are serializable and the key is symmetric")
    }

    /// Whom `token` identifies at `now`.
    ///
    /// # Errors
    /// If nobody.
    pub fn identify(&self, token: &str, now: Timestamp) -> Result<Identity, TokenRefusal> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(TokenRefusal::Invalid);
        }
        if let Some(found) = self.cache.find(token, now, &self.revocations) {
            return found;
        }
        // Read before the check: a revocation that comes in between makes the
        // cached entry look again.
        let generation = self.revocations.generation();
        let verified = self.verify(token)?;
        if now >= verified.expires_at {
            return Err(TokenRefusal::Expired);
        }
        if self.revocations.covers(&verified.grant) {
            return Err(TokenRefusal::Revoked);
        }
        self.cache.keep(token, verified, generation);
        Ok(verified.grant.identity)
    }

    /// What is needed to ask again later whether `token` is good.
    ///
    /// # Errors
    /// If this server didn't sign it.
    pub fn lasting(&self, token: &str) -> Result<Lasting, TokenRefusal> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(TokenRefusal::Invalid);
        }
        self.verify(token).map(Lasting)
    }

    /// Whether the token still identifies somebody at `now`.
    #[must_use]
    pub fn still_identifies(&self, token: &Lasting, now: Timestamp) -> bool {
        let Lasting(verified) = token;
        now < verified.expires_at && !self.revocations.covers(&verified.grant)
    }

    /// From now on no token of `user` is taken that was granted before
    /// `sessions_from`. `now`: when that was decided.
    pub fn revoke_user(&self, user: UserId, sessions_from: Timestamp, now: Timestamp) {
        self.revocations.add_user(user, sessions_from, now);
    }

    /// From now on no token of `session` is taken. `now`: when it ended.
    pub fn revoke_session(&self, session: SessionId, now: Timestamp) {
        self.revocations.add_session(session, now);
    }

    /// Revocations at or before this instant cover no token that is still
    /// valid at `now`.
    #[must_use]
    pub fn revocations_matter_after(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0.saturating_sub(self.revocations.keep.0))
    }

    /// What a token of this server claims. Its header is compared, not read: it
    /// has nothing to say, and the crate, which would read it, and the claims
    /// twice, took a tenth of the time of a newcomer's whole request.
    fn claims(&self, token: &str) -> Option<Claims> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let is_by = |key| {
            let message = message.as_bytes();
            jsonwebtoken::crypto::verify(signature, message, key, ALGORITHM).unwrap_or(false)
        };
        if header != self.header || !self.verifying.iter().any(is_by) {
            return None;
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
        serde_json::from_slice(&claims).ok()
    }

    fn verify(&self, token: &str) -> Result<Verified, TokenRefusal> {
        let claims = self.claims(token).ok_or(TokenRefusal::Invalid)?;
        // If the life of tokens was shortened, those made before get the
        // shorter one too: their revocations aren't kept for longer.
        let exp = claims.exp.min(claims.iat.saturating_add(self.ttl.0 / 1000));
        Ok(Verified {
            grant: Grant {
                identity: Identity {
                    user_id: claims.sub,
                    roles: claims.roles,
                    session: claims.sid,
                },
                sessions_from: Timestamp(claims.ver),
            },
            expires_at: Timestamp(exp.saturating_mul(1000)),
        })
    }
}

/// Tokens whose signature has been checked. A set-associative table: a token
/// can only be in one set of [`CACHE_WAYS`], each with its own lock, and drives
/// out the one of them that dies first.
struct Cache {
    hasher: RandomState,
    sets: Box<[RwLock<Set>]>,
}

type Set = [Option<Box<Entry>>; CACHE_WAYS];

struct Entry {
    hash: u64,
    token: Box<str>,
    verified: Verified,
    /// The generation of the revocations that this token was last compared to.
    checked: AtomicU64,
}

impl Cache {
    fn new(sets: usize) -> Self {
        Self {
            hasher: RandomState::default(),
            sets: (0..sets).map(|_| RwLock::new(Set::default())).collect(),
        }
    }

    /// What is known about `token`, if it has been verified before.
    fn find(
        &self,
        token: &str,
        now: Timestamp,
        revocations: &Revocations,
    ) -> Option<Result<Identity, TokenRefusal>> {
        let (hash, set) = self.place(token)?;
        let set = set.read();
        // The whole token is compared; the hash first, so that the time that
        // comparing takes tells nothing about tokens of others.
        let mut entries = set.iter().flatten();
        let entry = entries.find(|entry| entry.hash == hash && *entry.token == *token)?;
        if now >= entry.verified.expires_at {
            return Some(Err(TokenRefusal::Expired));
        }
        let generation = revocations.generation();
        if entry.checked.load(Ordering::Acquire) != generation {
            if revocations.covers(&entry.verified.grant) {
                return Some(Err(TokenRefusal::Revoked));
            }
            entry.checked.store(generation, Ordering::Release);
        }
        Some(Ok(entry.verified.grant.identity))
    }

    fn keep(&self, token: &str, verified: Verified, generation: u64) {
        let Some((hash, set)) = self.place(token) else {
            return;
        };
        let entry = Entry {
            hash,
            token: token.into(),
            verified,
            checked: AtomicU64::new(generation),
        };
        let mut set = set.write();
        // Empty ways first (`None` sorts before `Some`), then who dies first.
        let dies_at = |way: &Option<Box<Entry>>| way.as_ref().map(|e| e.verified.expires_at);
        if let Some(way) = set.iter_mut().min_by_key(|way| dies_at(way)) {
            *way = Some(Box::new(entry));
        }
    }

    fn place(&self, token: &str) -> Option<(u64, &RwLock<Set>)> {
        let hash = self.hasher.hash_one(token.as_bytes());
        // The remainder of a division by `len` is below it; `None` is for an
        // empty table only.
        let index = (hash >> 32).checked_rem(self.sets.len() as u64)?;
        self.sets
            .get(usize::try_from(index).ok()?)
            .map(|set| (hash, set))
    }
}

/// What was revoked within the life of a token. Its size is bounded by what
/// can be revoked in that time: sessions begin with a password hash each, and
/// users are changed by an admin or deleted.
struct Revocations {
    /// Raised after each addition, so that what was compared with the lists
    /// once needn't be again while nothing was added.
    generation: AtomicU64,
    lists: RwLock<Lists>,
    keep: Millis,
}

#[derive(Default)]
struct Lists {
    /// The user's current `sessions_from`, and when that was decided.
    users: HashMap<UserId, (Timestamp, Timestamp), RandomState>,
    sessions: HashMap<SessionId, Timestamp, RandomState>,
    pruned_at: Timestamp,
}

impl Revocations {
    fn new(keep: Millis) -> Self {
        Self {
            generation: AtomicU64::new(0),
            lists: RwLock::default(),
            keep,
        }
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn covers(&self, grant: &Grant) -> bool {
        let lists = self.lists.read();
        let user = lists.users.get(&grant.identity.user_id);
        user.is_some_and(|&(from, _)| grant.sessions_from < from)
            || lists.sessions.contains_key(&grant.identity.session)
    }

    fn add_user(&self, user: UserId, sessions_from: Timestamp, now: Timestamp) {
        self.add(now, |lists| {
            let kept = lists.users.entry(user).or_default();
            *kept = (kept.0.max(sessions_from), kept.1.max(now));
        });
    }

    fn add_session(&self, session: SessionId, now: Timestamp) {
        self.add(now, |lists| {
            lists.sessions.insert(session, now);
        });
    }

    fn add(&self, now: Timestamp, addition: impl FnOnce(&mut Lists)) {
        let mut lists = self.lists.write();
        addition(&mut lists);
        if now.since(lists.pruned_at).0 >= PRUNE_EVERY_MS {
            lists.pruned_at = now;
            let keep = self.keep;
            lists.users.retain(|_, &mut (_, at)| now.since(at) < keep);
            lists.sessions.retain(|_, &mut at| now.since(at) < keep);
        }
        // After the addition, and while it is locked: who sees the new number
        // finds the addition.
        self.generation.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
