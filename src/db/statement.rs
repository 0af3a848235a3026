//! Named statements: SQL is written once where both engines read it alike, twice where they do not.
//!
//! A statement is known by its name in errors and in the log, never by its text. Its arguments are counted from `$1` in
//! the order in which they are handed over; SQLite reads the same numbers.
//!
//! Statements never hold values: those are arguments, so nothing that comes from outside is part of SQL.

use std::sync::OnceLock;

use sqlx::{
    Arguments as _, Executor as _,
    postgres::{PgArguments, PgRow},
    sqlite::{SqliteArguments, SqliteRow},
};

use super::{
    engine::{Engine, EngineRef},
    error::{DbError, DbResult},
    row::Row,
    value::Value,
};

/// One SQL statement with a name, for either engine.
///
/// `x IN LIST($n)` stands for "x is one of the values of argument n" and is spelled out for each engine.
/// `FOR UPDATE` is left out on SQLite, where a writer is alone anyway.
#[derive(Debug)]
pub(crate) struct Statement {
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
    /// For SQLite and for PostgreSQL, written out when the statement is first used.
    rendered: OnceLock<(String, String)>,
}

/// Declares the statements of one file of `store`, and `STATEMENTS`, the list of them all for the test
/// that prepares every one on both engines.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sqlite:literal $(| $postgres:literal)?;)*) => {
        $($(#[$doc])* static $name: $crate::db::Statement =
            $crate::db::Statement::new(stringify!($name), $sqlite, $crate::db::statements!(@either $sqlite $(, $postgres)?));)*
        #[cfg(test)]
        #[allow(dead_code, reason = "tests name statements of their own")]
        pub(crate) static STATEMENTS: &[&$crate::db::Statement] = &[$(&$name),*];
    };
    (@either $sqlite:literal) => { $sqlite };
    (@either $sqlite:literal, $postgres:literal) => { $postgres };
}
pub(crate) use statements;

impl Statement {
    /// For the macro [`statements`]; other code has no statements of its own.
    pub(crate) const fn new(name: &'static str, sqlite: &'static str, postgres: &'static str) -> Self {
        Self { name, sqlite, postgres, rendered: OnceLock::new() }
    }

    /// The SQL as `engine` reads it.
    pub(crate) fn sql(&'static self, engine: Engine) -> &'static str {
        let (sqlite, postgres) =
            self.rendered.get_or_init(|| (render_sqlite(self.sqlite), render_postgres(self.postgres)));
        match engine {
            Engine::Sqlite => sqlite,
            Engine::Postgres => postgres,
        }
    }

    /// How many rows it inserted, changed or deleted.
    pub(super) async fn execute(&'static self, engine: EngineRef<'_>, args: &[Value<'_>]) -> DbResult<u64> {
        match engine {
            EngineRef::Sqlite(c) => {
                let query = sqlx::query_with(self.sql(Engine::Sqlite), self.sqlite_arguments(args)?);
                c.execute(query).await.map(|done| done.rows_affected())
            }
            EngineRef::Postgres(c) => {
                let query = sqlx::query_with(self.sql(Engine::Postgres), self.postgres_arguments(args)?);
                c.execute(query).await.map(|done| done.rows_affected())
            }
        }
        .map_err(|e| DbError::new(self.name, e))
    }

    pub(super) async fn find(&'static self, engine: EngineRef<'_>, args: &[Value<'_>]) -> DbResult<Option<Row>> {
        match engine {
            EngineRef::Sqlite(c) => {
                let query = sqlx::query_with(self.sql(Engine::Sqlite), self.sqlite_arguments(args)?);
                c.fetch_optional(query).await.map(|row: Option<SqliteRow>| row.map(Row::Sqlite))
            }
            EngineRef::Postgres(c) => {
                let query = sqlx::query_with(self.sql(Engine::Postgres), self.postgres_arguments(args)?);
                c.fetch_optional(query).await.map(|row: Option<PgRow>| row.map(Row::Postgres))
            }
        }
        .map_err(|e| DbError::new(self.name, e))
    }

    pub(super) async fn list(&'static self, engine: EngineRef<'_>, args: &[Value<'_>]) -> DbResult<Vec<Row>> {
        match engine {
            EngineRef::Sqlite(c) => {
                let query = sqlx::query_with(self.sql(Engine::Sqlite), self.sqlite_arguments(args)?);
                c.fetch_all(query).await.map(|rows: Vec<SqliteRow>| rows.into_iter().map(Row::Sqlite).collect())
            }
            EngineRef::Postgres(c) => {
                let query = sqlx::query_with(self.sql(Engine::Postgres), self.postgres_arguments(args)?);
                c.fetch_all(query).await.map(|rows: Vec<PgRow>| rows.into_iter().map(Row::Postgres).collect())
            }
        }
        .map_err(|e| DbError::new(self.name, e))
    }

    /// Has the engine parse and plan the statement without running it.
    #[cfg(test)]
    pub(super) async fn prepare(&'static self, engine: EngineRef<'_>) -> DbResult<()> {
        match engine {
            EngineRef::Sqlite(c) => c.prepare(sqlx::SqlStr::from_static(self.sql(Engine::Sqlite))).await.map(drop),
            EngineRef::Postgres(c) => c.prepare(sqlx::SqlStr::from_static(self.sql(Engine::Postgres))).await.map(drop),
        }
        .map_err(|e| DbError::new(self.name, e))
    }

    /// A list is one argument: JSON, since SQLite has no arrays.
    fn sqlite_arguments(&self, args: &[Value<'_>]) -> DbResult<SqliteArguments> {
        let mut out = SqliteArguments::default();
        for arg in args {
            match *arg {
                Value::Int(v) => out.add(v),
                Value::Text(v) => out.add(v),
                Value::Bytes(v) => out.add(v),
                Value::Bool(v) => out.add(v),
                Value::Texts(v) => out.add(serde_json::json!(v).to_string()),
                Value::Ints(v) => out.add(serde_json::json!(v).to_string()),
            }
            .map_err(|e| DbError::new(self.name, sqlx::Error::Encode(e)))?;
        }
        Ok(out)
    }

    fn postgres_arguments(&self, args: &[Value<'_>]) -> DbResult<PgArguments> {
        let mut out = PgArguments::default();
        for arg in args {
            match *arg {
                Value::Int(v) => out.add(v),
                Value::Text(v) => out.add(v),
                Value::Bytes(v) => out.add(v),
                Value::Bool(v) => out.add(v),
                Value::Texts(v) => out.add(v),
                Value::Ints(v) => out.add(v),
            }
            .map_err(|e| DbError::new(self.name, sqlx::Error::Encode(e)))?;
        }
        Ok(out)
    }
}

fn render_sqlite(sql: &str) -> String {
    replace_list(sql, "IN (SELECT value FROM json_each(", "))").replace(" FOR UPDATE", "")
}

/// A parameter that is one array serves lists of any length with one plan.
fn render_postgres(sql: &str) -> String {
    replace_list(sql, "= ANY(", ")")
}

/// Spells out every `IN LIST($n)`. A list's argument must be a lone `$n`: the first bracket that closes ends it.
fn replace_list(sql: &str, before: &str, after: &str) -> String {
    let mut parts = sql.split("IN LIST(");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (argument, rest) = part.split_once(')').unwrap_or((part, ""));
        out.push_str(before);
        out.push_str(argument);
        out.push_str(after);
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_spelled_out_for_each_engine() {
        let sql = "SELECT a FROM t WHERE b IN LIST($1) AND c IN LIST($2) FOR UPDATE";
        assert_eq!(render_postgres(sql), "SELECT a FROM t WHERE b = ANY($1) AND c = ANY($2) FOR UPDATE");
        assert_eq!(
            render_sqlite(sql),
            "SELECT a FROM t WHERE b IN (SELECT value FROM json_each($1)) AND c IN (SELECT value FROM json_each($2))"
        );
    }
}
