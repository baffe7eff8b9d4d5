//! A small HTTP client with assertions that name the request when they fail.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

/// Where the calls of the contract are.
const BASE_PATH: &str = "/api/v1";

/// No call takes so long; one that does has hung.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Text that would mean that something internal was shown to a client.
const INTERNALS: &[&str] = &[
    "sql",
    "insert into",
    ".rs:",
    "panicked",
    "/tmp/",
    "/home/",
    "onsale.db",
    "ractor",
    "backtrace",
    "unwrap()",
];

/// Somebody who calls the server: an address, and perhaps an access token.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Arc<str>,
    token: Option<Arc<str>>,
}

impl Client {
    /// Nobody in particular, at `base` (e.g. `http://127.0.0.1:8080`).
    pub(crate) fn new(base: &str) -> Self {
        let http = reqwest::Client::builder()
            .timeout(CALL_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self {
            http,
            base: base.into(),
            token: None,
        }
    }

    /// The same caller, signed in by an access token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.into()),
            ..self.clone()
        }
    }

    /// The same, not signed in.
    pub(crate) fn anonymous(&self) -> Self {
        Self {
            token: None,
            ..self.clone()
        }
    }

    /// The same, with connections of its own.
    pub(crate) fn with_own_connections(&self) -> Self {
        Self {
            token: self.token.clone(),
            ..Self::new(&self.base)
        }
    }

    /// The same, on one connection of its own that carries many calls at once.
    pub(crate) fn with_own_http2_connection(&self) -> Self {
        let http = reqwest::Client::builder()
            .timeout(CALL_TIMEOUT)
            .http2_prior_knowledge()
            .build()
            .unwrap();
        Self {
            http,
            ..self.clone()
        }
    }

    /// The access token.
    pub(crate) fn token(&self) -> &str {
        self.token.as_deref().expect("signed in")
    }

    /// Where the server is, e.g. `http://127.0.0.1:8080`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// A call of the contract; `path` is below `/api/v1`.
    pub(crate) fn call(&self, method: Method, path: &str) -> Call {
        self.call_at(method, &format!("{BASE_PATH}{path}"))
    }

    /// A call at the root.
    pub(crate) fn call_at(&self, method: Method, path: &str) -> Call {
        let what = format!("{method} {path}");
        let mut builder = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            builder = builder.bearer_auth(token);
        }
        Call { builder, what }
    }

    pub(crate) fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    pub(crate) fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Call {
        self.call(Method::POST, path).json(body)
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Call {
        self.call(Method::PUT, path).json(body)
    }

    pub(crate) fn patch(&self, path: &str, body: &Value) -> Call {
        self.call(Method::PATCH, path).json(body)
    }

    /// A GET at the root, e.g. `/healthz`.
    pub(crate) fn root(&self, path: &str) -> Call {
        self.call_at(Method::GET, path)
    }

    // ---- the calls that most tests make ----

    /// Puts `amount` into the caller's wallet.
    pub(crate) async fn charge(&self, amount: i64) {
        self.post("/wallet/charges", &json!({ "amount": amount }))
            .key(&super::fresh_key())
            .ok(201)
            .await;
    }

    /// What the caller can spend.
    pub(crate) async fn balance(&self) -> i64 {
        let wallet = self.get("/wallet").ok(200).await;
        wallet["balance"].as_i64().expect("a balance")
    }

    /// Takes seats by a body of the contract, e.g. `{"seat_ids": […]}`.
    pub(crate) fn hold(&self, timetable: &str, wish: &Value) -> Call {
        self.post(&format!("/timetables/{timetable}/holds"), wish)
    }

    /// Takes these seats, which are free.
    pub(crate) async fn hold_seats(&self, timetable: &str, seats: &[&str]) -> Value {
        self.hold(timetable, &json!({ "seat_ids": seats }))
            .ok(201)
            .await
    }

    /// Orders a hold by wallet, under a fresh key.
    pub(crate) fn order(&self, hold_id: &str) -> Call {
        self.order_body(&json!({ "hold_id": hold_id, "payment": { "method": "wallet" } }))
            .key(&super::fresh_key())
    }

    /// An order with any body and without a key.
    pub(crate) fn order_body(&self, body: &Value) -> Call {
        self.post("/orders", body)
    }

    /// The status map of a timetable.
    pub(crate) async fn map(&self, timetable: &str) -> Value {
        self.get(&format!("/timetables/{timetable}/seats"))
            .ok(200)
            .await
    }
}

/// A request that is being put together.
pub(crate) struct Call {
    builder: reqwest::RequestBuilder,
    what: String,
}

impl Call {
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = HeaderValue::from_bytes(value.as_ref()).expect("a header's value");
        self.builder = self.builder.header(name, value);
        self
    }

    /// Sets the `Idempotency-Key`.
    pub(crate) fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.builder = self.builder.json(body);
        self
    }

    /// A body of any bytes, with a Content-Type only if one is given.
    pub(crate) fn raw(mut self, content_type: Option<&str>, body: impl Into<Bytes>) -> Self {
        if let Some(content_type) = content_type {
            self.builder = self.builder.header("content-type", content_type);
        }
        self.builder = self.builder.body(body.into());
        self
    }

    /// Gives up after so long.
    pub(crate) fn timeout(mut self, limit: Duration) -> Self {
        self.builder = self.builder.timeout(limit);
        self
    }

    /// The answer, or why there is none.
    pub(crate) async fn try_send(self) -> Result<Answer, reqwest::Error> {
        let response = self.builder.send().await?;
        Ok(Answer {
            what: self.what,
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await?,
        })
    }

    /// The answer; panics where there is none.
    pub(crate) async fn send(self) -> Answer {
        let what = self.what.clone();
        match self.try_send().await {
            Ok(answer) => answer,
            Err(error) => panic!("{what}: no answer: {error:?}"),
        }
    }

    /// Sends, checks the status and gives the JSON body (null if there is none).
    pub(crate) async fn ok(self, status: u16) -> Value {
        let answer = self.send().await;
        answer.assert_status(status);
        if answer.body.is_empty() {
            return Value::Null;
        }
        answer.json()
    }

    /// Sends, and checks that the answer is this problem.
    pub(crate) async fn problem(self, status: u16, code: &str) -> Value {
        self.send().await.assert_problem(status, code)
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The request, for messages.
    pub(crate) what: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// A header as text; `None` where it is missing.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: not JSON ({error}): {}", self.what, self.text()))
    }

    pub(crate) fn assert_status(&self, status: u16) {
        assert_eq!(
            self.status,
            status,
            "{} answered {} instead of {status}: {}",
            self.what,
            self.status,
            self.text()
        );
    }

    /// Checks everything that the contract promises of a problem, and gives it.
    pub(crate) fn assert_problem(&self, status: u16, code: &str) -> Value {
        self.assert_status(status);
        let problem = self.assert_any_problem();
        assert_eq!(problem["code"], code, "{}: {problem}", self.what);
        problem
    }

    /// The same, where only the kind of status matters.
    pub(crate) fn assert_any_problem(&self) -> Value {
        let what = format!("{}: {} {}", self.what, self.status, self.text());
        let content_type = self.header("content-type").unwrap_or_default();
        assert!(
            content_type.starts_with("application/problem+json"),
            "{what}: content type {content_type:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{what}");
        let code = problem["code"].as_str().expect("a code");
        assert_eq!(problem["type"], format!("/problems/{code}"), "{what}");
        for member in ["title", "detail"] {
            let text = problem[member].as_str();
            assert!(
                text.is_some_and(|text| !text.is_empty()),
                "{what}: {member}"
            );
        }
        let request_id = self.header("x-request-id").expect("X-Request-Id");
        assert_eq!(problem["request_id"], request_id, "{what}");
        if code == "invalid-request" {
            assert_field_errors(&problem, &what);
        }
        if matches!(self.status, 429 | 503) {
            let retry_after = self.header("retry-after").expect("Retry-After");
            assert!(retry_after.parse::<u32>().is_ok(), "{what}: {retry_after}");
        }
        let text = self.text().to_lowercase();
        for internal in INTERNALS {
            assert!(!text.contains(internal), "{what}: shows {internal:?}");
        }
        problem
    }
}

/// `errors: [{field, message}]`, at least one.
fn assert_field_errors(problem: &Value, what: &str) {
    let errors = problem["errors"].as_array().expect("errors");
    assert!(!errors.is_empty(), "{what}");
    for error in errors {
        assert!(
            error["field"].is_string() && error["message"].is_string(),
            "{what}"
        );
    }
}
