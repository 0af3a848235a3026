//! Migrations: numbered SQL files, equal names for both engines, run in order at start.
//!
//! Each file runs in a transaction of its own together with the row that records it. A database that
//! records a migration this binary does not know comes from a newer release and is refused.
//!
//! Two nodes that start at once are kept apart by a lock in the database; the later one finds nothing left to do. A
//! migration works on data that is there, however much, and is never changed once it has been released: what is wrong
//! with one is mended by the next.

#[cfg(test)]
mod tests;
mod user_directory;

use futures_util::future::BoxFuture;
use sqlx::Executor as _;

use super::{
    connection::{Conn, Db, Tx},
    engine::{Engine, EngineRef},
    error::{DbError, DbResult},
    statement::statements,
    value::args,
};

/// One step of the schema, as both engines spell it.
struct Migration {
    /// Counted from 1, the number in the file's name. What the database records.
    version: i64,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
    /// What SQL can't say, done after it in the same transaction.
    then: Option<RustStep>,
}

/// A step in Rust runs on the schema of its migration and not on today's, so it uses statements of its own.
type RustStep = for<'a> fn(&'a mut Tx) -> BoxFuture<'a, DbResult<()>>;

macro_rules! migrations {
    ($($version:literal $name:literal $(then $then:path)?),* $(,)?) => {
        &[$(Migration {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../../migrations/postgres/", $name, ".sql")),
            then: migrations!(@then $($then)?),
        }),*]
    };
    (@then) => { None };
    (@then $then:path) => { Some($then) };
}

/// In the order of their versions. Lines are only added, at the end.
static MIGRATIONS: &[Migration] = migrations![
    1 "0001_first_light",
    2 "0002_nodes",
    3 "0003_relations",
    4 "0004_reports",
    5 "0005_openid",
    6 "0006_search",
    7 "0007_user_directory" then user_directory::fill,
    8 "0008_threepids",
    9 "0009_event_timestamps",
    10 "0010_moderation",
    11 "0011_delayed_events",
    12 "0012_threads",
    13 "0013_words" then user_directory::fill,
    14 "0014_errands_in_order",
    15 "0015_presence_of_devices",
    16 "0016_relating",
    17 "0017_erasures",
    18 "0018_registration_again",
    19 "0019_proofs_taken",
    20 "0020_server",
    21 "0021_cursors",
    22 "0022_rooms_under_load",
    23 "0023_orders",
    24 "0024_outside",
    25 "0025_pruning",
    26 "0026_search_by_order",
    27 "0027_sessions",
    28 "0028_quotas",
    29 "0029_keys",
    30 "0030_device_lists",
    31 "0031_to_device",
    32 "0032_key_backup",
    33 "0033_ended_inboxes",
    34 "0034_media",
    35 "0035_server_keys",
    36 "0036_inbound",
    37 "0037_destinations",
    38 "0038_room_entries",
];

statements! {
    CREATE_MIGRATIONS = "CREATE TABLE IF NOT EXISTS migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL)";
    /// One process at a time; the others wait and then find the work done.
    LOCK_MIGRATIONS = "SELECT 1" | "SELECT pg_advisory_xact_lock(4720318)::text";
    LIST_MIGRATIONS = "SELECT version, name FROM migrations ORDER BY version";
    RECORD_MIGRATION = "INSERT INTO migrations (version, name) VALUES ($1, $2)";
    FIND_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1"
        | "SELECT 1 WHERE to_regclass($1) IS NOT NULL";
}

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Nothing was changed. An older release could not keep what the newer one relies on.
    #[error(
        "the database was last used by a newer Hearth: it has migration {name}, this one knows only {known}. \
         Start the newer release, or restore a backup from before the upgrade"
    )]
    FromTheFuture { name: String, known: i64 },
    /// Those before it stay, each in its own transaction; the next start goes on from there.
    #[error("migration {name} failed and was rolled back: {error}")]
    Failed { name: &'static str, error: DbError },
    #[error(
        "there is no Hearth in this database yet: start the server once, or see that this command has the same --config \
         and HEARTH_ variables as the server"
    )]
    Empty,
    /// Only of commands, which don't migrate: the server may be running, with an older release.
    #[error(
        "the database was last used by an older Hearth: it lacks migration {0}. Start this release's server once, \
         which migrates it, or use the hearth that the server runs"
    )]
    FromThePast(&'static str),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Db {
    /// Brings the schema up to date and returns the names of the migrations that ran. One transaction for each, so that
    /// a failure keeps what is done, and a process that dies in the middle of one leaves the database as it was before
    /// that one. On SQLite the lock is the writing connection's own.
    pub async fn migrate(&self) -> Result<Vec<&'static str>, MigrateError> {
        let mut ran = Vec::new();
        loop {
            let mut tx = self.begin().await?;
            // Another node may be at work on one, and each takes as long as there is data.
            tx.take_time().await?;
            tx.execute(&LOCK_MIGRATIONS, args![]).await?;
            tx.execute(&CREATE_MIGRATIONS, args![]).await?;
            let Some(next) = pending(&mut tx).await?.into_iter().next() else {
                tx.commit().await?;
                return Ok(ran);
            };
            apply(&mut tx, next).await.map_err(|error| MigrateError::Failed { name: next.name, error })?;
            tx.commit().await?;
            ran.push(next.name);
        }
    }

    /// Runs what [`Db::migrate`] would run, returns the names and leaves the database as it was. It takes as long as
    /// the migrations do and holds their locks for as long: on `PostgreSQL` tables that they change can't be read
    /// meanwhile.
    pub async fn try_migrate(&self) -> Result<Vec<&'static str>, MigrateError> {
        let mut tx = self.begin().await?;
        tx.take_time().await?;
        tx.execute(&CREATE_MIGRATIONS, args![]).await?;
        let pending = pending(&mut tx).await?;
        for migration in &pending {
            apply(&mut tx, migration).await.map_err(|error| MigrateError::Failed { name: migration.name, error })?;
        }
        // Dropped and not committed: both engines roll back changes of the schema as well.
        Ok(pending.iter().map(|m| m.name).collect())
    }

    /// Makes an empty database what the release before a migration has made of it.
    #[cfg(test)]
    pub(super) async fn migrate_before(&self, name: &str) -> DbResult<()> {
        assert!(MIGRATIONS.iter().any(|m| m.name == name), "there is no migration {name}");
        let mut tx = self.begin().await?;
        tx.execute(&CREATE_MIGRATIONS, args![]).await?;
        for migration in MIGRATIONS.iter().take_while(|m| m.name != name) {
            apply(&mut tx, migration).await?;
        }
        tx.commit().await
    }

    /// Refuses a database whose schema is not this release's, and changes nothing.
    pub async fn check_migrated(&self) -> Result<(), MigrateError> {
        let mut conn = self.read().await?;
        if !conn.has_table("migrations").await? {
            return Err(MigrateError::Empty);
        }
        match pending(&mut conn).await?.as_slice() {
            [] => Ok(()),
            // The table was made, and a first start has died before its first migration.
            all if all.len() == MIGRATIONS.len() => Err(MigrateError::Empty),
            [next, ..] => Err(MigrateError::FromThePast(next.name)),
        }
    }
}

impl Conn {
    /// Whether there is a table of that name.
    pub(crate) async fn has_table(&mut self, name: &str) -> DbResult<bool> {
        Ok(self.find(&FIND_TABLE, args![name]).await?.is_some())
    }
}

/// What this release knows and the database does not have yet, in order.
async fn pending(conn: &mut Conn) -> Result<Vec<&'static Migration>, MigrateError> {
    let known = MIGRATIONS.last().map_or(0, |m| m.version);
    let mut done = Vec::new();
    for row in conn.list(&LIST_MIGRATIONS, args![]).await? {
        let version: i64 = row.get(0)?;
        if version > known {
            return Err(MigrateError::FromTheFuture { name: row.get(1)?, known });
        }
        done.push(version);
    }
    Ok(MIGRATIONS.iter().filter(|m| !done.contains(&m.version)).collect())
}

/// Files hold many statements, so they are sent as they are, without arguments. The record is the last of the
/// transaction.
async fn apply(tx: &mut Tx, migration: &'static Migration) -> DbResult<()> {
    let fail = |e| DbError::new(migration.name, e);
    match tx.engine_ref() {
        EngineRef::Sqlite(c) => c.execute(sqlx::raw_sql(migration.sqlite)).await.map(drop).map_err(fail)?,
        EngineRef::Postgres(c) => c.execute(sqlx::raw_sql(migration.postgres)).await.map(drop).map_err(fail)?,
    }
    if let Some(then) = migration.then {
        then(tx).await?;
    }
    tx.execute(&RECORD_MIGRATION, args![migration.version, migration.name]).await?;
    Ok(())
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        })
    }
}
