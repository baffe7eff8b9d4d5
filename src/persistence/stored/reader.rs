//! A connection to either database, so that what is read alike is written once.
//!
//! The parameters of a statement are `$1`, `$2`, … on both.

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use uuid::Uuid;

use super::row::StoredRow;
use crate::domain::ids::{EntityId, Stamp};
use crate::persistence::StoreError;
use crate::persistence::postgres::Link;

/// A parameter of a statement.
#[derive(Clone, Copy, Debug)]
pub(in crate::persistence) enum Value {
    Id(Uuid),
    Int(i64),
    Text(&'static str),
}

impl From<Uuid> for Value {
    fn from(id: Uuid) -> Self {
        Self::Id(id)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// A connection that reads.
pub(in crate::persistence) trait Reader: Send {
    /// What its rows are.
    type Row: StoredRow + Send + 'static;

    /// The rows that `sql` selects, one after the other.
    fn rows<'c>(
        &'c mut self,
        sql: &'static str,
        values: &[Value],
    ) -> BoxStream<'c, Result<Self::Row, StoreError>>;

    /// All the rows that `sql` selects.
    fn all<'c>(
        &'c mut self,
        sql: &'static str,
        values: &[Value],
    ) -> BoxFuture<'c, Result<Vec<Self::Row>, StoreError>> {
        Box::pin(self.rows(sql, values).try_collect())
    }

    /// The row that `sql` selects, if there is one.
    fn one<'c>(
        &'c mut self,
        sql: &'static str,
        values: &[Value],
    ) -> BoxFuture<'c, Result<Option<Self::Row>, StoreError>> {
        let mut rows = self.rows(sql, values);
        Box::pin(async move { rows.try_next().await })
    }
}

/// Binds the parameters to a statement of either.
macro_rules! bound {
    ($query:expr, $values:expr) => {{
        let mut query = $query;
        for value in $values {
            query = match *value {
                Value::Id(id) => query.bind(id),
                Value::Int(number) => query.bind(number),
                Value::Text(text) => query.bind(text),
            };
        }
        query
    }};
}

impl Reader for SqliteConnection {
    type Row = SqliteRow;

    fn rows<'c>(
        &'c mut self,
        sql: &'static str,
        values: &[Value],
    ) -> BoxStream<'c, Result<SqliteRow, StoreError>> {
        let query = bound!(sqlx::query(sql), values);
        query.fetch(self).map_err(StoreError::from).boxed()
    }
}

impl Reader for PgConnection {
    type Row = PgRow;

    fn rows<'c>(
        &'c mut self,
        sql: &'static str,
        values: &[Value],
    ) -> BoxStream<'c, Result<PgRow, StoreError>> {
        let query = bound!(sqlx::query(sql), values);
        query.fetch(self).map_err(StoreError::from).boxed()
    }
}

impl Reader for Link {
    type Row = PgRow;

    fn rows<'c>(
        &'c mut self,
        sql: &'static str,
        values: &[Value],
    ) -> BoxStream<'c, Result<PgRow, StoreError>> {
        let query = bound!(self.sql(sql), values);
        query.fetch(self.on()).map_err(StoreError::from).boxed()
    }
}

/// The version of an entity's rows.
pub(in crate::persistence) async fn version(
    c: &mut impl Reader,
    entity: EntityId,
) -> Result<Option<Stamp>, StoreError> {
    const VERSION: &str = "SELECT epoch, activation, seq FROM entity WHERE id = $1 AND kind = $2";
    let kind = Value::Text(entity.kind.as_str());
    let row = c.one(VERSION, &[entity.id.into(), kind]).await?;
    row.map(|row| super::entities::stamp(&row, 0)).transpose()
}

/// The last number that an entity has published to a topic; 0 before the first.
pub(in crate::persistence) async fn last_event_seq(
    c: &mut impl Reader,
    entity: Uuid,
    topic: &'static str,
) -> Result<u64, StoreError> {
    const LAST: &str = "SELECT max(event_seq) FROM outbox WHERE entity = $1 AND topic = $2";
    let row = c.one(LAST, &[entity.into(), Value::Text(topic)]).await?;
    let last = row.map_or(Ok(None), |row| row.cell::<Option<i64>>(0))?;
    Ok(last.unwrap_or(0).cast_unsigned())
}
