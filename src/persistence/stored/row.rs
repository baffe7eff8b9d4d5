//! A row of either database, read by the same code.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Decode, Postgres, Row, Sqlite, Type};

use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

/// What a column can hold in both.
pub(in crate::persistence) trait Cell:
    for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>
{
}

impl<T> Cell for T where
    T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>
{
}

/// The place of a column: its number, or its name.
pub(in crate::persistence) trait Column:
    ColumnIndex<SqliteRow> + ColumnIndex<PgRow>
{
}

impl<T: ColumnIndex<SqliteRow> + ColumnIndex<PgRow>> Column for T {}

/// A row of either database.
pub(in crate::persistence) trait StoredRow {
    /// What a column says.
    fn cell<T: Cell>(&self, at: impl Column) -> Result<T, StoreError>;

    /// What a column of text says.
    fn text(&self, at: impl Column) -> Result<&str, StoreError>;

    /// An unsigned number in a column of 32 bits, whose sign Postgres has and we
    /// don't use.
    fn unsigned(&self, at: impl Column) -> Result<u32, StoreError> {
        Ok(self.cell::<i32>(at)?.cast_unsigned())
    }

    /// The same of 64 bits.
    fn unsigned_long(&self, at: impl Column) -> Result<u64, StoreError> {
        Ok(self.cell::<i64>(at)?.cast_unsigned())
    }

    /// A time.
    fn time(&self, at: impl Column) -> Result<Timestamp, StoreError> {
        self.cell(at).map(Timestamp)
    }

    /// A time, or null.
    fn time_if_any(&self, at: impl Column) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.cell::<Option<i64>>(at)?.map(Timestamp))
    }

    /// A value that is kept as JSON.
    fn json<T: serde::de::DeserializeOwned>(&self, at: impl Column) -> Result<T, StoreError> {
        let text: String = self.cell(at)?;
        serde_json::from_str(&text).map_err(|error| StoreError::Unreadable(error.to_string()))
    }
}

impl StoredRow for SqliteRow {
    fn cell<T: Cell>(&self, at: impl Column) -> Result<T, StoreError> {
        Ok(self.try_get(at)?)
    }

    fn text(&self, at: impl Column) -> Result<&str, StoreError> {
        Ok(self.try_get(at)?)
    }
}

impl StoredRow for PgRow {
    fn cell<T: Cell>(&self, at: impl Column) -> Result<T, StoreError> {
        Ok(self.try_get(at)?)
    }

    fn text(&self, at: impl Column) -> Result<&str, StoreError> {
        Ok(self.try_get(at)?)
    }
}
