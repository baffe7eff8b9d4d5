//! Coupons as users see them: those that there are, and their claims.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::auth::SignedIn;
use super::error::{Answer, Code, Problem};
use super::etag::public_json;
use super::extract::{Json, List, Page, Path};
use super::idempotency::{self, KeyedNoBody, Stored};
use super::problems::coupon_refusal;
use crate::app::App;
use crate::domain::account::KeyHash;
use crate::domain::coupon::{Claim, Command, Discount, Refusal, Reply, View};
use crate::domain::ids::{
    CouponClaimId, CouponId, OrderId, PerformanceId, UserId, shard_of, with_shard,
};
use crate::domain::time::Timestamp;
use crate::persistence::store::coupons::{ClaimRow, ClaimUse};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(claim))
        .routes(routes!(mine))
}

/// What a coupon takes off.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscountJson {
    kind: DiscountKind,
    /// Minor units, or hundredths from 1 to 100.
    #[schema(example = 10)]
    value: i64,
}

/// Of which kind.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiscountKind {
    /// So much.
    Amount,
    /// Such a part.
    Percent,
}

impl From<Discount> for DiscountJson {
    fn from(discount: Discount) -> Self {
        Self {
            kind: match discount {
                Discount::Amount(_) => DiscountKind::Amount,
                Discount::Percent(_) => DiscountKind::Percent,
            },
            value: discount.value(),
        }
    }
}

impl DiscountJson {
    /// The discount; 422 where the value is out of its range.
    pub(super) fn read(self) -> Answer<Discount> {
        let kind = match self.kind {
            DiscountKind::Amount => "amount",
            DiscountKind::Percent => "percent",
        };
        Discount::of(kind, self.value).ok_or_else(|| {
            Problem::invalid_field("discount.value", "an amount from 1, or 1 to 100 percent")
        })
    }
}

/// A coupon.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CouponAnswer {
    coupon_id: CouponId,
    name: String,
    discount: DiscountJson,
    stock: u32,
    /// How many can still be claimed.
    remaining: u32,
    starts_at: Timestamp,
    ends_at: Timestamp,
    /// The only performance that it is good for.
    #[schema(required = true)]
    performance_id: Option<PerformanceId>,
}

impl CouponAnswer {
    /// A coupon as it is shown.
    #[must_use]
    pub fn new(coupon_id: CouponId, view: &View) -> Self {
        let terms = &view.terms;
        Self {
            coupon_id,
            name: terms.name.clone(),
            discount: terms.discount.into(),
            stock: terms.stock,
            remaining: view.remaining(),
            starts_at: terms.starts_at,
            ends_at: terms.ends_at,
            performance_id: terms.performance,
        }
    }
}

/// List coupons
///
/// In the order in which they were made; those that are sold out or over, too.
/// `remaining` is exact, and rises only where the stock was raised.
#[utoipa::path(get, path = "/api/v1/coupons", operation_id = "list_coupons", tag = "coupons",
    params(("limit" = Option<u32>, Query, description = "How many at most: 1 to 100, by default 20"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")),
    responses((status = 200, body = List<CouponAnswer>), (status = 304, description = "not modified")))]
async fn list(State(app): State<Arc<App>>, headers: HeaderMap, page: Page) -> Answer<Response> {
    let after = page.after::<CouponId>()?;
    let ids = app
        .coupons
        .page(&app, after, page.limit as usize + 1)
        .await?;
    let views = app.coupon_views(&ids).await?;
    let items = views.iter().map(|(id, view)| CouponAnswer::new(*id, view));
    let list = List::page(items.collect(), &page, |coupon| coupon.coupon_id);
    public_json(&headers, &list)
}

/// A claim.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClaimAnswer {
    coupon_claim_id: CouponClaimId,
    coupon_id: CouponId,
    claimed_at: Timestamp,
}

/// Claim a coupon
///
/// First come, first served; one a user, and never more than its stock.
#[utoipa::path(post, path = "/api/v1/coupons/{coupon_id}/claims", operation_id = "claim_coupon",
    tag = "coupons", security(("bearer" = [])), params(("coupon_id" = CouponId, Path)),
    responses((status = 201, body = ClaimAnswer), (status = 401, description = "`unauthorized`"),
        (status = 404, description = "`coupon-not-found`"),
        (status = 409, description = "`coupon-sold-out`, `coupon-already-claimed`, `coupon-not-open`")))]
async fn claim(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(coupon): Path<CouponId>,
    request: KeyedNoBody,
) -> Answer<Response> {
    let user = caller.user_id;
    let (key, request) = request.of(user);
    let (this, hash) = (Arc::clone(&app), key.as_deref().map(KeyHash::of));
    idempotency::once(&app, key, request, || async move {
        let claim = claim_once(&this, coupon, user, hash).await;
        let claim = count(&this, claim)?;
        let answer = ClaimAnswer {
            coupon_claim_id: claim.id,
            coupon_id: coupon,
            claimed_at: claim.at,
        };
        Stored::json(StatusCode::CREATED, &answer)
    })
    .await
}

fn count(app: &App, claimed: Answer<Claim>) -> Answer<Claim> {
    match &claimed {
        Ok(_) => app.claims.ok(),
        Err(problem) => app.claims.refused(problem.code().as_str()),
    }
    claimed
}

async fn claim_once(
    app: &App,
    coupon: CouponId,
    user: UserId,
    key: Option<KeyHash>,
) -> Answer<Claim> {
    let claim = CouponClaimId(with_shard(Uuid::now_v7(), shard_of(coupon.0)));
    let command = Command::Claim { claim, user, key };
    let asked = app.node.coupons.ask(coupon.0, command).await?;
    match asked {
        Ok(Reply::Claimed(claim)) => Ok(claim),
        // By an earlier request under this very key, whose answer was not stored:
        // the process died in between.
        Err(Refusal::AlreadyClaimed) if key.is_some() => {
            let had = app.node.store.claim_on(coupon, user).await?;
            let had = had.filter(|had| had.key == key);
            had.ok_or_else(|| Code::CouponAlreadyClaimed.into())
        }
        Ok(_) => Err(Problem::internal_text("a coupon answered something else")),
        Err(refusal) => Err(coupon_refusal(&refusal)),
    }
}

/// A claim of the caller.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnClaim {
    coupon_claim_id: CouponClaimId,
    coupon_id: CouponId,
    claimed_at: Timestamp,
    /// `available`, `reserved` (an order is under way with it), `used`.
    #[schema(example = "available")]
    status: &'static str,
    /// The order that has it.
    #[schema(required = true)]
    order_id: Option<OrderId>,
    name: String,
    discount: DiscountJson,
    ends_at: Timestamp,
    #[schema(required = true)]
    performance_id: Option<PerformanceId>,
}

impl From<ClaimRow> for OwnClaim {
    fn from(row: ClaimRow) -> Self {
        let (status, order_id) = match row.used {
            ClaimUse::Available => ("available", None),
            ClaimUse::Reserved(order) => ("reserved", Some(order)),
            ClaimUse::Used(order) => ("used", Some(order)),
        };
        Self {
            coupon_claim_id: row.claim.id,
            coupon_id: row.coupon,
            claimed_at: row.claim.at,
            status,
            order_id,
            name: row.terms.name,
            discount: row.terms.discount.into(),
            ends_at: row.terms.ends_at,
            performance_id: row.terms.performance,
        }
    }
}

/// List the caller's coupons
///
/// The newest first.
#[utoipa::path(get, path = "/api/v1/me/coupons", operation_id = "list_own_coupons", tag = "coupons",
    security(("bearer" = [])),
    params(("limit" = Option<u32>, Query, description = "How many at most: 1 to 100, by default 20"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")),
    responses((status = 200, body = List<OwnClaim>), (status = 401, description = "`unauthorized`")))]
async fn mine(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    page: Page,
) -> Answer<Json<List<OwnClaim>>> {
    let after = page.after::<CouponClaimId>()?;
    let store = &app.node.store;
    let claims = store
        .claims_of(caller.user_id, after, page.limit + 1)
        .await?;
    let claims = claims.into_iter().map(OwnClaim::from).collect();
    Ok(Json(List::page(claims, &page, |claim| {
        claim.coupon_claim_id
    })))
}
