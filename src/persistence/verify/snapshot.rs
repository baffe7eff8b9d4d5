//! What the audit reads from: one snapshot of a store, whichever it is.
//!
//! The statements are the same for both; what differs (the text of an id) is
//! spelt out where it is needed.

use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection as _, Decode, Postgres, Row as _, Sqlite, Type};
use uuid::Uuid;

use crate::config;
use crate::persistence::sqlite::SqliteStore;
use crate::persistence::stored::reader::{Reader, Value};
use crate::persistence::stored::row::{Cell, Column, StoredRow};
use crate::persistence::{StoreError, postgres};

/// A connection that only reads.
#[derive(Debug)]
pub enum Snapshot {
    /// To the embedded store.
    Sqlite(SqliteConnection),
    /// To that of a cluster.
    Postgres(PgConnection),
}

/// A row of either.
pub(in crate::persistence) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Snapshot {
    /// Opens the store for reading, beside a live server or after a crash.
    ///
    /// # Errors
    /// If there is none, or it can't be read.
    pub async fn open(settings: &config::Store) -> Result<Self, StoreError> {
        if settings.is_server() {
            let connection = postgres::connect_once(settings.direct_url()).await?;
            return Ok(Self::Postgres(connection));
        }
        let connection = SqliteStore::open_read_only(&settings.url).await?;
        Ok(Self::Sqlite(connection))
    }

    /// From here on, all reads see the same commits.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(c) => {
                sqlx::raw_sql("BEGIN").execute(c).await?;
            }
            Self::Postgres(c) => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
                     SET LOCAL statement_timeout = 0; \
                     SET LOCAL idle_in_transaction_session_timeout = 0";
                sqlx::raw_sql(begin).execute(c).await?;
            }
        }
        Ok(())
    }

    /// Ends the snapshot. It can only fail with the connection, and then the
    /// snapshot is over as well.
    pub(super) async fn end(&mut self) {
        let _ = match self {
            Self::Sqlite(c) => sqlx::raw_sql("ROLLBACK").execute(c).await.map(drop),
            Self::Postgres(c) => sqlx::raw_sql("ROLLBACK").execute(c).await.map(drop),
        };
    }

    /// Closes the connection. Reading is over: nothing is lost if that fails.
    pub(super) async fn close(self) {
        let _ = match self {
            Self::Sqlite(c) => c.close().await,
            Self::Postgres(c) => c.close().await,
        };
    }

    /// The ids that `sql` selects.
    pub(super) async fn ids(&mut self, sql: &'static str) -> Result<Vec<Uuid>, StoreError> {
        let rows = self.all(sql, &[]).await?;
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The number that `sql` selects.
    pub(super) async fn count(&mut self, sql: &'static str) -> Result<u64, StoreError> {
        let row = self.one(sql, &[]).await?;
        Ok(row.map_or(Ok(0), |row| row.int(0))?.unsigned_abs())
    }
}

impl Reader for Snapshot {
    type Row = Row;

    fn rows<'c>(
        &'c mut self,
        sql: &'static str,
        values: &[Value],
    ) -> BoxStream<'c, Result<Row, StoreError>> {
        match self {
            Self::Sqlite(c) => c.rows(sql, values).map_ok(Row::Sqlite).boxed(),
            Self::Postgres(c) => c.rows(sql, values).map_ok(Row::Postgres).boxed(),
        }
    }
}

impl StoredRow for Row {
    fn cell<T: Cell>(&self, at: impl Column) -> Result<T, StoreError> {
        match self {
            Self::Sqlite(row) => row.cell(at),
            Self::Postgres(row) => row.cell(at),
        }
    }

    fn text(&self, at: impl Column) -> Result<&str, StoreError> {
        match self {
            Self::Sqlite(row) => row.text(at),
            Self::Postgres(row) => row.text(at),
        }
    }
}

impl Row {
    /// A column that is neither a number nor missing.
    pub(super) fn get<'r, T>(&'r self, at: usize) -> Result<T, StoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(at)?,
            Self::Postgres(row) => row.try_get(at)?,
        })
    }

    /// A whole number, however wide its column is.
    pub(super) fn int(&self, at: usize) -> Result<i64, StoreError> {
        self.int_or_null(at)?.ok_or_else(|| {
            StoreError::Unreadable(format!("column {at} of a row of the audit is null"))
        })
    }

    /// A whole number that may be missing.
    pub(super) fn int_or_null(&self, at: usize) -> Result<Option<i64>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(at)?,
            Self::Postgres(row) => match row.try_get::<Option<i64>, _>(at) {
                Ok(number) => number,
                Err(_) => match row.try_get::<Option<i32>, _>(at) {
                    Ok(number) => number.map(i64::from),
                    Err(_) => row.try_get::<Option<i16>, _>(at)?.map(i64::from),
                },
            },
        })
    }

    /// The index of a seat, or how many there are.
    pub(super) fn seats(&self, at: usize) -> Result<u32, StoreError> {
        let number = self.int(at)?;
        u32::try_from(number)
            .map_err(|_| StoreError::Unreadable(format!("{number} is no number of seats")))
    }
}
