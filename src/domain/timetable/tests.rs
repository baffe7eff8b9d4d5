mod cooling;

use std::collections::HashMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::command::LostHold;
use super::restore::{HoldState, KnownHold, Stored};
use super::*;
use crate::domain::decision::{Tier, step};
use crate::domain::ids::{PaymentId, PerformanceId, TimetableId};
use crate::domain::layout::{Layout, RowSpec, SectionIndex, SectionShape, SectionSpec};
use crate::domain::money::{Currency, Money};
use crate::domain::order::{Method, total};
use crate::domain::plan::{Grade, Limits};
use crate::domain::time::Millis;

const OPENS: Timestamp = Timestamp(1_000_000);
const NOW: Timestamp = Timestamp(1_001_000);
const CLOSES: Timestamp = Timestamp(9_000_000);
const TTL: Millis = Millis::from_secs(300);

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn user(n: u128) -> UserId {
    UserId(id(n))
}

fn hold_id(n: u128) -> HoldId {
    HoldId(id(1_000 + n))
}

fn order_id(n: u128) -> OrderId {
    OrderId(id(1_000_000 + n))
}

/// Section A with two rows of 5 (VIP), section B with one row of 4 (R), and a
/// pit of 6 places (R).
fn plan() -> Plan {
    let section = |name: &str, shape| SectionSpec {
        name: name.to_owned(),
        shape,
        x: 0.0,
        y: 0.0,
        accessible: false,
    };
    let row = |name: &str, seats| RowSpec {
        name: name.to_owned(),
        seats,
        x: None,
        y: None,
        accessible: false,
    };
    let layout = Layout::build(&[
        section("A", SectionShape::Rows(vec![row("1", 5), row("2", 5)])),
        section("B", SectionShape::Rows(vec![row("1", 4)])),
        section("PIT", SectionShape::GeneralAdmission { units: 6 }),
    ])
    .unwrap();
    let grade = |name: &str, price, max_per_user| Grade {
        name: name.to_owned(),
        price: Money(price),
        max_per_user,
        opens_at: None,
        closes_at: None,
    };
    Plan {
        timetable_id: TimetableId(id(1)),
        performance_id: PerformanceId(id(2)),
        layout: Arc::new(layout),
        grades: vec![grade("VIP", 100, Some(3)), grade("R", 30, None)],
        grade_of_section: vec![GradeIndex(0), GradeIndex(1), GradeIndex(1)],
        currency: Currency::KRW,
        opens_at: OPENS,
        closes_at: CLOSES,
        limits: Limits {
            max_seats_per_user: 6,
            ..Limits::default()
        },
        withdrawn: false,
    }
}

struct Sale {
    timetable: Timetable,
    seq: Seq,
    history: Vec<(Seq, Event)>,
}

impl Sale {
    fn new(plan: Plan) -> Self {
        Self {
            timetable: Timetable::new(Arc::new(plan)),
            seq: Seq(0),
            history: vec![],
        }
    }

    fn run(&mut self, now: Timestamp, command: Command) -> Result<Reply, Refusal> {
        let step = step(&mut self.timetable, &mut self.seq, now, command);
        self.history.extend(step.events);
        step.outcome
    }

    fn seats(&self, names: &[&str]) -> Choice {
        let layout = &self.timetable.plan.layout;
        let seats = names
            .iter()
            .map(|name| layout.seat_named(name).unwrap())
            .collect();
        Choice::Seats {
            seats,
            unknown: vec![],
        }
    }

    fn hold(&mut self, n: u128, by: u128, names: &[&str]) -> Result<Reply, Refusal> {
        let choice = self.seats(names);
        let command = Command::Hold {
            hold: hold_id(n),
            user: user(by),
            choice,
            under_pass: false,
        };
        self.run(NOW, command)
    }

    fn open(&mut self, now: Timestamp, n: u128, hold: u128, by: u128) -> Result<Reply, Refusal> {
        self.open_by(Method::Wallet, now, n, hold, by)
    }

    fn open_by(
        &mut self,
        method: Method,
        now: Timestamp,
        n: u128,
        hold: u128,
        by: u128,
    ) -> Result<Reply, Refusal> {
        let payment = PaymentId(id(5));
        let (order, hold) = (order_id(n), hold_id(hold));
        self.run(
            now,
            Command::OpenOrder {
                order,
                payment,
                hold,
                user: user(by),
                method,
            },
        )
    }

    fn status(&self, name: &str) -> SeatStatus {
        let seat = self.timetable.plan.layout.seat_named(name).unwrap();
        self.timetable.statuses().nth(seat.offset()).unwrap()
    }
}

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
    sale.run(NOW, Command::Sell { order: order_id(1) }).unwrap();
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
    sale.run(NOW, Command::Sell { order }).unwrap();
    assert_eq!(
        sale.open(NOW, 2, 1, 1),
        Err(Refusal::HoldAlreadyOrdered { order })
    );
    // Asked again because the answer was lost.
    sale.run(NOW, Command::Sell { order }).unwrap();
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
    sale.run(NOW, Command::Sell { order: order_id(1) }).unwrap();
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
        sale.run(NOW, Command::Sell { order: order_id(1) }),
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
    let sell = Command::Sell { order: order_id(1) };
    assert_eq!(sale.run(abandoned, sell), Err(Refusal::OrderNotOpen));
    let again = sale.open(abandoned, 2, 1, 1);
    assert!(again.is_ok(), "the hold is its user's still: {again:?}");
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

/// What a client may do, in small numbers so that they collide.
#[derive(Clone, Debug)]
enum Act {
    Hold {
        by: u128,
        seats: Vec<u32>,
    },
    Best {
        by: u128,
        count: u32,
        adjacent: bool,
    },
    Pit {
        by: u128,
        count: u32,
    },
    Add {
        hold: usize,
        by: u128,
        count: u32,
    },
    Drop {
        hold: usize,
        by: u128,
        seat: u32,
    },
    Release {
        hold: usize,
        by: u128,
    },
    Open {
        hold: usize,
        by: u128,
    },
    Sell {
        order: usize,
    },
    Abort {
        order: usize,
    },
    Resolve {
        order: usize,
    },
    Block {
        seat: u32,
    },
    Unblock {
        seat: u32,
    },
    Settle,
    Wait {
        ms: i64,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let by = 1u128..4;
    prop_oneof![
        4 => (by.clone(), prop::collection::btree_set(0u32..20, 1..4))
            .prop_map(|(by, seats)| Act::Hold { by, seats: seats.into_iter().collect() }),
        3 => (by.clone(), 1u32..5, any::<bool>())
            .prop_map(|(by, count, adjacent)| Act::Best { by, count, adjacent }),
        2 => (by.clone(), 1u32..4).prop_map(|(by, count)| Act::Pit { by, count }),
        1 => (0usize..8, by.clone(), 1u32..3).prop_map(|(hold, by, count)| Act::Add { hold, by, count }),
        1 => (0usize..8, by.clone(), 0u32..20).prop_map(|(hold, by, seat)| Act::Drop { hold, by, seat }),
        2 => (0usize..8, by.clone()).prop_map(|(hold, by)| Act::Release { hold, by }),
        4 => (0usize..8, by).prop_map(|(hold, by)| Act::Open { hold, by }),
        4 => (0usize..8).prop_map(|order| Act::Sell { order }),
        2 => (0usize..8).prop_map(|order| Act::Abort { order }),
        1 => (0usize..8).prop_map(|order| Act::Resolve { order }),
        1 => (0u32..20).prop_map(|seat| Act::Block { seat }),
        1 => (0u32..20).prop_map(|seat| Act::Unblock { seat }),
        3 => Just(Act::Settle),
        3 => (1i64..200_000).prop_map(|ms| Act::Wait { ms }),
    ]
}

/// The `n`th last of what was made, so that acts mostly meet something live.
fn recent(n: usize, made: u128) -> u128 {
    made.saturating_sub(1 + n as u128)
}

struct Run {
    sale: Sale,
    now: Timestamp,
    holds: u128,
    orders: u128,
}

impl Run {
    fn act(&mut self, act: Act) -> Option<Result<Reply, Refusal>> {
        let command = match act {
            Act::Hold { by, seats } => {
                let seats = seats.into_iter().map(SeatIndex).collect();
                self.holding(
                    by,
                    Choice::Seats {
                        seats,
                        unknown: vec![],
                    },
                )
            }
            Act::Best {
                by,
                count,
                adjacent,
            } => self.holding(
                by,
                Choice::Best {
                    count,
                    grade: None,
                    section: None,
                    adjacent,
                },
            ),
            Act::Pit { by, count } => self.holding(
                by,
                Choice::Units {
                    section: Ok(SectionIndex(2)),
                    count,
                },
            ),
            Act::Add { hold, by, count } => Command::AddSeats {
                hold: hold_id(recent(hold, self.holds)),
                user: user(by),
                choice: Choice::Best {
                    count,
                    grade: None,
                    section: None,
                    adjacent: false,
                },
            },
            Act::Drop { hold, by, seat } => Command::DropSeat {
                hold: hold_id(recent(hold, self.holds)),
                user: user(by),
                seat: SeatIndex(seat),
            },
            Act::Release { hold, by } => Command::Release {
                hold: hold_id(recent(hold, self.holds)),
                user: user(by),
            },
            Act::Open { hold, by } => {
                self.orders += 1;
                Command::OpenOrder {
                    order: order_id(self.orders - 1),
                    payment: PaymentId(id(5)),
                    hold: hold_id(recent(hold, self.holds)),
                    user: user(by),
                    method: Method::Wallet,
                }
            }
            Act::Sell { order } => Command::Sell {
                order: order_id(recent(order, self.orders)),
            },
            Act::Abort { order } => Command::Abort {
                order: order_id(recent(order, self.orders)),
            },
            Act::Resolve { order } => Command::Resolve {
                order: order_id(recent(order, self.orders)),
            },
            Act::Block { seat } => Command::Block {
                seats: Seats::from_iter([SeatIndex(seat)]),
            },
            Act::Unblock { seat } => Command::Unblock {
                seats: Seats::from_iter([SeatIndex(seat)]),
            },
            Act::Settle => {
                let seq = self.sale.seq;
                self.sale.timetable.settle(seq);
                return None;
            }
            Act::Wait { ms } => {
                self.now = self.now.plus(Millis(ms));
                return None;
            }
        };
        Some(self.sale.run(self.now, command))
    }

    fn holding(&mut self, by: u128, choice: Choice) -> Command {
        self.holds += 1;
        Command::Hold {
            hold: hold_id(self.holds - 1),
            user: user(by),
            choice,
            under_pass: false,
        }
    }
}

/// Everything that must be true of a timetable at any moment.
fn check(timetable: &Timetable) {
    let mut counts = SeatCounts::default();
    let mut free = 0;
    for (index, seat) in (0u32..).map(SeatIndex).zip(&timetable.seats) {
        *counts.of(seat.status()) += 1;
        assert_eq!(timetable.free.is_free(index), *seat == Seat::Free);
        free += u32::from(*seat == Seat::Free);
        match seat {
            Seat::Held(hold) => {
                assert!(
                    timetable.holds[hold]
                        .seats
                        .iter()
                        .any(|priced| priced.seat == index)
                );
            }
            Seat::Sold(order) | Seat::Selling(order) => {
                assert!(
                    timetable
                        .confirmed
                        .get(*order)
                        .unwrap()
                        .seats
                        .iter()
                        .any(|priced| priced.seat == index)
                );
            }
            Seat::Free | Seat::Blocked | Seat::Releasing => {}
        }
    }
    assert_eq!(counts, timetable.counts, "I2");
    assert_eq!(counts.available, free);
    let mut have: HashMap<UserId, u32> = HashMap::new();
    for hold in timetable.holds.values() {
        *have.entry(hold.user).or_default() += u32::try_from(hold.seats.len()).unwrap();
        for priced in &hold.seats {
            assert_eq!(timetable.seat(priced.seat), Some(Seat::Held(hold.id)), "I4");
        }
        let pinned = hold
            .order
            .is_some_and(|order| timetable.open.contains_key(&order));
        assert_eq!(pinned, hold.order.is_some());
        assert_ne!(
            pinned,
            timetable.deadlines.contains(&(hold.expires_at, hold.id))
        );
    }
    let mut sold = HashMap::new();
    for order in timetable.confirmed.iter() {
        *have.entry(order.user).or_default() += u32::try_from(order.seats.len()).unwrap();
        assert_eq!(order.amount(), total(&order.seats), "I7");
        for priced in &order.seats {
            assert_eq!(sold.insert(priced.seat, order.id), None, "I1");
        }
    }
    for (user, count) in have {
        assert!(count <= timetable.plan.limits.max_seats_per_user);
        assert_eq!(timetable.users[&user].total, count);
    }
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
    sale.run(NOW, Command::Sell { order }).unwrap();
    let refused = release(&mut sale);
    assert_eq!(refused, Err(Refusal::HoldAlreadyOrdered { order }));
    assert_eq!(sale.timetable.reveals(&refused), Tier::Database);
    sale.timetable.settle(sale.seq);
    assert_eq!(sale.timetable.reveals(&refused), Tier::Memory);
}

/// The timetable that its rows make.
fn restored(timetable: &Timetable) -> Timetable {
    let blocked = (0u32..)
        .map(SeatIndex)
        .zip(&timetable.seats)
        .filter(|(_, seat)| **seat == Seat::Blocked)
        .map(|(index, _)| index);
    let unpinned = |hold: Hold| Hold {
        order: None,
        ..hold
    };
    let stored = Stored {
        holds: timetable.holds().cloned().map(unpinned).collect(),
        orders: timetable
            .confirmed
            .iter()
            .map(|order| (**order).clone())
            .collect(),
        aborted: timetable.aborted.iter().copied().collect(),
        blocked: blocked.collect(),
    };
    Timetable::restore(Arc::clone(&timetable.plan), stored)
}

#[test]
fn a_sold_seat_wins_over_a_hold_in_a_checkpoint_and_a_newer_hold_over_an_older() {
    let mut sale = Sale::new(plan());
    sale.hold(1, 1, &["A-1-1"]).unwrap();
    sale.hold(2, 2, &["A-1-2", "A-1-3"]).unwrap();
    sale.open(NOW, 1, 1, 1).unwrap();
    let order = order_id(1);
    sale.run(NOW, Command::Sell { order }).unwrap();
    sale.timetable.settle(sale.seq);
    let mut back = restored(&sale.timetable);
    let live = |n: u128, by: u128, names: &[&str]| {
        let mut other = Sale::new(plan());
        other.hold(n, by, names).unwrap();
        let hold = other.timetable.hold(hold_id(n)).unwrap().clone();
        KnownHold {
            id: hold.id,
            state: HoldState::Live(hold),
        }
    };
    let events = back.recover_holds(vec![
        live(3, 3, &["A-1-1", "A-1-5"]),
        live(4, 4, &["A-1-3", "A-1-4"]),
    ]);
    for event in events {
        back.apply(sale.seq.next(), &event);
    }
    check(&back);
    let holds: Vec<HoldId> = back.holds().map(|hold| hold.id).collect();
    assert_eq!(holds, [hold_id(4)], "3 is on a sold seat, 2 was overtaken");
}

/// The timetable that its durable events make.
fn replay(sale: &Sale) -> Timetable {
    let mut again = Timetable::new(Arc::clone(&sale.timetable.plan));
    for (seq, event) in sale
        .history
        .iter()
        .filter(|(_, event)| Timetable::is_durable(event))
    {
        again.apply(*seq, event);
    }
    again.settle(sale.seq);
    again
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// I1 to I4 and I7 under anything that clients and the clock do.
    #[test]
    fn whatever_happens_the_invariants_hold(acts in prop::collection::vec(act(), 1..120)) {
        let mut run = Run { sale: Sale::new(plan()), now: NOW, holds: 0, orders: 0 };
        for act in acts {
            let before = run.sale.timetable.counts();
            let events = run.sale.history.len();
            if let Some(Err(_)) = run.act(act) {
                // A refusal changes nothing but what was due anyway.
                let due = run.sale.history[events..].iter();
                let is_due = |event: &Event| matches!(
                    event,
                    Event::HoldEnded { end: HoldEnd::Expired, .. }
                        | Event::SeatsCooled { .. }
                        // Of an order whose saga is gone.
                        | Event::OrderAborted { .. }
                        | Event::HoldProlonged { .. }
                );
                prop_assert!(due.clone().all(|(_, event)| is_due(event)));
                if due.count() == 0 {
                    prop_assert_eq!(before, run.sale.timetable.counts());
                }
            }
            check(&run.sale.timetable);
        }
    }

    /// A restart loses nothing durable: the events, and the rows made of them,
    /// give the same seats.
    #[test]
    fn recovery_gives_the_same_seats(acts in prop::collection::vec(act(), 1..120)) {
        let mut run = Run { sale: Sale::new(plan()), now: NOW, holds: 0, orders: 0 };
        for act in acts {
            run.act(act);
        }
        let seq = run.sale.seq;
        run.sale.timetable.settle(seq);
        let live: Vec<Seat> = run.sale.timetable.seats.clone();
        prop_assert_eq!(&replay(&run.sale).seats, &live);
        let back = restored(&run.sale.timetable);
        prop_assert_eq!(&back.seats, &live);
        check(&back);
    }

    /// What a crash leaves: everything up to some decision in the database,
    /// and of what came after only the holds, because a sale isn't a
    /// checkpoint's to tell. Together they give the holds as they were.
    #[test]
    fn holds_come_back_from_the_database_and_what_is_newer_in_the_checkpoint(
        acts in prop::collection::vec(act(), 1..120),
        part in 0..=100u64,
    ) {
        let mut run = Run { sale: Sale::new(plan()), now: NOW, holds: 0, orders: 0 };
        let mut settled = Seq(0);
        for act in acts {
            let settles = matches!(act, Act::Settle);
            run.act(act);
            if settles {
                settled = run.sale.seq;
            }
        }
        // What was settled is in the database.
        let watermark = Seq(settled.0 + (run.sale.seq.0 - settled.0) * part / 100);
        let plan = &run.sale.timetable.plan;
        let mut stored = Timetable::new(Arc::clone(plan));
        let mut expected = Timetable::new(Arc::clone(plan));
        let mut known: Vec<KnownHold> = Vec::new();
        let durable = run.sale.history.iter().filter(|(_, event)| Timetable::is_durable(event));
        for (seq, event) in durable {
            if *seq <= watermark {
                stored.apply(*seq, event);
                expected.apply(*seq, event);
                expected.settle(*seq);
                continue;
            }
            let (id, ended) = match event {
                Event::HoldEnded { hold, user, end, .. } => {
                    (*hold, Some(HoldState::Ended { user: *user, end: *end }))
                }
                Event::Held { hold, .. }
                | Event::SeatsAdded { hold, .. }
                | Event::SeatsDropped { hold, .. }
                | Event::HoldProlonged { hold, .. } => (*hold, None),
                _ => continue,
            };
            expected.apply(*seq, event);
            known.retain(|hold| hold.id != id);
            let state = ended.unwrap_or_else(|| HoldState::Live(expected.holds[&id].clone()));
            known.push(KnownHold { id, state });
        }
        stored.settle(watermark);
        let mut back = restored(&stored);
        for event in back.recover_holds(known) {
            back.apply(watermark.next(), &event);
        }
        check(&back);
        prop_assert_eq!(&back.seats, &expected.seats);
        let holds = |timetable: &Timetable| {
            let mut holds: Vec<Hold> = timetable.holds().cloned().collect();
            holds.iter_mut().for_each(|hold| hold.grace_used = false);
            holds.sort_by_key(|hold| hold.id);
            holds
        };
        prop_assert_eq!(holds(&back), holds(&expected));
    }
}
