//! Coupons: their rows in a batch, and how they come back.

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::PostgresStore;
use super::statement::Statement;
use crate::domain::coupon::{Claim, CouponState, View};
use crate::domain::ids::{CouponClaimId, CouponId, UserId};
use crate::persistence::StoreError;
use crate::persistence::batch::{CouponChanges, UseRow};
use crate::persistence::store::coupons::ClaimRow;
use crate::persistence::store::entities::Loaded;
use crate::persistence::stored::coupon as stored;
use crate::persistence::stored::reader::Reader as _;

/// Rows of coupons, one array a column.
#[derive(Default)]
pub(super) struct Coupons {
    rows: Rows,
    claims: Claims,
    uses: Uses,
}

#[derive(Default)]
struct Rows {
    ids: Vec<Uuid>,
    names: Vec<String>,
    kinds: Vec<&'static str>,
    values: Vec<i64>,
    stocks: Vec<i32>,
    claimed: Vec<i32>,
    starts: Vec<i64>,
    ends: Vec<i64>,
    performances: Vec<Option<Uuid>>,
    owners: Vec<Uuid>,
    created: Vec<i64>,
}

#[derive(Default)]
struct Claims {
    coupons: Vec<Uuid>,
    users: Vec<Uuid>,
    ids: Vec<Uuid>,
    times: Vec<i64>,
    keys: Vec<Option<i64>>,
}

#[derive(Default)]
struct Uses {
    coupons: Vec<Uuid>,
    orders: Vec<Uuid>,
    users: Vec<Uuid>,
    timetables: Vec<Uuid>,
    states: Vec<&'static str>,
    times: Vec<i64>,
}

const COUPONS: &str = "INSERT INTO coupon (id, name, discount_kind, discount_value, stock, \
       claimed, starts_at, ends_at, performance_id, owner, created_at) \
     SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::integer[], \
       $6::integer[], $7::bigint[], $8::bigint[], $9::uuid[], $10::uuid[], $11::bigint[]) \
     ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
       discount_kind = excluded.discount_kind, discount_value = excluded.discount_value, \
       stock = excluded.stock, claimed = excluded.claimed, starts_at = excluded.starts_at, \
       ends_at = excluded.ends_at, performance_id = excluded.performance_id";

const CLAIMS: &str = "INSERT INTO coupon_claim (coupon_id, user_id, id, claimed_at, key) \
     SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[])";

/// In the order given: a claim is freed before another order has it.
const USES: &str = "INSERT INTO coupon_use (coupon_id, order_id, user_id, timetable_id, state, at) \
     SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], \
       $6::bigint[]) \
     ON CONFLICT (coupon_id, order_id) DO UPDATE SET state = excluded.state, at = excluded.at";

impl Coupons {
    pub(super) fn add(&mut self, id: Uuid, changes: &CouponChanges) {
        if let Some(view) = &changes.coupon {
            self.rows.add(id, view);
        }
        for claim in &changes.claims {
            self.claims.add(id, claim);
        }
        for row in changes.uses_in_order() {
            self.uses.add(id, row);
        }
    }

    /// Has the rows that there are put.
    pub(super) fn put(self, statement: &mut Statement) {
        if !self.rows.ids.is_empty() {
            self.rows.put(statement);
        }
        if !self.claims.ids.is_empty() {
            self.claims.put(statement);
        }
        if !self.uses.orders.is_empty() {
            self.uses.put(statement);
        }
    }
}

impl Rows {
    fn add(&mut self, id: Uuid, view: &View) {
        let terms = &view.terms;
        self.ids.push(id);
        self.names.push(terms.name.clone());
        self.kinds.push(terms.discount.kind());
        self.values.push(terms.discount.value());
        self.stocks.push(terms.stock.cast_signed());
        self.claimed.push(view.claimed.cast_signed());
        self.starts.push(terms.starts_at.0);
        self.ends.push(terms.ends_at.0);
        self.performances
            .push(terms.performance.map(|performance| performance.0));
        self.owners.push(terms.owner.0);
        self.created.push(terms.created_at.0);
    }

    fn put(self, statement: &mut Statement) {
        statement
            .part(COUPONS)
            .bind(self.ids)
            .bind(self.names)
            .bind(self.kinds)
            .bind(self.values)
            .bind(self.stocks)
            .bind(self.claimed)
            .bind(self.starts)
            .bind(self.ends)
            .bind(self.performances)
            .bind(self.owners)
            .bind(self.created);
    }
}

impl Claims {
    fn add(&mut self, id: Uuid, claim: &Claim) {
        self.coupons.push(id);
        self.users.push(claim.user.0);
        self.ids.push(claim.id.0);
        self.times.push(claim.at.0);
        // The column is signed; the bits are what counts.
        self.keys.push(claim.key.map(|key| key.0.cast_signed()));
    }

    fn put(self, statement: &mut Statement) {
        statement
            .part(CLAIMS)
            .bind(self.coupons)
            .bind(self.users)
            .bind(self.ids)
            .bind(self.times)
            .bind(self.keys);
    }
}

impl Uses {
    fn add(&mut self, id: Uuid, row: &UseRow) {
        self.coupons.push(id);
        self.orders.push(row.prepare.order.0);
        self.users.push(row.prepare.user.0);
        self.timetables.push(row.prepare.timetable.0);
        self.states.push(row.state.as_str());
        self.times.push(row.at.0);
    }

    fn put(self, statement: &mut Statement) {
        statement
            .part(USES)
            .bind(self.coupons)
            .bind(self.orders)
            .bind(self.users)
            .bind(self.timetables)
            .bind(self.states)
            .bind(self.times);
    }
}

const CLAIMS_OF: &str =
    stored::select_claims!("AND ($2::uuid IS NULL OR c.id < $2) ORDER BY c.id DESC LIMIT $3");

impl PostgresStore {
    pub(crate) async fn load_coupon(
        &self,
        id: CouponId,
    ) -> Result<Loaded<CouponState>, StoreError> {
        self.load(move |c| Box::pin(stored::load(c, id))).await
    }

    pub(crate) async fn coupons(&self) -> Result<Vec<CouponId>, StoreError> {
        self.ids_of_coupons("SELECT id FROM coupon ORDER BY id")
            .await
    }

    pub(crate) async fn coupons_in_doubt(&self) -> Result<Vec<CouponId>, StoreError> {
        self.ids_of_coupons("SELECT DISTINCT coupon_id FROM coupon_use WHERE state = 'prepared'")
            .await
    }

    async fn ids_of_coupons(&self, sql: &'static str) -> Result<Vec<CouponId>, StoreError> {
        self.load(move |c| {
            Box::pin(async move {
                let rows = c.sql(sql).fetch_all(c.on()).await?;
                let id = |row: &PgRow| Ok(CouponId(row.try_get(0)?));
                rows.iter().map(id).collect()
            })
        })
        .await
    }

    pub(crate) async fn claims_of(
        &self,
        user: UserId,
        after: Option<CouponClaimId>,
        limit: u32,
    ) -> Result<Vec<ClaimRow>, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let rows = c.sql(CLAIMS_OF).bind(user.0).bind(after.map(|id| id.0));
                let rows = rows.bind(i64::from(limit)).fetch_all(c.on()).await?;
                rows.iter().map(stored::claim_row).collect()
            })
        })
        .await
    }

    pub(crate) async fn coupon_of_claim(
        &self,
        user: UserId,
        id: CouponClaimId,
    ) -> Result<Option<CouponId>, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let row =
                    c.sql("SELECT coupon_id FROM coupon_claim WHERE user_id = $1 AND id = $2");
                let row = row.bind(user.0).bind(id.0).fetch_optional(c.on()).await?;
                row.map(|row| Ok(CouponId(row.try_get(0)?))).transpose()
            })
        })
        .await
    }

    pub(crate) async fn claim_on(
        &self,
        coupon: CouponId,
        user: UserId,
    ) -> Result<Option<Claim>, StoreError> {
        self.read(move |c| {
            Box::pin(async move {
                let of = [coupon.0.into(), user.0.into()];
                let row = c.one(stored::CLAIM, &of).await?;
                row.as_ref().map(stored::claim).transpose()
            })
        })
        .await
    }
}
