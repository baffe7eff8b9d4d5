//! Ids of holds. Such an id tells, without looking anything up, that this server
//! has given it to this very user: its last 32 bits are a keyed hash of the rest
//! and of the user.
//!
//! Nothing has to be kept of a hold that is over, then. A second release is
//! answered like the first, by any node and after any restart, while an id that
//! was made up, or is somebody else's, names no hold, and no timetable is asked
//! for it.

use uuid::Uuid;

use crate::domain::ids::{HoldId, TimetableId, UserId, shard_of, with_shard};
use crate::keys::{Keys, Purpose};

/// The id of a new hold of `user` on `timetable`: a UUIDv7 that carries the
/// timetable's shard.
#[must_use]
pub fn new(keys: &Keys, timetable: TimetableId, user: UserId) -> HoldId {
    let (high, low) = with_shard(Uuid::now_v7(), shard_of(timetable.0)).as_u64_pair();
    // What stays random tells apart the holds of one user in one millisecond.
    let low = low & !u64::from(u32::MAX);
    let tag = keys.tag(Purpose::HoldId, &message(high, low, user));
    HoldId(Uuid::from_u64_pair(high, low | u64::from(tag)))
}

/// Whether `hold` is, or once was, a hold of `user`. One of 2^32 guesses passes,
/// and learns that it does: nothing depends on it but which refusal is given.
#[must_use]
pub fn is_of(keys: &Keys, hold: HoldId, user: UserId) -> bool {
    let (high, low) = hold.0.as_u64_pair();
    #[allow(clippy::cast_possible_truncation, reason = "the low half is the tag")]
    let tag = low as u32;
    let rest = low & !u64::from(u32::MAX);
    keys.is_tag(Purpose::HoldId, &message(high, rest, user), tag)
}

fn message(high: u64, low: u64, user: UserId) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&high.to_be_bytes());
    bytes[8..16].copy_from_slice(&low.to_be_bytes());
    bytes[16..].copy_from_slice(user.0.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::shard_in;

    fn keys(secret: &str, previous: &[String]) -> Keys {
        // With a secret given, the folder is not looked at.
        Keys::open(secret, previous, std::path::Path::new("/nowhere")).unwrap()
    }

    #[test]
    fn an_id_is_of_its_user_and_of_nobody_else() {
        let keys = keys("first", &[]);
        let (timetable, user) = (TimetableId(Uuid::now_v7()), UserId(Uuid::now_v7()));
        for _ in 0..100 {
            let hold = new(&keys, timetable, user);
            assert!(is_of(&keys, hold, user));
            assert!(!is_of(&keys, hold, UserId(Uuid::now_v7())));
            assert!(!is_of(&keys, HoldId(Uuid::now_v7()), user));
            assert_eq!(shard_in(hold.0), shard_of(timetable.0));
            assert_eq!(hold.0.get_version_num(), 7);
            assert_eq!(hold.0.get_variant(), uuid::Variant::RFC4122);
        }
    }

    #[test]
    fn an_id_outlives_a_change_of_the_secret() {
        let (timetable, user) = (TimetableId(Uuid::now_v7()), UserId(Uuid::now_v7()));
        let hold = new(&keys("first", &[]), timetable, user);
        let changed = keys("second", &["first".to_owned()]);
        assert!(is_of(&changed, hold, user));
        assert!(!is_of(&keys("second", &[]), hold, user));
    }
}
