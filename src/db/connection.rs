//! Connections and transactions.
//!
//! SQLite has one writing connection, because it has one writer anyway and a queue in front of it is fairer than its
//! lock; `PostgreSQL` has a pool.
//!
//! A statement outside of a [`Tx`] is a transaction of its own. Within one, inserts on `PostgreSQL` are held back and
//! sent together ([`super::queue`]), so an error of theirs may come with a later call; [`Tx::commit`] is the last that
//! can bring one.
//!
//! A transaction in which a statement has failed can't be committed: SQLite may have rolled it back by itself, and would
//! commit what came later alone. A connection whose COMMIT or ROLLBACK failed is closed and not used again
//! ([`super::watch`]).
//!
//! A connection is held only while statements run, and never while its holder takes a second one: with as many holders
//! as connections, each would wait for the others until time is up. Nothing but the database is waited for meanwhile.

use std::{io, pin::Pin, sync::Arc, time::Duration};

use sqlx::{Connection as _, Executor as _, Postgres, Sqlite, pool::PoolConnection};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    engine::{Engine, EngineRef},
    error::{DbError, DbResult, note_break},
    insert::{Column, Insert},
    queue::InsertQueue,
    row::Row,
    statement::Statement,
    value::Value,
    watch::Watch,
};

/// A reader may rest for longer between two statements than a writer: nobody waits for what it holds.
const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SET LOCAL idle_in_transaction_session_timeout = '60s'";
/// For work that takes its time, and waits for as long as it has to. Also where the database's operator has set limits
/// of their own.
const TAKE_TIME: &str = "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = 0; \
    SET LOCAL statement_timeout = 0";
/// What is worked out between two statements may take longer than usual.
const REST: &str = "SET LOCAL idle_in_transaction_session_timeout = '10s'";

/// Less than a transaction may rest.
const TURN: Duration = Duration::from_millis(1_500);
/// A server that says nothing for so long won't say anything any more: the machine is gone, and the network did not tell.
/// Nothing that a request waits for takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The database, cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    pub(super) pools: Pools,
    pub(super) watch: Arc<Watch>,
}

/// The connections of either engine. On SQLite readers see what was committed when they began and wait for nobody
/// (WAL); writers wait for each other in the queue of a pool of one. Four connections are for reading and refuse to
/// write (`query_only`).
#[derive(Clone, Debug)]
pub(super) enum Pools {
    Sqlite {
        write: sqlx::SqlitePool,
        read: sqlx::SqlitePool,
    },
    /// `spare` is for signs of life, which must not wait behind requests. `turn` is this process's one place in the queue
    /// for the lock that everybody needs ([`Tx::take_turn`]).
    Postgres {
        pool: sqlx::PgPool,
        spare: sqlx::PgPool,
        turn: Arc<Semaphore>,
    },
}

/// A connection on which statements run: alone, each by itself, or within a [`Tx`].
#[derive(Debug)]
pub struct Conn {
    held: OpenConnection,
    /// Inserts of a transaction on `PostgreSQL` that have not been run. Empty outside of a transaction, and on SQLite
    /// always.
    queue: InsertQueue,
    /// Whether a statement has failed. What it was to do for a transaction is then missing there.
    failed: bool,
    /// For how long a statement is waited for. None where that is no use: SQLite is in this process.
    patience: Option<Duration>,
}

/// Whatever it is, it goes back to its pool when it is dropped.
#[derive(Debug)]
enum OpenConnection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
    SqliteTx(sqlx::Transaction<'static, Sqlite>),
    PostgresTx(sqlx::Transaction<'static, Postgres>),
}

/// A future on the heap. To take a connection may mean to open one, which needs 4 KB; every future that may ever read
/// would hold that, and they are moved into each other at each call. That was a sixth of the time of a woken `/sync`.
fn boxed<'a, F: Future + Send + 'a>(future: F) -> Pin<Box<dyn Future<Output = F::Output> + Send + 'a>> {
    Box::pin(future)
}

/// A transaction. Dropped without [`Tx::commit`], it is rolled back. The rollback is sent once the connection goes back
/// to its pool, and not waited for: locks may be held a moment longer.
#[derive(Debug)]
pub struct Tx {
    conn: Conn,
    watch: Arc<Watch>,
    /// Where turns are taken, and the one that it has. None on SQLite.
    turns: Option<Arc<Semaphore>>,
    turn: Option<OwnedSemaphorePermit>,
}

impl std::ops::Deref for Tx {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl std::ops::DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

impl Db {
    /// For the few things that differ by nature, such as whether there can be other nodes.
    pub fn engine(&self) -> Engine {
        match self.pools {
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
        match &self.pools {
            Pools::Sqlite { write, read } => vec![of("write", write), of("read", read)],
            Pools::Postgres { pool, spare, .. } => vec![of("main", pool), of("spare", spare)],
        }
    }

    /// A connection for reading, each statement seeing the newest committed data. Fails with an error that is
    /// unavailable ([`DbError::is_unavailable`]) if none becomes free in time: three seconds on `PostgreSQL`, thirty on
    /// SQLite.
    pub async fn read(&self) -> DbResult<Conn> {
        match &self.pools {
            Pools::Sqlite { read, .. } => boxed(read.acquire()).await.map(OpenConnection::Sqlite),
            Pools::Postgres { pool, .. } => boxed(pool.acquire()).await.map(OpenConnection::Postgres),
        }
        .map(Conn::new)
        .map_err(|e| DbError::new("taking a connection", e))
    }

    /// A connection that is kept for signs of life, however many requests wait for the others. On SQLite, where no
    /// other node waits for them, it is one of those for reading.
    pub(crate) async fn spare(&self) -> DbResult<Conn> {
        let Pools::Postgres { spare, .. } = &self.pools else { return self.read().await };
        let held = boxed(spare.acquire())
            .await
            .map(OpenConnection::Postgres)
            .map_err(|e| DbError::new("taking the spare connection", e))?;
        Ok(Conn::new(held))
    }

    /// A transaction for reading: all its statements see one state of the data. What is committed meanwhile is not
    /// seen; to write in it is an error. On SQLite the state is that of its first statement, on `PostgreSQL` as well.
    pub async fn snapshot(&self) -> DbResult<Tx> {
        let beginning = async {
            match &self.pools {
                Pools::Sqlite { read, .. } => boxed(read.begin()).await.map(OpenConnection::SqliteTx),
                Pools::Postgres { pool, .. } => {
                    boxed(pool.begin_with(BEGIN_SNAPSHOT)).await.map(OpenConnection::PostgresTx)
                }
            }
            .map(|held| self.transaction(held))
            .map_err(|e| DbError::new("beginning to read", e))
        };
        within(self.patience(), beginning).await
    }

    /// A transaction for writing. On SQLite it waits for its turn. On `PostgreSQL` each statement sees what has been
    /// committed when it begins (`READ COMMITTED`), so what must not change between two has to be locked.
    pub async fn begin(&self) -> DbResult<Tx> {
        let beginning = async {
            match &self.pools {
                // The lock is taken at once: a transaction that reads first and then wants to write would fail if
                // another had written in between.
                Pools::Sqlite { write, .. } => {
                    boxed(write.begin_with("BEGIN IMMEDIATE")).await.map(OpenConnection::SqliteTx)
                }
                Pools::Postgres { pool, .. } => boxed(pool.begin()).await.map(OpenConnection::PostgresTx),
            }
            .map(|held| self.transaction(held))
            .map_err(|e| DbError::new("beginning to write", e))
        };
        within(self.patience(), beginning).await
    }

    /// For how long an answer is waited for. None where that is no use: SQLite is in this process.
    fn patience(&self) -> Option<Duration> {
        match self.engine() {
            Engine::Sqlite => None,
            Engine::Postgres => Some(PATIENCE),
        }
    }

    fn transaction(&self, held: OpenConnection) -> Tx {
        let turns = match &self.pools {
            Pools::Sqlite { .. } => None,
            Pools::Postgres { turn, .. } => Some(Arc::clone(turn)),
        };
        Tx { conn: Conn::new(held), watch: Arc::clone(&self.watch), turns, turn: None }
    }

    /// Fails where the files of an SQLite database are not those that were opened: they were deleted or replaced, and
    /// what is written is lost with the process. Every commit asks as well.
    pub(crate) fn check_files(&self) -> DbResult<()> {
        self.watch.check_files().map_err(files_lost)
    }

    /// Fails where the disk with an SQLite database has hardly any room.
    pub(crate) fn check_room(&self) -> DbResult<()> {
        self.watch.check_room().map_err(|error| DbError::new("looking for room on the disk", error.into()))
    }

    /// Remembers that the database did not answer in time: connections that come back are not waited for then.
    pub(crate) fn note_silence() {
        note_break();
    }

    /// Closes every connection. On SQLite this also folds the write-ahead log into the file. Waits until connections in
    /// use have come back; calls after that fail.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Pools::Postgres { pool, spare, .. } => {
                spare.close().await;
                pool.close().await;
            }
        }
    }
}

impl Tx {
    /// Makes everything that was done durable and visible. An error of the connection leaves open whether it took
    /// place; any other means that it did not. Fails where a statement of it has failed.
    pub async fn commit(mut self) -> DbResult<()> {
        // Within the transaction still: a conflict of these rolls everything back.
        self.flush().await?;
        if self.failed {
            let message = "a statement of the transaction has failed".to_owned();
            return Err(DbError::new("committing", sqlx::Error::Protocol(message)));
        }
        self.watch.check_files().map_err(files_lost)?;
        // The turn lasts until the lock is given up.
        let Self { conn: Conn { held, patience, .. }, watch, turn: _turn, .. } = self;
        let committing = async {
            match held {
                OpenConnection::SqliteTx(tx) => tx.commit().await,
                OpenConnection::PostgresTx(tx) => tx.commit().await,
                OpenConnection::Sqlite(_) | OpenConnection::Postgres(_) => Ok(()),
            }
            .map_err(|e| DbError::new("committing", e))
        };
        within(patience, committing).await.inspect_err(|_| watch.commit_failed())
    }

    /// Waits for this process's turn to wait for a lock that every transaction needs in the end, and keeps it until the
    /// transaction has ended. Where many waited at the database, a process that is stopped would be given the lock by
    /// each of them, one after the other, and hold everybody up for as long each time.
    ///
    /// Nobody waits here for so long that `PostgreSQL` takes their transaction for forgotten: who has waited for long
    /// goes on without a turn.
    pub(crate) async fn take_turn(&mut self) {
        let Some(turns) = self.turns.clone().filter(|_| self.turn.is_none()) else { return };
        if let Ok(Ok(turn)) = timeout(TURN, turns.acquire_owned()).await {
            self.turn = Some(turn);
        }
    }

    /// Lifts the limits of time that every connection has on `PostgreSQL`, for this transaction: it may wait for locks,
    /// and work, for as long as it takes. For what nobody waits for behind it but those who have to.
    pub(crate) async fn take_time(&mut self) -> DbResult<()> {
        self.set_limits(TAKE_TIME).await?;
        self.conn.patience = None;
        Ok(())
    }

    /// Lets ten seconds pass between two statements on `PostgreSQL`, rather than two. For what reads much and works on
    /// it, and holds nothing for which requests wait.
    pub(crate) async fn may_rest(&mut self) -> DbResult<()> {
        self.set_limits(REST).await
    }

    async fn set_limits(&mut self, limits: &'static str) -> DbResult<()> {
        let patience = self.conn.patience;
        let set = match self.engine_ref() {
            EngineRef::Sqlite(_) => Ok(()),
            EngineRef::Postgres(c) => {
                let setting = async {
                    let set = c.execute(sqlx::raw_sql(limits)).await;
                    set.map(drop).map_err(|e| DbError::new("setting limits of time", e))
                };
                within(patience, setting).await
            }
        };
        self.note(set)
    }

    /// Writes many rows at once. A conflict is reported here or by the next call of this transaction. All columns are
    /// of one length, in the order of the insert's declaration. No rows are no statement.
    pub(crate) async fn insert(&mut self, insert: &'static Insert, columns: &[Column<'_>]) -> DbResult<()> {
        if let EngineRef::Sqlite(connection) = self.engine_ref() {
            let inserted = insert.run_on_sqlite(connection, columns).await;
            return self.note(inserted);
        }
        if !self.queue.admits(insert) {
            self.flush().await?;
        }
        let pushed = self.queue.push(insert, columns);
        self.note(pushed)
    }
}

impl Conn {
    fn new(held: OpenConnection) -> Self {
        let patience = match held {
            OpenConnection::Sqlite(_) | OpenConnection::SqliteTx(_) => None,
            OpenConnection::Postgres(_) | OpenConnection::PostgresTx(_) => Some(PATIENCE),
        };
        Self { held, queue: InsertQueue::default(), failed: false, patience }
    }

    pub fn engine(&self) -> Engine {
        match self.held {
            OpenConnection::Sqlite(_) | OpenConnection::SqliteTx(_) => Engine::Sqlite,
            OpenConnection::Postgres(_) | OpenConnection::PostgresTx(_) => Engine::Postgres,
        }
    }

    pub(super) fn engine_ref(&mut self) -> EngineRef<'_> {
        match &mut self.held {
            OpenConnection::Sqlite(c) => EngineRef::Sqlite(c),
            OpenConnection::SqliteTx(c) => EngineRef::Sqlite(c),
            OpenConnection::Postgres(c) => EngineRef::Postgres(c),
            OpenConnection::PostgresTx(c) => EngineRef::Postgres(c),
        }
    }

    /// Whether the database answers. One round trip that touches no table, so it succeeds also where the
    /// database only reads.
    pub async fn ping(&mut self) -> DbResult<()> {
        match self.engine_ref() {
            EngineRef::Sqlite(c) => c.ping().await,
            EngineRef::Postgres(c) => c.ping().await,
        }
        .map_err(|e| DbError::new("asking for a sign of life", e))
    }

    /// Runs a statement and returns how many rows it touched. A statement that fails makes the whole transaction useless:
    /// callers give it up at the first error.
    pub(crate) async fn execute(&mut self, statement: &'static Statement, args: &[Value<'_>]) -> DbResult<u64> {
        self.flush().await?;
        let done = within(self.patience, statement.execute(self.engine_ref(), args)).await;
        self.note(done)
    }

    /// Runs a statement that returns at most one row. Of several rows the first is returned.
    pub(crate) async fn find(&mut self, statement: &'static Statement, args: &[Value<'_>]) -> DbResult<Option<Row>> {
        self.flush().await?;
        let found = within(self.patience, statement.find(self.engine_ref(), args)).await;
        self.note(found)
    }

    /// Runs a statement that returns any number of rows. In the statement's order, all of them in memory: a statement
    /// that may have many has a limit.
    pub(crate) async fn list(&mut self, statement: &'static Statement, args: &[Value<'_>]) -> DbResult<Vec<Row>> {
        self.flush().await?;
        let listed = within(self.patience, statement.list(self.engine_ref(), args)).await;
        self.note(listed)
    }

    /// Runs the inserts that wait.
    async fn flush(&mut self) -> DbResult<()> {
        let flushed = match &mut self.held {
            OpenConnection::PostgresTx(c) => within(self.patience, self.queue.flush(c)).await,
            _ => Ok(()),
        };
        self.note(flushed)
    }

    fn note<T>(&mut self, done: DbResult<T>) -> DbResult<T> {
        self.failed |= done.is_err();
        done
    }
}

/// The driver waits for as long as the system takes to give a connection up, which is a quarter of an hour.
async fn within<T>(patience: Option<Duration>, work: impl Future<Output = DbResult<T>>) -> DbResult<T> {
    let Some(patience) = patience else { return work.await };
    timeout(patience, work).await.unwrap_or_else(|_elapsed| {
        let message = format!("the database said nothing for {} s", patience.as_secs());
        Err(DbError::new("waiting for an answer", io::Error::new(io::ErrorKind::TimedOut, message).into()))
    })
}

fn files_lost(error: io::Error) -> DbError {
    DbError::new("looking for the database's files", error.into())
}

#[cfg(test)]
mod tests;
