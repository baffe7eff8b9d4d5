//! Giving a place, or a pass, up.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use crate::app::App;
use crate::domain::ids::PerformanceId;
use crate::domain::queue::Command;
use crate::http::auth::SignedIn;
use crate::http::error::Answer;
use crate::http::extract::Path;

/// Leave the waiting room
///
/// Ends a pass, too; who is next enters. A second time is answered like the
/// first.
#[utoipa::path(delete, path = "/api/v1/performances/{performance_id}/queue", operation_id = "leave_queue",
    tag = "waiting room", security(("bearer" = [])), params(("performance_id" = PerformanceId, Path)),
    responses((status = 204, description = "left"), (status = 401, description = "`unauthorized`"),
        (status = 404, description = "`performance-not-found`, `queue-not-found`")))]
pub(super) async fn leave(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(id): Path<PerformanceId>,
) -> Answer<StatusCode> {
    app.check_queue(id)?;
    let user = caller.user_id;
    app.ask_queue(id, Command::Leave { user }).await?;
    Ok(StatusCode::NO_CONTENT)
}
