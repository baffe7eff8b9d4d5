//! Either store: where it is, a copy of it, and statements below its seam.

use std::str::FromStr as _;

use onsale::config;
use onsale::domain::plan::Plan;
use onsale::persistence::verify::{Report, Snapshot, audit};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use uuid::Uuid;

use super::database::Database;
use super::{SEATS, World, specs};

/// Which store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Sqlite,
    Postgres,
}

/// A store as it was when its server had ended, to be tampered with.
pub(super) struct Copied {
    pub(super) url: String,
    _folder: tempfile::TempDir,
    _database: Option<Database>,
}

impl Copied {
    pub(super) async fn of(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = match &world.database {
            Some(database) => Some(database.copy().await),
            None => {
                std::fs::copy(world.file(), folder.path().join("onsale.db")).unwrap();
                None
            }
        };
        let file = || url_of(&folder.path().join("onsale.db"));
        Self {
            url: database.as_ref().map_or_else(file, Database::url),
            _folder: folder,
            _database: database,
        }
    }
}

/// Runs statements that are written for SQLite on either store, below its seam;
/// returns how many rows they changed.
pub(super) async fn execute(url: &str, sql: &str) -> u64 {
    if url.starts_with("sqlite") {
        let mut c = sqlite(url).connect().await.unwrap();
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        return done.execute(&mut c).await.unwrap().rows_affected();
    }
    // What is spelt in another way there.
    let sql = sql
        .replace("randomblob(16)", "gen_random_uuid()")
        .replace("randomblob(32)", "sha256('another')")
        .replace("x'00'", "gen_random_uuid()")
        .replace("x''", "''::bytea")
        .replace("CAST(events || events AS BLOB)", "events || events");
    let mut c = PgConnection::connect(url).await.unwrap();
    let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut c);
    let done = done.await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    c.close().await.unwrap();
    done.rows_affected()
}

fn sqlite(url: &str) -> SqliteConnectOptions {
    SqliteConnectOptions::from_str(url).unwrap()
}

pub(super) fn settings(url: &str) -> config::Store {
    config::Store {
        readers: 2,
        ..config::Store::at(url)
    }
}

pub(super) fn url_of(file: &std::path::Path) -> String {
    format!("sqlite://{}", file.display())
}

pub(super) async fn audit_of(url: &str) -> Report {
    let mut connection = Snapshot::open(&settings(url)).await.unwrap();
    audit(&mut connection).await.unwrap()
}

const VENUE: &str = "INSERT INTO venue VALUES ($1, $1, 'v', 'UTC', $2, $3, 0, NULL, NULL)";
const PERFORMANCE: &str = "INSERT INTO performance \
     (id, owner, venue_id, title, category, cast_names, description, currency, grades, \
      opens_at, closes_at, limits, draft, created_at) \
     VALUES ($1, $1, $2, '', '', '[]', '', 'KRW', '[]', 0, 1, '{}', $3, 0)";
const TIMETABLE: &str = "INSERT INTO timetable VALUES ($1, $2, 0, 0, 0, NULL, NULL, NULL)";

pub(super) async fn insert_catalogue(url: &str, plan: &Plan) {
    /// The same statements for either connection.
    macro_rules! insert {
        ($c:expr, $venue:expr, $plan:expr) => {{
            let (performance, timetable) = ($plan.performance_id.0, $plan.timetable_id.0);
            let sections = serde_json::to_string(&specs()).unwrap();
            let venue = sqlx::query(VENUE).bind($venue).bind(sections);
            venue.bind(SEATS.cast_signed()).execute($c).await.unwrap();
            let show = sqlx::query(PERFORMANCE).bind(performance).bind($venue);
            show.bind(false).execute($c).await.unwrap();
            let date = sqlx::query(TIMETABLE).bind(timetable).bind(performance);
            date.execute($c).await.unwrap();
        }};
    }
    let venue = Uuid::now_v7();
    if url.starts_with("sqlite") {
        let c = &mut sqlite(url).connect().await.unwrap();
        insert!(&mut *c, venue, plan);
    } else {
        let c = &mut PgConnection::connect(url).await.unwrap();
        insert!(&mut *c, venue, plan);
    }
}
