//! The statements of the group commit as they must not be
//! ([`crate::sabotage`]).

use crate::sabotage::{self, Switch};

/// Locks, but not against a taker, whose change of the epoch is no change of a
/// key.
const FENCE_BY_KEY_SHARE: &str = "SELECT s.id, s.epoch \
     FROM unnest($1::smallint[], $2::integer[]) AS w (id, epoch) \
     JOIN shard AS s ON s.id = w.id AND s.epoch = w.epoch ORDER BY s.id FOR KEY SHARE OF s";

/// Looks whether an entity is at the expected version, and then sets the new one
/// whatever has become of it.
const LOOK_THEN_ADVANCE: &str = "WITH n AS ( \
         SELECT * FROM unnest($1::uuid[], $2::text[], $3::smallint[], \
             $4::integer[], $5::integer[], $6::bigint[], \
             $7::integer[], $8::integer[], $9::bigint[]) \
         AS n (id, kind, shard, old_epoch, old_activation, old_seq, epoch, activation, seq)), \
     seen AS ( \
         SELECT n.* FROM n LEFT JOIN entity AS e ON e.id = n.id AND e.kind = n.kind \
         WHERE COALESCE(e.epoch, 0) = n.old_epoch \
           AND COALESCE(e.activation, 0) = n.old_activation \
           AND COALESCE(e.seq, 0) = n.old_seq), \
     moved AS ( \
         INSERT INTO entity (id, kind, shard, epoch, activation, seq) \
         SELECT id, kind, shard, epoch, activation, seq FROM seen \
         ON CONFLICT (id, kind) DO UPDATE SET epoch = excluded.epoch, \
             activation = excluded.activation, seq = excluded.seq) \
     SELECT id, kind FROM seen";

/// The fence of this build, which would be `right` in any other.
pub(super) fn fence(right: &'static str) -> &'static str {
    if sabotage::is_on(Switch::KeyShare) {
        FENCE_BY_KEY_SHARE
    } else {
        right
    }
}

/// How this build moves versions on, which would be `right` in any other.
pub(super) fn advance(right: &'static str) -> &'static str {
    if sabotage::is_on(Switch::SelectNotUpdate) {
        LOOK_THEN_ADVANCE
    } else {
        right
    }
}
