//! What clients and the clock may do.

use super::*;

/// What a client may do, in small numbers so that they collide.
#[derive(Clone, Debug)]
pub(super) enum Act {
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
    Cancel {
        order: usize,
        by: Option<u128>,
        seats: Option<Vec<usize>>,
        request: u64,
    },
    RefundPaid {
        order: usize,
        no: u32,
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

pub(super) fn act() -> impl Strategy<Value = Act> {
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
        4 => (
            0usize..4,
            prop::option::of(1u128..4),
            prop::option::of(prop::collection::vec(0usize..3, 1..3)),
            0u64..100,
        )
            .prop_map(|(order, by, seats, request)| Act::Cancel { order, by, seats, request }),
        1 => (0usize..4, 1u32..3).prop_map(|(order, no)| Act::RefundPaid { order, no }),
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

pub(super) struct Run {
    pub(super) sale: Sale,
    pub(super) now: Timestamp,
    pub(super) holds: u128,
    pub(super) orders: u128,
}

impl Run {
    pub(super) fn act(&mut self, act: Act) -> Option<Result<Reply, Refusal>> {
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
                coupon: None,
            },
            Act::Abort { order } => Command::Abort {
                order: order_id(recent(order, self.orders)),
            },
            Act::Resolve { order } => Command::Resolve {
                order: order_id(recent(order, self.orders)),
            },
            Act::Cancel {
                order,
                by,
                seats,
                request,
            } => self.cancelling(order, by, seats, request),
            Act::RefundPaid { order, no } => Command::RefundPaid {
                order: order_id(recent(order, self.orders)),
                no: CancelNo(no),
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

    /// Seats are named by their places in the order, mostly.
    fn cancelling(
        &self,
        order: usize,
        by: Option<u128>,
        seats: Option<Vec<usize>>,
        request: u64,
    ) -> Command {
        let sold: Vec<_> = self.sale.timetable.confirmed.iter().collect();
        let back = sold.len().saturating_sub(1 + order);
        let order = sold.get(back);
        let named = |places: Vec<usize>| {
            let mut seats: Seats = places
                .into_iter()
                .filter_map(|at| order?.seats.get(at).map(|priced| priced.seat))
                .collect();
            seats.sort_unstable();
            seats.dedup();
            NamedSeats {
                seats,
                unknown: vec![],
            }
        };
        Command::Cancel {
            order: order.map_or(order_id(0), |order| order.id),
            by: by.map_or(CancelledBy::Organizer, |by| CancelledBy::Buyer(user(by))),
            seats: seats.map(named),
            request: CancelRequest(request),
        }
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
