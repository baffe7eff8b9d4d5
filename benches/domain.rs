//! What the rules of a sale cost, on one core, without IO.
//!
//! `cargo bench --bench domain`; run it while nothing else builds or runs.

#![allow(
    clippy::print_stdout,
    reason = "printing figures is what a bench is for"
)]

use std::time::{Duration, Instant};

use onsale::domain::best_available::{FreeSeats, Wish};
use onsale::domain::layout::{Layout, SectionIndex, SectionShape, SectionSpec};
use onsale::domain::seat::SeatIndex;

/// The size of the map in every bench here.
const SEATS: u32 = 50_000;
/// How full it is kept.
const FULL_PERCENT: u32 = 90;
/// How many choices are timed for each figure.
const ROUNDS: usize = 20_000;
/// What the 99th percentile of a choice of 1 to 8 seats may be.
const CHOICE_P99_MAX: Duration = Duration::from_micros(50);

fn main() {
    for (sections, rows, seats_per_row) in [(10, 50, 100), (50, 50, 20)] {
        choose(sections, rows, seats_per_row);
    }
}

/// Best available on a map with this shape that is kept [`FULL_PERCENT`] full: a
/// choice is timed, then taken, and as many other seats come back.
fn choose(sections: u32, rows: u32, seats_per_row: u32) {
    assert_eq!(sections * rows * seats_per_row, SEATS);
    println!(
        "best available, {SEATS} seats in {sections} sections of {rows} rows of {seats_per_row}, \
         {FULL_PERCENT} % full"
    );
    let layout = grid(sections, rows, seats_per_row);
    for adjacent in [true, false] {
        for count in 1..=8 {
            let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
            let mut free = filled(&layout, &mut random);
            let wish = Wish {
                count,
                sections: &|_: SectionIndex| true,
                adjacent,
            };
            let (mut found, mut times) = (0, Vec::with_capacity(ROUNDS));
            for _ in 0..ROUNDS {
                let start = Instant::now();
                let choice = free.choose(&layout, &wish);
                times.push(start.elapsed());
                let chosen = choice.unwrap_or_default();
                found += usize::from(!chosen.is_empty());
                for seat in chosen {
                    free.take(&layout, seat);
                }
                fill_to_percent(&layout, &mut free, &mut random);
            }
            report(count, adjacent, found, &mut times);
        }
    }
}

fn report(count: u32, adjacent: bool, found: usize, times: &mut [Duration]) {
    times.sort_unstable();
    let percentile = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    let (p50, p99) = (percentile(50), percentile(99));
    let kind = if adjacent { "together" } else { "close" };
    println!(
        "  {count} {kind:8}  found {:5.1} %  p50 {:6.2} µs  p99 {:6.2} µs  = {:.2} of what it may be",
        100.0 * found as f64 / ROUNDS as f64,
        p50.as_secs_f64() * 1e6,
        p99.as_secs_f64() * 1e6,
        p99.as_secs_f64() / CHOICE_P99_MAX.as_secs_f64(),
    );
}

fn grid(sections: u32, rows: u32, seats_per_row: u32) -> Layout {
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

/// All seats but [`FULL_PERCENT`] of them, anywhere.
fn filled(layout: &Layout, random: &mut Xorshift) -> FreeSeats {
    let mut free = FreeSeats::new(layout);
    while free.total() > SEATS * (100 - FULL_PERCENT) / 100 {
        free.take(layout, random.seat());
    }
    free
}

/// Gives seats anywhere back until [`FULL_PERCENT`] are taken.
fn fill_to_percent(layout: &Layout, free: &mut FreeSeats, random: &mut Xorshift) {
    while free.total() < SEATS * (100 - FULL_PERCENT) / 100 {
        free.release(layout, random.seat());
    }
}

/// Marsaglia's generator with shifts 13, 7, 17: the same numbers in every run.
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn seat(&mut self) -> SeatIndex {
        SeatIndex((self.next() % u64::from(SEATS)) as u32)
    }
}
