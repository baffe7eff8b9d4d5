//! The waiting room's door: who may hold and see seats of a performance that
//! has a queue.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::{Answer, Code, Problem};
use super::queue_tokens::Pass;
use crate::app::{App, Sale};
use crate::domain::ids::UserId;

/// The header that carries a pass.
pub const QUEUE_PASS: &str = "queue-pass";

/// The pass that a call carries, if any, as text.
#[derive(Clone, Debug)]
pub struct QueuePass(Option<String>);

impl QueuePass {
    fn in_header(parts: &Parts) -> Option<String> {
        let shown = parts.headers.get(QUEUE_PASS)?;
        // What isn't text was not signed here.
        Some(shown.to_str().unwrap_or_default().to_owned())
    }

    /// Of a socket: browsers can't set headers there, so it may also come as
    /// `?queue_pass=`.
    #[must_use]
    pub fn of_socket(parts: &Parts) -> Self {
        let query = parts.uri.query().unwrap_or_default().split('&');
        let in_query = || {
            // Passes need no percent-encoding.
            let mut passes = query.filter_map(|pair| pair.strip_prefix("queue_pass="));
            passes.next().map(str::to_owned)
        };
        Self(Self::in_header(parts).or_else(in_query))
    }
}

impl<S: Sync> FromRequestParts<S> for QueuePass {
    type Rejection = Infallible;

    fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> impl Future<Output = Result<Self, Infallible>> + Send {
        std::future::ready(Ok(Self(Self::in_header(parts))))
    }
}

/// Checks the pass that a call of `user` on a date of `sale` needs. The pass
/// that it is made under; `None` where the performance has no queue.
///
/// # Errors
/// 403, or 503 if it can't be told now whether the pass is still good.
pub async fn check(
    app: &App,
    sale: &Sale,
    user: Option<UserId>,
    shown: &QueuePass,
) -> Answer<Option<Pass>> {
    if !sale.has_queue {
        return Ok(None);
    }
    let QueuePass(Some(text)) = shown else {
        return Err(required());
    };
    let pass = Pass::verify(text, &app.keys).ok_or(Code::QueuePassInvalid)?;
    if user != Some(pass.user) {
        return Err(Code::QueuePassNotForYou.into());
    }
    // The performance of the very date that is asked for, whatever the client
    // says.
    if pass.performance != sale.plan.performance_id {
        return Err(Code::QueuePassWrongPerformance.into());
    }
    still_good(app, &pass).await?;
    Ok(Some(pass))
}

/// Whether a genuine pass is neither expired nor revoked.
///
/// # Errors
/// Those of [`check`].
pub async fn still_good(app: &App, pass: &Pass) -> Answer<()> {
    if pass.expires_at <= app.clock.now() {
        return Err(Code::QueuePassExpired.into());
    }
    if app.is_pass_over(pass).await? {
        return Err(Code::QueuePassRevoked.into());
    }
    Ok(())
}

/// The refusal of a call without a pass.
pub fn required() -> Problem {
    Problem::new(Code::QueuePassRequired)
        .detail("This sale has a waiting room; the call needs a pass in the header Queue-Pass.")
}
