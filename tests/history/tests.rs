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
        ticketed: seats(ids),
    }
}

fn seen(balance: i64, orders: Vec<SeenOrder>) -> Observation {
    let sold = orders.iter().map(|order| order.seats.len()).sum();
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
            status: "cancelled".to_owned(),
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
    assert!(missing_tickets(&seen(0, vec![order.clone()])).is_empty());
    order.ticketed = seats(&["A-1"]);
    assert_eq!(missing_tickets(&seen(0, vec![order])).len(), 1);
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
