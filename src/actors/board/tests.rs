use super::*;

fn board() -> Board {
    let board = Board::cold(TimetableId(uuid::Uuid::nil()), SeatCounts::default());
    let counts = SeatCounts {
        available: 4,
        ..SeatCounts::default()
    };
    board.load(
        Epoch(3),
        std::iter::repeat_n(SeatStatus::Available, 4),
        counts,
    );
    board
}

fn hold(board: &Board, seat: u32) {
    board.change(
        std::iter::once((SeatIndex(seat), SeatStatus::Held)),
        board.counts(),
    );
}

#[test]
fn versions_rise_over_reloads_and_epochs_and_stay_below_2_to_the_53() {
    let board = board();
    let (first, _) = board.whole("e");
    hold(&board, 1);
    let (second, _) = board.whole("e");
    board.load(Epoch(3), std::iter::empty(), SeatCounts::default());
    let (third, _) = board.whole("e");
    board.load(Epoch(4), std::iter::empty(), SeatCounts::default());
    let (fourth, _) = board.whole("e");
    assert!(first < second && second < third && third < fourth);
    assert!(fourth < 1 << 53);
}

#[test]
fn a_copy_that_nobody_asks_for_takes_its_counts_from_elsewhere_once_it_is_old() {
    let (owner, other) = (
        board(),
        Board::cold(TimetableId(uuid::Uuid::nil()), SeatCounts::default()),
    );
    let sold = SeatCounts {
        sold: 4,
        ..SeatCounts::default()
    };
    let now = crate::clock::monotonic();
    assert!(other.mirror(0, owner.copy_since(0), now));
    other.count(sold);
    assert_eq!(other.counts(), owner.counts());
    let Some(long_ago) = now.checked_sub(2 * COUNTS_AGE_MAX) else {
        return;
    };
    assert!(other.mirror(0, owner.copy_since(0), long_ago));
    other.count(sold);
    assert_eq!(other.counts(), sold);
}

#[test]
fn changes_since_a_version_are_told_once_each_and_the_whole_from_another_life() {
    let board = board();
    let (before, _) = board.whole("e");
    hold(&board, 1);
    hold(&board, 3);
    hold(&board, 1);
    let (now, changes) = board.since(before).unwrap();
    assert_eq!(changes, [(1, 'H'), (3, 'H')]);
    assert_eq!(board.since(now), Some((now, vec![])));
    assert_eq!(board.since(now + 1), None);
    board.load(
        Epoch(3),
        std::iter::repeat_n(SeatStatus::Available, 4),
        board.counts(),
    );
    assert_eq!(board.since(now), None);
}

#[test]
fn a_reader_that_is_too_far_behind_gets_the_whole() {
    let board = board();
    let (before, _) = board.whole("e");
    for _ in 0..=CHANGES_MAX {
        hold(&board, 2);
    }
    assert_eq!(board.since(before), None);
    assert!(matches!(
        board.read(Some(before), "e"),
        MapRead::Whole { .. }
    ));
}
