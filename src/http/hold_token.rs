//! Hold tokens: what a client needs to get a hold back that the server lost.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

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

    /// As text: the payload, a dot, its signature; both base64url.
    #[must_use]
    pub fn sign(&self, keys: &Keys) -> String {
        // Ids and integers in a Vec always serialise.
        let payload = postcard::to_stdvec(self).unwrap_or_default();
        let mac = keys.sign(Purpose::HoldToken, &payload);
        let mut text = URL_SAFE_NO_PAD.encode(&payload);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(mac, &mut text);
        text
    }

    /// The token that a text is; `None` if this server didn't sign it.
    #[must_use]
    pub fn verify(text: &str, keys: &Keys) -> Option<Self> {
        if text.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (payload, mac) = text.split_once('.')?;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        keys.verify(Purpose::HoldToken, &payload, &mac)
            .then(|| postcard::from_bytes(&payload).ok())
            .flatten()
    }
}
