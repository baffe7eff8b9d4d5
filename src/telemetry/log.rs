//! The log.

use tracing_subscriber::EnvFilter;

use super::recorder;
use crate::config::{Log, LogFormat};

/// Starts the log on stderr, and sends panics there. Later calls do nothing.
pub fn init(log: &Log) {
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
            lines.with_ansi(ansi).try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    if started.is_ok() {
        log_panics();
    }
    recorder();
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
