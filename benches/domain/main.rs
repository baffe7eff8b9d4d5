//! What the rules of a sale cost, on one core, without IO: time and memory.
//!
//! `cargo bench --bench domain`; run it while nothing else builds or runs.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints figures, and times what never waits"
)]

mod best_available;
mod decide;
mod memory;

use onsale::domain::layout::{Layout, SectionShape, SectionSpec};
use onsale::domain::seat::SeatIndex;

/// The server's, so that memory is what it would be there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The size of the map in every bench here.
const SEATS: u32 = 50_000;

fn main() {
    // First, for it is measured by how the process grows.
    memory::bench();
    decide::bench();
    best_available::bench();
}

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

    pub(crate) fn seat(&mut self) -> SeatIndex {
        SeatIndex((self.next() % u64::from(SEATS)) as u32)
    }
}
