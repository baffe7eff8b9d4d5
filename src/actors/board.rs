//! The published seat map of a timetable.
//!
//! The actor writes every change to it before the reply that acknowledges the
//! change leaves; readers never reach the actor. A body is rendered at most
//! once a version, and shared.

mod copy;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::watch;

pub use self::copy::MapCopy;
use crate::domain::ids::{Epoch, ShardId, ShardSet, TimetableId, shard_of};
use crate::domain::seat::{SeatIndex, SeatStatus};
pub use crate::domain::timetable::SeatCounts;

/// How many changes can be told one by one; who is further behind gets the
/// whole map.
pub const CHANGES_MAX: usize = 4_096;

/// A copy that is older than this has its counts from elsewhere.
const COUNTS_AGE_MAX: Duration = Duration::from_secs(1);

/// The bits of a version that count within an epoch.
const COUNTER_BITS: u32 = 32;

/// Seats that changed, with their letters.
pub type Changes = Vec<(u32, char)>;

/// What a reader of the map gets.
#[derive(Clone, Debug)]
pub enum MapRead {
    /// The whole map at a version, as JSON.
    Whole { version: u64, body: Bytes },
    /// What changed since the version that the reader has.
    Since { version: u64, changes: Changes },
}

#[derive(Debug)]
struct State {
    /// One letter a seat; empty until the timetable has been loaded.
    statuses: Vec<u8>,
    counts: SeatCounts,
    /// The counts are known, not only supposed of a timetable that nobody has
    /// looked at yet.
    is_counted: bool,
    version: u64,
    /// Where it comes from.
    source: Source,
    /// The version at the last load: what is older is from another life.
    loaded_at: u64,
    changes: VecDeque<(u64, u32)>,
    rendered: Option<(u64, Bytes)>,
}

/// Where a map comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    /// It may be out of date: the timetable isn't in memory here.
    Cold,
    /// From the timetable itself.
    Here,
    /// From the node that owns the timetable, at this moment.
    Mirrored(tokio::time::Instant),
}

/// The seat map of one timetable.
#[derive(Debug)]
pub struct Board {
    id: TimetableId,
    /// Held while a copy is fetched from the owner.
    pub copying: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

impl Board {
    /// A map that isn't loaded yet, of which only the counts are supposed.
    fn cold(id: TimetableId, counts: SeatCounts) -> Self {
        let state = State {
            statuses: Vec::new(),
            counts,
            is_counted: false,
            version: 0,
            source: Source::Cold,
            loaded_at: 0,
            changes: VecDeque::new(),
            rendered: None,
        };
        Self {
            id,
            copying: tokio::sync::Mutex::new(()),
            state: Mutex::new(state),
            version: watch::Sender::new(0),
        }
    }

    /// Of which timetable.
    #[must_use]
    pub fn id(&self) -> TimetableId {
        self.id
    }

    /// The timetable was loaded: the map is as told, at a version above all
    /// that were ever shown.
    pub fn load(
        &self,
        epoch: Epoch,
        statuses: impl Iterator<Item = SeatStatus>,
        counts: SeatCounts,
    ) {
        let mut state = self.state.lock();
        state.statuses = statuses.map(SeatStatus::letter).collect();
        state.counts = counts;
        state.is_counted = true;
        state.source = Source::Here;
        state.version = (state.version + 1).max((u64::from(epoch.0) << COUNTER_BITS) + 1);
        state.loaded_at = state.version;
        state.changes.clear();
        let version = state.version;
        drop(state);
        self.version.send_replace(version);
    }

    /// Shows changed seats.
    pub fn change(
        &self,
        changed: impl Iterator<Item = (SeatIndex, SeatStatus)>,
        counts: SeatCounts,
    ) {
        let mut changed = changed.peekable();
        if changed.peek().is_none() {
            return;
        }
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        for (seat, status) in changed {
            if let Some(letter) = state.statuses.get_mut(seat.offset()) {
                *letter = status.letter();
            }
            if state.changes.len() >= CHANGES_MAX {
                state.changes.pop_front();
            }
            state.changes.push_back((version, seat.0));
        }
        state.counts = counts;
        drop(state);
        self.version.send_replace(version);
    }

    /// The timetable is another node's, or isn't loaded yet: what the map shows
    /// may be out of date.
    pub fn cool(&self) {
        self.state.lock().source = Source::Cold;
    }

    /// What the store, or its owner, knows of a timetable that isn't loaded here.
    pub fn count(&self, counts: SeatCounts) {
        let mut state = self.state.lock();
        let is_out_of_date = match state.source {
            Source::Cold => true,
            Source::Here => false,
            // Nobody has asked for the map for a while.
            Source::Mirrored(at) => at.elapsed() >= COUNTS_AGE_MAX,
        };
        if is_out_of_date {
            state.counts = counts;
            state.is_counted = true;
        }
    }

    /// Whether somebody who knows has told the counts.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.state.lock().is_counted
    }

    /// Whether the timetable itself keeps it up to date.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.state.lock().source == Source::Here
    }

    /// Something about the map has changed that isn't a seat (its layout's
    /// prices): a new version, so that readers fetch it again.
    pub fn touch(&self) {
        let mut state = self.state.lock();
        if state.version == 0 {
            return;
        }
        state.version += 1;
        let version = state.version;
        drop(state);
        self.version.send_replace(version);
    }

    /// How many seats are in which status.
    #[must_use]
    pub fn counts(&self) -> SeatCounts {
        self.state.lock().counts
    }

    /// The version now, and when it changes; 0 until the map is loaded.
    #[must_use]
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// How many seats of each section, given as ranges, are available.
    #[must_use]
    pub fn count_ranges(&self, ranges: &[std::ops::Range<u32>]) -> Vec<SeatCounts> {
        let state = self.state.lock();
        let count = |range: &std::ops::Range<u32>| {
            let mut counts = SeatCounts::default();
            let letters = state.statuses.get(range.start as usize..range.end as usize);
            for letter in letters.unwrap_or_default() {
                match letter {
                    b'A' => counts.available += 1,
                    b'H' => counts.held += 1,
                    b'S' => counts.sold += 1,
                    _ => counts.blocked += 1,
                }
            }
            counts
        };
        ranges.iter().map(count).collect()
    }

    /// The whole map as JSON; `layout_etag` names the layout that it is of.
    #[must_use]
    pub fn whole(&self, layout_etag: &str) -> (u64, Bytes) {
        let mut state = self.state.lock();
        if let Some((version, body)) = &state.rendered
            && *version == state.version
        {
            return (*version, body.clone());
        }
        let body = self.render(&state, layout_etag);
        state.rendered = Some((state.version, body.clone()));
        (state.version, body)
    }

    /// The map for a reader that has `since`.
    #[must_use]
    pub fn read(&self, since: Option<u64>, layout_etag: &str) -> MapRead {
        if let Some((version, changes)) = since.and_then(|since| self.since(since)) {
            return MapRead::Since { version, changes };
        }
        let (version, body) = self.whole(layout_etag);
        MapRead::Whole { version, body }
    }

    /// What changed since a version, each seat once; `None` if that is too
    /// long ago or from another life.
    #[must_use]
    pub fn since(&self, since: u64) -> Option<(u64, Changes)> {
        let state = self.state.lock();
        let oldest_gone = match state.changes.front() {
            Some((oldest, _)) if state.changes.len() >= CHANGES_MAX => *oldest,
            _ => state.loaded_at,
        };
        if since < oldest_gone || since > state.version {
            return None;
        }
        let mut seats: Vec<u32> = state
            .changes
            .iter()
            .rev()
            .take_while(|(version, _)| *version > since)
            .map(|(_, seat)| *seat)
            .collect();
        seats.sort_unstable();
        seats.dedup();
        let letter = |seat: u32| {
            state
                .statuses
                .get(seat as usize)
                .map(|l| (seat, char::from(*l)))
        };
        Some((
            state.version,
            seats.into_iter().filter_map(letter).collect(),
        ))
    }

    fn render(&self, state: &State, layout_etag: &str) -> Bytes {
        let SeatCounts {
            available,
            held,
            sold,
            blocked,
        } = state.counts;
        let mut body = String::with_capacity(state.statuses.len() + 320);
        // Writing to a String can't fail.
        let _ = write!(
            body,
            r#"{{"timetable_id":"{}","version":{},"layout_etag":{},"capacity":{},"available":{available},"held":{held},"sold":{sold},"blocked":{blocked},"statuses":""#,
            self.id,
            state.version,
            serde_json::Value::from(layout_etag),
            state.counts.capacity(),
        );
        // Only the four letters are ever put in.
        body.push_str(std::str::from_utf8(&state.statuses).unwrap_or_default());
        body.push_str("\"}");
        Bytes::from(body)
    }
}

/// The seat maps of all timetables.
#[derive(Debug, Default)]
pub struct Boards {
    boards: DashMap<TimetableId, Arc<Board>, foldhash::fast::RandomState>,
    by_shard: DashMap<ShardId, Vec<TimetableId>, foldhash::fast::RandomState>,
}

impl Boards {
    /// The map of a timetable; `counts` are what is known of one that isn't
    /// loaded.
    pub fn open(&self, id: TimetableId, counts: impl FnOnce() -> SeatCounts) -> Arc<Board> {
        if let Some(board) = self.boards.get(&id) {
            return Arc::clone(&board);
        }
        let board = self.boards.entry(id).or_insert_with(|| {
            self.by_shard.entry(shard_of(id.0)).or_default().push(id);
            Arc::new(Board::cold(id, counts()))
        });
        Arc::clone(&board)
    }

    /// The timetables of `shards` are another node's, or come anew.
    pub fn cool(&self, shards: &ShardSet) {
        for board in &self.boards {
            if shards.contains(shard_of(board.id.0)) {
                board.cool();
            }
        }
    }

    /// The timetables of a shard: those that an id with this shard in it may
    /// belong to.
    #[must_use]
    pub fn of_shard(&self, shard: ShardId) -> Vec<TimetableId> {
        self.by_shard
            .get(&shard)
            .map(|ids| ids.clone())
            .unwrap_or_default()
    }

    /// The map of a timetable that was opened before.
    #[must_use]
    pub fn get(&self, id: TimetableId) -> Option<Arc<Board>> {
        self.boards.get(&id).map(|board| Arc::clone(&board))
    }

    /// The counts of all timetables that `are_meant`.
    #[must_use]
    pub fn all_counts(
        &self,
        are_meant: impl Fn(TimetableId) -> bool,
    ) -> Vec<(TimetableId, SeatCounts)> {
        let boards = self.boards.iter();
        let meant = boards.filter(|board| are_meant(*board.key()));
        meant.map(|board| (board.id, board.counts())).collect()
    }

    /// The sum over all timetables, for the metrics.
    #[must_use]
    pub fn totals(&self) -> SeatCounts {
        let mut sum = SeatCounts::default();
        for board in &self.boards {
            let counts = board.counts();
            sum.available += counts.available;
            sum.held += counts.held;
            sum.sold += counts.sold;
            sum.blocked += counts.blocked;
        }
        sum
    }
}

#[cfg(test)]
mod tests;
