//! The check must reject what a broken server shows, and nothing else.

use super::*;

fn seats(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}

fn charge(key: &str, amount: i64, outcome: Outcome) -> Record {
    Record {
        user: 0,
        key: key.to_owned(),
        request: Request::Charge { amount },
        outcome,
    }
}

fn order(user: User, key: &str, ids: &[&str], outcome: Outcome) -> Record {
    Record {
        user,
        key: key.to_owned(),
        request: Request::Order {
            hold_id: format!("hold-of-{key}"),
            hold_token: None,
            seats: seats(ids),
        },
        outcome,
    }
}

fn ordered(order_id: &str, amount: i64) -> Outcome {
    Outcome::Ordered {
        order_id: order_id.to_owned(),
        amount,
    }
}

fn refused(code: &str) -> Outcome {
    Outcome::Refused {
        code: code.to_owned(),
    }
}

fn seen_order(order_id: &str, ids: &[&str], amount: i64) -> SeenOrder {
    SeenOrder {
        order_id: order_id.to_owned(),
        status: "confirmed".to_owned(),
        amount,
        seats: seats(ids),
        cancelled: BTreeSet::new(),
        refunded: 0,
        ticketed: seats(ids),
    }
}

fn seen(balance: i64, orders: Vec<SeenOrder>) -> Observation {
    let sold = orders.iter().map(|order| order.kept().len()).sum();
    Observation {
        balances: BTreeMap::from([(0, balance)]),
        orders: BTreeMap::from([(0, orders)]),
        sold,
    }
}

fn history(records: &[Record]) -> History {
    History {
        records: records.to_vec(),
    }
}

#[test]
fn what_was_promised_and_kept_is_accepted() {
    let history = history(&[
        charge("c", 100, Outcome::Charged),
        charge("c", 100, Outcome::Charged),
        order(0, "o", &["A-1"], ordered("1", 30)),
        order(0, "p", &["A-2"], refused("seat-unavailable")),
    ]);
    assert!(
        history
            .check(&seen(70, vec![seen_order("1", &["A-1"], 30)]))
            .is_empty()
    );
    assert_eq!(history.acknowledged(), 2);
}

#[test]
fn an_unknown_call_may_have_happened_or_not() {
    let history = history(&[
        charge("c", 100, Outcome::Charged),
        charge("d", 7, Outcome::Unknown),
        order(0, "o", &["A-1"], Outcome::Unknown),
    ]);
    for balance in [100, 107] {
        assert!(history.check(&seen(balance, vec![])).is_empty());
        let bought = seen(balance - 30, vec![seen_order("1", &["A-1"], 30)]);
        assert!(history.check(&bought).is_empty());
    }
    assert_eq!(history.unknown().len(), 2);
}

#[test]
fn an_unknown_call_that_was_asked_again_is_known() {
    let history = history(&[
        charge("c", 100, Outcome::Unknown),
        charge("c", 100, Outcome::Charged),
    ]);
    assert!(history.unknown().is_empty());
    assert!(history.check(&seen(100, vec![])).is_empty());
    assert_eq!(
        history.check(&seen(0, vec![])),
        BTreeSet::from([Finding::WrongBalance {
            user: 0,
            balance: 0,
            expected: 100
        }])
    );
}

#[test]
fn a_lost_order_is_found() {
    let history = history(&[
        charge("c", 100, Outcome::Charged),
        order(0, "o", &["A-1"], ordered("1", 30)),
    ]);
    let lost = Finding::LostOrder {
        user: 0,
        order_id: "1".to_owned(),
    };
    assert!(history.check(&seen(100, vec![])).contains(&lost));
    // Another seat, another price or another state is not what was promised.
    for changed in [
        seen_order("1", &["A-2"], 30),
        seen_order("1", &["A-1"], 31),
        SeenOrder {
            status: "expired".to_owned(),
            ..seen_order("1", &["A-1"], 30)
        },
    ] {
        assert!(history.check(&seen(70, vec![changed])).contains(&lost));
    }
}

#[test]
fn a_lost_charge_is_found() {
    let history = history(&[
        charge("c", 100, Outcome::Charged),
        charge("d", 50, Outcome::Charged),
    ]);
    assert_eq!(
        history.check(&seen(100, vec![])),
        BTreeSet::from([Finding::WrongBalance {
            user: 0,
            balance: 100,
            expected: 150
        }])
    );
}

#[test]
fn money_from_nowhere_is_found() {
    let history = history(&[
        charge("c", 100, Outcome::Charged),
        charge("d", 7, Outcome::Unknown),
    ]);
    // Neither twice the same nor a part of an unknown one.
    for balance in [101, 114, 200, 99] {
        let findings = history.check(&seen(balance, vec![]));
        assert_eq!(findings.len(), 1, "{balance}");
    }
}

#[test]
fn a_refused_call_that_took_money_is_found() {
    let history = history(&[
        charge("c", 100, Outcome::Charged),
        order(0, "o", &["A-1"], refused("hold-expired")),
    ]);
    assert_eq!(history.check(&seen(70, vec![])).len(), 1);
}

#[test]
fn a_double_sale_is_found() {
    let history = history(&[
        order(0, "o", &["A-1", "A-2"], ordered("1", 0)),
        order(1, "p", &["A-2"], ordered("2", 0)),
    ]);
    let observation = Observation {
        balances: BTreeMap::new(),
        orders: BTreeMap::from([
            (0, vec![seen_order("1", &["A-1", "A-2"], 0)]),
            (1, vec![seen_order("2", &["A-2"], 0)]),
        ]),
        sold: 2,
    };
    let findings = history.check(&observation);
    assert!(findings.contains(&Finding::SoldTwice {
        seat: "A-2".to_owned()
    }));
    assert!(findings.contains(&Finding::WrongSoldCount { map: 2, orders: 3 }));
}

#[test]
fn two_outcomes_of_one_key_are_found() {
    let two = |first: Outcome, second: Outcome| {
        history(&[
            order(0, "o", &["A-1"], first),
            order(0, "o", &["A-1"], Outcome::Unknown),
            order(0, "o", &["A-1"], second),
        ])
        .two_outcomes()
        .len()
    };
    assert_eq!(two(ordered("1", 30), ordered("2", 30)), 1);
    assert_eq!(two(ordered("1", 30), ordered("1", 31)), 1);
    assert_eq!(two(ordered("1", 30), refused("hold-expired")), 1);
    assert_eq!(two(refused("hold-expired"), ordered("1", 30)), 1);
    assert_eq!(two(refused("hold-expired"), refused("hold-not-found")), 1);
    assert_eq!(two(ordered("1", 30), ordered("1", 30)), 0);
}

#[test]
fn the_same_key_of_another_user_is_another_key() {
    let history = history(&[
        order(0, "o", &["A-1"], ordered("1", 0)),
        order(1, "o", &["A-2"], ordered("2", 0)),
    ]);
    assert!(history.two_outcomes().is_empty());
}

#[test]
fn an_order_that_nobody_made_is_found() {
    let history = history(&[
        order(0, "o", &["A-1"], Outcome::Unknown),
        order(0, "p", &["A-2"], refused("hold-expired")),
    ]);
    let one = seen(0, vec![seen_order("1", &["A-1"], 0)]);
    assert!(history.check(&one).is_empty());
    // The unknown request explains one order, not two, and the refusal none.
    let two = seen(
        0,
        vec![seen_order("1", &["A-1"], 0), seen_order("2", &["A-2"], 0)],
    );
    assert_eq!(
        history.check(&two),
        BTreeSet::from([Finding::UnknownOrder {
            user: 0,
            order_id: "2".to_owned()
        }])
    );
}

#[test]
fn a_missing_ticket_is_found() {
    let mut order = seen_order("1", &["A-1", "A-2"], 0);
    assert!(wrong_tickets(&seen(0, vec![order.clone()])).is_empty());
    order.ticketed = seats(&["A-1"]);
    assert_eq!(wrong_tickets(&seen(0, vec![order])).len(), 1);
}

#[test]
fn a_customer_with_too_many_seats_is_found() {
    let orders = vec![
        seen_order("1", &["A-1", "A-2"], 0),
        seen_order("2", &["A-3"], 0),
    ];
    let three = seen(0, orders);
    assert!(over_limit(&three, 3).is_empty());
    let (user, seats, limit) = (0, 3, 2);
    assert_eq!(
        over_limit(&three, limit),
        BTreeSet::from([Finding::OverLimit { user, seats, limit }])
    );
}

#[test]
fn only_a_fresh_hold_may_be_lost() {
    let now = Instant::now();
    let hold = |age: Duration| HeldSeats {
        user: 0,
        hold_id: "h".to_owned(),
        hold_token: "t".to_owned(),
        seats: seats(&["A-1"]),
        acknowledged_at: now - age,
    };
    assert!(may_be_lost(&hold(Duration::from_millis(5)), now));
    assert!(!may_be_lost(&hold(WRITTEN_BEHIND_LIMIT * 2), now));
}

fn cancel(key: &str, order_id: &str, ids: Option<&[&str]>, outcome: Outcome) -> Record {
    Record {
        user: 0,
        key: key.to_owned(),
        request: Request::Cancel {
            order_id: order_id.to_owned(),
            seats: ids.map(seats),
        },
        outcome,
    }
}

fn cancelled(ids: &[&str], refunded: i64) -> Outcome {
    Outcome::Cancelled {
        cancelled: seats(ids),
        refunded,
    }
}

/// An order of for 60, of which these were given back.
fn part_of_it(gone: &[&str], refunded: i64) -> SeenOrder {
    let order = seen_order("1", &["A-1", "A-2"], 60);
    let status = if gone.len() == 2 {
        "cancelled"
    } else {
        "confirmed"
    };
    SeenOrder {
        status: status.to_owned(),
        cancelled: seats(gone),
        refunded,
        ..order
    }
}

/// 100 came in, two seats were bought for 60, and then that.
fn bought_and(more: &[Record]) -> History {
    let bought = [
        charge("c", 100, Outcome::Charged),
        order(0, "o", &["A-1", "A-2"], ordered("1", 60)),
    ];
    history(&[&bought[..], more].concat())
}

#[test]
fn a_cancel_that_was_promised_and_kept_is_accepted() {
    let one = cancel("x", "1", Some(&["A-2"]), cancelled(&["A-2"], 30));
    let history = bought_and(std::slice::from_ref(&one));
    let seen_one = seen(70, vec![part_of_it(&["A-2"], 30)]);
    assert!(history.check(&seen_one).is_empty());
    let all = cancel("y", "1", None, cancelled(&["A-1", "A-2"], 60));
    let history = bought_and(&[one, all]);
    let seen_all = seen(100, vec![part_of_it(&["A-1", "A-2"], 60)]);
    assert!(history.check(&seen_all).is_empty());
    assert_eq!(history.acknowledged(), 4);
    // Another may buy what was given back.
    assert_eq!(history.orders_of(0), [("1", &seats(&["A-1", "A-2"]))]);
}

#[test]
fn a_cancel_of_unknown_outcome_may_have_happened_or_not_but_not_half() {
    let all = bought_and(&[cancel("x", "1", None, Outcome::Unknown)]);
    let nothing = seen(40, vec![part_of_it(&[], 0)]);
    let done = seen(100, vec![part_of_it(&["A-1", "A-2"], 60)]);
    assert!(all.check(&nothing).is_empty());
    assert!(all.check(&done).is_empty());
    let one = bought_and(&[cancel("x", "1", Some(&["A-1"]), Outcome::Unknown)]);
    let unknown = Finding::UnknownCancel {
        user: 0,
        order_id: "1".to_owned(),
    };
    assert!(one.check(&done).contains(&unknown));
    // Cancelled, and the money is not back; or too much of it.
    for balance in [40, 70, 130] {
        let half = seen(balance, vec![part_of_it(&["A-1", "A-2"], 60)]);
        assert_eq!(all.check(&half).len(), 1, "{balance}");
    }
}

#[test]
fn a_lost_a_half_and_an_unasked_cancel_are_found() {
    let order_id = || "1".to_owned();
    let done = cancel("x", "1", Some(&["A-2"]), cancelled(&["A-2"], 30));
    let lost = Finding::LostCancel {
        user: 0,
        order_id: order_id(),
    };
    let history = bought_and(&[done]);
    assert!(
        history
            .check(&seen(40, vec![part_of_it(&[], 0)]))
            .contains(&lost)
    );
    let half = Finding::HalfCancelled {
        user: 0,
        order_id: order_id(),
    };
    for (gone, refunded) in [(&["A-2"][..], 0), (&["A-2"], 60), (&[], 30)] {
        let seen = seen(70, vec![part_of_it(gone, refunded)]);
        assert!(history.check(&seen).contains(&half), "{gone:?} {refunded}");
    }
    let unasked = Finding::UnknownCancel {
        user: 0,
        order_id: order_id(),
    };
    let nobody = bought_and(&[cancel("x", "1", None, refused("not-cancellable"))]);
    let seen = seen(70, vec![part_of_it(&["A-2"], 30)]);
    assert!(nobody.check(&seen).contains(&unasked));
}

#[test]
fn a_valid_ticket_of_a_cancelled_seat_is_found() {
    let mut order = part_of_it(&["A-2"], 30);
    assert_eq!(wrong_tickets(&seen(0, vec![order.clone()])).len(), 1);
    order.ticketed = seats(&["A-1"]);
    assert!(wrong_tickets(&seen(0, vec![order])).is_empty());
}

#[test]
fn a_seat_is_sold_again_only_once_it_was_given_back() {
    let records = [cancel("x", "1", Some(&["A-2"]), cancelled(&["A-2"], 30))];
    let mut history = bought_and(&records);
    history.push(order(1, "p", &["A-2"], ordered("2", 0)));
    let seen = |gone: &[&str], refunded| Observation {
        balances: BTreeMap::new(),
        orders: BTreeMap::from([
            (0, vec![part_of_it(gone, refunded)]),
            (1, vec![seen_order("2", &["A-2"], 0)]),
        ]),
        sold: 2,
    };
    assert!(history.check(&seen(&["A-2"], 30)).is_empty());
    let twice = Finding::SoldTwice {
        seat: "A-2".to_owned(),
    };
    assert!(history.check(&seen(&[], 0)).contains(&twice));
}
