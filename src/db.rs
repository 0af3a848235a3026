//! The database: one of two engines, its connections and its transactions.
//!
//! This room alone executes SQL. Everything above it names a [`Statement`] or an [`Insert`] and hands
//! over [`Value`]s; which engine runs it is decided here. SQLite has one writing connection, because it
//! has one writer anyway and a queue in front of it is fairer than its lock; `PostgreSQL` has a pool.

#![expect(clippy::disallowed_methods, reason = "this is the one place that executes SQL")]

mod error;
mod insert;
mod migrate;
mod open;
mod queue;
mod row;
mod statement;
#[cfg(test)]
pub(crate) mod testing;
mod value;

use std::time::Instant;

use parking_lot::Mutex;
use sqlx::{Connection as _, PgConnection, Postgres, Sqlite, SqliteConnection, pool::PoolConnection};

#[cfg(test)]
pub(crate) use self::migrate::STATEMENTS as MIGRATION_STATEMENTS;
use self::queue::Queue;
pub use self::{
    error::DbError,
    migrate::MigrateError,
    open::{find_host, find_user},
};
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

/// When a connection of this process last broke: those that have rested since before that may be broken too.
static LAST_BREAK: Mutex<Option<Instant>> = Mutex::new(None);

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
    pub fn engine(&self) -> Engine {
        match self.0 {
            Pools::Sqlite { .. } => Engine::Sqlite,
            Pools::Postgres { .. } => Engine::Postgres,
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
