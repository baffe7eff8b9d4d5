//! The waiting room's door: who may hold and see seats of a performance that
//! has a queue.

use axum::http::HeaderMap;

use super::error::{Answer, Code, Problem};
use crate::app::App;
use crate::domain::ids::{TimetableId, UserId};

/// The header that carries a pass.
pub const QUEUE_PASS: &str = "queue-pass";

/// Checks the pass that a call needs. Returns whether it was made under one:
/// `false` where the performance has no queue.
///
/// # Errors
/// 403; 404 if there is no such timetable.
pub fn check(
    app: &App,
    timetable: TimetableId,
    _user: UserId,
    headers: &HeaderMap,
) -> Answer<bool> {
    if !app.sale(timetable)?.has_queue {
        return Ok(false);
    }
    Err(refuse(headers.contains_key(QUEUE_PASS)))
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
