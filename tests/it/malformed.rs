//! Malformed input of every kind: a 4xx problem, and nothing changed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::common::process::{ServerProcess, Settings, sign_up};
use crate::harness::{Client, Scene, Show, TestServer, fresh_key, list};

/// A body that takes longer than its timeout (1 s in the test) is given up
/// before this.
const SLOW_BODY_LIMIT: Duration = Duration::from_secs(10);

/// A route that takes a body, and a body that it would take.
struct Route {
    method: Method,
    path: String,
    good: Value,
    admin: bool,
    body_max: usize,
}

const KIB: usize = 1_024;
const MIB: usize = 1_024 * KIB;

fn routes(scene: &Scene) -> Vec<Route> {
    let id = Uuid::now_v7();
    let route = |method: Method, path: String, good: Value, admin: bool| Route {
        body_max: if path == "/admin/venues" {
            8 * MIB
        } else {
            64 * KIB
        },
        method,
        path,
        good,
        admin,
    };
    let post = |path: &str, good: Value| route(Method::POST, path.to_owned(), good, false);
    let admin = |method: Method, path: String, good: Value| route(method, path, good, true);
    let timetable = &scene.timetable;
    let performance = &scene.performance;
    vec![
        post(
            "/users",
            json!({ "email": "a@example.com", "password": "a long password", "name": "A" }),
        ),
        post(
            "/sessions",
            json!({ "email": "a@example.com", "password": "a long password" }),
        ),
        post("/sessions/refresh", json!({ "refresh_token": "x" })),
        post(
            &format!("/timetables/{timetable}/holds"),
            json!({ "seat_ids": ["F1-A-1"] }),
        ),
        post(
            &format!("/holds/{id}/seats"),
            json!({ "seat_ids": ["F1-A-1"] }),
        ),
        post(
            "/orders",
            json!({ "hold_id": id, "payment": { "method": "wallet" } }),
        ),
        post("/wallet/charges", json!({ "amount": 5 })),
        route(
            Method::PATCH,
            "/me".to_owned(),
            json!({ "name": "A" }),
            false,
        ),
        admin(
            Method::POST,
            "/admin/venues".to_owned(),
            json!({ "name": "V", "sections": Show::small().sections }),
        ),
        admin(Method::POST, "/admin/performances".to_owned(), {
            let mut body = Show::small().body;
            body["venue_id"] = json!(scene.venue);
            body
        }),
        admin(
            Method::PATCH,
            format!("/admin/performances/{performance}"),
            json!({ "title": "T" }),
        ),
        admin(
            Method::POST,
            format!("/admin/performances/{performance}/timetables"),
            Show::small().body["timetables"][0].clone(),
        ),
        admin(
            Method::POST,
            format!("/admin/timetables/{timetable}/blocks"),
            json!({ "seat_ids": ["F1-A-1"] }),
        ),
        admin(
            Method::PUT,
            format!("/admin/users/{id}/roles"),
            json!({ "roles": ["customer"] }),
        ),
    ]
}

/// Sends everything wrong that a body can be to every route.
async fn send_all_wrong_bodies(buyer: &Client, admin: &Client, scene: &Scene) {
    for route in routes(scene) {
        let client = if route.admin { admin } else { buyer };
        let call = || {
            client
                .call(route.method.clone(), &route.path)
                .key(&fresh_key())
        };
        for bytes in [
            &b""[..],
            b"{",
            b"nul",
            b"{\"a\":1}x",
            b"\xff\xfe",
            b"{\"a\":\"\xc3\x28\"}",
            b"{\"a\":01}",
            b"\0\0\0\0",
        ] {
            let answer = call().raw(Some("application/json"), bytes).send().await;
            answer.assert_problem(400, "invalid-json");
        }
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        let answer = call().raw(Some("application/json"), deep).send().await;
        assert!(
            matches!(answer.status, 400 | 422),
            "{}: {}",
            answer.what,
            answer.text()
        );
        answer.assert_any_problem();
        for wrong in [
            json!([]),
            json!("text"),
            json!(7),
            json!(null),
            json!({ "surprise": 1 }),
        ] {
            call().json(&wrong).problem(422, "invalid-request").await;
        }
        let mut more = route.good.clone();
        more["surprise"] = json!(1);
        call().json(&more).problem(422, "invalid-request").await;
        for (member, value) in route.good.as_object().unwrap() {
            let mut wrong = route.good.clone();
            wrong[member] = if value.is_array() {
                json!(7)
            } else {
                json!([[]])
            };
            call().json(&wrong).problem(422, "invalid-request").await;
        }
        call()
            .raw(Some("text/plain"), route.good.to_string())
            .problem(415, "unsupported-media-type")
            .await;
        let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(route.body_max));
        call()
            .raw(Some("application/json"), huge)
            .problem(413, "payload-too-large")
            .await;
    }
}

/// Ids that are none, in every place of a path.
async fn send_all_wrong_ids(buyer: &Client, admin: &Client) {
    for id in [
        "x",
        "1",
        "-1",
        "%00",
        "%ff%fe",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "..%2f..%2fetc%2fpasswd",
        "'%20OR%201=1--",
        &"9".repeat(2_000),
    ] {
        for path in [
            format!("/performances/{id}"),
            format!("/performances/{id}/timetables"),
            format!("/timetables/{id}"),
            format!("/timetables/{id}/layout"),
            format!("/timetables/{id}/seats"),
            format!("/timetables/{id}/availability"),
            format!("/holds/{id}"),
            format!("/orders/{id}"),
            format!("/payments/{id}"),
            format!("/tickets/{id}"),
            format!("/tickets/{id}/qr.svg"),
        ] {
            let answer = buyer.get(&path).send().await;
            assert!(
                matches!(answer.status, 400 | 404 | 422),
                "{path}: {} {}",
                answer.status,
                answer.text()
            );
            answer.assert_any_problem();
        }
        let title = json!({ "title": "T" });
        let path = format!("/admin/performances/{id}");
        let answer = admin.patch(&path, &title).send().await;
        assert!(
            matches!(answer.status, 400 | 404 | 422),
            "{path}: {}",
            answer.status
        );
        answer.assert_any_problem();
    }
}

/// Query strings that mean nothing.
async fn send_all_wrong_queries(buyer: &Client) {
    for path in ["/performances", "/orders", "/tickets", "/wallet/entries"] {
        for query in [
            "limit=0",
            "limit=101",
            "limit=-1",
            "limit=abc",
            "limit=99999999999999999999",
            "cursor=%00",
            "cursor=not-a-cursor",
            "cursor=%ff",
        ] {
            let answer = buyer.get(&format!("{path}?{query}")).send().await;
            assert!(
                matches!(answer.status, 400 | 422),
                "{path}?{query}: {} {}",
                answer.status,
                answer.text()
            );
            answer.assert_any_problem();
        }
    }
    for query in [
        "from=yesterday",
        "status=nonsense",
        "sort=random",
        "to=2026-13-01T00:00:00Z",
    ] {
        let answer = buyer.get(&format!("/performances?{query}")).send().await;
        assert!(
            matches!(answer.status, 400 | 422),
            "{query}: {}",
            answer.status
        );
        answer.assert_any_problem();
    }
}

#[tokio::test]
async fn wrong_bodies_are_refused_on_every_route_and_change_nothing() {
    let server = TestServer::start().await;
    let scene = server.small().await;
    let (buyer, admin) = (server.buyer_with_money(500).await, server.admin());
    let before = server.anyone().map(&scene.timetable).await;
    send_all_wrong_bodies(&buyer, &admin, &scene).await;
    assert_eq!(server.anyone().map(&scene.timetable).await, before);
    assert_eq!(buyer.balance().await, 500);
    let page = server.anyone().get("/performances").ok(200).await;
    assert_eq!(list(&page, "items").len(), 1);
    assert_eq!(list(&buyer.get("/orders").ok(200).await, "items").len(), 0);
}

#[tokio::test]
async fn wrong_ids_and_queries_are_refused() {
    let server = TestServer::shared().await;
    send_all_wrong_ids(&server.buyer(), &server.admin()).await;
    send_all_wrong_queries(&server.buyer()).await;
}

#[tokio::test]
async fn a_body_without_a_content_type_is_read_as_json() {
    let buyer = TestServer::shared().await.buyer();
    for content_type in [
        None,
        Some("application/json"),
        Some("application/json; charset=utf-8"),
        Some("APPLICATION/JSON"),
    ] {
        let answer = buyer
            .call(Method::POST, "/wallet/charges")
            .raw(content_type, "{\"amount\":1}")
            .key(&fresh_key())
            .send()
            .await;
        answer.assert_status(201);
    }
    assert_eq!(buyer.balance().await, 4);
}

#[tokio::test]
async fn an_unknown_route_is_404_and_a_wrong_method_405() {
    let server = TestServer::shared().await;
    let anyone = server.anyone();
    for path in [
        "/api/v1/nothing",
        "/api/v2/performances",
        "/nothing",
        "/api",
        "/api/v1/",
    ] {
        anyone.root(path).problem(404, "not-found").await;
    }
    for (method, path, allowed) in [
        (Method::DELETE, "/performances", "GET"),
        (Method::PUT, "/orders", "POST"),
        (Method::GET, "/sessions", "POST"),
        (Method::PATCH, "/wallet", "GET"),
    ] {
        let answer = server.buyer().call(method, path).send().await;
        answer.assert_problem(405, "method-not-allowed");
        let allow = answer.header("allow").expect("Allow");
        assert!(allow.contains(allowed), "{path}: {allow}");
    }
}

/// What a server answers to raw bytes, up to its closing or `limit`.
fn raw_exchange(base: &str, request: &[u8], limit: Duration) -> Option<String> {
    let address = base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    // It may answer and close before it has read everything.
    let _ = stream.write_all(request);
    let deadline = Instant::now() + limit;
    let mut answer = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let left = deadline.checked_duration_since(Instant::now())?;
        stream
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))
            .unwrap();
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(_) => return None,
        }
        if answer.windows(4).any(|w| w == b"\r\n\r\n") {
            break;
        }
    }
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// A request head; the rest is up to the caller.
fn head(token: &str, more: &str) -> Vec<u8> {
    format!(
        "POST /api/v1/wallet/charges HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Idempotency-Key: raw\r\n{more}\r\n"
    )
    .into_bytes()
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let server = TestServer::start_with(|config| config.http.body_timeout_seconds = 1).await;
    let buyer = server.buyer();
    let base = server.base().to_owned();
    let mut request = head(buyer.token(), "Content-Length: 100\r\n");
    request.extend_from_slice(b"{\"amount\"");
    let answer =
        tokio::task::spawn_blocking(move || raw_exchange(&base, &request, SLOW_BODY_LIMIT))
            .await
            .unwrap()
            .expect("an answer or the end of the connection");
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
        "{answer}"
    );
    assert_eq!(buyer.balance().await, 0);
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let server = TestServer::shared().await;
    let buyer = server.buyer();
    let token = buyer.token();
    let requests = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        head(token, "Content-Length: -1\r\n"),
        head(token, "Content-Length: 5\r\nContent-Length: 6\r\n"),
        head(token, "Content-Length: 99999999999999999999\r\n"),
        head(token, "X-Bad: a\0b\r\n"),
        head(token, &format!("X-Big: {}\r\n", "x".repeat(1 << 20))),
    ];
    let base = server.base().to_owned();
    tokio::task::spawn_blocking(move || {
        for request in requests {
            let shown = String::from_utf8_lossy(&request[..request.len().min(80)]).into_owned();
            let answer = raw_exchange(&base, &request, SLOW_BODY_LIMIT)
                .unwrap_or_else(|| panic!("{shown}: nothing"));
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
                "{shown}: {answer}"
            );
        }
    })
    .await
    .unwrap();
    buyer.get("/wallet").ok(200).await;
}

#[tokio::test]
async fn malformed_input_is_nothing_that_the_log_calls_an_error() {
    let folder = TempDir::new().unwrap();
    let settings = Settings::in_folder(folder.path());
    let server = tokio::task::spawn_blocking(move || ServerProcess::start(&settings))
        .await
        .unwrap();
    let admin = server.admin().await;
    let buyer = sign_up(
        &server.client(),
        "buyer@example.com",
        "a long enough password",
    )
    .await;
    let scene = Show::small().open(&admin).await;
    send_all_wrong_bodies(&buyer, &admin, &scene).await;
    send_all_wrong_ids(&buyer, &admin).await;
    send_all_wrong_queries(&buyer).await;
    for line in server.log() {
        assert!(
            !line.contains("ERROR") && !line.contains("panicked"),
            "{line}"
        );
    }
}
