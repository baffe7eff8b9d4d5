//! Coupons: their rows in a batch, and how they come back.

use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::SqliteStore;
use super::rows::{Lines, hex};
use crate::domain::coupon::{Claim, CouponState, Prepare};
use crate::domain::ids::{CouponClaimId, CouponId, UserId};
use crate::persistence::StoreError;
use crate::persistence::batch::CouponChanges;
use crate::persistence::store::coupons::ClaimRow;
use crate::persistence::store::entities::Loaded;
use crate::persistence::stored::coupon as stored;

/// The rows of coupons in a batch, by statement.
#[derive(Default)]
pub(super) struct CouponRows {
    coupons: Lines,
    claims: Lines,
    uses: Lines,
}

impl CouponRows {
    pub(super) fn add(&mut self, id: &str, changes: &CouponChanges) {
        if let Some(view) = &changes.coupon {
            let terms = &view.terms;
            self.coupons.push(&(
                id,
                &terms.name,
                (terms.discount.kind(), terms.discount.value()),
                (terms.stock, view.claimed),
                (terms.starts_at.0, terms.ends_at.0),
                terms.performance.map(|performance| hex(performance.0)),
                hex(terms.owner.0),
                terms.created_at.0,
            ));
        }
        for claim in &changes.claims {
            let key = claim.key.map(|key| key.0.cast_signed());
            let (user, claim, at) = (hex(claim.user.0), hex(claim.id.0), claim.at.0);
            self.claims.push(&(id, user, claim, at, key));
        }
        for row in changes.uses_in_order() {
            let Prepare {
                user,
                order,
                timetable,
                ..
            } = row.prepare;
            self.uses.push(&(
                id,
                hex(order.0),
                hex(user.0),
                hex(timetable.0),
                row.state.as_str(),
                row.at.0,
            ));
        }
    }

    pub(super) async fn write(self, c: &mut SqliteConnection) -> Result<(), StoreError> {
        self.coupons.run(c, "INSERT INTO coupon (id, name, discount_kind, discount_value, stock, claimed, \
                   starts_at, ends_at, performance_id, owner, created_at) \
            SELECT unhex(value ->> 0), value ->> 1, value ->> '$[2][0]', value ->> '$[2][1]', \
                   value ->> '$[3][0]', value ->> '$[3][1]', value ->> '$[4][0]', value ->> '$[4][1]', \
                   unhex(value ->> 5), unhex(value ->> 6), value ->> 7 FROM json_each(?1) WHERE true \
            ON CONFLICT (id) DO UPDATE SET name = excluded.name, discount_kind = excluded.discount_kind, \
                   discount_value = excluded.discount_value, stock = excluded.stock, \
                   claimed = excluded.claimed, starts_at = excluded.starts_at, ends_at = excluded.ends_at, \
                   performance_id = excluded.performance_id").await?;
        self.claims.run(c, "INSERT INTO coupon_claim (coupon_id, user_id, id, claimed_at, key) \
            SELECT unhex(value ->> 0), unhex(value ->> 1), unhex(value ->> 2), value ->> 3, value ->> 4 \
            FROM json_each(?1)").await?;
        self.uses.run(c, "INSERT INTO coupon_use (coupon_id, order_id, user_id, timetable_id, state, at) \
            SELECT unhex(value ->> 0), unhex(value ->> 1), unhex(value ->> 2), unhex(value ->> 3), \
                   value ->> 4, value ->> 5 FROM json_each(?1) WHERE true \
            ON CONFLICT (coupon_id, order_id) DO UPDATE SET state = excluded.state, at = excluded.at").await
    }
}

impl SqliteStore {
    pub(crate) async fn load_coupon(
        &self,
        id: CouponId,
    ) -> Result<Loaded<CouponState>, StoreError> {
        self.load(move |c| Box::pin(stored::load(c, id))).await
    }

    pub(crate) async fn coupons(&self) -> Result<Vec<CouponId>, StoreError> {
        let ids = sqlx::query_scalar::<_, Uuid>("SELECT id FROM coupon ORDER BY id")
            .fetch_all(&self.readers)
            .await?;
        Ok(ids.into_iter().map(CouponId).collect())
    }

    pub(crate) async fn coupons_in_doubt(&self) -> Result<Vec<CouponId>, StoreError> {
        let ids = sqlx::query_scalar::<_, Uuid>(
            "SELECT DISTINCT coupon_id FROM coupon_use WHERE state = 'prepared'",
        );
        let ids = ids.fetch_all(&self.readers).await?;
        Ok(ids.into_iter().map(CouponId).collect())
    }

    pub(crate) async fn claims_of(
        &self,
        user: UserId,
        after: Option<CouponClaimId>,
        limit: u32,
    ) -> Result<Vec<ClaimRow>, StoreError> {
        let rows = sqlx::query(stored::select_claims!(
            "AND ($2 IS NULL OR c.id < $2) ORDER BY c.id DESC LIMIT $3"
        ));
        let rows = rows
            .bind(user.0)
            .bind(after.map(|id| id.0))
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(stored::claim_row).collect()
    }

    pub(crate) async fn coupon_of_claim(
        &self,
        user: UserId,
        id: CouponClaimId,
    ) -> Result<Option<CouponId>, StoreError> {
        let coupon = sqlx::query_scalar::<_, Uuid>(
            "SELECT coupon_id FROM coupon_claim WHERE user_id = ?1 AND id = ?2",
        );
        let coupon = coupon.bind(user.0).bind(id.0);
        let coupon = coupon.fetch_optional(&self.readers).await?;
        Ok(coupon.map(CouponId))
    }

    pub(crate) async fn claim_on(
        &self,
        coupon: CouponId,
        user: UserId,
    ) -> Result<Option<Claim>, StoreError> {
        let row = sqlx::query(stored::CLAIM).bind(coupon.0).bind(user.0);
        let row = row.fetch_optional(&self.readers).await?;
        row.as_ref().map(stored::claim).transpose()
    }
}
