//! One timetable after the other: its journal, and its rows against it.

mod cancels;

use std::collections::{HashMap, HashSet};

use futures_util::TryStreamExt as _;
use serde::Deserialize;
use uuid::Uuid;

use self::cancels::{CancelFacts, cancelled_seats, plain_seats};
use super::capacity::Capacities;
use super::journal;
use super::progress::Progress;
use super::replay::{HeldSeats, Replay};
use super::report::{Book, Rule};
use super::snapshot::{Row, Snapshot};
use crate::domain::ids::{HoldId, OrderId, TimetableId, UserId};
use crate::domain::money::Money;
use crate::domain::order::{PricedSeat, PricedSeats};
use crate::domain::seat::SeatIndex;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::rows::ORDERS_TOPIC;
use crate::persistence::stored::reader::{Reader as _, Value};

/// Every timetable that something is stored of.
const ALL: &str = "SELECT id FROM timetable UNION SELECT timetable_id FROM hold \
     UNION SELECT timetable_id FROM blocked_seat UNION SELECT timetable_id FROM sold_seat \
     UNION SELECT timetable_id FROM orders UNION SELECT timetable_id FROM disowned_order \
     UNION SELECT id FROM entity WHERE kind = 'timetable' \
     UNION SELECT entity FROM journal WHERE kind = 'timetable' ORDER BY 1";

/// Audits all timetables. In memory is one of them at a time.
pub(super) async fn audit(
    c: &mut Snapshot,
    book: &mut Book,
    progress: &mut Progress,
) -> Result<(), StoreError> {
    let mut capacities = Capacities::default();
    for id in c.ids(ALL).await?.into_iter().map(TimetableId) {
        let capacity = capacities.of(c, id, book).await?;
        let mut replay = Replay::new(id);
        let tell = |_, at, event, book: &mut Book| replay.apply(at, &event, book);
        let is_whole = journal::read(c, id.into(), book, progress, tell).await?;
        let replay = is_whole.then_some(replay);
        let mut rows = Rows {
            id,
            capacity,
            taken: HashMap::new(),
            orders: HashMap::new(),
        };
        rows.orders(c, replay.as_ref(), book).await?;
        rows.cancels(c, replay.as_ref(), book).await?;
        rows.sold_seats(c, book).await?;
        rows.blocked_seats(c, replay.as_ref(), book).await?;
        rows.holds(c, replay.as_ref(), book).await?;
        rows.disowned(c, replay.as_ref(), book).await?;
        rows.events(c, book).await?;
        rows.tickets(c, book).await?;
        progress.tick(0);
    }
    Ok(())
}

/// What is known of a stored order while its timetable's rows are read.
#[derive(Debug)]
struct OrderFacts {
    user: UserId,
    amount: Money,
    seats: PricedSeats,
    /// Those that were given back since.
    cancelled: Vec<SeatIndex>,
    cancels: HashMap<u32, CancelFacts>,
    events: u32,
    is_published: bool,
}

/// What a seat is by the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    /// An order names it, at this price.
    Ordered(OrderId, UserId, Money),
    /// So says its row too.
    Sold,
    Blocked,
    Held(HoldId),
}

/// The rows of one timetable.
struct Rows {
    id: TimetableId,
    capacity: Option<u32>,
    taken: HashMap<SeatIndex, Taken>,
    orders: HashMap<OrderId, OrderFacts>,
}

impl Rows {
    async fn orders(
        &mut self,
        c: &mut Snapshot,
        replay: Option<&Replay>,
        book: &mut Book,
    ) -> Result<(), StoreError> {
        let mut rows = c.rows(
            "SELECT id, user_id, hold_id, payment_id, method, status, subtotal, discount, amount, \
                    created_at, seats, refunded, cancelled, coupon_id FROM orders WHERE timetable_id = $1",
            &[self.id.0.into()],
        );
        while let Some(row) = rows.try_next().await? {
            let id = OrderId(row.get(0)?);
            let seats = seats_of(row.get(10)?, &format!("order {id}"), book);
            check_arithmetic(&row, id, &seats, book)?;
            if let Some(replay) = replay {
                let is_the_same = is_confirmed_order(&row, id, &seats, replay)?;
                book.expect(Rule::OrdersMatchJournal, is_the_same, || {
                    format!("order {id} is not the one that the journal confirmed")
                });
            }
            if !matches!(row.get(5)?, "confirmed" | "cancelled") {
                continue;
            }
            let user = UserId(row.get(1)?);
            let cancelled = plain_seats(row.get(12)?);
            for priced in seats.iter().filter(|p| !cancelled.contains(&p.seat)) {
                let named = Taken::Ordered(id, user, priced.price);
                let before = self.taken.insert(priced.seat, named);
                book.expect(Rule::OrderSeatIsSold, before.is_none(), || {
                    format!(
                        "seat {} is named twice, last by order {id}",
                        self.name(priced.seat)
                    )
                });
            }
            let amount = Money(row.int(8)?);
            let facts = OrderFacts {
                user,
                amount,
                seats,
                cancelled,
                cancels: HashMap::new(),
                events: 0,
                is_published: false,
            };
            self.orders.insert(id, facts);
        }
        let lost = replay.into_iter().flat_map(|replay| replay.orders.keys());
        for id in lost.filter(|id| !self.orders.contains_key(id)) {
            book.found(Rule::OrdersMatchJournal, || {
                format!("order {id} is only in the journal")
            });
        }
        Ok(())
    }

    async fn sold_seats(&mut self, c: &mut Snapshot, book: &mut Book) -> Result<(), StoreError> {
        let mut rows = c.rows(
            "SELECT seat, order_id, user_id, price FROM sold_seat WHERE timetable_id = $1",
            &[self.id.0.into()],
        );
        while let Some(row) = rows.try_next().await? {
            let seat = SeatIndex(row.seats(0)?);
            let order = OrderId(row.get(1)?);
            let sold = Taken::Ordered(order, UserId(row.get(2)?), Money(row.int(3)?));
            let named = self.taken.insert(seat, Taken::Sold);
            book.expect(Rule::SoldSeatHasOrder, named == Some(sold), || {
                let named = match named {
                    Some(Taken::Ordered(by, user, price)) => {
                        format!("order {by} of user {user} names it at {price}")
                    }
                    _ => "no confirmed order names it".to_owned(),
                };
                format!(
                    "seat {} is sold to order {order}, but {named}",
                    self.name(seat)
                )
            });
        }
        for (seat, taken) in &self.taken {
            if let Taken::Ordered(order, ..) = taken {
                book.found(Rule::OrderSeatIsSold, || {
                    format!("seat {} of order {order} is not sold", self.name(*seat))
                });
            }
        }
        self.check_capacity(book);
        Ok(())
    }

    /// What is sold lies within the layout.
    fn check_capacity(&self, book: &mut Book) {
        book.checked(Rule::SeatsAreDistinct, self.taken.len() as u64);
        for seat in self.taken.keys().filter(|seat| !self.exists(**seat)) {
            book.found(Rule::SeatsAreDistinct, || {
                format!("seat {} is sold", self.name(*seat))
            });
        }
    }

    fn exists(&self, seat: SeatIndex) -> bool {
        self.capacity.is_some_and(|capacity| seat.0 < capacity)
    }

    /// For a finding.
    fn name(&self, seat: SeatIndex) -> String {
        let of = match self.capacity {
            Some(capacity) => format!("of {capacity}"),
            None => "unknown to the catalogue".to_owned(),
        };
        format!("{} ({of}) of timetable {}", seat.0, self.id)
    }

    fn take(&mut self, seat: SeatIndex, by: Taken, book: &mut Book) {
        let before = self.taken.insert(seat, by);
        let is_right = before.is_none() && self.exists(seat);
        book.expect(Rule::SeatsAreDistinct, is_right, || {
            format!("seat {} is {by:?}, before {before:?}", self.name(seat))
        });
    }

    async fn blocked_seats(
        &mut self,
        c: &mut Snapshot,
        replay: Option<&Replay>,
        book: &mut Book,
    ) -> Result<(), StoreError> {
        let seats = c
            .all(
                "SELECT seat FROM blocked_seat WHERE timetable_id = $1",
                &[self.id.0.into()],
            )
            .await?;
        let seats: HashSet<SeatIndex> = seats
            .iter()
            .map(|row| row.seats(0).map(SeatIndex))
            .collect::<Result<_, _>>()?;
        for seat in &seats {
            self.take(*seat, Taken::Blocked, book);
        }
        if let Some(replay) = replay {
            let expected = replay.blocked();
            book.checked(
                Rule::BlocksMatchJournal,
                seats.union(&expected).count() as u64,
            );
            for seat in seats.symmetric_difference(&expected) {
                let only = if seats.contains(seat) {
                    "table"
                } else {
                    "journal"
                };
                book.found(Rule::BlocksMatchJournal, || {
                    format!("seat {} is blocked in the {only} only", self.name(*seat))
                });
            }
        }
        Ok(())
    }

    async fn holds(
        &mut self,
        c: &mut Snapshot,
        replay: Option<&Replay>,
        book: &mut Book,
    ) -> Result<(), StoreError> {
        let rows = c
            .all(
                "SELECT id, user_id, created_at, expires_at, under_pass, seats FROM hold \
             WHERE timetable_id = $1",
                &[self.id.0.into()],
            )
            .await?;
        let mut stored = HashSet::with_capacity(rows.len());
        for row in &rows {
            let id = HoldId(row.get(0)?);
            let held = HeldSeats {
                user: UserId(row.get(1)?),
                created_at: Timestamp(row.int(2)?),
                expires_at: Timestamp(row.int(3)?),
                under_pass: row.get(4)?,
                seats: seats_of(row.get(5)?, &format!("hold {id}"), book),
            };
            for priced in &held.seats {
                self.take(priced.seat, Taken::Held(id), book);
            }
            stored.insert(id);
            if let Some(replay) = replay {
                let is_the_same = replay.holds.get(&id) == Some(&held);
                book.expect(Rule::HoldsMatchJournal, is_the_same, || {
                    format!(
                        "hold {id} is {held:?}, in the journal {:?}",
                        replay.holds.get(&id)
                    )
                });
            }
        }
        let lost = replay.into_iter().flat_map(|replay| replay.holds.keys());
        for id in lost.filter(|id| !stored.contains(id)) {
            book.found(Rule::HoldsMatchJournal, || {
                format!("hold {id} is only in the journal")
            });
        }
        Ok(())
    }

    async fn disowned(
        &self,
        c: &mut Snapshot,
        replay: Option<&Replay>,
        book: &mut Book,
    ) -> Result<(), StoreError> {
        let stored = c
            .all(
                "SELECT id FROM disowned_order WHERE timetable_id = $1",
                &[self.id.0.into()],
            )
            .await?;
        let stored: HashSet<OrderId> = stored
            .iter()
            .map(|row| row.get(0).map(OrderId))
            .collect::<Result<_, _>>()?;
        for id in stored.iter().filter(|id| self.orders.contains_key(id)) {
            book.found(Rule::OrdersMatchJournal, || {
                format!("order {id} is disowned too")
            });
        }
        let Some(replay) = replay else { return Ok(()) };
        book.checked(Rule::OrdersMatchJournal, stored.len() as u64);
        for id in stored.symmetric_difference(&replay.disowned) {
            let only = if stored.contains(id) {
                "table"
            } else {
                "journal"
            };
            book.found(Rule::OrdersMatchJournal, || {
                format!("order {id} is disowned in the {only} only")
            });
        }
        Ok(())
    }

    /// The events of confirmed orders.
    async fn events(&mut self, c: &mut Snapshot, book: &mut Book) -> Result<(), StoreError> {
        let mut rows = c.rows(
            "SELECT event_seq, payload, published_at IS NOT NULL FROM outbox \
             WHERE entity = $1 AND topic = $2 AND type = 'order.confirmed'",
            &[self.id.0.into(), Value::Text(ORDERS_TOPIC)],
        );
        while let Some(row) = rows.try_next().await? {
            let payload = serde_json::from_str::<OrderConfirmed>(row.get(1)?).ok();
            let of = payload
                .as_ref()
                .and_then(|payload| self.orders.get_mut(&payload.order_id));
            let is_true = match (&payload, of) {
                (Some(payload), Some(order)) => {
                    order.events += 1;
                    order.is_published |= row.get::<bool>(2)?;
                    payload.tells(order)
                }
                _ => false,
            };
            if !is_true {
                let seq = row.int(0)?;
                book.found(Rule::OrderIsPublished, || {
                    format!(
                        "event {seq} of timetable {} is not of an order as it is",
                        self.id
                    )
                });
            }
        }
        drop(rows);
        for (id, order) in &self.orders {
            book.expect(Rule::OrderIsPublished, order.events == 1, || {
                format!("order {id} has {} events", order.events)
            });
        }
        cancels::events(self.id, &mut self.orders, c, book).await
    }

    async fn tickets(&self, c: &mut Snapshot, book: &mut Book) -> Result<(), StoreError> {
        let mut rows = c.rows(
            "SELECT orders.id, count(ticket.id) FROM orders \
             LEFT JOIN ticket ON ticket.order_id = orders.id AND ticket.status = 'valid' \
             WHERE orders.timetable_id = $1 GROUP BY orders.id",
            &[self.id.0.into()],
        );
        while let Some(row) = rows.try_next().await? {
            let id = OrderId(row.get(0)?);
            let Some(order) = self.orders.get(&id) else {
                continue;
            };
            let tickets = row.int(1)?.unsigned_abs();
            let wanted = order.seats.len().saturating_sub(order.cancelled.len()) as u64;
            if order.is_published {
                book.expect(Rule::PublishedHasTickets, tickets >= wanted, || {
                    format!("order {id} has {tickets} tickets for {wanted} seats")
                });
            } else if tickets < wanted {
                book.waiting.unticketed += 1;
            }
        }
        Ok(())
    }
}

fn check_arithmetic(
    row: &Row,
    id: OrderId,
    seats: &PricedSeats,
    book: &mut Book,
) -> Result<(), StoreError> {
    let (subtotal, discount, amount): (i64, i64, i64) = (row.int(6)?, row.int(7)?, row.int(8)?);
    let sum: i128 = seats.iter().map(|priced| i128::from(priced.price.0)).sum();
    let rest = i128::from(subtotal) - i128::from(discount);
    let is_right =
        i128::from(subtotal) == sum && i128::from(amount) == rest && discount >= 0 && amount >= 0;
    book.expect(Rule::OrderArithmetic, is_right, || {
        format!("order {id}: seats {sum}, subtotal {subtotal} - {discount} = amount {amount}")
    });
    Ok(())
}

/// Whether the row is the very order that the journal confirmed.
fn is_confirmed_order(
    row: &Row,
    id: OrderId,
    seats: &PricedSeats,
    replay: &Replay,
) -> Result<bool, StoreError> {
    let Some(order) = replay.orders.get(&id) else {
        return Ok(false);
    };
    Ok(order.user.0 == row.get::<Uuid>(1)?
        && order.hold.0 == row.get::<Uuid>(2)?
        && order.payment.0 == row.get::<Uuid>(3)?
        && order.method.as_str() == row.get::<&str>(4)?
        && order.status.as_str() == row.get::<&str>(5)?
        && order.discount.0 == row.int(7)?
        && order.coupon.map(|coupon| coupon.0) == row.get::<Option<Uuid>>(13)?
        && order.created_at.0 == row.int(9)?
        && order.seats == *seats
        && order.refunded().0 == row.int(11)?
        && cancelled_seats(order).eq(plain_seats(row.get(12)?)))
}

/// Stored seats: `[[seat, price], …]`.
fn seats_of(text: &str, of: &str, book: &mut Book) -> PricedSeats {
    let seats = serde_json::from_str::<Vec<(u32, i64)>>(text).unwrap_or_default();
    if seats.is_empty() {
        book.found(Rule::SeatsAreDistinct, || format!("{of} has no seats"));
    }
    let priced = |(seat, price)| PricedSeat {
        seat: SeatIndex(seat),
        price: Money(price),
    };
    seats.into_iter().map(priced).collect()
}

/// What an event tells of its order.
#[derive(Deserialize)]
struct OrderConfirmed {
    order_id: OrderId,
    user_id: UserId,
    amount: Money,
    seats: Vec<PricedSeat>,
}

impl OrderConfirmed {
    fn tells(&self, order: &OrderFacts) -> bool {
        self.user_id == order.user
            && self.amount == order.amount
            && self.seats.as_slice() == order.seats.as_slice()
    }
}
