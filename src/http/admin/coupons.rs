//! Making and changing coupons.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use uuid::Uuid;

use super::caller;
use crate::app::App;
use crate::domain::coupon::{Command, Patch, Reply, STOCK_MAX, Terms, View};
use crate::domain::ids::{CouponId, PerformanceId, UserId};
use crate::domain::roles::Role;
use crate::domain::time::Timestamp;
use crate::http::auth::Organizer;
use crate::http::coupons::{CouponAnswer, DiscountJson};
use crate::http::error::{Answer, Code, Problem};
use crate::http::extract::{Json, Path};
use crate::http::idempotency::{Keyed, Stored, once};
use crate::http::problems::coupon_refusal;
use crate::http::tokens::Identity;

/// The longest name, in characters.
const NAME_CHARS_MAX: usize = 200;

/// A coupon to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CouponRequest {
    /// 1 to 200 characters.
    name: String,
    discount: DiscountJson,
    /// 1 to 10,000,000.
    stock: u32,
    /// From when on it can be claimed.
    starts_at: Timestamp,
    /// Until when it can be claimed, and used.
    ends_at: Timestamp,
    /// The only performance that it is good for.
    performance_id: Option<PerformanceId>,
}

/// What is to change of a coupon; what is missing stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CouponPatch {
    /// 1 to 200 characters.
    name: Option<String>,
    /// Not once somebody has claimed it.
    discount: Option<DiscountJson>,
    /// Up to 10,000,000; not below what was claimed.
    stock: Option<u32>,
    starts_at: Option<Timestamp>,
    ends_at: Option<Timestamp>,
    /// Not once somebody has claimed it; null: good for all.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    performance_id: Option<Option<PerformanceId>>,
}

/// Null is something else than nothing.
fn given<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Option<PerformanceId>>, D::Error> {
    Option::deserialize(d).map(Some)
}

fn check_name(name: &str) -> Answer<()> {
    let is_blank = name.trim().is_empty();
    if is_blank || name.chars().count() > NAME_CHARS_MAX {
        let message = format!("must be 1 to {NAME_CHARS_MAX} characters");
        return Err(Problem::invalid_field("name", message));
    }
    Ok(())
}

fn check_stock(stock: u32, min: u32) -> Answer<()> {
    if (min..=STOCK_MAX).contains(&stock) {
        return Ok(());
    }
    let message = format!("from {min} to {STOCK_MAX}");
    Err(Problem::invalid_field("stock", message))
}

/// A performance is named by who may: 404 for another's.
fn check_performance(app: &App, identity: &Identity, id: Option<PerformanceId>) -> Answer<()> {
    if let Some(id) = id {
        app.catalogue.performance_of(caller(identity), id)?;
    }
    Ok(())
}

impl CouponRequest {
    fn terms(self, owner: UserId, now: Timestamp) -> Answer<Terms> {
        check_name(&self.name)?;
        check_stock(self.stock, 1)?;
        Ok(Terms {
            discount: self.discount.read()?,
            name: self.name,
            stock: self.stock,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            performance: self.performance_id,
            owner,
            created_at: now,
        })
    }
}

impl CouponPatch {
    fn patch(self) -> Answer<Patch> {
        self.name.as_deref().map_or(Ok(()), check_name)?;
        self.stock.map_or(Ok(()), |stock| check_stock(stock, 0))?;
        Ok(Patch {
            name: self.name,
            discount: self.discount.map(DiscountJson::read).transpose()?,
            stock: self.stock,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            performance: self.performance_id,
        })
    }
}

/// Make a coupon
#[utoipa::path(post, path = "/api/v1/admin/coupons", operation_id = "create_coupon",
    tag = "administration", security(("bearer" = [])), request_body = CouponRequest,
    responses((status = 201, body = CouponAnswer), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`performance-not-found`"),
        (status = 422, description = "`invalid-request`")))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    body: Keyed<CouponRequest>,
) -> Answer<Response> {
    let (body, key, request) = body.of(identity.user_id);
    let this = Arc::clone(&app);
    once(&app, key, request, || async move {
        check_performance(&this, &identity, body.performance_id)?;
        let terms = body.terms(identity.user_id, this.clock.now())?;
        let id = CouponId(Uuid::now_v7());
        let view = ask(&this, id, Command::Create(terms)).await?;
        this.coupons.add(id);
        Stored::json(StatusCode::CREATED, &CouponAnswer::new(id, &view))
    })
    .await
}

/// Change a coupon
///
/// Takes effect at once, while it is being claimed.
#[utoipa::path(patch, path = "/api/v1/admin/coupons/{coupon_id}", operation_id = "change_coupon",
    tag = "administration", security(("bearer" = [])), params(("coupon_id" = CouponId, Path)),
    request_body = CouponPatch,
    responses((status = 200, body = CouponAnswer), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`coupon-not-found`, `performance-not-found`"),
        (status = 409, description = "`coupon-has-claims`"),
        (status = 422, description = "`invalid-request`")))]
pub(super) async fn change(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    Path(id): Path<CouponId>,
    Json(body): Json<CouponPatch>,
) -> Answer<Json<CouponAnswer>> {
    let view = app.coupon_view(id).await?;
    let is_theirs = view.terms.owner == identity.user_id || identity.roles.has(Role::Admin);
    if !is_theirs {
        return Err(Code::CouponNotFound.into());
    }
    check_performance(&app, &identity, body.performance_id.flatten())?;
    let view = ask(&app, id, Command::Change(body.patch()?)).await?;
    Ok(Json(CouponAnswer::new(id, &view)))
}

async fn ask(app: &App, id: CouponId, command: Command) -> Answer<View> {
    match app.node.coupons.ask(id.0, command).await? {
        Ok(Reply::View(view)) => Ok(view),
        Ok(_) => Err(Problem::internal_text("a coupon answered something else")),
        Err(refusal) => Err(coupon_refusal(&refusal)),
    }
}
