//! Many rows in one statement: the batch is the performance design.
//!
//! `PostgreSQL` takes a column at a time as arrays, so that one prepared statement serves any number of
//! rows. SQLite takes `VALUES` lists, prepared for some numbers of rows: any batch is a few statements.
//!
//! An insert names its columns once, with their types, and is handed a [`Column`] for each, all of one length. Rows
//! that are refused by a unique index fail the statement unless `on_conflict` says otherwise.

use std::{fmt::Write as _, sync::OnceLock};

#[cfg(test)]
use sqlx::AssertSqlSafe;
use sqlx::{Arguments as _, Executor as _, SqliteConnection, postgres::PgArguments, sqlite::SqliteArguments};

#[cfg(test)]
use super::engine::EngineRef;
use super::error::{DbError, DbResult};

/// How many rows one statement takes on SQLite. Each statement is a turn between two threads, which costs more
/// than a few rows do: up to 64 rows are two of them.
const CHUNKS: [usize; 20] = [128, 64, 48, 32, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1];

/// The type of a column. SQLite stores the three as they come. `PostgreSQL` has to be told the type of an array's
/// elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnType {
    Int,
    Text,
    Bool,
}

/// The values of one column, a row each. Absent values are allowed where the type says so.
#[derive(Debug)]
pub(crate) enum Column<'a> {
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<&'a str>>),
    Bools(Vec<bool>),
}

/// How rows go into a table: its columns, and what happens to a row that is already there.
#[derive(Debug)]
pub(crate) struct Insert {
    /// As errors call it.
    name: &'static str,
    table: &'static str,
    columns: &'static [(&'static str, ColumnType)],
    /// The clause that both engines read alike, or empty: a row that is there is an error then.
    on_conflict: &'static str,
    /// For SQLite, with the number of rows that each takes, largest first.
    rendered: OnceLock<[(usize, String); CHUNKS.len()]>,
}

impl Insert {
    /// `on_conflict` is the `ON CONFLICT` clause, or empty. Rows of one call must not conflict with each other.
    pub(crate) const fn new(
        name: &'static str,
        table: &'static str,
        columns: &'static [(&'static str, ColumnType)],
        on_conflict: &'static str,
    ) -> Self {
        Self { name, table, columns, on_conflict, rendered: OnceLock::new() }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn table(&self) -> &'static str {
        self.table
    }

    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// How many rows there are in these columns, which must be the insert's. What it checks is checked in tests and
    /// debug builds; a wrong number fails in the database otherwise.
    pub(super) fn check(&self, columns: &[Column<'_>]) -> usize {
        let rows = columns.first().map_or(0, Column::len);
        debug_assert_eq!(columns.len(), self.columns.len(), "{}: as many columns as declared", self.name);
        debug_assert!(columns.iter().all(|c| c.len() == rows), "{}: columns of one length", self.name);
        rows
    }

    /// Writes the statement for `PostgreSQL`, its parameters numbered after `parameters`, and returns the last number.
    // Writing to a `String` can't fail, which is why the results here are dropped.
    pub(super) fn render_postgres(&self, sql: &mut String, parameters: usize) -> usize {
        write!(sql, "INSERT INTO {} ({}) SELECT * FROM unnest(", self.table, self.names()).unwrap_or_default();
        let mut number = parameters;
        for (index, (_, kind)) in self.columns.iter().enumerate() {
            let kind = match kind {
                ColumnType::Int => "bigint",
                ColumnType::Text => "text",
                ColumnType::Bool => "boolean",
            };
            number += 1;
            let comma = if index == 0 { "" } else { ", " };
            write!(sql, "{comma}${number}::{kind}[]").unwrap_or_default();
        }
        write!(sql, ") {}", self.on_conflict).unwrap_or_default();
        number
    }

    /// One array for each column, in the order of the parameters that [`Self::render_postgres`] numbers.
    pub(super) fn add_to_postgres(&self, columns: &[Column<'_>], arguments: &mut PgArguments) -> DbResult<()> {
        for column in columns {
            match column {
                Column::Ints(v) => arguments.add(v.as_slice()),
                Column::Texts(v) => arguments.add(v.as_slice()),
                Column::Bools(v) => arguments.add(v.as_slice()),
            }
            .map_err(|e| DbError::new(self.name, sqlx::Error::Encode(e)))?;
        }
        Ok(())
    }

    /// The parameters have no names, by which SQLite would look each of them up. A refused row ends the whole
    /// transaction here, so `OR FAIL` spares the journal that undoes one statement.
    fn render_sqlite(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; self.columns.len()].join(", "));
        let rows = vec![row.as_str(); rows].join(", ");
        format!("INSERT OR FAIL INTO {} ({}) VALUES {rows} {}", self.table, self.names(), self.on_conflict)
    }

    /// Rendered once, when the insert is first run.
    fn sqlite(&'static self) -> &'static [(usize, String)] {
        self.rendered.get_or_init(|| CHUNKS.map(|rows| (rows, self.render_sqlite(rows))))
    }

    /// The largest statements first, so that rows are split into as few as possible. It is part of the caller's
    /// transaction, so a failure in the middle is undone with it.
    pub(super) async fn run_on_sqlite(
        &'static self,
        connection: &mut SqliteConnection,
        columns: &[Column<'_>],
    ) -> DbResult<()> {
        let rows = self.check(columns);
        let fail = |e| DbError::new(self.name, e);
        let mut done = 0;
        for (size, sql) in self.sqlite() {
            while rows - done >= *size {
                let mut arguments = SqliteArguments::default();
                for row in done..done + size {
                    for column in columns {
                        column.add_to(&mut arguments, row).map_err(|e| fail(sqlx::Error::Encode(e)))?;
                    }
                }
                connection.execute(sqlx::query_with(sql.as_str(), arguments)).await.map_err(fail)?;
                done += size;
            }
        }
        Ok(())
    }

    /// Has the engine parse and plan the statement without running it.
    #[cfg(test)]
    pub(super) async fn prepare(&'static self, engine: EngineRef<'_>) -> DbResult<()> {
        match engine {
            EngineRef::Postgres(c) => {
                let sql = AssertSqlSafe(render_together(&[self]));
                c.prepare(sqlx::SqlSafeStr::into_sql_str(sql)).await.map(drop)
            }
            EngineRef::Sqlite(c) => {
                let mut prepared = Ok(());
                for (_, sql) in self.sqlite() {
                    prepared = prepared.and(c.prepare(sqlx::SqlStr::from_static(sql)).await.map(drop));
                }
                prepared
            }
        }
        .map_err(|e| DbError::new(self.name, e))
    }
}

impl<'a> Column<'a> {
    /// Of a column that is never NULL.
    pub(crate) fn ints(values: impl IntoIterator<Item = i64>) -> Self {
        Self::Ints(values.into_iter().map(Some).collect())
    }

    /// Of a column that is never NULL; others are made as [`Column::Texts`].
    pub(crate) fn texts(values: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Texts(values.into_iter().map(Some).collect())
    }

    fn len(&self) -> usize {
        match self {
            Self::Ints(v) => v.len(),
            Self::Texts(v) => v.len(),
            Self::Bools(v) => v.len(),
        }
    }

    fn add_to(&self, arguments: &mut SqliteArguments, row: usize) -> Result<(), sqlx::error::BoxDynError> {
        match self {
            Self::Ints(v) => arguments.add(v.get(row).copied().flatten()),
            Self::Texts(v) => arguments.add(v.get(row).copied().flatten()),
            Self::Bools(v) => arguments.add(v.get(row).copied()),
        }
    }
}

/// One statement for several inserts on `PostgreSQL`, their parameters one after another. All but the last are common
/// table expressions. `PostgreSQL` runs them although nothing reads them, and all see the data as it was before.
pub(super) fn render_together(inserts: &[&Insert]) -> String {
    let mut sql = String::new();
    let mut parameters = 0;
    for (index, insert) in inserts.iter().enumerate() {
        let last = index + 1 == inserts.len();
        if !last {
            let opening = if index == 0 { "WITH " } else { "" };
            write!(sql, "{opening}i{index} AS (").unwrap_or_default();
        }
        parameters = insert.render_postgres(&mut sql, parameters);
        if !last {
            sql.push_str(if index + 2 == inserts.len() { ") " } else { "), " });
        }
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    static ONE: Insert = Insert::new("ONE", "one", &[("id", ColumnType::Int), ("word", ColumnType::Text)], "");
    static OTHER: Insert = Insert::new("OTHER", "other", &[("id", ColumnType::Int)], "ON CONFLICT DO NOTHING");

    #[test]
    fn several_inserts_are_one_statement() {
        let sql = render_together(&[&ONE, &OTHER, &ONE]);
        let squeezed = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            squeezed,
            "WITH i0 AS (INSERT INTO one (id, word) SELECT * FROM unnest($1::bigint[], $2::text[]) ), \
             i1 AS (INSERT INTO other (id) SELECT * FROM unnest($3::bigint[]) ON CONFLICT DO NOTHING) \
             INSERT INTO one (id, word) SELECT * FROM unnest($4::bigint[], $5::text[])"
        );
    }
}
