//! The layout of a date with its prices.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;

use super::answers::LayoutDocument;
use crate::app::App;
use crate::domain::ids::TimetableId;
use crate::http::error::{Answer, Code};
use crate::http::etag::conditional;
use crate::http::extract::Path;

/// Show the seats of a date
///
/// In the order of the seat map's characters. It changes only with prices.
#[utoipa::path(get, path = "/api/v1/timetables/{timetable_id}/layout", operation_id = "show_layout",
    tag = "catalogue", params(("timetable_id" = TimetableId, Path)),
    responses((status = 200, body = LayoutDocument), (status = 304, description = "not modified"),
        (status = 404, description = "`timetable-not-found`")))]
pub(super) async fn layout(
    State(app): State<Arc<App>>,
    Path(id): Path<TimetableId>,
    headers: HeaderMap,
) -> Answer<Response> {
    let found = app
        .catalogue
        .public_timetable(id)
        .ok_or(Code::TimetableNotFound)?;
    let (performance, timetable) = found;
    let fresh = HeaderValue::from_static("no-cache");
    let mut length = 0;
    let mut response = conditional(&headers, &performance.layout_etag, fresh, || {
        let head = Bytes::from(format!("{{\"timetable_id\":\"{id}\""));
        let tail = app.catalogue.layout_tail(&performance, &timetable);
        length = head.len() + tail.len();
        // The tail, megabytes, is shared by all dates and never copied.
        let parts = [Ok::<_, Infallible>(head), Ok(tail)];
        let body = Body::from_stream(futures_util::stream::iter(parts));
        (HeaderValue::from_static("application/json"), body)
    });
    if response.status() == StatusCode::OK {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}
