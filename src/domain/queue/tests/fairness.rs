//! Whether the draw is fair: over many seeds, everybody is everywhere equally
//! often, whenever they came.

use super::draw::{Ranks, Seed};
use super::*;

const PEOPLE: usize = 8;
const SEEDS: u64 = 2_000;

/// With 7 degrees of freedom, chi-square is above this once in two million
/// fair draws. The seeds are fixed: the test has one outcome.
const CHI_SQUARE_MAX: f64 = 44.0;

/// A seed as the operating system would give it.
fn seed(number: u64) -> Seed {
    let mut bytes = [0; 32];
    let mut state = number;
    for chunk in bytes.chunks_mut(8) {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    Seed(bytes)
}

/// How often each was drawn at each place, and how far that is from fair: the
/// chi-square of the worst.
fn worst(mut draw: impl FnMut(u64) -> Vec<usize>) -> f64 {
    let mut counts = [[0_u32; PEOPLE]; PEOPLE];
    for number in 0..SEEDS {
        for (place, person) in draw(number).into_iter().enumerate() {
            counts[person][place] += 1;
        }
    }
    let expected = SEEDS as f64 / PEOPLE as f64;
    let chi_square = |row: &[u32; PEOPLE]| -> f64 {
        let off = |count: &u32| (f64::from(*count) - expected).powi(2) / expected;
        row.iter().map(off).sum()
    };
    counts.iter().map(chi_square).fold(0.0, f64::max)
}

/// In the order of their ranks; tickets rise as people come.
fn drawn(number: u64) -> Vec<usize> {
    let ranks = Ranks::new(&seed(number));
    let mut people: Vec<usize> = (0..PEOPLE).collect();
    people.sort_by_key(|person| ranks.of(ticket(*person as u32 + 1)));
    people
}

#[test]
fn over_many_seeds_nobody_has_an_advantage_by_coming_early_or_late() {
    let worst_drawn = worst(drawn);
    assert!(worst_drawn < CHI_SQUARE_MAX, "{worst_drawn}");
}

#[test]
fn a_draw_that_favours_the_first_one_slightly_is_found_out() {
    let biased = worst(|number| {
        let mut people = drawn(number);
        // In one draw of twelve the first to come goes to the front.
        if number % 12 == 0 {
            people.sort_by_key(|person| *person != 0);
        }
        people
    });
    assert!(biased > CHI_SQUARE_MAX, "{biased}");
}
