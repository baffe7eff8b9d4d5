//! The one way in which a request is refused: `application/problem+json`
//! (RFC 9457).
//!
//! A handler returns a [`Problem`]; the edge ([`super::edge`]) renders it,
//! because only the edge knows the request id. What caused a 5xx is logged
//! there, once, and never shown.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use super::code::Code;

/// What `Retry-After` says where nothing better is known, in seconds.
pub const RETRY_AFTER_SECONDS: u32 = 1;

/// The media type of a rendered problem.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The result of every handler.
pub type Answer<T> = Result<T, Problem>;

/// A refusal or a failure, on its way to the client.
///
/// It can be stored as the answer of an idempotent request: the code, the
/// detail, the members and `Retry-After` survive; headers and the cause don't.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[must_use]
pub struct Problem {
    code: Code,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detail: Option<Cow<'static, str>>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    members: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u32>,
    #[serde(skip)]
    headers: Vec<(HeaderName, HeaderValue)>,
    #[serde(skip)]
    cause: Option<String>,
}

impl Problem {
    /// A problem that says no more than its code.
    pub fn new(code: Code) -> Self {
        let mut headers = Vec::new();
        if matches!(code.status().as_u16(), 401) {
            // RFC 9110 §11.6.1: a 401 names the scheme that would do.
            headers.push((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        Self {
            code,
            detail: None,
            members: Map::new(),
            retry_after_seconds: None,
            headers,
            cause: None,
        }
    }

    /// One field of the request is wrong: 422 `invalid-request`. `field` is its
    /// path in the body (`seats[3].row`), or the name of the header or query
    /// parameter.
    pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid_fields([(field.into(), message.into())])
    }

    /// Several fields of the request are wrong: 422 `invalid-request`.
    pub fn invalid_fields(errors: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut detail = String::new();
        let mut list = Vec::new();
        for (field, message) in errors {
            let separator = if detail.is_empty() { "" } else { "; " };
            // Writing to a String can't fail.
            let _ = match field.as_str() {
                "" => write!(detail, "{separator}{message}"),
                name => write!(detail, "{separator}{name}: {message}"),
            };
            list.push(json!({ "field": field, "message": message }));
        }
        Self::new(Code::InvalidRequest)
            .detail(detail)
            .with("errors", list)
    }

    /// There is no room for more work: 503 with `Retry-After`, before any work
    /// was done.
    pub fn overloaded() -> Self {
        Self::new(Code::Overloaded).retry_after(RETRY_AFTER_SECONDS)
    }

    /// The store can't be used: 503 with `Retry-After`.
    pub fn store_unavailable() -> Self {
        Self::new(Code::StoreUnavailable).retry_after(RETRY_AFTER_SECONDS)
    }

    /// A failure that is ours: 500. The error and what caused it are logged by
    /// the edge, with the request id, and never shown.
    pub fn internal(error: &(dyn Error + 'static)) -> Self {
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            let _ = write!(cause, ": {error}");
            source = error.source();
        }
        Self::internal_text(cause)
    }

    /// Like [`Problem::internal`], for a failure that has no error value.
    pub fn internal_text(cause: impl Into<String>) -> Self {
        Self::new(Code::Internal).caused_by(cause)
    }

    /// Says what happened this time, in a sentence for the developer of the
    /// client.
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a member of its own, e.g. `seat_ids`.
    pub fn with(mut self, member: impl Into<String>, value: impl Into<Value>) -> Self {
        self.members.insert(member.into(), value.into());
        self
    }

    /// Sets `Retry-After`.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// Adds a header to the answer.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Keeps, for the log only, what caused it.
    pub fn caused_by(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// A member of its own, if it has it.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    /// What the log should say beyond the code.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The finished answer. Called by the edge, which knows the request id.
    #[must_use]
    pub fn render(self, request_id: &str) -> Response {
        let Self {
            code,
            detail,
            members,
            retry_after_seconds,
            headers,
            cause: _,
        } = self;
        let mut body = Map::new();
        body.insert("type".into(), format!("/problems/{code}").into());
        body.insert("title".into(), code.title().into());
        body.insert("status".into(), code.status().as_u16().into());
        let detail = detail.unwrap_or_else(|| code.summary().into());
        body.insert("detail".into(), detail.into());
        body.insert("code".into(), code.as_str().into());
        body.insert("request_id".into(), request_id.into());
        for (name, value) in members {
            // The members of RFC 9457 can't be overwritten by our own.
            body.entry(name).or_insert(value);
        }
        let mut response = Response::new(Body::from(Value::Object(body).to_string()));
        *response.status_mut() = code.status();
        let out = response.headers_mut();
        out.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if let Some(seconds) = retry_after_seconds {
            out.insert(header::RETRY_AFTER, seconds.into());
        }
        for (name, value) in headers {
            out.append(name, value);
        }
        response
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

impl IntoResponse for Problem {
    /// An answer without a body, which carries the problem to the edge.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.code.status();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn rendered(problem: Problem) -> (u16, axum::http::HeaderMap, Value) {
        let response = problem.render("r-1");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (
            parts.status.as_u16(),
            parts.headers,
            serde_json::from_slice(&bytes).unwrap(),
        )
    }

    #[tokio::test]
    async fn a_problem_carries_the_members_of_rfc_9457_and_its_own() {
        let problem = Problem::new(Code::SeatUnavailable)
            .detail("F1-A-1 is held")
            .with("seat_ids", vec!["F1-A-1"]);
        let (status, headers, body) = rendered(problem).await;
        assert_eq!(status, 409);
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            body,
            json!({
                "type": "/problems/seat-unavailable", "title": "A seat is taken", "status": 409,
                "detail": "F1-A-1 is held", "code": "seat-unavailable", "request_id": "r-1", "seat_ids": ["F1-A-1"],
            })
        );
    }

    #[tokio::test]
    async fn what_caused_an_internal_failure_is_never_shown() {
        let error = std::io::Error::other("SELECT * FROM secret");
        let problem = Problem::internal(&error);
        assert_eq!(problem.cause(), Some("SELECT * FROM secret"));
        let (status, _, body) = rendered(problem).await;
        assert_eq!(status, 500);
        assert!(!body.to_string().contains("SELECT"));
    }

    #[tokio::test]
    async fn overload_says_when_to_come_back_and_a_401_names_its_scheme() {
        let (status, headers, _) = rendered(Problem::overloaded()).await;
        assert_eq!(
            (status, &headers[header::RETRY_AFTER]),
            (503, &HeaderValue::from_static("1"))
        );
        let (_, headers, _) = rendered(Problem::new(Code::Unauthorized)).await;
        assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer");
    }

    #[tokio::test]
    async fn a_members_name_cant_overwrite_a_standard_one() {
        let (_, _, body) = rendered(Problem::new(Code::Forbidden).with("status", 200)).await;
        assert_eq!(body["status"], 403);
    }

    #[test]
    fn a_stored_problem_reads_back() {
        let problem = Problem::new(Code::InsufficientBalance)
            .detail("short of 5")
            .with("missing", 5);
        let text = serde_json::to_string(&problem).unwrap();
        let back: Problem = serde_json::from_str(&text).unwrap();
        assert_eq!(back.code(), Code::InsufficientBalance);
        assert_eq!(back.member("missing"), Some(&json!(5)));
    }
}
