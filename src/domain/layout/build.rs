//! Checks a description and lays its rows out.

use super::{
    CAPACITY_MAX, COORDINATE_MAX, Layout, LayoutProblem, NAME_CHARS_MAX, ROWS_PER_SECTION_MAX, Row,
    RowSpec, SEATS_PER_ROW_MAX, SECTIONS_MAX, Section, SectionIndex, SectionShape, SectionSpec,
};
use crate::domain::seat::SeatIndex;

pub(super) fn build(specs: &[SectionSpec]) -> Result<Layout, LayoutProblem> {
    count_is_within("sections", specs.len() as u64, SECTIONS_MAX)?;
    let mut builder = Builder {
        capacity: 0,
        sections: Vec::with_capacity(specs.len()),
        rows: Vec::new(),
    };
    for (at, spec) in specs.iter().enumerate() {
        builder.add_section(&format!("sections[{at}]"), spec)?;
    }
    builder.finish()
}

/// The beginning of a layout. All its counts are within the limits.
struct Builder {
    capacity: u32,
    sections: Vec<Section>,
    rows: Vec<Row>,
}

impl Builder {
    fn add_section(&mut self, path: &str, spec: &SectionSpec) -> Result<(), LayoutProblem> {
        name_is_valid(path, &spec.name)?;
        coordinate_is_valid(path, "x", spec.x)?;
        coordinate_is_valid(path, "y", spec.y)?;
        let first = SeatIndex(self.capacity);
        let first_row = self.rows.len();
        match &spec.shape {
            SectionShape::Rows(rows) => self.add_rows(path, spec, rows)?,
            SectionShape::Grid {
                rows,
                seats_per_row,
            } => {
                self.add_grid(path, spec, *rows, *seats_per_row)?;
            }
            SectionShape::GeneralAdmission { units } => {
                let field = format!("{path}.general_admission");
                count_is_within(&field, u64::from(*units), CAPACITY_MAX)?;
                self.add_seats(&field, u64::from(*units))?;
            }
        }
        set_depths(self.rows.get_mut(first_row..).unwrap_or_default());
        self.sections.push(Section {
            name: spec.name.as_str().into(),
            first,
            seats: self.capacity - first.0,
            // At most as many rows as seats, so they fit u32.
            rows: first_row as u32..self.rows.len() as u32,
            general_admission: matches!(spec.shape, SectionShape::GeneralAdmission { .. }),
            x: spec.x,
            y: spec.y,
            accessible: spec.accessible,
        });
        Ok(())
    }

    fn add_rows(
        &mut self,
        path: &str,
        spec: &SectionSpec,
        rows: &[RowSpec],
    ) -> Result<(), LayoutProblem> {
        count_is_within(
            &format!("{path}.rows"),
            rows.len() as u64,
            ROWS_PER_SECTION_MAX,
        )?;
        let widest = rows.iter().map(|row| row.seats).max().unwrap_or(0);
        for (at, row) in rows.iter().enumerate() {
            let path = format!("{path}.rows[{at}]");
            name_is_valid(&path, &row.name)?;
            let field = format!("{path}.seats");
            count_is_within(&field, u64::from(row.seats), SEATS_PER_ROW_MAX)?;
            let x = row.x.unwrap_or(spec.x + (widest - row.seats) as f32 / 2.0);
            let y = row.y.unwrap_or(spec.y + at as f32);
            if row.x.is_some() {
                coordinate_is_valid(&path, "x", x)?;
            }
            if row.y.is_some() {
                coordinate_is_valid(&path, "y", y)?;
            }
            let accessible = spec.accessible || row.accessible;
            self.add_row(
                &field,
                row.name.as_str().into(),
                row.seats,
                (x, y),
                accessible,
            )?;
        }
        Ok(())
    }

    fn add_grid(
        &mut self,
        path: &str,
        spec: &SectionSpec,
        rows: u32,
        seats: u32,
    ) -> Result<(), LayoutProblem> {
        count_is_within(
            &format!("{path}.grid.rows"),
            u64::from(rows),
            ROWS_PER_SECTION_MAX,
        )?;
        let field = format!("{path}.grid.seats_per_row");
        count_is_within(&field, u64::from(seats), SEATS_PER_ROW_MAX)?;
        for at in 0..rows {
            let place = (spec.x, spec.y + at as f32);
            self.add_row(
                &field,
                grid_row_name(at).into(),
                seats,
                place,
                spec.accessible,
            )?;
        }
        Ok(())
    }

    fn add_row(
        &mut self,
        field: &str,
        name: Box<str>,
        seats: u32,
        (x, y): (f32, f32),
        accessible: bool,
    ) -> Result<(), LayoutProblem> {
        let first = SeatIndex(self.capacity);
        self.add_seats(field, u64::from(seats))?;
        // SECTIONS_MAX fits u16.
        let section = SectionIndex(self.sections.len() as u16);
        self.rows.push(Row {
            section,
            name,
            first,
            seats,
            x,
            y,
            depth: 0,
            accessible,
        });
        Ok(())
    }

    fn add_seats(&mut self, field: &str, seats: u64) -> Result<(), LayoutProblem> {
        self.capacity = u32::try_from(u64::from(self.capacity) + seats)
            .ok()
            .filter(|capacity| *capacity <= CAPACITY_MAX)
            .ok_or_else(|| LayoutProblem::TooManySeats {
                field: field.to_owned(),
            })?;
        Ok(())
    }

    fn finish(self) -> Result<Layout, LayoutProblem> {
        let Self {
            capacity,
            sections,
            rows,
        } = self;
        let names: Vec<&str> = sections.iter().map(|section| &*section.name).collect();
        let order = order_of_names(&names).map_err(|at| LayoutProblem::DuplicateName {
            field: format!("sections[{at}].name"),
        })?;
        let sections_by_name = order.into_iter().map(|at| at as u16).collect();

        let mut rows_by_name = Vec::with_capacity(rows.len());
        for (number, section) in sections.iter().enumerate() {
            let range = section.rows.start as usize..section.rows.end as usize;
            let in_section = rows.get(range).unwrap_or_default();
            let names: Vec<&str> = in_section.iter().map(|row| &*row.name).collect();
            let order = order_of_names(&names).map_err(|at| LayoutProblem::DuplicateName {
                field: format!("sections[{number}].rows[{at}].name"),
            })?;
            rows_by_name.extend(order.into_iter().map(|at| section.rows.start + at as u32));
        }
        Ok(Layout {
            capacity,
            sections: sections.into(),
            rows: rows.into(),
            sections_by_name,
            rows_by_name: rows_by_name.into(),
        })
    }
}

/// Ranks the rows of one section by their distance from the stage.
fn set_depths(rows: &mut [Row]) {
    let mut distances: Vec<f32> = rows.iter().map(|row| row.y).collect();
    distances.sort_unstable_by(f32::total_cmp);
    distances.dedup();
    for row in rows {
        row.depth = distances.partition_point(|y| *y < row.y) as u32;
    }
}

/// The indices of `names` in the order of the names, or the index of the first
/// that repeats an earlier one.
fn order_of_names(names: &[&str]) -> Result<Vec<usize>, usize> {
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|at| names.get(*at));
    let repeats = order.iter().zip(order.iter().skip(1));
    let first = repeats
        .filter(|(a, b)| names.get(**a) == names.get(**b))
        .map(|(_, b)| *b)
        .min();
    first.map_or(Ok(order), Err)
}

/// A…Z, AA…AZ, BA…: the bijective numbers of base 26.
fn grid_row_name(at: u32) -> String {
    let mut letters = Vec::new();
    let mut rest = at + 1;
    while rest > 0 {
        letters.push(char::from(b'A' + ((rest - 1) % 26) as u8));
        rest = (rest - 1) / 26;
    }
    letters.iter().rev().collect()
}

fn name_is_valid(path: &str, name: &str) -> Result<(), LayoutProblem> {
    // The length goes first: a name of a megabyte is not read to its end.
    let short = name.chars().take(NAME_CHARS_MAX + 1).count() <= NAME_CHARS_MAX;
    if short && !name.is_empty() && name.chars().all(char::is_alphanumeric) {
        Ok(())
    } else {
        Err(LayoutProblem::BadName {
            field: format!("{path}.name"),
        })
    }
}

fn coordinate_is_valid(path: &str, axis: &str, value: f32) -> Result<(), LayoutProblem> {
    // NaN is in no range.
    if (-COORDINATE_MAX..=COORDINATE_MAX).contains(&value) {
        Ok(())
    } else {
        Err(LayoutProblem::BadCoordinate {
            field: format!("{path}.{axis}"),
        })
    }
}

fn count_is_within(field: &str, count: u64, max: u32) -> Result<(), LayoutProblem> {
    if count == 0 {
        Err(LayoutProblem::None {
            field: field.to_owned(),
        })
    } else if count > u64::from(max) {
        Err(LayoutProblem::TooMany {
            field: field.to_owned(),
            max,
        })
    } else {
        Ok(())
    }
}
