//! What the journal of a queue says, event by event; like that of a timetable
//! it believes nothing, not even who was admitted: it keeps the line itself.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::journal::Version;
use super::report::{Book, Rule};
use crate::domain::ids::{PerformanceId, QueueTicketId, UserId};
use crate::domain::queue::draw::{Ranks, entrants_hash};
use crate::domain::queue::line::TicketNumber;
use crate::domain::queue::policy::Terms;
use crate::domain::queue::restore::{Gap, PlaceRow, PlaceState, QueueRow};
use crate::domain::queue::{Drawn, Event};
use crate::domain::time::{Millis, Timestamp};
use crate::persistence::batch::PlaceEnd;

/// As many as a queue remembers.
const GAPS_MAX: usize = 1_024;

/// What the journal of one queue leads to.
#[derive(Debug)]
pub(super) struct QueueReplay {
    queue: PerformanceId,
    life: Option<Version>,
    /// As the owner has it; without the grants.
    row: QueueRow,
    /// As it was last written, if the owner's is of a later load.
    written: Option<QueueRow>,
    pub(super) places: HashMap<QueueTicketId, PlaceRow>,
    /// The live place of each user.
    live: HashMap<UserId, QueueTicketId>,
    given: HashSet<TicketNumber>,
    waiting: BTreeMap<TicketNumber, QueueTicketId>,
    /// Who is next, by which terms.
    admitted: (Vec<QueueTicketId>, Option<Terms>),
    inside: u32,
    /// Who entered by the window of the last terms.
    window: VecDeque<(Timestamp, u64)>,
    /// When somebody last entered who counts in it.
    pub(super) last_metered: Option<Timestamp>,
}

impl QueueReplay {
    pub(super) fn new(queue: PerformanceId) -> Self {
        Self {
            queue,
            life: None,
            row: QueueRow::default(),
            written: None,
            places: HashMap::new(),
            live: HashMap::new(),
            given: HashSet::new(),
            waiting: BTreeMap::new(),
            admitted: (Vec::new(), None),
            inside: 0,
            window: VecDeque::new(),
            last_metered: None,
        }
    }

    /// The queue's own row, as it must be stored; without the grants.
    pub(super) fn stored(&self) -> &QueueRow {
        self.written.as_ref().unwrap_or(&self.row)
    }

    /// What follows was decided by `life`. A new one doesn't know which of the
    /// reserved numbers were shown: it leaves all of them out.
    pub(super) fn lived_by(&mut self, life: Version) {
        if self.life.replace(life).is_none_or(|before| before == life) {
            return;
        }
        let row = &mut self.row;
        let lost = Gap {
            from: row.next,
            upto: row.reserved_upto,
        };
        if lost.from <= lost.upto {
            self.written.get_or_insert_with(|| row.clone());
            row.next = lost.upto.next();
            self.add_gap(lost);
        }
    }

    fn add_gap(&mut self, gap: Gap) {
        if self.row.gaps.len() >= GAPS_MAX {
            self.row.gaps.remove(0);
        }
        self.row.gaps.push(gap);
    }

    pub(super) fn apply(&mut self, event: &Event, book: &mut Book) {
        match event {
            Event::Joined {
                user,
                ticket,
                number,
                at,
            } => {
                let place = PlaceRow {
                    ticket: *ticket,
                    user: *user,
                    number: *number,
                    entrant: number.is_none(),
                    joined_at: *at,
                    state: PlaceState::Waiting,
                };
                self.join(place, book);
            }
            Event::Ended {
                ticket,
                number,
                end,
                at,
                ..
            } => {
                let (number, end, at) = (*number, *end, *at);
                self.end(*ticket, PlaceEnd { number, end, at }, book);
                return;
            }
            Event::Extended {
                ticket, expires_at, ..
            } => {
                let place = self.places.get_mut(ticket);
                if let Some(PlaceState::Active {
                    expires_at: until, ..
                }) = place.map(|place| &mut place.state)
                {
                    *until = (*until).max(*expires_at);
                }
                return;
            }
            Event::Admitted {
                late,
                upto,
                terms,
                metered: _,
            } => self.admit(late, *upto, *terms, book),
            Event::Opened { at, expires_at } => self.open(*at, *expires_at, book),
            Event::Reserved { upto } => {
                self.row.reserved_upto = self.row.reserved_upto.max(*upto);
            }
            Event::Paused(paused) => self.row.paused = *paused,
            Event::Drained(draining) => self.row.draining = *draining,
            Event::SeedChosen(seed) => {
                self.row.seed.get_or_insert(*seed);
            }
            Event::Drawn {
                at,
                first,
                entrants,
                entrants_hash,
            } => self.draw(
                Drawn {
                    at: *at,
                    first: *first,
                    entrants: *entrants,
                    entrants_hash: *entrants_hash,
                },
                book,
            ),
            Event::Seen { .. }
            | Event::Turned { .. }
            | Event::Sifted { .. }
            | Event::SeatsTold(_) => {
                self.expect(book, Rule::QueuesMatchJournal, false, || {
                    "an event that is never stored was".to_owned()
                });
            }
        }
        // The others change no more than a place.
        self.written = None;
    }

    fn expect(&self, book: &mut Book, rule: Rule, holds: bool, what: impl FnOnce() -> String) {
        book.expect(rule, holds, || {
            format!("the journal of queue {}: {}", self.queue, what())
        });
    }

    fn join(&mut self, place: PlaceRow, book: &mut Book) {
        let PlaceRow { ticket, user, .. } = place;
        let before = self.live.insert(user, ticket);
        self.expect(book, Rule::OnePlaceAUser, before.is_none(), || {
            format!("user {user} has place {ticket} beside {before:?}")
        });
        if let Some(number) = place.number {
            self.give(number, ticket, book);
        }
        let before = self.places.insert(ticket, place);
        self.expect(book, Rule::OnePlaceAUser, before.is_none(), || {
            format!("place {ticket} is taken twice")
        });
    }

    /// The next number, one beyond it that somebody claims, or one that was
    /// lost.
    fn give(&mut self, number: TicketNumber, ticket: QueueTicketId, book: &mut Book) {
        let is_new = self.given.insert(number);
        let next = self.row.next;
        let was_lost = || self.row.gaps.iter().any(|gap| gap.has(number));
        let is_right = is_new && number <= self.row.reserved_upto && (number >= next || was_lost());
        self.expect(book, Rule::NumbersAreReserved, is_right, || {
            format!(
                "place {ticket} has number {}; the next is {}, reserved are those up to {}",
                number.0, next.0, self.row.reserved_upto.0
            )
        });
        if number > next {
            self.add_gap(Gap {
                from: next,
                upto: TicketNumber(number.0.saturating_sub(1)),
            });
        }
        self.row.next = next.max(number.next());
        self.waiting.insert(number, ticket);
    }

    fn end(&mut self, ticket: QueueTicketId, end: PlaceEnd, book: &mut Book) {
        let Some(place) = self.places.get_mut(&ticket) else {
            return self.expect(book, Rule::QueuesMatchJournal, false, || {
                format!("place {ticket} ended, unknown")
            });
        };
        match place.state {
            PlaceState::Waiting => {
                if let Some(number) = place.number {
                    self.waiting.remove(&number);
                }
            }
            PlaceState::Admitted | PlaceState::Active { .. } => self.inside -= 1,
            PlaceState::Ended { .. } => return,
        }
        end.put_into(place);
        if self.live.get(&place.user) == Some(&ticket) {
            self.live.remove(&place.user);
        }
    }

    fn admit(&mut self, late: &[TicketNumber], upto: TicketNumber, terms: Terms, book: &mut Book) {
        let cursor = self.row.admitted_up_to;
        let mut tickets = Vec::new();
        for number in late {
            let ticket = self.waiting.remove(number);
            let waited = ticket.is_some() && *number <= cursor;
            self.expect(book, Rule::AdmittedInOrder, waited, || {
                format!("{} enters as one passed by, but is not", number.0)
            });
            tickets.extend(ticket);
        }
        // Who was passed by comes before all others.
        let passed = self.waiting.first_key_value().map(|(number, _)| *number);
        let passed = passed.filter(|number| *number <= cursor && upto > cursor);
        self.expect(
            book,
            Rule::AdmittedInOrder,
            passed.is_none() && upto >= cursor,
            || format!("{} enters before {passed:?}, after {}", upto.0, cursor.0),
        );
        while let Some(next) = self.waiting.first_entry()
            && *next.key() <= upto
            && upto > cursor
        {
            tickets.push(next.remove());
        }
        for ticket in &tickets {
            if let Some(place) = self.places.get_mut(ticket) {
                place.state = PlaceState::Admitted;
                self.inside += 1;
            }
        }
        let most = terms.max_active.unwrap_or(u32::MAX);
        self.expect(book, Rule::CapIsKept, self.inside <= most, || {
            format!(
                "with number {}, {} are inside; {most} may be",
                upto.0, self.inside
            )
        });
        if self.admitted.1.and_then(|terms| terms.admit) != terms.admit {
            self.window.clear();
        }
        let (next, of) = &mut self.admitted;
        next.extend(tickets);
        *of = Some(terms);
        self.row.admitted_up_to = cursor.max(upto);
    }

    fn open(&mut self, at: Timestamp, expires_at: Timestamp, book: &mut Book) {
        let terms = self.admitted.1;
        let mut metered = 0;
        for ticket in std::mem::take(&mut self.admitted.0) {
            let Some(place) = self.places.get_mut(&ticket) else {
                continue;
            };
            if place.state != PlaceState::Admitted {
                continue;
            }
            place.state = PlaceState::Active {
                granted_at: at,
                expires_at,
            };
            self.row.admitted_total += 1;
            let counts = |terms: Terms| place.number > Some(TicketNumber(terms.free_admission));
            metered += u64::from(terms.is_some_and(counts));
        }
        let Some(admit) = terms.and_then(|terms| terms.admit).filter(|_| metered > 0) else {
            return;
        };
        self.last_metered = Some(at);
        self.window.push_back((at, metered));
        let every = Millis::from_secs(admit.every_seconds);
        while self
            .window
            .front()
            .is_some_and(|(then, _)| then.plus(every) <= at)
        {
            self.window.pop_front();
        }
        let entered: u64 = self.window.iter().map(|(_, count)| count).sum();
        let most = u64::from(admit.count);
        self.expect(book, Rule::WindowIsKept, entered <= most, || {
            format!(
                "{entered} entered within the {} s before {at}; {most} may",
                admit.every_seconds
            )
        });
    }

    fn draw(&mut self, drawn: Drawn, book: &mut Book) {
        let Some(seed) = self.row.seed else {
            return self.expect(book, Rule::DrawFollowsSeed, false, || {
                "it was drawn without a seed".to_owned()
            });
        };
        let waits = |place: &&PlaceRow| {
            place.number.is_none() && matches!(place.state, PlaceState::Waiting)
        };
        let entrants = self.places.values().filter(waits);
        let mut entrants: Vec<QueueTicketId> = entrants.map(|place| place.ticket).collect();
        let is_all = usize::try_from(drawn.entrants) == Ok(entrants.len())
            && entrants_hash(entrants.iter().copied()) == drawn.entrants_hash;
        self.expect(book, Rule::DrawFollowsSeed, is_all, || {
            format!(
                "{} were drawn, {} had joined, and the hash of these is another",
                drawn.entrants,
                entrants.len()
            )
        });
        let ranks = Ranks::new(&seed);
        entrants.sort_by_cached_key(|ticket| (ranks.of(*ticket), *ticket));
        let mut number = drawn.first;
        for ticket in entrants {
            self.give(number, ticket, book);
            if let Some(place) = self.places.get_mut(&ticket) {
                place.number = Some(number);
            }
            number = number.next();
        }
        self.row.drawn = Some(drawn);
    }
}
