//! New rows, from what was asked for and checked.

use bytes::Bytes;
use uuid::Uuid;

use super::admin::Caller;
use super::check;
use super::request::{GradeRequest, PerformanceRequest, TimetableRequest};
use super::rows::{PerformanceRow, Poster, TimetableRow};
use crate::domain::ids::{PerformanceId, TimetableId};
use crate::domain::plan::Limits;
use crate::domain::queue::policy::QueuePolicy;
use crate::domain::time::Timestamp;

pub(super) fn timetable_row(
    id: PerformanceId,
    request: &TimetableRequest,
    now: Timestamp,
) -> TimetableRow {
    TimetableRow {
        id: TimetableId(Uuid::now_v7()),
        performance_id: id,
        starts_at: request.starts_at,
        doors_at: request.doors_at.unwrap_or(request.starts_at),
        created_at: now,
        cancelled_at: None,
    }
}

pub(super) fn performance_row(
    id: PerformanceId,
    caller: Caller,
    request: PerformanceRequest,
    queue: Option<QueuePolicy>,
    now: Timestamp,
) -> PerformanceRow {
    PerformanceRow {
        id,
        owner: caller.user,
        venue_id: request.venue_id,
        title: request.title,
        category: request.category,
        cast: request.cast,
        description: request.description,
        poster_url: request.poster_url,
        currency: request.currency,
        grades: request
            .grades
            .into_iter()
            .map(GradeRequest::into_row)
            .collect(),
        opens_at: request.opens_at,
        closes_at: request.closes_at,
        limits: check::limits_with(&Limits::default(), &request.limits),
        queue,
        draft: request.draft,
        created_at: now,
        deleted_at: None,
    }
}

/// A picture by its first bytes, whatever it is said to be. Its version ends in
/// the name of its format.
pub(super) fn poster_of(bytes: Bytes) -> Option<Poster> {
    let is_webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    let format = match () {
        () if bytes.starts_with(b"\x89PNG\r\n\x1a\n") => "png",
        () if bytes.starts_with(b"\xff\xd8\xff") => "jpeg",
        () if is_webp => "webp",
        () => return None,
    };
    let hash = std::hash::BuildHasher::hash_one(&foldhash::quality::FixedState::default(), &bytes);
    Some(Poster {
        media_type: format!("image/{format}"),
        version: format!("{hash:016x}.{format}"),
        bytes,
    })
}
