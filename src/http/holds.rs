//! Holds: taking seats for a while, and giving them back.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::SignedIn;
use super::error::{Answer, Code, Problem};
use super::extract::{Json, List, Page, Path};
use super::hold_id;
use super::hold_token::HoldToken;
use super::idempotency::{self, Keyed, Stored};
use super::problems::timetable_refusal;
use super::queue_pass::{self, QueuePass};
use crate::app::App;
use crate::domain::ids::{HoldId, TimetableId, UserId};
use crate::domain::money::{Currency, Money};
use crate::domain::plan::{GradeIndex, Plan};
use crate::domain::seat::Seats;
use crate::domain::time::Timestamp;
use crate::domain::timetable::{Choice, Command, HoldView, NamedSeats, Refusal, Reply};

/// How many seats one request can ask for, in any way: the largest
/// `max_seats_per_user`.
const SEATS_MAX: u32 = 100_000;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(add_seats))
        .routes(routes!(find, release))
        .routes(routes!(drop_seat))
        .routes(routes!(mine))
}

/// Which seats are wanted: exactly one of the members.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// These very seats.
    seat_ids: Option<Vec<String>>,
    /// The best that are free.
    best_available: Option<BestAvailable>,
    /// Places in a section without numbered seats.
    general_admission: Option<GeneralAdmission>,
}

/// The best seats that are free.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BestAvailable {
    /// How many.
    count: u32,
    /// Of this grade only.
    grade: Option<String>,
    /// In this section only.
    section: Option<String>,
    /// Side by side in one row (the default), or as close as can be.
    adjacent: Option<bool>,
}

/// Places in a section without numbered seats.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GeneralAdmission {
    /// Which section.
    section: String,
    /// How many.
    count: u32,
}

/// A hold.
#[derive(Debug, Serialize, ToSchema)]
pub struct HoldAnswer {
    hold_id: HoldId,
    timetable_id: TimetableId,
    seats: Vec<HeldSeat>,
    amount: Money,
    #[schema(value_type = String, example = "KRW")]
    currency: Currency,
    expires_at: Timestamp,
    /// What is left of it, in milliseconds.
    expires_in_ms: i64,
    /// Restores the hold if the server loses it.
    hold_token: String,
}

/// A held seat at the price of that moment.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeldSeat {
    seat_id: String,
    grade: String,
    price: Money,
}

impl HoldAnswer {
    fn new(app: &App, plan: &Plan, user: UserId, hold: &HoldView) -> Self {
        let seats = hold.seats.iter().map(|priced| HeldSeat {
            seat_id: plan.layout.name_of(priced.seat).to_string(),
            grade: plan.grade_name(priced.seat).to_owned(),
            price: priced.price,
        });
        Self {
            hold_id: hold.id,
            timetable_id: plan.timetable_id,
            seats: seats.collect(),
            amount: crate::domain::order::total(&hold.seats),
            currency: plan.currency,
            expires_at: hold.expires_at,
            expires_in_ms: hold.expires_at.since(app.clock.now()).0.max(0),
            hold_token: HoldToken::of(user, plan.timetable_id, hold).sign(&app.keys),
        }
    }
}

/// Hold seats, all or nothing.
#[utoipa::path(post, path = "/api/v1/timetables/{timetable_id}/holds", tag = "holds",
    params(("timetable_id" = TimetableId, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = HoldRequest,
    responses((status = 201, body = HoldAnswer), (status = 409, description = "taken, or not on sale")))]
pub async fn create(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(id): Path<TimetableId>,
    pass: QueuePass,
    body: Keyed<HoldRequest>,
) -> Answer<Response> {
    let user = caller.user_id;
    app.rates.holds.check(user)?;
    let (body, key, request) = body.of(user);
    let work = {
        let app = Arc::clone(&app);
        move || async move {
            let sale = app.sale(id)?;
            let pass = queue_pass::check(&app, &sale, Some(user), &pass).await?;
            let under_pass = pass.is_some();
            let plan = sale.plan;
            let choice = choice(&plan, body)?;
            let hold = hold_id::new(&app.keys, id, user);
            let command = Command::Hold {
                hold,
                user,
                choice,
                under_pass,
            };
            let hold = ask_hold(&app, &plan, id, command).await;
            app.count_hold(&hold);
            Stored::json(
                StatusCode::CREATED,
                &HoldAnswer::new(&app, &plan, user, &hold?),
            )
        }
    };
    idempotency::once(&app, key, request, work).await
}

/// Add seats to a hold; its end stays.
#[utoipa::path(post, path = "/api/v1/holds/{hold_id}/seats", tag = "holds",
    params(("hold_id" = HoldId, Path)), request_body = HoldRequest,
    responses((status = 200, body = HoldAnswer)))]
pub async fn add_seats(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(hold): Path<HoldId>,
    pass: QueuePass,
    body: Keyed<HoldRequest>,
) -> Answer<Response> {
    let user = caller.user_id;
    let (body, key, request) = body.of(user);
    let work = {
        let app = Arc::clone(&app);
        move || async move {
            let id = timetable_of(&app, hold, user).await?;
            let sale = app.sale(id)?;
            queue_pass::check(&app, &sale, Some(user), &pass).await?;
            let plan = sale.plan;
            let choice = choice(&plan, body)?;
            let command = Command::AddSeats { hold, user, choice };
            let hold = ask_hold(&app, &plan, id, command).await?;
            Stored::json(StatusCode::OK, &HoldAnswer::new(&app, &plan, user, &hold))
        }
    };
    idempotency::once(&app, key, request, work).await
}

/// Read a hold.
#[utoipa::path(get, path = "/api/v1/holds/{hold_id}", tag = "holds", params(("hold_id" = HoldId, Path)),
    responses((status = 200, body = HoldAnswer), (status = 404, description = "not a live hold of yours")))]
pub async fn find(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(hold): Path<HoldId>,
) -> Answer<Json<HoldAnswer>> {
    let user = caller.user_id;
    let id = timetable_of(&app, hold, caller.user_id).await?;
    let plan = app.plan(id)?;
    let hold = ask_hold(&app, &plan, id, Command::FindHold { hold, user }).await?;
    Ok(Json(HoldAnswer::new(&app, &plan, user, &hold)))
}

/// Give a hold back; a second time is answered like the first.
#[utoipa::path(delete, path = "/api/v1/holds/{hold_id}", tag = "holds", params(("hold_id" = HoldId, Path)),
    responses((status = 204, description = "released")))]
pub async fn release(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(hold): Path<HoldId>,
) -> Answer<StatusCode> {
    let user = caller.user_id;
    // One of the caller's that nobody remembers is over, as asked.
    let is_over = || hold_id::is_of(&app.keys, hold, user);
    let id = match timetable_of(&app, hold, user).await {
        Err(problem) if problem.code() == Code::HoldNotFound && is_over() => {
            return Ok(StatusCode::NO_CONTENT);
        }
        found => found?,
    };
    let plan = app.plan(id)?;
    let command = Command::Release { hold, user };
    match app.node.timetables.ask(id.0, command).await? {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(Refusal::HoldNotFound) if is_over() => Ok(StatusCode::NO_CONTENT),
        Err(refusal) => Err(timetable_refusal(&plan, refusal)),
    }
}

/// Give one seat of a hold back.
#[utoipa::path(delete, path = "/api/v1/holds/{hold_id}/seats/{seat_id}", tag = "holds",
    params(("hold_id" = HoldId, Path), ("seat_id" = String, Path)),
    responses((status = 200, body = HoldAnswer), (status = 204, description = "it was the last one")))]
pub async fn drop_seat(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path((hold, name)): Path<(HoldId, String)>,
) -> Answer<Response> {
    let user = caller.user_id;
    let id = timetable_of(&app, hold, caller.user_id).await?;
    let plan = app.plan(id)?;
    let seat = plan.layout.seat_named(&name).ok_or_else(|| {
        Problem::new(Code::UnknownSeat).with("seat_ids", serde_json::json!([name]))
    })?;
    match app
        .node
        .timetables
        .ask(id.0, Command::DropSeat { hold, user, seat })
        .await?
    {
        Ok(Reply::Hold(hold)) => {
            Ok(Json(HoldAnswer::new(&app, &plan, user, &hold)).into_response())
        }
        Ok(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(refusal) => Err(timetable_refusal(&plan, refusal)),
    }
}

/// The caller's live holds, oldest first.
#[utoipa::path(get, path = "/api/v1/me/holds", tag = "holds", responses((status = 200, body = List<HoldAnswer>)))]
pub async fn mine(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    page: Page,
) -> Answer<Json<List<HoldAnswer>>> {
    let user = caller.user_id;
    let after = page.after::<HoldId>()?;
    let mut ids = app.holds_of(user).await?;
    ids.retain(|(hold, _)| after.is_none_or(|after| *hold > after));
    let mut holds = Vec::new();
    for (hold, id) in ids {
        if holds.len() > page.limit as usize {
            break;
        }
        let Ok(plan) = app.plan(id) else { continue };
        match ask_hold(&app, &plan, id, Command::FindHold { hold, user }).await {
            Ok(hold) => holds.push(HoldAnswer::new(&app, &plan, user, &hold)),
            // It ended in between.
            Err(problem) if problem.code().status().is_client_error() => {}
            Err(problem) => return Err(problem),
        }
    }
    Ok(Json(List::page(holds, &page, |hold| hold.hold_id)))
}

async fn ask_hold(app: &App, plan: &Plan, id: TimetableId, command: Command) -> Answer<HoldView> {
    match app.node.timetables.ask(id.0, command).await? {
        Ok(Reply::Hold(hold)) => Ok(hold),
        Ok(_) => Err(Code::HoldNotFound.into()),
        Err(refusal) => Err(timetable_refusal(plan, refusal)),
    }
}

/// The timetable that a hold is, or was lately, on.
pub(super) async fn timetable_of(app: &App, hold: HoldId, user: UserId) -> Answer<TimetableId> {
    app.timetable_of_hold(hold, user)
        .await?
        .ok_or_else(|| Code::HoldNotFound.into())
}

fn choice(plan: &Plan, request: HoldRequest) -> Answer<Choice> {
    let HoldRequest {
        seat_ids,
        best_available,
        general_admission,
    } = request;
    match (seat_ids, best_available, general_admission) {
        (Some(names), None, None) => named(plan, &names),
        (None, Some(best), None) => best_choice(plan, &best),
        (None, None, Some(units)) => {
            check_count("general_admission.count", units.count)?;
            let section = plan
                .layout
                .section_named(&units.section)
                .ok_or(units.section);
            Ok(Choice::Units {
                section,
                count: units.count,
            })
        }
        _ => Err(Problem::invalid_field(
            "",
            "exactly one of seat_ids, best_available and general_admission",
        )),
    }
}

fn named(plan: &Plan, names: &[String]) -> Answer<Choice> {
    let NamedSeats { seats, unknown } = named_seats(plan, names)?;
    Ok(Choice::Seats { seats, unknown })
}

/// The seats in `seat_ids`: at least one, each named once.
pub(super) fn named_seats(plan: &Plan, names: &[String]) -> Answer<NamedSeats> {
    if names.is_empty() {
        return Err(Problem::invalid_field("seat_ids", "at least one seat"));
    }
    let mut seats = Seats::with_capacity(names.len());
    let mut unknown = Vec::new();
    for name in names {
        match plan.layout.seat_named(name) {
            Some(seat) => seats.push(seat),
            None => unknown.push(name.clone()),
        }
    }
    let mut sorted = seats.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != seats.len() {
        return Err(Problem::invalid_field("seat_ids", "a seat is named twice"));
    }
    Ok(NamedSeats { seats, unknown })
}

fn best_choice(plan: &Plan, best: &BestAvailable) -> Answer<Choice> {
    check_count("best_available.count", best.count)?;
    let grade = best.grade.as_deref().map(|name| {
        (0u8..)
            .zip(&plan.grades)
            .find(|(_, grade)| grade.name == name)
            .map(|(index, _)| GradeIndex(index))
            .ok_or_else(|| Problem::invalid_field("best_available.grade", "no such grade"))
    });
    let section = best.section.as_deref().map(|name| {
        plan.layout
            .section_named(name)
            .ok_or_else(|| Problem::invalid_field("best_available.section", "no such section"))
    });
    Ok(Choice::Best {
        count: best.count,
        grade: grade.transpose()?,
        section: section.transpose()?,
        adjacent: best.adjacent.unwrap_or(true),
    })
}

fn check_count(field: &'static str, count: u32) -> Answer<()> {
    if (1..=SEATS_MAX).contains(&count) {
        Ok(())
    } else {
        Err(Problem::invalid_field(
            field,
            format!("from 1 to {SEATS_MAX}"),
        ))
    }
}
