//! The set of free seats.

use std::ops::Range;

use crate::domain::layout::{Layout, SectionIndex};
use crate::domain::seat::SeatIndex;

/// Which seats and general-admission units of a layout are available, with their
/// counts by row and section. It belongs to the layout it was made for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FreeSeats {
    /// One bit a seat, by seat index; bits past the capacity are 0.
    words: Box<[u64]>,
    /// By row index.
    rows: Box<[u32]>,
    /// By section index.
    sections: Box<[u32]>,
    total: u32,
}

impl FreeSeats {
    /// All seats of `layout`.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        let capacity = layout.capacity();
        let mut words = vec![u64::MAX; capacity.div_ceil(u64::BITS) as usize];
        if let Some(last) = words.last_mut()
            && !capacity.is_multiple_of(u64::BITS)
        {
            *last = (1 << (capacity % u64::BITS)) - 1;
        }
        Self {
            words: words.into(),
            rows: layout.rows().iter().map(|row| row.seats).collect(),
            sections: layout
                .sections()
                .iter()
                .map(|section| section.seats)
                .collect(),
            total: capacity,
        }
    }

    /// Whether the seat is free; a seat that the venue doesn't have isn't.
    #[must_use]
    pub fn is_free(&self, seat: SeatIndex) -> bool {
        let (word, bit) = place(seat);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Makes a seat not free. Returns whether it was; if not, nothing changes.
    pub fn take(&mut self, layout: &Layout, seat: SeatIndex) -> bool {
        if !self.is_free(seat) {
            return false;
        }
        self.flip(layout, seat, |count| count.saturating_sub(1));
        true
    }

    /// Makes a seat free. Returns whether it wasn't; if it was, or the venue has
    /// no such seat, nothing changes.
    pub fn release(&mut self, layout: &Layout, seat: SeatIndex) -> bool {
        if self.is_free(seat) || seat.0 >= layout.capacity() {
            return false;
        }
        self.flip(layout, seat, |count| count.saturating_add(1));
        true
    }

    fn flip(&mut self, layout: &Layout, seat: SeatIndex, step: fn(u32) -> u32) {
        let (word, bit) = place(seat);
        if let Some(word) = self.words.get_mut(word) {
            *word ^= bit;
        }
        let row = layout
            .row_of(seat)
            .and_then(|row| self.rows.get_mut(row.0 as usize));
        let section = layout.section_of(seat);
        let section = section.and_then(|at| self.sections.get_mut(usize::from(at.0)));
        for count in row.into_iter().chain(section).chain([&mut self.total]) {
            *count = step(*count);
        }
    }

    /// How many seats or units of a section are free; 0 if the venue has no such
    /// section.
    #[must_use]
    pub fn free_in_section(&self, section: SectionIndex) -> u32 {
        self.sections
            .get(usize::from(section.0))
            .copied()
            .unwrap_or(0)
    }

    /// How many seats and units are free.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total
    }

    /// How many seats are free in each row.
    pub(super) fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// The runs of free seats from index `from` to before `end`, in order.
    pub(super) fn runs(&self, from: u32, end: u32) -> impl Iterator<Item = Range<u32>> {
        let mut at = from;
        std::iter::from_fn(move || {
            let first = self.next(at, end, 0);
            if first >= end {
                return None;
            }
            at = self.next(first + 1, end, u64::MAX);
            Some(first..at)
        })
    }

    /// The first seat from `from` on that is free (`inverted` = 0) or isn't
    /// (`inverted` = all ones); `end` if there is none before it. Goes word by
    /// word, so that 64 seats cost about as much as one.
    fn next(&self, from: u32, end: u32, inverted: u64) -> u32 {
        let mut ahead = u64::MAX << (from % u64::BITS);
        let mut base = from - from % u64::BITS;
        while base < end {
            let word = self
                .words
                .get((base / u64::BITS) as usize)
                .copied()
                .unwrap_or(0);
            let bits = (word ^ inverted) & ahead;
            if bits != 0 {
                return (base + bits.trailing_zeros()).min(end);
            }
            ahead = u64::MAX;
            base += u64::BITS;
        }
        end
    }
}

/// The word that has a seat's bit, and that bit.
fn place(seat: SeatIndex) -> (usize, u64) {
    ((seat.0 / u64::BITS) as usize, 1 << (seat.0 % u64::BITS))
}
