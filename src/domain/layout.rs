//! The geometry of a venue: its sections, rows and seats, and their names.
//!
//! A [`Layout`] never changes once built, so that a seat's index and name mean
//! the same for the life of the venue. Seats are counted row-major over all
//! sections in the order they were given; a general-admission section has its
//! units in its place. Nothing is kept per seat: names and positions are
//! computed from the row, so that a layout of 50,000 seats takes some ten KiB.
//!
//! The stage lies towards smaller `y`. Coordinates are in seat widths.

use std::fmt::{self, Write as _};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::domain::seat::SeatIndex;

mod build;
mod spec;

pub use spec::{LayoutProblem, RowSpec, SectionShape, SectionSpec};

/// The most seats (and general-admission units) of one venue.
pub const CAPACITY_MAX: u32 = 200_000;
/// The most sections of one venue.
pub const SECTIONS_MAX: u32 = 1_000;
/// The most rows of one section.
pub const ROWS_PER_SECTION_MAX: u32 = 10_000;
/// The most seats of one row.
pub const SEATS_PER_ROW_MAX: u32 = 10_000;
/// The longest name of a section or row, in characters (the HTTP contract).
pub const NAME_CHARS_MAX: usize = 32;
/// The largest magnitude of a coordinate. Seats one apart are still told apart
/// by an `f32` there.
pub const COORDINATE_MAX: f32 = 1_000_000.0;
/// General-admission units are numbered with at least so many digits
/// (the HTTP contract: `PIT-000001`).
const UNIT_DIGITS: usize = 6;

/// The place of a section in its venue, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SectionIndex(pub u16);

/// The place of a row in its venue, counted over all sections from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RowIndex(pub u32);

/// A part of a venue, the unit that prices go by.
#[derive(Clone, PartialEq, Debug)]
pub struct Section {
    /// Unique in the venue.
    pub name: Box<str>,
    /// Its first seat or unit.
    pub first: SeatIndex,
    /// How many seats or units it has; at least 1.
    pub seats: u32,
    /// Its rows, as a range of [`Layout::rows`]; empty for general admission.
    pub rows: Range<u32>,
    /// Whether its units have no numbered seats.
    pub general_admission: bool,
    /// Where it begins, in seat widths.
    pub x: f32,
    /// Where it begins, in seat widths from the stage.
    pub y: f32,
    /// Whether all of it can be reached and used with a wheelchair.
    pub accessible: bool,
}

/// A line of seats numbered from 1.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// The section it is in.
    pub section: SectionIndex,
    /// Unique in its section.
    pub name: Box<str>,
    /// The seat with number 1.
    pub first: SeatIndex,
    /// How many seats it has; at least 1.
    pub seats: u32,
    /// Where its first seat is, in seat widths.
    pub x: f32,
    /// Where it is, in seat widths from the stage.
    pub y: f32,
    /// How many different `y` nearer the stage the rows of its section have:
    /// 0 for the front row. Rows side by side are equally deep.
    pub depth: u32,
    /// Whether its seats are for wheelchair users.
    pub accessible: bool,
}

/// The sections, rows and seats of a venue.
#[derive(Clone, PartialEq, Debug)]
pub struct Layout {
    capacity: u32,
    sections: Box<[Section]>,
    rows: Box<[Row]>,
    /// The sections in the order of their names.
    sections_by_name: Box<[u16]>,
    /// Each section's range of rows, in the order of their names.
    rows_by_name: Box<[u32]>,
}

impl Layout {
    /// Makes the layout that `specs` describe.
    ///
    /// # Errors
    /// The first thing found that breaks a rule of the HTTP contract or one of
    /// the limits in this module. Absurd counts cost nothing.
    pub fn build(specs: &[SectionSpec]) -> Result<Self, LayoutProblem> {
        build::build(specs)
    }

    /// How many seats and general-admission units the venue has.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// All sections in venue order.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// All rows in venue order. General admission has none.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The section with this index.
    #[must_use]
    pub fn section(&self, index: SectionIndex) -> Option<&Section> {
        self.sections.get(usize::from(index.0))
    }

    /// The row with this index.
    #[must_use]
    pub fn row(&self, index: RowIndex) -> Option<&Row> {
        self.rows.get(index.0 as usize)
    }

    /// The section that has this name.
    #[must_use]
    pub fn section_named(&self, name: &str) -> Option<SectionIndex> {
        let name_at = |at: &u16| self.sections.get(usize::from(*at)).map_or("", |s| &*s.name);
        let found = self
            .sections_by_name
            .binary_search_by(|at| name_at(at).cmp(name))
            .ok()?;
        self.sections_by_name.get(found).copied().map(SectionIndex)
    }

    /// The section a seat is in; `None` if the venue has no such seat.
    #[must_use]
    pub fn section_of(&self, seat: SeatIndex) -> Option<SectionIndex> {
        if seat.0 >= self.capacity {
            return None;
        }
        let after = self.sections.partition_point(|s| s.first <= seat);
        u16::try_from(after.checked_sub(1)?).ok().map(SectionIndex)
    }

    /// The row a seat is in; `None` for a general-admission unit and for a seat
    /// that the venue doesn't have.
    #[must_use]
    pub fn row_of(&self, seat: SeatIndex) -> Option<RowIndex> {
        let at = self
            .rows
            .partition_point(|r| r.first <= seat)
            .checked_sub(1)?;
        let row = self.rows.get(at)?;
        let number = seat.0 - row.first.0;
        (number < row.seats).then_some(RowIndex(at as u32))
    }

    /// The seat with this name. Only the form that [`Layout::name_of`] gives is
    /// taken, so that a seat has one name.
    #[must_use]
    pub fn seat_named(&self, name: &str) -> Option<SeatIndex> {
        let (section_name, rest) = name.split_once('-')?;
        let section = self.section(self.section_named(section_name)?)?;
        if section.general_admission {
            return nth(section.first, section.seats, number_of_unit(rest)?);
        }
        let (row_name, number) = rest.split_once('-')?;
        let range = section.rows.start as usize..section.rows.end as usize;
        let by_name = self.rows_by_name.get(range)?;
        let name_at = |at: &u32| self.rows.get(*at as usize).map_or("", |r| &*r.name);
        let found = by_name
            .binary_search_by(|at| name_at(at).cmp(row_name))
            .ok()?;
        let row = self.row(RowIndex(*by_name.get(found)?))?;
        nth(row.first, row.seats, number_of_seat(number)?)
    }

    /// The name of a seat, e.g. `F1-A-12`, or of a unit, e.g. `PIT-000001`.
    #[must_use]
    pub fn name_of(&self, seat: SeatIndex) -> SeatName<'_> {
        if let Some(row) = self.row_of(seat).and_then(|row| self.row(row)) {
            let section = self.section(row.section).map_or("", |s| &*s.name);
            let number = seat.0 - row.first.0 + 1;
            return SeatName {
                section,
                row: Some(&row.name),
                number,
            };
        }
        match self
            .section_of(seat)
            .and_then(|section| self.section(section))
        {
            Some(section) => {
                let number = seat.0 - section.first.0 + 1;
                SeatName {
                    section: &section.name,
                    row: None,
                    number,
                }
            }
            None => SeatName {
                section: "?",
                row: Some("?"),
                number: seat.0,
            },
        }
    }

    /// Where a seat is, in seat widths; a general-admission unit is where its
    /// section begins, and a seat that the venue doesn't have at the origin.
    #[must_use]
    pub fn position_of(&self, seat: SeatIndex) -> (f32, f32) {
        if let Some(row) = self.row_of(seat).and_then(|row| self.row(row)) {
            return (row.x + (seat.0 - row.first.0) as f32, row.y);
        }
        let section = self
            .section_of(seat)
            .and_then(|section| self.section(section));
        section.map_or((0.0, 0.0), |s| (s.x, s.y))
    }
}

/// The seat with number `number`, from 1, of `seats` that begin at `first`.
fn nth(first: SeatIndex, seats: u32, number: u32) -> Option<SeatIndex> {
    (1..=seats)
        .contains(&number)
        .then(|| SeatIndex(first.0 + number - 1))
}

/// Reads the number of a seat: decimal, without sign or leading zeros.
fn number_of_seat(text: &str) -> Option<u32> {
    // `parse` alone would take "+1" and "01".
    if !text.bytes().all(|c| c.is_ascii_digit()) || text.starts_with('0') {
        return None;
    }
    text.parse().ok()
}

/// Reads the number of a unit: [`UNIT_DIGITS`] digits, more only if needed.
fn number_of_unit(text: &str) -> Option<u32> {
    if text.len() > UNIT_DIGITS {
        return number_of_seat(text);
    }
    let canonical = text.len() == UNIT_DIGITS && text.bytes().all(|c| c.is_ascii_digit());
    canonical.then(|| text.parse().ok()).flatten()
}

/// The name of a seat in parts; shown as in the HTTP contract, e.g. `F1-A-12`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeatName<'a> {
    /// The name of its section.
    pub section: &'a str,
    /// The name of its row; `None` for a general-admission unit.
    pub row: Option<&'a str>,
    /// Its number, from 1, in its row or general-admission section.
    pub number: u32,
}

impl SeatName<'_> {
    /// Appends the name to `out`.
    pub fn push_to(&self, out: &mut String) {
        // Writing to a String can't fail.
        let _ = write!(out, "{self}");
    }
}

impl fmt::Display for SeatName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.section)?;
        f.write_char('-')?;
        if let Some(row) = self.row {
            f.write_str(row)?;
            write!(f, "-{}", self.number)
        } else {
            write!(f, "{:0UNIT_DIGITS$}", self.number)
        }
    }
}

#[cfg(test)]
mod tests;
