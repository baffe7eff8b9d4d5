//! Conditional reads: ETag, `If-None-Match`, 304.

use std::hash::BuildHasher as _;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use foldhash::quality::FixedState;
use serde::Serialize;

use super::error::{Answer, Problem};

/// What public reads say about how long they may be kept (the HTTP contract).
pub const PUBLIC: HeaderValue = HeaderValue::from_static("public, max-age=1");

/// Whether the reader has what `etag` (with its quotes) names. Weak comparison,
/// as RFC 9110 §13.1.2 asks for.
#[must_use]
pub fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|v| v.split(','));
    tags.any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}

/// A public answer: JSON with a strong ETag, or 304 if the reader has it.
///
/// # Errors
/// If `value` can't be written as JSON, which is a defect.
pub fn public_json<T: Serialize>(headers: &HeaderMap, value: &T) -> Answer<Response> {
    let body = serde_json::to_vec(value).map_err(|error| Problem::internal(&error))?;
    let hash = |seed| FixedState::with_seed(seed).hash_one(&body);
    let etag = format!("\"{:016x}{:016x}\"", hash(1), hash(2));
    let json = HeaderValue::from_static("application/json");
    Ok(conditional(headers, &etag, PUBLIC, || {
        (json, Body::from(body))
    }))
}

/// The body of `make`, with its media type, or 304 if the reader has it.
pub fn conditional(
    headers: &HeaderMap,
    etag: &str,
    cache_control: HeaderValue,
    make: impl FnOnce() -> (HeaderValue, Body),
) -> Response {
    let mut response = Response::new(Body::empty());
    if is_known(headers, etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        let (media_type, body) = make();
        *response.body_mut() = body;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, media_type);
    }
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, cache_control);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_it_gets_304_and_others_the_body() {
        let body = public_json(&HeaderMap::new(), &"text").unwrap();
        assert_eq!(body.status(), 200);
        let etag = body.headers()[header::ETAG].clone();
        let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, etag.clone())]);
        let again = public_json(&headers, &"text").unwrap();
        assert_eq!(
            (again.status().as_u16(), &again.headers()[header::ETAG]),
            (304, &etag)
        );
        assert_eq!(public_json(&headers, &"other").unwrap().status(), 200);
    }

    #[test]
    fn tags_come_in_lists_and_may_be_weak() {
        let headers = |value| {
            HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(value))])
        };
        assert!(is_known(&headers("\"a\", W/\"b\""), "\"b\""));
        assert!(is_known(&headers("*"), "\"b\""));
        assert!(!is_known(&headers("\"a\""), "\"b\""));
    }
}
