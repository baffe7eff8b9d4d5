//! The live seat map over WebSockets.
//!
//! Changes of a timetable are coalesced and encoded once for all its sockets,
//! at most ten times a second; a socket that can't keep up skips to a snapshot.
//! Nothing is buffered for it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use dashmap::DashMap;
use serde::Serialize;
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::SocketCaller;
use super::error::{Answer, Code, Problem};
use super::extract::Path;
use super::queue_pass::{self, QueuePass};
use super::queue_tokens::Pass;
use super::seats::loaded_board;
use super::sockets;
use crate::actors::board::{Board, Changes};
use crate::app::App;
use crate::clock::monotonic;
use crate::domain::ids::TimetableId;
use crate::domain::plan::Plan;

/// The shortest time between two frames of changes: ten a second.
const FRAME_EVERY: Duration = Duration::from_millis(100);

/// How often a socket looks whether its pass is still good.
const PASS_EVERY: Duration = Duration::from_secs(1);

/// How often a socket looks whether its timetable has moved to another node.
const MOVED_EVERY: Duration = Duration::from_secs(1);

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(seats))
}

/// Live changes of a seat map: a `snapshot` frame, then `changes` frames.
#[utoipa::path(get, path = "/api/v1/timetables/{timetable_id}/seats/live", tag = "seats",
    params(("timetable_id" = TimetableId, Path), ("queue_pass" = Option<String>, Query)),
    responses((status = 101, description = "a WebSocket of JSON text frames"),
        (status = 426, description = "not a WebSocket request")))]
pub async fn seats(
    State(app): State<Arc<App>>,
    Path(id): Path<TimetableId>,
    caller: SocketCaller,
    request: Request,
) -> Answer<Response> {
    let sale = app.sale(id)?;
    let (mut parts, _body) = request.into_parts();
    let pass = if sale.belongs_to(caller.identity) {
        None
    } else {
        let user = caller.identity.map(|caller| caller.user_id);
        let shown = QueuePass::of_socket(&parts);
        queue_pass::check(&app, &sale, user, &shown).await?
    };
    let board = loaded_board(&app, &sale).await?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &app)
        .await
        .map_err(|rejection| Problem::new(Code::UpgradeRequired).detail(rejection.body_text()))?;
    let place = app.sockets.try_place().ok_or_else(Problem::overloaded)?;
    let upgrade = sockets::tuned(upgrade, caller.protocol);
    let shutdown = app.shutdown.subscribe();
    Ok(upgrade.on_upgrade(move |socket| async move {
        let _place = place;
        let frames = app.live.follow(&board);
        let plan = Arc::clone(&sale.plan);
        tokio::select! {
            () = follow(socket, frames, board, sale.layout_etag, shutdown, gone(&app, pass)) => {}
            () = refresh(&app, &plan) => {}
        }
    }))
}

/// Returns once the pass that a socket was opened with lets nobody in any more.
async fn gone(app: &App, pass: Option<Pass>) {
    let Some(pass) = pass else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(PASS_EVERY).await;
        let refused = queue_pass::still_good(app, &pass).await.err();
        // That it can't be told now is no reason to close it.
        if refused.is_some_and(|problem| problem.code().status() == StatusCode::FORBIDDEN) {
            return;
        }
    }
}

/// Keeps a copy of another node's map fresh, for as long as it is polled. Never
/// ends.
async fn refresh(app: &App, plan: &Plan) {
    if app.node.route.peers().is_none() {
        return std::future::pending().await;
    }
    loop {
        let is_here = app.node.timetables.is_here(plan.timetable_id.0);
        tokio::time::sleep(if is_here { MOVED_EVERY } else { FRAME_EVERY }).await;
        // While it is on its way to another node, the old map has to do. A map
        // that has come here is loaded by this.
        let _ = app.board(plan).await;
    }
}

/// Sends a snapshot, then changes, until the client leaves or the server ends.
async fn follow(
    mut socket: WebSocket,
    mut frames: watch::Receiver<Arc<Frame>>,
    board: Arc<Board>,
    layout_etag: Arc<str>,
    mut shutdown: watch::Receiver<bool>,
    gone: impl Future<Output = ()>,
) {
    tokio::pin!(gone);
    frames.mark_changed();
    let mut shown = 0;
    let mut pulse = sockets::Pulse::start();
    loop {
        tokio::select! {
            changed = frames.changed() => {
                if changed.is_err() {
                    return;
                }
                let frame = Arc::clone(&frames.borrow_and_update());
                let text = match () {
                    () if shown > 0 && frame.to <= shown => continue,
                    // Letters are absolute: the changes since an older version
                    // are right on top of a newer one.
                    () if shown > 0 && frame.from <= shown && !frame.text.is_empty() => {
                        shown = frame.to;
                        frame.text.clone()
                    }
                    () => {
                        let (version, text) = snapshot(&board, &layout_etag);
                        shown = version;
                        text
                    }
                };
                if !sockets::send(&mut socket, Message::Text(text)).await {
                    return;
                }
            }
            received = socket.recv() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => pulse.heard(),
            },
            beat = pulse.next() => match beat {
                sockets::Beat::Ping => {
                    if !sockets::send(&mut socket, Message::Ping(Bytes::new())).await {
                        return;
                    }
                }
                sockets::Beat::Dead => return,
                sockets::Beat::Old => return sockets::close(socket, 4408, "maximum life").await,
            },
            () = &mut gone => return sockets::close(socket, 4403, "pass gone").await,
            _ = shutdown.changed() => {
                return sockets::close(socket, 1001, "draining").await;
            }
        }
    }
}

/// The whole map as a frame: the body of `GET …/seats` with a `type`.
fn snapshot(board: &Board, layout_etag: &str) -> (u64, Utf8Bytes) {
    let (version, body) = board.whole(layout_etag);
    let body = std::str::from_utf8(&body).unwrap_or("{}");
    let mut text = String::with_capacity(body.len() + 20);
    text.push_str(r#"{"type":"snapshot","#);
    text.push_str(body.get(1..).unwrap_or_default());
    (version, text.into())
}

/// A frame of changes, shared by all sockets of a timetable.
#[derive(Debug, Default)]
pub struct Frame {
    /// The version that a reader must have for it.
    pub from: u64,
    /// The version that a reader has after it.
    pub to: u64,
    /// The frame.
    pub text: Utf8Bytes,
}

#[derive(Serialize)]
struct ChangesFrame {
    r#type: &'static str,
    version: u64,
    changes: Changes,
}

/// The frames of all timetables that have sockets.
#[derive(Clone, Debug, Default)]
pub struct LiveMaps {
    frames: Arc<DashMap<TimetableId, Arc<watch::Sender<Arc<Frame>>>>>,
}

impl LiveMaps {
    /// The frames of a board. The first reader starts the encoder, which ends
    /// after the last one.
    fn follow(&self, board: &Arc<Board>) -> watch::Receiver<Arc<Frame>> {
        let sender = self.frames.entry(board.id()).or_insert_with(|| {
            let version = *board.versions().borrow();
            let first = Frame {
                from: version,
                to: version,
                text: Utf8Bytes::default(),
            };
            let sender = Arc::new(watch::Sender::new(Arc::new(first)));
            tokio::spawn(encode(self.clone(), Arc::clone(board), Arc::clone(&sender)));
            sender
        });
        // Under the entry's lock, so that the encoder can't end in between.
        sender.subscribe()
    }
}

/// Encodes the changes of a board, for as long as it has readers.
async fn encode(maps: LiveMaps, board: Arc<Board>, frames: Arc<watch::Sender<Arc<Frame>>>) {
    let mut versions = board.versions();
    let mut shown = frames.borrow().to;
    loop {
        tokio::select! {
            () = frames.closed() => {
                let alone = |_: &TimetableId, sender: &Arc<watch::Sender<_>>| {
                    sender.receiver_count() == 0
                };
                if maps.frames.remove_if(&board.id(), alone).is_some() {
                    return;
                }
            }
            changed = versions.wait_for(|version| *version != shown) => if changed.is_err() { return },
        }
        let begun = monotonic();
        let frame = match board.since(shown) {
            Some((version, changes)) => {
                let frame = ChangesFrame {
                    r#type: "changes",
                    version,
                    changes,
                };
                let text = serde_json::to_string(&frame).unwrap_or_default();
                Frame {
                    from: shown,
                    to: version,
                    text: text.into(),
                }
            }
            // Too much has changed, or it was reloaded: everybody gets a
            // snapshot, because nobody's version fits.
            None => {
                let version = *versions.borrow();
                Frame {
                    from: version,
                    to: version,
                    text: Utf8Bytes::default(),
                }
            }
        };
        if frame.to != shown {
            shown = frame.to;
            frames.send_replace(Arc::new(frame));
        }
        tokio::time::sleep_until(begun + FRAME_EVERY).await;
    }
}
