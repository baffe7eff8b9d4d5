//! The figures that anybody may see.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::SeatsAnswer;
use crate::app::{App, unexpected};
use crate::domain::ids::PerformanceId;
use crate::domain::queue::{Command, Reply, Summary};
use crate::http::error::Answer;
use crate::http::etag::public_json;
use crate::http::extract::Path;

/// The figures of a waiting room.
#[derive(Debug, Serialize, ToSchema)]
pub struct SummaryAnswer {
    waiting: u32,
    /// With a pass.
    active: u32,
    /// Ever.
    admitted_total: u64,
    /// As measured.
    admission_per_second: f64,
    /// Of who joins now; null if nobody enters.
    #[schema(required = true)]
    estimated_wait_seconds: Option<u32>,
    paused: bool,
    /// No newcomers are taken.
    draining: bool,
    seats: SeatsAnswer,
}

impl From<Summary> for SummaryAnswer {
    fn from(summary: Summary) -> Self {
        Self {
            waiting: summary.waiting,
            active: summary.active,
            admitted_total: summary.admitted_total,
            admission_per_second: summary.admission_per_second,
            estimated_wait_seconds: summary.estimated_wait_seconds,
            paused: summary.paused,
            draining: summary.draining,
            seats: summary.seats.into(),
        }
    }
}

/// The figures of the queue of a performance.
///
/// # Errors
/// 503 if they can't be told now.
pub async fn read(app: &App, id: PerformanceId) -> Answer<SummaryAnswer> {
    match app.ask_queue(id, Command::Summary).await? {
        Reply::Summary(summary) => Ok(summary.into()),
        other => Err(unexpected(&other)),
    }
}

/// The figures of a waiting room
#[utoipa::path(get, path = "/api/v1/performances/{performance_id}/queue/summary",
    operation_id = "queue_summary", tag = "waiting room",
    params(("performance_id" = PerformanceId, Path)),
    responses((status = 200, body = SummaryAnswer), (status = 304, description = "not modified"),
        (status = 404, description = "`performance-not-found`, `queue-not-found`")))]
pub(super) async fn summary(
    State(app): State<Arc<App>>,
    Path(id): Path<PerformanceId>,
    headers: HeaderMap,
) -> Answer<Response> {
    app.check_queue(id)?;
    public_json(&headers, &read(&app, id).await?)
}
