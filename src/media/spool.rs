//! Where media are put down while they come in: a file on this node's disk for each, hashed on the way.
//!
//! Only when all of it is there is it known whether the bytes are stored already, and memory never holds more than a part.
//! Nothing here is durable: a store makes it so.
//!
//! Each process has a folder of its own in `media-incoming`, which it holds by a lock, and deletes those of processes that
//! are gone.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    ground::{
        cause,
        claim::{Claim, ClaimError},
        data_folder,
        digest::{Digest, Hasher},
        random::Random,
    },
};

/// In the data folder.
const FOLDER: &str = "media-incoming";
const LOCK: &str = "lock";
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// In characters: names only have to be unique.
const NAME_LENGTH: usize = 16;
/// What is written at once, in bytes. Each upload that is under way has as much in memory.
const PART: usize = 128 * 1024;
/// What is remembered of the beginning, in bytes: enough to see what it is.
const HEAD: usize = 4 * 1024;
/// While another process tidies up: so often, and so long in between.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(50);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Spool(Arc<Folder>);

struct Folder {
    path: PathBuf,
    random: Random,
    /// None where the disk knows no locks: then nothing is tidied up.
    claim: Option<Claim>,
}

/// A file that is deleted when this is dropped.
pub(crate) struct SpoolFile {
    path: PathBuf,
    /// Is not tidied up as long as there are files in it.
    _folder: Arc<Folder>,
}

/// Something that comes in. Dropped, it leaves nothing behind.
pub(crate) struct Incoming {
    /// None while a part is written, and after that has failed.
    sink: Option<Sink>,
    file: SpoolFile,
    buffer: Vec<u8>,
    bytes: u64,
}

/// What a blocking thread works on.
struct Sink {
    file: File,
    hasher: Hasher,
    head: Vec<u8>,
}

/// Something that is all there.
pub(crate) struct Received {
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
    /// The first 4 KiB, or what there is.
    pub(crate) head: Vec<u8>,
    file: SpoolFile,
}

impl Spool {
    pub(crate) async fn open(data_dir: &Path) -> Result<Self> {
        let random = Random::system();
        let root = data_dir.join(FOLDER);
        for _ in 0..TRIES {
            let (root, random) = (root.clone(), random.clone());
            let opened = on_thread(move || Folder::open(&root, random)).await?;
            if let Some(folder) = opened {
                return Ok(Self(Arc::new(folder)));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::broken(format!("another process has not let go of {} for a while", root.display())))
    }

    pub(crate) async fn begin(&self) -> Result<Incoming> {
        let file = self.reserve();
        let (made, file) = on_thread(move || Ok((file.make()?, file))).await?;
        let sink = Some(Sink { file: made, hasher: Hasher::new(), head: Vec::new() });
        Ok(Incoming { sink, file, buffer: Vec::new(), bytes: 0 })
    }

    /// A name for a file that whoever asks makes. What has been made of it is deleted when it is dropped.
    pub(crate) fn reserve(&self) -> SpoolFile {
        let path = self.0.path.join(self.0.random.token(NAME_LENGTH));
        SpoolFile { path, _folder: Arc::clone(&self.0) }
    }
}

impl Folder {
    /// None while another process has its turn: whoever makes a folder or deletes those of others holds one lock, so no
    /// folder is taken for abandoned before its owner has locked it.
    fn open(root: &Path, random: Random) -> io::Result<Option<Self>> {
        data_folder::make(root)?;
        let turn = match Claim::take(&root.join(LOCK), "it is making a folder for incoming media") {
            Ok(turn) => Some(turn),
            Err(ClaimError::Held(_)) => return Ok(None),
            Err(ClaimError::Io(error)) if error.kind() == io::ErrorKind::Unsupported => None,
            Err(ClaimError::Io(error)) => return Err(error),
        };
        let path = root.join(random.token(NAME_LENGTH));
        DirBuilder::new().mode(FOLDER_MODE).create(&path)?;
        let claim = match turn {
            Some(_) => Some(Claim::take(&path.join(LOCK), "it started").map_err(io::Error::other)?),
            None => None,
        };
        if turn.is_some() {
            tidy(root)?;
        }
        Ok(Some(Self { path, random, claim }))
    }
}

/// Deletes the folders that no process holds. What can't be deleted is no reason not to start.
fn tidy(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let folder = entry?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        let deleted = match Claim::take(&folder.path().join(LOCK), "it is tidying up") {
            Ok(_held) => fs::remove_dir_all(folder.path()),
            Err(ClaimError::Held(_)) => Ok(()),
            Err(ClaimError::Io(error)) => Err(error),
        };
        deleted.unwrap_or_else(|error| {
            let (path, reason) = (folder.path(), cause::in_words(&error));
            tracing::warn!("{} was left by a process that is gone and can't be deleted: {reason}", path.display());
        });
    }
    Ok(())
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Otherwise the next start does it.
        if self.claim.is_some() {
            fs::remove_dir_all(&self.path).unwrap_or_else(drop);
        }
    }
}

impl SpoolFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Empty, for writing, and for nobody else. Blocks.
    pub(crate) fn make(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&self.path)
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("a file of incoming media was not deleted: {}", cause::in_words(&error));
            }
            _ => {}
        }
    }
}

impl Incoming {
    /// Waits for the disk once a part is full.
    pub(crate) async fn write(&mut self, part: &[u8]) -> Result<()> {
        let mut rest = part;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PART.saturating_sub(self.buffer.len())));
            self.buffer.extend_from_slice(now);
            self.bytes += u64::try_from(now.len()).unwrap_or(u64::MAX);
            rest = later;
            if self.buffer.len() >= PART {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// How many have come so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) async fn finish(mut self) -> Result<Received> {
        self.flush().await?;
        let Sink { hasher, head, .. } = self.sink.ok_or_else(gave_up)?;
        Ok(Received { bytes: self.bytes, digest: hasher.finish(), head, file: self.file })
    }

    async fn flush(&mut self) -> Result<()> {
        let mut sink = self.sink.take().ok_or_else(gave_up)?;
        let mut part = std::mem::take(&mut self.buffer);
        let written = on_thread(move || {
            sink.write(&part)?;
            part.clear();
            Ok((sink, part))
        });
        let (sink, part) = written.await?;
        (self.sink, self.buffer) = (Some(sink), part);
        Ok(())
    }
}

impl Sink {
    fn write(&mut self, part: &[u8]) -> io::Result<()> {
        let missing = HEAD.saturating_sub(self.head.len());
        self.head.extend(part.iter().take(missing));
        self.hasher.update(part);
        self.file.write_all(part)
    }
}

impl Received {
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }
}

fn gave_up() -> Error {
    Error::broken("something that came in was not written")
}

/// What the disk says of it becomes an error: a full one passes.
pub(super) async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await.map_err(Error::broken)?;
    done.map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::Unavailable("the disk for incoming media is full".to_owned())
        }
        _ => Error::broken(format!("incoming media can't be put down: {}", cause::in_words(&error))),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn names(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }

    async fn receive(spool: &Spool, bytes: &[u8], size: usize) -> Received {
        let mut incoming = spool.begin().await.unwrap();
        for part in bytes.chunks(size) {
            incoming.write(part).await.unwrap();
        }
        assert_eq!(incoming.bytes(), u64::try_from(bytes.len()).unwrap());
        incoming.finish().await.unwrap()
    }

    #[tokio::test]
    async fn what_comes_in_parts_is_there_in_one_piece() {
        let data_dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(data_dir.path()).await.unwrap();
        let bytes: Vec<u8> = (0..PART * 2 + 77).map(|place| u8::try_from(place % 251).unwrap()).collect();
        for (length, size) in [
            (0, 1),
            (1, 1),
            (HEAD - 1, 100),
            (HEAD + 1, HEAD),
            (PART, PART),
            (PART + 1, 1_000),
            (bytes.len(), 7),
            (bytes.len(), bytes.len()),
        ] {
            let given = &bytes[..length];
            let received = receive(&spool, given, size).await;
            assert_eq!((received.bytes, received.digest), (u64::try_from(length).unwrap(), Digest::of(given)));
            assert_eq!(received.head, given[..length.min(HEAD)]);
            assert!(fs::read(received.path()).unwrap() == given, "{length} in parts of {size}");
            assert_eq!(fs::metadata(received.path()).unwrap().mode() & 0o777, FILE_MODE);
        }
    }

    #[tokio::test]
    async fn nothing_stays_of_what_is_dropped() {
        let data_dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(data_dir.path()).await.unwrap();
        let mut given_up = spool.begin().await.unwrap();
        given_up.write(&vec![7; PART]).await.unwrap();
        let received = receive(&spool, b"bytes", 5).await;
        let path = received.path().to_owned();
        let folder = path.parent().unwrap().to_owned();
        let files = || fs::read_dir(&folder).unwrap().count();
        assert_eq!(files(), 3, "the lock as well");
        drop(given_up);
        assert_eq!(files(), 2);
        drop(spool);
        assert!(path.exists(), "its folder stays as long as it does");
        drop(received);
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn what_a_dead_process_has_left_goes_and_what_a_living_one_has_stays() {
        let data_dir = tempfile::tempdir().unwrap();
        let root = data_dir.path().join(FOLDER);
        let living = Spool::open(data_dir.path()).await.unwrap();
        let received = receive(&living, b"bytes", 5).await;
        let dead = root.join("dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "process 1").unwrap();
        fs::write(dead.join("half"), "by").unwrap();
        let unlocked = root.join("unlocked");
        fs::create_dir(&unlocked).unwrap();

        let next = Spool::open(data_dir.path()).await.unwrap();
        assert!(!dead.exists() && !unlocked.exists());
        assert_eq!(fs::read(received.path()).unwrap(), b"bytes");
        assert_eq!(names(&root).len(), 2);
        drop(next);
        assert_eq!(names(&root).len(), 1);
    }

    #[tokio::test]
    async fn a_full_disk_is_no_bug() {
        let full = on_thread::<()>(|| Err(io::ErrorKind::StorageFull.into())).await.unwrap_err();
        assert!(matches!(&full, Error::Unavailable(why) if why.contains("full")), "{full:?}");
        let other = on_thread::<()>(|| Err(io::ErrorKind::PermissionDenied.into())).await.unwrap_err();
        assert!(matches!(other, Error::Broken(_)), "{other:?}");
    }

    #[tokio::test]
    async fn a_part_that_was_not_written_is_not_passed_over() {
        let data_dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(data_dir.path()).await.unwrap();
        let mut incoming = spool.begin().await.unwrap();
        // As if whoever wrote had gone away while the disk was busy.
        incoming.sink = None;
        incoming.write(b"bytes").await.unwrap();
        assert!(incoming.finish().await.is_err());
    }
}
