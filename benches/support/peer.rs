//! What the benches measure against: peers in processes of their own.

use std::future::Future;
use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};

/// Transactions that a peer has open at once on Postgres: a usual pool, and the size
/// with which orders were fastest here (of 8, 16, 32 and 64).
const CONNECTIONS: u32 = 16;

/// The part that this process plays, if it was started as a peer.
pub(crate) fn peer_role() -> Option<Vec<String>> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next().as_deref() == Some("--peer")).then(|| arguments.collect())
}

/// Serves as a peer until this process is killed, on any port, which is told
/// on stdout.
pub(crate) fn serve_peer(routes: impl FnOnce() -> axum::Router) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        axum::serve(tcp_nodelay(listener), routes()).await.unwrap();
    });
}

/// Answers must not wait for Nagle's algorithm.
fn tcp_nodelay(
    listener: tokio::net::TcpListener,
) -> impl axum::serve::Listener<Addr = std::net::SocketAddr> {
    use axum::serve::ListenerExt as _;
    listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    })
}

/// A new store of a peer on SQLite: one writer, as SQLite has it anyway, with the
/// settings of the real server's.
pub(crate) fn new_sqlite(folder: &Path, tables: &'static str) -> SqliteConnection {
    at_once(async {
        let options = SqliteConnectOptions::new()
            .filename(folder.join("plain.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(true)
            .statement_cache_capacity(200)
            .page_size(2_048)
            .pragma("wal_autocheckpoint", "16384")
            .pragma("cache_size", "-65536")
            .disable_statement_logging();
        let mut writer = options.connect().await.unwrap();
        sqlx::raw_sql(tables).execute(&mut writer).await.unwrap();
        writer
    })
}

/// The same on Postgres, in the empty database at `url`: how to reach it.
pub(crate) fn new_postgres(url: &str, tables: &'static str) -> PgConnectOptions {
    let options = PgConnectOptions::from_str(url)
        .unwrap()
        .disable_statement_logging();
    at_once(async {
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(tables)
            .execute(&mut connection)
            .await
            .unwrap();
    });
    options
}

/// Its connections, in the runtime that serves.
pub(crate) fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .test_before_acquire(false)
        .connect_lazy_with(options)
}

/// Before the peer serves.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(work)
}
