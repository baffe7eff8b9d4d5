//! How a body is read and parsed as JSON: limits, refusals that name the field,
//! and the hash by which an idempotency key recognises it.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::error::{Code, Problem};
use super::extract::BodyHash;
use super::strict::Strict;

/// How much of a body that is too long is read and thrown away.
const DRAINED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Reads a body that must be JSON or empty.
pub(super) async fn json_bytes(
    request: Request,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Bytes, Problem> {
    let is_json = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_none_or(is_json);
    let bytes = read(request.into_body(), bytes_max, timeout).await?;
    // An empty body counts as none, whatever its Content-Type.
    if is_json || bytes.is_empty() {
        Ok(bytes)
    } else {
        Err(Problem::new(Code::UnsupportedMediaType).detail("send application/json"))
    }
}

/// `application/json` or `application/*+json`, with or without parameters.
fn is_json(content_type: &HeaderValue) -> bool {
    let Ok(text) = content_type.to_str() else {
        return false;
    };
    let essence = text
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Reads a body of at most `bytes_max` within `timeout`.
///
/// # Errors
/// 413, 408, or 400 where the connection broke off.
pub(super) async fn read(
    body: Body,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Bytes, Problem> {
    use axum::body::HttpBody as _;
    let lower = body.size_hint().lower();
    let mut chunks = body.into_data_stream();
    // Said to be too long: refused before a byte is kept.
    if lower > bytes_max as u64 {
        drain(&mut chunks, timeout).await;
        return Err(too_large(bytes_max));
    }
    match tokio::time::timeout(timeout, collect(&mut chunks, bytes_max)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            drain(&mut chunks, timeout).await;
            Err(too_large(bytes_max))
        }
        Ok(Err(problem)) => Err(problem),
        Err(_) => Err(Problem::new(Code::RequestTimeout)
            .detail(format!(
                "the body did not arrive within {} s",
                timeout.as_secs()
            ))
            // What else the client sends can't be told from the next request.
            .header(header::CONNECTION, HeaderValue::from_static("close"))),
    }
}

/// Reads on for a while without keeping anything: a client that is still
/// sending sees its connection break, not the answer.
async fn drain(chunks: &mut BodyDataStream, timeout: Duration) {
    let mut left = DRAINED_BYTES_MAX;
    let reading = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    // Whoever sends for longer has had the chance.
    let _ = tokio::time::timeout(timeout, reading).await;
}

/// The whole body; `None` if it is longer than `bytes_max`.
async fn collect(chunks: &mut BodyDataStream, bytes_max: usize) -> Result<Option<Bytes>, Problem> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|_| Problem::new(Code::BadRequest).detail("the body broke off"))?;
        if first.len() + rest.len() + chunk.len() > bytes_max {
            return Ok(None);
        }
        // Nearly every body is one chunk, which needn't be copied.
        if first.is_empty() {
            first = chunk;
        } else {
            rest.extend_from_slice(&chunk);
        }
    }
    if rest.is_empty() {
        return Ok(Some(first));
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(Some(whole.freeze()))
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(Code::PayloadTooLarge)
        .detail(format!("the body may have at most {bytes_max} bytes"))
}

fn invalid_json(detail: String) -> Problem {
    Problem::new(Code::InvalidJson).detail(detail)
}

/// Parses a body.
///
/// # Errors
/// 400 `invalid-json` if it is empty or no JSON, 422 `invalid-request` with the
/// path of the field if it has the wrong shape or carries a NUL.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        invalid_json(format!(
            "the body is not UTF-8 (at byte {})",
            error.valid_up_to()
        ))
    })?;
    if text.trim_ascii().is_empty() {
        return Err(invalid_json("this call needs a JSON body".to_owned()));
    }
    if has_nul(text.as_bytes()) {
        return Err(nul_problem(text));
    }
    read_strictly(text).map_err(|error| parse_problem::<T>(text, &error))
}

fn read_strictly<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = T::deserialize(Strict(&mut json))?;
    json.end()?;
    Ok(parsed)
}

/// Says what is wrong; only here is the path of the field looked for, so that
/// good requests don't pay for it.
fn parse_problem<T: DeserializeOwned>(text: &str, error: &serde_json::Error) -> Problem {
    // What is no JSON at all is told from what has the wrong shape by reading it
    // as anything: a wrong shape is found before the syntax after it is seen,
    // and serde_json calls a number in the place of an enum a syntax error.
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        return invalid_json(error.to_string());
    }
    let mut json = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, T>(Strict(&mut json)) {
        Err(error) => {
            let message = without_position(&error.inner().to_string());
            let path = match error.path().to_string() {
                path if path == "." => String::new(),
                path => path,
            };
            Problem::invalid_field(field_of(path, &message), message)
        }
        // Can't be: the same text was refused above. Say what was found there.
        Ok(_) => Problem::invalid_field("", without_position(&error.to_string())),
    }
}

/// serde names a missing or unknown field in its message only; its path is that
/// of the object.
pub(super) fn field_of(path: String, message: &str) -> String {
    let name = ["missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start))
        .and_then(|rest| rest.split('`').next());
    match name {
        Some(name) if path.is_empty() => name.to_owned(),
        // The path of a duplicate ends with the field already.
        Some(name) if path != name && !path.ends_with(&format!(".{name}")) => {
            format!("{path}.{name}")
        }
        _ => path,
    }
}

/// Without serde_json's " at line 1 column 17": it is the field that helps.
fn without_position(message: &str) -> String {
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message.to_owned(),
    }
}

/// Whether a string in this JSON text has a NUL. A raw one is no JSON, so it is
/// an escape: `\u0000` after an even number of backslashes.
pub(super) fn has_nul(json: &[u8]) -> bool {
    if !json.contains(&b'\\') {
        return false;
    }
    json.windows(6).enumerate().any(|(at, window)| {
        window == b"\\u0000"
            && json[..at]
                .iter()
                .rev()
                .take_while(|byte| **byte == b'\\')
                .count()
                % 2
                == 0
    })
}

fn nul_problem(text: &str) -> Problem {
    match serde_json::from_str::<Value>(text) {
        Ok(value) => {
            let mut path = String::new();
            find_nul(&value, &mut path);
            Problem::invalid_field(path, "a text may not contain NUL characters")
        }
        Err(error) => invalid_json(error.to_string()),
    }
}

/// Leaves in `path` where the first NUL is. Depth is bounded by the parser.
fn find_nul(value: &Value, path: &mut String) -> bool {
    let before = path.len();
    match value {
        Value::String(text) => return text.contains('\0'),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let _ = write!(path, "[{index}]");
                if find_nul(item, path) {
                    return true;
                }
                path.truncate(before);
            }
        }
        Value::Object(members) => {
            for (name, item) in members {
                if name.contains('\0') {
                    return true;
                }
                path.push_str(if before == 0 { "" } else { "." });
                path.push_str(name);
                if find_nul(item, path) {
                    return true;
                }
                path.truncate(before);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    false
}

/// The hash of a body's canonical form: members in order of their names, no
/// spaces. An empty body hashes as itself.
///
/// # Errors
/// 400 `invalid-json`.
pub fn hash_of(bytes: &[u8]) -> Result<BodyHash, Problem> {
    if bytes.is_empty() {
        return Ok(Sha256::digest(b"").into());
    }
    let value =
        serde_json::from_slice::<Value>(bytes).map_err(|error| invalid_json(error.to_string()))?;
    let mut canonical = String::with_capacity(bytes.len());
    write_canonical(&value, &mut canonical);
    Ok(Sha256::digest(canonical.as_bytes()).into())
}

/// Doesn't rely on the order that `serde_json::Map` has, which is a feature
/// that any dependency can switch.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut names: Vec<_> = members.iter().collect();
            names.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (name, item) in names {
                let _ = write!(out, "{}:", Value::String(name.clone()));
                write_canonical(item, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}
