//! The one row of a coupon: how it stood. A claim is the database's to tell, so
//! that nothing is recovered from here; but that there is a row says that the
//! coupon is in use, and who takes its shard has it loaded before anyone asks.

use smallvec::SmallVec;

use super::{Checkpointed, RowChange, RowChanges};
use crate::domain::coupon::{Coupon, Event};
use crate::persistence::checkpoint::{Row, RowId};

/// (claimed, stock), in postcard.
fn row(coupon: &Coupon) -> Option<(RowId, Vec<u8>)> {
    let stock = coupon.terms()?.stock;
    // Plain numbers: postcard refuses none of them.
    let body = postcard::to_stdvec(&(coupon.claimed(), stock)).unwrap_or_default();
    Some((RowId(SmallVec::from_slice(b"stock")), body))
}

impl Checkpointed for Coupon {
    const HAS_CHECKPOINTS: bool = true;

    fn checkpoint(&self, event: &Event, into: &mut RowChanges) {
        match event {
            Event::Created(_) | Event::Changed(_) | Event::Claimed(_) => {
                into.extend(row(self).map(|(id, body)| (id, RowChange::Put(body))));
            }
            Event::Prepared(_)
            | Event::Posted { .. }
            | Event::Voided { .. }
            | Event::Returned { .. } => {}
        }
    }

    fn checkpoint_whole(&self) -> impl Iterator<Item = (RowId, Vec<u8>)> {
        row(self).into_iter()
    }

    fn recover(&mut self, _rows: &[Row]) -> Vec<Event> {
        Vec::new()
    }
}
