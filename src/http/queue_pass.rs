//! The waiting room's door: who may hold and see seats of a performance that
//! has a queue.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::{Answer, Code, Problem};
use crate::app::App;
use crate::domain::ids::TimetableId;

/// The header that carries a pass.
pub const QUEUE_PASS: &str = "queue-pass";

/// Whether a call carries a pass.
#[derive(Clone, Copy, Debug)]
pub struct QueuePass {
    shown: bool,
}

impl QueuePass {
    /// The refusal of a call that needs a better pass than this.
    pub fn refuse(self) -> Problem {
        refuse(self.shown)
    }
}

impl<S: Sync> FromRequestParts<S> for QueuePass {
    type Rejection = Infallible;

    fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> impl Future<Output = Result<Self, Infallible>> + Send {
        let shown = parts.headers.contains_key(QUEUE_PASS);
        std::future::ready(Ok(Self { shown }))
    }
}

/// Checks the pass that a call needs. Returns whether it was made under one:
/// `false` where the performance has no queue.
///
/// # Errors
/// 403; 404 if there is no such timetable.
pub fn check(app: &App, timetable: TimetableId, pass: QueuePass) -> Answer<bool> {
    if !app.sale(timetable)?.has_queue {
        return Ok(false);
    }
    Err(pass.refuse())
}

/// No pass has been given out yet by any server, so that one that is shown can
/// only be forged.
pub fn refuse(shown: bool) -> Problem {
    let detail = if shown {
        "This sale has a waiting room, and this pass doesn't let you in."
    } else {
        "This sale has a waiting room; the call needs a pass in the header Queue-Pass."
    };
    Problem::new(Code::QueuePassRequired).detail(detail)
}
