//! How far the log of an SQLite database has been written, in a file of its own.
//!
//! A database that is empty or older than it was does not look so from the inside: a write-ahead log that somebody has
//! deleted, a disk that is not mounted, a backup put in place by mistake. Clients would be told of rooms and messages
//! that are not theirs any more, so a start compares the end of the log with what is noted here, and refuses to go on
//! by itself.
//!
//! It is noted each second in which something was written, and at the end. What is noted was committed before, so no
//! crash makes the note say more than the database holds. What is lost within the last second is not noticed.
//!
//! With `PostgreSQL` the database is not this process's, and a folder is one node's: nothing is noted there.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    db::{Db, DbResult},
    ground::{
        clock::Clock,
        date,
        position::{Mark, Position},
        tasks::Shutdown,
    },
    store,
};

const INTERVAL: Duration = Duration::from_secs(1);
/// As everything in the data folder.
const FILE_MODE: u32 = 0o600;

/// The note beside an SQLite database.
#[derive(Clone, Debug)]
pub(super) struct LastWritten {
    path: PathBuf,
    clock: Clock,
}

/// What stands in it. Names are never changed: an older release's note is read by the next.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    position: i64,
    /// Of the batch that ends there: another log has another one at this place.
    mark: String,
    /// Milliseconds since the Unix epoch, for people.
    written_ts: i64,
}

/// Why a database is not the one that was written last.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTheLast {
    #[error("it is gone, and this server wrote up to position {position} until {until}")]
    Gone { position: i64, until: String },
    #[error(
        "it ends at position {end}, and this server wrote up to position {position} until {until}: it is an older copy, or \
         lacks its write-ahead log (the file beside it whose name ends in -wal)"
    )]
    Older { end: i64, position: i64, until: String },
    #[error("it has another history than what this server wrote until {until}: it is another database")]
    Other { until: String },
    #[error("{path} can't be read: {error}", path = .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
}

impl LastWritten {
    /// The note on the database of this file, in `folder`.
    pub(super) fn new(folder: &Path, database: &Path, clock: Clock) -> Self {
        let mut name = database.file_name().unwrap_or_default().to_owned();
        name.push(".mark");
        Self { path: folder.join(name), clock }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets what was noted: somebody has said that another database is meant.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Refuses to make a new database where there was one.
    pub(super) fn check_file(&self, database: &Path) -> Result<(), NotTheLast> {
        match self.read()? {
            Some(Note { position, written_ts, .. }) if !database.exists() => {
                Err(NotTheLast::Gone { position, until: date::second(written_ts) })
            }
            _ => Ok(()),
        }
    }

    /// Whether a database is what was written last, or goes on from it. Changes nothing; an error of the database is
    /// the outer one.
    pub(super) async fn check(&self, db: &Db) -> DbResult<Result<(), NotTheLast>> {
        let note = match self.read() {
            Ok(Some(note)) => note,
            Ok(None) => return Ok(Ok(())),
            Err(unreadable) => return Ok(Err(unreadable)),
        };
        let Note { position, mark, written_ts } = note;
        let until = date::second(written_ts);
        let mut conn = db.read().await?;
        if !conn.has_table("batches").await? {
            return Ok(Err(NotTheLast::Older { end: 0, position, until }));
        }
        let end = store::log::last_position(&mut conn).await?.0;
        if end < position {
            return Ok(Err(NotTheLast::Older { end, position, until }));
        }
        let there = store::log::marks_at(&mut conn, &[position]).await?;
        let is_same = there.first().is_some_and(|(_, there)| there.to_string() == mark);
        Ok(if is_same { Ok(()) } else { Err(NotTheLast::Other { until }) })
    }

    /// Notes how far the log goes, until nobody writes any more.
    pub(super) async fn follow(self, db: Db, shutdown: Shutdown) {
        let mut noted = None;
        let mut failing = false;
        loop {
            tokio::select! {
                () = shutdown.requests_done() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            match self.note(&db, noted).await {
                Ok(end) => (noted, failing) = (end, false),
                // Once, and not every second: the disk is full, and other messages say so too.
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, path = %self.path.display(), "could not note how far the log goes");
                    }
                }
            }
        }
    }

    /// Notes how far the log goes, unless that is what was `noted` before. Returns how far.
    pub(super) async fn note(
        &self,
        db: &Db,
        noted: Option<Position>,
    ) -> Result<Option<Position>, Box<dyn std::error::Error + Send + Sync>> {
        // A note about files that nobody finds again would refuse those that are put in their place.
        db.check_files()?;
        let newest = store::log::newest_batches(&mut db.read().await?, 1).await?;
        let Some((_, end, mark)) = newest.first().copied().filter(|(_, end, _)| Some(*end) != noted) else {
            return Ok(noted);
        };
        self.write(end, mark)?;
        Ok(Some(end))
    }

    fn write(&self, end: Position, mark: Mark) -> io::Result<()> {
        let note = Note { position: end.0, mark: mark.to_string(), written_ts: self.clock.now().get().into() };
        let new = self.path.with_extension("mark-new");
        // Not synced: after a power cut an older note does as well. Whole, since a half one could not be read.
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&new)?;
        file.write_all(&serde_json::to_vec(&note)?)?;
        fs::rename(&new, &self.path)
    }

    fn read(&self) -> Result<Option<Note>, NotTheLast> {
        let unreadable = |error| NotTheLast::Unreadable { path: self.path.clone(), error };
        match fs::read(&self.path) {
            // What a power cut may leave of a file that was not synced.
            Ok(bytes) if bytes.iter().all(|byte| *byte == 0) => Ok(None),
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| unreadable(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{db::testing, event::fact::Entry};

    async fn append(db: &Db, at: i64, id: &str) {
        let mut tx = db.begin().await.unwrap();
        let entry = Entry::Listing(ruma::room_id!("!a:here").to_owned());
        store::log::insert_batch(&mut tx, Position(at), Position(at), id, &[entry]).await.unwrap();
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn what_is_older_or_another_is_told_from_what_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.sqlite3");
        let note = LastWritten::new(folder.path(), &file, Clock::manual(1_795_892_587_000));
        note.check_file(&file).unwrap();
        let (first, older, other) = (testing::sqlite().await, testing::sqlite().await, testing::sqlite().await);
        note.check(first.db()).await.unwrap().unwrap();
        assert_eq!(note.note(first.db(), None).await.unwrap(), None, "nothing was written");

        for (at, id) in [(1, "first1"), (2, "first2")] {
            append(first.db(), at, id).await;
            append(other.db(), at, &format!("other{at}")).await;
        }
        append(older.db(), 1, "first1").await;
        assert_eq!(note.note(first.db(), None).await.unwrap(), Some(Position(2)));
        note.check(first.db()).await.unwrap().unwrap();
        append(first.db(), 3, "first3").await;
        note.check(first.db()).await.unwrap().unwrap();

        let told = note.check(older.db()).await.unwrap().unwrap_err();
        assert!(matches!(&told, NotTheLast::Older { end: 1, position: 2, .. }), "{told}");
        assert!(told.to_string().contains("2026-11-28 19:03:07 UTC"), "{told}");
        let told = note.check(other.db()).await.unwrap().unwrap_err();
        assert!(matches!(told, NotTheLast::Other { .. }), "{told}");
        let told = note.check_file(&file).unwrap_err();
        assert!(matches!(told, NotTheLast::Gone { position: 2, .. }), "{told}");
        // What a power cut may leave.
        fs::write(note.path(), [0; 50]).unwrap();
        note.check(older.db()).await.unwrap().unwrap();
        fs::write(note.path(), "{").unwrap();
        assert!(matches!(note.check(older.db()).await.unwrap(), Err(NotTheLast::Unreadable { .. })));
        for database in [first, older, other] {
            database.close().await;
        }
    }
}
