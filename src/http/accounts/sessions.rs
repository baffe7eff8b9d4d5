//! Signing in, staying signed in, signing out.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::TokenPair;
use crate::app::App;
use crate::http::auth::SignedIn;
use crate::http::error::Problem;
use crate::http::extract::{Json, NoBody};

/// Who signs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    /// Compared without surrounding spaces and case.
    #[schema(example = "ann@example.com")]
    email: String,
    /// The account's password.
    #[schema(format = "password")]
    password: String,
}

/// A refresh token to be used up.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Refresh {
    /// The newest one of its session.
    refresh_token: String,
}

/// What a signed-in client keeps.
#[derive(Serialize, ToSchema)]
pub(super) struct Tokens {
    /// Send it as `Authorization: Bearer <token>`.
    access_token: String,
    /// Good once, for a new pair.
    refresh_token: String,
    /// `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Life of the access token in seconds.
    #[schema(example = 1800)]
    expires_in: i64,
}

impl From<TokenPair> for Tokens {
    fn from(pair: TokenPair) -> Self {
        Self {
            access_token: pair.access_token,
            refresh_token: pair.refresh_token,
            token_type: "Bearer",
            expires_in: pair.expires_in.0 / 1000,
        }
    }
}

/// Sign in
///
/// A wrong password and an unknown e-mail get the same answer after the same
/// time. A user has at most 100 sessions; a further one ends the oldest.
#[utoipa::path(
    post,
    path = "/api/v1/sessions",
    operation_id = "sign_in",
    tag = "accounts",
    request_body = Credentials,
    responses(
        (status = 200, description = "The tokens of a new session", body = Tokens),
        (status = 401, description = "`bad-credentials`"),
        (status = 429, description = "`rate-limited`: ten sign-ins for this e-mail failed within 15 minutes"),
        (status = 503, description = "`overloaded`: too many passwords are waiting to be compared"),
    )
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Json(given): Json<Credentials>,
) -> Result<Json<Tokens>, Problem> {
    let pair = app.accounts.sign_in(&given.email, given.password).await?;
    Ok(Json(pair.into()))
}

/// Refresh a session
///
/// A refresh token works once and for 14 days; each use gives a new one. Using
/// one a second time ends the session, because it may have been stolen.
#[utoipa::path(
    post,
    path = "/api/v1/sessions/refresh",
    operation_id = "refresh_session",
    tag = "accounts",
    request_body = Refresh,
    responses(
        (status = 200, description = "The next tokens of the session", body = Tokens),
        (status = 401, description = "`session-revoked` if the session has ended or expired, else `unauthorized`"),
    )
)]
pub(super) async fn refresh(
    State(app): State<Arc<App>>,
    Json(given): Json<Refresh>,
) -> Result<Json<Tokens>, Problem> {
    let pair = app.accounts.refresh(&given.refresh_token).await?;
    Ok(Json(pair.into()))
}

/// Sign out
///
/// Ends the session that the access token belongs to, with all its tokens.
#[utoipa::path(
    delete,
    path = "/api/v1/sessions/current",
    operation_id = "sign_out",
    tag = "accounts",
    security(("bearer" = [])),
    responses(
        (status = 204, description = "The session has ended"),
        (status = 401, description = "`unauthorized`"),
    )
)]
pub(super) async fn end(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    app.accounts.sign_out(&caller).await?;
    Ok(StatusCode::NO_CONTENT)
}
