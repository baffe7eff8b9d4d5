//! Users, as admins see and change them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{RoleName, User};
use crate::app::App;
use crate::domain::ids::UserId;
use crate::domain::roles::{Role, Roles};
use crate::domain::time::Timestamp;
use crate::http::auth::Admin;
use crate::http::error::Problem;
use crate::http::extract::{Json, List, NoBody, Page, Path, Query};
use crate::persistence::store::accounts::StoredUser;

/// The roles that a user is to have.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRoles {
    /// All of them; at least one.
    #[schema(min_items = 1)]
    roles: Vec<RoleName>,
}

/// Which users to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only those with this e-mail, compared without surrounding spaces and
    /// case.
    email: Option<String>,
    /// How many at most: 1 to 100, by default 20.
    #[serde(rename = "limit")]
    #[param(value_type = Option<u32>)]
    _limit: Option<String>,
    /// `next_cursor` of the page before.
    #[serde(rename = "cursor")]
    _cursor: Option<String>,
}

/// A user, with what only admins see.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct ListedUser {
    #[serde(flatten)]
    user: User,
    /// When the account was closed, if it was.
    #[schema(value_type = Option<String>, format = "date-time", required = true)]
    deleted_at: Option<Timestamp>,
}

impl From<StoredUser> for ListedUser {
    fn from(user: StoredUser) -> Self {
        Self {
            deleted_at: user.deleted_at,
            user: user.into(),
        }
    }
}

/// List users
///
/// In the order in which they signed up, closed accounts too.
#[utoipa::path(
    get,
    path = "/api/v1/admin/users",
    operation_id = "list_users",
    tag = "administration",
    security(("bearer" = [])),
    params(Filter),
    responses(
        (status = 200, description = "A page of users", body = List<ListedUser>),
        (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"),
    )
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _: Admin,
    Query(filter): Query<Filter>,
    page: Page,
) -> Result<Json<List<ListedUser>>, Problem> {
    let after = page.after::<UserId>()?;
    // One more than asked for tells whether there is a next page.
    let limit = page.limit.saturating_add(1);
    let users = app
        .accounts
        .users(filter.email.as_deref(), after, limit)
        .await?;
    let users = users.into_iter().map(ListedUser::from).collect();
    Ok(Json(List::page(users, &page, |listed| listed.user.user_id)))
}

/// Set a user's roles
///
/// If they change, the user's sessions end.
#[utoipa::path(
    put,
    path = "/api/v1/admin/users/{id}/roles",
    operation_id = "set_user_roles",
    tag = "administration",
    security(("bearer" = [])),
    params(("id" = String, Path, format = "uuid", description = "The user")),
    request_body = NewRoles,
    responses(
        (status = 200, description = "The user", body = User),
        (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`user-not-found`"),
        (status = 422, description = "`invalid-request`"),
    )
)]
pub(super) async fn set_roles(
    State(app): State<Arc<App>>,
    _: Admin,
    Path(id): Path<UserId>,
    Json(wanted): Json<NewRoles>,
) -> Result<Json<User>, Problem> {
    let roles: Roles = wanted.roles.into_iter().map(Role::from).collect();
    if roles.is_empty() {
        return Err(Problem::invalid_field(
            "roles",
            "a user has at least one role",
        ));
    }
    Ok(Json(app.accounts.set_roles(id, roles).await?.into()))
}

/// Close an account
///
/// Its sessions end, nobody can sign in, and its e-mail may sign up anew.
/// Nothing is erased: `restore` undoes it.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/users/{id}",
    operation_id = "delete_user",
    tag = "administration",
    security(("bearer" = [])),
    params(("id" = String, Path, format = "uuid", description = "The user")),
    responses(
        (status = 204, description = "The account is closed"),
        (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`user-not-found`"),
    )
)]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    _: Admin,
    Path(id): Path<UserId>,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    app.accounts.delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reopen an account
///
/// Undoes its closing by an admin, with its roles and its password; the user
/// signs in again. What a person erased by `DELETE /me` stays erased.
#[utoipa::path(
    post,
    path = "/api/v1/admin/users/{id}/restore",
    operation_id = "restore_user",
    tag = "administration",
    security(("bearer" = [])),
    params(("id" = String, Path, format = "uuid", description = "The user")),
    responses(
        (status = 200, description = "The user", body = User),
        (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`user-not-found`, also for a person who is erased"),
        (status = 409, description = "`email-taken`: somebody has signed up with the e-mail since"),
    )
)]
pub(super) async fn restore(
    State(app): State<Arc<App>>,
    _: Admin,
    Path(id): Path<UserId>,
    _: NoBody,
) -> Result<Json<User>, Problem> {
    Ok(Json(app.accounts.restore(id).await?.into()))
}
