//! Operations: health, metrics, the API's own description, request ids.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::harness::TestServer;

/// The calls of the contract that exist now, as OpenAPI writes paths.
const CALLS: &[(&str, &str)] = &[
    ("post", "/users"),
    ("post", "/sessions"),
    ("post", "/sessions/refresh"),
    ("delete", "/sessions/current"),
    ("get", "/me"),
    ("patch", "/me"),
    ("delete", "/me"),
    ("get", "/me/export"),
    ("get", "/me/holds"),
    ("get", "/categories"),
    ("get", "/performances"),
    ("get", "/performances/{}"),
    ("get", "/performances/ranking"),
    ("get", "/performances/{}/timetables"),
    ("get", "/timetables/{}"),
    ("get", "/timetables/{}/layout"),
    ("get", "/timetables/{}/seats"),
    ("get", "/timetables/{}/availability"),
    ("get", "/timetables/{}/seats/live"),
    ("post", "/timetables/{}/holds"),
    ("get", "/holds/{}"),
    ("delete", "/holds/{}"),
    ("post", "/holds/{}/seats"),
    ("delete", "/holds/{}/seats/{}"),
    ("post", "/orders"),
    ("get", "/orders"),
    ("get", "/orders/{}"),
    ("post", "/orders/{}/cancel"),
    ("get", "/payments/{}"),
    ("get", "/wallet"),
    ("get", "/wallet/entries"),
    ("post", "/wallet/charges"),
    ("get", "/tickets"),
    ("get", "/tickets/{}"),
    ("get", "/tickets/{}/qr.svg"),
    ("get", "/tickets/keys"),
    ("post", "/admin/venues"),
    ("post", "/admin/performances"),
    ("get", "/admin/performances"),
    ("patch", "/admin/performances/{}"),
    ("delete", "/admin/performances/{}"),
    ("post", "/admin/performances/{}/restore"),
    ("post", "/admin/performances/{}/timetables"),
    ("post", "/admin/orders/{}/refund"),
    ("post", "/admin/timetables/{}/blocks"),
    ("delete", "/admin/timetables/{}/blocks"),
    ("put", "/admin/performances/{}/queue"),
    ("put", "/admin/users/{}/roles"),
    ("get", "/admin/users"),
    ("get", "/admin/actors"),
    ("get", "/admin/actors/{}/{}"),
    ("get", "/admin/ops"),
    ("get", "/admin/cluster"),
    ("get", "/admin/dead-letters"),
    ("post", "/admin/dead-letters/{}/requeue"),
];

/// A path with `{}` for every parameter, whatever its name.
fn without_names(path: &str) -> String {
    path.split('/')
        .map(|part| if part.starts_with('{') { "{}" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

async fn documented(server: &TestServer) -> BTreeSet<(String, String)> {
    let document = server.anyone().root("/openapi.json").ok(200).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut calls = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.strip_prefix("/api/v1").unwrap_or(path);
        for method in item.as_object().unwrap().keys() {
            if matches!(method.as_str(), "get" | "post" | "put" | "patch" | "delete") {
                calls.insert((method.clone(), path.to_owned()));
            }
        }
    }
    calls
}

#[tokio::test]
async fn the_process_lives_and_is_ready() {
    let server = TestServer::shared().await;
    server
        .anyone()
        .root("/healthz")
        .send()
        .await
        .assert_status(200);
    let ready = server.anyone().root("/readyz").ok(200).await;
    assert_eq!(ready, json!({ "ready": true, "reasons": [] }));
}

#[tokio::test]
async fn metrics_are_in_the_text_format_and_count_what_happened() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    buyer.order(hold["hold_id"].as_str().unwrap()).ok(201).await;
    let answer = server.anyone().root("/metrics").send().await;
    answer.assert_status(200);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    let metrics = answer.text();
    for part in ["http", "actor", "mailbox", "flush", "gate", "hold"] {
        assert!(
            metrics
                .lines()
                .any(|line| line.starts_with("onsale_") && line.contains(part)),
            "nothing about {part:?} in:\n{metrics}"
        );
    }
    // A route is counted by its pattern, never by what a client put in it.
    assert!(!metrics.contains(&scene.timetable));
    for line in metrics
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let value = line.rsplit(' ').next().unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

#[tokio::test]
async fn the_description_lists_every_call_of_the_contract() {
    let server = TestServer::shared().await;
    let documented: BTreeSet<(String, String)> = documented(server)
        .await
        .into_iter()
        .map(|(method, path)| (method, without_names(&path)))
        .collect();
    let missing: Vec<_> = CALLS
        .iter()
        .filter(|(method, path)| !documented.contains(&((*method).to_owned(), (*path).to_owned())))
        .collect();
    assert!(missing.is_empty(), "not described: {missing:?}");
}

#[tokio::test]
async fn every_described_call_exists_and_no_other_method_does() {
    let server = TestServer::shared().await;
    let documented = documented(server).await;
    let paths: BTreeSet<&String> = documented.iter().map(|(_, path)| path).collect();
    for path in paths {
        let concrete: String = path
            .split('/')
            .map(|part| match part {
                _ if part.starts_with('{') => Uuid::now_v7().to_string(),
                _ => part.to_owned(),
            })
            .collect::<Vec<_>>()
            .join("/");
        for method in ["get", "post", "put", "patch", "delete"] {
            let call = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let answer = if root_path(path) {
                server.anyone().call_at(call, &concrete).send().await
            } else {
                server.anyone().call(call, &concrete).send().await
            };
            let described = documented.contains(&(method.to_owned(), path.clone()));
            if described {
                assert_ne!(answer.status, 405, "{method} {path}");
                // A picture has no problem code of its own.
                if answer.status == 404 && !path.ends_with("/poster") {
                    assert_ne!(answer.json()["code"], "not-found", "{method} {path}");
                }
            } else {
                let shadowed = documented
                    .iter()
                    .any(|(m, other)| m == method && covers(other, path));
                assert!(
                    shadowed || answer.status == 405,
                    "{method} {path} isn't described but answers {}",
                    answer.status
                );
            }
            assert!(answer.status < 500, "{method} {path}: {}", answer.text());
        }
    }
}

/// Whether the pattern `other` also matches the literal parts of `path`.
fn covers(other: &str, path: &str) -> bool {
    let (other, path): (Vec<_>, Vec<_>) = (other.split('/').collect(), path.split('/').collect());
    other.len() == path.len()
        && other
            .iter()
            .zip(&path)
            .all(|(o, p)| o == p || o.starts_with('{') || p.starts_with('{'))
}

fn root_path(path: &str) -> bool {
    [
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/problems",
        "/api",
    ]
    .iter()
    .any(|root| path.starts_with(root))
        || path == "/"
}

#[tokio::test]
async fn every_problem_has_a_page_at_its_type() {
    let server = TestServer::shared().await;
    let problem = server
        .anyone()
        .get("/wallet")
        .problem(401, "unauthorized")
        .await;
    let page = server
        .anyone()
        .root(problem["type"].as_str().unwrap())
        .send()
        .await;
    page.assert_status(200);
    assert!(page.text().contains("unauthorized"));
    for code in [
        "invalid-json",
        "invalid-request",
        "not-found",
        "overloaded",
        "store-unavailable",
        "rate-limited",
        "idempotency-key-required",
        "idempotency-key-reused",
        "idempotency-key-in-use",
        "email-taken",
        "bad-credentials",
        "session-revoked",
        "sale-not-open",
        "sale-closed",
        "seat-limit-exceeded",
        "unknown-seat",
        "seat-unavailable",
        "no-seats-match",
        "timetable-not-found",
        "hold-not-found",
        "hold-expired",
        "hold-already-ordered",
        "insufficient-balance",
        "coupon-not-usable",
        "currency-mismatch",
        "payment-gateway-unavailable",
        "queue-pass-required",
        "performance-has-orders",
    ] {
        let page = server
            .anyone()
            .root(&format!("/problems/{code}"))
            .send()
            .await;
        assert_eq!(page.status, 200, "{code}");
        assert!(page.text().contains(code), "{code}");
    }
    assert_eq!(
        server
            .anyone()
            .root("/problems/no-such")
            .send()
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn a_problem_reads_as_the_contract_says() {
    let server = TestServer::shared().await;
    let scene = server.small().await;
    server
        .buyer()
        .hold_seats(&scene.timetable, &["F1-A-1"])
        .await;
    let problem = server
        .buyer()
        .hold(&scene.timetable, &json!({ "seat_ids": ["F1-A-1"] }))
        .problem(409, "seat-unavailable")
        .await;
    insta::assert_json_snapshot!("problem", problem, {
        ".request_id" => "[id]",
        ".title" => "[text]",
        ".detail" => "[text]",
    });
}

#[tokio::test]
async fn every_answer_carries_a_request_id() {
    let anyone = TestServer::shared().await.anyone();
    let given = anyone
        .get("/categories")
        .header("x-request-id", "my-request.1")
        .send()
        .await;
    assert_eq!(given.header("x-request-id"), Some("my-request.1"));
    for bad in ["x".repeat(129), "a b".to_owned(), "caf\u{e9}".to_owned()] {
        let answer = anyone
            .get("/categories")
            .header("x-request-id", &bad)
            .send()
            .await;
        let id = answer.header("x-request-id").expect("an id");
        assert!(id != bad && !id.is_empty() && id.len() <= 128, "{id}");
    }
    for path in ["/healthz", "/nothing", "/openapi.json"] {
        let answer = anyone.root(path).send().await;
        assert!(answer.header("x-request-id").is_some(), "{path}");
    }
    let (first, second) = (
        anyone.get("/categories").send().await,
        anyone.get("/categories").send().await,
    );
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

#[tokio::test]
async fn browsers_of_other_sites_are_not_let_in_by_default() {
    let anyone = TestServer::shared().await.anyone();
    let answer = anyone
        .get("/categories")
        .header("origin", "https://evil.example")
        .send()
        .await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn the_documentation_is_a_page() {
    let anyone = TestServer::shared().await.anyone();
    let mut answer = anyone.root("/docs").send().await;
    if (300..400).contains(&answer.status) {
        let location = answer.header("location").unwrap().to_owned();
        answer = anyone.root(&location).send().await;
    }
    answer.assert_status(200);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
}

#[tokio::test]
async fn a_personal_answer_is_never_stored_by_a_cache() {
    let buyer = TestServer::shared().await.buyer();
    for path in ["/orders", "/tickets", "/me/holds", "/wallet/entries"] {
        let answer = buyer.get(path).send().await;
        answer.assert_status(200);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        let empty = json!({ "items": [], "next_cursor": null });
        assert_eq!(answer.json(), empty, "{path}");
    }
}

#[tokio::test]
async fn a_server_that_stops_answers_what_is_under_way() {
    let server = TestServer::start().await;
    let buyer = server.buyer();
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let buyer = buyer.clone();
            tokio::spawn(async move {
                buyer
                    .post("/wallet/charges", &json!({ "amount": 1 }))
                    .key(&crate::harness::fresh_key())
                    .try_send()
                    .await
            })
        })
        .collect();
    buyer.charge(1).await;
    let token = buyer.token().to_owned();
    let server = server.restart().await;
    let mut charged = 1;
    for call in calls {
        match call.await.unwrap() {
            Ok(answer) if answer.status == 201 => charged += 1,
            Ok(answer) => drop(answer.assert_problem(503, "overloaded")),
            // Not connected before the listener closed.
            Err(error) => assert!(error.is_connect() || error.is_request(), "{error:?}"),
        }
    }
    let balance = server.anyone().with_token(&token).balance().await;
    assert!(balance >= charged, "{balance} of {charged} acknowledged");
    server.stop().await;
}
