//! Idempotency keys: one outcome for a request, however often it is sent.
//!
//! The account of the user keeps the keys. A request that begins under a key
//! runs in a task of its own, so that it ends, and frees or fills its key, even
//! if its client hangs up.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts as _};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Answer, Code, Problem};
use super::extract::{BodyDeadline, BodyHash, Hashed, IdempotencyKey, Json};
use super::problems::account_refusal;
use crate::app::App;
use crate::domain::account::{Command, KeyClaim, KeyHash, Reply, stable_hash};
use crate::domain::ids::UserId;

/// Says that an answer is a repetition.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What a request is, as far as its key is concerned.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who sends it.
    pub user: UserId,
    /// Its method and path.
    pub route: (Method, String),
    /// The hash of its body.
    pub body: BodyHash,
}

/// A body that came with, or without, an idempotency key.
#[derive(Debug)]
pub struct Keyed<T> {
    /// The body.
    pub value: T,
    /// The key.
    pub key: Option<String>,
    route: (Method, String),
    body: BodyHash,
}

impl<T> Keyed<T> {
    /// The parts: the body, its key, and the request of `user`.
    pub fn of(self, user: UserId) -> (T, Option<String>, Request) {
        let Self {
            value,
            key,
            route,
            body,
        } = self;
        (value, key, Request { user, route, body })
    }
}

impl<T, S> FromRequest<S> for Keyed<T>
where
    T: DeserializeOwned,
    S: BodyDeadline + Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, state: &S) -> Answer<Self> {
        let route = (request.method().clone(), request.uri().path().to_owned());
        let (mut parts, body) = request.into_parts();
        let IdempotencyKey(key) = IdempotencyKey::from_request_parts(&mut parts, state).await?;
        let request = axum::extract::Request::from_parts(parts, body);
        // The hash costs more than the rest of a hold: only a key needs it.
        let (value, body) = if key.is_some() {
            let Hashed { value, hash } = Hashed::from_request(request, state).await?;
            (value, hash)
        } else {
            let Json(value) = Json::from_request(request, state).await?;
            (value, BodyHash::default())
        };
        Ok(Self {
            value,
            key,
            route,
            body,
        })
    }
}

/// An answer that can be stored.
#[derive(Clone, Debug)]
pub struct Stored {
    status: StatusCode,
    body: String,
}

impl Stored {
    /// A JSON answer.
    ///
    /// # Errors
    /// If `body` can't be written as JSON, which is a defect.
    pub fn json<T: Serialize>(status: StatusCode, body: &T) -> Answer<Self> {
        let body = serde_json::to_string(body).map_err(|error| Problem::internal(&error))?;
        Ok(Self { status, body })
    }

    /// An answer whose JSON was stored before.
    #[must_use]
    pub fn raw(status: StatusCode, body: String) -> Self {
        Self { status, body }
    }
}

impl IntoResponse for Stored {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        if self.body.is_empty() {
            return self.status.into_response();
        }
        (self.status, [(header::CONTENT_TYPE, json)], self.body).into_response()
    }
}

/// The claim of a request on its key.
#[must_use]
pub fn claim(key: String, request: &Request) -> KeyClaim {
    let (method, path) = &request.route;
    let mut bytes = Vec::with_capacity(path.len() + 48);
    bytes.extend_from_slice(method.as_str().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(b'\n');
    bytes.extend_from_slice(&request.body);
    KeyClaim {
        hash: KeyHash::of(&key),
        fingerprint: stable_hash(&bytes),
        key,
    }
}

/// Runs `work` once for all requests under `key`; later ones get its answer
/// again. Without a key it just runs.
///
/// # Errors
/// Those of `work`, and the problems of idempotency keys.
pub async fn once<F>(
    app: &Arc<App>,
    key: Option<String>,
    request: Request,
    work: F,
) -> Answer<Response>
where
    F: Future<Output = Answer<Stored>> + Send + 'static,
{
    match key {
        None => work.await.map(IntoResponse::into_response),
        Some(key) => run(app, key, request, work, Keep::All).await,
    }
}

/// Like [`once`], for work whose success stores its own answer in the commit
/// that makes it true.
///
/// # Errors
/// Those of `work`, and the problems of idempotency keys.
pub async fn once_storing<F>(
    app: &Arc<App>,
    key: String,
    request: Request,
    work: F,
) -> Answer<Response>
where
    F: Future<Output = Answer<Stored>> + Send + 'static,
{
    run(app, key, request, work, Keep::Refusals).await
}

/// Which answers are kept for the work that gave them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    All,
    Refusals,
}

async fn run<F>(
    app: &Arc<App>,
    key: String,
    request: Request,
    work: F,
    kept: Keep,
) -> Answer<Response>
where
    F: Future<Output = Answer<Stored>> + Send + 'static,
{
    let app = Arc::clone(app);
    let claim = claim(key, &request);
    // From the reservation on, whoever waits: else a client that hangs up would
    // leave its key running.
    let task = tokio::spawn(async move {
        let user = request.user;
        let reserve = Command::Reserve(claim.clone());
        match app.node.accounts.ask(user.0, reserve).await? {
            Ok(Reply::KeyIsAnswered) => replay(&app, user, &claim.key).await,
            Ok(Reply::KeyIsRunning(_)) => Err(Code::IdempotencyKeyInUse.into()),
            Ok(_) => {
                let worked = AssertUnwindSafe(work).catch_unwind().await;
                let answer = worked.unwrap_or_else(|_| Err(Code::Internal.into()));
                if kept == Keep::All || answer.is_err() {
                    keep(&app, user, claim, &answer).await;
                }
                answer.map(IntoResponse::into_response)
            }
            Err(refusal) => Err(account_refusal(&refusal)),
        }
    });
    task.await.unwrap_or_else(|_| Err(Code::Internal.into()))
}

/// Stores an answer under its key, or frees the key.
async fn keep(app: &App, user: UserId, key: KeyClaim, answer: &Answer<Stored>) {
    let command = match answer {
        Ok(stored) => {
            let (status, body) = (stored.status.as_u16(), stored.body.clone());
            Command::Answer { key, status, body }
        }
        Err(problem) => answer_of(key, problem),
    };
    if app.node.accounts.resume(user.0, command).await.is_err() {
        tracing::warn!(user.id = %user, "an answer could not be stored under its idempotency key");
    }
}

/// The command that stores a refusal, or frees the key of one that isn't
/// stored: 402, 404, 409 and 422 are, but not those about the key itself.
#[must_use]
pub fn answer_of(key: KeyClaim, problem: &Problem) -> Command {
    let code = problem.code();
    let about_the_key = matches!(code, Code::IdempotencyKeyInUse | Code::IdempotencyKeyReused);
    let status = code.status().as_u16();
    if about_the_key || !matches!(status, 402 | 404 | 409 | 422) {
        return Command::FreeKey(key);
    }
    // Problems are made of strings and JSON, which always serialise.
    let body = serde_json::to_string(problem).unwrap_or_default();
    Command::Answer { key, status, body }
}

/// The stored answer under a key, again.
///
/// # Errors
/// The stored problem; or if the store can't be read.
pub async fn replay(app: &App, user: UserId, key: &str) -> Answer<Response> {
    let Some((status, body)) = app.node.store.stored_answer(user, key).await? else {
        // Its commit is on its way: it was decided, but can't be shown yet.
        return Err(Code::IdempotencyKeyInUse.into());
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    if status.is_success() {
        return Ok(replayed(Stored { status, body }.into_response()));
    }
    let problem: Problem = serde_json::from_str(&body).map_err(|e| Problem::internal(&e))?;
    Err(problem.header(REPLAYED, HeaderValue::from_static("true")))
}

/// Marks an answer as a repetition.
#[must_use]
pub fn replayed(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(REPLAYED, HeaderValue::from_static("true"));
    response
}
