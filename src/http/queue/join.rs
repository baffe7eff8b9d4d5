//! Taking a place.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use uuid::Uuid;

use super::{QueueState, TicketShown, door};
use crate::app::{App, unexpected};
use crate::domain::ids::{PerformanceId, QueueTicketId};
use crate::domain::queue::{Command, Reply};
use crate::http::auth::SignedIn;
use crate::http::error::Answer;
use crate::http::extract::Path;
use crate::http::idempotency::{self, KeyedNoBody, Stored};

/// Join the waiting room
///
/// Who has a place keeps it: joining twice never moves anyone. Where the
/// operator wants it, who has none shows a proof of work, the token of a human
/// check, or both.
#[utoipa::path(post, path = "/api/v1/performances/{performance_id}/queue", operation_id = "join_queue",
    tag = "waiting room", security(("bearer" = [])),
    params(("performance_id" = PerformanceId, Path), ("Queue-Ticket" = Option<String>, Header),
        ("Proof-Of-Work" = Option<String>, Header), ("Human-Check" = Option<String>, Header),
        ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, description = "a new place", body = QueueState),
        (status = 200, description = "the place that the caller had", body = QueueState),
        (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`proof-of-work-invalid`, `human-check-failed`"),
        (status = 404, description = "`performance-not-found`, `queue-not-found`"),
        (status = 409, description = "`queue-full`, `queue-closed`"),
        (status = 422, description = "`invalid-request`: a ticket that isn't one"),
        (status = 428, description = "`proof-of-work-required`, `human-check-required`"),
        (status = 429, description = "`rate-limited`"),
        (status = 503, description = "`human-check-unavailable`, `overloaded`")))]
pub(super) async fn join(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(id): Path<PerformanceId>,
    shown: TicketShown,
    at_the_door: door::Shown,
    body: KeyedNoBody,
) -> Answer<Response> {
    let user = caller.user_id;
    app.rates.queue.check(user)?;
    let (key, request) = body.of(user);
    let work = {
        let app = Arc::clone(&app);
        move || async move {
            app.check_queue(id)?;
            let claim = shown.claim(&app, id, user)?;
            let knocked = app.queue_door.knock(&app, (id, user), claim, &at_the_door);
            if let Some(standing) = knocked.await? {
                let state = QueueState::new(&app, id, user, &standing);
                return Stored::json(StatusCode::OK, &state);
            }
            let command = Command::Join {
                user,
                ticket: QueueTicketId(Uuid::now_v7()),
                claim,
            };
            let (standing, status) = match app.ask_queue(id, command).await? {
                Reply::Joined {
                    standing,
                    new: true,
                } => (standing, StatusCode::CREATED),
                Reply::Joined {
                    standing,
                    new: false,
                } => (standing, StatusCode::OK),
                other => return Err(unexpected(&other)),
            };
            Stored::json(status, &QueueState::new(&app, id, user, &standing))
        }
    };
    idempotency::once(&app, key, request, work).await
}
