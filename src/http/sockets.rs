//! What all sockets have in common: their limits, their heartbeat, their end.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use dashmap::DashMap;
use foldhash::fast::RandomState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval};

use crate::clock::monotonic;
use crate::config;
use crate::domain::ids::UserId;

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

/// How many sockets there may be: in all, and of one user where they are
/// counted.
#[derive(Clone, Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    max: usize,
    of_users: Arc<DashMap<UserId, u32, RandomState>>,
    per_user_max: u32,
}

impl Places {
    /// As configured.
    #[must_use]
    pub fn new(config: &config::Http) -> Self {
        Self {
            max: config.sockets_max as usize,
            all: Arc::new(Semaphore::new(config.sockets_max as usize)),
            of_users: Arc::default(),
            per_user_max: config.sockets_per_user_max,
        }
    }

    /// A place, if there is one.
    #[must_use]
    pub fn try_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).try_acquire_owned().ok()
    }

    /// How many places are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.max.saturating_sub(self.all.available_permits())
    }

    /// A place among those of `user`, if there is one.
    #[must_use]
    pub fn try_place_of(&self, user: UserId) -> Option<UserPlace> {
        let mut taken = self.of_users.entry(user).or_insert(0);
        if *taken >= self.per_user_max {
            return None;
        }
        *taken += 1;
        Some(UserPlace {
            user,
            of_users: Arc::clone(&self.of_users),
        })
    }
}

/// A place among those of a user; given back when it is dropped.
#[derive(Debug)]
pub struct UserPlace {
    user: UserId,
    of_users: Arc<DashMap<UserId, u32, RandomState>>,
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        if let dashmap::Entry::Occupied(mut taken) = self.of_users.entry(self.user) {
            *taken.get_mut() = taken.get().saturating_sub(1);
            if *taken.get() == 0 {
                taken.remove();
            }
        }
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_sockets_of_a_user_are_counted_and_given_back() {
        let places = Places::new(&config::Http {
            sockets_per_user_max: 2,
            ..Config::default().http
        });
        let user = UserId(Uuid::now_v7());
        let first = places.try_place_of(user);
        let second = places.try_place_of(user);
        assert!(first.is_some() && second.is_some());
        assert!(places.try_place_of(user).is_none());
        assert!(places.try_place_of(UserId(Uuid::now_v7())).is_some());
        drop(first);
        assert!(places.try_place_of(user).is_some());
        drop(second);
        assert!(places.of_users.is_empty(), "nothing is kept of who left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_is_pinged_each_20_s_and_dead_after_45_s_of_silence() {
        let mut pulse = Pulse::start();
        let begun = monotonic();
        assert_eq!(pulse.next().await, Beat::Ping);
        assert_eq!(begun.elapsed(), PING_EVERY);
        assert_eq!(pulse.next().await, Beat::Ping);
        assert_eq!(pulse.next().await, Beat::Dead);
        pulse.heard();
        assert_eq!(pulse.next().await, Beat::Ping);
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_has_a_maximum_life_however_alive_it_is() {
        let mut pulse = Pulse::start();
        let begun = monotonic();
        loop {
            pulse.heard();
            match pulse.next().await {
                Beat::Ping => assert!(begun.elapsed() <= LIFE_MAX + PING_EVERY),
                Beat::Old => break,
                Beat::Dead => panic!("it was heard"),
            }
        }
        assert!(begun.elapsed() > LIFE_MAX);
    }
}
