//! The parts of the HTTP contract that a buyer reads.

use serde::{Deserialize, Serialize};

/// The base of all paths.
pub(crate) const BASE: &str = "/api/v1";

#[derive(Debug, Deserialize)]
pub(crate) struct Items<T> {
    pub(crate) items: Vec<T>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Performance {
    pub(crate) performance_id: String,
    pub(crate) title: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Timetable {
    pub(crate) timetable_id: String,
    pub(crate) available: u32,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Layout {
    pub(crate) sections: Vec<Section>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) general_admission: bool,
    pub(crate) rows: Vec<Row>,
    /// Of a general-admission section.
    #[serde(default)]
    pub(crate) units: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) seats: Vec<LayoutSeat>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct LayoutSeat {
    pub(crate) seat_id: String,
}

/// The seat map, whole or as changes since a version.
#[derive(Debug, Deserialize)]
pub(crate) struct Seats {
    pub(crate) version: u64,
    #[serde(default)]
    pub(crate) statuses: Option<String>,
    #[serde(default)]
    pub(crate) changes: Option<Vec<(usize, String)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Counts {
    pub(crate) capacity: u32,
    pub(crate) available: u32,
    pub(crate) held: u32,
    pub(crate) sold: u32,
    pub(crate) blocked: u32,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Hold {
    pub(crate) hold_id: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Order {
    pub(crate) order_id: String,
    pub(crate) seats: Vec<OrderSeat>,
    pub(crate) amount: i64,
    pub(crate) tickets: Vec<String>,
    pub(crate) refunded: i64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OrderSeat {
    pub(crate) seat_id: String,
}

/// RFC 9457, with the members that a buyer acts on.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Problem {
    pub(crate) code: String,
    /// Of `seat-unavailable`: those that are taken.
    #[serde(default)]
    pub(crate) seat_ids: Vec<String>,
    /// Of `no-seats-match`.
    #[serde(default)]
    pub(crate) available: Option<u32>,
}

impl Problem {
    /// Of an answer's body; one that is no problem has an empty code.
    pub(crate) fn of(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }
}
