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
        let row = layout.row_of(seat);
        // A numbered seat's row knows the section: no second search.
        let section = match row.and_then(|row| layout.row(row)) {
            Some(row) => Some(row.section),
            None => layout.section_of(seat),
        };
        let row = row.and_then(|row| self.rows.get_mut(row.0 as usize));
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

    /// The runs of at least `shortest` free seats from index `from` to before
    /// `end`, in order.
    pub(super) fn runs(
        &self,
        from: u32,
        end: u32,
        shortest: u32,
    ) -> impl Iterator<Item = Range<u32>> {
        let mut at = from;
        std::iter::from_fn(move || {
            loop {
                let first = self.next_free(at, end, shortest);
                if first >= end {
                    return None;
                }
                at = self.next_taken(first + 1, end);
                if at - first >= shortest {
                    return Some(first..at);
                }
            }
        })
    }

    /// The first seat from `from` on that is free and so are the seats after it,
    /// `shortest` in all or as many as a word has bits; `end` if there is none.
    /// Goes word by word: 64 seats cost about as much as one.
    fn next_free(&self, from: u32, end: u32, shortest: u32) -> u32 {
        let mut base = from - from % u64::BITS;
        let mut word = self.word(base, end) & (u64::MAX << (from % u64::BITS));
        while base < end {
            let next = self.word(base + u64::BITS, end);
            // Bit n stays set where the bits from n to before n + len are.
            let mut starts = u128::from(word) | u128::from(next) << u64::BITS;
            let mut len = 1;
            while len < shortest.min(u64::BITS) {
                let step = len.min(shortest - len);
                starts &= starts >> step;
                len += step;
            }
            let starts = starts as u64;
            if starts != 0 {
                return base + starts.trailing_zeros();
            }
            word = next;
            base += u64::BITS;
        }
        end
    }

    /// The first seat from `from` on that isn't free; `end` if there is none.
    fn next_taken(&self, from: u32, end: u32) -> u32 {
        let mut base = from - from % u64::BITS;
        let mut free_before = (1 << (from % u64::BITS)) - 1;
        while base < end {
            let free = (self.word(base, end) | free_before).trailing_ones();
            if free < u64::BITS {
                return base + free;
            }
            free_before = 0;
            base += u64::BITS;
        }
        end
    }

    /// Where the run begins that the seat before `seat` is in, no earlier than
    /// `from`; `seat` itself if that seat isn't free.
    pub(super) fn run_start(&self, from: u32, seat: u32) -> u32 {
        let mut at = seat;
        while at > from {
            let base = (at - 1) - (at - 1) % u64::BITS;
            // Past `at` all count as free, for they are not asked about.
            let taken = !self.word(base, at) & (u64::MAX >> (u64::BITS - (at - base)));
            if taken != 0 {
                return (base + u64::BITS - taken.leading_zeros()).max(from);
            }
            at = base;
        }
        from
    }

    /// The 64 seats from `base` on, of which those from `end` on aren't free.
    fn word(&self, base: u32, end: u32) -> u64 {
        let word = self
            .words
            .get((base / u64::BITS) as usize)
            .copied()
            .unwrap_or(0);
        let before_end = end.saturating_sub(base);
        if before_end >= u64::BITS {
            word
        } else {
            word & ((1 << before_end) - 1)
        }
    }
}

/// The word that has a seat's bit, and that bit.
fn place(seat: SeatIndex) -> (usize, u64) {
    ((seat.0 / u64::BITS) as usize, 1 << (seat.0 % u64::BITS))
}
