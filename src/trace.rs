//! Traces (W3C Trace Context, OpenTelemetry): which request something is done
//! for, and, where spans are recorded, how long each part of it took.
//!
//! A trace travels as its `traceparent`, with the request, with its commands to
//! entities, wherever they are, and with the events that come of it: so what a
//! purchase leads to belongs to it, up to the tickets. Spans are recorded only
//! with `telemetry.otlp_url`, and only of traces that are sampled ([`Span`]);
//! without it this costs a request nothing but carrying what its caller sent.

mod export;
mod span;

use std::sync::Arc;

use axum::http::HeaderValue;
use serde::{Deserialize, Serialize};

pub use self::export::{finish, is_on, start};
pub use self::span::{Kind, Span, is_recorded, of_request};

/// A `traceparent` of version 00.
pub type Trace = Arc<str>;

/// What a task works on. Travels with its commands to other nodes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Context {
    /// The trace that it is a part of.
    pub trace: Option<Trace>,
    /// The request that it does it for.
    #[serde(with = "as_text")]
    pub request_id: Option<HeaderValue>,
}

/// The value of a header as other nodes are told it.
mod as_text {
    use axum::http::HeaderValue;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::ref_option, reason = "serde asks for it")]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<HeaderValue>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let text = value.as_ref().and_then(|value| value.to_str().ok());
        text.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<HeaderValue>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        Ok(text.and_then(|text| text.try_into().ok()))
    }
}

tokio::task_local! {
    static CURRENT: Context;
}

/// `00-<trace id>-<parent id>-<flags>`.
const PARTS: [usize; 4] = [2, 32, 16, 2];

/// Where its parts stand.
const TRACE_ID: std::ops::Range<usize> = 3..35;
const PARENT_ID: std::ops::Range<usize> = 36..52;
const FLAGS: std::ops::Range<usize> = 53..55;

/// The trace that a header tells; `None` where it is malformed, as the
/// specification asks (§3.2). Of a version that is not known yet what version 00
/// has is taken (§4.3), and goes on as version 00.
#[must_use]
pub fn read(header: &str) -> Option<Trace> {
    let is_hex = |part: &str| {
        part.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let is_zero = |part: &str| part.bytes().all(|b| b == b'0');
    let (known, later) = header.split_at_checked(FLAGS.end)?;
    let parts: Vec<&str> = known.split('-').collect();
    let lengths = parts.iter().map(|part| part.len());
    let is_right = lengths.eq(PARTS)
        && parts.iter().all(|part| is_hex(part))
        && !is_zero(parts[1])
        && !is_zero(parts[2]);
    match parts[0] {
        _ if !is_right => None,
        "00" => later.is_empty().then(|| header.into()),
        "ff" => None,
        _ if later.is_empty() || later.starts_with('-') => {
            // Of its flags only this one is known to mean the same.
            let is_sampled = u8::from_str_radix(parts[3], 16).ok()? & 1;
            Some(format!("00-{}-{}-{is_sampled:02x}", parts[1], parts[2]).into())
        }
        _ => None,
    }
}

/// The id of a trace, as logs tell it.
#[must_use]
pub fn id_of(trace: &Trace) -> &str {
    trace.get(TRACE_ID).unwrap_or_default()
}

/// The trace of the request that this task works on.
#[must_use]
pub fn current() -> Option<Trace> {
    CURRENT.try_with(|context| context.trace.clone()).ok()?
}

/// Looks at what this task works on, if that is known.
pub fn with_current<T>(look: impl FnOnce(&Context) -> T) -> Option<T> {
    CURRENT.try_with(look).ok()
}

/// What this task works on.
#[must_use]
pub fn context() -> Context {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

/// Does `work` as a part of `context`.
pub fn within<F: Future>(context: Context, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(context, work)
}

/// `work` as a part of what this task works on, for a task of its own.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    within(context(), work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_traceparent_is_carried_on() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = read(good).unwrap();
        assert_eq!(&*trace, good);
        assert_eq!(id_of(&trace), "0af7651916cd43dd8448eb211c80319c");
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0é",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        for later in ["01", "cc"] {
            for more in ["", "-", "-what-comes-with-it"] {
                let unknown_flags = good[2..].replace("-01", "-ff");
                let read = read(&format!("{later}{unknown_flags}{more}"));
                assert_eq!(read.as_deref(), Some(good), "{later} {more}");
            }
        }
    }

    #[test]
    fn another_node_knows_which_request_a_command_is_of() {
        let context = Context {
            trace: Some("x".into()),
            request_id: Some(HeaderValue::from_static("a\"b")),
        };
        let sent = postcard::to_stdvec(&context).unwrap();
        let read: Context = postcard::from_bytes(&sent).unwrap();
        assert_eq!(
            (read.trace, read.request_id),
            (context.trace, context.request_id)
        );
        let sent = postcard::to_stdvec(&Context::default()).unwrap();
        let read: Context = postcard::from_bytes(&sent).unwrap();
        assert_eq!((read.trace, read.request_id), (None, None));
    }

    #[tokio::test]
    async fn a_task_of_its_own_is_part_of_the_trace_only_if_it_is_carried() {
        let trace: Trace = "x".into();
        let context = Context {
            trace: Some(trace.clone()),
            request_id: None,
        };
        within(context, async move {
            assert_eq!(
                tokio::spawn(carried(async { current() })).await.unwrap(),
                Some(trace)
            );
            assert_eq!(tokio::spawn(async { current() }).await.unwrap(), None);
        })
        .await;
    }
}
