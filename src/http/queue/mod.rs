//! The waiting room as users see it. One file a story; all of them answer how
//! the user stands in the same form.

pub mod door;
mod draw;
mod extend;
pub mod feed;
mod join;
mod leave;
mod live;
mod state;
pub mod summary;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{Answer, Problem};
use super::queue_tokens::{Pass, QueueTicket};
use crate::app::App;
use crate::domain::ids::{PerformanceId, UserId};
use crate::domain::queue::{Claim, SeatsLeft, Standing, State, TicketNumber};
use crate::domain::time::Timestamp;

/// The header that carries a ticket.
const QUEUE_TICKET: &str = "queue-ticket";

/// The routes of the files below.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(join::join, state::state, leave::leave))
        .routes(routes!(extend::extend))
        .routes(routes!(summary::summary))
        .routes(routes!(draw::draw))
        .routes(routes!(live::live))
}

/// How a user stands in a waiting room.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueueState {
    #[schema(example = "state")]
    r#type: &'static str,
    /// Rises with each change of the line, over restarts and take-overs, too;
    /// below 2^53.
    seq: u64,
    performance_id: PerformanceId,
    /// `pre_queue`, `waiting`, `admitted`, `expired`, `left` or `closed`.
    #[schema(value_type = String, example = "waiting")]
    state: State,
    /// The place; null before a draw.
    #[schema(value_type = Option<u32>, required = true)]
    number: Option<TicketNumber>,
    /// 1 is next; null before a draw, and for who doesn't wait.
    #[schema(required = true)]
    position: Option<u32>,
    waiting_behind: u32,
    #[schema(required = true)]
    estimated_wait_seconds: Option<u32>,
    seats: SeatsAnswer,
    /// Signed: restores the place, whatever the server loses.
    ticket: String,
    /// Signed: lets the user in. Only for who is admitted.
    #[schema(required = true)]
    pass: Option<String>,
    #[schema(required = true)]
    pass_expires_at: Option<Timestamp>,
    /// When to ask again.
    poll_after_seconds: u32,
}

/// How many seats of a performance are not sold.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct SeatsAnswer {
    available: u32,
    /// By others; they may come back.
    held: u32,
}

impl From<SeatsLeft> for SeatsAnswer {
    fn from(seats: SeatsLeft) -> Self {
        Self {
            available: seats.available,
            held: seats.held,
        }
    }
}

impl QueueState {
    /// What `standing` says to `user`.
    #[must_use]
    pub fn new(app: &App, id: PerformanceId, user: UserId, standing: &Standing) -> Self {
        let epoch = app.queue_epoch(id);
        let ticket = QueueTicket {
            performance: id,
            user,
            ticket: standing.ticket,
            number: standing.number,
            epoch,
        };
        let pass_expires_at = standing
            .pass_expires_at
            .filter(|_| standing.state == State::Admitted);
        let pass = standing.number.zip(pass_expires_at);
        let pass = pass.map(|(number, expires_at)| Pass {
            performance: id,
            user,
            number,
            expires_at,
        });
        Self {
            r#type: "state",
            seq: standing.line_seq,
            performance_id: id,
            state: standing.state,
            number: standing.number,
            position: standing.position,
            waiting_behind: standing.waiting_behind,
            estimated_wait_seconds: standing.estimated_wait_seconds,
            seats: standing.seats.into(),
            ticket: ticket.sign(&app.keys),
            pass: pass.map(|pass| pass.sign(&app.keys)),
            pass_expires_at,
            poll_after_seconds: standing.poll_after_seconds,
        }
    }
}

/// The ticket that a call carries in `Queue-Ticket`, if any, as text.
#[derive(Clone, Debug)]
struct TicketShown(Option<String>);

impl<S: Sync> FromRequestParts<S> for TicketShown {
    type Rejection = std::convert::Infallible;

    fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> impl Future<Output = Result<Self, Self::Rejection>> + Send {
        let shown = parts.headers.get(QUEUE_TICKET);
        // What isn't text was not signed here.
        let shown = shown.map(|text| text.to_str().unwrap_or_default().to_owned());
        std::future::ready(Ok(Self(shown)))
    }
}

impl TicketShown {
    /// What the ticket claims for `user` in the queue of performance `id`.
    ///
    /// # Errors
    /// 422 if it was not signed by this server, or is of another user or queue.
    fn claim(&self, app: &App, id: PerformanceId, user: UserId) -> Answer<Option<Claim>> {
        claim_of(app, self.0.as_deref(), "Queue-Ticket", id, user)
    }
}

/// What a ticket, shown as `field`, claims for `user` in the queue of
/// performance `id`.
///
/// # Errors
/// 422 if it was not signed by this server, or is of another user or queue.
fn claim_of(
    app: &App,
    shown: Option<&str>,
    field: &'static str,
    id: PerformanceId,
    user: UserId,
) -> Answer<Option<Claim>> {
    let Some(text) = shown else {
        return Ok(None);
    };
    QueueTicket::verify(text, &app.keys)
        .filter(|ticket| ticket.performance == id && ticket.user == user)
        .map(|ticket| Some(ticket.claim()))
        .ok_or_else(|| Problem::invalid_field(field, "not your ticket of this queue"))
}
