//! Posters that were uploaded.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::App;
use crate::domain::ids::PerformanceId;
use crate::http::error::{Answer, Code};
use crate::http::etag::{PUBLIC, conditional};
use crate::http::extract::{Path, Query};

/// A year: the picture behind a version never changes.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Which poster.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PosterQuery {
    /// Its version, as in `poster_url`.
    v: Option<String>,
}

/// Show the poster of a performance
///
/// The one that was uploaded last.
#[utoipa::path(get, path = "/api/v1/performances/{performance_id}/poster", operation_id = "show_poster",
    tag = "catalogue", params(("performance_id" = PerformanceId, Path), PosterQuery),
    responses((status = 200, description = "a picture", content_type = "image/*"),
        (status = 304, description = "not modified"), (status = 404, description = "`not-found`")))]
pub(super) async fn poster(
    State(app): State<Arc<App>>,
    Path(id): Path<PerformanceId>,
    Query(query): Query<PosterQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    let poster = app.catalogue.poster(id).await?.ok_or(Code::NotFound)?;
    let is_version = query.v.as_ref() == Some(&poster.version);
    let cache_control = if is_version { FOREVER } else { PUBLIC };
    let etag = format!("\"{}\"", poster.version);
    let mut response = conditional(&headers, &etag, cache_control, || {
        let octets = HeaderValue::from_static("application/octet-stream");
        let media_type = HeaderValue::from_str(&poster.media_type).unwrap_or(octets);
        (media_type, Body::from(poster.bytes))
    });
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    Ok(response)
}
