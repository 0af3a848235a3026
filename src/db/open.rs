//! Opening a database: a file of its own user alone, or a server that is given a few seconds to be there.
//!
//! SQLite is set to lose nothing that was acknowledged (`synchronous=FULL`), not even when the machine loses power; the
//! write-ahead log lets readers go on while somebody writes. `PostgreSQL` is left as its operator has set it up.

use std::{
    fs::OpenOptions, io, os::unix::fs::OpenOptionsExt as _, path::Path, str::FromStr, sync::Arc, time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    connection::{Db, Pools},
    error::{DbError, DbResult, has_broken_within},
    watch::Watch,
};

/// A connection that has not been used for so long may be broken without knowing. A server that was restarted, or a
/// firewall that forgot the connection, says nothing until something is sent.
const RESTED: Duration = Duration::from_millis(500);
/// For how long a database server may refuse connections because it is starting, and how long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a caller waits for a connection to become free: as long as for anything that another node may hold.
const WAIT: Duration = Duration::from_secs(3);
/// For how long after a break, or an answer that did not come, connections that come back are tried first.
const SILENT: Duration = Duration::from_mins(1);
/// How long to wait before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// What every connection to `PostgreSQL` begins with. No statement here runs for so long that compiling it first would
/// pay. Statements are planned once, for any values ([`pool_of`]).
const PLANNING: &str = "SET plan_cache_mode = force_generic_plan; SET jit = off";
/// How long others wait for a node that falls silent in the middle of a transaction, as one does that is stopped or cut
/// off: `PostgreSQL` then ends that transaction, which gives up its locks. Who waits for a lock waits a little longer, and
/// so gets it. Where the network does not say that the other end is gone, the rest finds out: nothing that was sent may
/// stay unacknowledged for longer, and one that has nothing to say is asked whether it is there.
///
/// What legitimately takes longer says so in its transaction ([`super::Tx::take_time`], [`super::Tx::may_rest`]).
const LIMITS: &str = "SET idle_in_transaction_session_timeout = '2s'; SET lock_timeout = '3s'; \
    SET tcp_user_timeout = '2s'; \
    SET tcp_keepalives_idle = 2; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 2";
/// Nobody else reads what is in the database: passwords' hashes, everything said, and the signing key.
const FILE_MODE: u32 = 0o600;

impl Db {
    /// Opens the database that `url` names: `sqlite:PATH` (created if missing), `postgres://…`.
    /// `max_connections` bounds the `PostgreSQL` pool; SQLite takes one writer and four readers. Anything else than
    /// these two is left to the driver to refuse.
    pub async fn connect(url: &str, max_connections: u32) -> DbResult<Self> {
        match find_path(url) {
            Some(path) => {
                create_file(path).map_err(|e| DbError::new("making the SQLite file", e.into()))?;
                Self::open_sqlite(path).await
            }
            None => Self::open_postgres(url, max_connections).await,
        }
    }

    /// As [`Db::connect`], but what is not there is not made. For commands, which must not leave an empty database
    /// where somebody has misspelt a path.
    pub async fn connect_to_existing(url: &str, max_connections: u32) -> DbResult<Self> {
        match find_path(url) {
            Some(path) => Self::open_sqlite(path).await,
            None => Self::open_postgres(url, max_connections).await,
        }
    }

    async fn open_postgres(url: &str, max_connections: u32) -> DbResult<Self> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|e| DbError::new("reading database.url", e))?
            .application_name("hearth")
            // More than there are statements, so that each is prepared once for a connection.
            .statement_cache_capacity(500);
        reach(&options).await.map_err(|e| DbError::new("connecting", e))?;
        let watch = Arc::new(Watch::default());
        let pool = pool_of(max_connections, &watch).connect_with(options.clone()).await;
        let pool = pool.map_err(|e| DbError::new("connecting", e))?;
        // Made when it is first needed, by the heartbeat.
        let spare = pool_of(1, &watch).connect_lazy_with(options);
        let turn = Arc::new(Semaphore::new(1));
        Ok(Self { pools: Pools::Postgres { pool, spare, turn }, watch })
    }

    /// The pools wait for up to 30 seconds for a connection, and a writer up to 10 for the file's lock, which only
    /// another process can hold, such as a backup or `hearth admin`.
    async fn open_sqlite(path: &Path) -> DbResult<Self> {
        let failed = |e| DbError::new("opening the SQLite file", e);
        // The system says why it can't be opened, SQLite only that.
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let watch = opened.and_then(|file| Watch::of_files(path, &file)).map_err(|e| failed(e.into()))?;
        let watch = Arc::new(watch);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            .statement_cache_capacity(500)
            // Rows pass from thread to thread one by one: those of a page all at once, rather than in turns.
            .row_buffer_size(1_000)
            // In KiB where it is negative: 16 MB for each connection.
            .pragma("cache_size", "-16000")
            // Pages that many batches touch are folded into the file once, not after each thousand pages.
            .pragma("wal_autocheckpoint", "4000")
            .pragma("temp_store", "MEMORY")
            // A write-ahead log that has grown beyond 32 MiB once is cut back when it is folded in.
            .pragma("journal_size_limit", "33554432");
        let write = SqlitePoolOptions::new()
            // Never closed while the server runs: the prepared statements and the page cache are worth keeping.
            .max_connections(1)
            .test_before_acquire(false)
            .acquire_timeout(Duration::from_secs(30))
            .idle_timeout(None)
            .max_lifetime(None)
            .before_acquire({
                let watch = Arc::clone(&watch);
                move |connection, rested| {
                    // A rollback that failed leaves the driver, and maybe SQLite, in the transaction.
                    let usable = !connection.is_in_transaction() && !watch.is_suspect(rested.age);
                    Box::pin(async move { Ok(usable) })
                }
            })
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        let read = SqlitePoolOptions::new()
            .max_connections(4)
            .min_connections(1)
            .test_before_acquire(false)
            .acquire_timeout(Duration::from_secs(30))
            .max_lifetime(None)
            .before_acquire(|connection, _| {
                let usable = !connection.is_in_transaction();
                Box::pin(async move { Ok(usable) })
            })
            // Whoever writes by mistake through a reading connection gets an error, rather than a second writer.
            .connect_with(options.pragma("query_only", "ON"))
            .await
            .map_err(failed)?;
        Ok(Self { pools: Pools::Sqlite { write, read }, watch })
    }
}

/// `sqlite:PATH` and `sqlite://PATH` alike. None for any other scheme.
fn find_path(url: &str) -> Option<&Path> {
    url.strip_prefix("sqlite:").map(|path| Path::new(path.trim_start_matches("//")))
}

/// An empty file is an empty database, and SQLite gives the files beside it the rights of this one.
fn create_file(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

/// Waits until the server takes a connection. A pool would say that time was up, and not what it was waiting for. Gives
/// up after [`PATIENCE`], or at once where waiting does not help, as with a wrong password.
async fn reach(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let refused = match timeout_at(deadline, options.connect()).await {
            Ok(Ok(connection)) => return connection.close().await,
            Ok(Err(refused)) if Instant::now() + PAUSE < deadline && is_passing(&refused) => refused,
            Ok(Err(refused)) => return Err(refused),
            Err(_elapsed) => {
                let message = format!("it did not answer within {} s", PATIENCE.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, message).into());
            }
        };
        tracing::debug!(error = %DbError::new("connecting", refused), "the database is asked again");
        sleep(PAUSE).await;
    }
}

/// Whether a server that is starting says so.
fn is_passing(refused: &sqlx::Error) -> bool {
    match refused {
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.is_transient_in_connect_phase(),
        _ => false,
    }
}

/// Connections that have rested, since another broke or for a while, are tried before they are used again; those in
/// constant use need no round trip for that. One that was open when a commit failed is closed. Who gets none within three
/// seconds fails with the error that the database is not there.
///
/// Statements are planned once, for any values. Measured on a database that grew faster than its statistics, an initial
/// sync took 85 ms with statements planned for their values and 5.8 ms so. Which of them was planned badly is not known:
/// an imitation of that database shows the same plans either way.
fn pool_of(max_connections: u32, watch: &Arc<Watch>) -> PgPoolOptions {
    let watch = Arc::clone(watch);
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(WAIT)
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(async move {
                if let Err(error) = connection.execute(PLANNING).await {
                    tracing::warn!(%error, "statements are planned for their values, which may be slow");
                }
                if let Err(error) = connection.execute(LIMITS).await {
                    tracing::warn!(%error, "a node that falls silent may hold the others up for long");
                }
                Ok(())
            })
        })
        // An error here has the pool close the connection and take another.
        .before_acquire(move |connection, rested| {
            let suspect = watch.is_suspect(rested.age);
            Box::pin(async move {
                if suspect {
                    return Ok(false);
                }
                if rested.idle_for > RESTED || has_broken_within(rested.idle_for) {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        // The driver waits here for the rest of what was given up half-way, and for as long as the system keeps a
        // connection to a machine that is gone.
        .after_release(|connection, _| {
            Box::pin(async move {
                if has_broken_within(SILENT) {
                    let tried = timeout(WAIT, connection.ping()).await;
                    tried.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
                }
                Ok(true)
            })
        })
}

/// The machine that a `postgres://` URL leads to, unless that is a unix socket. With the port, 5432 where the URL has
/// none.
pub fn find_host(url: &str) -> Option<(String, u16)> {
    let options = PgConnectOptions::from_str(url).ok().filter(|_| url.starts_with("postgres"))?;
    let host = options.get_host().to_owned();
    (options.get_socket().is_none() && !host.starts_with('/')).then(|| (host, options.get_port()))
}

/// In whose name a `postgres://` URL connects. Where the URL names nobody it is the driver's default, the user of the
/// process.
pub fn find_user(url: &str) -> Option<String> {
    let options = PgConnectOptions::from_str(url).ok().filter(|_| url.starts_with("postgres"))?;
    Some(options.get_username().to_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn modes(folder: &Path) -> Vec<(String, u32)> {
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            (entry.file_name().into_string().unwrap(), mode)
        };
        let mut modes: Vec<_> = fs::read_dir(folder).unwrap().map(entry).collect();
        modes.sort();
        modes
    }

    /// Whatever the umask: the usual one would let everybody read. What is there keeps the rights that it has.
    #[tokio::test]
    async fn nobody_else_reads_a_new_database() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite3");
        let url = format!("sqlite:{}", path.display());
        let db = Db::connect(&url, 1).await.unwrap();
        db.migrate().await.unwrap();
        let names = ["a.sqlite3", "a.sqlite3-shm", "a.sqlite3-wal"];
        let all = |mode: u32| names.map(|name| (name.to_owned(), mode)).to_vec();
        assert_eq!(modes(folder.path()), all(0o600));
        db.close().await;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let db = Db::connect(&url, 1).await.unwrap();
        db.migrate().await.unwrap();
        assert_eq!(modes(folder.path()), all(0o640));
        db.close().await;
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("a.sqlite3").display());
        let missing = Db::connect_to_existing(&url, 1).await.unwrap_err();
        assert!(missing.is_missing_file(), "{missing}");
        assert_eq!(modes(folder.path()), []);
    }
}
