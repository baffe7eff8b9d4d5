//! Deciding a hold of seats that were named, on a map of 50,000 seats.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use onsale::domain::decision::{Machine as _, step};
use onsale::domain::ids::{HoldId, PerformanceId, Seq, TimetableId, UserId};
use onsale::domain::layout::Layout;
use onsale::domain::money::{Currency, Money};
use onsale::domain::plan::{Grade, GradeIndex, Limits, Plan};
use onsale::domain::seat::{SeatIndex, Seats};
use onsale::domain::time::Timestamp;
use onsale::domain::timetable::{Choice, Command, Timetable};
use uuid::Uuid;

use crate::{SEATS, Xorshift, grid};

/// How many decisions are timed together.
const ROUNDS: u32 = 1_000_000;
/// How often that is repeated; the median counts.
const REPEATS: usize = 5;
/// How many holds a second `decide` must do on one core.
const DECIDE_AIM: f64 = 2e6;
/// Who holds.
const USERS: u64 = 20_000;
/// How much of the map is held by others.
const FULL_PERCENT: u32 = 50;
pub(crate) const PRICE: Money = Money(100_000);
pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000);

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

fn median(mut rate: impl FnMut() -> f64) -> f64 {
    let mut rates: Vec<f64> = (0..REPEATS).map(|_| rate()).collect();
    rates.sort_by(f64::total_cmp);
    rates[REPEATS / 2]
}
