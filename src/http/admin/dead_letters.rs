//! Dead letters: events that a consumer could not act on.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::domain::time::Timestamp;
use crate::http::auth::Admin;
use crate::http::error::{Answer, Code, Problem};
use crate::http::extract::{Json, List, NoBody, Page, Path, cursor};
use crate::persistence::bus::message;
use crate::persistence::store::dead_letters::DeadLetter;

/// An event that a consumer could not act on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadLetterAnswer {
    dead_letter_id: Uuid,
    /// `dead`, or `requeued` once its consumer has acted on it after all.
    #[schema(pattern = "^(dead|requeued)$")]
    status: &'static str,
    /// Where it came from.
    topic: String,
    /// Who could not act on it.
    consumer: String,
    /// Why, as of the last attempt.
    reason: String,
    /// How often it was tried.
    attempts: u32,
    #[schema(value_type = String, format = "date-time")]
    died_at: Timestamp,
    #[schema(value_type = Option<String>, format = "date-time", required = true)]
    requeued_at: Option<Timestamp>,
    /// What happened, if the message can be read that far.
    #[serde(rename = "type")]
    #[schema(required = true)]
    kind: Option<String>,
    /// The entity it happened to, likewise.
    #[schema(required = true)]
    entity: Option<Uuid>,
    /// Its number among the events of the entity, likewise.
    #[schema(required = true)]
    event_seq: Option<u64>,
    /// The message as it came.
    message: String,
}

impl From<DeadLetter> for DeadLetterAnswer {
    fn from(letter: DeadLetter) -> Self {
        let event = message::from_json(&letter.body).ok();
        Self {
            dead_letter_id: letter.id,
            status: if letter.requeued_at.is_some() {
                "requeued"
            } else {
                "dead"
            },
            topic: letter.topic,
            consumer: letter.consumer,
            reason: letter.reason,
            attempts: letter.attempts,
            died_at: letter.died_at,
            requeued_at: letter.requeued_at,
            entity: event.as_ref().map(|event| event.entity),
            event_seq: event.as_ref().map(|event| event.event_seq),
            kind: event.map(|event| event.kind),
            message: letter.body,
        }
    }
}

/// List the dead letters
///
/// Events that a consumer could not act on, the oldest first, without those
/// that were requeued.
#[utoipa::path(get, path = "/api/v1/admin/dead-letters", operation_id = "list_dead_letters",
    tag = "administration", security(("bearer" = [])),
    params(("limit" = Option<u32>, Query, description = "How many at most: 1 to 100, by default 20"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")),
    responses((status = 200, body = List<DeadLetterAnswer>),
        (status = 401, description = "`unauthorized`"), (status = 403, description = "`forbidden`")))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _: Admin,
    page: Page,
) -> Answer<Json<List<DeadLetterAnswer>>> {
    let after = page.after::<Uuid>()?;
    let limit = page.limit as usize;
    let mut found = app.store.dead_letters(after, page.limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| more).map(|last| cursor(&last.id));
    Ok(Json(List {
        items: found.into_iter().map(Into::into).collect(),
        next_cursor,
    }))
}

/// Requeue a dead letter
///
/// Hands it to its consumer again, for example after an update. The answer
/// tells whether the consumer has acted on it; if not, it stays dead with the
/// new reason.
#[utoipa::path(post, path = "/api/v1/admin/dead-letters/{dead_letter_id}/requeue",
    operation_id = "requeue_dead_letter", tag = "administration", security(("bearer" = [])),
    params(("dead_letter_id" = Uuid, Path)),
    responses((status = 200, body = DeadLetterAnswer), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"), (status = 404, description = "`not-found`")))]
pub(super) async fn requeue(
    State(app): State<Arc<App>>,
    _: Admin,
    Path(id): Path<Uuid>,
    NoBody: NoBody,
) -> Answer<Json<DeadLetterAnswer>> {
    let letter = app.bus.requeue(id).await?;
    let letter = letter.ok_or_else(|| Problem::from(Code::NotFound))?;
    Ok(Json(letter.into()))
}
