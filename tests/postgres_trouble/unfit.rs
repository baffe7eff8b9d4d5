//! A Postgres that would forget what it acknowledged is no store.

use sqlx::PgConnection;
use tempfile::TempDir;

use crate::common::eventually;
use crate::common::process::{ServerProcess, Settings};
use crate::{LIMIT, Place, SECRET};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_starts_on_a_postgres_that_does_not_wait_for_the_disk() {
    let place = Place::fresh().await;
    let mut sql = place.sql().await;
    let folder = TempDir::new().unwrap();
    let settings = Settings::in_folder(folder.path())
        .env("ONSALE_STORE__URL", &place.services.postgres_url())
        .env("ONSALE_AUTH__SECRET", SECRET);

    set_fsync(&place, &mut sql, "ALTER SYSTEM SET fsync = off", "off").await;
    for command in ["serve", "migrate"] {
        let output = tokio::task::block_in_place(|| settings.run(&[command]));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        assert_eq!(said.lines().count(), 1, "{command}: {said}");
        assert!(said.starts_with("onsale: "), "{said}");
        assert!(said.contains("fsync is off"), "{said}");
        assert!(!said.contains("postgres://"), "with its password: {said}");
    }
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            .fetch_one(&mut sql)
            .await
            .unwrap();
    assert_eq!(tables, 0, "it was left as it is");

    set_fsync(&place, &mut sql, "ALTER SYSTEM SET fsync = on", "on").await;
    let mut server = tokio::task::block_in_place(|| ServerProcess::start(&settings));
    let ended = tokio::task::block_in_place(|| server.terminate());
    assert!(ended.success(), "{ended:?}");
}

/// Returns once new connections see it.
async fn set_fsync(place: &Place, sql: &mut PgConnection, statement: &'static str, value: &str) {
    for statement in [statement, "SELECT pg_reload_conf()"] {
        sqlx::raw_sql(statement).execute(&mut *sql).await.unwrap();
    }
    eventually("the setting", LIMIT, || async {
        let mut sql = place.sql().await;
        let now: String = sqlx::query_scalar("SHOW fsync")
            .fetch_one(&mut sql)
            .await
            .unwrap();
        (now == value).then_some(())
    })
    .await;
}
