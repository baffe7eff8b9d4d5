//! What operators do with a waiting room while it runs.

use std::sync::Arc;

use axum::extract::State;

use super::caller;
use crate::app::App;
use crate::domain::ids::PerformanceId;
use crate::domain::queue::Command;
use crate::http::auth::Organizer;
use crate::http::error::{Answer, Code};
use crate::http::extract::{Json, NoBody, Path};
use crate::http::queue::summary::{self, SummaryAnswer};
use crate::http::tokens::Identity;

/// Pause admissions
///
/// Nobody enters until they are resumed; everybody keeps their place.
#[utoipa::path(post, path = "/api/v1/admin/performances/{performance_id}/queue/pause",
    operation_id = "pause_queue", tag = "administration", security(("bearer" = [])),
    params(("performance_id" = PerformanceId, Path)),
    responses((status = 200, body = SummaryAnswer), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`performance-not-found`, `queue-not-found`")))]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    Path(id): Path<PerformanceId>,
    NoBody: NoBody,
) -> Answer<Json<SummaryAnswer>> {
    operate(&app, &identity, id, Command::Pause).await
}

/// Resume admissions
#[utoipa::path(post, path = "/api/v1/admin/performances/{performance_id}/queue/resume",
    operation_id = "resume_queue", tag = "administration", security(("bearer" = [])),
    params(("performance_id" = PerformanceId, Path)),
    responses((status = 200, body = SummaryAnswer), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`performance-not-found`, `queue-not-found`")))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    Path(id): Path<PerformanceId>,
    NoBody: NoBody,
) -> Answer<Json<SummaryAnswer>> {
    operate(&app, &identity, id, Command::Resume).await
}

/// Drain a waiting room
///
/// No newcomers are taken; who has a place keeps it and enters in turn.
#[utoipa::path(post, path = "/api/v1/admin/performances/{performance_id}/queue/drain",
    operation_id = "drain_queue", tag = "administration", security(("bearer" = [])),
    params(("performance_id" = PerformanceId, Path)),
    responses((status = 200, body = SummaryAnswer), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`performance-not-found`, `queue-not-found`")))]
pub(super) async fn drain(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    Path(id): Path<PerformanceId>,
    NoBody: NoBody,
) -> Answer<Json<SummaryAnswer>> {
    operate(&app, &identity, id, Command::Drain(true)).await
}

/// Take newcomers again
#[utoipa::path(delete, path = "/api/v1/admin/performances/{performance_id}/queue/drain",
    operation_id = "undrain_queue", tag = "administration", security(("bearer" = [])),
    params(("performance_id" = PerformanceId, Path)),
    responses((status = 200, body = SummaryAnswer), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`performance-not-found`, `queue-not-found`")))]
pub(super) async fn undrain(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    Path(id): Path<PerformanceId>,
) -> Answer<Json<SummaryAnswer>> {
    operate(&app, &identity, id, Command::Drain(false)).await
}

async fn operate(
    app: &App,
    identity: &Identity,
    id: PerformanceId,
    command: Command,
) -> Answer<Json<SummaryAnswer>> {
    let performance = app.catalogue.performance_of(caller(identity), id)?;
    if performance.row.queue.is_none() {
        return Err(Code::QueueNotFound.into());
    }
    if let Some(summary) = app.figures_if_over(id, &command).await? {
        return Ok(Json(summary.into()));
    }
    app.ask_queue(id, command).await?;
    summary::read(app, id).await.map(Json)
}
