//! The description that a layout is built from, and what may be wrong with it.

use serde::{Deserialize, Serialize};

use super::{CAPACITY_MAX, COORDINATE_MAX, NAME_CHARS_MAX};

/// Describes a section. This is what the store keeps (as JSON), so a member
/// added later must have a default.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SectionSpec {
    /// 1 to [`NAME_CHARS_MAX`] letters or digits of any script, unique in the
    /// venue.
    pub name: String,
    /// Its seats or units.
    pub shape: SectionShape,
    /// Where it begins, in seat widths.
    #[serde(default)]
    pub x: f32,
    /// Where it begins, in seat widths from the stage.
    #[serde(default)]
    pub y: f32,
    /// Whether all of it can be reached and used with a wheelchair.
    #[serde(default)]
    pub accessible: bool,
}

/// The seats or units of a section.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SectionShape {
    /// Rows with names of their own, the front row first.
    Rows(Vec<RowSpec>),
    /// Equal rows named A…Z, AA….
    Grid {
        /// How many rows.
        rows: u32,
        /// How many seats each of them has.
        seats_per_row: u32,
    },
    /// Room for people without numbered seats.
    GeneralAdmission {
        /// How many people.
        units: u32,
    },
}

/// Describes a row.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RowSpec {
    /// 1 to [`NAME_CHARS_MAX`] letters or digits of any script, unique in the
    /// section.
    pub name: String,
    /// How many seats it has.
    pub seats: u32,
    /// Where its first seat is in the venue, in seat widths; where it isn't
    /// given, rows are centred on the widest of their section.
    #[serde(default)]
    pub x: Option<f32>,
    /// Where it is in the venue, in seat widths from the stage; where it isn't
    /// given, rows follow one another from the beginning of their section.
    #[serde(default)]
    pub y: Option<f32>,
    /// Whether its seats are for wheelchair users.
    #[serde(default)]
    pub accessible: bool,
}

/// Why a description isn't a layout. The messages are for the one who wrote the
/// description.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutProblem {
    /// A name is empty, too long or has a character that isn't allowed.
    #[error("must be 1 to {NAME_CHARS_MAX} letters or digits")]
    BadName {
        /// See [`LayoutProblem::field`].
        field: String,
    },
    /// A section or row has the name of an earlier one.
    #[error("is the name of an earlier one")]
    DuplicateName {
        /// See [`LayoutProblem::field`].
        field: String,
    },
    /// There must be at least one of these.
    #[error("must be at least one")]
    None {
        /// See [`LayoutProblem::field`].
        field: String,
    },
    /// There are more of these than a limit allows.
    #[error("must be at most {max}")]
    TooMany {
        /// See [`LayoutProblem::field`].
        field: String,
        /// The limit.
        max: u32,
    },
    /// With these the venue has more than [`CAPACITY_MAX`] seats.
    #[error("a venue has at most {CAPACITY_MAX} seats")]
    TooManySeats {
        /// See [`LayoutProblem::field`].
        field: String,
    },
    /// A coordinate isn't a number or is out of range.
    #[error("must be a number from -{COORDINATE_MAX} to {COORDINATE_MAX}")]
    BadCoordinate {
        /// See [`LayoutProblem::field`].
        field: String,
    },
}

impl LayoutProblem {
    /// What it is about, as a path into the request that creates a venue in the
    /// HTTP contract, e.g. `sections[3].rows[0].name`.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::BadName { field }
            | Self::DuplicateName { field }
            | Self::None { field }
            | Self::TooMany { field, .. }
            | Self::TooManySeats { field }
            | Self::BadCoordinate { field } => field,
        }
    }
}
