//! What an event changes of the stored rows, and how a queue comes back from
//! them.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::admit::Batch;
use super::join::is_live;
use super::line::{LeadingLine, Line, TicketNumber};
use super::places::{Place, Slot, Stand};
use super::window::Window;
use super::{Drawn, End, Event, Queue, QueuePlan};
use crate::domain::ids::{QueueTicketId, UserId};

pub use super::rows::{Gap, Grant, PlaceRow, PlaceState, QueueRow, QueueState, RowChanges};

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
            terms: None,
            deciding: None,
        });
    }

    /// Makes the numbers of a draw again.
    fn number_entrants(&mut self, drawn: Drawn, places: &mut [PlaceRow]) {
        let Some(seed) = self.lottery.seed else {
            return;
        };
        let ranks = super::draw::Ranks::new(&seed);
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
