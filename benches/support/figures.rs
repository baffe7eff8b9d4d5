//! What a run showed, and how it is printed.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ground::Ground;
use super::{Server, fsync};

/// The longest latency that is told apart, in microseconds.
const LATENCY_MAX_US: u64 = 60_000_000;

/// Latencies of the requests that counted.
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).unwrap())
    }

    pub(crate) fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(us.clamp(1, LATENCY_MAX_US));
    }
}

/// What one run showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Of the server's processes, a request.
    pub(crate) cpu_us: f64,
}

/// Runs `workers` at once until each has ended by itself, and adds up.
/// Each gets its number and returns the times of what it did.
pub(crate) async fn drive<W>(
    server: &Server,
    workers: usize,
    mut worker: impl FnMut(usize) -> W,
) -> Figures
where
    W: Future<Output = Times> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let (started, cpu) = (Instant::now(), server.cpu());
    for number in 0..workers {
        tasks.spawn(worker(number));
    }
    let mut all = Times::new();
    while let Some(times) = tasks.join_next().await {
        all.0.add(times.unwrap().0).unwrap();
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), server.cpu() - cpu);
    let ms = |quantile| all.0.value_at_quantile(quantile) as f64 / 1e3;
    Figures {
        per_second: all.0.len() as f64 / seconds,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        cpu_us: cpu.as_secs_f64() * 1e6 / all.0.len().max(1) as f64,
    }
}

/// The run with the median rate.
pub(crate) fn median(mut runs: Vec<Figures>) -> Figures {
    runs.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    runs[runs.len() / 2]
}

pub(crate) fn print_header(what: &str) {
    println!(
        "{what:<34} {:>10} {:>9} {:>9} {:>12}",
        "per second", "p50 ms", "p99 ms", "server µs"
    );
}

pub(crate) fn print_row(what: &str, figures: &Figures) {
    println!(
        "{what:<34} {:>10.0} {:>9.2} {:>9.2} {:>12.1}",
        figures.per_second, figures.p50_ms, figures.p99_ms, figures.cpu_us
    );
}

/// The line that a reader looks for.
pub(crate) fn print_ratio(what: &str, ours: &Figures, peer: &Figures, aim: f64) {
    println!(
        "{what}: {:.2} × the peer (aim: at least {aim})",
        ours.per_second / peer.per_second
    );
}

/// What a figure about durability means little without.
pub(crate) async fn print_conditions(ground: &Ground) {
    println!(
        "{} processors; {}",
        std::thread::available_parallelism().unwrap(),
        ground.durability().await
    );
    print_fsync(ground.disk());
}

pub(crate) fn print_fsync(folder: &Path) {
    let p50 = fsync::p50(folder).unwrap();
    println!(
        "a durable write of a page takes {:.3} ms here (p50)",
        p50.as_secs_f64() * 1e3
    );
}

/// A time that is promised to be at most `limit`.
pub(crate) fn print_times(what: &str, mut times: Vec<Duration>, limit: Duration) {
    times.sort_unstable();
    let at = |quantile: f64| times[((times.len() - 1) as f64 * quantile).round() as usize];
    println!(
        "{what}: p50 {:.2} s, p99 {:.2} s, longest {:.2} s of {} (aim: at most {:.1} s)",
        at(0.5).as_secs_f64(),
        at(0.99).as_secs_f64(),
        at(1.0).as_secs_f64(),
        times.len(),
        limit.as_secs_f64()
    );
}
