//! Seats on their way back to the public (release jitter).

use std::collections::BTreeMap;

use super::*;
use crate::domain::decision::catch_up;

/// A sale of `units` places without numbers, of which everybody may have any
/// number, with a release jitter of a minute.
fn sale(units: u32) -> Sale {
    let layout = Layout::build(&[SectionSpec {
        name: "PIT".to_owned(),
        shape: SectionShape::GeneralAdmission { units },
        x: 0.0,
        y: 0.0,
        accessible: false,
    }])
    .unwrap();
    let mut plan = plan();
    plan.layout = Arc::new(layout);
    plan.grades.truncate(1);
    plan.grades[0].max_per_user = None;
    plan.grade_of_section = vec![GradeIndex(0)];
    plan.limits.max_seats_per_user = units;
    plan.limits.release_jitter_seconds = 60;
    Sale::new(plan)
}

/// An id whose random part is another for each `n`: it decides how long the
/// seats stay back.
fn scattered(n: u32) -> HoldId {
    let low = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    HoldId(Uuid::from_u64_pair(u64::from(n), low))
}

fn hold(sale: &mut Sale, now: Timestamp, n: u32, count: u32) -> Result<Reply, Refusal> {
    let command = Command::Hold {
        hold: scattered(n),
        user: user(u128::from(n)),
        choice: Choice::Units {
            section: Ok(SectionIndex(0)),
            count,
        },
        under_pass: false,
    };
    sale.run(now, command)
}

fn let_be(sale: &mut Sale, now: Timestamp) {
    let mut events = SmallVec::new();
    catch_up(&mut sale.timetable, &mut sale.seq, now, &mut events);
    sale.history.extend(events);
}

proptest! {
    #[test]
    fn seats_come_back_each_at_its_own_time(
        steps in prop::collection::vec((1u32..5, 0i64..90_000), 1..60),
    ) {
        const UNITS: u32 = 60;
        let mut sale = sale(UNITS);
        let mut now = NOW;
        for (n, (count, wait)) in (0u32..).zip(steps) {
            now = now.plus(Millis(wait));
            let _ = hold(&mut sale, now, n, count);
            // The naive way: who has which seats, and since when they cool.
            let mut held: BTreeMap<HoldId, u32> = BTreeMap::new();
            let mut cooling = 0;
            for (_, event) in &sale.history {
                match event {
                    Event::Held { hold, seats, .. } => {
                        held.insert(*hold, u32::try_from(seats.len()).unwrap());
                    }
                    Event::HoldEnded { hold, free_at, .. } => {
                        let count = held.remove(hold).unwrap();
                        if free_at.unwrap() > now {
                            cooling += count;
                        }
                    }
                    _ => {}
                }
            }
            let taken = held.values().sum::<u32>() + cooling;
            prop_assert_eq!(sale.timetable.counts().available, UNITS - taken);
            prop_assert_eq!(sale.timetable.counts().held, taken);
        }
        let_be(&mut sale, now.plus(TTL).plus(Millis::from_secs(61)));
        prop_assert_eq!(sale.timetable.counts().available, UNITS);
        prop_assert_eq!(sale.timetable.next_deadline(), None);
    }
}

#[test]
fn an_arena_that_comes_back_at_once_is_free_within_the_time_for_one_seat() {
    const HOLDS: u32 = 500;
    const SEATS_EACH: u32 = 100;
    /// The contract says 100 ms; with slack for slow builds.
    const LIMIT: std::time::Duration = std::time::Duration::from_secs(1);
    let mut sale = sale(HOLDS * SEATS_EACH);
    for n in 0..HOLDS {
        hold(&mut sale, NOW, n, SEATS_EACH).unwrap();
    }
    let over = NOW.plus(TTL);
    let_be(&mut sale, over);
    assert_eq!(sale.timetable.holds().count(), 0);
    #[allow(clippy::disallowed_methods, reason = "measures real work")]
    let begun = std::time::Instant::now();
    let_be(&mut sale, over.plus(Millis::from_secs(61)));
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    assert_eq!(sale.timetable.counts().available, HOLDS * SEATS_EACH);
}
