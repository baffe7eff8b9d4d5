//! Where one stands, live over a WebSocket: `state` frames on connecting and on
//! each change, `tick` frames while the position moves.
//!
//! A socket asks the queue only when it is poked; what it tells in between
//! comes from this node's copy of the line. See `feed`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request, State as AppState};
use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::feed::{Member, Tick};
use super::{QueueState, claim_of};
use crate::app::{App, unexpected};
use crate::clock::monotonic;
use crate::domain::ids::{PerformanceId, UserId};
use crate::domain::queue::{Claim, Command, Reply, Standing, State, TicketNumber};
use crate::domain::time::Timestamp;
use crate::http::auth::SocketCaller;
use crate::http::error::{Answer, Code, Problem};
use crate::http::extract::Path;
use crate::http::sockets::{self, Beat, Pulse, UserPlace};
use crate::http::tokens::Lasting;

/// How often a socket looks whether its token and its queue are still there;
/// more often where users who give no sign of life are put out.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_EVERY_LEAST: Duration = Duration::from_millis(500);

/// A socket is a sign of life of its user: at least so many in the time that
/// the policy allows between two.
const SIGNS: u32 = 4;

/// How long a socket waits for a queue that can't be asked now, e.g. because it
/// is on its way to another node, and how often it tries.
const ASK_MAX: Duration = Duration::from_secs(30);
const ASK_PAUSE: Duration = Duration::from_millis(250);

/// A socket that skipped so many ticks is told the whole again.
const SKIPPED_MAX: u64 = 5;

/// Where the caller stands, live
///
/// A `state` frame at once, on each change of state and when the socket was too
/// slow; `tick` frames while the position moves. Any number of sockets show the
/// one place of their user. A ticket restores a place that the server has lost.
#[utoipa::path(get, path = "/api/v1/performances/{performance_id}/queue/live",
    operation_id = "queue_live", tag = "waiting room", security(("bearer" = [])),
    params(("performance_id" = PerformanceId, Path), ("ticket" = Option<String>, Query)),
    responses((status = 101, description = "a WebSocket of JSON text frames"),
        (status = 401, description = "`unauthorized`"),
        (status = 404, description = "`performance-not-found`, `queue-not-found`, `not-in-queue`"),
        (status = 422, description = "`invalid-request`: a ticket that isn't one"),
        (status = 426, description = "not a WebSocket request"),
        (status = 429, description = "`rate-limited`, `too-many-sockets`")))]
pub(super) async fn live(
    AppState(app): AppState<Arc<App>>,
    Path(id): Path<PerformanceId>,
    caller: SocketCaller,
    request: Request,
) -> Answer<Response> {
    let user = caller.signed_in()?.user_id;
    let token = caller.token.ok_or(Code::Unauthorized)?;
    app.rates.queue.check(user)?;
    app.check_queue(id)?;
    let (mut parts, _body) = request.into_parts();
    let shown = ticket_in_query(parts.uri.query());
    let claim = claim_of(&app, shown, "ticket", id, user)?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &app)
        .await
        .map_err(|rejection| Problem::new(Code::UpgradeRequired).detail(rejection.body_text()))?;
    let own_place = app.sockets.try_place_of(user).ok_or_else(too_many)?;
    let place = app.sockets.try_place().ok_or_else(Problem::overloaded)?;
    // Before the question, so that nothing is missed after it.
    let member = app.queue_feeds.follow(&app, id, user);
    let standing = ask(&app, id, user, claim).await?;
    let upgrade = sockets::tuned(upgrade, caller.protocol);
    let watcher = Box::new(Watcher {
        shutdown: app.shutdown.subscribe(),
        app,
        id,
        user,
        token,
        member,
        standing: Shown::of(&standing),
        seq: 0,
        ticks_seen: None,
        _places: (own_place, place),
    });
    Ok(upgrade.on_upgrade(move |socket| {
        // A task of its own: that of the upgrade is larger, and ends now.
        tokio::spawn(watcher.run(socket, standing));
        std::future::ready(())
    }))
}

/// How long to wait before another try, in seconds: a tab that was closed is
/// noticed at once, one that was lost within a minute.
const TOO_MANY_RETRY: u32 = 10;

fn too_many() -> Problem {
    Problem::new(Code::TooManySockets).retry_after(TOO_MANY_RETRY)
}

/// Tickets need no percent-encoding, so the query is not decoded.
fn ticket_in_query(query: Option<&str>) -> Option<&str> {
    let mut pairs = query?.split('&');
    pairs.find_map(|pair| pair.strip_prefix("ticket="))
}

/// How a user stands.
async fn ask(app: &App, id: PerformanceId, user: UserId, claim: Option<Claim>) -> Answer<Standing> {
    // Never closed, and whoever has a permit gives it back in time.
    let _turn = app.queue_feeds.asking.acquire().await;
    app.check_queue(id)?;
    match app.ask_queue(id, Command::State { user, claim }).await? {
        Reply::Standing(standing) => Ok(standing),
        other => Err(unexpected(&other)),
    }
}

/// What the client was told last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shown {
    state: State,
    claim: Claim,
    position: Option<u32>,
    pass_expires_at: Option<Timestamp>,
}

impl Shown {
    fn of(standing: &Standing) -> Self {
        Self {
            state: standing.state,
            claim: Claim {
                ticket: standing.ticket,
                number: standing.number,
            },
            position: standing.position,
            pass_expires_at: standing.pass_expires_at,
        }
    }

    /// Whether `other` is no more than another position.
    fn is_like(&self, other: &Self) -> bool {
        Self {
            position: other.position,
            ..*self
        } == *other
    }
}

/// Why a socket ends, as a close code and its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct End(u16, &'static str);

/// Whether a socket goes on.
type Step = Result<(), Option<End>>;

/// One socket.
struct Watcher {
    app: Arc<App>,
    id: PerformanceId,
    user: UserId,
    token: Lasting,
    member: Member,
    standing: Shown,
    /// The version of the line that the client was told last.
    seq: u64,
    /// The number of the last tick that was looked at.
    ticks_seen: Option<u64>,
    shutdown: watch::Receiver<bool>,
    _places: (UserPlace, OwnedSemaphorePermit),
}

impl Watcher {
    async fn run(mut self: Box<Self>, mut socket: WebSocket, first: Standing) {
        let mut step = self.show(&mut socket, &first).await;
        let mut pulse = Pulse::start();
        let look = tokio::time::sleep(self.look_every());
        tokio::pin!(look);
        while step.is_ok() {
            step = tokio::select! {
                () = self.member.poke.notified() => Box::pin(self.look_again(&mut socket, false)).await,
                changed = self.member.ticks.changed() => match changed {
                    Ok(()) => self.tick(&mut socket).await,
                    Err(_) => Err(Some(End(1001, "draining"))),
                },
                received = socket.recv() => match received {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => Err(None),
                    Some(Ok(_)) => {
                        pulse.heard();
                        Ok(())
                    }
                },
                beat = pulse.next() => match beat {
                    Beat::Ping => sent(sockets::send(&mut socket, Message::Ping(Bytes::new())).await),
                    Beat::Dead => Err(Some(End(4408, "no sign of life"))),
                    Beat::Old => Err(Some(End(4408, "maximum life"))),
                },
                () = &mut look => {
                    look.as_mut().reset(monotonic() + self.look_every());
                    Box::pin(self.look_around(&mut socket)).await
                }
                _ = self.shutdown.changed() => Err(Some(End(1001, "draining"))),
            };
        }
        if let Err(Some(End(code, reason))) = step {
            sockets::close(socket, code, reason).await;
        }
    }

    /// Asks how the user stands, and tells it if that is new, or if it is
    /// `wanted` anyway.
    async fn look_again(&mut self, socket: &mut WebSocket, wanted: bool) -> Step {
        let standing = {
            let mut shutdown = self.shutdown.clone();
            tokio::select! {
                standing = self.ask_patiently() => standing.map_err(Some)?,
                _ = shutdown.wait_for(|ends| *ends) => return Err(Some(End(1001, "draining"))),
            }
        };
        if wanted || !self.standing.is_like(&Shown::of(&standing)) {
            return self.show(socket, &standing).await;
        }
        Ok(())
    }

    async fn ask_patiently(&self) -> Result<Standing, End> {
        let begun = monotonic();
        // Asked with the ticket only if there is need, because that costs more.
        let mut claim = None;
        loop {
            let problem = match ask(&self.app, self.id, self.user, claim).await {
                Ok(standing) => return Ok(standing),
                Err(problem) => problem,
            };
            match problem.code() {
                Code::NotInQueue if claim.is_none() => {
                    claim = Some(self.standing.claim);
                    continue;
                }
                Code::NotInQueue => return Err(End(4401, "ticket dead")),
                code if code.status() == StatusCode::NOT_FOUND => {
                    return Err(End(4404, "not found"));
                }
                _ => {}
            }
            if begun.elapsed() > ASK_MAX {
                return Err(End(1013, "overloaded"));
            }
            tokio::time::sleep(ASK_PAUSE).await;
        }
    }

    /// Sends a `state` frame; the socket ends after the last one.
    async fn show(&mut self, socket: &mut WebSocket, standing: &Standing) -> Step {
        let was_inside = self.standing.state == State::Admitted;
        let mut standing = standing.clone();
        if standing.number == self.standing.claim.number {
            // What a node that took over knows of those before it may be older.
            let shown = self.standing.position.unwrap_or(u32::MAX);
            standing.position = standing.position.map(|position| position.min(shown));
        }
        standing.line_seq = standing.line_seq.max(self.seq);
        self.seq = standing.line_seq;
        self.standing = Shown::of(&standing);
        let state = QueueState::new(&self.app, self.id, self.user, &standing);
        let text = serde_json::to_string(&state).unwrap_or_default();
        sent(sockets::send(socket, Message::Text(text.into())).await)?;
        let number = standing.number;
        match standing.state {
            State::PreQueue | State::Waiting | State::Admitted | State::Closed => Ok(()),
            State::Left => Err(Some(End(1000, "left"))),
            State::Expired
                if was_inside || number.is_some_and(|n| self.member.feed.was_admitted(n)) =>
            {
                Err(Some(End(4403, "pass gone")))
            }
            State::Expired => Err(Some(End(4401, "ticket dead"))),
        }
    }

    /// Tells the position, if there is one.
    async fn tick(&mut self, socket: &mut WebSocket) -> Step {
        let Some(tick) = self.member.ticks.borrow_and_update().clone() else {
            return Ok(());
        };
        let skipped = self.skipped_before(&tick);
        if skipped > 0 {
            self.member.feed.skipped(skipped);
        }
        if skipped >= SKIPPED_MAX {
            return Box::pin(self.look_again(socket, true)).await;
        }
        let (Some(number), Some(before)) = (self.standing.claim.number, self.standing.position)
        else {
            return Ok(());
        };
        let text = self.frame(&tick, number, before);
        sent(sockets::send(socket, Message::Text(text.into())).await)
    }

    fn frame(&mut self, tick: &Tick, number: TicketNumber, before: u32) -> String {
        let mut digits = self.member.feed.digits(number);
        // What the queue itself said last may be ahead of the copy: a position
        // never grows, and a version never falls.
        digits.position = digits.position.min(before);
        digits.seq = digits.seq.max(self.seq);
        self.seq = digits.seq;
        self.standing.position = Some(digits.position);
        tick.frame(digits)
    }

    fn skipped_before(&mut self, tick: &Tick) -> u64 {
        let before = self.ticks_seen.replace(tick.count);
        before.map_or(0, |before| tick.count.saturating_sub(before + 1))
    }

    fn look_every(&self) -> Duration {
        let ttl = self.waiting_ttl();
        ttl.map_or(LOOK_EVERY, |ttl| {
            (ttl / SIGNS).clamp(LOOK_EVERY_LEAST, LOOK_EVERY)
        })
    }

    fn waiting_ttl(&self) -> Option<Duration> {
        let performance = self.app.catalogue.performance(self.id)?;
        let policy = performance.row.queue?;
        let ttl = policy.waiting_ttl_seconds?;
        Some(Duration::from_secs(ttl.into()))
    }

    /// Whether the token and the queue are still there; and the sign of life,
    /// where one is needed.
    async fn look_around(&mut self, socket: &mut WebSocket) -> Step {
        if !self.app.accounts.still_identifies(&self.token) {
            return Err(Some(End(4401, "token dead")));
        }
        if self.app.check_queue(self.id).is_err() {
            return Err(Some(End(4404, "not found")));
        }
        let waits = matches!(self.standing.state, State::PreQueue | State::Waiting);
        if waits && self.waiting_ttl().is_some() {
            return self.look_again(socket, false).await;
        }
        Ok(())
    }
}

fn sent(is_sent: bool) -> Step {
    if is_sent { Ok(()) } else { Err(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_in_the_query_is_found_among_others() {
        assert_eq!(
            ticket_in_query(Some("access_token=t&ticket=a.b")),
            Some("a.b")
        );
        assert_eq!(ticket_in_query(Some("my_ticket=a.b")), None);
        assert_eq!(ticket_in_query(None), None);
    }
}
