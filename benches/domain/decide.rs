//! Deciding a hold of seats that were named, on a map of 50,000 seats.

use std::hint::black_box;
use std::time::Instant;

use onsale::domain::decision::{Machine as _, step};
use onsale::domain::ids::Seq;
use onsale::domain::timetable::{Command, Timetable};

use crate::scene::{NOW, SEATS, Xorshift, grid, hold, hold_id, plan, user};

/// How many decisions are timed together.
const ROUNDS: u32 = 1_000_000;
/// How often that is repeated; the median counts.
const REPEATS: usize = 5;
/// How many holds a second `decide` must do on one core.
const DECIDE_AIM: f64 = 2e6;
/// How much of the map is held by others.
const FULL_PERCENT: u32 = 50;

/// `decide` alone, and with all that follows from it.
pub(crate) fn bench() {
    let timetable = half_full();
    println!("holds of named seats, {SEATS} seats, {FULL_PERCENT} % held by others");
    for count in [1, 2, 4] {
        let rate = median(|| decide_alone(&timetable, count));
        println!(
            "  decide, {count} seats: {:.2} million/s = {:.2} × the aim of {:.0} million/s",
            rate / 1e6,
            rate / DECIDE_AIM,
            DECIDE_AIM / 1e6
        );
        let rate = median(|| hold_and_release(timetable.clone(), count));
        println!(
            "  decide and apply a hold, then its release, {count} seats: {:.2} million commands/s",
            rate / 1e6
        );
    }
}

/// Decisions a second, of holds that could be.
fn decide_alone(timetable: &Timetable, count: u32) -> f64 {
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let starts: Vec<u32> = (0..1024)
        .map(|_| free_start(timetable, count, &mut random))
        .collect();
    let start = Instant::now();
    let mut held = 0;
    for round in 0..ROUNDS {
        let first = starts[round as usize % starts.len()];
        let command = hold(u64::from(round), first, count);
        held += u32::from(black_box(timetable.decide(NOW, black_box(command))).is_ok());
    }
    assert_eq!(held, ROUNDS, "each could be held");
    f64::from(ROUNDS) / start.elapsed().as_secs_f64()
}

/// Commands a second, each hold with its release.
fn hold_and_release(mut timetable: Timetable, count: u32) -> f64 {
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let starts: Vec<u32> = (0..1024)
        .map(|_| free_start(&timetable, count, &mut random))
        .collect();
    let mut seq = Seq::default();
    let start = Instant::now();
    for round in 0..ROUNDS / 2 {
        let first = starts[round as usize % starts.len()];
        let number = u64::from(round);
        let held = step(&mut timetable, &mut seq, NOW, hold(number, first, count));
        assert!(held.outcome.is_ok());
        let release = Command::Release {
            hold: hold_id(number),
            user: user(number),
        };
        let released = step(&mut timetable, &mut seq, NOW, release);
        assert!(released.outcome.is_ok());
        // As the actor does for the readers of the map.
        black_box(timetable.take_changes().count());
        timetable.settle(seq);
    }
    f64::from(ROUNDS) / start.elapsed().as_secs_f64()
}

/// A map on which others hold seats.
fn half_full() -> Timetable {
    let mut timetable = Timetable::new(plan(grid(50, 50, 20)));
    let mut random = Xorshift(0x2545_f491_4f6c_dd1d);
    let mut seq = Seq::default();
    let mut number = 1 << 40;
    while timetable.counts().held < SEATS * FULL_PERCENT / 100 {
        number += 1;
        let command = hold(number, random.seat().0.min(SEATS - 2), 2);
        let _ = step(&mut timetable, &mut seq, NOW, command);
    }
    assert_eq!(
        timetable.take_changes().count(),
        timetable.counts().held as usize
    );
    timetable
}

/// The first of `count` seats in a line that are free.
fn free_start(timetable: &Timetable, count: u32, random: &mut Xorshift) -> u32 {
    loop {
        let first = random.seat().0.min(SEATS - count);
        if timetable.decide(NOW, hold(0, first, count)).is_ok() {
            return first;
        }
    }
}

fn median(mut rate: impl FnMut() -> f64) -> f64 {
    let mut rates: Vec<f64> = (0..REPEATS).map(|_| rate()).collect();
    rates.sort_by(f64::total_cmp);
    rates[REPEATS / 2]
}
