//! What the benches of holds have in common.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::client::{Connection, Request};
use super::{
    BUYERS, Buyer, CONNECTIONS, Figures, Server, Times, assert_status, drive, member, seat_name,
};

/// The buyers and seats of one connection, which it goes round.
pub(crate) const ROUND: usize = BUYERS / CONNECTIONS;

/// What is asked for, and what the peer gives back.
#[derive(Serialize, Deserialize)]
pub(crate) struct Echo {
    seat_ids: Vec<String>,
}

/// Holds and releases in turn, on all connections, each its own seats; only 201
/// and 204 count.
pub(crate) async fn hold(
    server: &Server,
    buyers: &Arc<Vec<Buyer>>,
    timetable: &str,
    length: Duration,
) -> Figures {
    let path: Arc<str> = format!("/api/v1/timetables/{timetable}/holds").into();
    let end = Instant::now() + length;
    drive(server, CONNECTIONS, |number| {
        let mut connection = Connection::to(&server.target);
        let (buyers, path) = (Arc::clone(buyers), Arc::clone(&path));
        async move {
            let bodies: Vec<Vec<u8>> = (0..ROUND).map(|at| body(number * ROUND + at)).collect();
            let mut times = Times::new();
            let mut release = String::new();
            for at in (0..ROUND).cycle() {
                let sent = Instant::now();
                if sent >= end {
                    break;
                }
                let token = &buyers[number * ROUND + at].token;
                let request = Request::post(&path, &bodies[at]).by(token);
                let answer = connection.send(&request).await.unwrap();
                assert_status(&answer, 201);
                times.record(sent.elapsed());
                release.clear();
                release.push_str("/api/v1/holds/");
                release.push_str(member(answer.body, "hold_id"));
                let sent = Instant::now();
                let request = Request::delete(&release).by(token);
                let answer = connection.send(&request).await.unwrap();
                assert_status(&answer, 204);
                times.record(sent.elapsed());
            }
            times
        }
    })
    .await
}

/// The wish for a seat, as JSON.
pub(crate) fn body(seat: usize) -> Vec<u8> {
    let seat_ids = vec![seat_name(seat)];
    serde_json::to_vec(&Echo { seat_ids }).unwrap()
}
