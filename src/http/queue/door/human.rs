//! Whether somebody is a person, by an outside service: hCaptcha, Turnstile,
//! reCAPTCHA, or one of one's own that answers like them.
//!
//! **The fail-open rule.** While the service can't be asked (no answer in time,
//! an error, an answer that is none, or left alone by the breaker), newcomers
//! get in unchecked and are counted, unless the operator has chosen to refuse
//! them. That *we* are too busy to ask is no such outage, or a flood would open
//! the door: then they are told to come back.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::breaker::{ALONE, Breaker};
use crate::clock::monotonic;
use crate::config::{self, OnOutage};
use crate::domain::time::Timestamp;
use crate::http::error::{Answer, Code, Problem};
use crate::telemetry::HumanMetrics;

/// The longest token that is passed on, in bytes; the longest known ones have
/// 2,048.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// What these services say of a secret that isn't theirs: not the fault of who
/// is checked.
const OUR_FAULT: &str = "-input-secret";

/// Asks the service.
#[derive(Debug)]
pub(super) struct HumanCheck {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    url: String,
    secret: config::Secret,
    timeout: Duration,
    slots: Semaphore,
    on_outage: OnOutage,
    breaker: Mutex<Breaker>,
    metrics: HumanMetrics,
}

/// What the service answers.
#[derive(Debug, Deserialize)]
struct Verdict {
    success: bool,
    #[serde(default, rename = "error-codes")]
    error_codes: Vec<String>,
}

impl HumanCheck {
    pub(super) fn new(config: &config::HumanCheck) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .build();
        let slots = config.concurrency_max as usize;
        Self {
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(slots)
                .build(connector),
            url: config.url.clone(),
            secret: config.secret.clone(),
            timeout: config.timeout(),
            slots: Semaphore::new(slots),
            on_outage: config.on_outage,
            breaker: Mutex::default(),
            metrics: HumanMetrics::new(),
        }
    }

    /// Lets a person pass. `now` is asked more than once.
    ///
    /// # Errors
    /// 428 without a token, 403 if the service refuses it, 503 if it can't be
    /// asked and nobody is to be admitted unchecked, or if too many are being
    /// checked.
    pub(super) async fn check(
        &self,
        token: Option<&str>,
        now: impl Fn() -> Timestamp,
    ) -> Answer<()> {
        if self.breaker.lock().is_open(now()) {
            return self.unchecked();
        }
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            self.metrics.required.increment(1);
            return Err(Code::HumanCheckRequired.into());
        };
        if token.len() > TOKEN_BYTES_MAX {
            return self.refused();
        }
        let Ok(Ok(_slot)) = timeout(self.timeout, self.slots.acquire()).await else {
            self.metrics.busy.increment(1);
            return Err(Problem::overloaded());
        };
        // Others may have found out meanwhile that it is away.
        if !self.breaker.lock().may_ask(now()) {
            return self.unchecked();
        }
        let asked = monotonic();
        let answer = timeout(self.timeout, self.ask(token)).await;
        self.metrics.seconds.record(asked.elapsed());
        match answer.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(is_human) => {
                if self.breaker.lock().succeeded() {
                    tracing::info!("the human check is back");
                }
                if !is_human {
                    return self.refused();
                }
                self.metrics.passed.increment(1);
                Ok(())
            }
            Err(cause) => {
                tracing::debug!(cause, "the human check could not be asked");
                if self.breaker.lock().failed(now()) {
                    let alone_seconds = ALONE.0 / 1_000;
                    tracing::warn!(cause, alone_seconds, "the human check is away");
                }
                self.unchecked()
            }
        }
    }

    fn refused(&self) -> Answer<()> {
        self.metrics.refused.increment(1);
        Err(Code::HumanCheckFailed.into())
    }

    /// The fail-open rule.
    fn unchecked(&self) -> Answer<()> {
        match self.on_outage {
            OnOutage::Admit => {
                self.metrics.failed_open.increment(1);
                Ok(())
            }
            OnOutage::Refuse => {
                self.metrics.failed_closed.increment(1);
                let seconds = u32::try_from(ALONE.0 / 1_000).unwrap_or(u32::MAX);
                Err(Problem::new(Code::HumanCheckUnavailable).retry_after(seconds))
            }
        }
    }

    /// What the service says of a token.
    ///
    /// # Errors
    /// Why it can't be told, for the log: never the token or the secret.
    async fn ask(&self, token: &str) -> Result<bool, String> {
        let form = form(&[("secret", self.secret.expose()), ("response", token)]);
        // The settings take no other url.
        let uri: Uri = self.url.parse().map_err(|_| "its url is none")?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(Body::from(form))
            .map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| format!("it can't be reached: {error}"))?;
        if !answer.status().is_success() {
            return Err(format!("it answers {}", answer.status()));
        }
        let body = axum::body::to_bytes(Body::new(answer.into_body()), ANSWER_BYTES_MAX).await;
        let body = body.map_err(|error| format!("its answer broke off: {error}"))?;
        judge(&body)
    }
}

/// What an answer of the service means.
fn judge(body: &[u8]) -> Result<bool, String> {
    let verdict: Verdict =
        serde_json::from_slice(body).map_err(|error| format!("its answer is none: {error}"))?;
    let blames_us = |code: &String| code.ends_with(OUR_FAULT);
    match verdict.error_codes.iter().find(|code| blames_us(code)) {
        Some(_) if !verdict.success => Err("it doesn't know queue.human_check.secret".to_owned()),
        Some(_) | None => Ok(verdict.success),
    }
}

/// A body of `application/x-www-form-urlencoded`.
fn form(fields: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for (name, value) in fields {
        if !body.is_empty() {
            body.push('&');
        }
        body.push_str(name);
        body.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => {
                    body.push(char::from(byte));
                }
                // Writing to a String can't fail.
                other => drop(write!(body, "%{other:02X}")),
            }
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_yes_no_or_none_and_our_own_fault_is_an_outage() {
        assert_eq!(judge(br#"{"success": true, "hostname": "x"}"#), Ok(true));
        assert_eq!(judge(br#"{"success": false}"#), Ok(false));
        let used = br#"{"success": false, "error-codes": ["timeout-or-duplicate"]}"#;
        assert_eq!(judge(used), Ok(false));
        for none in [
            &br#"{"success": false, "error-codes": ["invalid-input-secret"]}"#[..],
            br#"{"success": "true"}"#,
            b"{}",
            b"<html>",
            b"",
        ] {
            assert!(judge(none).is_err(), "{}", String::from_utf8_lossy(none));
        }
    }

    #[test]
    fn a_form_escapes_all_that_could_end_a_field() {
        let text = form(&[("secret", "a&b=c"), ("response", "x+y z%ä-_.*")]);
        assert_eq!(text, "secret=a%26b%3Dc&response=x%2By%20z%25%C3%A4-_.*");
    }
}
