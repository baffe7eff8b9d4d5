//! Names, kinds and labels: what the page says, what the table in the program
//! says and what a server exports are the same.

use std::collections::{BTreeMap, BTreeSet};

use onsale::telemetry::{ALL, Metric, Scope};

use crate::busy::Busy;
use crate::common::process::{ServerProcess, Settings};
use crate::exposition::Family;

/// A row of a table of `docs/metrics.md`.
struct Row {
    kind: String,
    unit: String,
    labels: BTreeSet<String>,
    meaning: String,
    worry: String,
}

fn documented() -> BTreeMap<String, Row> {
    let page = include_str!("../../docs/metrics.md");
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, unit, labels, meaning, worry] = cells.as_slice() else {
            panic!("not six columns: {line}");
        };
        let label = |text: &str| text.trim().trim_matches('`').to_owned();
        let labels = labels.split(',').map(label).filter(|text| !text.is_empty());
        let row = Row {
            kind: (*kind).to_owned(),
            unit: (*unit).to_owned(),
            labels: labels.collect(),
            meaning: (*meaning).to_owned(),
            worry: (*worry).to_owned(),
        };
        let before = rows.insert(name.trim_matches('`').to_owned(), row);
        assert!(before.is_none(), "{name} is documented twice");
    }
    rows
}

fn labels_of(metric: &Metric) -> BTreeSet<String> {
    metric
        .labels
        .iter()
        .map(|label| (*label).to_owned())
        .collect()
}

#[test]
fn the_page_documents_every_metric_and_no_other() {
    let documented = documented();
    let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
    let pages: BTreeSet<&str> = documented.keys().map(String::as_str).collect();
    assert_eq!(pages, names);
    for metric in ALL {
        let row = &documented[metric.name];
        assert_eq!(row.kind, metric.kind.as_str(), "{}", metric.name);
        assert_eq!(row.labels, labels_of(metric), "{}", metric.name);
        for unit in ["seconds", "bytes", "rows"] {
            let bare = metric.name.trim_end_matches("_total");
            assert_eq!(bare.ends_with(unit), row.unit == unit, "{}", metric.name);
        }
        assert!(
            !row.meaning.is_empty() && !row.worry.is_empty(),
            "{}",
            metric.name
        );
    }
}

/// `exported` has these metrics of the table, and nothing that isn't in it.
fn assert_agrees(exported: &BTreeMap<String, Family>, wanted: &[&Metric]) {
    for (name, family) in exported {
        let metric = ALL.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is exported, but not documented"));
        assert_eq!(family.kind, metric.kind.as_str(), "{name}");
        assert_eq!(family.help, metric.help.trim(), "{name}");
        assert!(
            family.samples == 0 || family.labels == labels_of(metric),
            "{name} has the labels {:?}",
            family.labels
        );
    }
    for metric in wanted {
        let is_there = exported
            .get(metric.name)
            .is_some_and(|family| family.samples > 0);
        assert!(is_there, "{} is documented, but not exported", metric.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_server_under_load_exports_what_is_documented_and_nothing_else() {
    let server = Busy::embedded().await;
    let has =
        |metric: &&Metric| matches!(metric.scope, Scope::Always | Scope::Queues | Scope::Coupons);
    let wanted: Vec<&Metric> = ALL.iter().filter(has).collect();
    let names: Vec<&str> = wanted.iter().map(|metric| metric.name).collect();
    let exported = server.exporting(&names).await;
    assert_agrees(&exported, &wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_a_cluster_under_load_exports_all_that_is_documented_and_nothing_else() {
    let server = Busy::cluster().await;
    let has = |metric: &&Metric| metric.scope != Scope::Door;
    let wanted: Vec<&Metric> = ALL.iter().filter(has).collect();
    let names: Vec<&str> = wanted.iter().map(|metric| metric.name).collect();
    let exported = server.exporting(&names).await;
    assert_agrees(&exported, &wanted);
}

#[tokio::test]
async fn an_embedded_server_that_is_not_to_measure_exports_nothing() {
    let folder = tempfile::TempDir::new().unwrap();
    let settings = Settings::in_folder(folder.path()).env("ONSALE_TELEMETRY__METRICS", "false");
    let server = ServerProcess::start(&settings);
    let answer = server.client().root("/metrics").send().await;
    answer.assert_status(200);
    assert_eq!(answer.text(), "");
}
