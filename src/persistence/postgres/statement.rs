//! Several statements that go to the server as one.

use std::fmt::Write as _;

use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::{Arguments as _, AssertSqlSafe, Encode, Type};

use super::Link;
use crate::persistence::StoreError;

/// The length of the text of an order's batch, in bytes, rounded up.
const TEXT_TYPICAL: usize = 8 * 1_024;

/// Statements that change different tables, or different rows of one, and so can
/// be run in any order: they go to the server in one round trip, as the parts of
/// the `WITH` of one statement. Which of them there are decides the text, so that
/// there are only a few texts to keep prepared.
#[derive(Default)]
pub(super) struct Statement {
    text: String,
    parts: usize,
    values: PgArguments,
    unencodable: Option<sqlx::error::BoxDynError>,
}

impl Statement {
    /// One more, whose parameters count from `$1` and are bound next.
    pub(super) fn part(&mut self, sql: &'static str) -> &mut Self {
        let number = self.parts;
        let _ = write!(self.begin(), "part{number} AS (");
        self.end(sql)
    }

    /// One whose rows those that follow read by this name.
    pub(super) fn named(&mut self, name: &'static str, sql: &'static str) -> &mut Self {
        let _ = write!(self.begin(), "{name} AS (");
        self.end(sql)
    }

    /// The next parameter of the part before.
    pub(super) fn bind<'q>(
        &mut self,
        value: impl Encode<'q, Postgres> + Type<Postgres>,
    ) -> &mut Self {
        if let Err(error) = self.values.add(value) {
            self.unencodable.get_or_insert(error);
        }
        self
    }

    /// Runs all of them, and answers with the rows of `last`, which has no
    /// parameters. They are fetched to the end: outside of a transaction, what
    /// comes after the last row tells whether it was committed.
    ///
    /// # Errors
    /// That of the first that fails; then none has changed anything.
    pub(super) async fn fetch(
        mut self,
        c: &mut Link,
        last: &'static str,
    ) -> Result<Vec<PgRow>, StoreError> {
        if let Some(error) = self.unencodable {
            return Err(sqlx::Error::Encode(error).into());
        }
        if self.parts > 0 {
            self.text.push(' ');
        }
        self.text.push_str(last);
        // Put together from constants.
        let rows = sqlx::query_with(AssertSqlSafe(self.text), self.values)
            .persistent(c.persistent)
            .fetch_all(c.on())
            .await?;
        Ok(rows)
    }

    fn begin(&mut self) -> &mut String {
        if self.parts == 0 {
            // As long as the longest there is, nearly.
            self.text.reserve(TEXT_TYPICAL);
        }
        self.text
            .push_str(if self.parts == 0 { "WITH " } else { ", " });
        self.parts += 1;
        &mut self.text
    }

    fn end(&mut self, sql: &str) -> &mut Self {
        push_renumbered(&mut self.text, sql, self.values.len());
        self.text.push(')');
        self
    }
}

/// Appends `sql` with `$1` made `$1 + before`, and so on.
fn push_renumbered(text: &mut String, sql: &str, before: usize) {
    let mut pieces = sql.split('$');
    text.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_digit());
        let (number, rest) = piece.split_at(end.unwrap_or(piece.len()));
        // A parameter: nothing else here has a dollar in it.
        let number: usize = number.parse().unwrap_or_default();
        // Writing to a String can't fail.
        let _ = write!(text, "${}{rest}", number + before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_one_statement_whose_parameters_count_on() {
        let mut statement = Statement::default();
        statement
            .named("a", "INSERT INTO a SELECT $1, $2 RETURNING id")
            .bind(1)
            .bind(2);
        statement.part("DELETE FROM b WHERE id = $1").bind(3);
        statement
            .part("INSERT INTO c SELECT $2, $1 FROM a")
            .bind(4)
            .bind(5);
        assert_eq!(
            statement.text,
            "WITH a AS (INSERT INTO a SELECT $1, $2 RETURNING id), \
             part1 AS (DELETE FROM b WHERE id = $3), \
             part2 AS (INSERT INTO c SELECT $5, $4 FROM a)"
        );
        assert_eq!(statement.values.len(), 5);
    }
}
