//! Coupons: their rows in a batch, and how they come back.

use futures_util::TryStreamExt as _;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use uuid::Uuid;

use super::SqliteStore;
use super::commit::{Lines, hex};
use crate::domain::coupon::{Claim, Claimants, CouponState, Prepare, VOID_MAX};
use crate::domain::ids::{CouponClaimId, CouponId, OrderId, UserId};
use crate::persistence::StoreError;
use crate::persistence::batch::CouponChanges;
use crate::persistence::rows::COUPONS_TOPIC;
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

/// Claims with their coupons and live uses, of user `?1`.
macro_rules! select_claims {
    ($rest:literal) => {
        concat!(
            "SELECT c.id, c.user_id, c.claimed_at, c.key, c.coupon_id, u.state, u.order_id, \
                    p.name, p.discount_kind, p.discount_value, p.stock, p.starts_at, p.ends_at, \
                    p.performance_id, p.owner, p.created_at \
             FROM coupon_claim AS c JOIN coupon AS p ON p.id = c.coupon_id \
             LEFT JOIN coupon_use AS u ON u.coupon_id = c.coupon_id AND u.user_id = c.user_id \
               AND u.state IN ('prepared', 'posted') \
             WHERE c.user_id = ?1 ",
            $rest
        )
    };
}

impl SqliteStore {
    pub(crate) async fn load_coupon(
        &self,
        id: CouponId,
    ) -> Result<Loaded<CouponState>, StoreError> {
        let mut snapshot = self.readers.acquire().await?;
        // A read transaction in a task's own future: loads are never cancelled.
        sqlx::query("BEGIN").execute(&mut *snapshot).await?;
        let loaded = load(&mut snapshot, id).await;
        sqlx::query("COMMIT").execute(&mut *snapshot).await?;
        loaded
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
        let rows = sqlx::query(select_claims!(
            "AND (?2 IS NULL OR c.id < ?2) ORDER BY c.id DESC LIMIT ?3"
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
        let row = sqlx::query(
            "SELECT id, user_id, claimed_at, key FROM coupon_claim \
             WHERE coupon_id = ?1 AND user_id = ?2",
        );
        let row = row.bind(coupon.0).bind(user.0);
        let row = row.fetch_optional(&self.readers).await?;
        row.as_ref().map(stored::claim).transpose()
    }
}

async fn load(c: &mut SqliteConnection, id: CouponId) -> Result<Loaded<CouponState>, StoreError> {
    let stamp = super::entities::version(c, id.into()).await?;
    let row = sqlx::query(
        "SELECT name, discount_kind, discount_value, stock, starts_at, ends_at, performance_id, \
                owner, created_at, claimed FROM coupon WHERE id = ?1",
    );
    let row = row.bind(id.0).fetch_optional(&mut *c).await?;
    let claimed: u32 = row.as_ref().map_or(Ok(0), |row| row.try_get(9))?;
    let terms = row.as_ref().map(|row| stored::terms(row, 0)).transpose()?;
    let claimants = claimants(c, id, claimed).await?;
    let prepared = sqlx::query(
        "SELECT user_id, order_id, timetable_id, at FROM coupon_use \
         WHERE coupon_id = ?1 AND state = 'prepared'",
    );
    let prepared = prepared.bind(id.0).fetch_all(&mut *c).await?;
    let posted = sqlx::query(
        "SELECT user_id, order_id FROM coupon_use WHERE coupon_id = ?1 AND state = 'posted'",
    );
    let posted = posted.bind(id.0).fetch_all(&mut *c).await?;
    // Their ids begin with the time.
    let void = sqlx::query_scalar::<_, Uuid>(
        "SELECT order_id FROM coupon_use WHERE coupon_id = ?1 AND state IN ('void', 'returned') \
         ORDER BY order_id DESC LIMIT ?2",
    );
    let void = void
        .bind(id.0)
        .bind(i64::try_from(VOID_MAX).unwrap_or(i64::MAX));
    let mut void = void.fetch_all(&mut *c).await?;
    void.reverse();
    let last_event_seq: i64 = sqlx::query_scalar(
        "SELECT coalesce(max(event_seq), 0) FROM outbox WHERE entity = ?1 AND topic = ?2",
    )
    .bind(id.0)
    .bind(COUPONS_TOPIC)
    .fetch_one(&mut *c)
    .await?;
    let pair = |row: &SqliteRow| Ok((UserId(row.try_get(0)?), OrderId(row.try_get(1)?)));
    Ok(Loaded {
        state: CouponState {
            terms,
            claimants,
            prepared: prepared
                .iter()
                .map(stored::prepare)
                .collect::<Result<_, _>>()?,
            posted: posted.iter().map(pair).collect::<Result<_, StoreError>>()?,
            void: void.into_iter().map(OrderId).collect(),
        },
        stamp: stamp.unwrap_or_default(),
        last_event_seq: last_event_seq.cast_unsigned(),
    })
}

async fn claimants(
    c: &mut SqliteConnection,
    id: CouponId,
    about: u32,
) -> Result<Claimants, StoreError> {
    let mut claimants = Claimants::with_room(about as usize);
    let users =
        sqlx::query_scalar::<_, Uuid>("SELECT user_id FROM coupon_claim WHERE coupon_id = ?1");
    let mut users = users.bind(id.0).fetch(c);
    while let Some(user) = users.try_next().await? {
        claimants.insert(UserId(user));
    }
    Ok(claimants)
}
