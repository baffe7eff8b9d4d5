//! The log.

use std::fmt;

use smallvec::SmallVec;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::recorder;
use crate::config::{Log, LogFormat};
use crate::trace;

/// Starts the log on stderr, and sends panics there; and the metrics, unless they
/// are not wanted. Later calls do nothing.
pub fn init(log: &Log, metrics: bool) {
    // The configuration was checked; `info` is what the defaults say.
    let filter = log
        .filter
        .parse()
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let format = WithIds::text(Format::default().with_ansi(ansi));
            lines.with_ansi(ansi).event_format(format).try_init()
        }
        LogFormat::Json => {
            let format = WithIds::json(Format::default().json().flatten_event(true));
            lines
                .fmt_fields(JsonFields::new())
                .event_format(format)
                .try_init()
        }
    };
    if started.is_ok() {
        log_panics();
    }
    if metrics {
        recorder();
    } else {
        super::recorder::leave_out();
    }
}

/// Lines that also say which request and which trace they are of, where that is
/// known: a span of `tracing` would cost each request more than all else that is
/// measured of it.
struct WithIds<F> {
    lines: F,
    /// How a line that is complete goes on, and ends.
    write: fn(&mut Writer<'_>, line: &str, ids: &[(&str, &str)]) -> fmt::Result,
}

impl<F> WithIds<F> {
    fn text(lines: F) -> Self {
        Self {
            lines,
            write: |to, line, ids| {
                to.write_str(line)?;
                ids.iter()
                    .try_for_each(|(name, id)| write!(to, " {name}={id}"))?;
                to.write_char('\n')
            },
        }
    }

    fn json(lines: F) -> Self {
        Self {
            lines,
            write: |to, line, ids| {
                to.write_str(line.strip_suffix('}').unwrap_or(line))?;
                for (name, id) in ids {
                    // A caller may choose an id of any visible characters.
                    let id = serde_json::to_string(id).unwrap_or_default();
                    write!(to, ",\"{name}\":{id}")?;
                }
                to.write_str("}\n")
            },
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithIds<F>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let with_ids = trace::with_current(|current| {
            let request = current.request_id.as_ref().and_then(|id| id.to_str().ok());
            let trace = current.trace.as_ref().map(trace::id_of);
            let ids = [("request.id", request), ("trace.id", trace)];
            let ids: SmallVec<[(&str, &str); 2]> = ids
                .iter()
                .filter_map(|(name, id)| Some((*name, (*id)?)))
                .collect();
            let mut line = String::new();
            self.lines
                .format_event(context, Writer::new(&mut line), event)?;
            (self.write)(&mut writer, line.trim_end_matches('\n'), &ids)
        });
        with_ids.unwrap_or_else(|| self.lines.format_event(context, writer, event))
    }
}

/// A panic is a line of the log like any other failure.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(panic.location = %location, panic.message = %message, "a task panicked");
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::http::HeaderValue;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::trace::Context;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    impl Lines {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    async fn say(about: &str) {
        let context = Context {
            trace: trace::read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            request_id: Some(HeaderValue::from_static("a\"b")),
        };
        trace::within(context, async { tracing::info!(about, "said") }).await;
    }

    #[tokio::test]
    async fn a_line_says_which_request_and_trace_it_is_of() {
        let lines = Lines::default();
        let log = tracing_subscriber::fmt().with_writer(lines.clone());
        let text = Format::default().with_ansi(false);
        let log = log.with_ansi(false).event_format(WithIds::text(text));
        let guard = tracing::subscriber::set_default(log.finish());
        say("text").await;
        tracing::info!("by itself");
        drop(guard);
        let said = lines.take();
        let mut said = said.lines();
        let ids = " request.id=a\"b trace.id=0af7651916cd43dd8448eb211c80319c";
        let first = said.next().unwrap();
        assert!(
            first.contains("said about=\"text\"") && first.ends_with(ids),
            "{first}"
        );
        assert!(said.next().unwrap().ends_with("by itself"));

        let log = tracing_subscriber::fmt().with_writer(lines.clone());
        let json = Format::default().json().flatten_event(true);
        let log = log
            .fmt_fields(JsonFields::new())
            .event_format(WithIds::json(json));
        let guard = tracing::subscriber::set_default(log.finish());
        say("json").await;
        tracing::info!("by itself");
        drop(guard);
        let said = lines.take();
        let said: Vec<serde_json::Value> = said
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(said[0]["about"], "json");
        assert_eq!(said[0]["request.id"], "a\"b");
        assert_eq!(said[0]["trace.id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(said[1]["request.id"], serde_json::Value::Null);
    }
}
