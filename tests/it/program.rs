//! The program itself: its subcommands, settings, signals and lock.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::common::process::{ServerProcess, Settings, sign_up};
use crate::harness::Show;

/// Starts it without blocking the test's runtime.
async fn start(settings: &Settings) -> ServerProcess {
    let settings = settings.clone();
    tokio::task::spawn_blocking(move || ServerProcess::start(&settings))
        .await
        .unwrap()
}

fn output_of(output: &std::process::Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test]
async fn it_serves_sells_audits_and_ends_on_sigterm() {
    let folder = TempDir::new().unwrap();
    // A missing folder is made.
    let settings = Settings::in_folder(&existing(folder.path().join("data")));
    let mut server = start(&settings).await;
    let admin = server.admin().await;
    let buyer = sign_up(&server.client(), "b@example.com", "a long enough password").await;
    let scene = Show::small().open(&admin).await;
    buyer.charge(1_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let order = buyer.order(hold["hold_id"].as_str().unwrap()).ok(201).await;
    // Beside a live server.
    settings.assert_audit_is_clean();
    let status = server.terminate();
    assert_eq!(status.code(), Some(0), "{}", server.log().join("\n"));
    settings.assert_audit_is_clean();
    let server = start(&settings).await;
    let buyer = server.client().with_token(buyer.token());
    buyer
        .get(&format!("/orders/{}", order["order_id"].as_str().unwrap()))
        .ok(200)
        .await;
    // The password counts only for a new account, and it exists already.
    server
        .admin()
        .await
        .get("/admin/performances")
        .ok(200)
        .await;
}

/// A folder that exists, to run the program in.
fn existing(path: std::path::PathBuf) -> std::path::PathBuf {
    std::fs::create_dir_all(&path).unwrap();
    path
}

#[tokio::test]
async fn a_second_server_on_the_same_data_does_not_start() {
    let folder = TempDir::new().unwrap();
    let settings = Settings::in_folder(folder.path());
    let server = start(&settings).await;
    let second = settings.clone();
    let refused = tokio::task::spawn_blocking(move || ServerProcess::try_start(&second))
        .await
        .unwrap();
    assert!(refused.is_err(), "two servers on one store");
    server
        .client()
        .root("/healthz")
        .send()
        .await
        .assert_status(200);
}

#[test]
fn a_bad_setting_stops_the_start_with_one_line_that_names_it() {
    let folder = TempDir::new().unwrap();
    for (name, value, key) in [
        ("ONSALE_HTTP__LISTEN", "nowhere", "http.listen"),
        ("ONSALE_STORE__URL", "mysql://x", "store.url"),
    ] {
        let settings = Settings::in_folder(folder.path()).env(name, value);
        let output = settings.run(&["serve"]);
        let said = output_of(&output);
        assert!(!output.status.success(), "{name}={value}: {said}");
        let line = said.lines().find(|line| line.contains(key));
        assert!(
            line.is_some_and(|line| line.contains(value)),
            "{key}: {said}"
        );
        assert!(
            !said.contains("panicked") && !said.contains("stack backtrace"),
            "{said}"
        );
    }
}

#[test]
fn unknown_keys_in_the_file_stop_the_start() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("other.toml");
    std::fs::write(&file, "[http]\nlisten_on = \"127.0.0.1:0\"\n").unwrap();
    let settings = Settings::in_folder(folder.path());
    let output = settings.run(&["serve", "--config", file.to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(
        output_of(&output).contains("listen_on"),
        "{}",
        output_of(&output)
    );
}

#[tokio::test]
async fn an_unknown_variable_is_warned_about() {
    let folder = TempDir::new().unwrap();
    let settings = Settings::in_folder(folder.path()).env("ONSALE_HTTP__LISTENN", "x");
    let server = start(&settings).await;
    let warned = server
        .log()
        .iter()
        .any(|line| line.contains("ONSALE_HTTP__LISTENN"));
    assert!(warned, "{:?}", server.log());
}

#[tokio::test]
async fn the_secret_is_made_once_and_readable_by_the_owner_only() {
    let folder = TempDir::new().unwrap();
    let settings = Settings::in_folder(folder.path());
    let server = start(&settings).await;
    drop(server);
    let secrets = files_with_mode(folder.path(), 0o600);
    assert!(
        secrets.iter().any(|name| name.contains("secret")),
        "{secrets:?}"
    );
}

fn files_with_mode(folder: &Path, mode: u32) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::read_dir(folder)
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.metadata().unwrap().permissions().mode() & 0o777 == mode)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn verify_says_when_it_could_not_run() {
    let folder = TempDir::new().unwrap();
    // Read-only: it makes no store where there is none.
    let settings = Settings::in_folder(folder.path());
    let output = settings.run(&["verify"]);
    assert_eq!(output.status.code(), Some(2), "{}", output_of(&output));
    assert!(!settings.store().exists());
    std::fs::write(
        settings.store(),
        "this is no database, whatever its name says",
    )
    .unwrap();
    let output = settings.run(&["verify"]);
    assert_eq!(output.status.code(), Some(2), "{}", output_of(&output));
}

#[tokio::test]
async fn verify_finds_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    let settings = Settings::in_folder(folder.path());
    let mut server = start(&settings).await;
    let admin = server.admin().await;
    admin.charge(5_000).await;
    assert_eq!(server.terminate().code(), Some(0));
    settings.assert_audit_is_clean();
    let url = format!("sqlite://{}", settings.store().display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let done = sqlx::query("UPDATE wallet SET balance = balance + 1")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(done.rows_affected(), 1);
    pool.close().await;
    let output = settings.run(&["verify"]);
    assert_eq!(output.status.code(), Some(1), "{}", output_of(&output));
    assert!(output_of(&output).contains("I7"), "{}", output_of(&output));
}

#[tokio::test]
async fn the_description_is_the_same_from_the_program_and_the_route() {
    let folder = TempDir::new().unwrap();
    let settings = Settings::in_folder(folder.path());
    let output = settings.run(&["openapi"]);
    assert!(output.status.success(), "{}", output_of(&output));
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let server = start(&settings).await;
    assert_eq!(server.client().root("/openapi.json").ok(200).await, printed);
}

#[tokio::test]
async fn migrate_makes_the_store_that_serve_uses() {
    let folder = TempDir::new().unwrap();
    let settings = Settings::in_folder(folder.path());
    for _ in 0..2 {
        let output = settings.run(&["migrate"]);
        assert!(output.status.success(), "{}", output_of(&output));
    }
    let server = start(&settings.clone().env("ONSALE_STORE__MIGRATE", "false")).await;
    server.admin().await.charge(1).await;
}

#[test]
fn without_migrations_an_empty_store_is_refused() {
    let folder = TempDir::new().unwrap();
    let settings = Settings::in_folder(folder.path()).env("ONSALE_STORE__MIGRATE", "false");
    assert!(ServerProcess::try_start(&settings).is_err());
}

#[tokio::test]
async fn no_secret_or_token_reaches_the_log() {
    let folder = TempDir::new().unwrap();
    let settings = Settings::in_folder(folder.path());
    let server = start(&settings).await;
    let password = "a very secret password 123";
    let buyer = sign_up(&server.client(), "b@example.com", password).await;
    let path = format!("/wallet?access_token={}", buyer.token());
    buyer.anonymous().get(&path).send().await;
    buyer
        .post(
            "/sessions",
            &json!({ "email": "b@example.com", "password": password }),
        )
        .ok(200)
        .await;
    let log = server.log().join("\n");
    assert!(
        !log.contains(password) && !log.contains(buyer.token()),
        "{log}"
    );
}

/// What breaks it on purpose is for tests of tests (`onsale::sabotage`).
#[cfg(not(feature = "sabotage"))]
#[test]
fn a_program_for_use_has_no_switch_that_breaks_it() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_onsale")).unwrap();
    assert!(memchr::memmem::find(&program, b"unknown environment variable").is_some());
    assert!(memchr::memmem::find(&program, b"ONSALE_SABOTAGE").is_none());
}
