//! What handlers take out of a request: JSON bodies, path ids, query
//! parameters, pages and the idempotency key, by the conventions of the HTTP
//! contract. Whatever is wrong with them becomes a [`Problem`].

use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{Code, Problem};
use super::json::{field_of, has_nul, json_bytes, read};
pub use super::json::{hash_of, parse};
use crate::domain::ids::{
    CouponId, HoldId, OrderId, PaymentId, PerformanceId, SessionId, TicketId, TimetableId, UserId,
    VenueId,
};

/// The largest body of an ordinary call, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The largest body that describes a venue, in bytes.
pub const VENUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The largest batch of check-ins, in bytes.
pub const CHECK_INS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest poster, in bytes.
pub const POSTER_BYTES_MAX: usize = 5 * 1024 * 1024;

/// How many items a page has where `limit` isn't given.
pub const PAGE_ITEMS_DEFAULT: u32 = 20;
/// The most items a page can have.
pub const PAGE_ITEMS_MAX: u32 = 100;
/// The longest cursor that is decoded, in bytes.
const CURSOR_BYTES_MAX: usize = 1024;
/// The longest `Idempotency-Key`, in characters.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

/// What the state of the router knows about reading bodies.
pub trait BodyDeadline {
    /// How long a client may take to send a body.
    fn body_timeout(&self) -> Duration;
}

/// Without an application (in tests of single handlers): ten seconds.
impl BodyDeadline for () {
    fn body_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// A JSON body of at most [`BODY_BYTES_MAX`]; as an answer, JSON.
///
/// Request types must `deny_unknown_fields`.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

/// A JSON body that may be larger than others, e.g. [`VENUE_BYTES_MAX`].
#[derive(Clone, Copy, Debug)]
pub struct BigJson<T, const BYTES_MAX: usize>(pub T);

/// A JSON body with the hash by which an idempotency key recognises it: the
/// same for two texts that parse to the same JSON.
#[derive(Clone, Copy, Debug)]
pub struct Hashed<T> {
    /// The body.
    pub value: T,
    /// SHA-256 of its canonical form.
    pub hash: BodyHash,
}

/// The same of a body whose fields are all optional. Nothing and `{}` are the same.
#[derive(Clone, Copy, Debug)]
pub struct HashedIfAny<T> {
    /// The body.
    pub value: Option<T>,
    /// SHA-256 of its canonical form.
    pub hash: BodyHash,
}

/// SHA-256 of a body's canonical form.
pub type BodyHash = [u8; 32];

/// The body of a call whose fields are all optional: nothing, or JSON.
#[derive(Clone, Copy, Debug)]
pub struct OptionalBody<T>(pub Option<T>);

/// The body of a call without fields: nothing, or `{}`.
#[derive(Clone, Copy, Debug)]
pub struct NoBody;

/// A body as it came, with its Content-Type.
#[derive(Clone, Debug)]
pub struct RawBody<const BYTES_MAX: usize> {
    /// What was sent.
    pub bytes: Bytes,
    /// What it is said to be.
    pub content_type: Option<HeaderValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFields {}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => {
                let mut response = Response::new(Body::from(bytes));
                response.headers_mut().insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/json"),
                );
                response
            }
            Err(error) => Problem::internal(&error).into_response(),
        }
    }
}

impl<T: DeserializeOwned, S: BodyDeadline + Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = json_bytes(request, BODY_BYTES_MAX, state.body_timeout()).await?;
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned, const BYTES_MAX: usize, S: BodyDeadline + Send + Sync> FromRequest<S>
    for BigJson<T, BYTES_MAX>
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = json_bytes(request, BYTES_MAX, state.body_timeout()).await?;
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned, S: BodyDeadline + Send + Sync> FromRequest<S> for Hashed<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = json_bytes(request, BODY_BYTES_MAX, state.body_timeout()).await?;
        Ok(Self {
            value: parse(&bytes)?,
            hash: hash_of(&bytes)?,
        })
    }
}

impl<T: DeserializeOwned, S: BodyDeadline + Send + Sync> FromRequest<S> for HashedIfAny<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = json_bytes(request, BODY_BYTES_MAX, state.body_timeout()).await?;
        if bytes.is_empty() {
            let (value, hash) = (None, hash_of(b"{}")?);
            return Ok(Self { value, hash });
        }
        Ok(Self {
            value: Some(parse(&bytes)?),
            hash: hash_of(&bytes)?,
        })
    }
}

impl<T: DeserializeOwned, S: BodyDeadline + Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = json_bytes(request, BODY_BYTES_MAX, state.body_timeout()).await?;
        if bytes.is_empty() {
            Ok(Self(None))
        } else {
            parse(&bytes).map(|value| Self(Some(value)))
        }
    }
}

impl<S: BodyDeadline + Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let OptionalBody(_) = OptionalBody::<NoFields>::from_request(request, state).await?;
        Ok(Self)
    }
}

impl<const BYTES_MAX: usize, S: BodyDeadline + Send + Sync> FromRequest<S> for RawBody<BYTES_MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
        let bytes = read(request.into_body(), BYTES_MAX, state.body_timeout()).await?;
        Ok(Self {
            bytes,
            content_type,
        })
    }
}

/// What a path names, and the code that says that there is no such thing.
pub trait Named {
    /// The answer where the path's text can't be one.
    const NOT_FOUND: Code;
}

macro_rules! named {
    ($($name:ty: $code:ident),* $(,)?) => {
        $(impl Named for $name { const NOT_FOUND: Code = Code::$code; })*
    };
}
named! {
    UserId: UserNotFound, VenueId: VenueNotFound, PerformanceId: PerformanceNotFound,
    TimetableId: TimetableNotFound, HoldId: HoldNotFound, OrderId: OrderNotFound,
    PaymentId: PaymentNotFound, TicketId: TicketNotFound, SessionId: NotFound,
    CouponId: CouponNotFound,
    String: NotFound, uuid::Uuid: NotFound,
}
impl<A: Named, B> Named for (A, B) {
    const NOT_FOUND: Code = A::NOT_FOUND;
}

/// The parameters of the path. What can't be one of its ids names nothing, so
/// it is answered like an unknown id: 404.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: Named + DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let has_nul = parts.uri.path().contains("%00");
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) if !has_nul => Ok(Self(value)),
            _ => Err(Problem::new(T::NOT_FOUND)),
        }
    }
}

/// The query's parameters; 422 `invalid-request` names the one that is wrong.
///
/// `limit` and `cursor` are taken by [`Page`]; a type that denies unknown
/// fields has to name them too, as `Option<String>`.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> impl Future<Output = Result<Self, Problem>> + Send {
        std::future::ready(query_of(&parts.uri).map(Self))
    }
}

fn query_of<T: DeserializeOwned>(uri: &axum::http::Uri) -> Result<T, Problem> {
    if uri.query().is_some_and(|query| query.contains("%00")) {
        return Err(Problem::invalid_field(
            "",
            "a parameter may not contain NUL characters",
        ));
    }
    axum::extract::Query::<T>::try_from_uri(uri)
        .map(|axum::extract::Query(value)| value)
        .map_err(|error| {
            // axum hides the path in its text: "Failed to …: <field>: <message>".
            let text = error.body_text();
            let text = text
                .split_once(": ")
                .map_or(text.as_str(), |(_, rest)| rest);
            match text.split_once(": ") {
                Some((field, message)) if !field.contains([' ', '`']) => {
                    Problem::invalid_field(field, message)
                }
                _ => Problem::invalid_field(field_of(String::new(), text), text),
            }
        })
}

/// Which part of a list is wanted: `?limit=` and `?cursor=`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// How many items at most, 1 to [`PAGE_ITEMS_MAX`].
    pub limit: u32,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct PageQuery {
    limit: Option<u32>,
    cursor: Option<String>,
}

impl Page {
    /// The first page.
    #[must_use]
    pub fn first(limit: u32) -> Self {
        Self {
            limit: limit.clamp(1, PAGE_ITEMS_MAX),
            cursor: None,
        }
    }

    /// Where the page before ended; `None` on the first.
    ///
    /// # Errors
    /// 422 where the cursor is none of ours. It isn't signed: what a cursor can
    /// reach must be checked like any other parameter.
    pub fn after<T: DeserializeOwned>(&self) -> Result<Option<T>, Problem> {
        let Some(cursor) = &self.cursor else {
            return Ok(None);
        };
        let decoded = (cursor.len() <= CURSOR_BYTES_MAX)
            .then(|| URL_SAFE_NO_PAD.decode(cursor).ok())
            .flatten()
            .filter(|bytes| !has_nul(bytes))
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match decoded {
            Some(position) => Ok(Some(position)),
            None => Err(Problem::invalid_field(
                "cursor",
                "not a cursor of this list",
            )),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Problem;

    fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> impl Future<Output = Result<Self, Problem>> + Send {
        std::future::ready(query_of::<PageQuery>(&parts.uri).and_then(|query| {
            let limit = query.limit.unwrap_or(PAGE_ITEMS_DEFAULT);
            if !(1..=PAGE_ITEMS_MAX).contains(&limit) {
                return Err(Problem::invalid_field(
                    "limit",
                    format!("from 1 to {PAGE_ITEMS_MAX}"),
                ));
            }
            Ok(Self {
                limit,
                cursor: query.cursor.filter(|cursor| !cursor.is_empty()),
            })
        }))
    }
}

/// One page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct List<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// Send it as `cursor` to get the next page; null on the last.
    pub next_cursor: Option<String>,
}

impl<T> List<T> {
    /// A list that is shown whole.
    #[must_use]
    pub fn whole(items: Vec<T>) -> Self {
        Self {
            items,
            next_cursor: None,
        }
    }

    /// A page out of up to `page.limit + 1` items: the one too many only tells
    /// that there is a next page. `position` is where an item stands.
    #[must_use]
    pub fn page<P: Serialize>(mut items: Vec<T>, page: &Page, position: impl Fn(&T) -> P) -> Self {
        let limit = page.limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = if more {
            items.last().map(|last| cursor(&position(last)))
        } else {
            None
        };
        Self { items, next_cursor }
    }
}

/// A position in a list as an opaque text of `A–Z a–z 0–9 - _`.
#[must_use]
pub fn cursor<P: Serialize>(position: &P) -> String {
    // Positions are tuples of numbers and texts, which always serialise.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).unwrap_or_default())
}

/// The `Idempotency-Key` header, if there is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdempotencyKey(pub Option<String>);

impl IdempotencyKey {
    /// The key, where the call requires one.
    ///
    /// # Errors
    /// 400 `idempotency-key-required`.
    pub fn required(self) -> Result<String, Problem> {
        self.0
            .ok_or_else(|| Problem::new(Code::IdempotencyKeyRequired))
    }

    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut values = headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        let bytes = value.as_bytes();
        let fits = (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&bytes.len())
            && bytes.iter().all(u8::is_ascii_graphic)
            && values.next().is_none();
        match value.to_str() {
            Ok(key) if fits => Ok(Self(Some(key.to_owned()))),
            _ => Err(Problem::invalid_field(
                "Idempotency-Key",
                format!("one key of 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters"),
            )),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> impl Future<Output = Result<Self, Problem>> + Send {
        std::future::ready(Self::of(&parts.headers))
    }
}

#[cfg(test)]
#[path = "extract_tests.rs"]
mod tests;
