//! A client of live sockets.

#![allow(dead_code, reason = "each binary of tests uses its part of it")]

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::common::client::Client;

/// A frame comes well before this.
pub(crate) const FRAME_LIMIT: Duration = Duration::from_secs(10);

type Stream =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// An open socket.
pub(crate) struct Socket(Stream);

/// What comes on one.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Heard {
    Frame(Value),
    Closed(u16),
}

impl Socket {
    /// Opens it for the client's user, or gives the status of the refusal with
    /// its problem.
    pub(crate) async fn open(client: &Client, path: &str) -> Result<Self, (u16, Value)> {
        Self::open_with(
            client,
            path,
            &[("authorization", &format!("Bearer {}", client.token()))],
        )
        .await
        .map(|(socket, _)| socket)
    }

    /// Opens it with these headers and no others; also gives the subprotocol
    /// that was accepted.
    pub(crate) async fn open_with(
        client: &Client,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(Self, Option<String>), (u16, Value)> {
        let base = client.base().replace("http://", "ws://");
        let url = format!("{base}/api/v1{path}");
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((stream, answer)) => {
                let protocol = answer.headers().get("sec-websocket-protocol");
                let protocol = protocol.map(|name| name.to_str().unwrap().to_owned());
                Ok((Self(stream), protocol))
            }
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                let problem = serde_json::from_slice(body).unwrap_or(Value::Null);
                Err((response.status().as_u16(), problem))
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The next frame, or the end; pings are answered on the way.
    pub(crate) async fn next(&mut self) -> Heard {
        self.next_within(FRAME_LIMIT).await
    }

    /// The same, where a frame may take longer.
    pub(crate) async fn next_within(&mut self, limit: Duration) -> Heard {
        let next = async {
            loop {
                match self.0.next().await.expect("the socket is open").unwrap() {
                    Message::Text(text) => {
                        return Heard::Frame(serde_json::from_str(&text).unwrap());
                    }
                    Message::Close(frame) => {
                        return Heard::Closed(frame.map_or(1005, |frame| frame.code.into()));
                    }
                    Message::Ping(_) | Message::Pong(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::time::timeout(limit, next)
            .await
            .expect("a frame in time")
    }

    /// The next frame.
    pub(crate) async fn frame(&mut self) -> Value {
        match self.next().await {
            Heard::Frame(frame) => frame,
            Heard::Closed(code) => panic!("closed: {code}"),
        }
    }

    /// The next frame that is as wanted.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let frame = self.frame().await;
            if wanted(&frame) {
                return frame;
            }
            assert!(begun.elapsed() < 3 * FRAME_LIMIT, "{what}: at last {frame}");
        }
    }

    /// The next `state` frame with this state.
    pub(crate) async fn state(&mut self, state: &str) -> Value {
        let wanted = |frame: &Value| frame["type"] == "state" && frame["state"] == state;
        self.until(state, wanted).await
    }

    /// The next `tick` frame.
    pub(crate) async fn tick(&mut self) -> Value {
        self.until("tick", |frame| frame["type"] == "tick").await
    }

    /// The code that it is closed with; frames before that don't matter.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            if let Heard::Closed(code) = self.next().await {
                return code;
            }
        }
    }

    /// Says something that nobody asked for.
    pub(crate) async fn say(&mut self, message: Message) -> Result<(), Error> {
        self.0.send(message).await
    }
}
