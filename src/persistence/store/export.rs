//! Everything the store knows about a person, as it may be handed out to them.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Store;
use super::coupons::{ClaimRow, ClaimUse};
use crate::domain::ids::UserId;
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

/// How many rows of each kind are handed out at most, newest first. Far above
/// what a person collects; a bound on what one call can take.
pub const EXPORT_ROWS_MAX: u32 = 50_000;

/// What belongs to one user besides the account itself, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PersonalRows {
    /// Sign-ins of the last weeks.
    pub sessions: Vec<SessionRow>,
    /// Confirmed and cancelled orders.
    pub orders: Vec<OrderRow>,
    /// Movements of the wallet.
    pub wallet_entries: Vec<WalletRow>,
    /// Tickets, void ones too.
    pub tickets: Vec<TicketRow>,
    /// Claims of coupons.
    pub coupons: Vec<CouponRow>,
}

/// A claim of a coupon.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ExportedCoupon)]
pub struct CouponRow {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub coupon_claim_id: Uuid,
    /// The coupon.
    #[schema(value_type = String, format = "uuid")]
    pub coupon_id: Uuid,
    /// What that is called.
    pub name: String,
    /// When it was claimed.
    #[schema(value_type = String, format = "date-time")]
    pub claimed_at: Timestamp,
    /// The order that has it.
    #[schema(value_type = Option<String>, format = "uuid", required = true)]
    pub order_id: Option<Uuid>,
}

impl From<ClaimRow> for CouponRow {
    fn from(row: ClaimRow) -> Self {
        Self {
            coupon_claim_id: row.claim.id.0,
            coupon_id: row.coupon.0,
            name: row.terms.name,
            claimed_at: row.claim.at,
            order_id: match row.used {
                ClaimUse::Available => None,
                ClaimUse::Reserved(order) | ClaimUse::Used(order) => Some(order.0),
            },
        }
    }
}

/// A sign-in.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ExportedSession)]
pub struct SessionRow {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub session_id: Uuid,
    /// When it began.
    #[schema(value_type = String, format = "date-time")]
    pub created_at: Timestamp,
    /// When it can't be refreshed any more.
    #[schema(value_type = String, format = "date-time")]
    pub expires_at: Timestamp,
    /// When it ended before that.
    #[schema(value_type = Option<String>, format = "date-time", required = true)]
    pub ended_at: Option<Timestamp>,
}

/// An order. Money is in minor units of the performance's currency.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ExportedOrder)]
pub struct OrderRow {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub order_id: Uuid,
    /// The date that it is for.
    #[schema(value_type = String, format = "uuid")]
    pub timetable_id: Uuid,
    /// How far it has come.
    pub status: String,
    /// How it was paid.
    pub method: String,
    /// Its payment.
    #[schema(value_type = String, format = "uuid")]
    pub payment_id: Uuid,
    /// Price of the seats.
    pub subtotal: i64,
    /// Taken off by a coupon.
    pub discount: i64,
    /// What was to be paid.
    pub amount: i64,
    /// What was given back.
    pub refunded: i64,
    /// When it was made.
    #[schema(value_type = String, format = "date-time")]
    pub created_at: Timestamp,
    /// Its seats.
    pub seats: Vec<SeatRow>,
}

/// A seat of an order.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = ExportedSeat)]
pub struct SeatRow {
    /// Which one, counted in layout order from 0.
    pub seat_index: u32,
    /// What it cost.
    pub price: i64,
}

/// A movement of the wallet.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ExportedWalletEntry)]
pub struct WalletRow {
    /// When.
    #[schema(value_type = String, format = "date-time")]
    pub at: Timestamp,
    /// From which account.
    pub debit: String,
    /// To which account.
    pub credit: String,
    /// How much.
    pub amount: i64,
    /// Why.
    pub cause: String,
    /// What caused it, e.g. the id of the order.
    #[schema(value_type = String, format = "uuid")]
    pub cause_id: Uuid,
}

/// A ticket.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ExportedTicket)]
pub struct TicketRow {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub ticket_id: Uuid,
    /// The order that it comes from.
    #[schema(value_type = String, format = "uuid")]
    pub order_id: Uuid,
    /// The date that it is for.
    #[schema(value_type = String, format = "uuid")]
    pub timetable_id: Uuid,
    /// Which seat, counted in layout order from 0.
    pub seat_index: u32,
    /// What it is good for.
    pub status: String,
    /// When it was issued.
    #[schema(value_type = String, format = "date-time")]
    pub issued_at: Timestamp,
}

impl Store {
    /// What belongs to `user`, as of the last commit.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn personal_rows(&self, user: UserId) -> Result<PersonalRows, StoreError> {
        let rows: PersonalRows = on_backend!(self, personal_rows(user))?;
        let claims = self.claims_of(user, None, EXPORT_ROWS_MAX).await?;
        Ok(PersonalRows {
            coupons: claims.into_iter().map(CouponRow::from).collect(),
            ..rows
        })
    }
}
