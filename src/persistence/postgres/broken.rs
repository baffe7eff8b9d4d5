//! The statements of the group commit as they must not be
//! ([`crate::sabotage`]).

use super::statement::Statement;
use crate::sabotage::{self, Switch};

/// Locks, but not against a taker, whose change of the epoch is no change of a
/// key.
const FENCE_BY_KEY_SHARE: &str = "SELECT s.id, s.epoch \
     FROM unnest($1::smallint[], $2::integer[]) AS w (id, epoch) \
     JOIN shard AS s ON s.id = w.id AND s.epoch = w.epoch ORDER BY s.id FOR KEY SHARE OF s";

/// Looks whether an entity is at the expected version, …
const LOOK: &str = "SELECT mine.* FROM mine \
     LEFT JOIN entity AS e ON e.id = mine.id AND e.kind = mine.kind \
     WHERE COALESCE(e.epoch, 0) = mine.old_epoch \
       AND COALESCE(e.activation, 0) = mine.old_activation \
       AND COALESCE(e.seq, 0) = mine.old_seq";

/// … and then sets the new one, whatever has become of it.
const SET: &str = "INSERT INTO entity (id, kind, shard, epoch, activation, seq) \
     SELECT id, kind, shard, epoch, activation, seq FROM known \
     ON CONFLICT (id, kind) DO UPDATE SET epoch = excluded.epoch, \
         activation = excluded.activation, seq = excluded.seq";

/// The fence of this build, which would be `right` in any other.
pub(super) fn fence(right: &'static str) -> &'static str {
    if sabotage::is_on(Switch::KeyShare) {
        FENCE_BY_KEY_SHARE
    } else {
        right
    }
}

/// How this build moves the versions of `mine` on.
pub(super) fn moved(statement: &mut Statement) {
    statement
        .named("known", LOOK)
        .named("set", SET)
        .named("new", "SELECT id, kind FROM known WHERE false");
}

/// Whether the batch as one statement is passed over in this build. What is broken
/// is in the steps, and one that fails would be taken again by them.
pub(super) fn is_taken_step_by_step() -> bool {
    [
        Switch::NoFence,
        Switch::KeyShare,
        Switch::RetryBlindly,
        Switch::SelectNotUpdate,
    ]
    .into_iter()
    .any(sabotage::is_on)
}
