//! The rows of a queue: one of its own, one for each place. A place's row is
//! known by its ticket: who joins again has another. Rows may be deleted once
//! they neither live nor matter, see [`PlaceRow::matters`].

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::draw::Seed;
use super::line::TicketNumber;
use super::places::{ENDED_FOR, Place, Seconds, Stand};
use super::{Drawn, End};
use crate::domain::ids::{QueueTicketId, UserId};
use crate::domain::time::Timestamp;

pub use super::window::Grant;

/// Numbers that were lost with the memory of an owner: somebody may have been
/// shown them, and comes back with a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gap {
    /// The first.
    pub from: TicketNumber,
    /// The last.
    pub upto: TicketNumber,
}

impl Gap {
    /// Whether `number` is one of them.
    #[must_use]
    pub fn has(self, number: TicketNumber) -> bool {
        (self.from..=self.upto).contains(&number)
    }
}

/// The row of a queue. A new queue has the default.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QueueRow {
    /// The number of the next newcomer.
    pub next: TicketNumber,
    /// Numbers up to here may have been given out.
    pub reserved_upto: TicketNumber,
    /// All numbers up to here were admitted or passed.
    pub admitted_up_to: TicketNumber,
    /// How many ever had a pass.
    pub admitted_total: u64,
    /// Nobody enters, by an operator's word.
    pub paused: bool,
    /// No newcomers are taken, by an operator's word.
    pub draining: bool,
    /// Who entered within the window of the policy; at most 65.
    pub grants: Vec<Grant>,
    /// At most 1,024.
    pub gaps: Vec<Gap>,
    /// The secret of the draw.
    pub seed: Option<Seed>,
    /// What was drawn.
    pub drawn: Option<Drawn>,
}

impl Default for QueueRow {
    fn default() -> Self {
        Self {
            next: TicketNumber(1),
            reserved_upto: TicketNumber(0),
            admitted_up_to: TicketNumber(0),
            admitted_total: 0,
            paused: false,
            draining: false,
            grants: Vec::new(),
            gaps: Vec::new(),
            seed: None,
            drawn: None,
        }
    }
}

/// How a place stands, as stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PlaceState {
    /// Waits.
    Waiting,
    /// Is admitted, but has no pass yet.
    Admitted,
    /// Has a pass.
    Active {
        /// Since when, in whole seconds.
        granted_at: Timestamp,
        /// Until when.
        expires_at: Timestamp,
    },
    /// Is over.
    Ended {
        /// How.
        end: End,
        /// When, in whole seconds.
        at: Timestamp,
        /// When its pass would have ended; `at` if it had none.
        pass_until: Timestamp,
    },
}

/// The row of a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlaceRow {
    /// Its name; unique.
    pub ticket: QueueTicketId,
    /// Whose it is. Of the rows of one user at most one has not ended.
    pub user: UserId,
    /// Unique among the rows that have one. `None` before the draw, and in
    /// rows not written since: recovery makes it again.
    pub number: Option<TicketNumber>,
    /// It was there for the draw. Such rows stay as long as the queue.
    pub entrant: bool,
    /// When it began.
    pub joined_at: Timestamp,
    /// How it stands.
    pub state: PlaceState,
}

impl PlaceRow {
    /// Whether the row of a queue at `queue` is needed at `now` or later. Rows
    /// that aren't may be left out on loading, and deleted.
    #[must_use]
    pub fn matters(&self, queue: &QueueRow, now: Timestamp) -> bool {
        let PlaceState::Ended { at, pass_until, .. } = self.state else {
            return true;
        };
        let of_line = self.number.is_some_and(|number| {
            number > queue.admitted_up_to || queue.gaps.iter().any(|gap| gap.has(number))
        });
        self.entrant || of_line || pass_until > now || now.since(at) <= ENDED_FOR
    }
}

/// The rows of one queue at one version.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QueueState {
    /// Its own.
    pub queue: QueueRow,
    /// Those of places, in any order.
    pub places: Vec<PlaceRow>,
}

/// What an event changes of the rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RowChanges {
    /// The queue's own row, if it did.
    pub queue: Option<QueueRow>,
    /// Rows of places, as they are now.
    pub places: SmallVec<[PlaceRow; 1]>,
}

impl From<&Place> for PlaceRow {
    fn from(place: &Place) -> Self {
        let state = match place.stand {
            Stand::Waiting { .. } => PlaceState::Waiting,
            Stand::Admitted { .. } => PlaceState::Admitted,
            Stand::Active {
                granted_at,
                expires_at,
            } => PlaceState::Active {
                granted_at: granted_at.start(),
                expires_at,
            },
            Stand::Ended {
                end,
                at,
                pass_until,
            } => PlaceState::Ended {
                end,
                at: at.start(),
                pass_until,
            },
        };
        Self {
            ticket: place.ticket,
            user: place.user,
            number: place.number(),
            entrant: place.entrant,
            joined_at: place.joined_at,
            state,
        }
    }
}

impl PlaceRow {
    pub(super) fn into_place(self) -> Place {
        let stand = match self.state {
            PlaceState::Waiting => Stand::Waiting {
                // Signs of life count anew from the load on.
                seen: Seconds(0),
                predicted: None,
            },
            PlaceState::Admitted => Stand::Admitted { predicted: None },
            PlaceState::Active {
                granted_at,
                expires_at,
            } => Stand::Active {
                granted_at: Seconds::of(granted_at),
                expires_at,
            },
            PlaceState::Ended {
                end,
                at,
                pass_until,
            } => Stand::Ended {
                end,
                at: Seconds::of(at),
                pass_until,
            },
        };
        let whose = (self.user, self.ticket);
        let mut place = Place::new(whose, self.number, self.joined_at, stand);
        place.entrant = self.entrant;
        place
    }

    /// Live ones after ended ones, and those in the order of their ends: of a
    /// user's rows the last one is how they stand.
    pub(super) fn order(&self) -> (bool, Timestamp) {
        match self.state {
            PlaceState::Ended { at, .. } => (false, at),
            PlaceState::Waiting | PlaceState::Admitted | PlaceState::Active { .. } => {
                (true, self.joined_at)
            }
        }
    }
}
