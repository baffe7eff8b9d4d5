//! What every request passes on its way in and every answer on its way out: the
//! request id, the time limit, the boundary for panics, problems and their
//! rendering, CORS, metrics, and one line of the log.
//!
//! It is one service written by hand rather than a stack of middleware, because
//! a whole request takes about ten microseconds. It belongs around all routes
//! and the fallback, as the last `Router::layer`: there the pattern of the route
//! is known, and each endpoint gets counters of its own.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use futures_util::FutureExt as _;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::cors::Cors;
use super::error::{Code, Problem};
use crate::config::Http;
use crate::telemetry::EndpointMetrics;
use crate::trace::{self, Span, Trace};

/// The header that carries the request id both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is taken from a caller, in characters.
const REQUEST_ID_CHARS_MAX: usize = 128;
/// W3C Trace Context: `00-<32 hex>-<16 hex>-<2 hex>`.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What the log and the metrics say where no route matched: never the path,
/// which anyone may choose.
const NO_ROUTE: &str = "none";

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Puts the edge around each endpoint.
#[derive(Clone, Debug)]
pub struct EdgeLayer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    request_timeout: Duration,
    cors: Cors,
    ids: RequestIds,
}

impl EdgeLayer {
    /// An edge with the limits and origins of `[http]`.
    #[must_use]
    pub fn new(config: &Http) -> Self {
        Self {
            shared: Arc::new(Shared {
                request_timeout: config.request_timeout(),
                cors: Cors::new(&config.cors_origins),
                ids: RequestIds::new(),
            }),
        }
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge {
            inner,
            shared: Arc::clone(&self.shared),
            metrics: Arc::default(),
        }
    }
}

/// The edge around one endpoint. Its clones share the endpoint's counters.
#[derive(Clone, Debug)]
pub struct Edge<S> {
    inner: S,
    shared: Arc<Shared>,
    metrics: Arc<EndpointMetrics>,
}

impl<S> Service<Request> for Edge<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The one that was polled ready is used; its clone stays.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let passage = Passage::new(&self.shared, &self.metrics, &request);
        Box::pin(passage.go(inner, request))
    }
}

/// One request on its way through the edge.
struct Passage {
    shared: Arc<Shared>,
    metrics: Arc<EndpointMetrics>,
    started: Instant,
    request_id: HeaderValue,
    trace: Option<Trace>,
    span: Span,
    origin: Option<HeaderValue>,
    method: Method,
    route: Option<MatchedPath>,
}

impl Passage {
    fn new(shared: &Arc<Shared>, metrics: &Arc<EndpointMetrics>, request: &Request) -> Self {
        let headers = request.headers();
        let from = headers.get(TRACEPARENT);
        let from = from.and_then(|text| trace::read(text.to_str().ok()?));
        let (span, trace) = trace::of_request(from);
        Self {
            shared: Arc::clone(shared),
            metrics: Arc::clone(metrics),
            started: Instant::now(),
            request_id: shared.ids.of(headers),
            trace,
            span,
            origin: shared.cors.origin(headers),
            method: request.method().clone(),
            route: request.extensions().get::<MatchedPath>().cloned(),
        }
    }

    async fn go<S>(self, mut inner: S, request: Request) -> Result<Response, Infallible>
    where
        S: Service<Request, Response = Response, Error = Infallible>,
    {
        let response = match self.shared.cors.preflight(self.origin.as_ref(), &request) {
            Some(response) => response,
            None => {
                // The call itself may panic, too, not only its future.
                let call =
                    AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind();
                let context = trace::Context {
                    trace: self.trace.clone(),
                    request_id: Some(self.request_id.clone()),
                };
                let call = trace::within(context, call);
                match tokio::time::timeout_at(self.started + self.shared.request_timeout, call)
                    .await
                {
                    Ok(Ok(Ok(response))) => response,
                    Ok(Ok(Err(never))) => match never {},
                    // The panic hook has logged where.
                    Ok(Err(_)) => self.rendered(Problem::internal_text("the handler panicked")),
                    Err(_) => self.rendered(Problem::new(Code::AnswerTimeout)),
                }
            }
        };
        Ok(self.finish(response))
    }

    /// Everything that an answer gets on its way out.
    fn finish(mut self, mut response: Response) -> Response {
        if response.status().is_client_error() || response.status().is_server_error() {
            response = self.as_problem(response);
        }
        let status = response.status();
        let headers = response.headers_mut();
        if matches!(
            status,
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT
        ) {
            // The rest of the body is never read: say that the connection ends,
            // so that the client doesn't send its next request on it.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let header::Entry::Vacant(vacant) = headers.entry(header::CACHE_CONTROL) {
            vacant.insert(NO_STORE);
        }
        self.shared.cors.allow(self.origin.as_ref(), headers);
        let took = self.started.elapsed();
        self.metrics
            .answered(self.route_name(), &self.method, status, took);
        tracing::debug!(
            request.id = self.id(), trace.id = self.trace_id(), http.method = %self.method,
            http.route = self.route_name(), http.status = status.as_u16(), duration_us = took.as_micros(),
            "answered a request"
        );
        self.end_span(status);
        headers.insert(X_REQUEST_ID, self.request_id);
        response
    }

    fn end_span(&mut self, status: StatusCode) {
        if !self.span.is_recorded() {
            return;
        }
        let mut span = std::mem::take(&mut self.span);
        span.rename(|| format!("{} {}", self.method, self.route_name()));
        span.tell("http.request.method", self.method.to_string());
        span.tell("http.route", self.route_name().to_owned());
        span.tell("http.response.status_code", i64::from(status.as_u16()));
        span.tell("onsale.request_id", self.id().to_owned());
        if status.is_server_error() {
            span.fail(status.to_string());
        }
    }

    /// A refusal as a problem document: a [`Problem`] that a handler returned,
    /// or the plain text with which axum refuses by itself. Anything else (such
    /// as readiness) is an answer of its own.
    fn as_problem(&self, mut response: Response) -> Response {
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            return self.rendered(problem);
        }
        let content_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .map(HeaderValue::as_bytes);
        if content_type.is_some_and(|text| !text.starts_with(b"text/plain")) {
            return response;
        }
        let mut problem = Problem::new(code_of(response.status()));
        for name in [header::ALLOW, header::RETRY_AFTER] {
            if let Some(value) = response.headers_mut().remove(&name) {
                problem = problem.header(name, value);
            }
        }
        self.rendered(problem)
    }

    /// Renders a problem, and logs it if it is our fault. Shedding isn't: it
    /// comes by the thousand, is counted, and must stay cheap.
    fn rendered(&self, problem: Problem) -> Response {
        if problem.code().status().is_server_error() && problem.code() != Code::Overloaded {
            tracing::error!(
                request.id = self.id(), trace.id = self.trace_id(), http.method = %self.method,
                http.route = self.route_name(), problem.code = problem.code().as_str(),
                cause = problem.cause(), "a request failed"
            );
        }
        problem.render(self.id())
    }

    fn id(&self) -> &str {
        // Only visible ASCII got in, see `RequestIds::of`.
        self.request_id.to_str().unwrap_or_default()
    }

    fn trace_id(&self) -> Option<&str> {
        self.trace.as_ref().map(trace::id_of)
    }

    fn route_name(&self) -> &str {
        self.route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str)
    }
}

/// The problem that says the same as a bare status of axum or of a library.
fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::UNAUTHORIZED => Code::Unauthorized,
        StatusCode::FORBIDDEN => Code::Forbidden,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::REQUEST_TIMEOUT => Code::RequestTimeout,
        StatusCode::PAYLOAD_TOO_LARGE => Code::PayloadTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
        StatusCode::UNPROCESSABLE_ENTITY => Code::InvalidRequest,
        StatusCode::UPGRADE_REQUIRED => Code::UpgradeRequired,
        StatusCode::TOO_MANY_REQUESTS => Code::RateLimited,
        StatusCode::SERVICE_UNAVAILABLE => Code::Overloaded,
        StatusCode::GATEWAY_TIMEOUT => Code::AnswerTimeout,
        other if other.is_client_error() => Code::BadRequest,
        _ => Code::Internal,
    }
}

/// Gives each request a name.
#[derive(Debug)]
struct RequestIds {
    /// Tells this process from others and from its former lives.
    process: u32,
    next: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
        Self {
            process: (random >> 32) as u32,
            next: AtomicU64::new(1),
        }
    }

    /// The caller's id if it is at most 128 visible ASCII characters, else a
    /// new one.
    fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(X_REQUEST_ID) {
            Some(id)
                if (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
                    && id.as_bytes().iter().all(u8::is_ascii_graphic) =>
            {
                id.clone()
            }
            _ => self.generate(),
        }
    }

    fn generate(&self) -> HeaderValue {
        let id = format!(
            "{:08x}-{:012x}",
            self.process,
            self.next.fetch_add(1, Ordering::Relaxed)
        );
        // Hexadecimal digits are always a header.
        HeaderValue::from_maybe_shared(bytes::Bytes::from(id))
            .unwrap_or(HeaderValue::from_static("none"))
    }
}

#[cfg(test)]
#[path = "edge_tests.rs"]
mod tests;
