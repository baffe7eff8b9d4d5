//! The HTTP interface. `router.rs` has all routes on one page; each family has
//! a file of handlers that extract, ask, and map.

pub mod accounts;
pub mod admin;
pub mod auth;
pub mod cancels;
pub mod catalogue;
pub mod code;
pub mod cors;
pub mod coupons;
pub mod edge;
pub mod error;
pub mod etag;
pub mod extract;
pub mod failed_sign_ins;
pub mod hold_id;
pub mod hold_token;
pub mod holds;
pub mod idempotency;
pub mod internal;
mod json;
pub mod live;
pub mod ops;
pub mod orders;
pub mod pages;
pub mod password;
pub mod problems;
pub mod queue;
pub mod queue_pass;
pub mod queue_tokens;
pub mod rates;
pub mod router;
pub mod schema;
pub mod seats;
pub mod signed;
pub mod sockets;
mod strict;
pub mod tickets;
pub mod tokens;
pub mod wallet;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use crate::app::App;

/// How long a client may take to send the head of a request.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// How long requests under way may take once the server is to end.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// How many connections the operations have, where they have a listener of their
/// own: those of probes, of Prometheus, of a few operators.
const OPERATIONS_CONNECTIONS_MAX: usize = 256;

/// How long to wait after accepting failed for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `app` on `listener` until `shutdown`; then takes no more
/// connections, answers what is under way, and returns. Without the operations,
/// where these have a listener of their own ([`serve_operations`]).
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = if app.config.ops.listen.is_empty() {
        router::router(Arc::clone(&app))
    } else {
        router::public_router(Arc::clone(&app))
    };
    let connections_max = app.config.http.connections_max as usize;
    let connections = take_until(shutdown, listener, router, connections_max).await;
    app.shutdown.send_replace(true);
    let _ = tokio::time::timeout(DRAIN_MAX, connections.shutdown()).await;
    Ok(())
}

/// Serves the operations on a listener of their own until `shutdown`, and all else
/// beside them: the operators' page asks the API where it comes from.
pub async fn serve_operations(
    listener: TcpListener,
    app: Arc<App>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let router = router::router(app);
    let connections = take_until(shutdown, listener, router, OPERATIONS_CONNECTIONS_MAX).await;
    let _ = tokio::time::timeout(DRAIN_MAX, connections.shutdown()).await;
}

/// Takes connections until `shutdown`; gives those that are open then.
async fn take_until(
    shutdown: impl Future<Output = ()> + Send + 'static,
    listener: TcpListener,
    router: Router,
    connections_max: usize,
) -> GracefulShutdown {
    let places = Arc::new(Semaphore::new(connections_max));
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX);
    server.http2().timer(TokioTimer::new());
    let connections = GracefulShutdown::new();
    tokio::pin!(shutdown);
    loop {
        let stream = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = &mut shutdown => break,
        };
        let (stream, place) = stream;
        let peer = stream.peer_addr().ok().map(ConnectInfo);
        // Who is not signed in is told from others by the address.
        let spoke = Arc::new(AtomicBool::new(false));
        let speaking = Arc::clone(&spoke);
        let service = router.clone().map_request(move |mut request: Request<_>| {
            speaking.store(true, Ordering::Relaxed);
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            request
        });
        let service = TowerToHyperService::new(service);
        let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let connection = connections.watch(connection.into_owned());
        tokio::spawn(async move {
            tokio::pin!(connection);
            let silent = async {
                tokio::time::sleep(HEAD_MAX).await;
                if spoke.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
            };
            // A client that breaks off, or never speaks, is its own affair.
            tokio::select! {
                _ = &mut connection => {}
                () = silent => {}
            }
            drop(place);
        });
    }
    connections
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (
    tokio::net::TcpStream,
    Option<tokio::sync::OwnedSemaphorePermit>,
) {
    // Never closed, so that there is always a place at last.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers must not wait for more to come.
                let _ = stream.set_nodelay(true);
                return (stream, place);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
