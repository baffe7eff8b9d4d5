//! Checkpoints in this process.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{Base, Checkpoint, Delta, Outcome, Row, RowId};
use crate::domain::ids::{EntityId, Epoch, ShardId, Stamp};

/// Checkpoints in this process.
#[derive(Debug, Default)]
pub struct MemoryCheckpoints {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    fences: BTreeMap<ShardId, Epoch>,
    entities: BTreeMap<EntityId, Rows>,
}

#[derive(Debug)]
struct Rows {
    upto: Stamp,
    rows: BTreeMap<RowId, (Stamp, Vec<u8>)>,
}

impl MemoryCheckpoints {
    pub(super) fn write(&self, deltas: &[Delta]) -> Vec<Outcome> {
        let mut kept = self.kept.lock();
        deltas.iter().map(|delta| kept.write(delta)).collect()
    }

    pub(super) fn read(&self, entity: EntityId) -> Option<Checkpoint> {
        let kept = self.kept.lock();
        let Rows { upto, rows } = kept.entities.get(&entity)?;
        let mut rows: Vec<Row> = rows
            .iter()
            .map(|(id, (stamp, body))| Row {
                id: id.clone(),
                stamp: *stamp,
                body: body.clone(),
            })
            .collect();
        rows.sort_by_key(|row| row.stamp);
        Some(Checkpoint { upto: *upto, rows })
    }

    pub(super) fn entities(&self, shards: &[ShardId]) -> Vec<EntityId> {
        let kept = self.kept.lock();
        let known = kept.entities.keys().copied();
        known.filter(|e| shards.contains(&e.shard())).collect()
    }

    pub(super) fn raise_fences(&self, shards: &[(ShardId, Epoch)]) -> Vec<Epoch> {
        let mut kept = self.kept.lock();
        let raise = |(shard, epoch): &(ShardId, Epoch)| {
            let fence = kept.fences.entry(*shard).or_default();
            *fence = (*fence).max(*epoch);
            *fence
        };
        shards.iter().map(raise).collect()
    }

    pub(super) fn fences(&self, shards: &[ShardId]) -> Vec<Option<Epoch>> {
        let kept = self.kept.lock();
        shards
            .iter()
            .map(|shard| kept.fences.get(shard).copied())
            .collect()
    }

    /// Forgets everything, fences too.
    pub fn clear(&self) {
        *self.kept.lock() = Kept::default();
    }
}

impl Kept {
    fn write(&mut self, delta: &Delta) -> Outcome {
        let Some(fence) = self.fences.get_mut(&delta.entity.shard()) else {
            return Outcome::NoFence;
        };
        if *fence > delta.after.epoch {
            return Outcome::Fenced;
        }
        *fence = delta.after.epoch;
        let known = self.entities.get_mut(&delta.entity);
        let upto = known.as_ref().map(|rows| rows.upto);
        if let Some(upto) = upto.filter(|upto| *upto >= delta.after) {
            let life = |stamp: Stamp| (stamp.epoch, stamp.activation);
            return match life(upto) == life(delta.after) {
                true => Outcome::Written,
                false => Outcome::Fenced,
            };
        }
        let mut rows = match delta.base {
            Base::Whole => BTreeMap::new(),
            Base::After(base) if upto == Some(base) => known
                .map(|rows| std::mem::take(&mut rows.rows))
                .unwrap_or_default(),
            Base::After(_) => return Outcome::NoBase,
        };
        for (row, body) in delta.rows() {
            match body {
                Some(body) => rows.insert(row.clone(), (delta.after, body.to_vec())),
                None => rows.remove(row),
            };
        }
        let upto = delta.after;
        self.entities.insert(delta.entity, Rows { upto, rows });
        Outcome::Written
    }
}
