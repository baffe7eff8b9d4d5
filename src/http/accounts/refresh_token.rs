//! Refresh tokens: a session and the number of the token within it, signed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::domain::ids::SessionId;
use crate::keys::{Keys, MAC_BYTES, Purpose};

const SESSION_BYTES: usize = 16;
const MESSAGE_BYTES: usize = SESSION_BYTES + 4;
const TOKEN_BYTES: usize = MESSAGE_BYTES + MAC_BYTES;

/// What a refresh token stands for. Only the newest generation of a session is
/// good; the store knows which that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RefreshToken {
    pub(super) session: SessionId,
    /// Counted from 1.
    pub(super) generation: u32,
}

impl RefreshToken {
    /// The signed text, of `A–Z a–z 0–9 - _`.
    pub(super) fn encode(self, keys: &Keys) -> String {
        let message = self.message();
        let mac = keys.sign(Purpose::RefreshToken, &message);
        URL_SAFE_NO_PAD.encode([&message[..], &mac].concat())
    }

    /// The token behind `text`, if this server signed it.
    pub(super) fn decode(text: &str, keys: &Keys) -> Option<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (message, mac) = bytes.split_at(MESSAGE_BYTES);
        if length != TOKEN_BYTES || !keys.verify(Purpose::RefreshToken, message, mac) {
            return None;
        }
        let (session, generation) = message.split_at(SESSION_BYTES);
        Some(Self {
            session: SessionId(Uuid::from_slice(session).ok()?),
            generation: u32::from_be_bytes(generation.try_into().ok()?),
        })
    }

    fn message(self) -> [u8; MESSAGE_BYTES] {
        let mut message = [0; MESSAGE_BYTES];
        message[..SESSION_BYTES].copy_from_slice(self.session.0.as_bytes());
        message[SESSION_BYTES..].copy_from_slice(&self.generation.to_be_bytes());
        message
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_refresh_token_reads_back_and_no_change_of_it_does() {
        let keys = Keys::open(
            "a secret for tests, long enough",
            &[],
            Path::new("/nonexistent"),
        )
        .unwrap();
        let token = RefreshToken {
            session: SessionId(Uuid::now_v7()),
            generation: 7,
        };
        let text = token.encode(&keys);
        assert_eq!(RefreshToken::decode(&text, &keys), Some(token));
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(RefreshToken::decode(&forged, &keys), None, "{at}");
        }
        for text in [
            "",
            "AAAA",
            &text[1..],
            &format!("{text}AAAA"),
            &"A".repeat(5000),
        ] {
            assert_eq!(RefreshToken::decode(text, &keys), None);
        }
    }
}
