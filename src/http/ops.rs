//! Whether the program lives, whether it can serve, and what it measures. At the
//! root, without sign-in; on a listener of their own where `ops.listen` is set.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde::Serialize;

use super::extract::Json;
use crate::app::App;
use crate::telemetry;

/// The answer of `GET /readyz`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Readiness {
    /// Whether requests should be sent here.
    pub ready: bool,
    /// What can't be done at the moment, or only by a detour; the latter alone
    /// doesn't make it unready.
    pub reasons: Vec<String>,
}

/// `GET /healthz`, `GET /readyz`, `GET /metrics`.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, description = "The process lives")))]
pub async fn healthz() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        "ok\n",
    )
}

/// Whether requests should be sent here.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses(
    (status = 200, description = "It serves", body = Readiness),
    (status = 503, description = "It can't serve, or is shutting down", body = Readiness),
))]
pub async fn readyz(State(app): State<Arc<App>>) -> impl IntoResponse {
    let mut reasons = app.readiness();
    let ready = reasons.is_empty();
    reasons.extend(app.degradations());
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Readiness { ready, reasons }))
}

/// What is measured, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "Prometheus text format")))]
pub async fn metrics() -> impl IntoResponse {
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        telemetry::render(),
    )
}
