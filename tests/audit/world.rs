//! What is audited: a store that real machines and the real commit have filled.

use std::path::PathBuf;
use std::sync::Arc;

use onsale::domain::account::{self, Account, Claimant, KeyClaim, KeyHash};
use onsale::domain::coupon::Coupon;
use onsale::domain::ids::{
    EntityId, HoldId, OrderId, PaymentId, PerformanceId, TimetableId, UserId, with_shard,
};
use onsale::domain::layout::{Layout, SectionShape, SectionSpec};
use onsale::domain::money::{Currency, Money};
use onsale::domain::order::{CancelNo, CancelRequest};
use onsale::domain::plan::{Grade, GradeIndex, Limits, Plan};
use onsale::domain::queue::Queue;
use onsale::domain::seat::SeatIndex;
use onsale::domain::time::{Millis, Timestamp};
use onsale::domain::timetable::{self, CancelledBy, Choice, NamedSeats, Timetable};
use onsale::persistence::Store;
use onsale::persistence::store::commit::Verdict;
use onsale::persistence::store::outbox::{Asked, Came, NewTicket};
use onsale::persistence::verify::Report;
use uuid::Uuid;

use crate::database::Database;
use crate::live::Live;
use crate::place::{Place, audit_of, execute, insert_catalogue, settings, url_of};
use crate::{coupons, queues};

pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000);
pub(crate) const PRICE: i64 = 1_000;
pub(crate) const SEATS: u32 = 20;

/// A store with one timetable, two buyers, a queue and a coupon.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    /// Of Postgres.
    pub(crate) database: Option<Database>,
    pub(crate) url: String,
    pub(crate) store: Store,
    pub(crate) show: Live<Timetable>,
    pub(crate) ann: Live<Account>,
    pub(crate) bob: Live<Account>,
    pub(crate) line: Live<Queue>,
    pub(crate) gift: Live<Coupon>,
}

/// An order of `confirm`.
pub(crate) struct Bought {
    pub(crate) id: OrderId,
    pub(crate) amount: Money,
}

pub(crate) fn id_of(entity: EntityId) -> Uuid {
    with_shard(Uuid::now_v7(), entity.shard())
}

pub(crate) fn seats(indexes: &[u32]) -> Choice {
    Choice::Seats {
        seats: indexes.iter().copied().map(SeatIndex).collect(),
        unknown: vec![],
    }
}

pub(crate) fn claim(key: &str) -> KeyClaim {
    KeyClaim {
        key: key.to_owned(),
        hash: KeyHash::of(key),
        fingerprint: u64::MAX - 5,
        by: Claimant(1),
    }
}

pub(crate) fn specs() -> Vec<SectionSpec> {
    let shape = SectionShape::Grid {
        rows: 4,
        seats_per_row: SEATS / 4,
    };
    vec![SectionSpec {
        name: "F1".to_owned(),
        shape,
        x: 0.0,
        y: 0.0,
        accessible: false,
    }]
}

pub(crate) fn plan() -> Plan {
    Plan {
        timetable_id: TimetableId(Uuid::now_v7()),
        performance_id: PerformanceId(Uuid::now_v7()),
        layout: Arc::new(Layout::build(&specs()).unwrap()),
        grades: vec![Grade {
            name: "R".to_owned(),
            price: Money(PRICE),
            max_per_user: None,
            opens_at: None,
            closes_at: None,
        }],
        grade_of_section: vec![GradeIndex(0)],
        currency: Currency::KRW,
        opens_at: Timestamp(0),
        closes_at: Timestamp(i64::MAX),
        starts_at: Timestamp(i64::MAX),
        limits: Limits {
            max_seats_per_user: 100,
            ..Limits::default()
        },
        withdrawn: false,
    }
}

impl World {
    /// Two buyers with money, nothing sold yet.
    pub(crate) async fn new(place: Place) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = match place {
            Place::Sqlite => None,
            Place::Postgres => Some(Database::empty().await),
        };
        let url = database
            .as_ref()
            .map_or_else(|| url_of(&folder.path().join("onsale.db")), Database::url);
        let store = Store::open(&settings(&url)).await.unwrap();
        let claim = store
            .claim_all_shards("n".into(), String::new(), NOW)
            .await
            .unwrap();
        let plan = plan();
        insert_catalogue(&url, &plan).await;
        let line = queues::line(plan.performance_id, claim.epoch);
        let id = plan.timetable_id;
        let buyer = || {
            let user = UserId(Uuid::now_v7());
            Live::new(Account::default(), user, claim.epoch)
        };
        let (ann, bob) = (buyer(), buyer());
        let show = Live::new(Timetable::new(Arc::new(plan)), id, claim.epoch);
        let mut world = Self {
            folder,
            database,
            url,
            store,
            show,
            ann,
            bob,
            line,
            gift: coupons::gift(claim.epoch),
        };
        for (buyer, key) in [(&mut world.ann, "a"), (&mut world.bob, "b")] {
            charge(buyer, 50_000, Some(key));
        }
        world.commit().await;
        world
    }

    /// One that has gone through everything that is built.
    pub(crate) async fn busy(place: Place) -> Self {
        let mut world = Self::new(place).await;
        let first = world.hold(true, &[0, 1]);
        world.commit().await;
        let bought = world.buy(true, first, "order-1").await;
        assert_eq!(bought.amount, Money(2 * PRICE));
        // Held and bought within one contribution.
        let quick = world.hold(false, &[4]);
        world.buy(false, quick, "order-2").await;
        world.publish().await;
        // A hold that grew, shrank and lives; one that was released, one that
        // was never written, one that expired in the step of another.
        let long = world.hold(true, &[6]);
        world.commit().await;
        let user = UserId(world.ann.entity.id);
        let add = timetable::Command::AddSeats {
            hold: long,
            user,
            choice: seats(&[7, 8]),
        };
        world.show.run(NOW, add).unwrap();
        let drop = timetable::Command::DropSeat {
            hold: long,
            user,
            seat: SeatIndex(6),
        };
        world.show.run(NOW, drop).unwrap();
        let late = NOW.plus(Millis::from_secs(299));
        let given_back = world.hold_at(late, true, &[10]);
        world.commit().await;
        world
            .show
            .run(
                late,
                timetable::Command::Release {
                    hold: given_back,
                    user,
                },
            )
            .unwrap();
        let brief = world.hold_at(late, true, &[10]);
        world
            .show
            .run(late, timetable::Command::Release { hold: brief, user })
            .unwrap();
        let order = OrderId(id_of(world.show.entity));
        world
            .show
            .run(late, timetable::Command::Resolve { order })
            .unwrap();
        world.commit().await;
        // `long` expires in the very step that makes this one.
        world.hold_at(NOW.plus(Millis::from_secs(301)), true, &[7]);
        let blocks = |seats: &[u32]| seats.iter().copied().map(SeatIndex).collect();
        let block = timetable::Command::Block {
            seats: blocks(&[15, 16]),
        };
        world.show.run(late, block).unwrap();
        world.commit().await;
        world
            .show
            .run(
                late,
                timetable::Command::Unblock {
                    seats: blocks(&[15]),
                },
            )
            .unwrap();
        let timetable = TimetableId(world.show.entity.id);
        world
            .bob
            .run(NOW, account::Command::Void { order, timetable })
            .unwrap();
        let (key, body) = (claim("refused"), "{}".to_owned());
        world
            .bob
            .run(
                NOW,
                account::Command::Answer {
                    key,
                    status: 402,
                    body,
                },
            )
            .unwrap();
        world.commit().await;
        world.cancel_some().await;
        world.queue_up().await;
        world.give_away().await;
        world
    }

    /// Ann buys four seats, cancels one, and then two more; bob gets one of them,
    /// and cancels it before there is a ticket.
    pub(crate) async fn cancel_some(&mut self) {
        let hold = self.hold_at(NOW, true, &[11, 12, 13]);
        self.commit().await;
        let bought = self.buy(true, hold, "order-3").await;
        self.publish().await;
        self.cancel(true, bought.id, &[12], 1).await;
        self.cancel(true, bought.id, &[11], 2).await;
        let hold = self.hold_at(NOW, false, &[12]);
        let resold = self.buy(false, hold, "order-4").await;
        self.cancel(false, resold.id, &[12], 3).await;
        self.publish().await;
    }

    /// The saga of a cancel, up to its refund being in the wallet.
    pub(crate) async fn cancel(
        &mut self,
        is_ann: bool,
        order: OrderId,
        places: &[u32],
        request: u64,
    ) {
        let no = self.cancel_only(is_ann, order, places, request).await;
        let amount = Money(PRICE * i64::try_from(places.len()).unwrap());
        self.credit(is_ann, order, no, amount);
        self.commit().await;
        self.show
            .run(NOW, timetable::Command::RefundPaid { order, no })
            .unwrap();
        self.commit().await;
    }

    pub(crate) async fn cancel_only(
        &mut self,
        is_ann: bool,
        order: OrderId,
        places: &[u32],
        request: u64,
    ) -> CancelNo {
        let user = UserId(self.buyer(is_ann).entity.id);
        let seats = NamedSeats {
            seats: places.iter().copied().map(SeatIndex).collect(),
            unknown: vec![],
        };
        let cancel = timetable::Command::Cancel {
            order,
            by: CancelledBy::Buyer(user),
            seats: Some(seats),
            request: CancelRequest(request),
        };
        let timetable::Reply::Cancelled { no, .. } = self.show.run(NOW, cancel).unwrap() else {
            panic!("not cancelled")
        };
        self.commit().await;
        no
    }

    pub(crate) fn credit(&mut self, is_ann: bool, order: OrderId, no: CancelNo, amount: Money) {
        let refund = account::Refund {
            order,
            no,
            timetable: TimetableId(self.show.entity.id),
            amount,
        };
        let credit = account::Command::Credit {
            refund,
            answer: None,
            known: account::Known::default(),
        };
        self.buyer(is_ann).run(NOW, credit).unwrap();
    }

    pub(crate) fn buyer(&mut self, is_ann: bool) -> &mut Live<Account> {
        if is_ann { &mut self.ann } else { &mut self.bob }
    }

    pub(crate) fn hold(&mut self, is_ann: bool, places: &[u32]) -> HoldId {
        self.hold_at(NOW, is_ann, places)
    }

    pub(crate) fn hold_at(&mut self, now: Timestamp, is_ann: bool, places: &[u32]) -> HoldId {
        let hold = HoldId(id_of(self.show.entity));
        let user = UserId(self.buyer(is_ann).entity.id);
        let choice = seats(places);
        let command = timetable::Command::Hold {
            hold,
            user,
            choice,
            under_pass: false,
        };
        self.show.run(now, command).unwrap();
        hold
    }

    /// The saga of an order, up to the seats being sold.
    pub(crate) async fn confirm(&mut self, is_ann: bool, hold: HoldId, key: &str) -> Bought {
        let show = self.show.entity;
        let (order, payment) = (OrderId(id_of(show)), PaymentId(id_of(show)));
        let user = UserId(self.buyer(is_ann).entity.id);
        let open = timetable::Command::OpenOrder {
            order,
            payment,
            hold,
            user,
            method: onsale::domain::order::Method::Wallet,
        };
        let timetable::Reply::Opened(terms) = self.show.run(NOW, open).unwrap() else {
            panic!("not opened")
        };
        self.prepare(is_ann, order, terms.amount, Some(claim(key)));
        self.commit().await;
        self.show
            .run(
                NOW,
                timetable::Command::Sell {
                    order,
                    coupon: None,
                },
            )
            .unwrap();
        self.commit().await;
        Bought {
            id: order,
            amount: terms.amount,
        }
    }

    pub(crate) fn prepare(
        &mut self,
        is_ann: bool,
        order: OrderId,
        amount: Money,
        key: Option<KeyClaim>,
    ) {
        let timetable = TimetableId(self.show.entity.id);
        let prepare = account::Command::Prepare {
            order,
            timetable,
            amount,
            key,
        };
        self.buyer(is_ann).run(NOW, prepare).unwrap();
    }

    pub(crate) async fn buy(&mut self, is_ann: bool, hold: HoldId, key: &str) -> Bought {
        let bought = self.confirm(is_ann, hold, key).await;
        self.buyer(is_ann)
            .run(NOW, account::Command::Post { order: bought.id })
            .unwrap();
        self.commit().await;
        bought
    }

    pub(crate) async fn commit(&mut self) {
        let (show, line) = (self.show.take(), self.line.take());
        let batch = [
            show,
            self.ann.take(),
            self.bob.take(),
            line,
            self.gift.take(),
        ];
        let batch: Vec<_> = batch.into_iter().flatten().collect();
        let count = batch.len();
        let verdicts = self.store.commit(Arc::new(batch)).await.unwrap();
        assert_eq!(verdicts, vec![Verdict::Written; count]);
    }

    /// The bus: issues tickets and marks the events as published.
    pub(crate) async fn publish(&self) {
        let events = self.store.unpublished(None, None, 100).await.unwrap();
        let mut wanted = Vec::new();
        for event in &events {
            let payload: serde_json::Value = serde_json::from_str(&event.payload).unwrap();
            let id = |name: &str| payload[name].as_str().unwrap().parse::<Uuid>().unwrap();
            if event.kind != "order.confirmed" {
                wanted.push((event.clone(), Asked::Tickets(vec![])));
                continue;
            }
            let seats = payload["seats"].as_array().unwrap();
            let ticket = |seat: &serde_json::Value| NewTicket {
                id: Uuid::now_v7(),
                order: id("order_id"),
                seat: u32::try_from(seat["seat"].as_u64().unwrap()).unwrap(),
                timetable: id("timetable_id"),
                user: id("user_id"),
            };
            let tickets = seats.iter().map(ticket).collect();
            wanted.push((event.clone(), Asked::Tickets(tickets)));
        }
        self.store
            .issue_tickets("tickets", Came::OverBroker, wanted, "kid".to_owned(), NOW)
            .await
            .unwrap();
        self.store.mark_published(&events, NOW).await.unwrap();
    }

    pub(crate) async fn sql(&self, sql: &str) {
        assert!(execute(&self.url, sql).await > 0, "{sql} changed nothing");
    }

    /// Of SQLite.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("onsale.db")
    }

    pub(crate) async fn audit(&self) -> Report {
        audit_of(&self.url).await
    }
}

pub(crate) fn charge(buyer: &mut Live<Account>, amount: i64, key: Option<&str>) {
    let (id, amount, key) = (Uuid::now_v7(), Money(amount), key.map(claim));
    buyer
        .run(NOW, account::Command::Charge { id, amount, key })
        .unwrap();
}
