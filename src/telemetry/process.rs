//! What the process takes of its machine, by the names that all Prometheus
//! clients use. Linux only: elsewhere these are left out.

use std::str::FromStr;

use metrics::{counter, gauge};

use super::names::*;

/// The unit of the times in `/proc/PID/stat`: USER_HZ, 100 on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// Where the fields of `/proc/PID/stat` stand after the name, which is in
/// parentheses and may have spaces.
const UTIME: usize = 11;
const STIME: usize = 12;
const THREADS: usize = 17;
const START: usize = 19;
const VSIZE: usize = 20;

const STAT: &str = "/proc/self/stat";

/// Those after the name.
fn fields_of(stat: &str) -> Vec<&str> {
    let after_name = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    after_name.split_ascii_whitespace().collect()
}

fn seconds_of(fields: &[&str]) -> Option<f64> {
    let field = |at: usize| number::<f64>(fields.get(at).copied());
    Some((field(UTIME)? + field(STIME)?) / TICKS_A_SECOND)
}

/// How much processor time this process has used, in seconds.
pub(super) fn cpu_seconds() -> Option<f64> {
    seconds_of(&fields_of(&read(STAT)?))
}

/// Tells the metrics.
pub(super) fn observe() {
    if let Some(stat) = read(STAT) {
        let fields = fields_of(&stat);
        let field = |at: usize| number::<f64>(fields.get(at).copied());
        if let Some(seconds) = seconds_of(&fields) {
            // Counters are whole numbers here: seconds are rounded down, which
            // over the minutes of a rate makes no difference.
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a metric"
            )]
            counter!(PROCESS_CPU_SECONDS_TOTAL).absolute(seconds as u64);
        }
        if let Some(threads) = field(THREADS) {
            gauge!(PROCESS_THREADS).set(threads);
        }
        if let Some(bytes) = field(VSIZE) {
            gauge!(PROCESS_VIRTUAL_MEMORY_BYTES).set(bytes);
        }
        if let (Some(started), Some(booted)) = (field(START), booted_at()) {
            gauge!(PROCESS_START_TIME_SECONDS).set(booted + started / TICKS_A_SECOND);
        }
    }
    if let Some(kib) = line_of("/proc/self/status", "VmRSS:")
        .and_then(|line| number::<f64>(line.split_ascii_whitespace().next()))
    {
        gauge!(PROCESS_RESIDENT_MEMORY_BYTES).set(kib * 1024.0);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        // The folder that is being read is one of them.
        #[allow(clippy::cast_precision_loss, reason = "a metric")]
        gauge!(PROCESS_OPEN_FDS).set(files.count().saturating_sub(1) as f64);
    }
    if let Some(limit) = line_of("/proc/self/limits", "Max open files")
        .and_then(|line| number::<f64>(line.split_ascii_whitespace().next()))
    {
        gauge!(PROCESS_MAX_FDS).set(limit);
    }
}

/// When the machine was started, in seconds since 1970.
fn booted_at() -> Option<f64> {
    number(
        line_of("/proc/stat", "btime")?
            .split_ascii_whitespace()
            .next(),
    )
}

/// What follows `name` on its line.
fn line_of(file: &str, name: &str) -> Option<String> {
    let text = read(file)?;
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::to_owned)
}

fn read(file: &str) -> Option<String> {
    std::fs::read_to_string(file).ok()
}

fn number<T: FromStr>(text: Option<&str>) -> Option<T> {
    text?.parse().ok()
}
