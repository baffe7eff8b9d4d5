//! Asking where one stands.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::{QueueState, TicketShown};
use crate::app::{App, unexpected};
use crate::domain::ids::PerformanceId;
use crate::domain::queue::{Command, Reply};
use crate::http::auth::SignedIn;
use crate::http::error::Answer;
use crate::http::extract::{Json, Path};

/// Where the caller stands
///
/// A sign of life. A ticket in `Queue-Ticket` restores a place that the server
/// has lost.
#[utoipa::path(get, path = "/api/v1/performances/{performance_id}/queue", operation_id = "queue_state",
    tag = "waiting room", security(("bearer" = [])),
    params(("performance_id" = PerformanceId, Path), ("Queue-Ticket" = Option<String>, Header)),
    responses((status = 200, body = QueueState,
            headers(("Retry-After" = u32, description = "as `poll_after_seconds`"))),
        (status = 401, description = "`unauthorized`"),
        (status = 404, description = "`performance-not-found`, `queue-not-found`, `not-in-queue`"),
        (status = 422, description = "`invalid-request`: a ticket that isn't one"),
        (status = 429, description = "`rate-limited`")))]
pub(super) async fn state(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(id): Path<PerformanceId>,
    shown: TicketShown,
) -> Answer<Response> {
    let user = caller.user_id;
    app.rates.queue.check(user)?;
    app.check_queue(id)?;
    let claim = shown.claim(&app, id, user)?;
    match app.ask_queue(id, Command::State { user, claim }).await? {
        Reply::Standing(standing) => {
            let wait = [(header::RETRY_AFTER, standing.poll_after_seconds.to_string())];
            let state = QueueState::new(&app, id, user, &standing);
            Ok((wait, Json(state)).into_response())
        }
        other => Err(unexpected(&other)),
    }
}
