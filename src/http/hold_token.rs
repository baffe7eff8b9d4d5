//! Hold tokens: what a client needs to get a hold back that the server lost.

use serde::{Deserialize, Serialize};

use super::signed;
use crate::domain::ids::{TimetableId, UserId};
use crate::domain::timetable::HoldView;
use crate::domain::timetable::command::LostHold;
use crate::keys::{Keys, Purpose};

/// The longest token that is looked at, in bytes: a hold of all seats that a
/// request body can name.
const TOKEN_BYTES_MAX: usize = 65_536;

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
pub struct HoldToken {
    /// Whose hold it is.
    pub user: UserId,
    /// The timetable.
    pub timetable: TimetableId,
    /// The hold.
    pub hold: LostHold,
}

impl HoldToken {
    /// The token of a hold.
    #[must_use]
    pub fn of(user: UserId, timetable: TimetableId, hold: &HoldView) -> Self {
        let lost = LostHold {
            id: hold.id,
            seats: hold.seats.iter().map(|priced| priced.seat).collect(),
            expires_at: hold.expires_at,
            under_pass: hold.under_pass,
        };
        Self {
            user,
            timetable,
            hold: lost,
        }
    }

    /// As text.
    #[must_use]
    pub fn sign(&self, keys: &Keys) -> String {
        signed::sign(keys, Purpose::HoldToken, self)
    }

    /// The token that a text is; `None` if this server didn't sign it.
    #[must_use]
    pub fn verify(text: &str, keys: &Keys) -> Option<Self> {
        signed::verify(keys, Purpose::HoldToken, TOKEN_BYTES_MAX, text)
    }
}
