//! The idempotency keys of one user.

use serde::{Deserialize, Serialize};

use super::{Event, Refusal, Reply};
use crate::domain::decision::Decision;
use crate::domain::ids::{OrderId, TimetableId};
use crate::domain::time::{Millis, Timestamp};

/// How long a stored answer is repeated: the HTTP contract promises 24 h.
pub const KEY_LIFE: Millis = Millis::from_secs(24 * 3600);

/// How many keys one user may use in [`KEY_LIFE`]; more are refused.
pub const KEYS_MAX: usize = 4_096;

/// A 64-bit hash of an idempotency key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// The hash of a key (FNV-1a, finished by a multiplication): the same in
    /// every process, because recovery makes it again from the stored key.
    /// Two keys of one user with the same hash would be told apart by their
    /// fingerprints, and refused as reused: with 4,096 keys that is one day in
    /// two million years.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(stable_hash(key.as_bytes()))
    }
}

/// A 64-bit hash that is the same in every process and version.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = bytes.iter().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// One request among those under a key: a random number, so that no two, on
/// whichever node they came in, are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Claimant(pub u64);

/// A request that claims an idempotency key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyClaim {
    /// The key itself, 1 to 255 visible ASCII characters.
    pub key: String,
    /// Its hash: what memory keeps of it.
    pub hash: KeyHash,
    /// Hash of method, path and parsed body: tells a repetition from another
    /// request under the same key.
    pub fingerprint: u64,
    /// Tells it from its repetitions: only who has reserved a key goes on under
    /// it, or frees it.
    pub by: Claimant,
}

/// How far the request under a key has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyState {
    /// This one has begun.
    Running(Claimant),
    /// The order decides its answer.
    Ordered(OrderId, TimetableId),
    /// Its answer is stored.
    Answered,
}

#[derive(Clone, Copy, Debug)]
struct Key {
    hash: KeyHash,
    fingerprint: u64,
    at: Timestamp,
    state: KeyState,
}

/// The keys of the last [`KEY_LIFE`], oldest first.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    keys: Vec<Key>,
}

impl Keys {
    /// Adds a key that the store has.
    pub fn restore(&mut self, hash: KeyHash, fingerprint: u64, at: Timestamp, state: KeyState) {
        self.keys.push(Key {
            hash,
            fingerprint,
            at,
            state,
        });
    }

    pub(super) fn any_running(&self) -> bool {
        self.keys
            .iter()
            .any(|key| matches!(key.state, KeyState::Running(_)))
    }

    /// What another request has made of the key of `claim`: `None` if there is
    /// none, so that this one may go on. The reservation itself may be gone,
    /// with an earlier life of the account.
    pub(super) fn other_than(
        &self,
        now: Timestamp,
        claim: &KeyClaim,
    ) -> Result<Option<Reply>, Refusal> {
        let alive = |key: &&Key| now.since(key.at) < KEY_LIFE;
        match self.find(claim.hash).filter(alive) {
            None => Ok(None),
            Some(key) if key.fingerprint != claim.fingerprint => Err(Refusal::KeyReused),
            Some(key) => Ok(match key.state {
                KeyState::Running(by) if by == claim.by => None,
                KeyState::Running(_) => Some(Reply::KeyIsRunning(None)),
                KeyState::Ordered(order, timetable) => {
                    Some(Reply::KeyIsRunning(Some((order, timetable))))
                }
                KeyState::Answered => Some(Reply::KeyIsAnswered),
            }),
        }
    }

    /// Frees the key of `claim` if that very request has reserved it, or if
    /// `order`, which came to nothing, decides it.
    pub(super) fn release(
        &self,
        claim: &KeyClaim,
        order: Option<OrderId>,
    ) -> Decision<Event, Reply> {
        let key = self
            .find(claim.hash)
            .filter(|key| key.fingerprint == claim.fingerprint);
        let is_its_own = key.is_some_and(|key| match key.state {
            KeyState::Running(by) => by == claim.by,
            KeyState::Ordered(decides, _) => order == Some(decides),
            KeyState::Answered => false,
        });
        if is_its_own {
            Decision::one(Event::KeyFreed { hash: claim.hash }, Reply::Done)
        } else {
            Decision::unchanged(Reply::Done)
        }
    }

    /// Stores the final answer of a request. The first one stays, whichever
    /// request it is of (I10): after a loss of memory two may have run.
    pub(super) fn answer(
        &self,
        now: Timestamp,
        claim: KeyClaim,
        status: u16,
        body: String,
    ) -> Result<Decision<Event, Reply>, Refusal> {
        match self.other_than(now, &claim)? {
            None | Some(Reply::KeyIsRunning(None)) => Ok(Decision::one(
                Event::KeyAnswered {
                    key: claim,
                    status,
                    body,
                    at: now,
                },
                Reply::Done,
            )),
            Some(first) => Ok(Decision::unchanged(first)),
        }
    }

    pub(super) fn reserve(
        &self,
        now: Timestamp,
        claim: KeyClaim,
    ) -> Result<Decision<Event, Reply>, Refusal> {
        let alive = |key: &&Key| now.since(key.at) < KEY_LIFE;
        match self.find(claim.hash).filter(alive) {
            Some(key) if key.fingerprint != claim.fingerprint => Err(Refusal::KeyReused),
            Some(key) => Ok(Decision::unchanged(match key.state {
                KeyState::Running(_) => Reply::KeyIsRunning(None),
                KeyState::Ordered(order, timetable) => {
                    Reply::KeyIsRunning(Some((order, timetable)))
                }
                KeyState::Answered => Reply::KeyIsAnswered,
            })),
            None if self.keys.iter().filter(alive).count() >= KEYS_MAX => Err(Refusal::TooManyKeys),
            None => Ok(Decision::one(
                Event::KeyReserved {
                    key: claim,
                    at: now,
                },
                Reply::KeyIsNew,
            )),
        }
    }

    pub(super) fn set(&mut self, claim: &KeyClaim, state: KeyState, at: Timestamp) {
        self.keys
            .retain(|key| key.hash != claim.hash && at.since(key.at) < KEY_LIFE);
        self.keys.push(Key {
            hash: claim.hash,
            fingerprint: claim.fingerprint,
            at,
            state,
        });
    }

    pub(super) fn free(&mut self, hash: KeyHash) {
        self.keys.retain(|key| key.hash != hash);
    }

    fn find(&self, hash: KeyHash) -> Option<&Key> {
        self.keys.iter().rev().find(|key| key.hash == hash)
    }
}
