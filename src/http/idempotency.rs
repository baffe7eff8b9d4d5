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
use super::extract::{BodyDeadline, BodyHash, Hashed, HashedIfAny, IdempotencyKey, Json, NoBody};
use super::problems::account_refusal;
use crate::actors::purchase::ask_for_key;
use crate::app::App;
use crate::domain::account::{Claimant, Command, KeyClaim, KeyHash, Reply, stable_hash};
use crate::domain::ids::UserId;
use crate::trace;

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
        let (request, key, route) = keyed(request, state).await?;
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

/// A body whose fields are all optional, or none, that came with, or without, an
/// idempotency key.
#[derive(Debug)]
pub struct KeyedIfAny<T>(Keyed<T>);

impl<T> KeyedIfAny<T> {
    /// Like [`Keyed::of`].
    pub fn of(self, user: UserId) -> (T, Option<String>, Request) {
        self.0.of(user)
    }
}

impl<T, S> FromRequest<S> for KeyedIfAny<T>
where
    T: DeserializeOwned + Default,
    S: BodyDeadline + Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, state: &S) -> Answer<Self> {
        let (request, key, route) = keyed(request, state).await?;
        let HashedIfAny { value, hash } = HashedIfAny::from_request(request, state).await?;
        let value = value.unwrap_or_default();
        Ok(Self(Keyed {
            value,
            key,
            route,
            body: hash,
        }))
    }
}

/// No body, that came with, or without, an idempotency key.
#[derive(Debug)]
pub struct KeyedNoBody {
    key: Option<String>,
    route: (Method, String),
}

impl KeyedNoBody {
    /// The parts: the key, and the request of `user`.
    pub fn of(self, user: UserId) -> (Option<String>, Request) {
        let Self { key, route } = self;
        // Nothing and `{}` are the same.
        let body = BodyHash::default();
        (key, Request { user, route, body })
    }
}

impl<S: BodyDeadline + Send + Sync> FromRequest<S> for KeyedNoBody {
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, state: &S) -> Answer<Self> {
        let (request, key, route) = keyed(request, state).await?;
        let NoBody = NoBody::from_request(request, state).await?;
        Ok(Self { key, route })
    }
}

/// A request, its key, and its method and path.
async fn keyed<S: Send + Sync>(
    request: axum::extract::Request,
    state: &S,
) -> Answer<(axum::extract::Request, Option<String>, (Method, String))> {
    let route = (request.method().clone(), request.uri().path().to_owned());
    let (mut parts, body) = request.into_parts();
    let IdempotencyKey(key) = IdempotencyKey::from_request_parts(&mut parts, state).await?;
    let request = axum::extract::Request::from_parts(parts, body);
    Ok((request, key, route))
}

/// An answer that can be stored.
#[derive(Clone, Debug)]
pub struct Stored {
    status: StatusCode,
    body: String,
    replayed: bool,
}

impl Stored {
    /// A JSON answer.
    ///
    /// # Errors
    /// If `body` can't be written as JSON, which is a defect.
    pub fn json<T: Serialize>(status: StatusCode, body: &T) -> Answer<Self> {
        let body = serde_json::to_string(body).map_err(|error| Problem::internal(&error))?;
        Ok(Self::raw(status, body))
    }

    /// An answer whose JSON is there already.
    #[must_use]
    pub fn raw(status: StatusCode, body: String) -> Self {
        Self {
            status,
            body,
            replayed: false,
        }
    }

    /// The JSON.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.body
    }

    /// Marks it as a repetition.
    #[must_use]
    pub fn again(mut self, replayed: bool) -> Self {
        self.replayed = replayed;
        self
    }
}

impl IntoResponse for Stored {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        let mut response = if self.body.is_empty() {
            self.status.into_response()
        } else {
            (self.status, [(header::CONTENT_TYPE, json)], self.body).into_response()
        };
        if self.replayed {
            let yes = HeaderValue::from_static("true");
            response.headers_mut().insert(REPLAYED, yes);
        }
        response
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
        by: Claimant(uuid::Uuid::new_v4().as_u64_pair().1),
        key,
    }
}

/// Runs `work` once for all requests under `key`; later ones get its answer
/// again. Without a key it just runs. It is begun here, not by the caller: a
/// future that is passed on is copied whole each time, and takes its room twice.
///
/// Whatever may have changed since the first request belongs into `work`: a
/// repetition gets the stored answer even if the hold has ended meanwhile, or
/// the performance is gone.
///
/// # Errors
/// Those of `work`, and the problems of idempotency keys.
pub async fn once<F>(
    app: &Arc<App>,
    key: Option<String>,
    request: Request,
    work: impl FnOnce() -> F,
) -> Answer<Response>
where
    F: Future<Output = Answer<Stored>> + Send + 'static,
{
    match key {
        None => work().await.map(IntoResponse::into_response),
        Some(key) => {
            let claim = claim(key, &request);
            // Boxed: who sends no key doesn't carry the room for it.
            Box::pin(run(app, request.user, claim, work(), Keep::All)).await
        }
    }
}

/// Like [`once`], for work whose success stores its own answer in the commit
/// that makes it true.
///
/// # Errors
/// Those of `work`, and the problems of idempotency keys.
pub async fn once_storing<F>(
    app: &Arc<App>,
    user: UserId,
    claim: KeyClaim,
    work: F,
) -> Answer<Response>
where
    F: Future<Output = Answer<Stored>> + Send + 'static,
{
    run(app, user, claim, work, Keep::Refusals).await
}

/// Which answers are kept for the work that gave them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    All,
    Refusals,
}

async fn run<F>(
    app: &Arc<App>,
    user: UserId,
    claim: KeyClaim,
    work: F,
    kept: Keep,
) -> Answer<Response>
where
    F: Future<Output = Answer<Stored>> + Send + 'static,
{
    let app = Arc::clone(app);
    // From the reservation on, whoever waits: else a client that hangs up would
    // leave its key running.
    let work = async move {
        match ask_for_key(&app.node, user, &claim).await? {
            Ok(Reply::KeyIsAnswered) => stored(&app, user, &claim.key).await,
            Ok(Reply::KeyIsRunning(_)) => Err(Code::IdempotencyKeyInUse.into()),
            Ok(_) => {
                let worked = AssertUnwindSafe(work).catch_unwind().await;
                let answer = worked.unwrap_or_else(|_| Err(Code::Internal.into()));
                if kept == Keep::All || answer.is_err() {
                    keep(&app, user, claim, answer).await
                } else {
                    answer
                }
            }
            Err(refusal) => Err(account_refusal(&refusal)),
        }
    };
    let task = tokio::spawn(trace::carried(work));
    let answer = task.await.unwrap_or_else(|_| Err(Code::Internal.into()));
    answer.map(IntoResponse::into_response)
}

/// Stores an answer under its key, or frees the key, and gives it. Should
/// another request under the key have been answered first, that answer counts.
///
/// # Errors
/// The refusal in `answer`, or what stands under the key; that the outcome is
/// unknown, if it isn't certain that it was stored.
pub async fn keep(
    app: &App,
    user: UserId,
    key: KeyClaim,
    answer: Answer<Stored>,
) -> Answer<Stored> {
    let text = key.key.clone();
    let command = match &answer {
        Ok(stored) => {
            let (status, body) = (stored.status.as_u16(), stored.body.clone());
            Command::Answer { key, status, body }
        }
        Err(problem) => answer_of(key, problem),
    };
    let is_stored = matches!(command, Command::Answer { .. });
    match app.node.accounts.resume(user.0, command).await {
        Ok(Ok(Reply::KeyIsAnswered)) => stored(app, user, &text).await,
        Ok(Ok(Reply::KeyIsRunning(_))) => Err(Code::IdempotencyKeyInUse.into()),
        Ok(Ok(_)) => answer,
        Ok(Err(refusal)) => Err(account_refusal(&refusal)),
        // Who is told an outcome must be told the same for ever, and this one may
        // be forgotten yet.
        Err(error) if is_stored => {
            tracing::warn!(%error, user.id = %user, "an answer could not be stored under its idempotency key");
            Err(error.into())
        }
        // The key is free, or forgotten.
        Err(_) => answer,
    }
}

/// The command that stores a refusal, or frees the key of one that isn't
/// stored: 402, 404, 409 and 422 are, but not those about the key itself.
fn answer_of(key: KeyClaim, problem: &Problem) -> Command {
    let code = problem.code();
    let about_the_key = matches!(code, Code::IdempotencyKeyInUse | Code::IdempotencyKeyReused);
    let status = code.status().as_u16();
    if about_the_key || !matches!(status, 402 | 404 | 409 | 422) {
        return Command::FreeKey { key, order: None };
    }
    // Problems are made of strings and JSON, which always serialise.
    let body = serde_json::to_string(problem).unwrap_or_default();
    Command::Answer { key, status, body }
}

/// The stored answer under a key, again.
///
/// # Errors
/// The stored problem; or if the store can't be read.
pub async fn stored(app: &App, user: UserId, key: &str) -> Answer<Stored> {
    let Some((status, body)) = app.node.store.stored_answer(user, key).await? else {
        // Its commit is on its way: it was decided, but can't be shown yet.
        return Err(Code::IdempotencyKeyInUse.into());
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    if status.is_success() {
        return Ok(Stored::raw(status, body).again(true));
    }
    let problem: Problem = serde_json::from_str(&body).map_err(|e| Problem::internal(&e))?;
    Err(problem.header(REPLAYED, HeaderValue::from_static("true")))
}
