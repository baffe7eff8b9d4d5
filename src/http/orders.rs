//! Orders: buying what is held, and looking at what was bought.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::SignedIn;
use super::error::{Answer, Code, Problem};
use super::extract::{IdempotencyKey, Json, List, Page, Path, Query};
use super::hold_token::HoldToken;
use super::idempotency::{self, Keyed, Stored};
use super::problems::{account_refusal, coupon_refusal, timetable_refusal};
use super::queue_pass::{self, QueuePass};
use super::{hold_id, holds};
use crate::actors::purchase::{self, Ended, Purchase};
use crate::app::App;
use crate::domain::account::KeyClaim;
use crate::domain::coupon::{Refusal, Unusable};
use crate::domain::ids::{
    CouponClaimId, CouponId, HoldId, OrderId, PaymentId, PerformanceId, TicketId, TimetableId,
    UserId,
};
use crate::domain::money::{Currency, Money};
use crate::domain::order::{CancelNo, Method as PaymentMethod, Order, OrderStatus, PricedSeats};
use crate::domain::plan::Plan;
use crate::domain::seat::SeatIndex;
use crate::domain::time::Timestamp;
use crate::persistence::store::orders::{OrderFilter, OrderRow};
use crate::trace;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(find))
        .routes(routes!(payment))
}

/// What to buy, and how to pay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    hold_id: HoldId,
    /// Restores the hold if the server has lost it.
    hold_token: Option<String>,
    /// Of a coupon that the caller has claimed.
    coupon_claim_id: Option<CouponClaimId>,
    payment: PaymentRequest,
}

/// How to pay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentRequest {
    #[schema(value_type = String, example = "wallet")]
    method: PaymentMethod,
}

/// An order.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrderAnswer {
    order_id: OrderId,
    #[schema(example = "confirmed")]
    status: String,
    performance_id: Option<PerformanceId>,
    timetable_id: TimetableId,
    seats: Vec<OrderSeat>,
    subtotal: Money,
    discount: Money,
    amount: Money,
    refunded: Money,
    #[schema(value_type = String, example = "KRW")]
    currency: Currency,
    payment: PaymentAnswer,
    /// Empty until they are issued; void ones stay.
    tickets: Vec<TicketId>,
    created_at: Timestamp,
}

/// A seat of an order.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrderSeat {
    seat_id: String,
    grade: String,
    price: Money,
    /// What of the order's discount falls on it.
    discount: Money,
    #[schema(example = "sold")]
    status: &'static str,
}

/// The payment of an order.
#[derive(Debug, Serialize, ToSchema)]
pub struct PaymentAnswer {
    payment_id: PaymentId,
    method: &'static str,
    /// `captured`, or `refunded` when nothing of the order is left.
    #[schema(example = "captured")]
    status: &'static str,
}

fn order_seats(
    plan: &Plan,
    seats: &PricedSeats,
    discount: Money,
    is_cancelled: impl Fn(SeatIndex) -> bool,
) -> Vec<OrderSeat> {
    let seat = |(priced, paid): (&crate::domain::order::PricedSeat, Money)| OrderSeat {
        seat_id: plan.layout.name_of(priced.seat).to_string(),
        grade: plan.grade_name(priced.seat).to_owned(),
        price: priced.price,
        discount: priced.price.minus(paid),
        status: if is_cancelled(priced.seat) {
            "cancelled"
        } else {
            "sold"
        },
    };
    let paid = crate::domain::order::paid(seats, discount);
    seats.iter().zip(paid).map(seat).collect()
}

/// How a payment stands whose order has this status.
fn payment_status(order: &str) -> &'static str {
    if order == OrderStatus::Cancelled.as_str() {
        "refunded"
    } else {
        "captured"
    }
}

impl OrderAnswer {
    /// The answer to the request that made the order: the same at every
    /// repetition, so that neither tickets issued since nor cancels are in it.
    fn made(plan: &Plan, order: &Order) -> Self {
        Self::after(plan, order, CancelNo(0), Vec::new())
    }

    /// The order as it was after its cancel `no`, with the tickets that are issued.
    pub(super) fn after(plan: &Plan, order: &Order, no: CancelNo, tickets: Vec<TicketId>) -> Self {
        let status = order.status_after(no);
        Self {
            order_id: order.id,
            status: status.as_str().to_owned(),
            performance_id: Some(plan.performance_id),
            timetable_id: plan.timetable_id,
            seats: order_seats(plan, &order.seats, order.discount, |seat| {
                order.is_cancelled_by(seat, no)
            }),
            subtotal: order.subtotal(),
            discount: order.discount,
            amount: order.amount(),
            refunded: order.refunded_after(no),
            currency: plan.currency,
            payment: PaymentAnswer {
                payment_id: order.payment,
                method: order.method.as_str(),
                status: payment_status(status.as_str()),
            },
            tickets,
            created_at: order.created_at,
        }
    }

    /// The order as it is stored now.
    fn stored(plan: &Plan, row: OrderRow) -> Self {
        let subtotal = crate::domain::order::total(&row.seats);
        Self {
            order_id: row.id,
            performance_id: Some(plan.performance_id),
            timetable_id: row.timetable,
            seats: order_seats(plan, &row.seats, row.discount, |seat| {
                row.cancelled.contains(&seat)
            }),
            subtotal,
            discount: row.discount,
            amount: subtotal.minus(row.discount),
            refunded: row.refunded,
            currency: plan.currency,
            payment: PaymentAnswer {
                payment_id: row.payment,
                method: row.method.as_str(),
                status: payment_status(&row.status),
            },
            status: row.status,
            tickets: row.tickets,
            created_at: row.created_at,
        }
    }
}

/// Buy what is held.
#[utoipa::path(post, path = "/api/v1/orders", tag = "orders",
    params(("Idempotency-Key" = String, Header)), request_body = OrderRequest,
    responses((status = 201, body = OrderAnswer), (status = 402, description = "the balance is too low")))]
pub async fn create(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    pass: QueuePass,
    body: Keyed<OrderRequest>,
) -> Answer<Response> {
    let user = caller.user_id;
    let (body, key, request) = body.of(user);
    let claim = idempotency::claim(IdempotencyKey(key).required()?, &request);
    let task = {
        let (app, claim) = (Arc::clone(&app), claim.clone());
        // To its end, whoever waits: a client that hangs up must not leave its
        // key running.
        let buying = async move { buy(&app, user, (&body, &pass), claim).await };
        tokio::spawn(trace::carried(buying))
    };
    let bought = match task.await {
        Ok(bought) => bought,
        // A panic, which its hook has reported.
        Err(_) => {
            purchase::free_key(&app.node, user, &claim, None).await;
            Err(Code::Internal.into())
        }
    };
    match &bought {
        Ok(_) => app.orders.ok(),
        Err(problem) => app.orders.refused(problem.code().as_str()),
    }
    bought.map(IntoResponse::into_response)
}

/// The key comes first: a repetition gets its answer whatever became of the
/// hold, its token, or the performance.
async fn buy(
    app: &Arc<App>,
    user: UserId,
    request: (&OrderRequest, &QueuePass),
    key: KeyClaim,
) -> Answer<Stored> {
    match purchase::reserve_key(&app.node, user, &key).await? {
        None => {}
        Some(Ended::Confirmed { order, .. }) => {
            let plan = app.plan_of_past(order_timetable(app, user, &order).await?)?;
            return Ok(made(&plan, &order)?.again(true));
        }
        Some(Ended::Answered) => return idempotency::stored(app, user, &key.key).await,
        Some(Ended::Account(refusal)) => return Err(account_refusal(&refusal)),
        Some(_) => return Err(Code::IdempotencyKeyInUse.into()),
    }
    match buy_under(app, user, request, &key).await {
        Ok(made) => Ok(made),
        Err(problem) => idempotency::keep(app, user, key, Err(problem)).await,
    }
}

/// Buys under a key that is reserved.
async fn buy_under(
    app: &Arc<App>,
    user: UserId,
    (request, pass): (&OrderRequest, &QueuePass),
    key: &KeyClaim,
) -> Answer<Stored> {
    let token = match request.hold_token.as_deref() {
        None => None,
        Some(text) => Some(
            HoldToken::verify(text, &app.keys)
                .filter(|token| token.hold.id == request.hold_id)
                .ok_or_else(|| Problem::invalid_field("hold_token", "not a token of this hold"))?,
        ),
    };
    let timetable = timetable_to_buy_on(app, user, request, token.as_ref()).await?;
    let sale = app.sale(timetable)?;
    let coupon = coupon_to_use(app, user, request).await?;
    // Only a hold that was not made under a pass needs one now.
    let passed = queue_pass::check(app, &sale, Some(user), pass).await;
    let purchase = Purchase {
        user,
        hold: request.hold_id,
        timetable,
        lost: token.map(|token| (hold_id::new(&app.keys, timetable, user), token.hold)),
        key: key.clone(),
        method: request.payment.method,
        coupon,
        performance: sale.plan.performance_id,
        may_order: passed.is_ok(),
        needs_pass: sale.has_queue,
    };
    let ended = purchase::purchase(Arc::clone(&app.node), purchase).await?;
    match ended {
        Ended::Confirmed { order, replayed } => Ok(made(&sale.plan, &order)?.again(replayed)),
        Ended::Answered => idempotency::stored(app, user, &key.key).await,
        Ended::KeyInUse => Err(Code::IdempotencyKeyInUse.into()),
        Ended::PassRequired => Err(passed.err().unwrap_or_else(queue_pass::required)),
        Ended::GatewayUnavailable => Err(Problem::new(Code::PaymentGatewayUnavailable)
            .detail("no card gateway is configured on this server")
            .retry_after(60)),
        Ended::Timetable(refusal) => Err(timetable_refusal(&sale.plan, refusal)),
        Ended::Account(refusal) => Err(account_refusal(&refusal)),
        Ended::Coupon(refusal) => Err(coupon_refusal(&refusal)),
    }
}

/// The coupon whose claim the buyer wants to use.
async fn coupon_to_use(
    app: &App,
    user: UserId,
    request: &OrderRequest,
) -> Answer<Option<CouponId>> {
    let Some(claim) = request.coupon_claim_id else {
        return Ok(None);
    };
    let coupon = app.node.store.coupon_of_claim(user, claim).await?;
    if coupon.is_none() {
        let refusal = Refusal::NotUsable(Unusable::NotClaimed);
        return Err(coupon_refusal(&refusal));
    }
    Ok(coupon)
}

fn made(plan: &Plan, order: &Order) -> Answer<Stored> {
    Stored::json(StatusCode::CREATED, &OrderAnswer::made(plan, order))
}

/// The timetable to buy on, or why nothing can be bought whatever its state.
async fn timetable_to_buy_on(
    app: &App,
    user: UserId,
    request: &OrderRequest,
    token: Option<&HoldToken>,
) -> Answer<TimetableId> {
    let timetable = match token {
        Some(token) if token.user == user => token.timetable,
        // Somebody else's hold, token or not.
        Some(_) => return Err(Code::HoldNotFound.into()),
        None => holds::timetable_of(app, request.hold_id, user).await?,
    };
    let plan = app.plan(timetable)?;
    if plan.currency != Currency::KRW {
        return Err(Problem::new(Code::CurrencyMismatch)
            .with("wallet_currency", Currency::KRW.as_str())
            .with("currency", plan.currency.as_str()));
    }
    Ok(timetable)
}

/// The timetable of a confirmed order.
async fn order_timetable(app: &App, user: UserId, order: &Order) -> Answer<TimetableId> {
    let row = app.node.store.order_of(user, order.id).await?;
    row.map(|row| row.timetable)
        .ok_or_else(|| Problem::internal_text("a confirmed order is not stored"))
}

/// Which orders are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct OrdersQuery {
    /// Made at this time or later.
    from: Option<Timestamp>,
    /// Made before this time.
    to: Option<Timestamp>,
    /// With this status.
    status: Option<String>,
    #[allow(dead_code, reason = "read by Page")]
    limit: Option<String>,
    #[allow(dead_code, reason = "read by Page")]
    cursor: Option<String>,
}

const STATUSES: [&str; 5] = [
    "awaiting_payment",
    "confirmed",
    "cancelled",
    "payment_failed",
    "expired",
];

/// The caller's orders, newest first.
#[utoipa::path(get, path = "/api/v1/orders", tag = "orders", params(OrdersQuery),
    responses((status = 200, body = List<OrderAnswer>)))]
pub async fn list(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    page: Page,
    Query(query): Query<OrdersQuery>,
) -> Answer<Json<List<OrderAnswer>>> {
    if query
        .status
        .as_deref()
        .is_some_and(|status| !STATUSES.contains(&status))
    {
        return Err(Problem::invalid_field(
            "status",
            format!("one of {}", STATUSES.join(", ")),
        ));
    }
    let filter = OrderFilter {
        from: query.from,
        to: query.to,
        status: query.status,
        after: page.after::<OrderId>()?,
        limit: page.limit + 1,
    };
    let rows = app.node.store.orders_of(caller.user_id, filter).await?;
    let answers = rows
        .into_iter()
        .map(|row| Ok(OrderAnswer::stored(&*app.plan_of_past(row.timetable)?, row)))
        .collect::<Answer<Vec<_>>>()?;
    Ok(Json(List::page(answers, &page, |order| order.order_id)))
}

/// An order of the caller.
#[utoipa::path(get, path = "/api/v1/orders/{order_id}", tag = "orders", params(("order_id" = OrderId, Path)),
    responses((status = 200, body = OrderAnswer)))]
pub async fn find(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(id): Path<OrderId>,
) -> Answer<Json<OrderAnswer>> {
    let row = app.node.store.order_of(caller.user_id, id).await?;
    let row = row.ok_or_else(|| Problem::new(Code::OrderNotFound))?;
    let plan = app.plan_of_past(row.timetable)?;
    Ok(Json(OrderAnswer::stored(&plan, row)))
}

/// A payment, with the order that it is for.
#[derive(Debug, Serialize, ToSchema)]
pub struct PaymentDetails {
    payment_id: PaymentId,
    order_id: OrderId,
    method: &'static str,
    status: &'static str,
    amount: Money,
    #[schema(value_type = String, example = "KRW")]
    currency: Currency,
}

/// A payment of the caller.
#[utoipa::path(get, path = "/api/v1/payments/{payment_id}", tag = "orders",
    params(("payment_id" = PaymentId, Path)), responses((status = 200, body = PaymentDetails)))]
pub async fn payment(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(id): Path<PaymentId>,
) -> Answer<Json<PaymentDetails>> {
    let row = app.node.store.order_of_payment(caller.user_id, id).await?;
    let row = row.ok_or_else(|| Problem::new(Code::PaymentNotFound))?;
    let plan = app.plan_of_past(row.timetable)?;
    let order = OrderAnswer::stored(&plan, row);
    Ok(Json(PaymentDetails {
        payment_id: order.payment.payment_id,
        order_id: order.order_id,
        method: order.payment.method,
        status: order.payment.status,
        amount: order.amount,
        currency: order.currency,
    }))
}
