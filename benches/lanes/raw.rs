//! The peer of the write lanes: the same rows, read back from where those have
//! written them, inserted by one `INSERT … SELECT … FROM unnest(…)` after the
//! other, each prepared and a transaction of its own.

use std::ops::Range;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Postgres, Row as _};
use tokio::time::Instant;
use uuid::Uuid;

/// What an order of the bench writes.
const TABLES: [&str; 7] = [
    "entity",
    "journal",
    "wallet",
    "transfer",
    "orders",
    "sold_seat",
    "outbox",
];

/// Rows of a statement: those of a full batch of the lanes.
const ROWS: usize = 512;

/// A table and its rows, column by column.
pub(crate) struct Table {
    insert: String,
    columns: Vec<Column>,
}

enum Column {
    Uuid(Vec<Option<Uuid>>),
    Text(Vec<Option<String>>),
    Small(Vec<Option<i16>>),
    Int(Vec<Option<i32>>),
    Big(Vec<Option<i64>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Table {
    pub(crate) fn rows(&self) -> usize {
        self.columns.first().map_or(0, Column::rows)
    }
}

/// Calls a block with the cells of a column, whatever their type is.
macro_rules! on_cells {
    ($column:expr, $cells:ident => $block:expr) => {
        match $column {
            Column::Uuid($cells) => $block,
            Column::Text($cells) => $block,
            Column::Small($cells) => $block,
            Column::Int($cells) => $block,
            Column::Big($cells) => $block,
            Column::Bytes($cells) => $block,
        }
    };
}

impl Column {
    fn of_type(name: &str) -> Self {
        match name {
            "uuid" => Self::Uuid(Vec::new()),
            "text" => Self::Text(Vec::new()),
            "int2" => Self::Small(Vec::new()),
            "int4" => Self::Int(Vec::new()),
            "int8" => Self::Big(Vec::new()),
            "bytea" => Self::Bytes(Vec::new()),
            other => panic!("no table had a column of type {other} before"),
        }
    }

    fn rows(&self) -> usize {
        on_cells!(self, cells => cells.len())
    }

    fn push(&mut self, row: &PgRow, at: usize) {
        on_cells!(self, cells => cells.push(row.get(at)));
    }

    fn bind<'q>(
        &'q self,
        query: Query<'q, Postgres, PgArguments>,
        rows: Range<usize>,
    ) -> Query<'q, Postgres, PgArguments> {
        on_cells!(self, cells => query.bind(&cells[rows]))
    }
}

async fn connect(url: &str) -> PgConnection {
    let options = PgConnectOptions::from_str(url).unwrap();
    options.disable_statement_logging().connect().await.unwrap()
}

pub(crate) async fn setting(url: &str, name: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)")
        .bind(name)
        .fetch_one(&mut connect(url).await)
        .await
        .unwrap()
}

/// All rows that there are.
pub(crate) async fn read(url: &str) -> Vec<Table> {
    let mut connection = connect(url).await;
    let mut tables = Vec::new();
    for name in TABLES {
        tables.push(read_table(&mut connection, name).await);
    }
    tables
}

async fn read_table(connection: &mut PgConnection, name: &str) -> Table {
    let columns = sqlx::query(
        "SELECT column_name::text, udt_name::text FROM information_schema.columns \
         WHERE table_name = $1 ORDER BY ordinal_position",
    )
    .bind(name)
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let (names, types): (Vec<String>, Vec<String>) =
        columns.iter().map(|row| (row.get(0), row.get(1))).unzip();
    let arrays: Vec<String> = types
        .iter()
        .enumerate()
        .map(|(at, kind)| format!("${}::{kind}[]", at + 1))
        .collect();
    let names = names.join(", ");
    let mut columns: Vec<Column> = types.iter().map(|kind| Column::of_type(kind)).collect();
    let rows = sqlx::query(AssertSqlSafe(format!("SELECT {names} FROM {name}")))
        .fetch_all(connection)
        .await
        .unwrap();
    for row in &rows {
        for (at, column) in columns.iter_mut().enumerate() {
            column.push(row, at);
        }
    }
    Table {
        insert: format!(
            "INSERT INTO {name} ({names}) SELECT * FROM unnest({})",
            arrays.join(", ")
        ),
        columns,
    }
}

/// Inserts all of it over so many connections; returns how long that took.
pub(crate) async fn insert(url: &str, tables: Vec<Table>, connections: usize) -> Duration {
    let expected: Vec<usize> = tables.iter().map(Table::rows).collect();
    let tables = Arc::new(tables);
    // Table by table and chunk by chunk, in turns over the tables.
    let mut chunks: Vec<(usize, usize, Range<usize>)> = Vec::new();
    for (at, rows) in expected.iter().enumerate() {
        for (turn, from) in (0..*rows).step_by(ROWS).enumerate() {
            chunks.push((turn, at, from..(from + ROWS).min(*rows)));
        }
    }
    chunks.sort_unstable_by_key(|(turn, at, _)| (*turn, *at));
    let (chunks, next) = (Arc::new(chunks), Arc::new(AtomicUsize::new(0)));
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(connect(url).await);
    }
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut connection in open {
        let (tables, chunks, next) = (Arc::clone(&tables), Arc::clone(&chunks), Arc::clone(&next));
        tasks.spawn(async move {
            while let Some((_, at, rows)) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let table = &tables[*at];
                let mut query = sqlx::query(AssertSqlSafe(table.insert.clone()));
                for column in &table.columns {
                    query = column.bind(query, rows.clone());
                }
                query.execute(&mut connection).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let took = begun.elapsed();
    let written = read(url).await;
    let written: Vec<usize> = written.iter().map(Table::rows).collect();
    assert_eq!(written, expected, "the same rows");
    took
}
