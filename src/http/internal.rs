//! The internal interface: what the nodes of a cluster ask each other, over
//! HTTP/2 on a port of its own. Every request is signed with a key derived from
//! `auth.secret`; the bodies are postcard, between nodes of the same version.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::actors::host::Hosted;
use crate::actors::observe::Place;
use crate::actors::queue_board::Known;
use crate::actors::queue_board::copy::Followed;
use crate::actors::route::{Ask, Elsewhere, MAC_HEADER, signed};
use crate::actors::{AskError, Handle, Outcome};
use crate::app::App;
use crate::domain::ids::{EntityKind, HoldId, PerformanceId, TimetableId, UserId, shard_of};
use crate::http::error::Problem;
use crate::keys::Purpose;
use crate::trace;

/// The longest body: a hold of 100,000 seats by name fits.
const BODY_MAX_BYTES: usize = 4 << 20;

/// How many command ids are remembered: those of several seconds at full load,
/// while a connection that breaks off repeats at once.
const SEEN_MAX: usize = 65_536;

/// The longest that a command may ask to be waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Internal {
    app: Arc<App>,
    seen: Mutex<Seen>,
}

/// Serves the other nodes on `listener` until `shutdown`.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(app))
        .with_graceful_shutdown(shutdown)
        .await
}

fn router(app: Arc<App>) -> Router {
    let internal = Internal {
        app,
        seen: Mutex::default(),
    };
    Router::new()
        .route("/internal/ask", post(ask))
        .route("/internal/holds", post(holds))
        .route("/internal/seats", post(seats))
        .route("/internal/counts", post(counts))
        .route("/internal/passes", post(passes))
        .route("/internal/told", post(told))
        .route("/internal/look", post(look))
        .route("/internal/actors", post(actors))
        .route("/internal/observe", post(observe))
        .route("/internal/ops", post(ops))
        .with_state(Arc::new(internal))
}

/// Runs a command on an entity of ours; 421 if it isn't.
async fn ask(State(internal): State<Arc<Internal>>, Signed(ask): Signed<Ask>) -> Response {
    let node = &internal.app.node;
    let ownership = &node.ownership;
    let is_ours = node.route.takes(ask.shard, ask.door)
        && shard_of(ask.id) == ask.shard
        // Who knows of a later epoch than ours knows that we have lost it.
        && ownership.epoch(ask.shard).is_some_and(|epoch| epoch >= ask.epoch);
    if !is_ours {
        let elsewhere = Elsewhere::told_by(ownership, ask.shard);
        return answer(StatusCode::MISDIRECTED_REQUEST, &elsewhere);
    }
    if !internal.seen.lock().is_first(ask.command_id) {
        return answer(StatusCode::OK, &Err::<(), _>(AskError::Unknown));
    }
    match ask.kind {
        EntityKind::Timetable => run(&node.timetables, ask).await,
        EntityKind::Account => run(&node.accounts, ask).await,
        EntityKind::Queue => run(&node.queues, ask).await,
        EntityKind::Coupon => run(&node.coupons, ask).await,
    }
}

async fn run<M: Hosted>(handle: &Handle<M>, ask: Ask) -> Response {
    let Ok(command) = postcard::from_bytes(&ask.command) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let wait = Duration::from_millis(ask.wait_ms.into()).min(WAIT_MAX);
    let running = trace::within(ask.context, handle.run_here(ask.id, command, ask.door));
    let outcome: Result<Outcome<M>, AskError> = tokio::time::timeout(wait, running)
        .await
        .unwrap_or(Err(AskError::Unknown));
    answer(StatusCode::OK, &outcome)
}

/// The live holds of a user on timetables of ours.
async fn holds(State(internal): State<Arc<Internal>>, Signed(user): Signed<UserId>) -> Response {
    let holds = internal.app.own_holds_of(user);
    answer::<Vec<(HoldId, TimetableId)>>(StatusCode::OK, &holds)
}

/// The seat map of a timetable of ours, since a version; 421 if it isn't ours.
async fn seats(
    State(internal): State<Arc<Internal>>,
    Signed((id, since)): Signed<(TimetableId, u64)>,
) -> Response {
    let app = &internal.app;
    let shard = shard_of(id.0);
    if !app.node.ownership.is_here(shard) {
        let elsewhere = Elsewhere::told_by(&app.node.ownership, shard);
        return answer(StatusCode::MISDIRECTED_REQUEST, &elsewhere);
    }
    let Some(plan) = app.catalogue.plan(id) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match app.load_board(&plan).await {
        Ok(board) => answer(StatusCode::OK, &board.copy_since(since)),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// The passes of a queue of ours that are over, since what the asker knows; 421
/// if it isn't ours.
async fn passes(
    State(internal): State<Arc<Internal>>,
    Signed((id, known)): Signed<(PerformanceId, Option<Known>)>,
) -> Response {
    let app = &internal.app;
    if !app.node.queues.is_here(id.0) {
        let elsewhere = Elsewhere::told_by(&app.node.ownership, shard_of(id.0));
        return answer(StatusCode::MISDIRECTED_REQUEST, &elsewhere);
    }
    match app.load_queue_board(id).await {
        Ok(board) => answer(StatusCode::OK, &board.copy_since(known)),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// What is told of a queue of ours, once there is something new for the asker;
/// 421 if it isn't ours.
async fn told(
    State(internal): State<Arc<Internal>>,
    Signed((id, known)): Signed<(PerformanceId, Option<Followed>)>,
) -> Response {
    let app = &internal.app;
    let told = if app.node.queues.is_here(id.0) {
        app.told_of_queue(id, known).await
    } else {
        Err(Problem::store_unavailable())
    };
    // It may have left while that was waited for.
    if !app.node.queues.is_here(id.0) {
        let elsewhere = Elsewhere::told_by(&app.node.ownership, shard_of(id.0));
        return answer(StatusCode::MISDIRECTED_REQUEST, &elsewhere);
    }
    match told {
        Ok(copy) => answer(StatusCode::OK, &copy),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// How many seats of each timetable of ours are in which status.
async fn counts(State(internal): State<Arc<Internal>>, Signed(()): Signed<()>) -> Response {
    answer(StatusCode::OK, &internal.app.node.own_counts())
}

/// The actors of this node that stand after a place in the list.
async fn actors(
    State(internal): State<Arc<Internal>>,
    Signed((after, limit)): Signed<(Option<Place>, u64)>,
) -> Response {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let rows = internal.app.node.own_actors(after.as_ref(), limit);
    answer(StatusCode::OK, &rows)
}

/// What an entity of ours says of itself.
async fn observe(
    State(internal): State<Arc<Internal>>,
    Signed((kind, id)): Signed<(EntityKind, Uuid)>,
) -> Response {
    let seen = internal.app.node.observe_own(kind, id).await;
    answer(StatusCode::OK, &seen)
}

/// What the operators' page shows of this node, as JSON.
async fn ops(State(internal): State<Arc<Internal>>, Signed(since): Signed<u64>) -> Response {
    let shown = crate::http::admin::ops::snapshot(&internal.app, since);
    answer(StatusCode::OK, &shown)
}

/// Something has changed in the database.
async fn look(State(internal): State<Arc<Internal>>, Signed(()): Signed<()>) -> Response {
    if let Some(keeper) = internal.app.node.keeper.get() {
        keeper.look();
    }
    answer(StatusCode::OK, &())
}

fn answer<T: Serialize>(status: StatusCode, body: &T) -> Response {
    match postcard::to_stdvec(body) {
        Ok(bytes) => (status, Body::from(bytes)).into_response(),
        Err(error) => {
            tracing::error!(%error, "an internal answer could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A body that another node of the cluster has signed.
struct Signed<T>(T);

impl<T: DeserializeOwned> FromRequest<Arc<Internal>> for Signed<T> {
    type Rejection = StatusCode;

    async fn from_request(request: Request, state: &Arc<Internal>) -> Result<Self, StatusCode> {
        let path = request.uri().path().to_owned();
        let mac = request.headers().get(MAC_HEADER).map(|mac| mac.as_bytes());
        let mac = mac
            .and_then(|mac| BASE64_URL_SAFE_NO_PAD.decode(mac).ok())
            .ok_or(StatusCode::UNAUTHORIZED)?;
        let body: Bytes = axum::body::to_bytes(request.into_body(), BODY_MAX_BYTES)
            .await
            .map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
        let message = signed(&path, &body);
        if !state.app.keys.verify(Purpose::Internal, &message, &mac) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        postcard::from_bytes(&body)
            .map(Self)
            .map_err(|_| StatusCode::BAD_REQUEST)
    }
}

/// The ids of the last commands.
#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<Uuid, RandomState>,
    order: VecDeque<Uuid>,
}

impl Seen {
    fn is_first(&mut self, id: Uuid) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_id_is_new_once_and_the_memory_of_them_is_bounded() {
        let mut seen = Seen::default();
        let first = Uuid::now_v7();
        assert!(seen.is_first(first));
        assert!(!seen.is_first(first));
        for _ in 0..SEEN_MAX + 10 {
            assert!(seen.is_first(Uuid::now_v7()));
        }
        assert_eq!(seen.ids.len(), SEEN_MAX);
        assert_eq!(seen.order.len(), SEEN_MAX);
    }
}
