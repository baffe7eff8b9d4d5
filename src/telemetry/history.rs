//! The last 15 minutes of what is measured, a sample a second: what the
//! operators' page draws, also just after it was opened and without a
//! Prometheus. All of it is read from what `/metrics` says, so that the two
//! agree.
//!
//! Its size is fixed once the process has started.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::exposition::{Buckets, Exposition};
use super::process;
use super::series::{self, Series, Take};
use crate::clock::monotonic;
use crate::domain::time::Timestamp;

/// How far apart samples are.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// So many samples are kept: 15 minutes.
pub const SAMPLES_MAX: usize = 900;

/// Quantiles are those of so many samples, so that a quiet server has some.
const QUANTILES_OVER: usize = 10;

/// What a series was read as, to be compared with the next reading.
#[derive(Clone, Debug)]
enum Raw {
    None,
    Number(f64),
    Buckets(Buckets),
}

#[derive(Debug)]
struct Reading {
    at: Instant,
    raw: Vec<Raw>,
}

/// The samples of this process.
#[derive(Debug)]
pub struct History {
    series: Vec<Series>,
    /// Sample after sample, each a value a series; NaN where there is none. A
    /// ring: sample `n` is at `n % SAMPLES_MAX`.
    values: Vec<f64>,
    /// How many samples were ever taken.
    taken: u64,
    /// When the last one was.
    taken_at: Timestamp,
    /// The last readings, oldest first.
    readings: VecDeque<Reading>,
}

/// What a reader gets of one series.
#[derive(Clone, Debug)]
pub struct Column {
    /// E.g. `http.requests`.
    pub name: String,
    /// E.g. `per_second`.
    pub unit: &'static str,
    /// Oldest first; `None` where there is none.
    pub values: Vec<Option<f64>>,
}

/// Samples, and where they stand.
#[derive(Clone, Debug)]
pub struct Samples {
    /// The number of the last one: to ask for those after it.
    pub last: u64,
    /// When that was taken.
    pub at: Timestamp,
    /// All series, each with as many values.
    pub columns: Vec<Column>,
}

impl History {
    /// Without any sample.
    pub(super) fn new(series: Vec<Series>) -> Self {
        Self {
            values: vec![f64::NAN; series.len() * SAMPLES_MAX],
            series,
            taken: 0,
            taken_at: Timestamp::default(),
            readings: VecDeque::new(),
        }
    }

    /// Takes a sample of what `text` says, at `now`.
    pub(super) fn sample(&mut self, text: &str, now: Timestamp, at: Instant) {
        let said = Exposition::read(text);
        let raw: Vec<Raw> = self.series.iter().map(|one| read(one, &said)).collect();
        let slot = usize::try_from(self.taken % SAMPLES_MAX as u64).unwrap_or(0);
        let row = slot * self.series.len();
        for (index, (one, raw)) in self.series.iter().zip(&raw).enumerate() {
            let value = self.value(index, one, raw, at);
            self.values[row + index] = value.unwrap_or(f64::NAN);
        }
        self.readings.push_back(Reading { at, raw });
        if self.readings.len() > QUANTILES_OVER {
            self.readings.pop_front();
        }
        self.taken += 1;
        self.taken_at = now;
    }

    fn value(&self, index: usize, series: &Series, raw: &Raw, at: Instant) -> Option<f64> {
        let before = |reading: Option<&Reading>| Some(reading?.raw.get(index)?.clone());
        match (&series.take, raw) {
            (_, Raw::None) => None,
            (Take::Sum | Take::Total, Raw::Number(number)) => Some(*number),
            (Take::Rate | Take::ProcessorTime, Raw::Number(number)) => {
                let last = self.readings.back();
                let took = last.map(|last| at.saturating_duration_since(last.at));
                let seconds = took.map_or(0.0, |took| took.as_secs_f64());
                match before(last) {
                    Some(Raw::Number(old)) if seconds > 0.0 => {
                        Some(rounded((number - old).max(0.0) / seconds))
                    }
                    _ => None,
                }
            }
            (Take::Quantile(share), Raw::Buckets(buckets)) => {
                let since = match before(self.readings.front()) {
                    Some(Raw::Buckets(old)) => buckets.since(&old),
                    _ => buckets.clone(),
                };
                since.quantile(*share).map(rounded)
            }
            // A series is read as what it is taken from.
            (_, Raw::Number(_) | Raw::Buckets(_)) => None,
        }
    }

    /// The samples after number `since`, as far as they are kept.
    #[must_use]
    pub fn since(&self, since: u64) -> Samples {
        let kept_from = self.taken.saturating_sub(SAMPLES_MAX as u64);
        // Who has seen more than there is has it from an earlier process.
        let from = if since > self.taken { 0 } else { since }.max(kept_from);
        let slots = (from..self.taken).filter_map(|n| usize::try_from(n % SAMPLES_MAX as u64).ok());
        let slots: Vec<usize> = slots.collect();
        let columns = self.series.iter().enumerate().map(|(index, series)| {
            let at = |slot: &usize| self.values[slot * self.series.len() + index];
            let value = |slot: &usize| Some(at(slot)).filter(|value| value.is_finite());
            Column {
                name: series.name.clone(),
                unit: series.unit.as_str(),
                values: slots.iter().map(value).collect(),
            }
        });
        Samples {
            last: self.taken,
            at: self.taken_at,
            columns: columns.collect(),
        }
    }
}

static HISTORY: LazyLock<Mutex<History>> =
    LazyLock::new(|| Mutex::new(History::new(series::all())));

/// Takes a sample of what `text` says of this process now.
pub(super) fn sample(text: &str, now: Timestamp) {
    HISTORY.lock().sample(text, now, monotonic());
}

/// The samples of this process after number `since`, as far as they are kept.
#[must_use]
pub fn since(since: u64) -> Samples {
    HISTORY.lock().since(since)
}

fn read(series: &Series, said: &Exposition<'_>) -> Raw {
    let number = |number: Option<f64>| number.map_or(Raw::None, Raw::Number);
    match series.take {
        Take::Sum | Take::Total | Take::Rate => {
            let values = said.values(series.metric, &series.labels);
            let sum = values.map(|values| values.iter().sum());
            number(sum.or_else(|| series.is_always().then_some(0.0)))
        }
        Take::ProcessorTime => number(process::cpu_seconds()),
        Take::Quantile(_) => {
            let buckets = said.buckets(series.metric, &series.labels);
            buckets.map_or(Raw::None, Raw::Buckets)
        }
    }
}

/// Four digits: what is drawn has no more, and most of a page's first answer is
/// these.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    #[allow(clippy::cast_possible_truncation, reason = "a power of ten")]
    let power = 3 - value.abs().log10().floor() as i32;
    let scale = 10f64.powi(power);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::super::series::Unit;
    use super::*;

    fn series(take: Take) -> Series {
        let (name, metric) = ("it".to_owned(), "it");
        Series {
            name,
            unit: Unit::Count,
            metric,
            labels: Vec::new(),
            take,
        }
    }

    fn only(samples: &Samples) -> Vec<Option<f64>> {
        assert_eq!(samples.columns.len(), 1);
        samples.columns[0].values.clone()
    }

    #[test]
    fn the_last_15_minutes_are_kept_and_who_has_some_gets_the_others() {
        let mut history = History::new(vec![series(Take::Sum)]);
        let begun = monotonic();
        for second in 0..SAMPLES_MAX as u64 + 5 {
            let now = Timestamp(i64::try_from(second).unwrap());
            let at = begun + Duration::from_secs(second);
            history.sample(&format!("it {second}"), now, at);
        }
        let all = history.since(0);
        let values = only(&all);
        assert_eq!(
            (values.len(), all.last),
            (SAMPLES_MAX, SAMPLES_MAX as u64 + 5)
        );
        assert_eq!(
            (values[0], values[SAMPLES_MAX - 1]),
            (Some(5.0), Some(904.0))
        );
        assert_eq!(
            only(&history.since(all.last - 2)),
            [Some(903.0), Some(904.0)]
        );
        assert!(only(&history.since(all.last)).is_empty());
        // The number is of another process.
        assert_eq!(only(&history.since(all.last + 1)).len(), SAMPLES_MAX);
        assert_eq!(history.values.len(), SAMPLES_MAX);
    }

    #[test]
    fn rates_are_by_the_second_and_quantiles_of_what_came_lately() {
        let buckets = |low: u64, high: u64| {
            let all = low + high;
            format!("it_bucket{{le=\"1\"}} {low}\nit_bucket{{le=\"+Inf\"}} {all}\nit {low}\n")
        };
        let mut history = History::new(vec![series(Take::Rate), series(Take::Quantile(0.5))]);
        let begun = monotonic();
        let mut sample = |second: u64, low, high| {
            let at = begun + Duration::from_secs(second);
            history.sample(&buckets(low, high), Timestamp(0), at);
            let columns = history.since(0).columns;
            let last = |column: &Column| *column.values.last().unwrap();
            (last(&columns[0]), last(&columns[1]))
        };
        assert_eq!(sample(0, 100, 0), (None, Some(0.5)), "all since the start");
        assert_eq!(sample(2, 110, 0), (Some(5.0), Some(0.5)));
        assert_eq!(sample(3, 110, 0).0, Some(0.0));
        for second in 4..=13 {
            sample(second, 110, 0);
        }
        assert_eq!(sample(14, 110, 0), (Some(0.0), None), "nothing came lately");
        assert_eq!(sample(15, 110, 8).1, Some(1.0), "above the last bound");
    }

    #[test]
    fn what_is_shown_is_exported_by_the_names_that_are_documented() {
        for one in series::all() {
            let known = super::super::names::ALL.iter();
            let metric = one.metric.strip_suffix("_count").unwrap_or(one.metric);
            assert!(known.clone().any(|m| m.name == metric), "{}", one.name);
        }
        assert!(rounded(0.000_123_456).to_string().len() <= 9);
        assert!((rounded(123_456.0) - 123_500.0).abs() < 1e-9);
    }
}
