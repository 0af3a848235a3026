//! A store of files in a folder.
//!
//! Each location is written once, so bytes are written in their place: nobody knows of it before they are all there, and
//! what a crash leaves half-written no row names. When `put` returns, the bytes, the file's name and its folders' names
//! are on the disk.
//!
//! Disks can hang, above all those that are reached by a network. A thread that does counts among those that may be busy
//! until it is back, and nobody waits for it without an end.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    ops::Range,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ::object_store::{ObjectMeta, ObjectStore as _, local::LocalFileSystem, path::Path as Location};
use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::timeout};

use super::fault::{ByteStream, StoreFault};
use crate::ground::cause;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// What is read at once: large enough that a thread's turn costs little beside it.
const PART: u64 = 256 * 1024;
/// How many threads may be busy with this store.
const LANES: usize = 64;
/// What any disk writes within a second. Larger files have longer.
const BYTES_A_SECOND: u64 = 4 * 1024 * 1024;
/// Of how many folders it is remembered that their names are on the disk.
const REMEMBERED: usize = 20_000;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct FileStore(Arc<Inner>);

struct Inner {
    root: PathBuf,
    listing: LocalFileSystem,
    synced: Mutex<HashSet<PathBuf>>,
    lanes: Arc<Semaphore>,
    patience: Duration,
}

impl FileStore {
    /// The folder is there. `patience`: how long one step may take.
    pub(super) fn open(root: &Path, patience: Duration) -> ::object_store::Result<Self> {
        sync_above(root);
        let inner = Inner {
            listing: LocalFileSystem::new_with_prefix(root)?,
            root: root.to_owned(),
            synced: Mutex::default(),
            lanes: Arc::new(Semaphore::new(LANES)),
            patience,
        };
        Ok(Self(Arc::new(inner)))
    }

    pub(super) async fn put(&self, location: &Location, file: &Path) -> Result<(), StoreFault> {
        let (from, to) = (file.to_owned(), self.path(location));
        let bytes = tokio::fs::metadata(file).await.map_err(|error| in_writing(&error))?.len();
        let longest = self.0.patience + Duration::from_secs(bytes / BYTES_A_SECOND);
        let written = self.on_thread(longest, move |inner| Ok(inner.put(&from, &to))).await?;
        written.map_err(|error| in_writing(&error))
    }

    /// Opening the file and its first part take one turn of a thread together.
    pub(super) async fn get(&self, location: &Location, range: Range<u64>) -> Result<ByteStream, StoreFault> {
        let (path, longest) = (self.path(location), self.0.patience);
        let length = range.end.saturating_sub(range.start);
        let opened = self.on_thread(longest, move |_| {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(range.start))?;
            read_part(file, length)
        });
        let (part, file, left) = opened.await?;
        let first = stream::iter((!part.is_empty()).then_some(io::Result::Ok(part)));
        let rest = stream::try_unfold((self.clone(), file, left), move |(store, file, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let (part, file, left) = store.on_thread(longest, move |_| read_part(file, left)).await?;
            Ok::<_, io::Error>(Some((part, (store, file, left))))
        });
        Ok(first.chain(rest).boxed())
    }

    pub(super) async fn size(&self, location: &Location) -> Result<u64, StoreFault> {
        let path = self.path(location);
        self.on_thread(self.0.patience, move |_| Ok(fs::metadata(path)?.len())).await
    }

    /// It is not waited for that the name is gone from the disk: whoever finds it later deletes it again.
    pub(super) async fn delete(&self, location: &Location) -> Result<(), StoreFault> {
        let path = self.path(location);
        self.on_thread(self.0.patience, move |_| fs::remove_file(path)).await
    }

    pub(super) fn list(&self) -> BoxStream<'static, ::object_store::Result<ObjectMeta>> {
        self.0.listing.list(None)
    }

    /// A location has no part that leads upwards: `Location` can't be made of such.
    fn path(&self, location: &Location) -> PathBuf {
        let location: &str = location.as_ref();
        self.0.root.join(location)
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        longest: Duration,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreFault> {
        let inner = Arc::clone(&self.0);
        let working = async move {
            let lane = Arc::clone(&inner.lanes).acquire_owned().await.map_err(io::Error::other)?;
            let working = tokio::task::spawn_blocking(move || {
                let done = work(&inner);
                drop(lane);
                done
            });
            working.await.map_err(io::Error::other)?
        };
        let done: io::Result<T> = timeout(longest, working).await.unwrap_or_else(|_elapsed| {
            let silence = format!("the disk has not answered within {} s", longest.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, silence))
        });
        done.map_err(|error| in_reading(&error))
    }
}

impl Inner {
    /// A second name for a file on the same disk, a copy on another. What stands in the file does not change afterwards.
    fn put(&self, from: &Path, to: &Path) -> io::Result<()> {
        let folder = to.parent().unwrap_or(&self.root);
        self.make_folder(folder)?;
        let linked = fs::hard_link(from, to);
        if linked.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            return linked;
        }
        let written = linked.or_else(|_| copy(from, to)).and_then(|()| {
            File::open(to)?.sync_data()?;
            sync(folder)
        });
        if written.is_err() {
            // What is left of it no row names, so the sweep finds it.
            fs::remove_file(to).unwrap_or_else(drop);
        }
        written
    }

    /// And those above it, up to the store's own. Who finds one that another has just made does not take for granted that
    /// its name is on the disk.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        let Some(above) = folder.parent().filter(|_| folder != self.root) else { return Ok(()) };
        self.make_folder(above)?;
        let made = match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            made => made.map(|()| true)?,
        };
        if made || !self.synced.lock().contains(folder) {
            sync(above)?;
            let mut synced = self.synced.lock();
            if synced.len() >= REMEMBERED {
                synced.clear();
            }
            synced.insert(folder.to_owned());
        }
        Ok(())
    }
}

/// Has the disk know the names in a folder.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// It and those above it may just have been made. Those that this user may not read are another's, and older.
fn sync_above(root: &Path) {
    let Ok(root) = root.canonicalize() else { return };
    for above in root.ancestors().skip(1) {
        if sync(above).is_err() {
            return;
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut target = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(to)?;
    io::copy(&mut File::open(from)?, &mut target).map(drop)
}

/// The next part, and how much is left after it. A file that ends before has lost something.
fn read_part(mut file: File, left: u64) -> io::Result<(Bytes, File, u64)> {
    let wanted = left.min(PART);
    let mut part = Vec::with_capacity(usize::try_from(wanted).unwrap_or_default());
    let read = (&mut file).take(wanted).read_to_end(&mut part)?;
    if u64::try_from(read).unwrap_or(u64::MAX) < wanted {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file ends before its end"));
    }
    Ok((Bytes::from(part), file, left - wanted))
}

fn in_reading(error: &io::Error) -> StoreFault {
    match error.kind() {
        io::ErrorKind::NotFound => StoreFault::Missing,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreFault::Full,
        _ => StoreFault::Unavailable(cause::in_words(error)),
    }
}

/// What is not there then is the folder, or what was to be written.
fn in_writing(error: &io::Error) -> StoreFault {
    match in_reading(error) {
        StoreFault::Missing => StoreFault::Unavailable(cause::in_words(error)),
        fault => fault,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[tokio::test]
    async fn a_file_is_taken_over_without_a_copy_and_is_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let (root, file) = (folder.path().join("media"), folder.path().join("incoming"));
        DirBuilder::new().mode(FOLDER_MODE).create(&root).unwrap();
        fs::write(&file, "bytes").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(FILE_MODE)).unwrap();
        let store = FileStore::open(&root, Duration::from_secs(10)).unwrap();
        let location = Location::parse("ab/cd/e").unwrap();
        store.put(&location, &file).await.unwrap();
        let (there, here) = (fs::metadata(root.join("ab/cd/e")).unwrap(), fs::metadata(&file).unwrap());
        assert_eq!((there.ino(), there.mode() & 0o777), (here.ino(), FILE_MODE));
        for made in ["ab", "ab/cd"] {
            assert_eq!(fs::metadata(root.join(made)).unwrap().mode() & 0o777, FOLDER_MODE);
        }
        // What is there is never written over.
        let second = store.put(&location, &file).await.unwrap_err();
        assert!(matches!(second, StoreFault::Unavailable(_)), "{second:?}");
        assert_eq!(fs::read(root.join("ab/cd/e")).unwrap(), b"bytes");
        // Somebody has tidied up empty folders.
        fs::remove_dir_all(root.join("ab")).unwrap();
        store.put(&location, &file).await.unwrap();
    }

    #[test]
    fn what_is_on_another_disk_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "bytes").unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"bytes");
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, FILE_MODE);
        assert_eq!(copy(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[tokio::test]
    async fn a_full_disk_and_a_folder_that_is_gone_are_named() {
        assert!(matches!(in_writing(&io::Error::from(io::ErrorKind::StorageFull)), StoreFault::Full));
        assert!(matches!(in_writing(&io::Error::from(io::ErrorKind::QuotaExceeded)), StoreFault::Full));
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::open(folder.path(), Duration::from_secs(10)).unwrap();
        let location = Location::parse("a/b").unwrap();
        let nothing = store.put(&location, &folder.path().join("nothing")).await.unwrap_err();
        assert!(matches!(nothing, StoreFault::Unavailable(_)), "{nothing:?}");
    }

    #[tokio::test]
    async fn a_disk_that_hangs_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::open(folder.path(), Duration::from_millis(50)).unwrap();
        let (free, hangs) = std::sync::mpsc::channel::<()>();
        let hung = store.on_thread(Duration::from_millis(50), move |_| hangs.recv().map_err(io::Error::other)).await;
        assert!(matches!(hung, Err(StoreFault::Unavailable(_))), "{hung:?}");
        assert_eq!(store.0.lanes.available_permits(), LANES - 1, "its thread still counts as busy");
        free.send(()).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_has_lost_its_end_breaks_off() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::open(folder.path(), Duration::from_secs(10)).unwrap();
        let length = usize::try_from(PART).unwrap() + 10;
        fs::write(folder.path().join("a"), vec![7; length]).unwrap();
        let bytes = store.get(&Location::parse("a").unwrap(), 0..PART + 11).await.unwrap();
        let parts: Vec<_> = bytes.collect().await;
        assert_eq!(parts.iter().filter(|part| part.is_err()).count(), 1);
        assert!(parts.last().unwrap().is_err(), "the error ends it");
    }
}
