//! What a coupon can be asked, what can happen to it, and what it answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::discount::Discount;
use crate::domain::account::KeyHash;
use crate::domain::decision::Tier;
use crate::domain::ids::{CouponClaimId, OrderId, PerformanceId, TimetableId, UserId};
use crate::domain::time::{Millis, Timestamp};

/// What a coupon is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Terms {
    /// What it is called.
    pub name: String,
    /// What it takes off.
    pub discount: Discount,
    /// How often it can be claimed.
    pub stock: u32,
    /// From when on it can be claimed.
    pub starts_at: Timestamp,
    /// Until when it can be claimed, and used.
    pub ends_at: Timestamp,
    /// The only performance that it is good for; `None`: all.
    pub performance: Option<PerformanceId>,
    /// Who made it.
    pub owner: UserId,
    /// When.
    pub created_at: Timestamp,
}

/// What is to change of [`Terms`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Patch {
    /// What it is called.
    pub name: Option<String>,
    /// What it takes off.
    pub discount: Option<Discount>,
    /// How often it can be claimed.
    pub stock: Option<u32>,
    /// From when on it can be claimed.
    pub starts_at: Option<Timestamp>,
    /// Until when.
    pub ends_at: Option<Timestamp>,
    /// What it is good for.
    pub performance: Option<Option<PerformanceId>>,
}

impl Patch {
    /// `terms`, changed.
    #[must_use]
    pub fn applied_to(&self, terms: &Terms) -> Terms {
        Terms {
            name: self.name.clone().unwrap_or_else(|| terms.name.clone()),
            discount: self.discount.unwrap_or(terms.discount),
            stock: self.stock.unwrap_or(terms.stock),
            starts_at: self.starts_at.unwrap_or(terms.starts_at),
            ends_at: self.ends_at.unwrap_or(terms.ends_at),
            performance: self.performance.unwrap_or(terms.performance),
            owner: terms.owner,
            created_at: terms.created_at,
        }
    }
}

/// A claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// Which one.
    pub id: CouponClaimId,
    /// Whose.
    pub user: UserId,
    /// Since when.
    pub at: Timestamp,
    /// The idempotency key of the request that made it: should the process die
    /// before the answer is stored under that key, a repetition finds it here.
    pub key: Option<KeyHash>,
}

/// A claim that an order sets aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Prepare {
    /// Whose claim.
    pub user: UserId,
    /// For which order.
    pub order: OrderId,
    /// Who decides that order.
    pub timetable: TimetableId,
    /// Since when.
    pub at: Timestamp,
}

/// What a coupon can be asked. Ids are made by the caller. Travels between nodes
/// of the same version only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Begin to exist.
    Create(Terms),
    /// Be another, within what claims allow.
    Change(Patch),
    /// Give one to a user.
    Claim {
        claim: CouponClaimId,
        user: UserId,
        key: Option<KeyHash>,
    },
    /// Set a user's claim aside for an order.
    Prepare {
        order: OrderId,
        user: UserId,
        timetable: TimetableId,
        performance: PerformanceId,
    },
    /// The order was confirmed: the claim is used.
    Post { order: OrderId, user: UserId },
    /// The order came to nothing: the claim can be used again.
    Void {
        order: OrderId,
        user: UserId,
        timetable: TimetableId,
    },
    /// The order was cancelled with its last seat: the claim can be used again.
    Return {
        order: OrderId,
        user: UserId,
        timetable: TimetableId,
    },
    /// What it is, and how many are left.
    View,
}

impl Command {
    /// How durable its outputs must be before they leave. What a view shows is
    /// in the database already.
    #[must_use]
    pub fn tier(&self) -> Tier {
        match self {
            Self::View => Tier::Memory,
            Self::Create(_)
            | Self::Change(_)
            | Self::Claim { .. }
            | Self::Prepare { .. }
            | Self::Post { .. }
            | Self::Void { .. }
            | Self::Return { .. } => Tier::Database,
        }
    }
}

/// What can happen to a coupon. Serialised into the journal: variants are
/// appended, never reordered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// It exists.
    Created(Arc<Terms>),
    /// It is another.
    Changed(Arc<Terms>),
    /// A user has one.
    Claimed(Claim),
    /// A claim is set aside for an order.
    Prepared(Prepare),
    /// A claim is used.
    Posted { prepare: Prepare, at: Timestamp },
    /// A claim that was set aside is usable again; a tombstone, if it wasn't.
    Voided { prepare: Prepare, at: Timestamp },
    /// A claim that was used is usable again.
    Returned { prepare: Prepare, at: Timestamp },
}

/// A coupon, as anyone may see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct View {
    /// What it is.
    pub terms: Arc<Terms>,
    /// How many were claimed.
    pub claimed: u32,
    /// When the last of them was, if that was since the coupon was loaded.
    pub claimed_at: Option<Timestamp>,
}

/// Whether a coupon can be claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Not yet.
    Scheduled,
    /// It can.
    Open,
    /// All are claimed.
    SoldOut,
    /// Not any more.
    Over,
}

impl Standing {
    /// The name that operators see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Open => "open",
            Self::SoldOut => "sold_out",
            Self::Over => "over",
        }
    }
}

impl View {
    /// How many can still be claimed.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.terms.stock.saturating_sub(self.claimed)
    }

    /// Whether it can be claimed at `now`.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        match now {
            _ if now < self.terms.starts_at => Standing::Scheduled,
            _ if now >= self.terms.ends_at => Standing::Over,
            _ if self.remaining() == 0 => Standing::SoldOut,
            _ => Standing::Open,
        }
    }

    /// How long after it could first be claimed the last one was; `None` while
    /// some are left, and where the last one was claimed before the coupon was
    /// loaded.
    #[must_use]
    pub fn sold_out_after(&self) -> Option<Millis> {
        let opened_at = self.terms.starts_at.max(self.terms.created_at);
        let last = self.claimed_at.filter(|_| self.remaining() == 0)?;
        Some(last.since(opened_at))
    }
}

/// What a coupon answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// What it is now.
    View(View),
    /// The claim.
    Claimed(Claim),
    /// The claim is set aside, and takes so much off.
    Prepared(Discount),
    /// Done, or done before.
    Done,
}

/// Why a claim can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Unusable {
    /// The user has none.
    NotClaimed,
    /// An order has used it.
    Used,
    /// The coupon is over.
    Expired,
    /// The coupon is for another performance.
    OtherPerformance,
}

/// Why a coupon did not do what was asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// It doesn't exist.
    NotFound,
    /// It can be claimed from `starts_at` until `ends_at`.
    NotOpen {
        starts_at: Timestamp,
        ends_at: Timestamp,
    },
    /// All are claimed.
    SoldOut,
    /// The user has one.
    AlreadyClaimed,
    /// So many are claimed: the stock can't be less, and what was promised with
    /// them (the discount, the performance) stays.
    HasClaims { claimed: u32 },
    /// It would end before it starts.
    EndsBeforeStart,
    /// An order that isn't finished has the claim, as far as is known here: its
    /// timetable knows more.
    InUse(Prepare),
    /// The claim can't be used for this order.
    NotUsable(Unusable),
    /// The order was void before the claim was asked for.
    OrderIsVoid,
    /// More than [`super::PREPARED_MAX`] unfinished orders.
    TooManyUnfinishedOrders,
}
