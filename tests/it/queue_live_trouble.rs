//! The waiting room's socket while the queue can't be asked.

use std::time::Duration;

use onsale::domain::queue::{Command, SeatsLeft};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use crate::harness::{Scene, TestServer};
use crate::queue_live::{behind, join, joined};
use crate::socket::{Heard, Socket};

/// Longer than a socket waits for its queue, and shorter than one that gives no
/// sign of life is kept.
const PATIENCE: Duration = Duration::from_secs(40);

/// A socket of somebody who waits, after its first tick.
async fn waiting(server: &TestServer) -> (Scene, Socket) {
    let scene = behind(server, json!({ "max_active": 1 })).await;
    joined(server, &scene).await;
    let (_second, mut socket) = joined(server, &scene).await;
    join(&server.buyer(), &scene).await;
    socket.tick().await;
    (scene, socket)
}

fn id(scene: &Scene) -> Uuid {
    scene.performance.parse().unwrap()
}

/// Takes all places at the door of a queue: who asks is refused.
async fn crowd(server: &TestServer, scene: &Scene) -> OwnedSemaphorePermit {
    let queues = &server.app().node.queues;
    let host = queues.directory().running(id(scene)).unwrap();
    let all = server.app().config.queue.permits_max;
    host.permits.acquire_many_owned(all).await.unwrap()
}

/// Something happens that everybody must be told of: an operator isn't kept
/// out.
async fn tell(server: &TestServer, scene: &Scene, command: Command) {
    let queues = &server.app().node.queues;
    let told = queues.resume(id(scene), command).await.unwrap();
    assert!(told.is_ok());
}

#[tokio::test]
async fn a_socket_whose_queue_cannot_be_asked_for_long_is_closed_with_1013() {
    let server = TestServer::start().await;
    let (scene, mut socket) = waiting(&server).await;
    let crowd = crowd(&server, &scene).await;
    tell(&server, &scene, Command::Pause).await;
    // The half minute passes at once.
    tokio::time::pause();
    let code = loop {
        match socket.next_within(PATIENCE).await {
            Heard::Frame(frame) => assert_eq!(frame["type"], "tick", "{frame}"),
            Heard::Closed(code) => break code,
        }
    };
    tokio::time::resume();
    assert_eq!(code, 1013);
    drop(crowd);
    server.stop().await;
}

#[tokio::test]
async fn a_socket_that_has_skipped_ticks_is_told_the_whole_again() {
    let server = TestServer::start().await;
    let (scene, mut socket) = waiting(&server).await;
    let seats = |held| {
        Command::Seats(SeatsLeft {
            available: 80,
            held,
        })
    };
    let crowd = crowd(&server, &scene).await;
    tell(&server, &scene, Command::Pause).await;
    // It asks in vain meanwhile, and nobody keeps its ticks.
    for held in 1..=8 {
        tell(&server, &scene, seats(held)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    drop(crowd);
    tell(&server, &scene, seats(9)).await;
    let is_state = |frame: &Value| frame["type"] == "state";
    let state = socket
        .until("a state, though it is the same", is_state)
        .await;
    assert_eq!(
        (&state["state"], &state["number"]),
        (&json!("waiting"), &json!(2))
    );
    let figures = server.app().queue_feeds.figures();
    assert!(
        figures.iter().any(|(_, _, dropped)| *dropped >= 5),
        "{figures:?}"
    );
    server.stop().await;
}
