//! What the rows of a checkpoint say, by kind of entity.
//!
//! Of a timetable: one row a hold. Of a queue (`queue`): one for each place
//! that was taken or given up, until the database has it. Of a coupon: how many
//! are claimed.

mod coupon;
mod queue;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{Row, RowId};
use crate::domain::account::Account;
use crate::domain::ids::{HoldId, UserId};
use crate::domain::order::PricedSeats;
use crate::domain::time::Timestamp;
use crate::domain::timetable::restore::{HoldState, KnownHold};
use crate::domain::timetable::{Event, Hold, HoldEnd, Timetable};
use crate::persistence::batch::Persisted;

/// What an event changes of an entity's rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RowChange {
    /// It is now so.
    Put(Vec<u8>),
    /// What it was about is over; this says so, for as long as the database
    /// doesn't.
    Over(Vec<u8>),
    /// It is as it was, until the database has the decision; then it goes. So
    /// a stronger change doesn't show in a weaker tier.
    Spent,
}

/// The changes of one decision.
pub type RowChanges = SmallVec<[(RowId, RowChange); 1]>;

/// A state machine that may have checkpoints.
pub trait Checkpointed: Persisted {
    /// Whether it has any.
    const HAS_CHECKPOINTS: bool;

    /// Puts what `event` changed into `into`; called right after it was
    /// applied.
    fn checkpoint(&self, event: &Self::Event, into: &mut RowChanges);

    /// All rows of its present state.
    fn checkpoint_whole(&self) -> impl Iterator<Item = (RowId, Vec<u8>)>;

    /// Called once, on a state just read from the database: `rows`, oldest
    /// first, are those that say more. Returns the events that make it so; the
    /// caller applies and records them like any others.
    fn recover(&mut self, rows: &[Row]) -> Vec<Self::Event>;
}

impl Checkpointed for Account {
    const HAS_CHECKPOINTS: bool = false;

    fn checkpoint(&self, _event: &Self::Event, _into: &mut RowChanges) {}

    fn checkpoint_whole(&self) -> impl Iterator<Item = (RowId, Vec<u8>)> {
        std::iter::empty()
    }

    fn recover(&mut self, _rows: &[Row]) -> Vec<Self::Event> {
        Vec::new()
    }
}

/// A row of a timetable. Its version is that of the enum's variant: add, never
/// change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum HoldRow {
    Live {
        user: UserId,
        seats: PricedSeats,
        created_at: Timestamp,
        expires_at: Timestamp,
        deadline: Timestamp,
        under_pass: bool,
    },
    Ended {
        user: UserId,
        end: HoldEnd,
    },
}

impl HoldRow {
    fn to_bytes(&self) -> Vec<u8> {
        // Plain numbers and lists: postcard refuses none of them.
        postcard::to_stdvec(self).unwrap_or_default()
    }
}

impl From<&Hold> for HoldRow {
    fn from(hold: &Hold) -> Self {
        Self::Live {
            user: hold.user,
            seats: hold.seats.clone(),
            created_at: hold.created_at,
            expires_at: hold.expires_at,
            deadline: hold.deadline,
            under_pass: hold.under_pass,
        }
    }
}

fn row_of(hold: HoldId) -> RowId {
    RowId(SmallVec::from_slice(hold.0.as_bytes()))
}

fn known(row: &Row) -> Option<KnownHold> {
    let id = HoldId(uuid::Uuid::from_slice(&row.id.0).ok()?);
    let state = match postcard::from_bytes(&row.body).ok()? {
        HoldRow::Ended { user, end } => HoldState::Ended { user, end },
        HoldRow::Live {
            user,
            seats,
            created_at,
            expires_at,
            deadline,
            under_pass,
        } => HoldState::Live(Hold {
            id,
            user,
            seats,
            created_at,
            expires_at,
            deadline,
            under_pass,
            order: None,
            grace_used: false,
        }),
    };
    Some(KnownHold { id, state })
}

impl Checkpointed for Timetable {
    const HAS_CHECKPOINTS: bool = true;

    fn checkpoint(&self, event: &Event, into: &mut RowChanges) {
        match event {
            Event::Held { hold, .. }
            | Event::SeatsAdded { hold, .. }
            | Event::SeatsDropped { hold, .. }
            | Event::HoldProlonged { hold, .. } => {
                if let Some(hold) = self.hold(*hold) {
                    let live = HoldRow::from(hold).to_bytes();
                    into.push((row_of(hold.id), RowChange::Put(live)));
                }
            }
            Event::HoldEnded {
                hold, user, end, ..
            } => {
                let (user, end) = (*user, *end);
                let ended = HoldRow::Ended { user, end }.to_bytes();
                into.push((row_of(*hold), RowChange::Over(ended)));
            }
            // A sale is the database's to tell: until it does, its hold lives.
            Event::OrderConfirmed { order } => into.push((row_of(order.hold), RowChange::Spent)),
            Event::SeatsCooled { .. }
            | Event::OrderOpened { .. }
            | Event::OrderAborted { .. }
            | Event::OrderDisowned { .. }
            | Event::SeatsBlocked { .. }
            | Event::SeatsUnblocked { .. }
            | Event::SeatsCancelled { .. }
            | Event::RefundPaid { .. } => {}
        }
    }

    fn checkpoint_whole(&self) -> impl Iterator<Item = (RowId, Vec<u8>)> {
        self.holds()
            .map(|hold| (row_of(hold.id), HoldRow::from(hold).to_bytes()))
    }

    fn recover(&mut self, rows: &[Row]) -> Vec<Event> {
        let holds: Vec<KnownHold> = rows.iter().filter_map(known).collect();
        if holds.len() < rows.len() {
            tracing::warn!(
                rows = rows.len() - holds.len(),
                "rows of a checkpoint can't be understood; they are left out"
            );
        }
        self.recover_holds(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Stamp;
    use crate::domain::order::PricedSeat;
    use crate::domain::seat::SeatIndex;

    #[test]
    fn a_hold_comes_back_from_its_row_as_it_was() {
        let hold = Hold {
            id: HoldId(uuid::Uuid::now_v7()),
            user: UserId(uuid::Uuid::now_v7()),
            seats: PricedSeats::from_iter([PricedSeat {
                seat: SeatIndex(7),
                price: crate::domain::money::Money(1_500),
            }]),
            created_at: Timestamp(1_000),
            expires_at: Timestamp(9_000),
            deadline: Timestamp(8_000),
            under_pass: true,
            order: None,
            grace_used: false,
        };
        let row = Row {
            id: row_of(hold.id),
            stamp: Stamp::default(),
            body: HoldRow::from(&hold).to_bytes(),
        };
        let back = known(&row).expect("it is a row of a hold");
        assert_eq!(back.state, HoldState::Live(hold));
        let garbled = Row {
            body: vec![0xff; 3],
            ..row
        };
        assert_eq!(known(&garbled), None);
    }
}
