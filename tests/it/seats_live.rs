//! The seat map's socket.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use uuid::Uuid;

use crate::harness::{Show, TestServer, assert_map_adds_up, eventually, list, number, text};

/// A frame comes well before this.
const FRAME_LIMIT: Duration = Duration::from_secs(5);

type Stream =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

struct Socket(Stream);

impl Socket {
    /// Opens it, or gives the status of the refusal with its body.
    async fn open(
        server: &TestServer,
        path: &str,
        token: Option<&str>,
    ) -> Result<Self, (u16, Value)> {
        let url = format!("{}/api/v1{path}", server.base().replace("http", "ws"));
        let mut request = url.into_client_request().unwrap();
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((stream, _)) => Ok(Self(stream)),
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                let problem = serde_json::from_slice(body).unwrap_or(Value::Null);
                Err((response.status().as_u16(), problem))
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The next JSON frame.
    async fn next(&mut self) -> Value {
        let next = async {
            loop {
                match self.0.next().await.expect("the socket is open").unwrap() {
                    Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                    Message::Ping(_) | Message::Pong(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::time::timeout(FRAME_LIMIT, next)
            .await
            .expect("a frame in time")
    }
}

fn live(timetable: &str) -> String {
    format!("/timetables/{timetable}/seats/live")
}

#[tokio::test]
async fn a_socket_shows_the_map_and_then_its_changes() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let mut socket = Socket::open(server, &live(&scene.timetable), None)
        .await
        .unwrap();
    let snapshot = socket.next().await;
    assert_eq!(snapshot["type"], "snapshot");
    assert_map_adds_up(&snapshot);
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-2"]).await;
    let frame = socket.next().await;
    assert_eq!(frame["type"], "changes");
    assert_eq!(frame["changes"], json!([[1, "H"]]));
    assert!(number(&frame, "version") > number(&snapshot, "version"));
    buyer.order(text(&hold, "hold_id")).ok(201).await;
    let sold = socket.next().await;
    assert_eq!(sold["changes"], json!([[1, "S"]]));
    socket.0.close(None).await.unwrap();
}

#[tokio::test]
async fn many_changes_are_coalesced_to_ten_frames_a_second() {
    let server = TestServer::shared().await;
    let scene = server.open(&Show::grid(20, 20, 1_000)).await;
    let mut socket = Socket::open(server, &live(&scene.timetable), None)
        .await
        .unwrap();
    let snapshot = socket.next().await;
    let mut statuses: Vec<char> = text(&snapshot, "statuses").chars().collect();
    let started = Instant::now();
    let timetable = scene.timetable.clone();
    let writer = tokio::spawn(async move {
        let server = TestServer::shared().await;
        for row in ["A", "B", "C", "D", "E"] {
            for seat in 1..=20 {
                let id = format!("G-{row}-{seat}");
                server.buyer().hold_seats(&timetable, &[&id]).await;
            }
        }
    });
    let mut frames = 0;
    while statuses.iter().filter(|&&c| c == 'H').count() < 100 {
        let frame = socket.next().await;
        frames += 1;
        if frame["type"] == "snapshot" {
            statuses = text(&frame, "statuses").chars().collect();
            continue;
        }
        for change in list(&frame, "changes") {
            let index = usize::try_from(change[0].as_u64().unwrap()).unwrap();
            statuses[index] = change[1].as_str().unwrap().chars().next().unwrap();
        }
    }
    writer.await.unwrap();
    let tenths = started.elapsed().as_millis() / 100;
    assert!(
        frames <= tenths + 2,
        "{frames} frames in {tenths} tenths of a second"
    );
    let map = server.anyone().map(&scene.timetable).await;
    assert_eq!(statuses.iter().collect::<String>(), text(&map, "statuses"));
}

#[tokio::test]
async fn a_socket_is_refused_before_the_upgrade_with_a_problem() {
    let server = TestServer::shared().await;
    let unknown = Socket::open(server, &live(&Uuid::now_v7().to_string()), None).await;
    let (status, problem) = unknown.err().expect("a refusal");
    assert_eq!(status, 404);
    if !problem.is_null() {
        assert_eq!(problem["code"], "timetable-not-found");
    }
    let queued = server
        .open(&Show::small().with("queue", json!({ "preset": "bank-counter" })))
        .await;
    for path in [
        live(&queued.timetable),
        format!("{}?queue_pass=forged", live(&queued.timetable)),
    ] {
        let (status, _) = Socket::open(server, &path, None)
            .await
            .err()
            .expect("a refusal");
        assert_eq!(status, 403, "{path}");
    }
    let admin = server.admin();
    let socket = Socket::open(server, &live(&queued.timetable), Some(admin.token())).await;
    assert!(socket.is_ok(), "the map is free for admins");
    // Without an upgrade it isn't a route for reading.
    let scene = server.small().await;
    let answer = server.anyone().get(&live(&scene.timetable)).send().await;
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    answer.assert_any_problem();
}

#[tokio::test]
async fn what_a_client_sends_on_the_socket_harms_nobody() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let mut rude = Socket::open(server, &live(&scene.timetable), None)
        .await
        .unwrap();
    rude.next().await;
    for message in [
        Message::text("not json"),
        Message::binary(vec![0u8; 1_000]),
        Message::text("x".repeat(1 << 20)),
    ] {
        // It may close the socket; it must not take the server down.
        let _ = rude.0.send(message).await;
    }
    let mut other = Socket::open(server, &live(&scene.timetable), None)
        .await
        .unwrap();
    other.next().await;
    server
        .buyer()
        .hold_seats(&scene.timetable, &["F1-A-1"])
        .await;
    assert_eq!(other.next().await["type"], "changes");
}

#[tokio::test]
async fn behind_a_waiting_room_a_socket_needs_a_pass_and_ends_with_it() {
    let server = TestServer::shared().await;
    let show = Show::small().with("queue", json!({ "max_active": 10 }));
    let scene = server.open(&show).await;
    let buyer = server.buyer();
    let path = live(&scene.timetable);
    for path in [path.clone(), format!("{path}?queue_pass=forged")] {
        let refused = Socket::open(server, &path, Some(buyer.token())).await;
        let (status, problem) = refused.err().expect("no pass, no socket");
        assert_eq!(status, 403);
        assert!(text(&problem, "code").starts_with("queue-pass-"));
    }
    let queue = format!("/performances/{}/queue", scene.performance);
    buyer.post(&queue, &json!({})).ok(201).await;
    let pass = eventually("a pass", FRAME_LIMIT, || async {
        let state = buyer.get(&queue).ok(200).await;
        state["pass"].as_str().map(str::to_owned)
    })
    .await;
    let path = format!("{path}?queue_pass={pass}");
    let mut socket = Socket::open(server, &path, Some(buyer.token()))
        .await
        .unwrap();
    assert_eq!(socket.next().await["type"], "snapshot");
    buyer.delete(&queue).ok(204).await;
    let closed = async {
        loop {
            if let Message::Close(Some(frame)) = socket.0.next().await.unwrap().unwrap() {
                return u16::from(frame.code);
            }
        }
    };
    let code = tokio::time::timeout(FRAME_LIMIT, closed).await;
    assert_eq!(code.expect("closed in time"), 4403);
}
