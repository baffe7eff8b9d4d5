//! The rows that timetables and accounts are restored from, and of users.

use std::collections::HashMap;

use uuid::Uuid;

use super::reader::{Reader, last_event_seq, version};
use super::row::StoredRow;
use super::{AccountRows, StoredKey, method, plain_seats, seats};
use crate::domain::account::{Prepare, PrepareState};
use crate::domain::ids::{
    Activation, CouponId, Epoch, HoldId, OrderId, PaymentId, Seq, Stamp, TimetableId, UserId,
};
use crate::domain::money::Money;
use crate::domain::order::{Cancel, CancelNo, CancelRequest, Order, OrderStatus};
use crate::domain::seat::SeatIndex;
use crate::domain::timetable::Hold;
use crate::domain::timetable::restore::Stored;
use crate::persistence::StoreError;
use crate::persistence::rows::ORDERS_TOPIC;
use crate::persistence::store::accounts::StoredUser;
use crate::persistence::store::entities::Loaded;

/// A version, in three columns from `at` on.
pub(in crate::persistence) fn stamp(row: &impl StoredRow, at: usize) -> Result<Stamp, StoreError> {
    Ok(Stamp {
        epoch: Epoch(row.unsigned(at)?),
        activation: Activation(row.unsigned(at + 1)?),
        seq: Seq(row.unsigned_long(at + 2)?),
    })
}

/// Reads a timetable. It takes one snapshot to do that.
pub(in crate::persistence) async fn load_timetable(
    c: &mut impl Reader,
    id: TimetableId,
) -> Result<Loaded<Stored>, StoreError> {
    let stamp = version(c, id.into()).await?.unwrap_or_default();
    let of = [id.0.into()];
    let holds = c.all(HOLDS, &of).await?;
    let orders = c.all(ORDERS, &of).await?;
    let cancels = c.all(CANCELS, &of).await?;
    let disowned = c.all(DISOWNED, &of).await?;
    let blocked = c.all(BLOCKED, &of).await?;
    let last_event_seq = last_event_seq(c, id.0, ORDERS_TOPIC).await?;
    let state = Stored {
        holds: holds.iter().map(hold).collect::<Result<_, _>>()?,
        orders: orders.iter().map(order).collect::<Result<_, _>>()?,
        cancels: cancels.iter().map(cancel).collect::<Result<_, _>>()?,
        refunds_due: refunds_due(&cancels)?,
        aborted: disowned
            .iter()
            .map(|row| row.cell(0).map(OrderId))
            .collect::<Result<_, _>>()?,
        blocked: blocked
            .iter()
            .map(|row| row.unsigned(0).map(SeatIndex))
            .collect::<Result<_, _>>()?,
    };
    Ok(Loaded {
        state,
        stamp,
        last_event_seq,
    })
}

const HOLDS: &str = "SELECT id, user_id, created_at, expires_at, under_pass, seats, deadline \
     FROM hold WHERE timetable_id = $1";

fn hold(row: &impl StoredRow) -> Result<Hold, StoreError> {
    Ok(Hold {
        id: HoldId(row.cell(0)?),
        user: UserId(row.cell(1)?),
        created_at: row.time(2)?,
        expires_at: row.time(3)?,
        under_pass: row.cell(4)?,
        seats: seats(&row.cell::<String>(5)?)?,
        deadline: row.time(6)?,
        order: None,
        grace_used: false,
    })
}

const ORDERS: &str = "SELECT id, user_id, hold_id, payment_id, method, discount, created_at, \
     seats, coupon_id FROM orders WHERE timetable_id = $1";

fn order(row: &impl StoredRow) -> Result<Order, StoreError> {
    Ok(Order {
        id: OrderId(row.cell(0)?),
        user: UserId(row.cell(1)?),
        hold: HoldId(row.cell(2)?),
        payment: PaymentId(row.cell(3)?),
        method: method(&row.cell::<String>(4)?)?,
        status: OrderStatus::Confirmed,
        discount: Money(row.cell(5)?),
        created_at: row.time(6)?,
        seats: seats(&row.cell::<String>(7)?)?,
        coupon: row.cell::<Option<Uuid>>(8)?.map(CouponId),
        cancels: Vec::new(),
    })
}

const CANCELS: &str = "SELECT order_id, no, request, seats, refund, at, refunded_at \
     FROM cancellation WHERE timetable_id = $1 ORDER BY order_id, no";

fn cancel(row: &impl StoredRow) -> Result<(OrderId, Cancel), StoreError> {
    let cancel = Cancel {
        no: CancelNo(row.unsigned(1)?),
        request: CancelRequest(row.cell::<i64>(2)?.cast_unsigned()),
        seats: plain_seats(&row.cell::<String>(3)?)?.into(),
        refund: Money(row.cell(4)?),
        at: row.time(5)?,
    };
    Ok((OrderId(row.cell(0)?), cancel))
}

/// Of the same rows, those that were not refunded yet.
fn refunds_due(rows: &[impl StoredRow]) -> Result<Vec<(OrderId, CancelNo)>, StoreError> {
    let mut due = Vec::new();
    for row in rows {
        if row.time_if_any(6)?.is_none() {
            due.push((OrderId(row.cell(0)?), CancelNo(row.unsigned(1)?)));
        }
    }
    Ok(due)
}

const DISOWNED: &str = "SELECT id FROM disowned_order WHERE timetable_id = $1";

const BLOCKED: &str = "SELECT seat FROM blocked_seat WHERE timetable_id = $1";

/// The accounts that are being read, by their users. The first column of each row
/// that is given to them names the user.
pub(in crate::persistence) struct Accounts(HashMap<Uuid, AccountRows>);

impl Accounts {
    pub(in crate::persistence) fn of(users: impl IntoIterator<Item = UserId>) -> Self {
        let empty = |user: UserId| (user.0, AccountRows::default());
        Self(users.into_iter().map(empty).collect())
    }

    fn account(&mut self, row: &impl StoredRow) -> Result<&mut AccountRows, StoreError> {
        let id: Uuid = row.cell(0)?;
        let account = self.0.get_mut(&id);
        account.ok_or_else(|| StoreError::Unreadable(format!("account {id} was not asked for")))
    }

    /// user, epoch, activation, seq
    pub(in crate::persistence) fn version(
        &mut self,
        row: &impl StoredRow,
    ) -> Result<(), StoreError> {
        self.account(row)?.stamp = stamp(row, 1)?;
        Ok(())
    }

    /// user, balance
    pub(in crate::persistence) fn balance(
        &mut self,
        row: &impl StoredRow,
    ) -> Result<(), StoreError> {
        self.account(row)?.balance = Money(row.cell(1)?);
        Ok(())
    }

    /// user, order, timetable, amount, time; of an order in doubt
    pub(in crate::persistence) fn prepared(
        &mut self,
        row: &impl StoredRow,
    ) -> Result<(), StoreError> {
        let prepare = Prepare {
            order: OrderId(row.cell(1)?),
            timetable: TimetableId(row.cell(2)?),
            amount: Money(row.cell(3)?),
            at: row.time(4)?,
        };
        self.account(row)?.prepared.push(prepare);
        Ok(())
    }

    /// user, order, state; of an order that is decided
    pub(in crate::persistence) fn settled(
        &mut self,
        row: &impl StoredRow,
    ) -> Result<(), StoreError> {
        let state = match row.cell::<String>(2)?.as_str() {
            "posted" => PrepareState::Posted,
            _ => PrepareState::Void,
        };
        let order = OrderId(row.cell(1)?);
        self.account(row)?.settled.push((order, state));
        Ok(())
    }

    /// user, order, number; oldest first
    pub(in crate::persistence) fn credited(
        &mut self,
        row: &impl StoredRow,
    ) -> Result<(), StoreError> {
        let credited = (OrderId(row.cell(1)?), CancelNo(row.unsigned(2)?));
        self.account(row)?.credited.push(credited);
        Ok(())
    }

    /// user, key, fingerprint, time, order, timetable
    pub(in crate::persistence) fn key(&mut self, row: &impl StoredRow) -> Result<(), StoreError> {
        let key = StoredKey {
            key: row.cell(1)?,
            fingerprint: row.cell(2)?,
            at: row.time(3)?,
            order: row.cell(4)?,
            timetable: row.cell(5)?,
        };
        self.account(row)?.restore_key(&key);
        Ok(())
    }

    pub(in crate::persistence) fn into_rows(self) -> impl Iterator<Item = (UserId, AccountRows)> {
        self.0.into_iter().map(|(id, rows)| (UserId(id), rows))
    }
}

pub(in crate::persistence) fn user(row: &impl StoredRow) -> Result<StoredUser, StoreError> {
    Ok(StoredUser {
        id: UserId(row.cell("id")?),
        email: row.cell("email")?,
        name: row.cell("name")?,
        password_hash: row.cell("password_hash")?,
        roles: row.json("roles")?,
        created_at: row.time("created_at")?,
        sessions_from: row.time("sessions_from")?,
        deleted_at: row.time_if_any("deleted_at")?,
    })
}
