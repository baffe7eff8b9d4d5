//! One queue after the other: its journal, and its rows against it.

use std::collections::{HashMap, HashSet};

use futures_util::TryStreamExt as _;

use super::journal;
use super::progress::Progress;
use super::queue_replay::QueueReplay;
use super::report::{Book, Rule};
use super::snapshot::Snapshot;
use crate::domain::ids::{PerformanceId, QueueTicketId, UserId};
use crate::domain::queue::line::TicketNumber;
use crate::domain::queue::restore::{PlaceRow, PlaceState, QueueRow};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::stored::queue as stored;
use crate::persistence::stored::reader::Reader as _;

/// Every queue that something is stored of.
const ALL: &str = "SELECT id FROM queue UNION SELECT queue_id FROM queue_place \
     UNION SELECT id FROM entity WHERE kind = 'queue' \
     UNION SELECT entity FROM journal WHERE kind = 'queue' ORDER BY 1";

/// Later than anything that is stored: what needs no more be kept then may be
/// gone.
const LATER: Timestamp = Timestamp(i64::MAX);

/// Audits all queues. In memory is one of them at a time.
pub(super) async fn audit(
    c: &mut Snapshot,
    book: &mut Book,
    progress: &mut Progress,
) -> Result<(), StoreError> {
    for id in c.ids(ALL).await?.into_iter().map(PerformanceId) {
        let mut replay = QueueReplay::new(id);
        let tell = |life, _, event, book: &mut Book| {
            replay.lived_by(life);
            replay.apply(&event, book);
        };
        let is_whole = journal::read(c, id.into(), book, progress, tell).await?;
        let replay = is_whole.then_some(replay);
        let row = c.one(stored::QUEUE, &[id.0.into()]).await?;
        let row = row.as_ref().map(stored::queue_row).transpose()?;
        let mut rows = Rows {
            id,
            queue: row.unwrap_or_default(),
            seen: HashSet::new(),
            numbers: HashMap::new(),
            live: HashMap::new(),
        };
        if let Some(replay) = &replay {
            rows.check_queue(replay, book);
        }
        rows.check_places(c, replay.as_ref(), book).await?;
        progress.tick(0);
    }
    Ok(())
}

/// The rows of one queue.
struct Rows {
    id: PerformanceId,
    queue: QueueRow,
    seen: HashSet<QueueTicketId>,
    numbers: HashMap<TicketNumber, QueueTicketId>,
    /// The live place of each user.
    live: HashMap<UserId, QueueTicketId>,
}

impl Rows {
    fn expect(&self, book: &mut Book, rule: Rule, holds: bool, what: impl FnOnce() -> String) {
        book.expect(rule, holds, || format!("queue {}: {}", self.id, what()));
    }

    fn check_queue(&self, replay: &QueueReplay, book: &mut Book) {
        let told = replay.stored();
        let without_grants = QueueRow {
            grants: Vec::new(),
            ..self.queue.clone()
        };
        let is_same = without_grants == *told;
        self.expect(book, Rule::QueuesMatchJournal, is_same, || {
            format!("its row is {without_grants:?}, by the journal {told:?}")
        });
        let (last, grants) = (replay.last_metered, &self.queue.grants);
        let goes_on = last.is_none_or(|last| grants.iter().any(|grant| grant.at >= last));
        self.expect(book, Rule::GrantsMatchJournal, goes_on, || {
            format!("the last entry was at {last:?}, remembered are {grants:?}")
        });
    }

    async fn check_places(
        &mut self,
        c: &mut Snapshot,
        replay: Option<&QueueReplay>,
        book: &mut Book,
    ) -> Result<(), StoreError> {
        let mut rows = c.rows(stored::PLACES, &[self.id.0.into()]);
        while let Some(row) = rows.try_next().await? {
            let place = stored::place(&row)?;
            self.seen.insert(place.ticket);
            self.check_place(&place, book);
            if let Some(replay) = replay {
                let told = replay.places.get(&place.ticket);
                let is_told = told.is_some_and(|told| is_same(&place, told));
                self.expect(book, Rule::QueuesMatchJournal, is_told, || {
                    format!("{place:?} is by the journal {told:?}")
                });
            }
        }
        let told = replay.into_iter().flat_map(|replay| replay.places.values());
        for place in told.filter(|place| !self.seen.contains(&place.ticket)) {
            let may_be_gone = !place.matters(&self.queue, LATER);
            self.expect(book, Rule::QueuesMatchJournal, may_be_gone, || {
                format!("{place:?} is lost")
            });
        }
        Ok(())
    }

    /// What must be true of it beside the others.
    fn check_place(&mut self, place: &PlaceRow, book: &mut Book) {
        let PlaceRow { ticket, user, .. } = *place;
        let is_live = match place.state {
            PlaceState::Waiting | PlaceState::Active { .. } => true,
            PlaceState::Admitted => {
                book.waiting.admitted += 1;
                true
            }
            PlaceState::Ended { .. } => false,
        };
        let before = match is_live {
            true => self.live.insert(user, ticket),
            false => None,
        };
        self.expect(book, Rule::OnePlaceAUser, before.is_none(), || {
            format!("user {user} has place {ticket} beside {before:?}")
        });
        let Some(number) = place.number else { return };
        let before = self.numbers.insert(number, ticket);
        let is_one = before.is_none() && number <= self.queue.reserved_upto;
        self.expect(book, Rule::NumbersAreReserved, is_one, || {
            format!(
                "number {} of place {ticket} is also that of {before:?}; reserved are those up to {}",
                number.0, self.queue.reserved_upto.0
            )
        });
        let is_passed = number <= self.queue.admitted_up_to;
        let was_lost = || self.queue.gaps.iter().any(|gap| gap.has(number));
        let is_in_turn = match place.state {
            // Who comes back with a lost number is next.
            PlaceState::Waiting => !is_passed || was_lost(),
            PlaceState::Admitted | PlaceState::Active { .. } => is_passed,
            PlaceState::Ended { .. } => true,
        };
        self.expect(book, Rule::AdmittedInOrder, is_in_turn, || {
            format!(
                "number {} is {:?}, admitted were those up to {}",
                number.0, place.state, self.queue.admitted_up_to.0
            )
        });
    }
}

/// Whether a stored place is the one that the journal tells. Rows that weren't
/// written since the draw don't have its numbers; the times of passes and ends
/// are kept in seconds.
fn is_same(stored: &PlaceRow, told: &PlaceRow) -> bool {
    let number = match stored.entrant {
        true => stored.number.is_none() || stored.number == told.number,
        false => stored.number == told.number,
    };
    let seconds = |at: Timestamp| at.0.div_euclid(1_000);
    let state = match (stored.state, told.state) {
        (
            PlaceState::Active {
                granted_at,
                expires_at,
            },
            PlaceState::Active {
                granted_at: told_at,
                expires_at: told_until,
            },
        ) => seconds(granted_at) == seconds(told_at) && expires_at == told_until,
        (
            PlaceState::Ended {
                end,
                at,
                pass_until,
            },
            PlaceState::Ended {
                end: told_end,
                at: told_at,
                pass_until: told_until,
            },
        ) => end == told_end && seconds(at) == seconds(told_at) && pass_until == told_until,
        (stored, told) => stored == told,
    };
    let rest = |place: &PlaceRow| (place.ticket, place.user, place.entrant, place.joined_at);
    number && state && rest(stored) == rest(told)
}
