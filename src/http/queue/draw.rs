//! The opening by lot, for anyone to check.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::ids::PerformanceId;
use crate::http::error::Answer;
use crate::http::etag::{PUBLIC, conditional};
use crate::http::extract::Path;

/// A draw. It only describes what is written.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(super) struct DrawDocument {
    /// SHA-256 of the seed, in hexadecimal; public before the first joiner.
    commitment: String,
    /// In hexadecimal; null until the draw is stored.
    #[schema(required = true)]
    seed: Option<String>,
    /// Always null: nothing but the seed is part of the key.
    #[schema(required = true)]
    beacon: Option<String>,
    /// SHA-256 of the ids of all tickets, ascending; null until the draw is
    /// stored.
    #[schema(required = true)]
    entrants_hash: Option<String>,
    /// In the order of their numbers.
    entrants: Vec<EntrantDocument>,
}

#[derive(ToSchema)]
#[allow(dead_code)]
struct EntrantDocument {
    ticket_id: uuid::Uuid,
    number: u32,
}

/// The draw of a lottery
///
/// All that anyone needs to make every number again.
#[utoipa::path(get, path = "/api/v1/performances/{performance_id}/queue/draw",
    operation_id = "queue_draw", tag = "waiting room",
    params(("performance_id" = PerformanceId, Path)),
    responses((status = 200, body = DrawDocument), (status = 304, description = "not modified"),
        (status = 404, description = "`performance-not-found`, `queue-not-found`; `not-found`: there is no lottery")))]
pub(super) async fn draw(
    State(app): State<Arc<App>>,
    Path(id): Path<PerformanceId>,
    headers: HeaderMap,
) -> Answer<Response> {
    app.check_queue(id)?;
    let (etag, body) = app.published_draw(id).await?;
    let json = HeaderValue::from_static("application/json");
    Ok(conditional(&headers, &etag, PUBLIC, || {
        (json, Body::from(body))
    }))
}
