//! Where spans go: an OpenTelemetry collector, over OTLP/HTTP, in batches, from
//! a thread of its own. What it can't take in time is dropped: nobody waits for
//! it.

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanProcessor as _,
};

use crate::config::Telemetry;

/// Spans that wait to be sent; further ones are dropped. About 1 KB each.
const QUEUE_MAX: usize = 8_192;

/// Spans that are sent in one go.
const BATCH_MAX: usize = 512;

/// How long spans wait for company.
const SEND_EVERY: Duration = Duration::from_secs(1);

/// How long the collector may take for a batch.
const SEND_MAX: Duration = Duration::from_secs(5);

/// Where a collector takes traces (OTLP/HTTP).
const PATH: &str = "/v1/traces";

/// So many random bits decide whether a trace is sampled: those that a float
/// tells apart.
const SAMPLE_BITS: u32 = 53;

static EXPORTER: OnceLock<Exporter> = OnceLock::new();

/// Sends spans on.
#[derive(Debug)]
pub(super) struct Exporter {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    /// The share of traces that are recorded.
    sample: f64,
}

/// Has spans exported from now on, if `settings` say where to. Call it before
/// any runtime is started: the exporter has threads of its own.
///
/// # Errors
/// One line: what is wrong with the address.
pub fn start(settings: &Telemetry) -> Result<(), String> {
    if settings.otlp_url.is_empty() {
        return Ok(());
    }
    let endpoint = settings.otlp_url.trim_end_matches('/').to_owned() + PATH;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .with_timeout(SEND_MAX)
        .build()
        .map_err(|error| format!("telemetry.otlp_url: {error}"))?;
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_MAX)
        .with_max_export_batch_size(BATCH_MAX)
        .with_scheduled_delay(SEND_EVERY)
        .build();
    let mut processor = BatchSpanProcessor::new(exporter, config);
    let resource = Resource::builder()
        .with_service_name("onsale")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    processor.set_resource(&resource);
    let exporter = Exporter {
        processor,
        scope: InstrumentationScope::builder("onsale").build(),
        sample: settings.trace_sample,
    };
    // A second start changes nothing.
    let _ = EXPORTER.set(exporter);
    Ok(())
}

/// Sends what waits to be sent, and waits for that. Not from within a runtime.
pub fn finish() {
    if let Some(exporter) = exporter()
        && let Err(error) = exporter.processor.shutdown_with_timeout(SEND_MAX)
    {
        tracing::warn!(%error, "the last spans could not be sent");
    }
}

/// Whether spans are exported.
#[must_use]
pub fn is_on() -> bool {
    exporter().is_some()
}

pub(super) fn exporter() -> Option<&'static Exporter> {
    EXPORTER.get()
}

impl Exporter {
    /// Whether a trace with the random bits `low` of a UUID is recorded.
    pub(super) fn is_sampled(&self, low: u64) -> bool {
        // The first two bits of that half are the same in all of them.
        let random = (low << 2) >> (u64::BITS - SAMPLE_BITS);
        #[allow(clippy::cast_precision_loss, reason = "so many bits are told apart")]
        let share = random as f64 / (1_u64 << SAMPLE_BITS) as f64;
        share < self.sample
    }

    pub(super) fn scope(&self) -> InstrumentationScope {
        self.scope.clone()
    }

    pub(super) fn take(&self, span: SpanData) {
        self.processor.on_end(span);
    }
}
