//! Holds by example: who gets what, and until when.

use super::*;

#[test]
fn a_seat_that_is_held_is_refused_to_everybody_else_and_nothing_of_that_is_held() {
    let mut sale = Sale::new(plan());
    sale.hold(1, 1, &["A-1-1"]).unwrap();
    let refused = sale.hold(2, 2, &["A-1-2", "A-1-1"]);
    assert!(matches!(refused, Err(Refusal::SeatUnavailable { seats }) if seats.len() == 1));
    assert_eq!(sale.status("A-1-2"), SeatStatus::Available);
    let own = sale.hold(3, 1, &["A-1-1"]);
    assert!(matches!(own, Err(Refusal::SeatUnavailable { .. })));
}

#[test]
fn checks_come_in_the_order_of_the_contract() {
    let mut sale = Sale::new(plan());
    let all_wrong = |count| {
        let unknown = vec!["Z-9-9".to_owned(); count];
        let choice = Choice::Seats {
            seats: Seats::new(),
            unknown,
        };
        Command::Hold {
            hold: hold_id(1),
            user: user(1),
            choice,
            under_pass: false,
        }
    };
    let early = sale.run(Timestamp(0), all_wrong(7));
    assert!(matches!(early, Err(Refusal::SaleNotOpen { .. })));
    let late = sale.run(CLOSES, all_wrong(7));
    assert!(matches!(late, Err(Refusal::SaleClosed { .. })));
    let many = sale.run(NOW, all_wrong(7));
    assert!(matches!(
        many,
        Err(Refusal::SeatLimitExceeded {
            limit: 6,
            have: 0,
            grade: None
        })
    ));
    let unknown = sale.run(NOW, all_wrong(1));
    assert!(matches!(unknown, Err(Refusal::UnknownSeat { names, .. }) if names == ["Z-9-9"]));
}

#[test]
fn limits_count_what_is_held_and_what_is_owned() {
    let mut sale = Sale::new(plan());
    sale.hold(1, 1, &["B-1-1", "B-1-2"]).unwrap();
    sale.open(NOW, 1, 1, 1).unwrap();
    sale.run(
        NOW,
        Command::Sell {
            order: order_id(1),
            coupon: None,
        },
    )
    .unwrap();
    sale.hold(2, 1, &["A-1-1", "A-1-2", "A-1-3"]).unwrap();
    let grade = sale.hold(3, 1, &["A-1-4"]);
    let expected = Refusal::SeatLimitExceeded {
        limit: 3,
        have: 3,
        grade: Some(GradeIndex(0)),
    };
    assert_eq!(grade, Err(expected));
    let all = sale.hold(3, 1, &["B-1-3", "B-1-4"]);
    assert_eq!(
        all,
        Err(Refusal::SeatLimitExceeded {
            limit: 6,
            have: 5,
            grade: None
        })
    );
    sale.hold(3, 1, &["B-1-3"]).unwrap();
}

#[test]
fn an_expired_hold_frees_its_seats_for_the_very_next_command() {
    let mut sale = Sale::new(plan());
    sale.hold(1, 1, &["A-1-1"]).unwrap();
    let end = NOW.plus(TTL);
    assert_eq!(sale.timetable.next_deadline(), Some(end));
    let choice = sale.seats(&["A-1-1"]);
    let command = Command::Hold {
        hold: hold_id(2),
        user: user(2),
        choice,
        under_pass: false,
    };
    sale.run(end, command).unwrap();
    let late = sale.open(end, 1, 1, 1);
    assert_eq!(late, Err(Refusal::HoldExpired));
}

#[test]
fn release_jitter_keeps_expired_seats_back_for_a_part_of_it_but_never_released_ones() {
    let mut plan = plan();
    plan.limits.release_jitter_seconds = 10;
    let mut sale = Sale::new(plan);
    sale.hold(1, 1, &["A-1-1"]).unwrap();
    sale.hold(2, 2, &["A-1-2"]).unwrap();
    sale.run(
        NOW,
        Command::Release {
            hold: hold_id(2),
            user: user(2),
        },
    )
    .unwrap();
    assert_eq!(sale.status("A-1-2"), SeatStatus::Available);
    let end = NOW.plus(TTL);
    sale.run(
        end,
        Command::FindHold {
            hold: hold_id(9),
            user: user(9),
        },
    )
    .unwrap_err();
    let after = end.plus(Millis::from_secs(10));
    sale.run(
        after,
        Command::FindHold {
            hold: hold_id(9),
            user: user(9),
        },
    )
    .unwrap_err();
    assert_eq!(sale.status("A-1-1"), SeatStatus::Available);
}

#[test]
fn a_lost_hold_comes_back_by_its_token_if_its_seats_are_free() {
    let mut sale = Sale::new(plan());
    let Choice::Seats { seats, .. } = sale.seats(&["A-1-1"]) else {
        unreachable!()
    };
    let lost = LostHold {
        id: hold_id(1),
        seats,
        expires_at: NOW.plus(TTL),
        under_pass: false,
    };
    let restore = |hold, by, lost: &LostHold| Command::Restore {
        hold: hold_id(hold),
        user: user(by),
        lost: lost.clone(),
    };
    let again = sale.run(NOW, restore(2, 1, &lost)).unwrap();
    assert!(matches!(again, Reply::Hold(hold) if hold.id == hold_id(2)));
    // The old name leads to the new hold, and restores nothing twice.
    let twice = sale.run(NOW, restore(3, 1, &lost)).unwrap();
    assert!(matches!(twice, Reply::Hold(hold) if hold.id == hold_id(2)));
    let late = LostHold {
        id: hold_id(7),
        expires_at: NOW,
        ..lost.clone()
    };
    assert_eq!(
        sale.run(NOW, restore(4, 1, &late)),
        Err(Refusal::HoldExpired)
    );
    let taken = LostHold {
        id: hold_id(8),
        ..lost
    };
    let refused = sale.run(NOW, restore(5, 2, &taken));
    assert!(matches!(refused, Err(Refusal::SeatUnavailable { .. })));
}

#[test]
fn general_admission_sells_every_place_and_no_more() {
    let mut sale = Sale::new(plan());
    let pit = |n: u128, count| Command::Hold {
        hold: hold_id(n),
        user: user(n),
        choice: Choice::Units {
            section: Ok(SectionIndex(2)),
            count,
        },
        under_pass: false,
    };
    for n in 0..3 {
        sale.run(NOW, pit(n, 2)).unwrap();
    }
    assert_eq!(
        sale.run(NOW, pit(9, 1)),
        Err(Refusal::NoSeatsMatch { available: 0 })
    );
    let named = sale.hold(10, 10, &["PIT-000001"]);
    assert!(matches!(named, Err(Refusal::UnknownSeat { .. })));
}

#[test]
fn an_outage_never_steals_a_hold() {
    let mut sale = Sale::new(plan());
    sale.hold(1, 1, &["A-1-1"]).unwrap();
    sale.hold(2, 2, &["A-1-2"]).unwrap();
    let end = NOW.plus(TTL);
    let stored = Stored {
        holds: sale.timetable.holds().cloned().collect(),
        ..Stored::default()
    };
    let back = Timetable::restore(Arc::clone(&sale.timetable.plan), stored);
    let just_late = end.plus(Millis(10));
    let grace = back.grace_after_outage(just_late, NOW);
    assert!(grace.iter().all(|event| matches!(
        event,
        Event::HoldProlonged { expires_at, .. } if *expires_at == end.plus(Millis(5_000))
    )));
    assert_eq!(grace.len(), 2);
    // Their time was up while the owner still lived.
    assert!(back.grace_after_outage(just_late, end).is_empty());
    // Long before their end nothing changes.
    assert!(back.grace_after_outage(NOW, NOW).is_empty());
}
