//! How a queue is stored, and how it comes back.
//!
//! One row for the queue, one for each place. A place's row is known by its
//! ticket: who joins again has another. Rows may be deleted once they neither
//! live nor matter, see [`PlaceRow::matters`].

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::admit::Batch;
use super::draw::Seed;
use super::join::is_live;
use super::line::{LeadingLine, Line, TicketNumber};
use super::places::{ENDED_FOR, Place, Seconds, Slot, Stand};
use super::window::Window;
use super::{Drawn, End, Event, Queue, QueuePlan};
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
    fn into_place(self) -> Place {
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
    fn order(&self) -> (bool, Timestamp) {
        match self.state {
            PlaceState::Ended { at, .. } => (false, at),
            PlaceState::Waiting | PlaceState::Admitted | PlaceState::Active { .. } => {
                (true, self.joined_at)
            }
        }
    }
}

impl Queue {
    /// The queue's own row as it is now.
    #[must_use]
    pub fn row(&self) -> QueueRow {
        QueueRow {
            next: self.next,
            reserved_upto: self.reserved_upto,
            admitted_up_to: self.cursor,
            admitted_total: self.admitted_total,
            paused: self.paused,
            draining: self.draining,
            grants: self.window.grants().collect(),
            gaps: self.gaps.clone(),
            seed: self.lottery.seed,
            drawn: self.lottery.drawn,
        }
    }

    /// The row of a place.
    #[must_use]
    pub fn place_row(&self, user: UserId) -> Option<PlaceRow> {
        self.places.of_user(user).map(|(_, place)| place.into())
    }

    /// The rows of all places.
    pub fn place_rows(&self) -> impl Iterator<Item = PlaceRow> {
        self.places.iter().map(|(_, place)| place.into())
    }

    /// What `event`, one of those that the last command let happen, changed of
    /// the rows, as they are now that all of them are applied. A draw changes
    /// only the queue's: the numbers follow from the seed.
    #[must_use]
    pub fn changes(&self, event: &Event) -> RowChanges {
        let mut changes = RowChanges::default();
        match event {
            Event::Joined { user, .. } => {
                changes.queue = Some(self.row());
                changes.places.extend(self.place_row(*user));
            }
            Event::Ended {
                user,
                ticket,
                number,
                entrant,
                joined_at,
                end,
                at,
                pass_until,
            } => changes.places.push(PlaceRow {
                ticket: *ticket,
                user: *user,
                number: *number,
                entrant: *entrant,
                joined_at: *joined_at,
                state: PlaceState::Ended {
                    end: *end,
                    at: *at,
                    pass_until: *pass_until,
                },
            }),
            Event::Extended { user, .. } => changes.places.extend(self.place_row(*user)),
            Event::Admitted { .. } => {
                changes.queue = Some(self.row());
                let batch = self.batch.iter().flat_map(|batch| &batch.places);
                let slots = batch.map(|(slot, _)| *slot);
                changes.places.extend(self.rows_at(slots));
            }
            Event::Opened { .. } => {
                changes.queue = Some(self.row());
                changes
                    .places
                    .extend(self.rows_at(self.opened.iter().copied()));
            }
            Event::Reserved { .. }
            | Event::Paused(_)
            | Event::Drained(_)
            | Event::SeedChosen(_)
            | Event::Drawn { .. } => changes.queue = Some(self.row()),
            Event::Seen { .. }
            | Event::Turned { .. }
            | Event::Sifted { .. }
            | Event::SeatsTold(_) => {}
        }
        changes
    }

    fn rows_at(&self, slots: impl Iterator<Item = Slot>) -> impl Iterator<Item = PlaceRow> {
        slots.filter_map(|slot| self.places.get(slot).map(PlaceRow::from))
    }

    /// The queue as the store has it. Numbers that were reserved and that no
    /// row has may have been shown to somebody: they stay taken.
    #[must_use]
    pub fn restore(plan: Arc<QueuePlan>, state: QueueState) -> Self {
        let QueueState {
            queue: row,
            mut places,
        } = state;
        let mut queue = Self::new(plan);
        let reserved = row
            .reserved_upto
            .max(TicketNumber(row.next.0.saturating_sub(1)));
        queue.gaps = row.gaps;
        if row.next <= reserved {
            queue.add_gap(Gap {
                from: row.next,
                upto: reserved,
            });
        }
        queue.next = reserved.next();
        queue.reserved_upto = reserved;
        queue.reserved_durably = reserved;
        queue.cursor = row.admitted_up_to;
        queue.line = LeadingLine::new(Line::new(row.admitted_up_to, reserved));
        queue.admitted_total = row.admitted_total;
        queue.paused = row.paused;
        queue.draining = row.draining;
        queue.window = Window::restore(row.grants);
        queue.lottery.seed = row.seed;
        if let Some(drawn) = row.drawn {
            queue.number_entrants(drawn, &mut places);
        }
        places.sort_by_key(PlaceRow::order);
        for place in places {
            queue.restore_place(place.into_place());
        }
        queue.restore_batch();
        queue
    }

    fn restore_place(&mut self, place: Place) {
        let stand = place.stand;
        let (user, number) = (place.user, place.number());
        if let Some(number) = number
            && self.gaps.iter().any(|gap| gap.has(number))
        {
            self.claimed.insert(number);
        }
        let slot = self.places.insert(place);
        match (stand, number) {
            (Stand::Waiting { .. }, Some(number)) if number <= self.cursor => {
                self.late.insert(number);
            }
            (Stand::Active { expires_at, .. }, Some(_)) => {
                self.passes.insert((expires_at, slot.0));
            }
            (
                Stand::Ended {
                    end,
                    at,
                    pass_until,
                },
                Some(number),
            ) => {
                self.places.remember_end(slot);
                if number > self.cursor {
                    self.line.depart(number);
                }
                if end != End::Expired {
                    self.revoked.push(user, number, pass_until, at.start());
                }
            }
            (Stand::Ended { .. }, None) => self.places.remember_end(slot),
            (Stand::Waiting { .. } | Stand::Admitted { .. } | Stand::Active { .. }, _) => {}
        }
    }

    /// Who was admitted, but had no pass before the crash: gets it when the
    /// clock is looked at.
    fn restore_batch(&mut self) {
        let mut places: Vec<(Slot, TicketNumber)> = self
            .places
            .iter()
            .filter(|(_, place)| matches!(place.stand, Stand::Admitted { .. }))
            .filter_map(|(slot, place)| Some((slot, place.number()?)))
            .collect();
        if places.is_empty() {
            return;
        }
        places.sort_unstable_by_key(|(_, number)| *number);
        let free = self.plan.policy.free_admission;
        let metered = places.iter().filter(|(_, number)| number.0 > free).count();
        self.batch = Some(Batch {
            places,
            upto: self.cursor,
            metered: u32::try_from(metered).unwrap_or(u32::MAX),
            deciding: None,
        });
    }

    /// Makes the numbers of a draw again.
    fn number_entrants(&mut self, drawn: Drawn, places: &mut [PlaceRow]) {
        let Some(seed) = self.lottery.seed else {
            return;
        };
        let ranks = super::draw::Ranks::new(&seed, None);
        let mut ranked: Vec<_> = places
            .iter_mut()
            .filter(|place| place.entrant)
            .map(|place| (ranks.of(place.ticket), place))
            .collect();
        ranked.sort_unstable_by_key(|(rank, place)| (*rank, place.ticket));
        let mut number = drawn.first;
        for (_, place) in &mut ranked {
            place.number = Some(number);
            number = number.next();
        }
        self.lottery.drawn = Some(drawn);
        self.lottery.entrants = ranked.iter().map(|(_, place)| place.ticket).collect();
    }

    /// Told once, right after [`Queue::restore`], what is known of places
    /// besides: newer than the store's rows, oldest first; from where joins are
    /// as durable. Returns the events that make it so, to be applied in order.
    /// What only the database may tell (admissions, passes) is not taken from
    /// elsewhere.
    #[must_use]
    pub fn recover(&self, known: &[PlaceRow]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut next = self.next;
        // Who gave a place up, and joined again, had both told by then.
        let mut over = HashSet::<QueueTicketId, RandomState>::default();
        for row in known {
            let stored = self.places.of_user(row.user);
            let stored = stored.filter(|(_, place)| place.ticket == row.ticket);
            let lives = stored.is_none_or(|(_, place)| is_live(place));
            if stored.is_none() && self.may_recover(row, &over) {
                if let Some(number) = row.number.filter(|number| *number >= next) {
                    next = number.next();
                    events.push(Event::Reserved {
                        upto: TicketNumber(number.0.saturating_add(self.next_block())),
                    });
                }
                events.push(Event::Joined {
                    user: row.user,
                    ticket: row.ticket,
                    number: row.number,
                    at: row.joined_at,
                });
            }
            if let PlaceState::Ended {
                end,
                at,
                pass_until,
            } = row.state
                && lives
            {
                over.insert(row.ticket);
                events.push(Event::Ended {
                    user: row.user,
                    ticket: row.ticket,
                    number: row.number,
                    entrant: row.entrant,
                    joined_at: row.joined_at,
                    end,
                    at,
                    pass_until,
                });
            }
        }
        events
    }

    /// Whether a place that the store doesn't know may be taken from elsewhere:
    /// not over one of its user that lives and isn't `over` since, and no number
    /// that somebody has.
    fn may_recover(&self, row: &PlaceRow, over: &HashSet<QueueTicketId, RandomState>) -> bool {
        let live = self
            .places
            .of_user(row.user)
            .filter(|(_, place)| is_live(place) && !over.contains(&place.ticket));
        let is_free = row.number.is_none_or(|number| {
            number >= self.next
                || (self.gaps.iter().any(|gap| gap.has(number)) && !self.claimed.contains(&number))
        });
        live.is_none() && is_free
    }
}
