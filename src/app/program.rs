//! What the commands of the program do.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{App, StartError};
use crate::config::{self, Config};
use crate::persistence::Store;
use crate::persistence::lock::DataLock;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4_096;

/// Runs the server until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`]
pub async fn serve(config: Config, demo: bool) -> Result<(), StartError> {
    let (listener, local) = listen_on(&config.http.listen).await?;
    let operations = match config.ops.listen.as_str() {
        "" => None,
        address => Some(listen_on(address).await?),
    };
    let admin = (config.admin.email.clone(), config.admin.password.clone());
    let app = App::open(config).await?;
    if let (Some(email), Some(password)) = admin {
        ensure_admin(&app, &email, password.expose()).await?;
    }
    if demo {
        crate::demo::seed(&app, local).await?;
    }
    let terminated = terminated();
    let operations = operations.map(|(listener, local)| {
        announce("operations", local);
        // To the end of the other: probes learn there that it drains.
        let (until, over) = tokio::sync::oneshot::channel::<()>();
        let over = async move {
            // Its sender is dropped: that is the sign.
            let _ = over.await;
        };
        let served = crate::http::serve_operations(listener, Arc::clone(&app), over);
        (tokio::spawn(served), until)
    });
    announce("listening", local);
    let ending = {
        let app = Arc::clone(&app);
        async move {
            terminated.await;
            app.leave().await;
        }
    };
    let served = crate::http::serve(listener, Arc::clone(&app), ending).await;
    if let Some((operations, until)) = operations {
        drop(until);
        // It ends by itself; what it had under way is answered.
        let _ = operations.await;
    }
    app.shutdown().await;
    served.map_err(|error| StartError::Other(error.to_string()))
}

/// Applies the migrations.
///
/// # Errors
/// [`StartError`]
pub async fn migrate(config: Config) -> Result<(), StartError> {
    let _lock = DataLock::take(&config.node.data_dir)?;
    let settings = config::Store {
        migrate: true,
        ..config.store
    };
    let store = Store::open(&settings).await?;
    store.close().await;
    Ok(())
}

/// Makes an admin without a server.
///
/// # Errors
/// [`StartError`]
pub async fn create_admin(config: Config, email: &str, password: &str) -> Result<(), StartError> {
    let app = App::open(config).await?;
    let made = ensure_admin(&app, email, password).await;
    // In a cluster it was a node for a moment.
    app.leave().await;
    app.shutdown().await;
    made
}

/// Makes an admin; the password counts only for a new account.
///
/// # Errors
/// If the store refuses, or e-mail or password are not acceptable.
pub async fn ensure_admin(app: &App, email: &str, password: &str) -> Result<(), StartError> {
    app.accounts
        .ensure_admin(email, password)
        .await
        .map(|_| ())
        .map_err(|error| StartError::Other(format!("the admin {email}: {error}")))
}

/// Listens on `address`, and says where that is.
async fn listen_on(address: &str) -> Result<(tokio::net::TcpListener, SocketAddr), StartError> {
    let unusable = |source| StartError::Listen {
        address: address.to_owned(),
        source,
    };
    let listener = listen(address).await.map_err(unusable)?;
    let local = listener.local_addr().map_err(unusable)?;
    Ok((listener, local))
}

/// Listens on `address` with a long line: a thousand buyers connect in the same
/// instant, and whom the kernel turns away tries again only after a second.
async fn listen(address: &str) -> std::io::Result<tokio::net::TcpListener> {
    let mut refused = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in tokio::net::lookup_host(address).await? {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// A line for each listener; scripts wait for the last.
#[allow(
    clippy::print_stdout,
    reason = "what the program says to who started it"
)]
fn announce(what: &str, local: SocketAddr) {
    println!("{what} on http://{local}");
}

/// Resolves when the process is told to end. From this call on, not only from
/// its first poll: who has read that it listens may tell it at once.
fn terminated() -> impl Future<Output = ()> + Send {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    async move {
        let (Ok(mut term), Ok(mut int)) = signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("draining: answering what is under way, then ending");
    }
}
