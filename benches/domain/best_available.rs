//! The choice of the best free seats on a map that is 90 % full.

use std::time::{Duration, Instant};

use onsale::domain::best_available::{FreeSeats, Wish};
use onsale::domain::layout::{Layout, SectionIndex};
use onsale::domain::seat::SeatIndex;

use crate::scene::{SEATS, Xorshift, grid};

/// How full the map is kept.
const FULL_PERCENT: u32 = 90;
/// How many choices are timed for each figure.
const ROUNDS: usize = 20_000;
/// How many changes of a seat are timed together.
const CHANGES: u32 = 1_000_000;
/// What the 99th percentile of a choice of 1 to 8 seats may be.
const CHOICE_P99_MAX: Duration = Duration::from_micros(50);

/// All choices on two kinds of halls.
pub(crate) fn bench() {
    for (sections, rows, seats_per_row) in [(10, 50, 100), (50, 50, 20)] {
        println!(
            "{SEATS} seats in {sections} sections of {rows} rows of {seats_per_row}, {FULL_PERCENT} % full"
        );
        assert_eq!(sections * rows * seats_per_row, SEATS);
        let layout = grid(sections, rows, seats_per_row);
        take_and_release(&layout);
        // Where seats come back one by one hardly any are side by side: the worst
        // case, for all must be looked at.
        for (adjacent, party_max) in [(true, 4), (true, 1), (false, 1)] {
            for count in 1..=8 {
                choose(&layout, count, adjacent, party_max);
            }
        }
    }
}

/// What one change of one seat's state costs.
fn take_and_release(layout: &Layout) {
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let mut free = FreeSeats::new(layout);
    let seats: Vec<SeatIndex> = (0..CHANGES).map(|_| random.seat()).collect();
    let start = Instant::now();
    for seat in &seats {
        if !free.take(layout, *seat) {
            free.release(layout, *seat);
        }
    }
    let each = start.elapsed().as_secs_f64() * 1e9 / f64::from(CHANGES);
    println!(
        "  take or release a seat: {each:.0} ns, {} free in the end",
        free.total()
    );
}

/// Best available on a map that is kept [`FULL_PERCENT`] full: a choice is timed,
/// then taken, and as many other seats come back, 1 to `party_max` side by side.
fn choose(layout: &Layout, count: u32, adjacent: bool, party_max: u32) {
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let mut free = filled(layout, party_max, &mut random);
    let wish = Wish {
        count,
        sections: &|_: SectionIndex| true,
        adjacent,
    };
    let (mut found, mut times) = (0, Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let choice = free.choose(layout, &wish);
        times.push(start.elapsed());
        let chosen = choice.unwrap_or_default();
        found += usize::from(!chosen.is_empty());
        for seat in chosen {
            free.take(layout, seat);
        }
        fill_to_percent(layout, &mut free, party_max, &mut random);
    }
    let kind = if adjacent { "together" } else { "close" };
    report(
        &format!("{count} {kind:8}, parties to {party_max}"),
        found,
        &mut times,
    );
}

fn report(what: &str, found: usize, times: &mut [Duration]) {
    times.sort_unstable();
    let percentile = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    let (p50, p99) = (percentile(50), percentile(99));
    println!(
        "  {what}: found {:5.1} %  p50 {:6.2} µs  p99 {:6.2} µs  = {:.2} of what it may be",
        100.0 * found as f64 / ROUNDS as f64,
        p50.as_secs_f64() * 1e6,
        p99.as_secs_f64() * 1e6,
        p99.as_secs_f64() / CHOICE_P99_MAX.as_secs_f64(),
    );
}

/// All taken but what [`fill_to_percent`] gives back.
fn filled(layout: &Layout, party_max: u32, random: &mut Xorshift) -> FreeSeats {
    let mut free = FreeSeats::new(layout);
    for seat in 0..SEATS {
        free.take(layout, SeatIndex(seat));
    }
    fill_to_percent(layout, &mut free, party_max, random);
    free
}

/// Gives parties of 1 to `party_max` seats anywhere back until
/// [`FULL_PERCENT`] are taken.
fn fill_to_percent(layout: &Layout, free: &mut FreeSeats, party_max: u32, random: &mut Xorshift) {
    while free.total() < SEATS * (100 - FULL_PERCENT) / 100 {
        let (first, size) = (random.seat().0, 1 + random.next() as u32 % party_max);
        for seat in first..first + size {
            free.release(layout, SeatIndex(seat));
        }
    }
}
