use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use crate::config::Config;
use crate::http::error::Answer;
use crate::http::extract::Json;

fn router(change: impl FnOnce(&mut Http)) -> Router {
    let mut http = Config::default().http;
    change(&mut http);
    Router::new()
        .route(
            "/ok/{id}",
            get(async || Json("fine")).post(async || StatusCode::NO_CONTENT),
        )
        .route(
            "/public",
            get(async || ([(header::CACHE_CONTROL, "max-age=1")], "public")),
        )
        .route(
            "/taken",
            get(async || Answer::<()>::Err(Problem::new(Code::SeatUnavailable))),
        )
        .route(
            "/broken",
            get(async || Answer::<()>::Err(Problem::internal_text("SELECT secret"))),
        )
        .route("/panics", get(async || -> Answer<()> { panic!("secret") }))
        .route("/stuck", get(std::future::pending::<()>))
        .route("/plain", post(async |body: String| body))
        .route(
            "/unready",
            get(async || (StatusCode::SERVICE_UNAVAILABLE, Json(false)).into_response()),
        )
        .with_state(())
        .layer(EdgeLayer::new(&http))
}

async fn ask(router: Router, request: Request) -> (StatusCode, HeaderMap, Value) {
    let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (
        parts.status,
        parts.headers,
        serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    )
}

async fn get_path(path: &str) -> (StatusCode, HeaderMap, Value) {
    ask(
        router(|_| ()),
        Request::get(path).body(Body::empty()).unwrap(),
    )
    .await
}

#[tokio::test]
async fn a_request_keeps_its_callers_id_or_gets_a_new_one() {
    for (given, kept) in [
        ("abc-1", true),
        (&*"x".repeat(128), true),
        (&*"x".repeat(129), false),
        ("a b", false),
        ("", false),
    ] {
        let request = Request::get("/ok/1")
            .header(X_REQUEST_ID, given)
            .body(Body::empty())
            .unwrap();
        let (_, headers, _) = ask(router(|_| ()), request).await;
        assert_eq!(headers[X_REQUEST_ID] == given, kept, "{given}");
        assert!(!headers[X_REQUEST_ID].is_empty());
    }
    let router = router(|_| ());
    let one = ask(
        router.clone(),
        Request::get("/ok/1").body(Body::empty()).unwrap(),
    )
    .await
    .1;
    let two = ask(router, Request::get("/ok/1").body(Body::empty()).unwrap())
        .await
        .1;
    assert_ne!(one[X_REQUEST_ID], two[X_REQUEST_ID]);
}

#[tokio::test]
async fn a_problem_is_rendered_with_the_id_of_its_request() {
    let (status, headers, body) = get_path("/taken").await;
    assert_eq!(status, 409);
    assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(body["code"], "seat-unavailable");
    assert_eq!(body["request_id"].as_str().unwrap(), headers[X_REQUEST_ID]);
}

#[tokio::test]
async fn an_unknown_route_is_a_404_problem_and_a_wrong_method_a_405_that_says_what_is_allowed() {
    let (status, _, body) = get_path("/nowhere").await;
    assert_eq!(
        (status.as_u16(), body["code"].as_str()),
        (404, Some("not-found"))
    );
    let request = Request::delete("/ok/1").body(Body::empty()).unwrap();
    let (status, headers, body) = ask(router(|_| ()), request).await;
    assert_eq!(
        (status.as_u16(), body["code"].as_str()),
        (405, Some("method-not-allowed"))
    );
    assert_eq!(headers[header::ALLOW], "GET,HEAD,POST");
}

#[tokio::test]
async fn a_panicking_handler_is_a_500_that_tells_nothing_and_the_next_request_is_served() {
    let router = router(|_| ());
    for path in ["/panics", "/broken"] {
        let (status, _, body) = ask(
            router.clone(),
            Request::get(path).body(Body::empty()).unwrap(),
        )
        .await;
        assert_eq!(
            (status.as_u16(), body["code"].as_str()),
            (500, Some("internal"))
        );
        assert!(!body.to_string().contains("secret"), "{body}");
    }
    assert_eq!(
        ask(router, Request::get("/ok/1").body(Body::empty()).unwrap())
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_all_the_same() {
    let impatient = router(|http| http.request_timeout_seconds = 0);
    let (status, _, body) = ask(
        impatient,
        Request::get("/stuck").body(Body::empty()).unwrap(),
    )
    .await;
    assert_eq!(
        (status.as_u16(), body["code"].as_str()),
        (504, Some("answer-timeout"))
    );
}

#[tokio::test]
async fn plain_refusals_become_problems_and_json_ones_stay_as_they_are() {
    let request = Request::post("/plain")
        .body(Body::from(vec![0xff]))
        .unwrap();
    let (status, _, body) = ask(router(|_| ()), request).await;
    assert_eq!(
        (status.as_u16(), body["code"].as_str()),
        (400, Some("bad-request"))
    );
    let (status, _, body) = get_path("/unready").await;
    assert_eq!((status.as_u16(), body), (503, Value::Bool(false)));
}

#[tokio::test]
async fn an_answer_that_says_nothing_about_caching_is_not_stored() {
    assert_eq!(get_path("/ok/1").await.1[header::CACHE_CONTROL], "no-store");
    assert_eq!(
        get_path("/public").await.1[header::CACHE_CONTROL],
        "max-age=1"
    );
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_path() {
    let router = Router::new()
        .route(
            "/counted/{id}",
            get(async || "x").delete(async || StatusCode::NO_CONTENT),
        )
        .layer(EdgeLayer::new(&Config::default().http));
    for id in 0..3 {
        let uri = format!("/counted/{id}");
        ask(
            router.clone(),
            Request::get(&uri).body(Body::empty()).unwrap(),
        )
        .await;
        ask(
            router.clone(),
            Request::delete(&uri).body(Body::empty()).unwrap(),
        )
        .await;
    }
    ask(
        router,
        Request::get("/made-up-by-a-stranger")
            .body(Body::empty())
            .unwrap(),
    )
    .await;
    let text = crate::telemetry::render();
    for line in [
        "onsale_http_requests_total{route=\"/counted/{id}\",method=\"GET\",status=\"200\"} 3",
        "onsale_http_requests_total{route=\"/counted/{id}\",method=\"DELETE\",status=\"204\"} 3",
        "onsale_http_requests_total{route=\"none\",method=\"GET\",status=\"404\"}",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("stranger"));
}

#[tokio::test]
async fn only_pages_of_the_configured_origins_may_call() {
    let open = || router(|http| http.cors_origins = vec!["https://shop.example".to_owned()]);
    let from = |method: Method, origin: &str| {
        Request::builder()
            .method(method)
            .uri("/ok/1")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .body(Body::empty())
            .unwrap()
    };
    let (status, headers, _) = ask(open(), from(Method::OPTIONS, "https://shop.example")).await;
    assert_eq!(status, 204);
    assert_eq!(
        headers["access-control-allow-origin"],
        "https://shop.example"
    );
    assert!(
        headers["access-control-allow-headers"]
            .to_str()
            .unwrap()
            .contains("idempotency-key")
    );
    let (status, headers, _) = ask(open(), from(Method::GET, "https://shop.example")).await;
    assert_eq!(status, 200);
    assert_eq!(
        headers["access-control-allow-origin"],
        "https://shop.example"
    );
    let (status, headers, _) = ask(open(), from(Method::OPTIONS, "https://evil.example")).await;
    assert_eq!(status, 405);
    assert!(!headers.contains_key("access-control-allow-origin"));
    let (_, headers, _) = ask(router(|_| ()), from(Method::GET, "https://shop.example")).await;
    assert!(!headers.contains_key("access-control-allow-origin") && !headers.contains_key("vary"));
}
