use proptest::prelude::*;

use super::*;
use crate::domain::layout::{RowSpec, SectionShape, SectionSpec};

const ANY: &dyn Fn(SectionIndex) -> bool = &|_| true;

fn section(name: &str, shape: SectionShape) -> SectionSpec {
    let name = name.to_owned();
    SectionSpec {
        name,
        shape,
        x: 0.0,
        y: 0.0,
        accessible: false,
    }
}

/// A venue drawn in text: a section a line, its rows divided by spaces, `.` free
/// and `x` taken. Its sections are named A, B, …, its rows 1, 2, ….
fn drawn(map: &str) -> (Layout, FreeSeats) {
    let sections = map.split('\n').zip('A'..).map(|(line, name)| {
        let rows = line.split(' ').zip(1..).map(|(seats, number)| {
            let (name, seats) = (number.to_string(), seats.len() as u32);
            RowSpec {
                name,
                seats,
                x: None,
                y: None,
                accessible: false,
            }
        });
        section(&name.to_string(), SectionShape::Rows(rows.collect()))
    });
    let layout = Layout::build(&sections.collect::<Vec<_>>()).unwrap();
    let mut free = FreeSeats::new(&layout);
    for (seat, state) in map.chars().filter(|c| !c.is_whitespace()).enumerate() {
        if state == 'x' {
            free.take(&layout, SeatIndex(seat as u32));
        }
    }
    (layout, free)
}

/// The drawing of an answer: `o` for each chosen seat.
fn answer(map: &str, wish: &Wish<'_>) -> Result<String, usize> {
    let (layout, free) = drawn(map);
    let seats = free.choose(&layout, wish)?;
    let mut index = 0;
    Ok(map
        .chars()
        .map(|c| {
            let seat = SeatIndex(index);
            index += u32::from(!c.is_whitespace());
            if !c.is_whitespace() && seats.contains(&seat) {
                'o'
            } else {
                c
            }
        })
        .collect())
}

fn together(count: u32) -> Wish<'static> {
    Wish {
        count,
        sections: ANY,
        adjacent: true,
    }
}

fn close(count: u32) -> Wish<'static> {
    Wish {
        count,
        sections: ANY,
        adjacent: false,
    }
}

#[test]
fn the_best_seats_are_in_the_middle_of_the_front_row() {
    let empty = "......... .........";
    assert_eq!(answer(empty, &together(1)).unwrap(), "....o.... .........");
    assert_eq!(answer(empty, &together(3)).unwrap(), "...ooo... .........");
    // Even in odd: the lower number.
    assert_eq!(answer(empty, &together(2)).unwrap(), "...oo.... .........");
}

#[test]
fn a_row_back_is_as_bad_as_two_seats_aside() {
    // Two aside costs as much as one row back: the lesser depth wins.
    assert_eq!(
        answer("..xxx.... .........", &together(2)).unwrap(),
        "..xxxoo.. ........."
    );
    assert_eq!(
        answer("..xxxxx.. .........", &together(2)).unwrap(),
        "..xxxxx.. ...oo...."
    );
}

#[test]
fn no_single_seat_is_stranded_if_that_can_be_avoided() {
    assert_eq!(answer("... xxxx..", &together(2)).unwrap(), "... xxxxoo");
    // Not where it can't be avoided.
    assert_eq!(answer("... xxxx.x", &together(2)).unwrap(), "oo. xxxx.x");
    // A seat that is single already is the best one for a single buyer.
    assert_eq!(answer(".. x.x", &together(1)).unwrap(), ".. xox");
    // Two to spare: an end, not the middle.
    assert_eq!(answer("x....x", &together(2)).unwrap(), "xoo..x");
}

#[test]
fn together_is_one_row_or_refused_with_what_is_there() {
    assert_eq!(answer(".. .. ..", &together(3)), Err(6));
    assert_eq!(answer("..x..", &together(3)), Err(4));
    assert_eq!(answer("..x..", &close(5)), Err(4));
    assert_eq!(answer("xxx", &close(1)), Err(0));
    assert_eq!(answer("...", &together(u32::MAX)), Err(3));
}

#[test]
fn as_close_as_can_be_is_together_if_possible() {
    for count in 1..6 {
        let map = "..x... ......";
        assert_eq!(answer(map, &close(count)), answer(map, &together(count)));
    }
}

#[test]
fn a_party_that_must_split_gets_the_longest_run_and_what_is_near_it() {
    // The single seat is two aside, the pair behind as far: the lower index wins.
    assert_eq!(
        answer(".x...x. xxxxxxx xxx..xx", &close(4)).unwrap(),
        "oxooox. xxxxxxx xxx..xx"
    );
    // Directly behind is nearest.
    assert_eq!(answer("...xx. xx.xxx", &close(4)).unwrap(), "oooxx. xxoxxx");
    // Its own section goes first.
    assert_eq!(answer("... x.x\n.xxx", &close(4)).unwrap(), "ooo xox\n.xxx");
    // All there is.
    assert_eq!(answer(".x. x\n..", &close(4)).unwrap(), "oxo x\noo");
}

#[test]
fn only_sections_that_fit_are_chosen_from() {
    let map = "...\n...\n...";
    let middle = |section| section == SectionIndex(1);
    let wish = Wish {
        count: 3,
        sections: &middle,
        adjacent: true,
    };
    assert_eq!(answer(map, &wish).unwrap(), "...\nooo\n...");
    assert_eq!(answer(map, &Wish { count: 4, ..wish }), Err(3));
}

#[test]
fn general_admission_gives_the_lowest_free_units_and_is_no_ones_best_seat() {
    let pit = section("PIT", SectionShape::GeneralAdmission { units: 100 });
    let hall = section(
        "H",
        SectionShape::Grid {
            rows: 1,
            seats_per_row: 5,
        },
    );
    let layout = Layout::build(&[hall, pit]).unwrap();
    let mut free = FreeSeats::new(&layout);
    free.take(&layout, SeatIndex(6));
    let pit = SectionIndex(1);
    let units = free.take_units(&layout, pit, 3).unwrap();
    assert_eq!(units[..], [SeatIndex(5), SeatIndex(7), SeatIndex(8)]);
    assert_eq!(free.take_units(&layout, pit, 99).unwrap().len(), 99);
    assert_eq!(free.take_units(&layout, pit, 100), Err(99));
    assert_eq!(free.take_units(&layout, SectionIndex(0), 1), Err(0));
    assert_eq!(free.take_units(&layout, SectionIndex(2), 1), Err(0));
    assert_eq!(free.choose(&layout, &close(6)), Err(5));
    assert_eq!(free.choose(&layout, &close(5)).unwrap().len(), 5);
}

#[test]
fn half_a_large_venue_at_once_is_no_trouble() {
    let grid = SectionShape::Grid {
        rows: 2_000,
        seats_per_row: 100,
    };
    let layout = Layout::build(&[section("A", grid)]).unwrap();
    let mut free = FreeSeats::new(&layout);
    // The worst case: a hundred thousand runs.
    for seat in (0..layout.capacity()).step_by(2) {
        free.take(&layout, SeatIndex(seat));
    }
    assert_eq!(free.choose(&layout, &close(99_999)).unwrap().len(), 99_999);
    assert_eq!(free.choose(&layout, &close(100_001)), Err(100_000));
}

/// The rules again, seat by seat and without haste.
mod reference {
    use super::*;

    /// Section, row, depth, and index and state of the seats of each row.
    fn rows(layout: &Layout, free: &FreeSeats, wish: &Wish<'_>) -> Vec<(u16, u32, u32, Vec<bool>)> {
        let rows = layout
            .rows()
            .iter()
            .filter(|row| (wish.sections)(row.section));
        let state = |row: &Row| {
            let seats = row.first.0..row.first.0 + row.seats;
            seats.map(|seat| free.is_free(SeatIndex(seat))).collect()
        };
        rows.map(|row| (row.section.0, row.first.0, row.depth, state(row)))
            .collect()
    }

    /// Whether a free seat is between two that aren't.
    fn single(row: &[bool], at: usize) -> bool {
        let free = |at: Option<usize>| at.and_then(|at| row.get(at)).copied().unwrap_or(false);
        free(Some(at)) && !free(at.checked_sub(1)) && !free(Some(at + 1))
    }

    fn singles(row: &[bool]) -> usize {
        (0..row.len()).filter(|at| single(row, *at)).count()
    }

    /// How many more single seats there are once a block is taken, the single
    /// seat that the block itself may be left aside.
    fn stranded(row: &[bool], start: usize, len: usize) -> usize {
        let own = usize::from(len == 1 && single(row, start));
        let mut after = row.to_vec();
        after[start..start + len].fill(false);
        singles(&after) + own - singles(row)
    }

    /// The blocks of `len` free seats in a row, by their first seat.
    fn blocks(row: &[bool], len: usize) -> Vec<usize> {
        let starts = 0..(row.len() + 1).saturating_sub(len);
        starts
            .filter(|start| row[*start..start + len].iter().all(|free| *free))
            .collect()
    }

    fn centre(start: usize, len: usize, seats: usize) -> i64 {
        (2 * start + len) as i64 - seats as i64
    }

    pub(super) fn choose(
        layout: &Layout,
        free: &FreeSeats,
        wish: &Wish<'_>,
    ) -> Result<Vec<u32>, usize> {
        let rows = rows(layout, free, wish);
        let available = rows
            .iter()
            .flat_map(|row| &row.3)
            .filter(|free| **free)
            .count();
        let count = wish.count as usize;
        if count > available {
            return Err(available);
        }
        let shortest = if wish.adjacent { count } else { 1 };
        for len in (shortest..=count).rev() {
            let all = rows.iter().flat_map(|row| {
                blocks(&row.3, len)
                    .into_iter()
                    .map(move |start| (row, start))
            });
            let best = all.min_by_key(|((_, first, depth, seats), start)| {
                let aside = centre(*start, len, seats.len()).unsigned_abs();
                let cost = 4 * u64::from(*depth) + aside;
                (
                    stranded(seats, *start, len),
                    cost,
                    *depth,
                    first + *start as u32,
                )
            });
            if let Some((row, start)) = best {
                return Ok(around(&rows, row, start, len, count));
            }
        }
        Err(available)
    }

    type RowState = (u16, u32, u32, Vec<bool>);

    fn around(
        rows: &[RowState],
        anchor: &RowState,
        start: usize,
        len: usize,
        count: usize,
    ) -> Vec<u32> {
        let mut chosen: Vec<u32> = (start..start + len)
            .map(|at| anchor.1 + at as u32)
            .collect();
        let mut runs = Vec::new();
        for row in rows {
            let ends = |at: &usize| !row.3.get(*at).copied().unwrap_or(false);
            for first in (0..row.3.len()).filter(|at| row.3[*at] && (*at == 0 || !row.3[at - 1])) {
                let end = (first..).find(ends).unwrap();
                let line = |row: &[bool], at| centre(at, 1, row.len());
                let pairs = (first..end)
                    .flat_map(|a| (start..start + len).map(move |b| (a, b)))
                    .map(|(a, b)| line(&row.3, a) - line(&anchor.3, b));
                let pairs: Vec<i64> = pairs.collect();
                let overlap = pairs.iter().any(|d| *d <= 0) && pairs.iter().any(|d| *d >= 0);
                let nearest = pairs.iter().map(|d| d.unsigned_abs()).min().unwrap();
                let gap = if overlap { 0 } else { nearest };
                let distance = 4 * u64::from(row.2.abs_diff(anchor.2)) + gap;
                if row.1 + first as u32 != chosen[0] {
                    runs.push((
                        row.0.abs_diff(anchor.0),
                        distance,
                        row.1 + first as u32,
                        end - first,
                        row,
                        first,
                    ));
                }
            }
        }
        runs.sort();
        let target = centre(start, len, anchor.3.len());
        for (_, _, _, run_len, row, first) in runs {
            let len = run_len.min(count - chosen.len());
            let starts = (first..=first + run_len - len).min_by_key(|at| {
                (
                    stranded(&row.3, *at, len),
                    centre(*at, len, row.3.len()).abs_diff(target),
                    *at,
                )
            });
            chosen.extend((0..len).map(|n| row.1 + (starts.unwrap() + n) as u32));
            if chosen.len() == count {
                break;
            }
        }
        chosen.sort_unstable();
        chosen
    }
}

/// A small venue of all shapes, and which of its seats are taken.
fn any_venue() -> impl Strategy<Value = (Layout, FreeSeats)> {
    let rows = prop::collection::vec(
        (prop_oneof![1..90u32, 100..260u32], prop::option::of(0..3u8)),
        1..5,
    )
    .prop_map(|rows| {
        let rows = rows.into_iter().enumerate().map(|(at, (seats, y))| {
            let y = y.map(f32::from);
            RowSpec {
                name: at.to_string(),
                seats,
                x: None,
                y,
                accessible: false,
            }
        });
        SectionShape::Rows(rows.collect())
    });
    let grid = (1..6u32, 1..20u32).prop_map(|(rows, seats_per_row)| SectionShape::Grid {
        rows,
        seats_per_row,
    });
    let pit = (1..70u32).prop_map(|units| SectionShape::GeneralAdmission { units });
    let venue = prop::collection::vec(prop_oneof![rows, grid, pit], 1..5).prop_map(|shapes| {
        let sections = shapes.into_iter().enumerate();
        let specs: Vec<_> = sections
            .map(|(at, shape)| section(&at.to_string(), shape))
            .collect();
        Layout::build(&specs).unwrap()
    });
    (venue, 0..=100u32, any::<u64>()).prop_map(|(layout, full, seed)| {
        let mut free = FreeSeats::new(&layout);
        let mut state = seed | 1;
        for seat in (0..layout.capacity()).map(SeatIndex) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state % 100 < u64::from(full) {
                free.take(&layout, seat);
            }
        }
        (layout, free)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_choice_is_that_of_the_rules(
        (layout, free) in any_venue(),
        count in prop_oneof![1..9u32, 1..200u32],
        adjacent: bool,
        fits: u8,
    ) {
        let sections = move |section: SectionIndex| fits & (1 << (section.0 % 4)) != 0;
        let wish = Wish { count, sections: &sections, adjacent };
        let choice = free.choose(&layout, &wish);
        let plain = choice.clone().map(|seats| seats.iter().map(|seat| seat.0).collect::<Vec<_>>());
        prop_assert_eq!(plain, reference::choose(&layout, &free, &wish));

        match choice {
            Ok(seats) => {
                prop_assert_eq!(seats.len(), count as usize);
                prop_assert!(seats.is_sorted_by(|a, b| a < b));
                prop_assert!(seats.iter().all(|seat| free.is_free(*seat)));
                let rows: Vec<_> = seats.iter().map(|seat| layout.row_of(*seat)).collect();
                prop_assert!(rows.iter().all(Option::is_some));
                let fit = |seat| layout.section_of(seat).is_some_and(&sections);
                prop_assert!(seats.iter().all(|seat| fit(*seat)));
                if adjacent {
                    prop_assert!(rows.iter().all(|row| *row == rows[0]));
                    prop_assert_eq!(seats[seats.len() - 1].0 - seats[0].0 + 1, count);
                }
            }
            Err(available) => prop_assert!(adjacent || available < count as usize),
        }
    }
}

proptest! {
    #[test]
    fn counts_are_kept_through_taking_and_releasing(
        (layout, mut free) in any_venue(),
        steps in prop::collection::vec((any::<bool>(), 0..500u32), 0..200),
    ) {
        for (take, seat) in steps {
            let seat = SeatIndex(seat);
            let was_free = free.is_free(seat);
            if take {
                prop_assert_eq!(free.take(&layout, seat), was_free);
                prop_assert!(!free.is_free(seat));
            } else {
                let exists = seat.0 < layout.capacity();
                prop_assert_eq!(free.release(&layout, seat), exists && !was_free);
                prop_assert_eq!(free.is_free(seat), exists);
            }
        }
        // The same set made from nothing has the same counts.
        let mut again = FreeSeats::new(&layout);
        for seat in (0..layout.capacity()).map(SeatIndex).filter(|seat| !free.is_free(*seat)) {
            again.take(&layout, seat);
        }
        prop_assert_eq!(&free, &again);
        let sections = (0..layout.sections().len() as u16).map(SectionIndex);
        let by_section: u32 = sections.map(|section| free.free_in_section(section)).sum();
        prop_assert_eq!(free.total(), by_section);
        let all = (0..layout.capacity()).filter(|seat| free.is_free(SeatIndex(*seat)));
        prop_assert_eq!(free.total() as usize, all.count());
    }

    #[test]
    fn units_are_the_lowest_free_ones((layout, free) in any_venue(), count in 1..80u32) {
        for (index, section) in (0..).map(SectionIndex).zip(layout.sections()) {
            let seats = (section.first.0..section.first.0 + section.seats).map(SeatIndex);
            let all: Vec<_> = seats.filter(|seat| free.is_free(*seat)).collect();
            let expected = match all.get(..count as usize) {
                _ if !section.general_admission => Err(0),
                Some(units) => Ok(Seats::from_slice(units)),
                None => Err(all.len() as u32),
            };
            prop_assert_eq!(free.take_units(&layout, index, count), expected);
        }
    }
}
