//! Signing up.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{User, fields};
use crate::app::App;
use crate::domain::roles::Roles;
use crate::http::error::Problem;
use crate::http::extract::Json;

/// A person who signs up.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    /// Compared without surrounding spaces and case.
    #[schema(max_length = 254, example = "ann@example.com")]
    email: String,
    /// 8 to 256 characters.
    #[schema(min_length = 8, max_length = 256, format = "password")]
    password: String,
    /// 1 to 100 characters, no control characters.
    #[schema(min_length = 1, max_length = 100, example = "Ann")]
    name: String,
}

/// Sign up
///
/// Makes an account with the role `customer`.
#[utoipa::path(
    post,
    path = "/api/v1/users",
    operation_id = "sign_up",
    tag = "accounts",
    request_body = NewUser,
    responses(
        (status = 201, description = "The account", body = User),
        (status = 409, description = "`email-taken`"),
        (status = 422, description = "`invalid-request`"),
        (status = 503, description = "`overloaded`: too many passwords are waiting to be hashed"),
    )
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Json(new): Json<NewUser>,
) -> Result<(StatusCode, Json<User>), Problem> {
    let (email, password, name) = fields::new_account(&new.email, new.password, &new.name)?;
    let user = app
        .accounts
        .register(email, password, name, Roles::CUSTOMER)
        .await?;
    Ok((StatusCode::CREATED, Json(user.into())))
}
