//! A coupon that has gone through everything, and lies about one.

use super::tampered::broken;
use super::*;
use onsale::domain::coupon::{Claim, Command, Discount, Event, Patch, Prepare, Terms};
use onsale::domain::ids::{CouponClaimId, CouponId};

on_both_stores!(
    a_claim_beyond_the_stock_or_outside_the_window_is_found,
    a_second_claim_of_a_user_is_found,
    a_claim_that_two_orders_have_is_found,
);

const STOCK: u32 = 7;

pub(super) fn gift(epoch: Epoch) -> Live<Coupon> {
    let id = CouponId(Uuid::now_v7());
    Live::new(Coupon::new(id), id, epoch)
}

fn terms() -> Terms {
    Terms {
        name: "spring".to_owned(),
        discount: Discount::Percent(20),
        stock: STOCK,
        starts_at: NOW,
        ends_at: NOW.plus(Millis::from_secs(60)),
        performance: None,
        owner: person(99),
        created_at: NOW,
    }
}

fn person(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

fn claim_of(user: UserId) -> Claim {
    Claim {
        id: CouponClaimId(Uuid::now_v7()),
        user,
        at: NOW,
        key: None,
    }
}

impl World {
    async fn give(&mut self, command: Command) {
        self.gift.run(NOW, command).unwrap();
        self.commit().await;
    }

    async fn claim(&mut self, user: UserId) {
        let claim = CouponClaimId(Uuid::now_v7());
        let key = Some(KeyHash(u64::MAX));
        self.give(Command::Claim { claim, user, key }).await;
    }

    /// Claims, and orders that come to nothing or are cancelled.
    pub(super) async fn give_away(&mut self) {
        self.give(Command::Create(terms())).await;
        for number in 1..=4 {
            self.claim(person(number)).await;
        }
        let patch = Patch {
            stock: Some(STOCK - 1),
            name: Some("summer".to_owned()),
            ..Patch::default()
        };
        self.give(Command::Change(patch)).await;
        let (timetable, user) = (TimetableId(self.show.entity.id), person(1));
        for is_cancelled in [false, true] {
            let order = OrderId(id_of(self.show.entity));
            let prepare = Command::Prepare {
                order,
                user,
                timetable,
                performance: PerformanceId(self.line.entity.id),
            };
            self.give(prepare).await;
            if is_cancelled {
                self.give(Command::Post { order, user }).await;
                self.give(Command::Return {
                    order,
                    user,
                    timetable,
                })
                .await;
            } else {
                self.give(Command::Void {
                    order,
                    user,
                    timetable,
                })
                .await;
            }
        }
        let order = OrderId(id_of(self.show.entity));
        self.give(Command::Void {
            order,
            user,
            timetable,
        })
        .await;
        self.claim(person(5)).await;
        let bob = UserId(self.bob.entity.id);
        self.claim(bob).await;
        self.buy_with_the_coupon(14).await;
        self.publish().await;
    }

    /// Bob's, at 20 % off: the saga of an order with a coupon.
    async fn buy_with_the_coupon(&mut self, seat: u32) {
        let hold = self.hold(false, &[seat]);
        let (show, user) = (self.show.entity, UserId(self.bob.entity.id));
        let (order, payment) = (OrderId(id_of(show)), PaymentId(id_of(show)));
        let open = timetable::Command::OpenOrder {
            order,
            payment,
            hold,
            user,
            method: onsale::domain::order::Method::Wallet,
        };
        self.show.run(NOW, open).unwrap();
        let prepare = Command::Prepare {
            order,
            user,
            timetable: TimetableId(show.id),
            performance: PerformanceId(self.line.entity.id),
        };
        self.give(prepare).await;
        let discount = Money(PRICE / 5);
        self.prepare(
            false,
            order,
            Money(PRICE).minus(discount),
            Some(claim("order-5")),
        );
        self.commit().await;
        let coupon = CouponId(self.gift.entity.id);
        let coupon = Some(timetable::command::Redeemed { coupon, discount });
        let sell = timetable::Command::Sell { order, coupon };
        self.show.run(NOW, sell).unwrap();
        self.commit().await;
        self.give(Command::Post { order, user }).await;
        self.bob.run(NOW, account::Command::Post { order }).unwrap();
        self.commit().await;
    }

    /// What the machine of the coupon would never decide; `rows` says what of it
    /// gets past the second barrier.
    async fn claim_falsely(&mut self, events: &[Event], rows: impl FnOnce(&mut Contribution)) {
        let gift = &mut self.gift;
        let mut lie = None;
        for event in events {
            gift.seq = gift.seq.next();
            let after = Stamp {
                epoch: gift.epoch,
                activation: gift.activation,
                seq: gift.seq,
            };
            let new = || Contribution::new(gift.entity, gift.stored, after, NOW);
            let into = lie.get_or_insert_with(new);
            into.after = after;
            into.journalise(gift.seq, NOW, event);
            gift.machine.record(event, into);
            into.outbox.clear();
        }
        rows(lie.as_mut().unwrap());
        gift.waiting = lie;
        self.commit().await;
    }

    async fn found_in_coupons(&self) -> (String, Vec<&'static str>) {
        let report = self.audit().await;
        let found = report.checks.iter().filter(|check| check.found > 0);
        (broken(&report), found.map(|check| check.what).collect())
    }
}

async fn a_claim_beyond_the_stock_or_outside_the_window_is_found(place: Place) {
    let mut world = World::busy(place).await;
    world
        .claim_falsely(&[Event::Claimed(claim_of(person(6)))], |lie| {
            lie.coupon().unwrap().coupon = None;
        })
        .await;
    assert_eq!(world.found_in_coupons().await.0, "I5");
    let mut world = World::new(place).await;
    world.give(Command::Create(terms())).await;
    let late = Claim {
        at: terms().ends_at,
        ..claim_of(person(6))
    };
    world
        .claim_falsely(&[Event::Claimed(late)], |lie| {
            let rows = lie.coupon().unwrap();
            rows.coupon.as_mut().unwrap().claimed = 1;
        })
        .await;
    assert_eq!(world.found_in_coupons().await.0, "I5");
}

async fn a_second_claim_of_a_user_is_found(place: Place) {
    let mut world = World::busy(place).await;
    let again = claim_of(person(1));
    world
        .claim_falsely(&[Event::Claimed(again)], |lie| {
            let rows = lie.coupon().unwrap();
            (rows.coupon, rows.claims) = (None, vec![]);
        })
        .await;
    let (invariants, found) = world.found_in_coupons().await;
    assert_eq!(invariants, "I6");
    assert!(found.contains(&"a user claims a coupon once"));
}

async fn a_claim_that_two_orders_have_is_found(place: Place) {
    let mut world = World::busy(place).await;
    let prepare = |user: u128| Prepare {
        user: person(user),
        order: OrderId(Uuid::now_v7()),
        timetable: TimetableId(Uuid::now_v7()),
        at: NOW,
    };
    let both = [Event::Prepared(prepare(1)), Event::Prepared(prepare(1))];
    world
        .claim_falsely(&both, |lie| lie.coupon().unwrap().uses.clear())
        .await;
    let (invariants, found) = world.found_in_coupons().await;
    assert_eq!(invariants, "I6 I7");
    assert!(found.contains(&"a claim is used by its owner, in one order at a time"));
    // One who has none.
    let mut world = World::busy(place).await;
    world
        .claim_falsely(&[Event::Prepared(prepare(7))], |_| {})
        .await;
    assert_eq!(world.found_in_coupons().await.0, "I7");
}
