//! The text format of Prometheus, read back.

use std::collections::{BTreeMap, BTreeSet};

/// A metric as it was exported.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    /// The names of its labels, but for those of the format itself.
    pub(crate) labels: BTreeSet<String>,
    pub(crate) samples: usize,
}

/// All metrics by name.
pub(crate) fn read(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            families.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if !line.is_empty() && !line.starts_with('#') {
            let end = line.find(['{', ' ']).unwrap();
            let name = family_of(&line[..end], &families);
            let family = families.entry(name).or_default();
            family.samples += 1;
            family.labels.extend(labels_of(line));
        }
    }
    families
}

/// Samples of a histogram have suffixes.
fn family_of(sample: &str, families: &BTreeMap<String, Family>) -> String {
    let bare = ["_bucket", "_sum", "_count"]
        .into_iter()
        .find_map(|suffix| sample.strip_suffix(suffix))
        .filter(|bare| families.get(*bare).is_some_and(|f| f.kind == "histogram"));
    bare.unwrap_or(sample).to_owned()
}

/// The values of our labels have neither quotes nor commas.
fn labels_of(line: &str) -> Vec<String> {
    let Some((_, rest)) = line.split_once('{') else {
        return Vec::new();
    };
    let inside = rest.rsplit_once('}').unwrap().0;
    let names = inside
        .split("\",")
        .filter_map(|pair| pair.split_once("=\""));
    let names = names.map(|(name, _)| name.to_owned());
    names
        .filter(|name| name != "le" && name != "quantile")
        .collect()
}
