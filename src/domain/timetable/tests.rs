mod cancels;
mod cooling;
mod holds;
mod orders;
mod properties;

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
use crate::domain::order::{CancelRequest, Method, OrderStatus, total};
use crate::domain::plan::{Grade, Limits};
use crate::domain::seat::Seats;
use crate::domain::time::Millis;

const OPENS: Timestamp = Timestamp(1_000_000);
const NOW: Timestamp = Timestamp(1_001_000);
const CLOSES: Timestamp = Timestamp(9_000_000);
/// A day and some hours later: by default, buyers may cancel for these hours.
const STARTS: Timestamp = Timestamp(NOW.0 + 86_400_000 + 20_000_000);
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
        starts_at: STARTS,
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
