//! What went wrong in the database, in the words of whoever said it, and what an operator can do about it.
//!
//! Codes are the engines' own: five characters of SQLSTATE from `PostgreSQL`, a number from SQLite. Nothing above this
//! file knows them; it asks what they mean.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::ground::cause;

/// When a connection of this process last broke: those that have rested since before that may be broken too. One for
/// the whole process, because an error knows no pool, and where one connection breaks the others have mostly lost the
/// same server.
static LAST_BREAK: Mutex<Option<Instant>> = Mutex::new(None);

/// What every call to the database returns.
pub type DbResult<T> = Result<T, DbError>;

/// What went wrong, and in which statement. The cause is part of the message, so that it is said once.
#[derive(Debug, thiserror::Error)]
#[error("database: {context}: {}", self.cause())]
pub struct DbError {
    /// The name of the statement, or what was being done.
    context: Cow<'static, str>,
    error: sqlx::Error,
}

impl DbError {
    /// A break of the connection is noted, so that others are tried before they are used.
    pub(super) fn new(context: impl Into<Cow<'static, str>>, error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::Io(_)) {
            *LAST_BREAK.lock() = Some(Instant::now());
        }
        Self { context: context.into(), error }
    }

    /// A value in the database that can't be read as what it should be. It is a fault of this program, or somebody has
    /// changed the database by hand.
    pub(crate) fn decode(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new("reading a value", sqlx::Error::Decode(what.into()))
    }

    /// Whether a unique index or a primary key refused a row. Somebody else has written the row first, or this
    /// transaction twice.
    pub fn is_conflict(&self) -> bool {
        self.error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
    }

    /// Whether it was ended because others waited for it as it waited for them: the same call may succeed at once.
    pub fn is_deadlock(&self) -> bool {
        self.code().is_some_and(|code| code == "40P01")
    }

    /// Whether a text contains NUL, which `PostgreSQL` can't hold: whoever sent it is to blame.
    pub fn is_unstorable_text(&self) -> bool {
        self.code().is_some_and(|code| code == "22021")
    }

    /// Whether the connection is the trouble rather than the statement: the same call may succeed later. A caller who
    /// gets such an error is answered that they may try again; of a COMMIT it says nothing about whether that took
    /// place.
    pub fn is_unavailable(&self) -> bool {
        match &self.error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // Class 57: the server is shutting down or starting up; 53: out of connections, disk or memory;
            // 40: serialisation failure or deadlock; 25P03: it was silent within a transaction; 55P03: a lock was not free
            // in time; SQLite: 5 busy, 13 disk full.
            sqlx::Error::Database(e) => e.code().is_some_and(|code| {
                ["57", "53", "40", "08", "25P03", "55P03"]
                    .iter()
                    .any(|class| code.starts_with(class) && code.len() == 5)
                    || matches!(sqlite_code(&code), Some(5 | 13))
            }),
            _ => false,
        }
    }

    /// Whether there is no file to open.
    pub fn is_missing_file(&self) -> bool {
        matches!(&self.error, sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::NotFound)
    }

    /// Whether the way to the database is the trouble: a connection, or a file.
    pub fn is_io(&self) -> bool {
        matches!(&self.error, sqlx::Error::Io(_))
    }

    /// Whether the user in whose name `PostgreSQL` was asked may not do it.
    pub fn is_permission(&self) -> bool {
        self.code().is_some_and(|code| code == "42501")
    }

    /// During which step, or in which statement.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// What the database or the system said, and nothing around it.
    pub fn cause(&self) -> String {
        match &self.error {
            sqlx::Error::Database(e) => e.message().to_owned(),
            sqlx::Error::Io(e) => cause::in_words(e),
            sqlx::Error::Tls(e) | sqlx::Error::Configuration(e) => e.to_string(),
            sqlx::Error::PoolTimedOut => "no connection became free in time".to_owned(),
            error => error.to_string(),
        }
    }

    /// What to do about it, as whole sentences, where that is known.
    pub fn find_advice(&self) -> Option<&'static str> {
        match &self.error {
            sqlx::Error::Io(_) => {
                Some("Is the database server running, and do host and port in `database.url` lead to it?")
            }
            sqlx::Error::Tls(_) => {
                Some("See `sslmode` and `sslrootcert` in `database.url`, and the certificate of the database server.")
            }
            sqlx::Error::Configuration(_) => Some("See `database.url`."),
            sqlx::Error::PoolTimedOut => Some("Raise `database.max_connections`, or see what keeps the database busy."),
            sqlx::Error::Database(e) => e.code().and_then(|code| match sqlite_code(&code) {
                Some(code) => find_advice_of_sqlite(code),
                None => find_advice_of_postgres(&code),
            }),
            _ => None,
        }
    }

    /// Only where the database itself answered. SQLite's are its extended codes, in decimal digits.
    fn code(&self) -> Option<Cow<'_, str>> {
        self.error.as_database_error().and_then(sqlx::error::DatabaseError::code)
    }
}

/// Whether a connection of this process has broken lately. Breaks of either pool count, and of connections that were
/// just being made.
pub(super) fn has_broken_within(time: Duration) -> bool {
    LAST_BREAK.lock().is_some_and(|last| last.elapsed() < time)
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn find_advice_of_postgres(code: &str) -> Option<&'static str> {
    Some(match code {
        "28P01" => "See user and password in `database.url`.",
        "28000" => "See the user in `database.url`, and whom pg_hba.conf of the database server lets in.",
        "3D000" => "Make the database with createdb, or see its name in `database.url`.",
        "42501" => {
            "The user needs the right to connect and to make tables: let them own the database (ALTER DATABASE … OWNER \
             TO …), or GRANT it to them."
        }
        "53100" => "Make room on the disk of the database server.",
        "53300" => "Raise max_connections of the database server, or lower `database.max_connections` of each node.",
        "57P03" => "The database server is starting or stopping: try again when it runs.",
        "25006" => "`database.url` leads to a server that only reads, such as a replica: name the primary.",
        _ => return None,
    })
}

/// The primary code of SQLite: the lowest byte, above which the extended ones say more of it. Codes of `PostgreSQL` have
/// five characters.
///
/// <https://www.sqlite.org/rescode.html>
fn sqlite_code(code: &str) -> Option<i32> {
    if code.len() < 5 { code.parse().ok().map(|code: i32| code & 0xff) } else { None }
}

fn find_advice_of_sqlite(code: i32) -> Option<&'static str> {
    Some(match code {
        5 => "Another program keeps the file locked: end it.",
        8 | 14 => {
            "The file, those beside it (-wal and -shm) and their folder must belong to the user that runs Hearth, on a \
             disk that can be written."
        }
        10 => "The disk refuses: see the system's log, and whether there is room.",
        11 => "The file is damaged: restore a backup.",
        13 => "Make room on the disk.",
        26 => "Some other program wrote this file: move it away, or change `database.url`.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{args, statements, testing};

    statements! {
        NO_ROOM = "PRAGMA max_page_count = 1";
        FILL = "INSERT INTO accepted_terms (user_id, policy_id, version, accepted_ts)
            SELECT value, printf('%.5000c', 'x'), '', 0 FROM json_each('[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]')";
    }

    #[tokio::test]
    async fn a_full_disk_is_called_so() {
        let database = testing::sqlite().await;
        let mut tx = database.db().begin().await.unwrap();
        tx.execute(&NO_ROOM, args![]).await.unwrap();
        let full = tx.execute(&FILL, args![]).await.unwrap_err();
        assert_eq!(full.to_string(), "database: FILL: database or disk is full");
        assert_eq!(full.find_advice(), Some("Make room on the disk."));
        assert!(full.is_unavailable(), "it may go on when there is room");
        drop(tx);
        database.close().await;
    }

    #[test]
    fn codes_that_say_more_are_known_by_their_lowest_byte() {
        for (code, primary) in [("5", 5), ("261", 5), ("517", 5), ("773", 5), ("13", 13), ("2067", 19)] {
            assert_eq!(sqlite_code(code), Some(primary), "{code}");
        }
        for code in ["53300", "00005", "5x"] {
            assert_eq!(sqlite_code(code), None, "{code}");
        }
    }

    #[test]
    fn a_cause_is_said_once() {
        let refused = DbError::new("connecting", std::io::Error::from_raw_os_error(111).into());
        assert_eq!(refused.to_string(), "database: connecting: connection refused");
        assert!(std::error::Error::source(&refused).is_none(), "whoever prints the chain would print it twice");
    }
}
