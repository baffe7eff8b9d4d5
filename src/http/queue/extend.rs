//! Having a pass live longer.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::QueueState;
use crate::app::{App, unexpected};
use crate::domain::ids::PerformanceId;
use crate::domain::queue::{Command, Reply};
use crate::http::auth::SignedIn;
use crate::http::error::Answer;
use crate::http::extract::Path;
use crate::http::idempotency::{self, KeyedNoBody, Stored};

/// Renew one's pass
///
/// Where the policy allows it, and the caller holds seats. The new pass is in
/// the answer.
#[utoipa::path(post, path = "/api/v1/performances/{performance_id}/queue/extend",
    operation_id = "extend_queue_pass", tag = "waiting room", security(("bearer" = [])),
    params(("performance_id" = PerformanceId, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = QueueState), (status = 401, description = "`unauthorized`"),
        (status = 404, description = "`performance-not-found`, `queue-not-found`, `not-in-queue`"),
        (status = 409, description = "`nothing-to-extend`")))]
pub(super) async fn extend(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(id): Path<PerformanceId>,
    body: KeyedNoBody,
) -> Answer<Response> {
    let user = caller.user_id;
    let (key, request) = body.of(user);
    let work = {
        let app = Arc::clone(&app);
        move || async move {
            app.check_queue(id)?;
            let has_hold = app.has_holds(user, id).await?;
            match app
                .ask_queue(id, Command::Extend { user, has_hold })
                .await?
            {
                Reply::Standing(standing) => {
                    let state = QueueState::new(&app, id, user, &standing);
                    Stored::json(StatusCode::OK, &state)
                }
                other => Err(unexpected(&other)),
            }
        }
    };
    idempotency::once(&app, key, request, work).await
}
