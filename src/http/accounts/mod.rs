//! Accounts: signing up and in, one's own data, and the administration of
//! users.

mod admin;
mod fields;
mod me;
mod provision;
mod refresh_token;
mod service;
mod sessions;
mod users;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{Code, Problem};
use super::failed_sign_ins::{FAILURES_MAX, TooManyFailures, WINDOW_SECONDS};
use super::password::PasswordError;
use crate::app::App;
use crate::domain::ids::UserId;
use crate::domain::roles::{Role, Roles};
use crate::domain::time::Timestamp;
use crate::persistence::store::accounts::StoredUser;

pub use provision::AdminEnsured;
pub use service::{AccountError, Accounts, AccountsOptions, TokenPair};

/// The routes of this family, to be merged under `/api/v1`.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(users::create))
        .routes(routes!(sessions::create))
        .routes(routes!(sessions::refresh))
        .routes(routes!(sessions::end))
        .routes(routes!(me::show, me::rename, me::erase))
        .routes(routes!(me::export))
        .routes(routes!(admin::list))
        .routes(routes!(admin::delete))
        .routes(routes!(admin::set_roles))
        .routes(routes!(admin::restore))
}

/// A role, by its name in the contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// Buys.
    Customer,
    /// Checks tickets in.
    Staff,
    /// Administers what it created.
    Organizer,
    /// Administers everything.
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Customer => Self::Customer,
            RoleName::Staff => Self::Staff,
            RoleName::Organizer => Self::Organizer,
            RoleName::Admin => Self::Admin,
        }
    }
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::Customer => Self::Customer,
            Role::Staff => Self::Staff,
            Role::Organizer => Self::Organizer,
            Role::Admin => Self::Admin,
        }
    }
}

fn role_names(roles: Roles) -> Vec<RoleName> {
    roles.iter().map(RoleName::from).collect()
}

/// A user, as shown to itself and to admins.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct User {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub user_id: UserId,
    /// In lower case.
    pub email: String,
    /// As shown to others.
    pub name: String,
    /// What the account may do.
    pub roles: Vec<RoleName>,
    /// When it was made.
    #[schema(value_type = String, format = "date-time")]
    pub created_at: Timestamp,
}

impl From<StoredUser> for User {
    fn from(user: StoredUser) -> Self {
        Self {
            user_id: user.id,
            email: user.email,
            name: user.name,
            roles: role_names(user.roles),
            created_at: user.created_at,
        }
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::EmailTaken => Self::new(Code::EmailTaken),
            AccountError::BadCredentials => Self::new(Code::BadCredentials),
            AccountError::TooManyFailures(refused) => rate_limited(refused),
            AccountError::NotARefreshToken => {
                Self::new(Code::Unauthorized).detail("this is not a refresh token of this server")
            }
            AccountError::SessionRevoked => Self::new(Code::SessionRevoked),
            AccountError::UnknownUser => Self::new(Code::UserNotFound),
            AccountError::Invalid(message) => Self::invalid_field("", message),
            AccountError::Password(PasswordError::Overloaded {
                retry_after_seconds,
            }) => Self::overloaded().retry_after(retry_after_seconds),
            AccountError::Password(error @ PasswordError::Failed(_)) => Self::internal(&error),
            AccountError::Store(error) => Self::from(error),
        }
    }
}

/// 429 with the `RateLimit` headers of draft-ietf-httpapi-ratelimit-headers.
fn rate_limited(refused: TooManyFailures) -> Problem {
    let seconds = refused.retry_after_seconds;
    let headers = [
        (
            "ratelimit-policy",
            format!("\"sign-in\";q={FAILURES_MAX};w={WINDOW_SECONDS}"),
        ),
        ("ratelimit", format!("\"sign-in\";r=0;t={seconds}")),
    ];
    let problem = Problem::new(Code::RateLimited)
        .detail("too many sign-ins have failed for this e-mail")
        .retry_after(seconds);
    headers.into_iter().fold(
        problem,
        |problem, (name, value)| match HeaderValue::from_str(&value) {
            Ok(value) => problem.header(HeaderName::from_static(name), value),
            // Digits and names only: always a header's value.
            Err(_) => problem,
        },
    )
}
