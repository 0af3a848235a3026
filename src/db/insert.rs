//! Many rows in one statement: the batch is the performance design.
//!
//! `PostgreSQL` takes a column at a time as arrays, so that one prepared statement serves any number of
//! rows. SQLite takes `VALUES` lists, prepared for each power of two up to 128 rows: any batch is a few statements.

use std::{fmt::Write as _, sync::OnceLock};

use sqlx::{Arguments as _, Executor as _, postgres::PgArguments, sqlite::SqliteArguments};

use super::{DbError, DbResult, EngineRef};

/// How many rows one statement takes on SQLite. Each statement is a turn between two threads, which costs more
/// than a few rows do.
const CHUNKS: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
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
    name: &'static str,
    table: &'static str,
    columns: &'static [(&'static str, Kind)],
    on_conflict: &'static str,
    rendered: OnceLock<Rendered>,
}

#[derive(Debug)]
struct Rendered {
    postgres: String,
    /// With the number of rows that each takes, largest first.
    sqlite: [(usize, String); CHUNKS.len()],
}

impl Insert {
    /// `on_conflict` is the `ON CONFLICT` clause, or empty. Rows of one call must not conflict with each other.
    pub(crate) const fn new(
        name: &'static str,
        table: &'static str,
        columns: &'static [(&'static str, Kind)],
        on_conflict: &'static str,
    ) -> Self {
        Self { name, table, columns, on_conflict, rendered: OnceLock::new() }
    }

    fn rendered(&'static self) -> &'static Rendered {
        self.rendered.get_or_init(|| Rendered {
            postgres: self.render_postgres(),
            sqlite: CHUNKS.map(|rows| (rows, self.render_sqlite(rows))),
        })
    }

    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    fn render_postgres(&self) -> String {
        let arrays: Vec<String> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, (_, kind))| {
                let kind = match kind {
                    Kind::Int => "bigint",
                    Kind::Text => "text",
                    Kind::Bool => "boolean",
                };
                format!("${}::{kind}[]", i + 1)
            })
            .collect();
        format!(
            "INSERT INTO {} ({}) SELECT * FROM unnest({}) {}",
            self.table,
            self.names(),
            arrays.join(", "),
            self.on_conflict
        )
    }

    fn render_sqlite(&self, rows: usize) -> String {
        let mut sql = format!("INSERT INTO {} ({}) VALUES ", self.table, self.names());
        let mut next = 1;
        for row in 0..rows {
            sql.push_str(if row == 0 { "(" } else { ", (" });
            for column in 0..self.columns.len() {
                let comma = if column == 0 { "" } else { ", " };
                write!(sql, "{comma}${next}").unwrap_or_default();
                next += 1;
            }
            sql.push(')');
        }
        sql.push(' ');
        sql.push_str(self.on_conflict);
        sql
    }

    pub(super) async fn run(&'static self, engine: EngineRef<'_>, columns: &[Column<'_>]) -> DbResult<()> {
        debug_assert_eq!(columns.len(), self.columns.len(), "{}: as many columns as declared", self.name);
        let rows = columns.first().map_or(0, Column::len);
        debug_assert!(columns.iter().all(|c| c.len() == rows), "{}: columns of one length", self.name);
        if rows == 0 {
            return Ok(());
        }
        let fail = |e| DbError::new(self.name, e);
        match engine {
            EngineRef::Postgres(connection) => {
                let mut arguments = PgArguments::default();
                for column in columns {
                    match column {
                        Column::Ints(v) => arguments.add(v.as_slice()),
                        Column::Texts(v) => arguments.add(v.as_slice()),
                        Column::Bools(v) => arguments.add(v.as_slice()),
                    }
                    .map_err(|e| fail(sqlx::Error::Encode(e)))?;
                }
                let sql = self.rendered().postgres.as_str();
                connection.execute(sqlx::query_with(sql, arguments)).await.map_err(fail)?;
            }
            EngineRef::Sqlite(connection) => {
                let mut done = 0;
                for (size, sql) in &self.rendered().sqlite {
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
            }
        }
        Ok(())
    }

    /// Has the engine parse and plan the statement without running it.
    #[cfg(test)]
    pub(super) async fn prepare(&'static self, engine: EngineRef<'_>) -> DbResult<()> {
        match engine {
            EngineRef::Postgres(c) => {
                let sql = self.rendered().postgres.as_str();
                c.prepare(sqlx::SqlStr::from_static(sql)).await.map(drop)
            }
            EngineRef::Sqlite(c) => {
                let mut prepared = Ok(());
                for (_, sql) in &self.rendered().sqlite {
                    prepared = prepared.and(c.prepare(sqlx::SqlStr::from_static(sql)).await.map(drop));
                }
                prepared
            }
        }
        .map_err(|e| DbError::new(self.name, e))
    }
}

impl<'a> Column<'a> {
    pub(crate) fn ints(values: impl IntoIterator<Item = i64>) -> Self {
        Self::Ints(values.into_iter().map(Some).collect())
    }

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
