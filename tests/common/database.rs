//! A database of its own for a test, on the Postgres of `ONSALE_STORE__URL`.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::str::FromStr as _;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

/// It is dropped with this value.
pub(crate) struct Database {
    name: String,
    server: PgConnectOptions,
}

impl Database {
    /// Makes an empty database.
    pub(crate) async fn empty() -> Self {
        let url = std::env::var("ONSALE_STORE__URL").unwrap_or_default();
        let server = PgConnectOptions::from_str(&url).unwrap_or_else(|_| {
            panic!(
                "this test needs Postgres at ONSALE_STORE__URL (it is {url:?}): \
                 run it with `scripts/services run cargo test`"
            )
        });
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let mut connection = PgConnection::connect_with(&server)
            .await
            .expect("Postgres answers");
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .expect("a database");
        Self { name, server }
    }

    /// Makes one with the product's tables.
    pub(crate) async fn create() -> Self {
        let database = Self::empty().await;
        sqlx::migrate!("migrations/postgres")
            .run(&mut database.connect().await)
            .await
            .expect("the migrations");
        database
    }

    /// Makes another with all that is in this one, to which nobody may be
    /// connected.
    pub(crate) async fn copy(&self) -> Self {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let mut connection = PgConnection::connect_with(&self.server)
            .await
            .expect("Postgres answers");
        let copy = format!("CREATE DATABASE {name} TEMPLATE {}", self.name);
        sqlx::query(AssertSqlSafe(copy))
            .execute(&mut connection)
            .await
            .expect("a copy");
        Self {
            name,
            server: self.server.clone(),
        }
    }

    /// How to connect to it.
    pub(crate) fn options(&self) -> PgConnectOptions {
        self.server.clone().database(&self.name)
    }

    /// The same, as a URL.
    pub(crate) fn url(&self) -> String {
        self.options().to_url_lossy().to_string()
    }

    /// A connection to it.
    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&self.options())
            .await
            .expect("a connection")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (name, server) = (self.name.clone(), self.server.clone());
        // In a thread of its own: a destructor can't wait in the test's runtime.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let Ok(mut connection) = PgConnection::connect_with(&server).await else {
                    return;
                };
                let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                // Best effort: a test that failed must say why, not this.
                let _ = sqlx::query(AssertSqlSafe(drop))
                    .execute(&mut connection)
                    .await;
            });
        });
        let _ = dropping.join();
    }
}
