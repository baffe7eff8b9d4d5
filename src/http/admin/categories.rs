//! Categories. They are made by their first performance.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::http::auth::Admin;
use crate::http::catalogue::answers::CategoryAnswer;
use crate::http::error::Answer;
use crate::http::extract::{Json, Path};

/// What a category is to be called.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CategoryPatch {
    /// If there is one of this name, they become one.
    #[schema(pattern = "^[a-z0-9-]{1,40}$")]
    category: String,
}

/// Rename a category
#[utoipa::path(patch, path = "/api/v1/admin/categories/{category}", operation_id = "rename_category",
    tag = "administration", security(("bearer" = [])), params(("category" = String, Path)),
    request_body = CategoryPatch,
    responses((status = 200, body = CategoryAnswer), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"), (status = 404, description = "`category-not-found`"),
        (status = 422, description = "`invalid-request`")))]
pub(super) async fn rename(
    State(app): State<Arc<App>>,
    _: Admin,
    Path(from): Path<String>,
    Json(CategoryPatch { category }): Json<CategoryPatch>,
) -> Answer<Json<CategoryAnswer>> {
    let now = app.clock.now();
    let performances = app
        .catalogue
        .rename_category(from, category.clone(), now)
        .await?;
    Ok(Json(CategoryAnswer {
        category,
        performances,
    }))
}

/// Delete a category
///
/// Only one that no performance is filed under.
#[utoipa::path(delete, path = "/api/v1/admin/categories/{category}", operation_id = "delete_category",
    tag = "administration", security(("bearer" = [])), params(("category" = String, Path)),
    responses((status = 204, description = "deleted"), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"), (status = 404, description = "`category-not-found`"),
        (status = 409, description = "`category-in-use`")))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    _: Admin,
    Path(category): Path<String>,
) -> Answer<StatusCode> {
    app.catalogue.delete_category(category).await?;
    Ok(StatusCode::NO_CONTENT)
}
