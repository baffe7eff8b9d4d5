//! The rows of a coupon that an event changes, and what is published of it.

use serde::Serialize;

use super::{COUPONS_TOPIC, published};
use crate::domain::coupon::{Coupon, Event, Terms};
use crate::domain::ids::{CouponId, EntityKind, OrderId, PerformanceId, UserId};
use crate::domain::time::Timestamp;
use crate::persistence::batch::{Contribution, CouponChanges, OutboxRow, Persisted};
use crate::persistence::batch::{UseRow, UseState};
#[cfg(feature = "sabotage")]
use crate::sabotage::{self, Switch};

/// A coupon exists.
const CREATED: &str = "coupon.created";

/// Its terms are others.
const CHANGED: &str = "coupon.changed";

/// The last one was claimed. Claims are not published one by one: there are
/// many, and nobody waits to hear of them.
const SOLD_OUT: &str = "coupon.sold_out";

/// A confirmed order has used a claim.
const USED: &str = "coupon.used";

/// A cancelled order has given a claim back.
const RETURNED: &str = "coupon.returned";

impl Persisted for Coupon {
    const KIND: EntityKind = EntityKind::Coupon;

    fn record(&self, event: &Event, into: &mut Contribution) {
        let (id, at) = (CouponId(into.entity.id), into.at);
        let told = self.told(id, event);
        let Some(rows) = into.coupon() else { return };
        let mut put = |prepare, state, at| used(rows, UseRow { prepare, state, at });
        match event {
            Event::Created(_) | Event::Changed(_) => rows.coupon = self.view(),
            Event::Claimed(claim) => {
                rows.coupon = self.view();
                #[cfg(feature = "sabotage")]
                if sabotage::is_on(Switch::ClaimNotStored) {
                    return;
                }
                rows.claims.push(*claim);
            }
            Event::Prepared(prepare) => put(*prepare, UseState::Prepared, prepare.at),
            Event::Posted { prepare, at } => put(*prepare, UseState::Posted, *at),
            Event::Voided { prepare, at } => put(*prepare, UseState::Void, *at),
            Event::Returned { prepare, at } => put(*prepare, UseState::Returned, *at),
        }
        let told = told.map(|(kind, told)| OutboxRow {
            topic: COUPONS_TOPIC,
            ..published(kind, at, &told)
        });
        into.outbox.extend(told);
    }
}

fn used(rows: &mut CouponChanges, row: UseRow) {
    rows.uses.insert(row.prepare.order, row);
}

impl Coupon {
    /// What is published of an event.
    fn told<'a>(&self, id: CouponId, event: &'a Event) -> Option<(&'static str, Told<'a>)> {
        match event {
            Event::Created(terms) => Some((CREATED, Told::Terms(TermsTold::new(id, terms)))),
            Event::Changed(terms) => Some((CHANGED, Told::Terms(TermsTold::new(id, terms)))),
            Event::Claimed(_) => {
                let view = self.view().filter(|view| view.remaining() == 0)?;
                let claimed = view.claimed;
                Some((
                    SOLD_OUT,
                    Told::SoldOut(SoldOutTold {
                        coupon_id: id,
                        claimed,
                    }),
                ))
            }
            Event::Posted { prepare, .. } => Some((
                USED,
                Told::Use(UseTold::new(id, prepare.user, prepare.order)),
            )),
            Event::Returned { prepare, .. } => Some((
                RETURNED,
                Told::Use(UseTold::new(id, prepare.user, prepare.order)),
            )),
            Event::Prepared(_) | Event::Voided { .. } => None,
        }
    }
}

/// A payload, version 1; described in `docs/events.md`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Told<'a> {
    Terms(TermsTold<'a>),
    SoldOut(SoldOutTold),
    Use(UseTold),
}

#[derive(Debug, Serialize)]
struct TermsTold<'a> {
    coupon_id: CouponId,
    name: &'a str,
    discount: DiscountTold,
    stock: u32,
    starts_at: Timestamp,
    ends_at: Timestamp,
    performance_id: Option<PerformanceId>,
}

#[derive(Debug, Serialize)]
struct DiscountTold {
    kind: &'static str,
    value: i64,
}

#[derive(Debug, Serialize)]
struct SoldOutTold {
    coupon_id: CouponId,
    claimed: u32,
}

#[derive(Debug, Serialize)]
struct UseTold {
    coupon_id: CouponId,
    user_id: UserId,
    order_id: OrderId,
}

impl<'a> TermsTold<'a> {
    fn new(coupon_id: CouponId, terms: &'a Terms) -> Self {
        Self {
            coupon_id,
            name: &terms.name,
            discount: DiscountTold {
                kind: terms.discount.kind(),
                value: terms.discount.value(),
            },
            stock: terms.stock,
            starts_at: terms.starts_at,
            ends_at: terms.ends_at,
            performance_id: terms.performance,
        }
    }
}

impl UseTold {
    fn new(coupon_id: CouponId, user_id: UserId, order_id: OrderId) -> Self {
        Self {
            coupon_id,
            user_id,
            order_id,
        }
    }
}
