//! Cancels: seats of an order that are given back, by their buyer or by the
//! organizer.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Organizer, SignedIn};
use super::error::{Answer, Code, Problem};
use super::extract::{IdempotencyKey, Path};
use super::holds::named_seats;
use super::idempotency::{self, KeyedIfAny, Stored};
use super::orders::OrderAnswer;
use super::problems::timetable_refusal;
use crate::actors::refund::{self, Cancellation, Cancelled};
use crate::app::App;
use crate::domain::account::{KeyClaim, KeyedAnswer, stable_hash};
use crate::domain::ids::{OrderId, UserId};
use crate::domain::order::CancelRequest;
use crate::domain::plan::Plan;
use crate::domain::timetable::CancelledBy;
use crate::persistence::store::orders::OrderRow;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(cancel))
        .routes(routes!(refund))
}

/// What to cancel.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelBody {
    /// Seats of the order; all that are left if it is missing.
    seat_ids: Option<Vec<String>>,
}

/// Cancel an order, or some of its seats.
///
/// Answered when the money can be spent and the seats be taken again.
#[utoipa::path(post, path = "/api/v1/orders/{order_id}/cancel", operation_id = "cancel_order", tag = "orders",
    params(("order_id" = OrderId, Path), ("Idempotency-Key" = String, Header)),
    request_body(content = Option<CancelBody>),
    responses((status = 200, body = OrderAnswer), (status = 404, description = "`order-not-found`"),
        (status = 409, description = "`not-cancellable`"),
        (status = 422, description = "`unknown-seat`, `invalid-request`")))]
pub async fn cancel(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(id): Path<OrderId>,
    body: KeyedIfAny<CancelBody>,
) -> Answer<Response> {
    let user = caller.user_id;
    let (body, key, request) = body.of(user);
    let claim = idempotency::claim(IdempotencyKey(key).required()?, &request);
    let work = {
        let (app, claim) = (Arc::clone(&app), claim.clone());
        async move {
            let row = app.node.store.order_of(user, id).await?;
            let row = row.ok_or_else(|| Problem::new(Code::OrderNotFound))?;
            let request = request_of(user, &claim);
            let by = CancelledBy::Buyer(user);
            let cancelled = run(&app, &row, by, &body, request, Some(claim)).await;
            count(&app, cancelled)
        }
    };
    idempotency::once_storing(&app, user, claim, work).await
}

/// Cancel somebody's order, or some of its seats, at any time.
#[utoipa::path(post, path = "/api/v1/admin/orders/{order_id}/refund", operation_id = "refund_order",
    tag = "administration", security(("bearer" = [])),
    params(("order_id" = OrderId, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = Option<CancelBody>),
    responses((status = 200, body = OrderAnswer), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"), (status = 404, description = "`order-not-found`"),
        (status = 409, description = "`not-cancellable`"),
        (status = 422, description = "`unknown-seat`, `invalid-request`")))]
pub async fn refund(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    Path(id): Path<OrderId>,
    body: KeyedIfAny<CancelBody>,
) -> Answer<Response> {
    let user = identity.user_id;
    let (body, key, request) = body.of(user);
    let name = match &key {
        Some(key) => request_of(user, &idempotency::claim(key.clone(), &request)),
        // Without a key, it is another request each time.
        None => CancelRequest(uuid::Uuid::new_v4().as_u64_pair().1),
    };
    let work = {
        let app = Arc::clone(&app);
        async move {
            let row = app.node.store.any_order(id).await?;
            let managed = row.filter(|row| app.sale_managed_by(row.timetable, &identity).is_ok());
            let row = managed.ok_or_else(|| Problem::new(Code::OrderNotFound))?;
            let cancelled = run(&app, &row, CancelledBy::Organizer, &body, name, None).await;
            count(&app, cancelled)
        }
    };
    if key.is_some() {
        return idempotency::once(&app, key, request, || work).await;
    }
    // Nobody is there to repeat it: it goes to its end, whoever waits.
    let task = tokio::spawn(crate::trace::carried(work));
    let answer = task.await.unwrap_or_else(|_| Err(Code::Internal.into()));
    answer.map(IntoResponse::into_response)
}

/// The same for all repetitions of a request, in every process.
fn request_of(user: UserId, claim: &KeyClaim) -> CancelRequest {
    let mut bytes = claim.key.as_bytes().to_vec();
    bytes.extend_from_slice(&claim.fingerprint.to_le_bytes());
    bytes.extend_from_slice(user.0.as_bytes());
    CancelRequest(stable_hash(&bytes))
}

fn count(app: &App, cancelled: Answer<Stored>) -> Answer<Stored> {
    match &cancelled {
        Ok(_) => app.cancels.ok(),
        Err(problem) => app.cancels.refused(problem.code().as_str()),
    }
    cancelled
}

/// The saga. With `claim`, its answer is stored in the commit of the refund.
async fn run(
    app: &App,
    row: &OrderRow,
    by: CancelledBy,
    body: &CancelBody,
    request: CancelRequest,
    claim: Option<KeyClaim>,
) -> Answer<Stored> {
    let plan = app.plan_of_past(row.timetable)?;
    let names = body.seat_ids.as_deref();
    let seats = names.map(|names| named_seats(&plan, names)).transpose()?;
    let wanted = Cancellation {
        order: row.id,
        timetable: row.timetable,
        by,
        seats,
        request,
    };
    let cancelled = match refund::cancel(&app.node, &wanted).await? {
        Ok(cancelled) => cancelled,
        Err(refusal) => return Err(timetable_refusal(&plan, refusal)),
    };
    let answer = answer(&plan, row, &cancelled)?;
    let keyed = claim.as_ref().map(|key| KeyedAnswer {
        key: key.clone(),
        status: StatusCode::OK.as_u16(),
        body: answer.body().to_owned(),
    });
    let Cancelled { order, no, .. } = &cancelled;
    let cancel = order.cancels.iter().find(|cancel| cancel.no == *no);
    let cancel = cancel.ok_or_else(|| Problem::internal_text("a cancel is not in its order"))?;
    let is_ours = refund::give_back(&app.node, row.timetable, (order, cancel), keyed).await;
    match claim {
        // Another request under the key has got ahead of this one.
        Some(claim) if !is_ours => idempotency::stored(app, row.user, &claim.key).await,
        _ => Ok(answer),
    }
}

/// The tickets are those that were issued when it was asked for: now they are void.
fn answer(plan: &Plan, row: &OrderRow, cancelled: &Cancelled) -> Answer<Stored> {
    let tickets = row.tickets.clone();
    let answer = OrderAnswer::after(plan, &cancelled.order, cancelled.no, tickets);
    Stored::json(StatusCode::OK, &answer)
}
