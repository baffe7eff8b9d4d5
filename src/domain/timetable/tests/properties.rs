//! Whatever clients do, in whichever order: the invariants hold, and recovery
//! gives the same seats.

mod acts;

use super::*;
use acts::{Act, Run, act};

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
        orders: timetable.confirmed.iter().map(as_confirmed).collect(),
        cancels: timetable
            .confirmed
            .iter()
            .flat_map(|order| order.cancels.iter().map(|c| (order.id, c.clone())))
            .collect(),
        refunds_due: timetable.refunds_due.iter().copied().collect(),
        aborted: timetable.aborted.iter().copied().collect(),
        blocked: blocked.collect(),
    };
    Timetable::restore(Arc::clone(&timetable.plan), stored)
}

/// An order's row, to which its cancels come from elsewhere.
fn as_confirmed(order: &Arc<Order>) -> Order {
    Order {
        status: OrderStatus::Confirmed,
        cancels: vec![],
        ..(**order).clone()
    }
}

#[test]
fn a_sold_seat_wins_over_a_hold_in_a_checkpoint_and_a_newer_hold_over_an_older() {
    let mut sale = Sale::new(plan());
    sale.hold(1, 1, &["A-1-1"]).unwrap();
    sale.hold(2, 2, &["A-1-2", "A-1-3"]).unwrap();
    sale.open(NOW, 1, 1, 1).unwrap();
    let order = order_id(1);
    sale.run(
        NOW,
        Command::Sell {
            order,
            coupon: None,
        },
    )
    .unwrap();
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
                        .kept()
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
        let kept = order.kept();
        let count = u32::try_from(kept.len()).unwrap();
        if count > 0 {
            *have.entry(order.user).or_default() += count;
        }
        assert_eq!(order.amount(), total(&order.seats), "I7");
        let left = order.amount().minus(order.refunded());
        assert_eq!(left, total(&kept), "I7");
        assert_eq!(order.status == OrderStatus::Cancelled, kept.is_empty());
        for priced in &kept {
            assert_eq!(sold.insert(priced.seat, order.id), None, "I1");
        }
    }
    for unsettled in &timetable.unsettled {
        if let Some(user) = unsettled.counted_for {
            *have.entry(user).or_default() += u32::try_from(unsettled.seats.len()).unwrap();
        }
    }
    for (user, count) in have {
        assert!(count <= timetable.plan.limits.max_seats_per_user);
        assert_eq!(timetable.users[&user].total, count);
    }
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
        prop_assert_eq!(&back.refunds_due, &run.sale.timetable.refunds_due);
        let orders = |timetable: &Timetable| {
            let orders = timetable.confirmed.iter().map(|order| (**order).clone());
            orders.collect::<Vec<_>>()
        };
        prop_assert_eq!(orders(&back), orders(&run.sale.timetable));
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
