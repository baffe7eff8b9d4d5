//! The opening by lot: a draw that anyone can check afterwards.
//!
//! The seed's hash is public before the first joiner. A place is ranked by
//! HMAC-SHA256 of its ticket's id, keyed with the seed, so nobody's rank depends
//! on who else joined. Whoever knows the seed must be trusted not to use it: they
//! could make ticket ids of good rank. A public beacon of after the cut-off in the
//! key would need no such trust, but only if it was fixed before the first joiner
//! which one it is. No draw has one, and one that claims to is refused: a text that
//! somebody chose afterwards would put whom they like first.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::line::TicketNumber;
use crate::domain::ids::QueueTicketId;

/// 32 bytes; in JSON lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// The secret of a draw, random; public once the draw is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

/// The text is not 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not 64 hexadecimal digits")]
pub struct NotADigest;

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// It is a secret: logs don't show it.
impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NotADigest);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| {
                let digit = pair.get(at).copied().map(char::from);
                digit.and_then(|digit| digit.to_digit(16)).ok_or(NotADigest)
            };
            // Two digits of 16: below 256.
            *byte = (digit(0)? * 16 + digit(1)?) as u8;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

impl Serialize for Seed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Digest(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Digest::deserialize(deserializer).map(|digest| Self(digest.0))
    }
}

impl Seed {
    /// What is public of it from the beginning: its SHA-256.
    #[must_use]
    pub fn commitment(&self) -> Digest {
        Digest(Sha256::digest(self.0).into())
    }
}

/// Ranks places; lower ranks come first.
#[derive(Clone)]
pub struct Ranks(Hmac<Sha256>);

impl Ranks {
    /// Keyed with `seed`.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        // HMAC takes keys of any length (RFC 2104); the other arm can't be
        // reached, and ranks all places alike.
        Self(Hmac::new_from_slice(&seed.0).unwrap_or_else(|_| Hmac::new(&[0; 64].into())))
    }

    /// The rank of a place: the HMAC of the 16 bytes of its ticket's id.
    #[must_use]
    pub fn of(&self, ticket: QueueTicketId) -> Digest {
        let mut mac = self.0.clone();
        mac.update(ticket.0.as_bytes());
        Digest(mac.finalize().into_bytes().into())
    }
}

/// The hash of who took part, whatever the order they are given in: SHA-256 of
/// the 16 bytes of each ticket's id, ascending.
#[must_use]
pub fn entrants_hash(entrants: impl IntoIterator<Item = QueueTicketId>) -> Digest {
    let mut sorted: Vec<QueueTicketId> = entrants.into_iter().collect();
    sorted.sort_unstable();
    let mut hash = Sha256::new();
    for ticket in sorted {
        hash.update(ticket.0.as_bytes());
    }
    Digest(hash.finalize().into())
}

/// Somebody who was drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entrant {
    /// The place.
    pub ticket_id: QueueTicketId,
    /// Its number.
    pub number: TicketNumber,
}

/// All that is public of a draw: before it only the commitment, after it what
/// anyone needs to make every number again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Draw {
    /// See [`Seed::commitment`].
    pub commitment: Digest,
    /// Once the draw is stored.
    pub seed: Option<Seed>,
    /// A public value of after the cut-off that is part of the key: none, in any
    /// draw. A member of the HTTP contract.
    pub beacon: Option<String>,
    /// See [`entrants_hash`].
    pub entrants_hash: Option<Digest>,
    /// In the order of their numbers.
    pub entrants: Arc<[Entrant]>,
}

/// What is wrong with a draw.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DrawFault {
    /// Nothing can be checked yet.
    #[error("the draw has not taken place")]
    NotDrawn,
    /// Another seed was promised.
    #[error("the seed is not the one that was committed to")]
    WrongSeed,
    /// Nobody was bound to a beacon before the draw.
    #[error("a beacon is named that nobody was bound to before the draw")]
    UnknownBeacon,
    /// Another list was published.
    #[error("the entrants are not those whose hash was published")]
    WrongEntrants,
    /// A place is drawn twice.
    #[error("a ticket is in the list twice: number {}", .0.0)]
    Twice(TicketNumber),
    /// Numbers must follow each other without a hole.
    #[error("number {} does not follow the one before it", .0.0)]
    WrongNumber(TicketNumber),
    /// Somebody with a better rank has a higher number.
    #[error("number {} goes to another ticket by its rank", .0.0)]
    WrongRank(TicketNumber),
}

/// Makes a published draw again.
///
/// # Errors
/// The first thing that isn't as it must be.
pub fn verify(draw: &Draw) -> Result<(), DrawFault> {
    let (Some(seed), Some(hash)) = (draw.seed, draw.entrants_hash) else {
        return Err(DrawFault::NotDrawn);
    };
    if seed.commitment() != draw.commitment {
        return Err(DrawFault::WrongSeed);
    }
    if draw.beacon.is_some() {
        return Err(DrawFault::UnknownBeacon);
    }
    if entrants_hash(draw.entrants.iter().map(|entrant| entrant.ticket_id)) != hash {
        return Err(DrawFault::WrongEntrants);
    }
    let ranks = Ranks::new(&seed);
    let key = |entrant: &Entrant| (ranks.of(entrant.ticket_id), entrant.ticket_id);
    let mut before: Option<(&Entrant, (Digest, QueueTicketId))> = None;
    for entrant in draw.entrants.iter() {
        let rank = key(entrant);
        if let Some((last, last_rank)) = before {
            if last.ticket_id == entrant.ticket_id {
                return Err(DrawFault::Twice(entrant.number));
            }
            if entrant.number != last.number.next() {
                return Err(DrawFault::WrongNumber(entrant.number));
            }
            if rank < last_rank {
                return Err(DrawFault::WrongRank(entrant.number));
            }
        }
        before = Some((entrant, rank));
    }
    Ok(())
}
