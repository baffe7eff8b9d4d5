//! A bounded number of kept connections that many buyers share.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::client::{Connection, Request, Target};

/// How long an answer may take. The server gives up long before.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Connections to one server; as many requests are in flight at most.
#[derive(Debug)]
pub(crate) struct Pool {
    target: Target,
    slots: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

/// An answer, and how long it took from the first byte sent.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
    pub(crate) took: Duration,
}

impl Pool {
    pub(crate) fn new(target: Target, connections: usize) -> Self {
        Self {
            target,
            slots: Semaphore::new(connections),
            idle: Mutex::new(Vec::with_capacity(connections)),
        }
    }

    /// Sends `request` as soon as a connection is free.
    ///
    /// # Errors
    /// A line for a person; whether the request was carried out is unknown.
    pub(crate) async fn call(&self, request: &Request<'_>) -> Result<Reply, String> {
        let _slot = self.slots.acquire().await.map_err(|e| e.to_string())?;
        let mut connection = self
            .idle
            .lock()
            .pop()
            .unwrap_or_else(|| Connection::to(&self.target));
        let sent = Instant::now();
        let reply = match timeout(ANSWER_PATIENCE, connection.send(request)).await {
            Ok(Ok(answer)) => Ok(Reply {
                status: answer.status,
                retry_after: answer.retry_after.map(|s| Duration::from_secs(s.into())),
                body: answer.body.to_vec(),
                took: sent.elapsed(),
            }),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", ANSWER_PATIENCE.as_secs())),
        };
        self.idle.lock().push(connection);
        reply
    }

    /// Sends a request whose answer must be `status`, and reads it.
    ///
    /// # Errors
    /// A line for a person.
    pub(crate) async fn expect<T: serde::de::DeserializeOwned>(
        &self,
        status: u16,
        request: &Request<'_>,
    ) -> Result<T, String> {
        let reply = self.call(request).await?;
        let place = || format!("{} {}", request.method, request.path);
        if reply.status != status {
            let text = String::from_utf8_lossy(&reply.body);
            return Err(format!("{}: {} {text}", place(), reply.status));
        }
        serde_json::from_slice(&reply.body).map_err(|error| format!("{}: {error}", place()))
    }
}
