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

pub use self::export::{finish, is_on, start};
pub use self::span::{Kind, Span, is_recorded, of_request};

/// A `traceparent` of version 00.
pub type Trace = Arc<str>;

/// What a task works on.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The trace that it is a part of.
    pub trace: Option<Trace>,
    /// The request that it does it for.
    pub request_id: Option<HeaderValue>,
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
/// specification asks (§3.2).
#[must_use]
pub fn read(header: &str) -> Option<Trace> {
    let is_hex = |part: &str| {
        part.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let is_zero = |part: &str| part.bytes().all(|b| b == b'0');
    let parts: Vec<&str> = header.split('-').collect();
    let lengths = parts.iter().map(|part| part.len());
    let is_right = lengths.eq(PARTS)
        && parts.iter().all(|part| is_hex(part))
        && parts[0] == "00"
        && !is_zero(parts[1])
        && !is_zero(parts[2]);
    is_right.then(|| header.into())
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

/// Does `work` as a part of `context`.
pub fn within<F: Future>(context: Context, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(context, work)
}

/// `work` as a part of what this task works on, for a task of its own.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let context = CURRENT.try_with(Clone::clone).unwrap_or_default();
    within(context, work)
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
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
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
