//! Orders by example: a hold that is paid for, sold, given up.

use super::*;

#[test]
fn a_hold_that_is_being_paid_for_does_not_lapse_and_comes_back_with_a_grace_once() {
    let mut sale = Sale::new(plan());
    sale.hold(1, 1, &["A-1-1"]).unwrap();
    sale.open_by(Method::Card, NOW, 1, 1, 1).unwrap();
    let late = NOW.plus(TTL).plus(Millis(1));
    assert_eq!(sale.timetable.next_deadline(), None);
    sale.run(late, Command::Abort { order: order_id(1) })
        .unwrap();
    let hold = sale.timetable.hold(hold_id(1)).unwrap();
    assert_eq!(hold.expires_at, late.plus(Millis::from_secs(60)));
    sale.open_by(Method::Card, late, 2, 1, 1).unwrap();
    let later = late.plus(Millis::from_secs(61));
    sale.run(later, Command::Abort { order: order_id(2) })
        .unwrap();
    let gone = sale.run(
        later,
        Command::FindHold {
            hold: hold_id(1),
            user: user(1),
        },
    );
    assert_eq!(gone, Err(Refusal::HoldExpired));
}

#[test]
fn a_hold_can_be_ordered_once_and_only_by_its_owner() {
    let mut sale = Sale::new(plan());
    sale.hold(1, 1, &["A-1-1"]).unwrap();
    assert_eq!(sale.open(NOW, 1, 1, 2), Err(Refusal::HoldNotFound));
    sale.open(NOW, 1, 1, 1).unwrap();
    let order = order_id(1);
    assert_eq!(
        sale.open(NOW, 2, 1, 1),
        Err(Refusal::HoldAlreadyOrdered { order })
    );
    sale.run(
        NOW,
        Command::Sell {
            order,
            coupon: None,
        },
    )
    .unwrap();
    assert_eq!(
        sale.open(NOW, 2, 1, 1),
        Err(Refusal::HoldAlreadyOrdered { order })
    );
    // Asked again because the answer was lost.
    sale.run(
        NOW,
        Command::Sell {
            order,
            coupon: None,
        },
    )
    .unwrap();
    assert_eq!(sale.timetable.counts().held, 1);
}

#[test]
fn a_sale_is_shown_and_a_blocked_seat_given_out_only_once_they_are_durable() {
    let mut sale = Sale::new(plan());
    let seat = sale.timetable.plan.layout.seat_named("A-1-1").unwrap();
    let seats = Seats::from_iter([seat]);
    sale.run(
        NOW,
        Command::Block {
            seats: seats.clone(),
        },
    )
    .unwrap();
    assert_eq!(sale.status("A-1-1"), SeatStatus::Blocked);
    sale.run(NOW, Command::Unblock { seats }).unwrap();
    assert!(sale.hold(1, 1, &["A-1-1"]).is_err());
    let seq = sale.seq;
    sale.timetable.settle(seq);
    sale.hold(1, 1, &["A-1-1"]).unwrap();
    sale.open(NOW, 1, 1, 1).unwrap();
    sale.run(
        NOW,
        Command::Sell {
            order: order_id(1),
            coupon: None,
        },
    )
    .unwrap();
    assert_eq!(sale.status("A-1-1"), SeatStatus::Held);
    let seq = sale.seq;
    sale.timetable.settle(seq);
    assert_eq!(sale.status("A-1-1"), SeatStatus::Sold);
}

#[test]
fn an_unknown_order_is_aborted_for_ever() {
    let mut sale = Sale::new(plan());
    sale.hold(1, 1, &["A-1-1"]).unwrap();
    let resolved = sale.run(NOW, Command::Resolve { order: order_id(1) });
    assert_eq!(resolved, Ok(Reply::Resolved(Resolution::Aborted)));
    assert_eq!(sale.open(NOW, 1, 1, 1), Err(Refusal::OrderNotOpen));
    assert_eq!(
        sale.run(
            NOW,
            Command::Sell {
                order: order_id(1),
                coupon: None
            }
        ),
        Err(Refusal::OrderNotOpen)
    );
}

#[test]
fn an_order_whose_saga_is_gone_gives_its_hold_back() {
    let mut sale = Sale::new(plan());
    sale.hold(1, 1, &["A-1-1"]).unwrap();
    sale.open(NOW, 1, 1, 1).unwrap();
    let abandoned = NOW.plus(OPEN_FOR_MAX);
    assert_eq!(sale.timetable.next_deadline(), Some(abandoned));
    let resolve = || Command::Resolve { order: order_id(1) };
    let before = abandoned.plus(Millis(-1));
    assert_eq!(
        sale.run(before, resolve()),
        Ok(Reply::Resolved(Resolution::Undecided))
    );
    assert_eq!(
        sale.run(abandoned, resolve()),
        Ok(Reply::Resolved(Resolution::Aborted))
    );
    let sell = Command::Sell {
        order: order_id(1),
        coupon: None,
    };
    assert_eq!(sale.run(abandoned, sell), Err(Refusal::OrderNotOpen));
    let again = sale.open(abandoned, 2, 1, 1);
    assert!(again.is_ok(), "the hold is its user's still: {again:?}");
}

#[test]
fn a_refusal_that_shows_a_sale_waits_until_the_sale_is_in_the_database() {
    let mut sale = Sale::new(plan());
    sale.hold(1, 1, &["A-1-1"]).unwrap();
    sale.open(NOW, 1, 1, 1).unwrap();
    let (hold, user, order) = (hold_id(1), user(1), order_id(1));
    let release = |sale: &mut Sale| sale.run(NOW, Command::Release { hold, user });
    let pinned = release(&mut sale);
    assert_eq!(pinned, Err(Refusal::HoldAlreadyOrdered { order }));
    assert_eq!(sale.timetable.reveals(&pinned), Tier::Memory, "no sale yet");
    sale.run(
        NOW,
        Command::Sell {
            order,
            coupon: None,
        },
    )
    .unwrap();
    let refused = release(&mut sale);
    assert_eq!(refused, Err(Refusal::HoldAlreadyOrdered { order }));
    assert_eq!(sale.timetable.reveals(&refused), Tier::Database);
    sale.timetable.settle(sale.seq);
    assert_eq!(sale.timetable.reveals(&refused), Tier::Memory);
}
