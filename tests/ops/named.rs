//! Rules and dashboards name nothing that a server under load doesn't export.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use onsale::telemetry::{ALL, Scope};
use serde_json::Value;

use crate::busy::Busy;
use crate::exposition::Family;

/// What Prometheus adds to each target by itself.
const OF_PROMETHEUS: &str = "up";

fn in_ops(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ops").join(path)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Words of an expression that are names of ours: of metrics, or, with a colon,
/// of recording rules.
fn names_in(expression: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = expression.split(|c| !is_part(c));
    let ours = words.filter(|word| {
        let is_ours = |start: &&str| word.starts_with(*start);
        *word == OF_PROMETHEUS || ["onsale_", "process_", "onsale:"].iter().any(is_ours)
    });
    ours.map(str::to_owned).collect()
}

/// The values of a key of a rule file, those in blocks (`expr: |`) too.
fn values_of(key: &str, rules: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut lines = rules.lines().peekable();
    while let Some(line) = lines.next() {
        let bare = line.trim_start().trim_start_matches("- ");
        let Some(value) = bare
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix(": "))
        else {
            continue;
        };
        let indent = line.len() - bare.len();
        let mut value = value.to_owned();
        if value.starts_with(['|', '>']) {
            value.clear();
            while let Some(next) = lines.next_if(|next| {
                next.trim().is_empty() || next.len() - next.trim_start().len() > indent
            }) {
                value.push_str(next.trim());
                value.push(' ');
            }
        }
        values.push(value);
    }
    values
}

/// All expressions of a dashboard, wherever they are in it.
fn expressions(of: &Value, into: &mut Vec<String>) {
    match of {
        Value::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), value) {
                    ("expr" | "query", Value::String(text)) => into.push(text.clone()),
                    _ => expressions(value, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Which name each file uses.
fn used() -> (BTreeMap<String, BTreeSet<String>>, BTreeSet<String>) {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut recorded = BTreeSet::new();
    for file in ["prometheus/recording.yml", "prometheus/alerts.yml"] {
        let rules = text(&in_ops(file));
        let expressions = values_of("expr", &rules);
        assert!(expressions.len() > 5, "{file} has rules");
        for expression in &expressions {
            let names = names_in(expression);
            assert!(
                !names.is_empty(),
                "{file}: {expression} names nothing of ours"
            );
            used.entry(file.to_owned()).or_default().extend(names);
        }
        recorded.extend(values_of("record", &rules));
    }
    for entry in std::fs::read_dir(in_ops("grafana/dashboards")).unwrap() {
        let path = entry.unwrap().path();
        let dashboard: Value = serde_json::from_str(&text(&path)).unwrap();
        assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
        let mut found = Vec::new();
        expressions(&dashboard["panels"], &mut found);
        assert!(found.len() > 5, "{} has panels", path.display());
        let names = found.iter().flat_map(|expression| names_in(expression));
        used.insert(path.display().to_string(), names.collect());
    }
    (used, recorded)
}

fn is_exported(name: &str, exported: &BTreeMap<String, Family>) -> bool {
    let has = |name: &str| exported.get(name).is_some_and(|family| family.samples > 0);
    let histogram = |bare: &str| has(bare) && exported[bare].kind == "histogram";
    has(name)
        || ["_bucket", "_sum", "_count"]
            .iter()
            .any(|suffix| name.strip_suffix(suffix).is_some_and(histogram))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_a_cluster_under_load_exports_all_that_rules_and_dashboards_name() {
    let (used, recorded) = used();
    let server = Busy::cluster().await;
    let all = ALL.iter().filter(|metric| metric.scope != Scope::Door);
    let all: Vec<&str> = all.map(|metric| metric.name).collect();
    let exported = server.exporting(&all).await;
    for (file, names) in used {
        for name in names {
            let is_known = if name == OF_PROMETHEUS {
                true
            } else if name.contains(':') {
                recorded.contains(&name)
            } else {
                is_exported(&name, &exported)
            };
            assert!(is_known, "{file} names {name}, which nobody exports");
        }
    }
}

#[test]
fn every_alert_that_the_page_names_exists_and_every_alert_is_tested() {
    let rules = text(&in_ops("prometheus/alerts.yml"));
    let alerts: BTreeSet<String> = values_of("alert", &rules).into_iter().collect();
    let tests = text(&in_ops("prometheus/tests/alerts.yml"));
    for alert in &alerts {
        assert!(
            tests.contains(&format!("alertname: {alert}\n")),
            "{alert} has no test"
        );
    }
    let page = include_str!("../../docs/metrics.md");
    for word in page.split('`').filter(|word| word.starts_with("Onsale")) {
        let is_one = match word.strip_suffix('…') {
            Some(start) => alerts.iter().any(|alert| alert.starts_with(start)),
            None => alerts.contains(word),
        };
        assert!(is_one, "docs/metrics.md names {word}");
    }
}
