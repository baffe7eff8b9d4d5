//! Maps of timetables that another node owns: copied from there, piece by piece.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Board, CHANGES_MAX, Changes, Source};
use crate::domain::timetable::SeatCounts;

/// A map on its way from the owner to another node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MapCopy {
    version: u64,
    counts: SeatCounts,
    seats: CopiedSeats,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum CopiedSeats {
    /// One letter a seat.
    Whole(Bytes),
    /// Those that changed since the version that was asked about.
    Changed(Changes),
}

impl Board {
    /// Whether it is a copy, however old.
    #[must_use]
    pub fn is_copied(&self) -> bool {
        matches!(self.state.lock().source, Source::Mirrored(_))
    }

    /// Whether it is a copy that was taken less than `age` ago.
    #[must_use]
    pub fn is_fresh_copy(&self, age: Duration) -> bool {
        matches!(self.state.lock().source, Source::Mirrored(at) if at.elapsed() < age)
    }

    /// The map for another node that has version `since` of it.
    #[must_use]
    pub fn copy_since(&self, since: u64) -> MapCopy {
        let changed = self.since(since);
        let state = self.state.lock();
        let seats = match changed {
            // Nothing has happened in between.
            Some((version, changes)) if version == state.version => CopiedSeats::Changed(changes),
            _ => CopiedSeats::Whole(Bytes::copy_from_slice(&state.statuses)),
        };
        MapCopy {
            version: state.version,
            counts: state.counts,
            seats,
        }
    }

    /// Takes the copy that the owner gave at `at`, for version `since`. `false`
    /// if it doesn't fit what is here: then the whole is needed.
    pub fn mirror(&self, since: u64, copy: MapCopy, at: tokio::time::Instant) -> bool {
        let mut state = self.state.lock();
        match copy.seats {
            CopiedSeats::Whole(letters) => {
                state.statuses = letters.to_vec();
                state.changes.clear();
                state.loaded_at = copy.version;
            }
            CopiedSeats::Changed(_) if state.version != since => return false,
            CopiedSeats::Changed(changes) => {
                for (seat, letter) in changes {
                    let Some(place) = state.statuses.get_mut(seat as usize) else {
                        return false;
                    };
                    // One of the four letters.
                    *place = u8::try_from(letter).unwrap_or(b'X');
                    if state.changes.len() >= CHANGES_MAX {
                        state.changes.pop_front();
                    }
                    state.changes.push_back((copy.version, seat));
                }
            }
        }
        let is_news = state.version != copy.version;
        state.version = copy.version;
        state.counts = copy.counts;
        state.is_counted = true;
        state.source = Source::Mirrored(at);
        drop(state);
        if is_news {
            self.version.send_replace(copy.version);
        }
        true
    }
}
