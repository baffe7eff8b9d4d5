use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::decision::step;
use crate::domain::ids::{CouponClaimId, PerformanceId, TimetableId};
use crate::domain::money::Money;
use crate::domain::time::Millis;

const NOW: Timestamp = Timestamp(1_000_000);
const ID: CouponId = CouponId(Uuid::from_u128(5));
const ENDS: Timestamp = Timestamp(2_000_000);
const SHOW: PerformanceId = PerformanceId(Uuid::from_u128(7));
const DATE: TimetableId = TimetableId(Uuid::from_u128(9));

fn user(n: u8) -> UserId {
    UserId(Uuid::from_u128(1_000 + u128::from(n)))
}

fn order(n: u8) -> OrderId {
    OrderId(Uuid::from_u128(2_000 + u128::from(n)))
}

fn terms(stock: u32) -> Terms {
    Terms {
        name: "spring".to_owned(),
        discount: Discount::Percent(10),
        stock,
        starts_at: NOW,
        ends_at: ENDS,
        performance: None,
        owner: user(0),
        created_at: NOW,
    }
}

/// A coupon with the number of its last decision.
struct Alive(Coupon, Seq);

impl Alive {
    fn new(stock: u32) -> Self {
        let mut alive = Self(Coupon::new(ID), Seq(0));
        alive.run(Command::Create(terms(stock))).unwrap();
        alive.settle();
        alive
    }

    fn run_at(&mut self, now: Timestamp, command: Command) -> Result<Reply, Refusal> {
        step(&mut self.0, &mut self.1, now, command).outcome
    }

    fn run(&mut self, command: Command) -> Result<Reply, Refusal> {
        self.run_at(NOW, command)
    }

    fn claim(&mut self, n: u8) -> Result<Reply, Refusal> {
        self.run(claim(n))
    }

    fn prepare(&mut self, n: u8, by: u8) -> Result<Reply, Refusal> {
        self.run(prepare(n, by))
    }

    fn settle(&mut self) {
        self.0.settle(self.1);
    }

    fn remaining(&mut self) -> u32 {
        match self.run(Command::View) {
            Ok(Reply::View(view)) => view.remaining(),
            other => panic!("{other:?}"),
        }
    }
}

fn claim(n: u8) -> Command {
    Command::Claim {
        claim: CouponClaimId(Uuid::from_u128(u128::from(n))),
        user: user(n),
        key: None,
    }
}

fn prepare(n: u8, by: u8) -> Command {
    Command::Prepare {
        order: order(by),
        user: user(n),
        timetable: DATE,
        performance: SHOW,
    }
}

fn void(n: u8, by: u8) -> Command {
    Command::Void {
        order: order(by),
        user: user(n),
        timetable: DATE,
    }
}

fn post(n: u8, by: u8) -> Command {
    Command::Post {
        order: order(by),
        user: user(n),
    }
}

fn give_back(n: u8, by: u8) -> Command {
    Command::Return {
        order: order(by),
        user: user(n),
        timetable: DATE,
    }
}

fn stock_of(stock: u32) -> Command {
    Command::Change(Patch {
        stock: Some(stock),
        ..Patch::default()
    })
}

#[test]
fn the_first_come_are_served_once_each_until_the_stock_is_gone() {
    let mut coupon = Alive::new(2);
    assert!(coupon.claim(1).is_ok());
    assert_eq!(coupon.claim(1), Err(Refusal::AlreadyClaimed));
    assert!(coupon.claim(2).is_ok());
    assert_eq!(coupon.claim(3), Err(Refusal::SoldOut));
    assert_eq!(coupon.claim(2), Err(Refusal::AlreadyClaimed));
}

#[test]
fn nobody_claims_outside_its_window() {
    let mut coupon = Alive::new(2);
    let not_open = Refusal::NotOpen {
        starts_at: NOW,
        ends_at: ENDS,
    };
    for at in [Timestamp(NOW.0 - 1), ENDS, Timestamp(ENDS.0 + 1)] {
        assert_eq!(coupon.run_at(at, claim(1)), Err(not_open.clone()));
    }
    assert!(coupon.run_at(Timestamp(ENDS.0 - 1), claim(1)).is_ok());
    assert_eq!(
        Alive(Coupon::new(ID), Seq(0)).claim(1),
        Err(Refusal::NotFound)
    );
}

#[test]
fn what_is_shown_is_in_the_database() {
    let mut coupon = Alive::new(2);
    coupon.claim(1).unwrap();
    let first = coupon.1;
    coupon.claim(2).unwrap();
    assert_eq!(coupon.remaining(), 2);
    coupon.0.settle(first);
    assert_eq!(coupon.remaining(), 1);
    coupon.settle();
    assert_eq!(coupon.remaining(), 0);
    coupon.run(stock_of(5)).unwrap();
    assert_eq!(coupon.remaining(), 0);
    coupon.settle();
    assert_eq!(coupon.remaining(), 3);
    assert!(coupon.0.is_idle());
}

#[test]
fn the_stock_changes_while_it_runs_but_never_below_what_was_claimed() {
    let mut coupon = Alive::new(3);
    coupon.claim(1).unwrap();
    coupon.claim(2).unwrap();
    assert_eq!(
        coupon.run(stock_of(1)),
        Err(Refusal::HasClaims { claimed: 2 })
    );
    coupon.run(stock_of(2)).unwrap();
    assert_eq!(coupon.claim(3), Err(Refusal::SoldOut));
    coupon.run(stock_of(3)).unwrap();
    assert!(coupon.claim(3).is_ok());
}

#[test]
fn what_claims_were_made_for_stays() {
    let mut coupon = Alive::new(3);
    let discount = |value| {
        Command::Change(Patch {
            discount: Some(Discount::Amount(Money(value))),
            ..Patch::default()
        })
    };
    coupon.run(discount(500)).unwrap();
    coupon.claim(1).unwrap();
    let refused = Err(Refusal::HasClaims { claimed: 1 });
    assert_eq!(coupon.run(discount(400)), refused);
    // The same again is no change.
    assert!(coupon.run(discount(500)).is_ok());
    let bound = Patch {
        performance: Some(Some(SHOW)),
        ..Patch::default()
    };
    assert_eq!(coupon.run(Command::Change(bound)), refused);
    let renamed = Patch {
        name: Some("summer".to_owned()),
        ends_at: Some(Timestamp(ENDS.0 + 1)),
        ..Patch::default()
    };
    assert!(coupon.run(Command::Change(renamed)).is_ok());
    let upside_down = Patch {
        ends_at: Some(NOW),
        ..Patch::default()
    };
    assert_eq!(
        coupon.run(Command::Change(upside_down)),
        Err(Refusal::EndsBeforeStart)
    );
}

#[test]
fn a_claim_is_used_by_one_order_at_a_time() {
    let mut coupon = Alive::new(3);
    coupon.claim(1).unwrap();
    let discount = Ok(Reply::Prepared(Discount::Percent(10)));
    let used = Err(Refusal::NotUsable(Unusable::Used));
    assert_eq!(coupon.prepare(1, 1), discount);
    assert_eq!(coupon.prepare(1, 1), discount);
    assert!(matches!(coupon.prepare(1, 2), Err(Refusal::InUse(held)) if held.order == order(1)));
    coupon.run(void(1, 1)).unwrap();
    assert_eq!(coupon.prepare(1, 1), Err(Refusal::OrderIsVoid));
    assert_eq!(coupon.prepare(1, 2), discount);
    for _ in 0..2 {
        coupon.run(post(1, 2)).unwrap();
        // Too late, and of no effect.
        coupon.run(void(1, 2)).unwrap();
        assert_eq!(coupon.prepare(1, 2), discount);
        assert_eq!(coupon.prepare(1, 3), used);
    }
}

#[test]
fn a_claim_comes_back_once_with_its_cancelled_order() {
    let mut coupon = Alive::new(3);
    coupon.claim(1).unwrap();
    coupon.prepare(1, 1).unwrap();
    coupon.run(post(1, 1)).unwrap();
    coupon.run(give_back(1, 1)).unwrap();
    coupon.prepare(1, 2).unwrap();
    coupon.run(post(1, 2)).unwrap();
    // The first order is cancelled again: the second keeps its claim.
    coupon.run(give_back(1, 1)).unwrap();
    coupon.run(post(1, 1)).unwrap();
    let used = Err(Refusal::NotUsable(Unusable::Used));
    assert_eq!(coupon.prepare(1, 3), used);
    // Cancelled before it was posted.
    coupon.run(give_back(1, 2)).unwrap();
    coupon.prepare(1, 4).unwrap();
    coupon.run(give_back(1, 4)).unwrap();
    coupon.run(post(1, 4)).unwrap();
    assert!(coupon.prepare(1, 5).is_ok());
    assert_eq!(coupon.0.in_doubt().count(), 1);
    // Nothing of it is stock.
    assert_eq!(coupon.0.claimed(), 1);
}

#[test]
fn what_became_of_claims_is_counted_once_however_often_it_is_asked_for() {
    let mut coupon = Alive::new(3);
    coupon.claim(1).unwrap();
    for _ in 0..2 {
        coupon.prepare(1, 1).unwrap();
    }
    for _ in 0..2 {
        coupon.run(void(1, 1)).unwrap();
    }
    coupon.prepare(1, 2).unwrap();
    for _ in 0..2 {
        coupon.run(post(1, 2)).unwrap();
    }
    for _ in 0..2 {
        coupon.run(give_back(1, 2)).unwrap();
    }
    // A tombstone releases nothing.
    coupon.run(void(1, 3)).unwrap();
    let tally = Tally {
        reserved: 2,
        used: 1,
        released: 1,
        returned: 1,
    };
    assert_eq!(coupon.0.take_tally(), tally);
    assert_eq!(coupon.0.take_tally(), Tally::default());
}

#[test]
fn it_tells_how_long_after_its_opening_the_last_one_went() {
    let mut coupon = Alive::new(2);
    let sold_out = |coupon: &mut Alive| {
        coupon.settle();
        coupon.0.shown().unwrap().sold_out_after()
    };
    for (n, after) in [(1, 500), (2, 700)] {
        coupon.run_at(NOW.plus(Millis(after)), claim(n)).unwrap();
        let expected = (n == 2).then_some(Millis(700));
        assert_eq!(sold_out(&mut coupon), expected);
    }
    // Who has it from the store can't know.
    let again = reloaded(&coupon.0);
    assert_eq!(again.shown().unwrap().sold_out_after(), None);
    assert_eq!(again.shown().unwrap().standing(NOW), Standing::SoldOut);
    // With more of them it goes on, and is sold out once more.
    coupon.run(stock_of(3)).unwrap();
    assert_eq!(sold_out(&mut coupon), None);
    coupon.run_at(NOW.plus(Millis(9_000)), claim(3)).unwrap();
    assert_eq!(sold_out(&mut coupon), Some(Millis(9_000)));
}

#[test]
fn a_void_that_comes_before_its_prepare_refuses_it() {
    let mut coupon = Alive::new(3);
    coupon.claim(1).unwrap();
    coupon.run(void(1, 1)).unwrap();
    assert_eq!(coupon.prepare(1, 1), Err(Refusal::OrderIsVoid));
    assert!(coupon.prepare(1, 2).is_ok());
}

#[test]
fn a_claim_is_good_for_its_owner_its_show_and_its_time() {
    let mut coupon = Alive::new(3);
    let other = PerformanceId(Uuid::from_u128(8));
    let bound = Patch {
        performance: Some(Some(other)),
        ..Patch::default()
    };
    coupon.run(Command::Change(bound)).unwrap();
    coupon.claim(1).unwrap();
    let refused = |why| Err(Refusal::NotUsable(why));
    assert_eq!(coupon.prepare(2, 1), refused(Unusable::NotClaimed));
    assert_eq!(coupon.prepare(1, 1), refused(Unusable::OtherPerformance));
    assert_eq!(
        coupon.run_at(ENDS, prepare(1, 1)),
        refused(Unusable::Expired)
    );
}

#[test]
fn orders_that_came_to_nothing_are_bounded() {
    let mut void = Void::default();
    for n in 0..=VOID_MAX as u128 {
        void.insert(OrderId(Uuid::from_u128(n)));
    }
    assert_eq!((void.set.len(), void.order.len()), (VOID_MAX, VOID_MAX));
    assert!(!void.set.contains(&OrderId(Uuid::from_u128(0))));
}

#[test]
fn a_million_claimants_fit_into_forty_bytes_each() {
    const COUNT: u32 = if cfg!(debug_assertions) {
        100_000
    } else {
        1_000_000
    };
    let mut claimants = Claimants::default();
    let mut worst = 0;
    for n in 0..COUNT {
        assert!(claimants.insert(UserId(Uuid::from_u128(u128::from(n)))));
        if n > 1_000 {
            worst = worst.max(claimants.bytes() / (n as usize + 1));
        }
    }
    assert!(!claimants.insert(UserId(Uuid::from_u128(0))));
    assert!(worst <= 40, "{worst} bytes a claim");
}

/// What a coupon may do, written down as simply as can be.
#[derive(Default)]
struct Model {
    stock: u32,
    claimed: BTreeSet<u8>,
    /// Who has used theirs, or is about to, and by which order.
    held: BTreeMap<u8, (u8, bool)>,
    dead: BTreeSet<u8>,
}

impl Model {
    /// Whether the command is taken.
    fn run(&mut self, what: u8, n: u8, by: u8) -> bool {
        match what {
            0 | 1 => {
                let free = self.claimed.len() < self.stock as usize;
                free && self.claimed.insert(n)
            }
            2 | 3 => {
                if self.dead.contains(&by) {
                    return false;
                }
                match self.held.get(&n) {
                    Some((order, _)) => *order == by,
                    None if self.claimed.contains(&n) => {
                        self.held.insert(n, (by, false));
                        true
                    }
                    None => false,
                }
            }
            4 => {
                if let Some((order, posted)) = self.held.get_mut(&n) {
                    *posted |= *order == by;
                }
                true
            }
            5 => {
                if self.held.get(&n) != Some(&(by, true)) {
                    self.held.retain(|owner, held| (*owner, held.0) != (n, by));
                    self.dead.insert(by);
                }
                true
            }
            6 => {
                if self.held.get(&n).is_some_and(|(order, _)| *order == by) {
                    self.held.remove(&n);
                    self.dead.insert(by);
                }
                true
            }
            _ => {
                let is_enough = usize::from(by) >= self.claimed.len();
                if is_enough {
                    self.stock = by.into();
                }
                is_enough
            }
        }
    }
}

proptest! {
    /// I5, I6: whatever is asked in whatever order, through reloads at any point,
    /// it does what the model does; never more claims than stock, never two a
    /// user, and what is shown only falls, except by a raised stock.
    #[test]
    fn claims_never_pass_the_stock(
        stock in 0u8..6,
        commands in prop::collection::vec((0u8..9, 0u8..8, 0u8..8), 0..120),
    ) {
        let mut coupon = Alive::new(stock.into());
        let mut model = Model { stock: stock.into(), ..Model::default() };
        let mut shown = u32::from(stock);
        for (what, n, by) in commands {
            // An order is of one user.
            let by = if what == 7 { by } else { n * 8 + by % 3 };
            let command = match what {
                0 | 1 => claim(n),
                2 | 3 => prepare(n, by),
                4 => post(n, by),
                5 => void(n, by),
                6 => give_back(n, by),
                7 => stock_of(by.into()),
                _ => {
                    coupon.settle();
                    coupon.0 = reloaded(&coupon.0);
                    continue;
                }
            };
            let before = model.stock;
            prop_assert_eq!(coupon.run(command).is_ok(), model.run(what, n, by));
            prop_assert_eq!(coupon.0.claimed() as usize, model.claimed.len());
            prop_assert!(coupon.0.claimed() <= model.stock, "I5");
            let in_doubt: BTreeSet<UserId> = coupon.0.in_doubt().map(|p| p.user).collect();
            let expected = model.held.iter().filter(|(_, (_, posted))| !posted);
            prop_assert_eq!(in_doubt, expected.map(|(n, _)| user(*n)).collect::<BTreeSet<_>>());
            coupon.settle();
            let now = coupon.remaining();
            prop_assert_eq!(now as usize, model.stock as usize - model.claimed.len());
            prop_assert!(now <= shown || model.stock > before);
            shown = now;
        }
    }
}

/// As it comes back from the store.
fn reloaded(coupon: &Coupon) -> Coupon {
    let mut claimants = Claimants::default();
    let all = (0..8).map(user);
    for user in all.clone().filter(|user| coupon.claimants.contains(*user)) {
        claimants.insert(user);
    }
    let state = CouponState {
        terms: coupon.terms().map(|terms| Terms::clone(terms)),
        claimants,
        prepared: coupon.in_doubt().copied().collect(),
        posted: all
            .filter_map(|user| Some((user, coupon.used.get(user)?)))
            .collect(),
        void: coupon.void.order.iter().copied().collect(),
    };
    Coupon::restore(ID, state)
}
