//! A waiting room with up to five million people.

use std::hint::black_box;
use std::time::Instant;

use onsale::domain::decision::{Machine as _, step};
use onsale::domain::ids::Seq;
use onsale::domain::queue::{Command, Queue};

use crate::crowd::{NOW, joined, member, waiting_room};
use crate::scene::Xorshift;

/// How many wait.
const SIZES: [u32; 3] = [10_000, 1_000_000, 5_000_000];
/// How many positions are asked for.
const LOOKS: u32 = 3_000_000;
/// How many a second one core must do, with a million waiting.
const JOINS_AIM: f64 = 2e6;
const POSITIONS_AIM: f64 = 5e6;
/// In a burst of joins, so many are on their way to the database.
const SETTLED_EVERY: u32 = 1_000;

/// Joins, positions, leaving.
pub(crate) fn bench() {
    println!("waiting room");
    for size in SIZES {
        let mut queue = waiting_room(size);
        let start = Instant::now();
        let mut seq = joined(&mut queue, size, SETTLED_EVERY);
        let joins = f64::from(size) / start.elapsed().as_secs_f64();
        let before = positions(&queue, size);
        let start = Instant::now();
        leave_each_tenth(&mut queue, &mut seq, size);
        let leaves = f64::from(size / 10) / start.elapsed().as_secs_f64();
        let after = positions(&queue, size);
        println!(
            "  {size} waiting: {:.2} million joins/s = {:.2} × the aim; {:.2} million positions/s \
             by user = {:.2} ×, {:.2} million once a tenth has left; {:.2} million leave/s",
            joins / 1e6,
            joins / JOINS_AIM,
            before / 1e6,
            before / POSITIONS_AIM,
            after / 1e6,
            leaves / 1e6
        );
    }
}

/// Positions a second, of people at random.
fn positions(queue: &Queue, size: u32) -> f64 {
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let start = Instant::now();
    let mut sum = 0;
    for _ in 0..LOOKS {
        let user = member(random.below(size));
        sum += u64::from(queue.position_of(user).unwrap_or_default());
    }
    black_box(sum);
    f64::from(LOOKS) / start.elapsed().as_secs_f64()
}

fn leave_each_tenth(queue: &mut Queue, seq: &mut Seq, size: u32) {
    for (count, number) in (0..size).step_by(10).enumerate() {
        let user = member(number);
        let left = step(queue, seq, NOW, Command::Leave { user });
        assert!(left.outcome.is_ok());
        if count % SETTLED_EVERY as usize == 0 {
            queue.settle(*seq);
        }
    }
    queue.settle(*seq);
    // As the actor does for its followers.
    black_box((queue.take_delta(), queue.take_news()));
}
