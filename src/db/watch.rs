//! What is known of a database beside its connections: when a commit last failed, and whether the files of SQLite are
//! still where they were opened.
//!
//! A connection whose COMMIT failed may be in a state that neither it nor its driver knows. The driver keeps connections
//! to itself while they are in a transaction, so the pools are told by the clock: those that were open at that moment
//! are closed when somebody would take them next.
//!
//! SQLite goes on writing to files that were deleted or replaced, and everything it acknowledges then is gone with the
//! process. So each commit looks first: three look-ups of names, some microseconds beside its fsync.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// In bytes. A batch may take as much in the write-ahead log.
const LEAST_ROOM: u64 = 1024 * 1024;

/// Shared by the connections of one database.
#[derive(Debug, Default)]
pub(super) struct Watch {
    failed_commit: Mutex<Option<Instant>>,
    /// None on `PostgreSQL`.
    files: Option<Files>,
}

/// The files of an SQLite database.
#[derive(Debug)]
struct Files {
    path: PathBuf,
    /// Device and number of the file that was opened.
    opened: (u64, u64),
    /// What is beside it for as long as anybody has the database open.
    beside: [PathBuf; 2],
}

impl Watch {
    /// Of an SQLite database whose file has just been opened by its name.
    pub(super) fn of_files(path: &Path, opened: &File) -> io::Result<Self> {
        let metadata = opened.metadata()?;
        // SQLite follows links: what is beside the database is beside the file that they lead to.
        let real = path.canonicalize()?;
        let beside = ["-wal", "-shm"].map(|ending| {
            let mut name = real.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        });
        let files = Files { path: path.to_owned(), opened: (metadata.dev(), metadata.ino()), beside };
        Ok(Self { files: Some(files), ..Self::default() })
    }

    /// Remembers that a commit has failed just now.
    pub(super) fn commit_failed(&self) {
        *self.failed_commit.lock() = Some(Instant::now());
    }

    /// Whether a connection of this age was open when a commit last failed.
    pub(super) fn is_suspect(&self, age: Duration) -> bool {
        self.failed_commit.lock().is_some_and(|failed| age >= failed.elapsed())
    }

    /// Fails where the disk has hardly any room. Asked once a commit has failed: the place that it took in the write-ahead
    /// log before it failed is there for smaller ones, which say nothing of the next.
    pub(super) fn check_room(&self) -> io::Result<()> {
        let Some(files) = &self.files else { return Ok(()) };
        let disk = rustix::fs::statvfs(&files.path)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < LEAST_ROOM {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk is full"));
        }
        Ok(())
    }

    /// Fails where the files are not those that were opened. Called while a connection is open, since the last one takes
    /// the files beside the database with it.
    pub(super) fn check_files(&self) -> io::Result<()> {
        self.files.as_ref().map_or(Ok(()), Files::check)
    }
}

impl Files {
    fn check(&self) -> io::Result<()> {
        let gone = |path: &Path, error: &io::Error| {
            io::Error::new(error.kind(), format!("{} is gone from under the running server", path.display()))
        };
        let there = fs::metadata(&self.path).map_err(|error| gone(&self.path, &error))?;
        if (there.dev(), there.ino()) != self.opened {
            let message = format!("{} was replaced under the running server", self.path.display());
            return Err(io::Error::other(message));
        }
        for path in &self.beside {
            fs::metadata(path).map_err(|error| gone(path, &error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_there_when_a_commit_failed_is_suspect() {
        let watch = Watch::default();
        assert!(!watch.is_suspect(Duration::MAX), "none has failed");
        watch.commit_failed();
        assert!(watch.is_suspect(Duration::from_hours(1)));
        // One that is opened now is not, once the clock has moved.
        while watch.is_suspect(Duration::ZERO) {}
    }

    #[test]
    fn files_that_are_gone_or_others_are_noticed_and_so_is_their_return() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["a", "a-wal", "a-shm", "b"].map(|name| folder.path().join(name));
        for name in &names {
            fs::write(name, "").unwrap();
        }
        let [path, _, _, aside] = &names;
        let watch = Watch::of_files(path, &File::open(path).unwrap()).unwrap();
        watch.check_files().unwrap();
        for name in &names[..3] {
            fs::rename(name, aside).unwrap();
            let gone = watch.check_files().unwrap_err();
            assert!(gone.to_string().contains(&format!("{} is gone", name.display())), "{gone}");
            fs::rename(aside, name).unwrap();
            watch.check_files().unwrap();
        }
        fs::rename(path, aside).unwrap();
        fs::write(path, "").unwrap();
        let replaced = watch.check_files().unwrap_err();
        assert!(replaced.to_string().contains("was replaced"), "{replaced}");
    }
}
