//! A span: one part of the work for a request, with its beginning and its end.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::export::{Exporter, exporter};
use super::{FLAGS, PARENT_ID, TRACE_ID, Trace};
use crate::clock;

/// How a span stands to what is around it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Answers a request.
    Server,
    /// A part of this program.
    Internal,
    /// Hands an event to a bus.
    Producer,
    /// Acts on an event from a bus.
    Consumer,
}

/// What is recorded of a part of the work; nothing unless its trace is sampled
/// and traces are exported. It ends when it is dropped.
#[derive(Debug, Default)]
pub struct Span(Option<Box<Recording>>);

#[derive(Debug)]
struct Recording {
    to: &'static Exporter,
    trace: TraceId,
    id: SpanId,
    parent: SpanId,
    name: Cow<'static, str>,
    kind: Kind,
    began: SystemTime,
    attributes: Vec<KeyValue>,
    failure: Option<Cow<'static, str>>,
}

/// The span of a request that came with the trace `from`, and the trace for all
/// that is done for it. A caller's trace is gone on with, and its choice of
/// whether it is recorded holds; without one it begins here, and
/// `telemetry.trace_sample` says how many are recorded.
#[must_use]
pub fn of_request(from: Option<Trace>) -> (Span, Option<Trace>) {
    let Some(to) = exporter() else {
        return (Span(None), from);
    };
    if let Some(from) = from {
        let span = Span::begin("request", Kind::Server, Some(&from));
        let trace = span.trace().unwrap_or(from);
        return (span, Some(trace));
    }
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    let trace = TraceId::from(u128::from(high) << 64 | u128::from(low));
    if !to.is_sampled(low) {
        return (Span(None), Some(traceparent(trace, new_id(), false)));
    }
    let recording = Recording::new(to, trace, SpanId::INVALID, "request", Kind::Server);
    let span = Span(Some(Box::new(recording)));
    let trace = span.trace();
    (span, trace)
}

impl Span {
    /// Begins one below `parent`.
    #[must_use]
    pub fn begin(name: &'static str, kind: Kind, parent: Option<&str>) -> Self {
        let begin = || {
            let to = exporter()?;
            let (trace, parent) = sampled(parent?)?;
            Some(Box::new(Recording::new(to, trace, parent, name, kind)))
        };
        Self(begin())
    }

    /// One that began so long ago.
    #[must_use]
    pub fn since(mut self, ago: Duration) -> Self {
        if let Some(recording) = &mut self.0 {
            recording.began -= ago;
        }
        self
    }

    /// Whether anything is recorded: what costs something to tell is told only
    /// then.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// The trace for what is done below this; `None` if nothing is recorded.
    #[must_use]
    pub fn trace(&self) -> Option<Trace> {
        let recording = self.0.as_ref()?;
        Some(traceparent(recording.trace, recording.id, true))
    }

    /// Names it by what became known.
    pub fn rename(&mut self, name: impl FnOnce() -> String) {
        if let Some(recording) = &mut self.0 {
            recording.name = Cow::Owned(name());
        }
    }

    /// Tells something of it.
    pub fn tell(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(recording) = &mut self.0 {
            recording.attributes.push(KeyValue::new(key, value));
        }
    }

    /// It came to nothing, and this is why.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        if let Some(recording) = &mut self.0 {
            recording.failure = Some(why.into());
        }
    }
}

impl Recording {
    fn new(
        to: &'static Exporter,
        trace: TraceId,
        parent: SpanId,
        name: &'static str,
        kind: Kind,
    ) -> Self {
        Self {
            to,
            trace,
            id: new_id(),
            parent,
            name: Cow::Borrowed(name),
            kind,
            began: clock::wall(),
            attributes: Vec::new(),
            failure: None,
        }
    }

    fn into_data(self) -> (&'static Exporter, SpanData) {
        let flags = TraceFlags::SAMPLED;
        let context = SpanContext::new(self.trace, self.id, flags, false, TraceState::NONE);
        let data = SpanData {
            span_context: context,
            parent_span_id: self.parent,
            parent_span_is_remote: matches!(self.kind, Kind::Server | Kind::Consumer),
            span_kind: match self.kind {
                Kind::Server => SpanKind::Server,
                Kind::Internal => SpanKind::Internal,
                Kind::Producer => SpanKind::Producer,
                Kind::Consumer => SpanKind::Consumer,
            },
            name: self.name,
            start_time: self.began,
            end_time: clock::wall(),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: self.failure.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.to.scope(),
        };
        (self.to, data)
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(recording) = self.0.take() {
            let (to, data) = recording.into_data();
            to.take(data);
        }
    }
}

/// Whether what is done for `trace` is recorded.
#[must_use]
pub fn is_recorded(trace: &Trace) -> bool {
    exporter().is_some() && sampled(trace).is_some()
}

/// The ids of a trace that is sampled.
fn sampled(trace: &str) -> Option<(TraceId, SpanId)> {
    let flags = u8::from_str_radix(trace.get(FLAGS)?, 16).ok()?;
    if flags & TraceFlags::SAMPLED.to_u8() == 0 {
        return None;
    }
    let id = TraceId::from_hex(trace.get(TRACE_ID)?).ok()?;
    Some((id, SpanId::from_hex(trace.get(PARENT_ID)?).ok()?))
}

/// Never zero: a random UUID has bits that are set.
fn new_id() -> SpanId {
    SpanId::from(uuid::Uuid::new_v4().as_u64_pair().1)
}

fn traceparent(trace: TraceId, id: SpanId, is_sampled: bool) -> Trace {
    let mut text = String::with_capacity(55);
    // Writing to a text does not fail.
    let _ = write!(text, "00-{trace}-{id}-{:02x}", u8::from(is_sampled));
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_reads_back_as_what_it_was_made_of() {
        let (trace, id) = (TraceId::from(7_u128 << 64 | 5), new_id());
        let text = traceparent(trace, id, true);
        assert_eq!(super::super::read(&text).as_deref(), Some(&*text));
        assert_eq!(sampled(&text), Some((trace, id)));
        let unsampled = traceparent(trace, id, false);
        assert_eq!(super::super::read(&unsampled).as_deref(), Some(&*unsampled));
        assert_eq!(sampled(&unsampled), None);
    }

    #[test]
    fn without_an_exporter_a_caller_s_trace_is_carried_on_as_it_came() {
        let from: Trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into();
        let (span, trace) = of_request(Some(from.clone()));
        assert!(!span.is_recorded());
        assert_eq!(trace, Some(from));
        let (span, trace) = of_request(None);
        assert!(!span.is_recorded() && trace.is_none());
    }
}
