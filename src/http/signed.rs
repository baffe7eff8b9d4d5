//! Signed texts that carry what they say: the payload, a dot, its signature,
//! both base64url.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::keys::{Keys, Purpose};

/// `value`, signed for `purpose` by the current secret. `value` must be plain
/// data: ids, numbers, lists.
#[must_use]
pub fn sign<T: Serialize>(keys: &Keys, purpose: Purpose, value: &T) -> String {
    // Plain data always serialises.
    let payload = postcard::to_stdvec(value).unwrap_or_default();
    let mac = keys.sign(purpose, &payload);
    let mut text = URL_SAFE_NO_PAD.encode(&payload);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(mac, &mut text);
    text
}

/// What a text of at most `bytes_max` says; `None` if this server didn't sign
/// it for `purpose`, by its current or a previous secret.
#[must_use]
pub fn verify<T: DeserializeOwned>(
    keys: &Keys,
    purpose: Purpose,
    bytes_max: usize,
    text: &str,
) -> Option<T> {
    if text.len() > bytes_max {
        return None;
    }
    let (payload, mac) = text.split_once('.')?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
    keys.verify(purpose, &payload, &mac)
        .then(|| postcard::from_bytes(&payload).ok())
        .flatten()
}
