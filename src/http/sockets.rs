//! What all sockets have in common: their limits, their heartbeat, their end.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval};

use crate::clock::monotonic;

/// How often a socket is pinged, and after how long without a sign of life it
/// is dead (the HTTP contract).
const PING_EVERY: Duration = Duration::from_secs(20);
const DEAD_AFTER: Duration = Duration::from_secs(45);

/// A socket's maximum life.
const LIFE_MAX: Duration = Duration::from_secs(4 * 3600);

/// How long one frame may take to leave: a reader that doesn't read is not
/// waited for.
const SEND_MAX: Duration = Duration::from_secs(10);

/// What a client may send, in bytes: nothing but pongs and closes is expected.
const MESSAGE_BYTES_MAX: usize = 4096;

/// How many sockets there may be.
#[derive(Clone, Debug)]
pub struct Places(Arc<Semaphore>);

impl Places {
    /// So many.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Semaphore::new(max)))
    }

    /// A place, if there is one.
    #[must_use]
    pub fn try_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// An upgrade with small buffers: the default read buffer alone takes 128 KiB
/// a socket.
pub fn tuned(upgrade: WebSocketUpgrade, protocol: Option<String>) -> WebSocketUpgrade {
    let upgrade = upgrade
        .read_buffer_size(1024)
        .write_buffer_size(0)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX);
    match protocol {
        Some(protocol) => upgrade.protocols([Cow::<'static, str>::Owned(protocol)]),
        None => upgrade,
    }
}

/// Sends a frame; `false` if the socket is gone.
pub async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(
        tokio::time::timeout(SEND_MAX, socket.send(message)).await,
        Ok(Ok(()))
    )
}

/// Says why, and ends.
pub async fn close(mut socket: WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    send(&mut socket, Message::Close(Some(frame))).await;
}

/// What is to be done for a socket's heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beat {
    /// Ping it.
    Ping,
    /// It has given no sign of life.
    Dead,
    /// It has lived for long enough; the client may come again.
    Old,
}

/// A socket's heartbeat.
#[derive(Debug)]
pub struct Pulse {
    born: Instant,
    heard: Instant,
    every: Interval,
}

impl Pulse {
    /// The first beat is one interval from now.
    #[must_use]
    pub fn start() -> Self {
        let now = monotonic();
        Self {
            born: now,
            heard: now,
            every: tokio::time::interval_at(now + PING_EVERY, PING_EVERY),
        }
    }

    /// The client gave a sign of life.
    pub fn heard(&mut self) {
        self.heard = monotonic();
    }

    /// The next thing to do.
    pub async fn next(&mut self) -> Beat {
        let now = self.every.tick().await;
        match () {
            () if now.duration_since(self.heard) > DEAD_AFTER => Beat::Dead,
            () if now.duration_since(self.born) > LIFE_MAX => Beat::Old,
            () => Beat::Ping,
        }
    }
}
