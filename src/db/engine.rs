//! The two engines.
//!
//! What differs between them is decided in this folder. Elsewhere the engine is asked for only where one process is
//! alone with its database by nature, as on SQLite.

use sqlx::{PgConnection, SqliteConnection};

/// Which database engine is behind a [`Db`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// A connection of either.
pub(super) enum EngineRef<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}
