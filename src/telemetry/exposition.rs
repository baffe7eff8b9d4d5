//! Reads what Prometheus is told, so that whoever shows a figure in another way
//! shows the same one.

use std::collections::HashMap;

use smallvec::SmallVec;

type Labels<'a> = SmallVec<[(&'a str, &'a str); 4]>;

/// One line: a value with its labels.
#[derive(Debug)]
struct Point<'a> {
    labels: Labels<'a>,
    value: f64,
}

/// What the points that are meant have as a label.
#[derive(Clone, Copy, Debug)]
pub(super) enum Label {
    /// This value.
    Is(&'static str, &'static str),
    /// Any other value.
    IsNot(&'static str, &'static str),
    /// A value that begins so.
    Begins(&'static str, &'static str),
}

impl Label {
    fn fits(self, labels: &[(&str, &str)]) -> bool {
        let value = |name| labels.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        match self {
            Self::Is(name, wanted) => value(name) == Some(wanted),
            Self::IsNot(name, other) => value(name).is_some_and(|value| value != other),
            Self::Begins(name, start) => value(name).is_some_and(|value| value.starts_with(start)),
        }
    }
}

/// A histogram: how many values were at most as large as each bound, the last
/// of which is infinite.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Buckets(pub(super) Vec<(f64, f64)>);

impl Buckets {
    /// What has come since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let count_before = |bound: f64| {
            let same = before.0.iter().find(|(b, _)| b.total_cmp(&bound).is_eq());
            same.map_or(0.0, |(_, count)| *count)
        };
        let left = self.0.iter();
        Self(
            left.map(|(bound, count)| (*bound, count - count_before(*bound)))
                .collect(),
        )
    }

    /// The value that `share` of all are below, by the straight line through its
    /// bucket, as Prometheus does it. `None` without any.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.0.last().map(|(_, count)| *count)?;
        if total <= 0.0 {
            return None;
        }
        let wanted = total * share;
        let (mut below, mut count_below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= wanted && *count > count_below {
                if bound.is_infinite() {
                    return Some(below);
                }
                let into = (wanted - count_below) / (count - count_below);
                return Some(below + (bound - below) * into);
            }
            (below, count_below) = (*bound, *count);
        }
        None
    }
}

/// All that a text says, by the name of the metric.
#[derive(Debug)]
pub(super) struct Exposition<'a>(HashMap<&'a str, Vec<Point<'a>>>);

impl<'a> Exposition<'a> {
    /// Reads `text`; a line that can't be read is left out.
    pub(super) fn read(text: &'a str) -> Self {
        let mut metrics: HashMap<&str, Vec<Point<'_>>> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, point)) = point(line) {
                metrics.entry(name).or_default().push(point);
            }
        }
        Self(metrics)
    }

    /// The values of all points that are meant; `None` without any.
    pub(super) fn values(&self, name: &str, labels: &[Label]) -> Option<Vec<f64>> {
        let meant = self.meant(name, labels).map(|point| point.value);
        let values: Vec<f64> = meant.collect();
        (!values.is_empty()).then_some(values)
    }

    /// The histograms that are meant, as one; `None` without any.
    pub(super) fn buckets(&self, name: &str, labels: &[Label]) -> Option<Buckets> {
        let name = format!("{name}_bucket");
        let mut sum: Vec<(f64, f64)> = Vec::new();
        for point in self.meant(&name, labels) {
            let bound = point.labels.iter().find(|(label, _)| *label == "le");
            let Some(bound) = bound.and_then(|(_, bound)| bound.parse::<f64>().ok()) else {
                continue;
            };
            match sum.binary_search_by(|(b, _)| b.total_cmp(&bound)) {
                Ok(at) => sum[at].1 += point.value,
                Err(at) => sum.insert(at, (bound, point.value)),
            }
        }
        (!sum.is_empty()).then_some(Buckets(sum))
    }

    fn meant<'b>(&'b self, name: &str, labels: &'b [Label]) -> impl Iterator<Item = &'b Point<'a>> {
        let points = self.0.get(name).map(Vec::as_slice).unwrap_or_default();
        points
            .iter()
            .filter(move |point| labels.iter().all(|label| label.fits(&point.labels)))
    }
}

/// `name{label="value",…} number`
fn point(line: &str) -> Option<(&str, Point<'_>)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        let labels = Labels::new();
        return Some((series, Point { labels, value }));
    };
    let mut labels_left = labels.strip_suffix('}')?;
    let mut labels = Labels::new();
    while !labels_left.is_empty() {
        let (label, rest) = labels_left.split_once("=\"")?;
        let end = closing_quote(rest)?;
        // A value with an escaped character is compared as it is written.
        labels.push((label, rest.get(..end)?));
        let rest = rest.get(end + 1..)?;
        labels_left = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some((name, Point { labels, value }))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# TYPE answers counter
answers{route="/a/{id}",status="200"} 7
answers{route="/b \" , x=\"",status="404"} 2
answers{route="/b",status="503"} 1

waiting 42.5
took_seconds_bucket{route="/a",le="0.1"} 50
took_seconds_bucket{route="/a",le="0.2"} 90
took_seconds_bucket{route="/a",le="+Inf"} 100
took_seconds_bucket{route="/b",le="0.1"} 0
took_seconds_bucket{route="/b",le="0.2"} 100
took_seconds_bucket{route="/b",le="+Inf"} 100
"#;

    #[test]
    fn points_are_found_by_their_labels() {
        let read = Exposition::read(TEXT);
        let sum = |labels: &[Label]| {
            read.values("answers", labels)
                .map(|v| v.iter().sum::<f64>())
        };
        assert_eq!(sum(&[]), Some(10.0));
        assert_eq!(sum(&[Label::Begins("status", "4")]), Some(2.0));
        assert_eq!(sum(&[Label::IsNot("status", "200")]), Some(3.0));
        assert_eq!(sum(&[Label::Is("route", "/a/{id}")]), Some(7.0));
        assert_eq!(sum(&[Label::Is("status", "500")]), None);
        assert_eq!(read.values("waiting", &[]), Some(vec![42.5]));
        assert_eq!(read.values("nothing", &[]), None);
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let read = Exposition::read(TEXT);
        let both = read.buckets("took_seconds", &[]).unwrap();
        assert_eq!(both.0[1], (0.2, 190.0));
        // 100 of 200 is 50 of the 140 in the second bucket.
        let median = both.quantile(0.5).unwrap();
        assert!((median - (0.1 + 0.1 * 50.0 / 140.0)).abs() < 1e-9);
        assert_eq!(both.quantile(0.999), Some(0.2), "the highest finite bound");
        let a = read.buckets("took_seconds", &[Label::Is("route", "/a")]);
        let later = both.since(&a.unwrap());
        assert_eq!(later.0, [(0.1, 0.0), (0.2, 100.0), (f64::INFINITY, 100.0)]);
        assert_eq!(both.since(&both).quantile(0.5), None);
    }
}
