//! Contributions that no honest machine would have made: the journal itself lies.

use super::tampered::broken;
use super::*;

on_both_stores!(
    a_sale_without_a_hold_is_found,
    a_sale_from_somebody_elses_hold_is_found,
    a_sale_of_an_expired_hold_is_found,
    a_seat_sold_twice_in_the_journal_is_found_even_if_the_table_lost_one_of_them,
    a_hold_that_takes_a_held_seat_is_found,
    a_contribution_that_claims_fewer_decisions_than_it_has_is_found,
);

/// Writes a contribution that no honest machine would have made.
async fn after_lie(place: Place, lie: impl FnOnce(&mut World)) -> Report {
    let mut world = World::busy(place).await;
    lie(&mut world);
    world.commit().await;
    world.audit().await
}

fn confirmed(world: &World, hold: HoldId, seat: u32) -> timetable::Event {
    let id = |_| id_of(world.show.entity);
    let order = onsale::domain::order::Order {
        id: OrderId(id(())),
        user: UserId(world.bob.entity.id),
        hold,
        payment: PaymentId(id(())),
        method: onsale::domain::order::Method::Card,
        status: onsale::domain::order::OrderStatus::Confirmed,
        seats: [onsale::domain::order::PricedSeat {
            seat: SeatIndex(seat),
            price: Money(PRICE),
        }]
        .into_iter()
        .collect(),
        discount: Money::ZERO,
        coupon: None,
        created_at: NOW,
        cancels: vec![],
    };
    timetable::Event::OrderConfirmed {
        order: Arc::new(order),
    }
}

impl World {
    /// What the machine of the timetable would never decide.
    fn force(&mut self, event: &timetable::Event) {
        let show = &mut self.show;
        show.seq = show.seq.next();
        show.machine.apply(show.seq, event);
        let after = Stamp {
            epoch: show.epoch,
            activation: Activation(1),
            seq: show.seq,
        };
        let entry = show
            .waiting
            .get_or_insert_with(|| Contribution::new(show.entity, show.stored, after, NOW));
        entry.after = after;
        entry.journalise(show.seq, NOW, event);
        show.machine.record(event, entry);
        for row in &mut entry.outbox {
            show.events += 1;
            row.event_seq = show.events;
        }
    }
}

async fn a_sale_without_a_hold_is_found(place: Place) {
    let report = after_lie(place, |world| {
        let event = confirmed(world, HoldId(Uuid::now_v7()), 18);
        world.force(&event);
    });
    assert_eq!(broken(&report.await), "I3");
}

async fn a_sale_from_somebody_elses_hold_is_found(place: Place) {
    let report = after_lie(place, |world| {
        let hold = world.hold(true, &[18]);
        let event = confirmed(world, hold, 18);
        world.force(&event);
    });
    assert_eq!(broken(&report.await), "I3");
}

async fn a_sale_of_an_expired_hold_is_found(place: Place) {
    let report = after_lie(place, |world| {
        let hold = world.hold_at(Timestamp(NOW.0 - 600_000), false, &[18]);
        let event = confirmed(world, hold, 18);
        world.force(&event);
    });
    assert_eq!(broken(&report.await), "I3");
}

async fn a_seat_sold_twice_in_the_journal_is_found_even_if_the_table_lost_one_of_them(
    place: Place,
) {
    let report = after_lie(place, |world| {
        let hold = world.hold(false, &[18]);
        let event = confirmed(world, hold, 0);
        world.force(&event);
        // The primary key would refuse the second row of seat 0.
        let waiting = world.show.waiting.as_mut().unwrap();
        waiting.timetable().unwrap().orders.clear();
        waiting.outbox.clear();
    });
    let report = report.await;
    assert_eq!(broken(&report), "I1 I3");
    let twice = report
        .checks
        .iter()
        .find(|c| c.what == "the journal sells no seat twice")
        .unwrap();
    assert_eq!(twice.found, 1);
}

async fn a_hold_that_takes_a_held_seat_is_found(place: Place) {
    let report = after_lie(place, |world| {
        // Seat 7 is ann's.
        let event = timetable::Event::SeatsAdded {
            hold: HoldId(Uuid::now_v7()),
            seats: [onsale::domain::order::PricedSeat {
                seat: SeatIndex(7),
                price: Money(PRICE),
            }]
            .into_iter()
            .collect(),
        };
        world.show.seq = world.show.seq.next();
        let after = Stamp {
            epoch: world.show.epoch,
            activation: Activation(1),
            seq: world.show.seq,
        };
        let mut lie = Contribution::new(world.show.entity, world.show.stored, after, NOW);
        lie.journalise(world.show.seq, NOW, &event);
        world.show.waiting = Some(lie);
    });
    assert_eq!(broken(&report.await), "I3 I4");
}

async fn a_contribution_that_claims_fewer_decisions_than_it_has_is_found(place: Place) {
    let report = after_lie(place, |world| {
        world.hold(true, &[18]);
        world.hold(true, &[19]);
        let waiting = world.show.waiting.as_mut().unwrap();
        waiting.first_seq = waiting.after.seq;
    });
    assert_eq!(broken(&report.await), "I9");
}
