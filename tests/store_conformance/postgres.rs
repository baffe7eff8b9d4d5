//! What only a server can get wrong.

use std::process::Command;
use std::time::Duration;

use onsale::config;
use onsale::domain::ids::{EntityId, UserId};
use onsale::domain::money::Money;
use onsale::persistence::Store;
use onsale::persistence::store::commit::Verdict;
use sqlx::PgConnection;

use crate::fixture::{Fixture, NOW, Place, connect, server, user};
use crate::open_batch::until_waiting;

/// Bounds what would otherwise hang; ten times what it should take at most.
pub(crate) const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_server_keeps_what_it_acknowledges() {
    let mut connection = connect(&server()).await;
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(setting)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(value, "on", "{setting}");
    }
}

pub(crate) async fn execute(connection: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

/// Whatever the database is set to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_waits_for_the_disk_and_bounds_itself() {
    let f = Fixture::new(Place::Postgres).await;
    let mut beside = connect(&f.settings.url).await;
    execute(
        &mut beside,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', \
             current_database()); END $$; \
         CREATE TABLE seen (name text, value text); \
         CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             INSERT INTO seen SELECT name, current_setting(name) FROM unnest(ARRAY[ \
                 'synchronous_commit', 'statement_timeout', 'transaction_isolation', \
                 'idle_in_transaction_session_timeout', 'application_name']) AS name; \
             RETURN NULL; END $$; \
         CREATE TRIGGER look AFTER INSERT ON journal EXECUTE FUNCTION look()",
    )
    .await;
    f.store.close().await;
    let store = Store::open(&f.settings).await.unwrap();
    store.name_writers("onsale node-7 3");
    let batch = std::sync::Arc::new(vec![f.charge(user(), 1)]);
    assert_eq!(store.commit(batch).await.unwrap(), [Verdict::Written]);
    let seen: Vec<(String, String)> = sqlx::query_as("SELECT name, value FROM seen ORDER BY name")
        .fetch_all(&mut beside)
        .await
        .unwrap();
    let seen: Vec<(&str, &str)> = seen.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(
        seen,
        [
            ("application_name", "onsale node-7 3"),
            ("idle_in_transaction_session_timeout", "1s"),
            ("statement_timeout", "3s"),
            ("synchronous_commit", "on"),
            ("transaction_isolation", "read committed"),
        ]
    );
    store.close().await;
    f.end().await;
}

/// The server's processes behind the connections of this store.
async fn backends(f: &Fixture) -> Vec<i32> {
    let mut beside = connect(&server()).await;
    let (_, database) = f.settings.url.rsplit_once('/').unwrap();
    let pids = sqlx::query_scalar("SELECT pid FROM pg_stat_activity WHERE datname = $1")
        .bind(database)
        .fetch_all(&mut beside);
    pids.await.unwrap()
}

fn signal(pids: &[i32], signal: &str) {
    for pid in pids {
        let sent = Command::new("kill")
            .args([signal, &pid.to_string()])
            .status();
        assert!(sent.unwrap().success());
    }
}

/// Processes that stand still until this is dropped: they answer nothing, and
/// close nothing either. Others may wait for them meanwhile (who makes or drops
/// a database waits for every process of the server).
struct Stopped(Vec<i32>);

impl Stopped {
    fn new(pids: Vec<i32>) -> Self {
        signal(&pids, "-STOP");
        Self(pids)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(&self.0, "-CONT");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_hang_are_given_up() {
    let f = Fixture::new(Place::Postgres).await;
    let ann = user();
    f.write(vec![f.charge(ann, 1)]).await;
    assert_eq!(f.wallet(ann).await.1, 1);
    let stopped = Stopped::new(backends(&f).await);
    assert!(!stopped.0.is_empty());
    let both = async { tokio::join!(f.commit(vec![f.charge(ann, 2)]), f.wallet_or_error(ann)) };
    let (commit, read) = tokio::time::timeout(LONG, both).await.unwrap();
    assert!(commit.unwrap_err().is_transient());
    assert!(read.unwrap_err().is_transient());
    // The same again, as a lane does it: once all that hang are given up, there
    // are new ones.
    let again = async {
        while f.commit(vec![f.charge(ann, 2)]).await.is_err() {}
        while f.wallet_or_error(ann).await.is_err() {}
    };
    tokio::time::timeout(LONG, again).await.unwrap();
    assert_eq!(f.wallet(ann).await, (Money(2_000_000), 2));
    drop(stopped);
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_has_closed_are_replaced() {
    let f = Fixture::new(Place::Postgres).await;
    let ann = user();
    f.write(vec![f.charge(ann, 1)]).await;
    signal(&backends(&f).await, "-TERM");
    f.write(vec![f.charge(ann, 2)]).await;
    assert_eq!(f.wallet(ann).await.1, 2);
    f.end().await;
}

/// A client hangs up while its request is inside a transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_leave_no_transaction_open() {
    let f = Fixture::new(Place::Postgres).await;
    for _ in 0..100 {
        let work = f
            .store
            .insert_user(crate::fixture::new_user("ann@example.com"));
        let _ = tokio::time::timeout(Duration::from_micros(300), work).await;
        let read = f.store.users(None, None, 10);
        let _ = tokio::time::timeout(Duration::from_micros(300), read).await;
    }
    let ann = user();
    for nth in 1..=50 {
        f.write(vec![f.charge(ann, nth)]).await;
        let mut beside = connect(&f.settings.url).await;
        let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM transfer")
            .fetch_one(&mut beside)
            .await
            .unwrap();
        assert_eq!(seen, nth.cast_signed());
    }
    f.end().await;
}

/// PgBouncer in transaction mode gives each transaction another server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_pgbouncer_nothing_is_prepared_by_name() {
    let pgbouncer = std::env::var("ONSALE_TEST_PGBOUNCER_URL").unwrap_or_default();
    assert!(
        pgbouncer.starts_with("postgres"),
        "ONSALE_TEST_PGBOUNCER_URL is not set: run `scripts/services start postgres pgbouncer`, \
         then `set -a; eval \"$(scripts/services env --all)\"; set +a`"
    );
    let f = Fixture::new(Place::Postgres).await;
    let (server, _) = pgbouncer.rsplit_once('/').unwrap();
    let (_, database) = f.settings.url.rsplit_once('/').unwrap();
    let settings = config::Store {
        url: format!("{server}/{database}"),
        direct_url: f.settings.url.clone(),
        pooled: true,
        ..f.settings.clone()
    };
    let store = Store::open(&settings).await.unwrap();
    for _ in 0..10 {
        let users: Vec<_> = (0..8).map(|_| user()).collect();
        let commits = users.iter().map(|user| {
            let batch = std::sync::Arc::new(vec![f.charge(*user, 1)]);
            store.commit(batch)
        });
        for verdicts in futures_util::future::join_all(commits).await {
            assert_eq!(verdicts.unwrap(), [Verdict::Written]);
        }
        let reads = users.iter().map(|user| store.entries_of(*user, None, 9));
        for entries in futures_util::future::join_all(reads).await {
            assert_eq!(entries.unwrap().len(), 1);
        }
        let loaded = store.load_accounts(&users, NOW).await.unwrap();
        assert!(loaded.values().all(|account| account.stamp.seq.0 == 1));
    }
    store.close().await;
    f.end().await;
}

/// Whether the shard of `user` can be taken now, as a taker does it.
async fn try_take(taker: &mut PgConnection, user: UserId) -> bool {
    execute(taker, "BEGIN; SET LOCAL lock_timeout = '300ms'").await;
    let taken = sqlx::query("UPDATE shard SET epoch = epoch + 1 WHERE id = $1")
        .bind(EntityId::from(user).shard().0.cast_signed())
        .execute(&mut *taker)
        .await;
    let end = if taken.is_ok() { "COMMIT" } else { "ROLLBACK" };
    execute(taker, end).await;
    taken.is_ok()
}

/// Breaks if the fence locks with `FOR KEY SHARE`, which doesn't conflict with
/// the change of an epoch, or with nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taker_waits_for_the_batch_that_is_open() {
    let f = Fixture::new(Place::Postgres).await;
    let (ann, mut bob) = (user(), user());
    while EntityId::from(bob).shard() == EntityId::from(ann).shard() {
        bob = user();
    }
    let (mut beside, mut taker) = (
        connect(&f.settings.url).await,
        connect(&f.settings.url).await,
    );
    // The batch stands still in its second statement, behind this row.
    execute(&mut beside, "BEGIN").await;
    sqlx::query("INSERT INTO entity VALUES ($1, 'account', 0, 0, 0, 0)")
        .bind(ann.0)
        .execute(&mut beside)
        .await
        .unwrap();
    let (store, batch) = (f.store.clone(), std::sync::Arc::new(vec![f.charge(ann, 1)]));
    let commit = tokio::spawn(async move { store.commit(batch).await });
    until_waiting(&mut taker, 1).await;
    assert!(
        !try_take(&mut taker, ann).await,
        "its shard was taken under an open batch"
    );
    assert!(
        try_take(&mut taker, bob).await,
        "a shard that is not in the batch is free"
    );
    execute(&mut beside, "ROLLBACK").await;
    assert_eq!(commit.await.unwrap().unwrap(), [Verdict::Written]);
    assert!(try_take(&mut taker, ann).await);
    let late = f.commit(vec![f.charge(ann, 2)]).await.unwrap();
    assert_eq!(late, [Verdict::Fenced]);
    assert_eq!(f.wallet(ann).await, (Money(1_000_000), 1));
    f.end().await;
}

/// Breaks if the epoch is a condition of the inserts (`WHERE EXISTS`) instead of
/// a lock that reads the row again once it has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_waited_for_the_taker_writes_nothing() {
    let f = Fixture::new(Place::Postgres).await;
    let ann = user();
    let mut taker = connect(&f.settings.url).await;
    execute(&mut taker, "BEGIN; UPDATE shard SET epoch = epoch + 1").await;
    let (store, batch) = (f.store.clone(), std::sync::Arc::new(vec![f.charge(ann, 1)]));
    let commit = tokio::spawn(async move { store.commit(batch).await });
    // Whether it waits already or comes later, it comes too late.
    tokio::time::sleep(Duration::from_millis(200)).await;
    execute(&mut taker, "COMMIT").await;
    assert_eq!(commit.await.unwrap().unwrap(), [Verdict::Fenced]);
    assert_eq!(f.wallet(ann).await, (Money::ZERO, 0));
    f.end().await;
}
