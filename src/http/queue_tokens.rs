//! What a waiting room signs: tickets, which keep a place through any loss of
//! its state, and passes, which let somebody in.

use serde::{Deserialize, Serialize};

use super::signed;
use crate::domain::ids::{Epoch, PerformanceId, QueueTicketId, UserId};
use crate::domain::queue::{Claim, TicketNumber};
use crate::domain::time::Timestamp;
use crate::keys::{Keys, Purpose};

/// The longest text that is looked at, in bytes; ours have about 120.
const TEXT_BYTES_MAX: usize = 512;

/// A place in a waiting room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QueueTicket {
    /// Whose waiting room it is.
    pub performance: PerformanceId,
    /// Whose place it is.
    pub user: UserId,
    /// The place.
    pub ticket: QueueTicketId,
    /// Its number; `None` before the draw.
    pub number: Option<TicketNumber>,
    /// Of the queue's shard when it was told.
    pub epoch: Epoch,
}

impl QueueTicket {
    /// As text.
    #[must_use]
    pub fn sign(&self, keys: &Keys) -> String {
        signed::sign(keys, Purpose::QueueTicket, self)
    }

    /// The ticket that a text is; `None` if this server didn't sign it.
    #[must_use]
    pub fn verify(text: &str, keys: &Keys) -> Option<Self> {
        signed::verify(keys, Purpose::QueueTicket, TEXT_BYTES_MAX, text)
    }

    /// What it claims in the queue that it is of.
    #[must_use]
    pub fn claim(&self) -> Claim {
        Claim {
            ticket: self.ticket,
            number: self.number,
        }
    }
}

/// An admission.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pass {
    /// To what.
    pub performance: PerformanceId,
    /// Of whom.
    pub user: UserId,
    /// Of which of the user's places: who joins again has another.
    pub number: TicketNumber,
    /// Until when.
    pub expires_at: Timestamp,
}

impl Pass {
    /// As text.
    #[must_use]
    pub fn sign(&self, keys: &Keys) -> String {
        signed::sign(keys, Purpose::QueuePass, self)
    }

    /// The pass that a text is; `None` if this server didn't sign it.
    #[must_use]
    pub fn verify(text: &str, keys: &Keys) -> Option<Self> {
        signed::verify(keys, Purpose::QueuePass, TEXT_BYTES_MAX, text)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use uuid::Uuid;

    use super::*;

    fn keys(secret: &str, previous: &[String]) -> Keys {
        // With a secret given, the folder is not looked at.
        Keys::open(secret, previous, Path::new("/nowhere")).unwrap()
    }

    fn ticket() -> QueueTicket {
        QueueTicket {
            performance: PerformanceId(Uuid::now_v7()),
            user: UserId(Uuid::now_v7()),
            ticket: QueueTicketId(Uuid::now_v7()),
            number: Some(TicketNumber(48_211)),
            epoch: Epoch(3),
        }
    }

    fn pass() -> Pass {
        Pass {
            performance: PerformanceId(Uuid::now_v7()),
            user: UserId(Uuid::now_v7()),
            number: TicketNumber(7),
            expires_at: Timestamp(1_800_000_000_000),
        }
    }

    #[test]
    fn tickets_and_passes_read_back_and_outlive_a_change_of_the_secret() {
        let old = keys("first", &[]);
        let new = keys("second", &["first".to_owned()]);
        let (ticket, pass) = (ticket(), pass());
        assert_eq!(QueueTicket::verify(&ticket.sign(&old), &new), Some(ticket));
        assert_eq!(Pass::verify(&pass.sign(&old), &new), Some(pass));
        assert_eq!(Pass::verify(&pass.sign(&old), &keys("second", &[])), None);
    }

    #[test]
    fn they_are_made_of_the_letters_of_the_contract() {
        let keys = keys("first", &[]);
        for text in [ticket().sign(&keys), pass().sign(&keys)] {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            assert!(text.chars().all(is_allowed), "{text}");
            assert!(text.len() < TEXT_BYTES_MAX / 2);
        }
    }

    #[test]
    fn a_changed_letter_and_the_other_kind_are_refused() {
        let keys = keys("first", &[]);
        let text = ticket().sign(&keys);
        assert_eq!(Pass::verify(&text, &keys), None);
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(QueueTicket::verify(&forged, &keys), None, "{at}");
        }
        assert_eq!(QueueTicket::verify("", &keys), None);
        assert_eq!(QueueTicket::verify(&"A".repeat(4_096), &keys), None);
    }
}
