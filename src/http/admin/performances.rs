//! Performances.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::{caller, created, tell_actors};
use crate::app::App;
use crate::catalogue::request::{PerformancePatch, PerformanceRequest};
use crate::catalogue::{Made, Performance};
use crate::domain::ids::{PerformanceId, UserId};
use crate::domain::queue::policy::{PolicyRequest, QueuePolicy};
use crate::domain::time::Timestamp;
use crate::http::auth::Organizer;
use crate::http::catalogue::answers::PerformanceDetail;
use crate::http::error::Answer;
use crate::http::extract::{Json, List, NoBody, POSTER_BYTES_MAX, Page, Path, RawBody, cursor};
use crate::http::idempotency::Keyed;

/// A performance, with what only its organizer sees.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AdministeredPerformance {
    #[serde(flatten)]
    performance: PerformanceDetail,
    /// The whole policy of its waiting room; null without one.
    #[schema(required = true)]
    queue_policy: Option<QueuePolicy>,
    owner_id: UserId,
    draft: bool,
    created_at: Timestamp,
    #[schema(required = true)]
    deleted_at: Option<Timestamp>,
}

impl AdministeredPerformance {
    fn new(app: &App, performance: &Performance) -> Self {
        let row = &performance.row;
        Self {
            performance: PerformanceDetail::new(performance, app.clock.now(), &|id| {
                app.seats_of(id)
            })
            .with_commitment(app.draws.commitment(row.id)),
            queue_policy: row.queue,
            owner_id: row.owner,
            draft: row.draft,
            created_at: row.created_at,
            deleted_at: row.deleted_at,
        }
    }
}

/// Make a performance
#[utoipa::path(post, path = "/api/v1/admin/performances", operation_id = "create_performance",
    tag = "administration", security(("bearer" = [])), request_body = PerformanceRequest,
    responses((status = 201, body = AdministeredPerformance),
        (status = 401, description = "`unauthorized`"), (status = 403, description = "`forbidden`"),
        (status = 404, description = "`venue-not-found`"),
        (status = 422, description = "`invalid-request`")))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    body: Keyed<PerformanceRequest>,
) -> Answer<Response> {
    let (body, key, request) = body.of(identity.user_id);
    let (this, caller, row_key) = (Arc::clone(&app), caller(&identity), key.clone());
    created(&app, key, request, async move {
        let now = this.clock.now();
        let made = this
            .catalogue
            .create_performance(caller, body, row_key, now)
            .await?;
        tell_actors(&this, &made.value);
        // The hash of a lottery's seed is public from the beginning.
        let _ = this.commitment(&made.value).await;
        let value = AdministeredPerformance::new(&this, &made.value);
        Ok(Made {
            value,
            replayed: made.replayed,
        })
    })
    .await
}

/// List the performances that one administers
///
/// The newest first, drafts and deleted ones too.
#[utoipa::path(get, path = "/api/v1/admin/performances", operation_id = "list_administered_performances",
    tag = "administration", security(("bearer" = [])),
    params(("limit" = Option<u32>, Query, description = "How many at most: 1 to 100, by default 20"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")),
    responses((status = 200, body = List<AdministeredPerformance>),
        (status = 401, description = "`unauthorized`"), (status = 403, description = "`forbidden`")))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    page: Page,
) -> Answer<Json<List<AdministeredPerformance>>> {
    let before = page.after::<PerformanceId>()?;
    let limit = page.limit as usize;
    let mut found = app
        .catalogue
        .administered(caller(&identity), before, limit + 1);
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| more).map(|last| cursor(&last.id()));
    let items = found
        .iter()
        .map(|performance| AdministeredPerformance::new(&app, performance));
    Ok(Json(List {
        items: items.collect(),
        next_cursor,
    }))
}

/// Change a performance
///
/// What is not given stays. After the first sale only title, description,
/// cast, category, poster, closing time, limits and the prices of grades can
/// be changed; holds and orders keep their prices.
#[utoipa::path(patch, path = "/api/v1/admin/performances/{performance_id}",
    operation_id = "change_performance", tag = "administration", security(("bearer" = [])),
    params(("performance_id" = PerformanceId, Path)), request_body = PerformancePatch,
    responses((status = 200, body = AdministeredPerformance),
        (status = 401, description = "`unauthorized`"), (status = 403, description = "`forbidden`"),
        (status = 404, description = "`performance-not-found`"),
        (status = 409, description = "`performance-has-orders`"),
        (status = 422, description = "`invalid-request`")))]
pub(super) async fn change(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    Path(id): Path<PerformanceId>,
    Json(patch): Json<PerformancePatch>,
) -> Answer<Json<AdministeredPerformance>> {
    let now = app.clock.now();
    let changed = app
        .catalogue
        .patch_performance(caller(&identity), id, patch, now)
        .await?;
    tell_actors(&app, &changed);
    let _ = app.commitment(&changed).await;
    Ok(Json(AdministeredPerformance::new(&app, &changed)))
}

/// Delete a performance
///
/// Its dates are closed; what was sold stays sold. It can be restored.
#[utoipa::path(delete, path = "/api/v1/admin/performances/{performance_id}",
    operation_id = "delete_performance", tag = "administration", security(("bearer" = [])),
    params(("performance_id" = PerformanceId, Path)),
    responses((status = 204, description = "deleted"), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`performance-not-found`")))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    Path(id): Path<PerformanceId>,
) -> Answer<StatusCode> {
    let now = app.clock.now();
    let deleted = app
        .catalogue
        .set_deleted(caller(&identity), id, true, now)
        .await?;
    tell_actors(&app, &deleted);
    Ok(StatusCode::NO_CONTENT)
}

/// Restore a deleted performance
#[utoipa::path(post, path = "/api/v1/admin/performances/{performance_id}/restore",
    operation_id = "restore_performance", tag = "administration", security(("bearer" = [])),
    params(("performance_id" = PerformanceId, Path)),
    responses((status = 200, body = AdministeredPerformance),
        (status = 401, description = "`unauthorized`"), (status = 403, description = "`forbidden`"),
        (status = 404, description = "`performance-not-found`")))]
pub(super) async fn restore(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    Path(id): Path<PerformanceId>,
    NoBody: NoBody,
) -> Answer<Json<AdministeredPerformance>> {
    let now = app.clock.now();
    let restored = app
        .catalogue
        .set_deleted(caller(&identity), id, false, now)
        .await?;
    tell_actors(&app, &restored);
    Ok(Json(AdministeredPerformance::new(&app, &restored)))
}

/// Upload a poster
///
/// A PNG, JPEG or WebP picture of at most 5 MiB, as the body; told by its first
/// bytes. `poster_url` points to it then.
#[utoipa::path(put, path = "/api/v1/admin/performances/{performance_id}/poster",
    operation_id = "put_poster", tag = "administration", security(("bearer" = [])),
    params(("performance_id" = PerformanceId, Path)),
    request_body(content = Vec<u8>, content_type = "image/*"),
    responses((status = 200, body = AdministeredPerformance),
        (status = 401, description = "`unauthorized`"), (status = 403, description = "`forbidden`"),
        (status = 404, description = "`performance-not-found`"),
        (status = 413, description = "`payload-too-large`"),
        (status = 415, description = "`unsupported-media-type`")))]
pub(super) async fn put_poster(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    Path(id): Path<PerformanceId>,
    RawBody { bytes, .. }: RawBody<POSTER_BYTES_MAX>,
) -> Answer<Json<AdministeredPerformance>> {
    let now = app.clock.now();
    let changed = app
        .catalogue
        .put_poster(caller(&identity), id, bytes, now)
        .await?;
    Ok(Json(AdministeredPerformance::new(&app, &changed)))
}

/// Set the policy of a performance's waiting room
///
/// A policy, a preset, or null for none. Answers the policy, complete.
#[utoipa::path(put, path = "/api/v1/admin/performances/{performance_id}/queue",
    operation_id = "put_queue_policy", tag = "administration", security(("bearer" = [])),
    params(("performance_id" = PerformanceId, Path)), request_body = Option<PolicyRequest>,
    responses((status = 200, body = Option<QueuePolicy>),
        (status = 401, description = "`unauthorized`"), (status = 403, description = "`forbidden`"),
        (status = 404, description = "`performance-not-found`"),
        (status = 422, description = "`invalid-request`")))]
pub(super) async fn put_queue(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    Path(id): Path<PerformanceId>,
    Json(policy): Json<Option<PolicyRequest>>,
) -> Answer<Json<Option<QueuePolicy>>> {
    let now = app.clock.now();
    let changed = app
        .catalogue
        .set_queue(caller(&identity), id, policy, now)
        .await?;
    tell_actors(&app, &changed);
    let _ = app.commitment(&changed).await;
    Ok(Json(changed.row.queue))
}
