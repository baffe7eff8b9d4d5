//! Cancels by example.

use super::*;

/// Two VIP seats of user 1, sold; the sale is durable.
fn sold(plan: Plan) -> Sale {
    let mut sale = Sale::new(plan);
    sale.hold(1, 1, &["A-1-1", "A-1-2"]).unwrap();
    sale.open(NOW, 1, 1, 1).unwrap();
    sale.run(
        NOW,
        Command::Sell {
            order: order_id(1),
            coupon: None,
        },
    )
    .unwrap();
    settle(&mut sale);
    sale
}

fn settle(sale: &mut Sale) {
    let seq = sale.seq;
    sale.timetable.settle(seq);
}

fn cancel_at(
    sale: &mut Sale,
    now: Timestamp,
    by: CancelledBy,
    names: Option<&[&str]>,
    request: u64,
) -> Result<Reply, Refusal> {
    let seats = names.map(|names| {
        let Choice::Seats { seats, unknown } = sale.seats(names) else {
            unreachable!("seats by name")
        };
        NamedSeats { seats, unknown }
    });
    let command = Command::Cancel {
        order: order_id(1),
        by,
        seats,
        request: CancelRequest(request),
    };
    sale.run(now, command)
}

fn cancel(sale: &mut Sale, names: Option<&[&str]>, request: u64) -> Result<Reply, Refusal> {
    cancel_at(sale, NOW, CancelledBy::Buyer(user(1)), names, request)
}

fn refunded(reply: &Result<Reply, Refusal>) -> (u32, i64, OrderStatus) {
    match reply {
        Ok(Reply::Cancelled { order, no }) => {
            (no.0, order.refunded_after(*no).0, order.status_after(*no))
        }
        other => panic!("not cancelled: {other:?}"),
    }
}

#[test]
fn a_cancelled_seat_is_free_for_anyone_only_once_the_cancel_is_durable() {
    let mut sale = sold(plan());
    let cancelled = cancel(&mut sale, None, 7);
    assert_eq!(refunded(&cancelled), (1, 200, OrderStatus::Cancelled));
    assert_eq!(sale.status("A-1-1"), SeatStatus::Held, "not anybody's yet");
    assert!(sale.hold(2, 2, &["A-1-1"]).is_err());
    assert!(!sale.timetable.is_idle());
    settle(&mut sale);
    assert_eq!(sale.status("A-1-1"), SeatStatus::Available);
    sale.hold(2, 2, &["A-1-1"]).unwrap();
    sale.open(NOW, 2, 2, 2).unwrap();
    sale.run(
        NOW,
        Command::Sell {
            order: order_id(2),
            coupon: None,
        },
    )
    .unwrap();
    settle(&mut sale);
    assert_eq!(sale.status("A-1-1"), SeatStatus::Sold);
    // The first order is what it was, and gives back nothing of the second.
    let again = cancel(&mut sale, None, 7);
    assert_eq!(refunded(&again), (1, 200, OrderStatus::Cancelled));
    assert_eq!(sale.status("A-1-1"), SeatStatus::Sold);
}

#[test]
fn each_seat_is_cancelled_once_and_each_request_is_answered_for_good() {
    let mut sale = sold(plan());
    let first = cancel(&mut sale, Some(&["A-1-2"]), 7);
    assert_eq!(refunded(&first), (1, 100, OrderStatus::Confirmed));
    settle(&mut sale);
    let gone = |refused| match refused {
        Err(Refusal::NotCancellable(NotCancellable::Cancelled { seats })) => seats.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(gone(cancel(&mut sale, Some(&["A-1-1", "A-1-2"]), 8)), 1);
    assert_eq!(sale.status("A-1-1"), SeatStatus::Sold, "all or nothing");
    let rest = cancel(&mut sale, None, 9);
    assert_eq!(refunded(&rest), (2, 200, OrderStatus::Cancelled));
    assert_eq!(gone(cancel(&mut sale, None, 10)), 2);
    let decisions = sale.seq;
    let again = cancel(&mut sale, Some(&["A-1-2"]), 7);
    assert_eq!(refunded(&again), (1, 100, OrderStatus::Confirmed));
    assert_eq!(sale.seq, decisions);
}

#[test]
fn what_is_cancelled_does_not_count_against_the_limit() {
    let mut plan = plan();
    plan.limits.max_seats_per_user = 2;
    plan.grades[0].max_per_user = Some(2);
    let mut sale = sold(plan);
    let full = sale.hold(2, 1, &["A-1-3"]);
    assert!(matches!(
        full,
        Err(Refusal::SeatLimitExceeded { have: 2, .. })
    ));
    cancel(&mut sale, Some(&["A-1-2"]), 7).unwrap();
    // A hold could outlive a cancel that isn't durable.
    for _ in 0..2 {
        assert!(sale.hold(2, 1, &["A-1-3"]).is_err(), "it counts until then");
        let again = Arc::clone(sale.timetable.plan());
        sale.timetable.replan(again);
    }
    settle(&mut sale);
    sale.hold(2, 1, &["A-1-3"]).unwrap();
    // Also after the limits changed, and after a restart.
    let again = Arc::clone(sale.timetable.plan());
    sale.timetable.replan(again);
    assert_eq!(sale.timetable.users[&user(1)].total, 2);
}

#[test]
fn a_buyer_cancels_in_time_and_the_organizer_at_any_time() {
    let mut sale = sold(plan());
    let until = STARTS.plus(Millis(-86_400_000));
    let buyer = CancelledBy::Buyer(user(1));
    let late = cancel_at(&mut sale, until.plus(Millis(1)), buyer, None, 7);
    let refused = Refusal::NotCancellable(NotCancellable::TooLate { until });
    assert_eq!(late, Err(refused));
    let in_time = cancel_at(&mut sale, until, buyer, Some(&["A-1-1"]), 7);
    assert_eq!(refunded(&in_time).1, 100);
    let later = STARTS.plus(Millis(1));
    let again = cancel_at(&mut sale, later, buyer, Some(&["A-1-1"]), 7);
    assert_eq!(refunded(&again).1, 100, "a repetition is never too late");
    let organizer = cancel_at(&mut sale, later, CancelledBy::Organizer, None, 8);
    assert_eq!(refunded(&organizer), (2, 200, OrderStatus::Cancelled));
}

#[test]
fn only_ones_own_confirmed_orders_and_their_seats_can_be_cancelled() {
    let mut sale = sold(plan());
    let stranger = cancel_at(&mut sale, NOW, CancelledBy::Buyer(user(2)), None, 7);
    assert_eq!(stranger, Err(Refusal::OrderNotFound));
    let other = cancel(&mut sale, Some(&["A-1-1", "B-1-1"]), 7);
    assert!(matches!(other, Err(Refusal::UnknownSeat { seats, .. }) if seats.len() == 1));
    let mut sale = Sale::new(plan());
    assert_eq!(cancel(&mut sale, None, 7), Err(Refusal::OrderNotFound));
    sale.hold(1, 1, &["A-1-1"]).unwrap();
    sale.open(NOW, 1, 1, 1).unwrap();
    let unsold = Err(Refusal::NotCancellable(NotCancellable::NotConfirmed));
    assert_eq!(cancel(&mut sale, None, 7), unsold);
    sale.run(
        NOW,
        Command::Sell {
            order: order_id(1),
            coupon: None,
        },
    )
    .unwrap();
    assert_eq!(cancel(&mut sale, None, 7), unsold, "not durably, yet");
    settle(&mut sale);
    cancel(&mut sale, None, 7).unwrap();
}

#[test]
fn a_refund_is_due_until_it_is_noted() {
    let mut sale = sold(plan());
    cancel(&mut sale, Some(&["A-1-1"]), 7).unwrap();
    cancel(&mut sale, Some(&["A-1-2"]), 8).unwrap();
    settle(&mut sale);
    let due = |sale: &Sale| {
        let due = sale.timetable.refunds_due();
        due.map(|(_, cancel)| (cancel.no.0, cancel.refund.0))
            .collect::<Vec<_>>()
    };
    assert_eq!(due(&sale), [(1, 100), (2, 100)]);
    let noted = |no| Command::RefundPaid {
        order: order_id(1),
        no: CancelNo(no),
    };
    sale.run(NOW, noted(1)).unwrap();
    assert_eq!(due(&sale), [(2, 100)]);
    let decisions = sale.seq;
    sale.run(NOW, noted(1)).unwrap();
    sale.run(NOW, noted(5)).unwrap();
    assert_eq!(sale.seq, decisions, "a repetition changes nothing");
    sale.run(NOW, noted(2)).unwrap();
    assert!(sale.timetable.is_idle());
}

#[test]
fn a_discount_goes_back_with_its_seats_to_the_last_won() {
    let mut sale = Sale::new(plan());
    sale.hold(1, 1, &["A-1-1", "A-1-2", "B-1-1"]).unwrap();
    sale.open(NOW, 1, 1, 1).unwrap();
    let open = sale.timetable.open[&order_id(1)].clone();
    let order = Order {
        status: OrderStatus::Confirmed,
        discount: Money(31),
        coupon: None,
        ..open
    };
    sale.seq = sale.seq.next();
    let confirmed = Event::OrderConfirmed {
        order: Arc::new(order),
    };
    sale.timetable.apply(sale.seq, &confirmed);
    settle(&mut sale);
    // 100 - 13, 100 - 13, 30 - 5
    let one = cancel(&mut sale, Some(&["A-1-2"]), 1);
    assert_eq!(refunded(&one).1, 87);
    let two = cancel(&mut sale, Some(&["B-1-1"]), 2);
    assert_eq!(refunded(&two).1, 87 + 25);
    let all = cancel(&mut sale, None, 3);
    assert_eq!(refunded(&all), (3, 230 - 31, OrderStatus::Cancelled));
}

#[test]
fn with_a_release_jitter_seats_wait_for_their_time_and_for_the_database() {
    let mut plan = plan();
    plan.limits.release_jitter_seconds = 60;
    for settles_late in [false, true] {
        let mut sale = sold(plan.clone());
        cancel(&mut sale, None, 7).unwrap();
        let over = NOW.plus(Millis::from_secs(61));
        let look = |sale: &mut Sale, at| {
            let resolve = Command::Resolve { order: order_id(1) };
            sale.run(at, resolve).unwrap();
            sale.status("A-1-1")
        };
        if settles_late {
            assert_eq!(look(&mut sale, over), SeatStatus::Held, "not durable");
        }
        settle(&mut sale);
        assert_eq!(sale.status("A-1-1"), SeatStatus::Held);
        assert_eq!(look(&mut sale, over), SeatStatus::Available);
    }
}
