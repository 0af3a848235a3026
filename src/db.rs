//! The database: one of two engines, its connections and its transactions.
//!
//! This room alone executes SQL. Everything above it names a [`Statement`] or an [`Insert`] and hands
//! over [`Value`]s; which engine runs it is decided here. SQLite has one writing connection, because it
//! has one writer anyway and a queue in front of it is fairer than its lock; `PostgreSQL` has a pool.

#![expect(clippy::disallowed_methods, reason = "this is the one place that executes SQL")]

mod insert;
mod migrate;
mod queue;
mod row;
mod statement;
#[cfg(test)]
pub(crate) mod testing;
mod value;

use std::{
    borrow::Cow,
    path::Path,
    str::FromStr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sqlx::{
    Connection as _, Executor as _, PgConnection, Postgres, Sqlite, SqliteConnection,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub use self::migrate::MigrateError;
#[cfg(test)]
pub(crate) use self::migrate::STATEMENTS as MIGRATION_STATEMENTS;
use self::queue::Queue;
pub(crate) use self::{
    insert::{Column, Insert, Kind},
    row::Row,
    statement::{Statement, statements},
    value::{Value, args},
};

/// Which database engine is behind a [`Db`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// A connection that has not been used for so long may be broken without knowing.
const RESTED: Duration = Duration::from_millis(500);

/// When a connection of this process last broke: those that have rested since before that may be broken too.
static LAST_BREAK: Mutex<Option<Instant>> = Mutex::new(None);

/// What went wrong in the database, and in which statement.
#[derive(Debug, thiserror::Error)]
#[error("database: {context}: {source}")]
pub struct DbError {
    context: Cow<'static, str>,
    #[source]
    source: sqlx::Error,
}

impl DbError {
    fn new(context: impl Into<Cow<'static, str>>, source: sqlx::Error) -> Self {
        if matches!(source, sqlx::Error::Io(_)) {
            *LAST_BREAK.lock() = Some(Instant::now());
        }
        Self { context: context.into(), source }
    }

    /// A value in the database that can't be read as what it should be.
    pub(crate) fn decode(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new("reading a value", sqlx::Error::Decode(what.into()))
    }

    /// Whether a unique index or a primary key refused a row.
    pub fn is_conflict(&self) -> bool {
        self.source.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
    }

    /// Whether a text contains NUL, which `PostgreSQL` can't hold: whoever sent it is to blame.
    pub fn is_unstorable_text(&self) -> bool {
        self.source.as_database_error().is_some_and(|e| e.code().is_some_and(|code| code == "22021"))
    }

    /// Whether the connection is the trouble rather than the statement: the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match &self.source {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // Class 57: the server is shutting down or starting up; 53: out of connections, disk or memory;
            // 40: serialisation failure or deadlock; SQLite: 5 busy, 13 disk full.
            sqlx::Error::Database(e) => e.code().is_some_and(|code| {
                ["57", "53", "40", "08"].iter().any(|class| code.starts_with(class) && code.len() == 5)
                    || code == "5"
                    || code == "13"
            }),
            _ => false,
        }
    }
}

pub type DbResult<T> = Result<T, DbError>;

/// The database, cheap to clone.
#[derive(Clone, Debug)]
pub struct Db(Pools);

#[derive(Clone, Debug)]
enum Pools {
    Sqlite {
        write: sqlx::SqlitePool,
        read: sqlx::SqlitePool,
    },
    /// `spare` is for signs of life, which must not wait behind requests.
    Postgres {
        pool: sqlx::PgPool,
        spare: sqlx::PgPool,
    },
}

/// A connection on which statements run: alone, each by itself, or within a [`Tx`].
#[derive(Debug)]
pub struct Conn {
    held: Held,
    /// Inserts of a transaction on `PostgreSQL` that have not been run.
    queue: Queue,
}

#[derive(Debug)]
enum Held {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
    SqliteTx(sqlx::Transaction<'static, Sqlite>),
    PostgresTx(sqlx::Transaction<'static, Postgres>),
}

enum EngineRef<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}

/// Connections that have rested, since another broke or for a while, are tried before they are used again; those in
/// constant use need no round trip for that. Who gets none within five seconds is told that the database is not there.
///
/// Statements are planned once, for any values. Measured on a database that grew faster than its statistics, an initial
/// sync took 85 ms with statements planned for their values and 5.8 ms so. Which of them was planned badly is not known:
/// an imitation of that database shows the same plans either way.
fn pool_of(max_connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(Duration::from_secs(5))
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(async move {
                // No statement here runs for so long that compiling it first would pay.
                if let Err(error) = connection.execute("SET plan_cache_mode = force_generic_plan; SET jit = off").await
                {
                    tracing::warn!(%error, "statements are planned for their values, which may be slow");
                }
                Ok(())
            })
        })
        .before_acquire(|connection, rested| {
            Box::pin(async move {
                if rested.idle_for > RESTED || has_broken_within(rested.idle_for) {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

fn has_broken_within(time: Duration) -> bool {
    LAST_BREAK.lock().is_some_and(|last| last.elapsed() < time)
}

/// The machine that a `postgres://` URL leads to, unless that is a unix socket.
pub fn find_host(url: &str) -> Option<(String, u16)> {
    let options = PgConnectOptions::from_str(url).ok().filter(|_| url.starts_with("postgres"))?;
    let host = options.get_host().to_owned();
    (options.get_socket().is_none() && !host.starts_with('/')).then(|| (host, options.get_port()))
}

/// A transaction. Dropped without [`Tx::commit`], it is rolled back.
#[derive(Debug)]
pub struct Tx(Conn);

impl std::ops::Deref for Tx {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        &self.0
    }
}

impl std::ops::DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.0
    }
}

impl Db {
    /// Opens the database that `url` names: `sqlite:PATH` (created if missing), `postgres://…`.
    /// `max_connections` bounds the `PostgreSQL` pool; SQLite takes one writer and four readers.
    pub async fn connect(url: &str, max_connections: u32) -> DbResult<Self> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return Self::open_sqlite(Path::new(path.trim_start_matches("//"))).await;
        }
        let options = PgConnectOptions::from_str(url)
            .map_err(|e| DbError::new("reading database.url", e))?
            .application_name("hearth")
            .statement_cache_capacity(500);
        let pool =
            pool_of(max_connections).connect_with(options.clone()).await.map_err(|e| DbError::new("connecting", e))?;
        Ok(Self(Pools::Postgres { pool, spare: pool_of(1).connect_lazy_with(options) }))
    }

    async fn open_sqlite(path: &Path) -> DbResult<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            .statement_cache_capacity(500)
            // Rows pass from thread to thread one by one: those of a page all at once, rather than in turns.
            .row_buffer_size(1_000)
            .pragma("cache_size", "-16000")
            // Pages that many batches touch are folded into the file once, not after each thousand pages.
            .pragma("wal_autocheckpoint", "4000")
            .pragma("temp_store", "MEMORY")
            .pragma("journal_size_limit", "33554432");
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            .acquire_timeout(Duration::from_secs(30))
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await
            .map_err(|e| DbError::new("opening the SQLite file", e))?;
        let read = SqlitePoolOptions::new()
            .max_connections(4)
            .min_connections(1)
            .test_before_acquire(false)
            .acquire_timeout(Duration::from_secs(30))
            .max_lifetime(None)
            .connect_with(options.pragma("query_only", "ON"))
            .await
            .map_err(|e| DbError::new("opening the SQLite file", e))?;
        Ok(Self(Pools::Sqlite { write, read }))
    }

    pub fn engine(&self) -> Engine {
        match self.0 {
            Pools::Sqlite { .. } => Engine::Sqlite,
            Pools::Postgres { .. } => Engine::Postgres,
        }
    }

    /// How things stand with the connections, by pool: its name, how many connections are open, how many of those are
    /// idle, and how many it opens at most.
    pub(crate) fn pools(&self) -> Vec<(&'static str, u32, usize, u32)> {
        fn of<D: sqlx::Database>(name: &'static str, pool: &sqlx::Pool<D>) -> (&'static str, u32, usize, u32) {
            (name, pool.size(), pool.num_idle(), pool.options().get_max_connections())
        }
        match &self.0 {
            Pools::Sqlite { write, read } => vec![of("write", write), of("read", read)],
            Pools::Postgres { pool, spare } => vec![of("main", pool), of("spare", spare)],
        }
    }

    /// A connection for reading, each statement seeing the newest committed data.
    pub async fn read(&self) -> DbResult<Conn> {
        match &self.0 {
            Pools::Sqlite { read, .. } => read.acquire().await.map(Held::Sqlite),
            Pools::Postgres { pool, .. } => pool.acquire().await.map(Held::Postgres),
        }
        .map(Conn::new)
        .map_err(|e| DbError::new("taking a connection", e))
    }

    /// A connection that is kept for signs of life, however many requests wait for the others.
    pub(crate) async fn spare(&self) -> DbResult<Conn> {
        let Pools::Postgres { spare, .. } = &self.0 else { return self.read().await };
        let held =
            spare.acquire().await.map(Held::Postgres).map_err(|e| DbError::new("taking the spare connection", e))?;
        Ok(Conn::new(held))
    }

    /// A transaction for reading: all its statements see one state of the data.
    pub async fn snapshot(&self) -> DbResult<Tx> {
        match &self.0 {
            Pools::Sqlite { read, .. } => read.begin().await.map(Held::SqliteTx),
            Pools::Postgres { pool, .. } => {
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map(Held::PostgresTx)
            }
        }
        .map(|held| Tx(Conn::new(held)))
        .map_err(|e| DbError::new("beginning to read", e))
    }

    /// A transaction for writing. On SQLite it waits for its turn.
    pub async fn begin(&self) -> DbResult<Tx> {
        match &self.0 {
            Pools::Sqlite { write, .. } => write.begin_with("BEGIN IMMEDIATE").await.map(Held::SqliteTx),
            Pools::Postgres { pool, .. } => pool.begin().await.map(Held::PostgresTx),
        }
        .map(|held| Tx(Conn::new(held)))
        .map_err(|e| DbError::new("beginning to write", e))
    }

    /// Closes every connection. On SQLite this also folds the write-ahead log into the file.
    pub async fn close(&self) {
        match &self.0 {
            Pools::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Pools::Postgres { pool, spare } => {
                spare.close().await;
                pool.close().await;
            }
        }
    }
}

impl Tx {
    /// Makes everything that was done durable and visible.
    pub async fn commit(mut self) -> DbResult<()> {
        self.flush().await?;
        match self.0.held {
            Held::SqliteTx(tx) => tx.commit().await,
            Held::PostgresTx(tx) => tx.commit().await,
            Held::Sqlite(_) | Held::Postgres(_) => Ok(()),
        }
        .map_err(|e| DbError::new("committing", e))
    }

    /// Writes many rows at once. A conflict is reported here or by the next call of this transaction.
    pub(crate) async fn insert(&mut self, insert: &'static Insert, columns: &[Column<'_>]) -> DbResult<()> {
        if let EngineRef::Sqlite(connection) = self.engine_ref() {
            return insert.run_on_sqlite(connection, columns).await;
        }
        if !self.queue.admits(insert) {
            self.flush().await?;
        }
        self.queue.push(insert, columns)
    }
}

impl Conn {
    fn new(held: Held) -> Self {
        Self { held, queue: Queue::default() }
    }

    pub fn engine(&self) -> Engine {
        match self.held {
            Held::Sqlite(_) | Held::SqliteTx(_) => Engine::Sqlite,
            Held::Postgres(_) | Held::PostgresTx(_) => Engine::Postgres,
        }
    }

    fn engine_ref(&mut self) -> EngineRef<'_> {
        match &mut self.held {
            Held::Sqlite(c) => EngineRef::Sqlite(c),
            Held::SqliteTx(c) => EngineRef::Sqlite(c),
            Held::Postgres(c) => EngineRef::Postgres(c),
            Held::PostgresTx(c) => EngineRef::Postgres(c),
        }
    }

    /// Whether the database answers.
    pub async fn ping(&mut self) -> DbResult<()> {
        match self.engine_ref() {
            EngineRef::Sqlite(c) => c.ping().await,
            EngineRef::Postgres(c) => c.ping().await,
        }
        .map_err(|e| DbError::new("asking for a sign of life", e))
    }

    /// Runs a statement and tells how many rows it touched.
    pub(crate) async fn execute(&mut self, statement: &'static Statement, args: &[Value<'_>]) -> DbResult<u64> {
        self.flush().await?;
        statement.execute(self.engine_ref(), args).await
    }

    /// Runs a statement that returns at most one row.
    pub(crate) async fn find(&mut self, statement: &'static Statement, args: &[Value<'_>]) -> DbResult<Option<Row>> {
        self.flush().await?;
        statement.find(self.engine_ref(), args).await
    }

    /// Runs a statement that returns any number of rows.
    pub(crate) async fn list(&mut self, statement: &'static Statement, args: &[Value<'_>]) -> DbResult<Vec<Row>> {
        self.flush().await?;
        statement.list(self.engine_ref(), args).await
    }

    /// Runs the inserts that wait.
    async fn flush(&mut self) -> DbResult<()> {
        match &mut self.held {
            Held::PostgresTx(c) => self.queue.flush(c).await,
            _ => Ok(()),
        }
    }
}
