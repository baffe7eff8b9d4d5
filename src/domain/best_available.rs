//! Which of the free seats a buyer gets who names none.
//!
//! # The rules
//!
//! A *run* is a longest possible line of free seats side by side in one row; a
//! *block* is a part of a run. Only numbered seats of the sections that fit the
//! wish are looked at.
//!
//! A block *strands* a seat where it leaves exactly one free seat between itself
//! and an end of its run: that seat is hard to sell. So a block strands 0, 1 or
//! 2 seats. A run that is already a single seat strands nobody.
//!
//! What a block *costs* is how far it is from the best place, in half seat
//! widths:
//!
//! ```text
//! cost = HALF_SEATS_PER_ROW × depth of the row in its section
//!      + |2 × seats before the block in its row + seats of the block − seats of the row|
//! ```
//!
//! The second line is twice the distance between the centres of the block and of
//! its row. A row further back is as bad as two seats further from the centre,
//! which is about what it is in metres (0.9 m against 2 × 0.5 m). The depth is
//! [`crate::domain::layout::Row::depth`]: 0 for the front row.
//!
//! **Together** ([`Wish::adjacent`]): of all blocks of the wanted size, the first
//! by
//!
//! 1. fewest stranded seats,
//! 2. least cost,
//! 3. least depth,
//! 4. lowest seat index, that is, earlier section, earlier row, lower number.
//!
//! If no run is long enough the wish is refused.
//!
//! **As close as can be** (not `adjacent`):
//!
//! 1. The *anchor* is the block that is first by the list above among the blocks
//!    of the largest size there is, at most the wanted one. If that is the wanted
//!    size, it is the answer: nobody is seated worse for not insisting.
//! 2. Otherwise no run is longer than the anchor, which is therefore a whole run.
//!    The other runs are taken whole, the nearest first, while they aren't more
//!    than is missing. Nearest is the first by: fewest sections away from the
//!    anchor's in venue order; least distance; lowest seat index.
//!    `distance = HALF_SEATS_PER_ROW × difference of depths + gap`, where the gap
//!    is the distance along the row in half seat widths, with the centres of all
//!    rows in one line: each spans from the centre of its first seat to the centre
//!    of its last, and the gap is 0 if these spans overlap.
//! 3. Of the last run so many seats are taken as are missing: the block that is
//!    first by fewest stranded seats; least distance of its centre from the
//!    anchor's, along the row; lowest number.
//!
//! So nobody is refused while enough seats are left. The seats of an answer are
//! in venue order.
//!
//! **General admission**: the units with the lowest numbers that are free.

use std::collections::BinaryHeap;

use smallvec::SmallVec;

use crate::domain::layout::{Layout, Row, Section, SectionIndex};
use crate::domain::seat::{SeatIndex, Seats};

mod free;

pub use free::FreeSeats;

/// How many half seat widths a row further back counts for.
pub const HALF_SEATS_PER_ROW: u32 = 4;

/// What a buyer wants who names no seats.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// How many seats.
    pub count: u32,
    /// Which sections fit. Asked once for each section with free seats.
    pub sections: &'a dyn Fn(SectionIndex) -> bool,
    /// Whether all must be side by side in one row.
    pub adjacent: bool,
}

impl FreeSeats {
    /// The best free seats for a wish, by the rules of this module. They are not
    /// taken yet. A wish for no seats is granted.
    ///
    /// # Errors
    /// How many numbered seats are free in the sections that fit, if those can't
    /// fulfil the wish.
    pub fn choose(&self, layout: &Layout, wish: &Wish<'_>) -> Result<Seats, usize> {
        let mut available = 0;
        let mut sections: Sections<'_> = SmallVec::new();
        for (section, index) in layout.sections().iter().zip(0u16..) {
            let index = SectionIndex(index);
            let free = self.free_in_section(index);
            if free > 0 && !section.general_admission && (wish.sections)(index) {
                available += free;
                sections.push((index, section));
            }
        }
        if wish.count == 0 {
            return Ok(Seats::new());
        }
        if wish.count > available {
            return Err(available as usize);
        }
        let search = Search {
            free: self,
            layout,
            sections: &sections,
        };
        let shortest = if wish.adjacent { wish.count } else { 1 };
        match search.best_block(wish.count, shortest) {
            Some(block) if block.missing == 0 => Ok(block.seats().collect()),
            Some(anchor) => Ok(search.around(&anchor)),
            None => Err(available as usize),
        }
    }

    /// The `count` free units of a general-admission section that have the
    /// lowest numbers. They are not taken yet.
    ///
    /// # Errors
    /// How many units are free in it, if those are fewer than `count`; 0 if it
    /// isn't a general-admission section.
    pub fn take_units(
        &self,
        layout: &Layout,
        section: SectionIndex,
        count: u32,
    ) -> Result<Seats, u32> {
        let Some(place) = layout.section(section).filter(|s| s.general_admission) else {
            return Err(0);
        };
        let free = self.free_in_section(section);
        if free < count {
            return Err(free);
        }
        let runs = self.runs(place.first.0, place.first.0 + place.seats, 1);
        let units = runs.flat_map(|run| run.map(SeatIndex));
        Ok(units.take(count as usize).collect())
    }
}

/// The sections that fit a wish and have free seats.
type Sections<'a> = SmallVec<[(SectionIndex, &'a Section); 16]>;

/// Seats side by side, ordered from the best to the worst for one wish.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    /// How many seats it has less than wanted.
    missing: u32,
    stranded: u32,
    cost: u32,
    depth: u32,
    first: u32,
    /// From here on, what follows from `first`: never compared.
    len: u32,
    section: SectionIndex,
    /// The place of its first seat in its row.
    start: u32,
    /// The first seat of its row.
    row: SeatIndex,
    row_seats: u32,
}

impl Block {
    fn seats(&self) -> impl Iterator<Item = SeatIndex> + use<> {
        (self.first..self.first + self.len).map(SeatIndex)
    }
}

/// A run, ordered from the nearest to the anchor to the furthest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NearRun {
    sections_away: u16,
    distance: u32,
    first: u32,
    /// From here on, what follows from `first`: never compared.
    len: u32,
    start: u32,
    row_seats: u32,
}

struct Search<'a> {
    free: &'a FreeSeats,
    layout: &'a Layout,
    sections: &'a [(SectionIndex, &'a Section)],
}

impl Search<'_> {
    /// The rows of a section with the number of free seats in each.
    fn rows(&self, section: &Section) -> impl Iterator<Item = (&Row, u32)> {
        let range = section.rows.start as usize..section.rows.end as usize;
        let rows = self.layout.rows().get(range.clone()).unwrap_or_default();
        let free = self.free.rows().get(range).unwrap_or_default();
        rows.iter().zip(free.iter().copied())
    }

    /// The best block of the largest size from `shortest` to `wanted`.
    fn best_block(&self, wanted: u32, shortest: u32) -> Option<Block> {
        let mut best: Option<Block> = None;
        for (index, section) in self.sections {
            for (row, free) in self.rows(section) {
                let row_cost = HALF_SEATS_PER_ROW * row.depth;
                let shortest = match &best {
                    None => shortest,
                    // A row this far back can't have a better one as long.
                    Some(best) if best.stranded == 0 && row_cost > best.cost => best.len + 1,
                    Some(best) => best.len,
                };
                if free < shortest || shortest > wanted {
                    continue;
                }
                let row_first = row.first.0;
                let (mut from, mut start_before) = (row_first, row_first + row.seats);
                if let Some(best) = &best
                    && best.missing == 0
                    && best.stranded == 0
                {
                    // Nor can a block have that begins further from the centre.
                    let (spare, aside) = (row.seats.saturating_sub(wanted), best.cost - row_cost);
                    let nearest_start = spare.saturating_sub(aside) / 2;
                    from = self.free.run_start(row_first, row_first + nearest_start);
                    start_before = start_before.min(row_first + (spare + aside) / 2 + 1);
                }
                let runs = self.free.runs(from, row_first + row.seats, shortest);
                for run in runs.take_while(|run| run.start < start_before) {
                    let run_len = run.end - run.start;
                    let len = run_len.min(wanted);
                    let start = run.start - row_first;
                    let place = place_in_run(start, run_len, len, row.seats, 0);
                    let block = Block {
                        missing: wanted - len,
                        stranded: place.stranded,
                        cost: row_cost + place.off_centre,
                        depth: row.depth,
                        first: row_first + place.start,
                        len,
                        section: *index,
                        start: place.start,
                        row: row.first,
                        row_seats: row.seats,
                    };
                    if best.is_none_or(|best| block < best) {
                        best = Some(block);
                    }
                }
            }
        }
        best
    }

    /// The anchor, and the nearest other seats until there are as many as wanted.
    /// So many must be free.
    fn around(&self, anchor: &Block) -> Seats {
        let mut nearest = self.nearest_runs(anchor);
        let mut missing = anchor.missing;
        let mut seats: Seats = anchor.seats().collect();
        // Only the furthest is more than is missing, see `nearest_runs`.
        let last = nearest.pop();
        for run in nearest {
            missing -= run.len.min(missing);
            seats.extend((run.first..run.first + run.len).map(SeatIndex));
        }
        if let Some(run) = last {
            let len = run.len.min(missing);
            let centre = centre(anchor.start, anchor.len, anchor.row_seats);
            let place = place_in_run(run.start, run.len, len, run.row_seats, centre);
            let first = run.first + (place.start - run.start);
            seats.extend((first..first + len).map(SeatIndex));
        }
        seats.sort_unstable();
        seats
    }

    /// As few of the runs nearest to the anchor as have the missing seats; the
    /// furthest is last. The work is O(runs × log(answer)). It goes from the anchor
    /// outwards, only to meet the nearest early and then skip most of the rest.
    fn nearest_runs(&self, anchor: &Block) -> BinaryHeap<NearRun> {
        let mut nearest = Nearest {
            anchor,
            runs: BinaryHeap::new(),
            seats: 0,
        };
        let mut sections: Sections<'_> = self.sections.iter().copied().collect();
        sections.sort_by_key(|(index, _)| index.0.abs_diff(anchor.section.0));
        for (index, section) in sections {
            let sections_away = index.0.abs_diff(anchor.section.0);
            if nearest.is_too_far(sections_away, 0) {
                break;
            }
            let rows = self.layout.rows();
            let range = section.rows.start as usize..section.rows.end as usize;
            let rows = rows.get(range.clone()).unwrap_or_default();
            let free = self.free.rows().get(range).unwrap_or_default();
            let split = rows.partition_point(|row| row.first < anchor.row);
            let behind = rows.iter().zip(free).skip(split);
            let before = rows.iter().zip(free).take(split).rev();
            for (row, free) in behind.chain(before) {
                if *free > 0 {
                    nearest.add_row(self.free, sections_away, row);
                }
            }
        }
        nearest.runs
    }
}

/// The nearest runs found so far, no more than necessary.
struct Nearest<'a> {
    anchor: &'a Block,
    runs: BinaryHeap<NearRun>,
    /// How many seats `runs` have.
    seats: u32,
}

impl Nearest<'_> {
    /// Whether nothing so far away is needed.
    fn is_too_far(&self, sections_away: u16, distance: u32) -> bool {
        let furthest = self
            .runs
            .peek()
            .map(|run| (run.sections_away, run.distance));
        self.seats >= self.anchor.missing && furthest.is_some_and(|f| f < (sections_away, distance))
    }

    fn add_row(&mut self, free: &FreeSeats, sections_away: u16, row: &Row) {
        let anchor = self.anchor;
        let rows_away = HALF_SEATS_PER_ROW * row.depth.abs_diff(anchor.depth);
        if self.is_too_far(sections_away, rows_away) {
            return;
        }
        let (row_first, row_seats) = (row.first.0, row.seats);
        for run in free.runs(row_first, row_first + row_seats, 1) {
            let (first, start, len) = (run.start, run.start - row_first, run.end - run.start);
            let distance = rows_away + gap(anchor, start, len, row_seats);
            if first == anchor.first || self.is_too_far(sections_away, distance) {
                continue;
            }
            self.runs.push(NearRun {
                sections_away,
                distance,
                first,
                len,
                start,
                row_seats,
            });
            self.seats += len;
            // Drop the furthest while the others are enough.
            while let Some(last) = self.runs.peek()
                && self.seats - last.len >= anchor.missing
            {
                self.seats -= last.len;
                self.runs.pop();
            }
        }
    }
}

/// Where in a run a block goes.
struct Place {
    stranded: u32,
    /// From the wished centre, in half seat widths.
    off_centre: u32,
    /// In the row.
    start: u32,
}

/// The best place for a block of `len` seats in the run of `run_len` seats that
/// begins with seat `start` (from 0) of its row: fewest stranded, then its centre
/// nearest to `target` (see [`centre`]), then lowest number.
///
/// In constant time: with one seat to spare either end strands it. Otherwise
/// both ends strand none, and so do all places with two free seats on both sides.
fn place_in_run(start: u32, run_len: u32, len: u32, row_seats: u32, target: i32) -> Place {
    let spare = run_len - len;
    let last = start + spare;
    let off_centre = |at: u32| centre(at, len, row_seats).abs_diff(target);
    let mut best = (off_centre(start), start);
    best = best.min((off_centre(last), last));
    if spare >= 4 {
        // The lower of the places nearest to the target, were there no ends.
        let ideal = (target + row_seats as i32 - len as i32).div_euclid(2);
        let middle = ideal.clamp(start as i32 + 2, last as i32 - 2) as u32;
        best = best.min((off_centre(middle), middle));
    }
    Place {
        stranded: u32::from(spare == 1),
        off_centre: best.0,
        start: best.1,
    }
}

/// How far the centre of `len` seats from seat `start` (from 0) is to the right of
/// their row's centre, in half seat widths.
fn centre(start: u32, len: u32, row_seats: u32) -> i32 {
    // All are at most SEATS_PER_ROW_MAX.
    (2 * start + len) as i32 - row_seats as i32
}

/// How far a run is from the anchor along the row, in half seat widths, as if the
/// centres of their rows were in one line; 0 if they overlap.
fn gap(anchor: &Block, start: u32, len: u32, row_seats: u32) -> u32 {
    // The centres of the first and last seat of each.
    let first = |start, row_seats| centre(start, 1, row_seats);
    let left = first(anchor.start, anchor.row_seats) - first(start + len - 1, row_seats);
    let right = first(start, row_seats) - first(anchor.start + anchor.len - 1, anchor.row_seats);
    left.max(right).max(0).unsigned_abs()
}

#[cfg(test)]
mod tests;
