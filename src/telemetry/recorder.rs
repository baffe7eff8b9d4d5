//! The recorder of this process: what it keeps, and how it is read.

use std::sync::OnceLock;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::history::{self, SAMPLE_EVERY};
use super::names::{ALL, INVARIANT_VIOLATIONS_TOTAL, Kind, QUEUE_ETA_ERROR_SECONDS, Scope};
use super::process;
use crate::clock::Clock;
use crate::domain::invariant::Invariant;

/// Upper bounds of the buckets of everything that ends in `_seconds`: from a
/// decision in memory (1 µs) to the longest request (15 s).
const SECONDS_BUCKETS: &[f64] = &[
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
];
/// Upper bounds of the buckets of the error of a forecast: up to an hour.
const ETA_BUCKETS: &[f64] = &[
    0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0,
];
/// Upper bounds of the buckets of everything that ends in `_rows`.
const ROWS_BUCKETS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0,
];

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// The recorder of this process, installed at the first call. `None` if another
/// one had been installed before, or none is wanted.
pub fn recorder() -> Option<&'static PrometheusHandle> {
    RECORDER
        .get_or_init(|| match install_recorder() {
            Ok(handle) => Some(handle),
            Err(error) => {
                tracing::warn!(%error, "metrics are not collected");
                None
            }
        })
        .as_ref()
}

/// Nothing is measured in this process. Does nothing if something already is.
pub(super) fn leave_out() {
    let _ = RECORDER.set(None);
}

fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_rows".to_owned()), ROWS_BUCKETS)?
        .set_buckets_for_metric(
            Matcher::Full(QUEUE_ETA_ERROR_SECONDS.to_owned()),
            ETA_BUCKETS,
        )?
        .install_recorder()?;
    describe();
    begin_at_zero();
    process::observe();
    let upkeep = handle.clone();
    // A thread rather than a task: it outlives any runtime, as the recorder does.
    let started = std::thread::Builder::new()
        .name("metrics-upkeep".to_owned())
        .spawn(move || {
            let clock = Clock::system();
            loop {
                std::thread::sleep(SAMPLE_EVERY);
                process::observe();
                clock.anchor();
                // Rendering folds what was recorded into its buckets; until then
                // each time takes 8 bytes.
                history::sample(&upkeep.render(), clock.now());
            }
        });
    if let Err(error) = started {
        tracing::warn!(%error, "metrics are folded only when they are read, and have no history");
    }
    Ok(handle)
}

fn describe() {
    for metric in ALL {
        let help = metric.help.trim();
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, help),
            Kind::Gauge => describe_gauge!(metric.name, help),
            Kind::Histogram => describe_histogram!(metric.name, help),
        }
    }
}

/// What has not happened yet is told as 0: an alert on an increase sees the very
/// first one.
fn begin_at_zero() {
    for metric in ALL {
        if metric.kind == Kind::Counter && metric.labels.is_empty() && metric.scope == Scope::Always
        {
            counter!(metric.name).increment(0);
        }
    }
    for invariant in Invariant::ALL {
        counter!(INVARIANT_VIOLATIONS_TOTAL, "id" => invariant.id()).increment(0);
    }
}

/// What Prometheus is told.
#[must_use]
pub fn render() -> String {
    recorder().map(PrometheusHandle::render).unwrap_or_default()
}
