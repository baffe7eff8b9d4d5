//! What the benches of the rules share: a hall, a sale in it, and who buys.

#![allow(
    dead_code,
    reason = "each bench uses a part of it, and is a crate of its own"
)]

use std::sync::Arc;

use onsale::domain::ids::{HoldId, PerformanceId, TimetableId, UserId};
use onsale::domain::layout::{Layout, SectionShape, SectionSpec};
use onsale::domain::money::{Currency, Money};
use onsale::domain::plan::{Grade, GradeIndex, Limits, Plan};
use onsale::domain::seat::{SeatIndex, Seats};
use onsale::domain::time::Timestamp;
use onsale::domain::timetable::{Choice, Command};
use uuid::Uuid;

/// The size of the map in every bench here.
pub(crate) const SEATS: u32 = 50_000;
/// Who holds.
const USERS: u64 = 20_000;
pub(crate) const PRICE: Money = Money(100_000);
pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// A hall of like sections.
pub(crate) fn grid(sections: u32, rows: u32, seats_per_row: u32) -> Layout {
    let specs: Vec<SectionSpec> = (0..sections)
        .map(|at| SectionSpec {
            name: format!("S{at}"),
            shape: SectionShape::Grid {
                rows,
                seats_per_row,
            },
            x: 0.0,
            y: 0.0,
            accessible: false,
        })
        .collect();
    Layout::build(&specs).unwrap_or_else(|problem| panic!("{}: {problem}", problem.field()))
}

/// Marsaglia's generator with shifts 13, 7, 17: the same numbers in every run.
pub(crate) struct Xorshift(pub(crate) u64);

impl Xorshift {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end)) as u32
    }

    pub(crate) fn seat(&mut self) -> SeatIndex {
        SeatIndex(self.below(SEATS))
    }
}

/// What a sale of `layout` goes by; nobody is limited to few seats.
pub(crate) fn plan(layout: Layout) -> Arc<Plan> {
    let sections = layout.sections().len();
    Arc::new(Plan {
        timetable_id: TimetableId(Uuid::from_u128(1)),
        performance_id: PerformanceId(Uuid::from_u128(2)),
        layout: Arc::new(layout),
        grades: vec![Grade {
            name: "ALL".to_owned(),
            price: PRICE,
            max_per_user: None,
            opens_at: None,
            closes_at: None,
        }],
        grade_of_section: vec![GradeIndex(0); sections],
        currency: Currency::KRW,
        opens_at: Timestamp(0),
        closes_at: Timestamp(i64::MAX),
        starts_at: Timestamp(i64::MAX),
        limits: Limits {
            max_seats_per_user: 100_000,
            ..Limits::default()
        },
        withdrawn: false,
    })
}

/// A hold of `count` seats from `first` on.
pub(crate) fn hold(number: u64, first: u32, count: u32) -> Command {
    let seats: Seats = (first..first + count).map(SeatIndex).collect();
    Command::Hold {
        hold: hold_id(number),
        user: user(number),
        choice: Choice::Seats {
            seats,
            unknown: Vec::new(),
        },
        under_pass: false,
    }
}

pub(crate) fn hold_id(number: u64) -> HoldId {
    HoldId(scattered(number, 3))
}

pub(crate) fn user(number: u64) -> UserId {
    UserId(scattered(number % USERS, 4))
}

/// An id as spread as those of production, without the cost of making it.
pub(crate) fn scattered(number: u64, kind: u64) -> Uuid {
    Uuid::from_u64_pair(number, (number + kind).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
