//! One's own account.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::User;
use super::fields::PersonName;
use crate::app::App;
use crate::http::auth::SignedIn;
use crate::http::error::Problem;
use crate::http::extract::{Json, NoBody};
use crate::persistence::store::export::PersonalRows;

/// What can be changed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rename {
    /// 1 to 100 characters, no control characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
}

/// Everything that is stored about a person.
#[derive(Serialize, ToSchema)]
pub(super) struct Export {
    user: User,
    #[serde(flatten)]
    rows: PersonalRows,
}

/// Show my account
#[utoipa::path(
    get,
    path = "/api/v1/me",
    operation_id = "show_me",
    tag = "accounts",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The account", body = User),
        (status = 401, description = "`unauthorized`"),
    )
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
) -> Result<Json<User>, Problem> {
    Ok(Json(app.accounts.user(caller.user_id).await?.into()))
}

/// Change my name
#[utoipa::path(
    patch,
    path = "/api/v1/me",
    operation_id = "rename_me",
    tag = "accounts",
    security(("bearer" = [])),
    request_body = Rename,
    responses(
        (status = 200, description = "The account", body = User),
        (status = 401, description = "`unauthorized`"),
        (status = 422, description = "`invalid-request`"),
    )
)]
pub(super) async fn rename(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Json(wanted): Json<Rename>,
) -> Result<Json<User>, Problem> {
    let name =
        PersonName::parse(&wanted.name).map_err(|wrong| Problem::invalid_field("name", wrong))?;
    Ok(Json(
        app.accounts.rename(caller.user_id, name).await?.into(),
    ))
}

/// Delete my account
///
/// Overwrites the e-mail, the name and the password and ends all sessions.
/// Orders and money stay, of a person nobody can name any more. Nothing undoes
/// it, and the e-mail may sign up anew.
#[utoipa::path(
    delete,
    path = "/api/v1/me",
    operation_id = "delete_me",
    tag = "accounts",
    security(("bearer" = [])),
    responses(
        (status = 204, description = "The person is gone"),
        (status = 401, description = "`unauthorized`"),
    )
)]
pub(super) async fn erase(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    app.accounts.erase(caller.user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Export my data
///
/// The account, its sessions, orders, wallet entries and tickets, newest first;
/// at most 50,000 of each.
#[utoipa::path(
    get,
    path = "/api/v1/me/export",
    operation_id = "export_me",
    tag = "accounts",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "Everything stored about the caller", body = Export),
        (status = 401, description = "`unauthorized`"),
    )
)]
pub(super) async fn export(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
) -> Result<Json<Export>, Problem> {
    let user = app.accounts.user(caller.user_id).await?.into();
    let rows = app.accounts.personal_rows(caller.user_id).await?;
    Ok(Json(Export { user, rows }))
}
