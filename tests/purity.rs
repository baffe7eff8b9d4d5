//! The rules of a sale stay pure: nothing under `src/domain` may read a clock,
//! a socket, a database, a file or a random number generator, or wait.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic: that is how it fails"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// What must not appear in code there.
const FORBIDDEN: &[&str] = &[
    "tokio",
    "sqlx",
    "axum",
    "ractor",
    "tracing",
    "metrics::",
    "std::time",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "now_v7",
    "new_v4",
    "rand::",
    "rand_core",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "async ",
    ".await",
    "println!",
    "eprintln!",
    "reqwest",
    "hyper",
];

/// Every Rust file below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file without its comments and without its tests, which may be
/// impure: a `#[cfg(test)]` module is the last thing in a file.
fn code(source: &str) -> String {
    source
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default()
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_a_test_file(path: &Path) -> bool {
    path.file_stem()
        .is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_tests"))
        || path.components().any(|part| part.as_os_str() == "tests")
}

/// What is forbidden in `source`.
fn impurities(source: &str) -> Vec<&'static str> {
    let code = code(source);
    FORBIDDEN
        .iter()
        .copied()
        .filter(|word| code.contains(word))
        .collect()
}

#[test]
fn the_domain_reads_no_clock_no_socket_no_store_and_no_chance() {
    let domain = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/domain");
    let files = sources(&domain);
    assert!(!files.is_empty());
    for path in files {
        let relative = path.strip_prefix(&domain).unwrap();
        if is_a_test_file(relative) {
            continue;
        }
        let found = impurities(&fs::read_to_string(&path).unwrap());
        assert!(found.is_empty(), "{}: {found:?}", relative.display());
    }
}

#[test]
fn an_impure_line_is_found_and_a_comment_is_not() {
    assert_eq!(impurities("use tokio::sync::mpsc;"), ["tokio"]);
    assert_eq!(
        impurities("let t = std::time::Instant::now();"),
        ["std::time", "Instant::now"]
    );
    assert_eq!(impurities("pub async fn f() {}"), ["async "]);
    assert!(impurities("// tokio is not used here\nfn f() {}").is_empty());
    assert!(impurities("fn f() {}\n#[cfg(test)]\nmod tests {\n use std::fs;\n}").is_empty());
}
