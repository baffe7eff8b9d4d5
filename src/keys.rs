//! The server's secret, and one key for each purpose that is derived from it.
//!
//! No two kinds of signed text share a key: a hold token can never pass as a
//! queue pass, whatever their bytes are. The keyed state of each HMAC is kept,
//! so that signing costs about a microsecond.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Length of a [`Keys::sign`] signature in bytes: HMAC-SHA256 cut to 128 bits,
/// which RFC 2104 §5 allows and which keeps tokens short.
pub const MAC_BYTES: usize = 16;

/// Length of a secret that this server makes for itself, before it is written
/// as hexadecimal text.
const SECRET_BYTES: usize = 32;

/// The shortest secret file that is accepted, in characters. A shorter one was
/// not written by this server.
const SECRET_CHARS_MIN: usize = 32;

/// The secret's file within the data folder.
const SECRET_FILE: &str = "secret";

type HmacSha256 = Hmac<Sha256>;

/// What a key is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Access tokens (JWT).
    AccessToken,
    /// Refresh tokens.
    RefreshToken,
    /// Tokens that restore a hold.
    HoldToken,
    /// Ids of holds.
    HoldId,
    /// Places in a waiting room.
    QueueTicket,
    /// Admissions from a waiting room.
    QueuePass,
    /// What who joins a waiting room has to solve.
    ProofOfWork,
    /// Cursors of lists.
    Cursor,
    /// Who viewed what, so that viewers can't be told from their hashes.
    Viewer,
    /// What nodes say to each other.
    Internal,
}

impl Purpose {
    const ALL: [Self; 10] = [
        Self::AccessToken,
        Self::RefreshToken,
        Self::HoldToken,
        Self::HoldId,
        Self::QueueTicket,
        Self::QueuePass,
        Self::ProofOfWork,
        Self::Cursor,
        Self::Viewer,
        Self::Internal,
    ];

    /// What the key is derived by. Changing one ends everything signed with it.
    fn label(self) -> &'static [u8] {
        match self {
            Self::AccessToken => b"onsale/access-token/1",
            Self::RefreshToken => b"onsale/refresh-token/1",
            Self::HoldToken => b"onsale/hold-token/1",
            Self::HoldId => b"onsale/hold-id/1",
            Self::QueueTicket => b"onsale/queue-ticket/1",
            Self::QueuePass => b"onsale/queue-pass/1",
            Self::ProofOfWork => b"onsale/proof-of-work/1",
            Self::Cursor => b"onsale/cursor/1",
            Self::Viewer => b"onsale/viewer/1",
            Self::Internal => b"onsale/internal/1",
        }
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The secret's file can't be read or written.
    #[error("the secret's file {path} can't be used: {source}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The secret's file is too short to be one.
    #[error("the secret's file {path} holds fewer than {SECRET_CHARS_MIN} characters", path = path.display())]
    TooShort {
        /// Which file.
        path: PathBuf,
    },
}

/// Signs and verifies, one key a purpose. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    /// The current secret's keys first, then those of the previous secrets.
    rings: Arc<[Ring]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("secrets", &self.rings.len())
            .finish_non_exhaustive()
    }
}

/// One secret's keys, by purpose.
struct Ring([PurposeKey; Purpose::ALL.len()]);

struct PurposeKey {
    bytes: [u8; 32],
    keyed: HmacSha256,
}

impl Keys {
    /// The keys of `secret`; signatures made with `previous_secrets` still
    /// verify. If `secret` is empty, the one in `<data_dir>/secret` is used,
    /// and made (32 random bytes, mode 0600, on disk when this returns) if
    /// there is none.
    ///
    /// # Errors
    /// If that file can't be read, written, or is too short.
    pub fn open(
        secret: &str,
        previous_secrets: &[String],
        data_dir: &Path,
    ) -> Result<Self, KeysError> {
        let current = match secret {
            "" => stored_secret(data_dir)?,
            given => given.to_owned(),
        };
        let secrets = std::iter::once(&current).chain(previous_secrets);
        Ok(Self {
            rings: secrets.map(|secret| Ring::of(secret.as_bytes())).collect(),
        })
    }

    /// The signature of `message` for `purpose`, by the current secret.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, message: &[u8]) -> [u8; MAC_BYTES] {
        let whole = self
            .current()
            .key(purpose)
            .mac(message)
            .finalize()
            .into_bytes();
        let mut cut = [0; MAC_BYTES];
        cut.copy_from_slice(&whole[..MAC_BYTES]);
        cut
    }

    /// Whether `mac` is the signature of `message` for `purpose`, by the
    /// current or a previous secret. Takes the same time wherever they differ.
    #[must_use]
    pub fn verify(&self, purpose: Purpose, message: &[u8], mac: &[u8]) -> bool {
        // A truncated comparison would take a signature of one byte.
        mac.len() == MAC_BYTES
            && self.rings.iter().any(|ring| {
                ring.key(purpose)
                    .mac(message)
                    .verify_truncated_left(mac)
                    .is_ok()
            })
    }

    /// A short signature of `message`, by the current secret: for ids, where a
    /// guess that comes true does no harm.
    #[must_use]
    pub fn tag(&self, purpose: Purpose, message: &[u8]) -> u32 {
        self.current().key(purpose).tag(message)
    }

    /// Whether `tag` is that of `message`, by the current or a previous secret.
    #[must_use]
    pub fn is_tag(&self, purpose: Purpose, message: &[u8], tag: u32) -> bool {
        self.rings
            .iter()
            .any(|ring| ring.key(purpose).tag(message) == tag)
    }

    /// The raw keys for `purpose`, the one to sign with first, for libraries
    /// that make their own HMAC.
    pub(crate) fn raw(&self, purpose: Purpose) -> impl Iterator<Item = &[u8; 32]> {
        self.rings.iter().map(move |ring| &ring.key(purpose).bytes)
    }

    fn current(&self) -> &Ring {
        // `open` puts the current secret's ring first.
        &self.rings[0]
    }
}

impl Ring {
    fn of(secret: &[u8]) -> Self {
        let secret = keyed(secret);
        Self(Purpose::ALL.map(|purpose| {
            let bytes: [u8; 32] = secret
                .clone()
                .chain_update(purpose.label())
                .finalize()
                .into_bytes()
                .into();
            PurposeKey {
                bytes,
                keyed: keyed(&bytes),
            }
        }))
    }

    fn key(&self, purpose: Purpose) -> &PurposeKey {
        // `ALL` is in the order of declaration (tested).
        &self.0[purpose as usize]
    }
}

impl PurposeKey {
    fn mac(&self, message: &[u8]) -> HmacSha256 {
        self.keyed.clone().chain_update(message)
    }

    fn tag(&self, message: &[u8]) -> u32 {
        let whole = self.mac(message).finalize().into_bytes();
        u32::from_be_bytes([whole[0], whole[1], whole[2], whole[3]])
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// The secret in the data folder; makes it if there is none.
fn stored_secret(data_dir: &Path) -> Result<String, KeysError> {
    let path = data_dir.join(SECRET_FILE);
    let read = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            make_secret(data_dir, &path).and_then(|()| std::fs::read_to_string(&path))
        }
        other => other,
    };
    let text = read.map_err(|source| KeysError::File {
        path: path.clone(),
        source,
    })?;
    let secret = text.trim();
    if secret.len() < SECRET_CHARS_MIN {
        return Err(KeysError::TooShort { path });
    }
    Ok(secret.to_owned())
}

/// Writes a new secret under another name and renames it, so that a crash
/// never leaves half a secret under which tokens are then signed.
fn make_secret(data_dir: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(data_dir)?;
    let mut random = [0; SECRET_BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let new = data_dir.join(format!("{SECRET_FILE}.{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    // A link fails where a rename would replace: of two that start at once,
    // both go on with the secret of the first.
    let linked = std::fs::hard_link(&new, path);
    std::fs::remove_file(&new)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => std::fs::File::open(data_dir)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const SECRET: &str = "correct horse battery staple, twice over";

    fn keys(secret: &str, previous: &[&str]) -> Keys {
        let previous: Vec<String> = previous.iter().map(ToString::to_string).collect();
        Keys::open(secret, &previous, Path::new("/nonexistent")).unwrap()
    }

    #[test]
    fn purposes_are_listed_in_the_order_of_declaration() {
        for (index, purpose) in Purpose::ALL.into_iter().enumerate() {
            assert_eq!(purpose as usize, index);
        }
    }

    #[test]
    fn a_signature_verifies_for_its_own_message_and_purpose_only() {
        let keys = keys(SECRET, &[]);
        let mac = keys.sign(Purpose::HoldToken, b"seat 1");
        assert!(keys.verify(Purpose::HoldToken, b"seat 1", &mac));
        assert!(!keys.verify(Purpose::HoldToken, b"seat 2", &mac));
        for other in Purpose::ALL
            .into_iter()
            .filter(|&p| p != Purpose::HoldToken)
        {
            assert!(!keys.verify(other, b"seat 1", &mac), "{other:?}");
        }
        let mut forged = mac;
        forged[MAC_BYTES - 1] ^= 1;
        assert!(!keys.verify(Purpose::HoldToken, b"seat 1", &forged));
    }

    #[test]
    fn a_shortened_or_lengthened_signature_is_refused() {
        let keys = keys(SECRET, &[]);
        let mac = keys.sign(Purpose::Cursor, b"page 2");
        assert!(!keys.verify(Purpose::Cursor, b"page 2", &mac[..1]));
        assert!(!keys.verify(Purpose::Cursor, b"page 2", &[]));
        assert!(!keys.verify(Purpose::Cursor, b"page 2", &[&mac[..], &[0]].concat()));
    }

    #[test]
    fn what_a_previous_secret_signed_still_verifies() {
        let old = keys("the secret of last year, long enough", &[]);
        let new = keys(SECRET, &["the secret of last year, long enough"]);
        let mac = old.sign(Purpose::QueuePass, b"pass");
        assert!(new.verify(Purpose::QueuePass, b"pass", &mac));
        assert!(!keys(SECRET, &[]).verify(Purpose::QueuePass, b"pass", &mac));
        assert_ne!(new.sign(Purpose::QueuePass, b"pass"), mac);
    }

    #[test]
    fn an_empty_secret_is_made_once_kept_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = Keys::open("", &[], &data).unwrap();
        let second = Keys::open("", &[], &data).unwrap();
        assert_eq!(
            first.sign(Purpose::Cursor, b"x"),
            second.sign(Purpose::Cursor, b"x")
        );
        let file = data.join(SECRET_FILE);
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            std::fs::read_to_string(&file).unwrap().trim().len(),
            2 * SECRET_BYTES
        );
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1);
    }

    #[test]
    fn half_a_secret_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(SECRET_FILE), "abc\n").unwrap();
        assert!(matches!(
            Keys::open("", &[], folder.path()),
            Err(KeysError::TooShort { .. })
        ));
    }
}
