//! What a server of the benches stands on: a folder of its own and, for a node
//! of a cluster, a Postgres and a Redis that were started for this bench alone
//! (by `scripts/services`), with nothing else's data in them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use onsale::keys::Keys;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use uuid::Uuid;

use super::ADMIN;
use super::services::Services;

/// On Postgres there has to be one; a bench's is none.
const SECRET: &str = "a secret of the benches that is long enough";

/// What of the settings of Postgres durability depends on.
const DURABILITY: [&str; 3] = ["fsync", "synchronous_commit", "full_page_writes"];

/// When a hold is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holds {
    Memory,
    Checkpoint,
    Database,
}

impl Holds {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Checkpoint => "checkpoint",
            Self::Database => "database",
        }
    }
}

/// A folder, and what the settings in the environment of a server are.
pub(crate) struct Ground {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
    /// Shared by the nodes of a cluster.
    services: Option<Rc<Services>>,
}

impl Ground {
    /// SQLite in an empty folder beside the build, and nothing else.
    pub(crate) fn embedded() -> Self {
        let folder = folder();
        let url = format!("sqlite://{}/onsale.db", folder.path().display());
        Self {
            variables: vec![("ONSALE_STORE__URL", url)],
            folder,
            services: None,
        }
    }

    /// A new database, and Redis where holds are acknowledged by it.
    pub(crate) async fn cluster(services: &Rc<Services>, holds: Holds) -> Self {
        let mut variables = vec![
            ("ONSALE_STORE__URL", new_database(services).await),
            ("ONSALE_AUTH__SECRET", SECRET.to_owned()),
            ("ONSALE_DURABILITY__HOLDS", holds.as_str().to_owned()),
        ];
        if holds == Holds::Checkpoint {
            variables.push(("ONSALE_REDIS__URL", services.redis_url()));
            variables.push(("ONSALE_REDIS__PREFIX", name()));
        }
        Self {
            folder: folder(),
            variables,
            services: Some(Rc::clone(services)),
        }
    }

    /// For another node of the same cluster.
    pub(crate) fn beside(&self) -> Self {
        Self {
            folder: folder(),
            variables: self.variables.clone(),
            services: self.services.clone(),
        }
    }

    /// With one more variable.
    pub(crate) fn env(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// The data folder of the server.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where what it acknowledges is written to.
    pub(crate) fn disk(&self) -> &Path {
        self.services
            .as_ref()
            .map_or(self.folder.path(), |services| services.folder())
    }

    /// What its servers sign with.
    pub(crate) fn keys(&self) -> Keys {
        let set = self.variables.iter();
        let mut set = set.filter(|(name, _)| *name == "ONSALE_AUTH__SECRET");
        let secret = set.next().map_or("", |(_, secret)| secret);
        Keys::open(secret, &[], self.folder()).unwrap()
    }

    /// The URL of the store.
    pub(crate) fn store(&self) -> &str {
        self.variables
            .iter()
            .find_map(|(name, value)| (*name == "ONSALE_STORE__URL").then_some(value.as_str()))
            .expect("it is set where a ground is made")
    }

    /// A connection to the store, beside the server.
    pub(crate) async fn sql(&self) -> PgConnection {
        PgConnection::connect(self.store()).await.unwrap()
    }

    /// How durable what is measured here is: read back from the store itself.
    pub(crate) async fn durability(&self) -> String {
        if self.services.is_none() {
            return "SQLite, journal_mode=WAL, synchronous=FULL".to_owned();
        }
        let mut sql = self.sql().await;
        let mut text = String::from("PostgreSQL ");
        text += &setting(&mut sql, "server_version").await;
        for name in DURABILITY {
            let value = setting(&mut sql, name).await;
            assert_eq!(value, "on", "{name}: a figure of that would be of no worth");
            text += &format!(", {name}={value}");
        }
        text
    }

    /// `program` with these settings, and no others.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(PathBuf::from(program));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ONSALE_")) {
            command.env_remove(name);
        }
        command
            // No config.toml is found there.
            .current_dir(self.folder())
            .env("ONSALE_NODE__DATA_DIR", self.folder())
            .env("ONSALE_LOG", "warn")
            .env("ONSALE_ADMIN_EMAIL", ADMIN.0)
            .env("ONSALE_ADMIN_PASSWORD", ADMIN.1)
            .envs(self.variables.iter().cloned());
        command
    }
}

/// Postgres and Redis for one bench: they end with the last who has them.
pub(crate) fn services() -> Rc<Services> {
    Rc::new(Services::start(&["postgres", "redis"]))
}

/// Makes an empty database; returns its URL.
pub(crate) async fn new_database(services: &Services) -> String {
    let url: PgConnectOptions = services.postgres_url().parse().unwrap();
    let name = name();
    let mut sql = PgConnection::connect_with(&url).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut sql)
        .await
        .unwrap();
    url.database(&name).to_url_lossy().to_string()
}

async fn setting(sql: &mut PgConnection, name: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)")
        .bind(name)
        .fetch_one(sql)
        .await
        .unwrap()
}

/// A folder on the disk of the build; `/tmp` may be memory.
pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("onsale-bench-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap()
}

/// A name that nothing else has: of a database, or of keys, which allow 32 bytes.
fn name() -> String {
    let (some, _) = Uuid::new_v4().as_u64_pair();
    format!("bench_{some:x}")
}
