//! Dates of a performance.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::{caller, created, tell_actors};
use crate::app::App;
use crate::catalogue::Made;
use crate::catalogue::request::TimetableRequest;
use crate::domain::ids::PerformanceId;
use crate::http::auth::Organizer;
use crate::http::catalogue::answers::TimetableDetail;
use crate::http::error::Answer;
use crate::http::extract::Path;
use crate::http::idempotency::Keyed;

/// Add a date to a performance
#[utoipa::path(post, path = "/api/v1/admin/performances/{performance_id}/timetables",
    operation_id = "add_timetable", tag = "administration", security(("bearer" = [])),
    params(("performance_id" = PerformanceId, Path)), request_body = TimetableRequest,
    responses((status = 201, body = TimetableDetail),
        (status = 401, description = "`unauthorized`"), (status = 403, description = "`forbidden`"),
        (status = 404, description = "`performance-not-found`"),
        (status = 422, description = "`invalid-request`")))]
pub(super) async fn add(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    Path(id): Path<PerformanceId>,
    body: Keyed<TimetableRequest>,
) -> Answer<Response> {
    let (body, key, request) = body.of(identity.user_id);
    let (this, caller, row_key) = (Arc::clone(&app), caller(&identity), key.clone());
    created(&app, key, request, async move {
        let now = this.clock.now();
        let made = this
            .catalogue
            .add_timetable(caller, id, body, row_key, now)
            .await?;
        let (performance, timetable) = made.value;
        tell_actors(&this, &performance);
        let value = TimetableDetail::new(&performance, &timetable, now, &|id| this.seats_of(id));
        Ok(Made {
            value,
            replayed: made.replayed,
        })
    })
    .await
}
