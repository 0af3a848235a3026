//! Bytes by their digest: written once however many media have them, read, and gone with the last of these.
//!
//! Whatever is written goes to a place that never was and never is another's. So its bytes can be deleted whenever no row
//! names it, and the order is always this: bytes are written and durable, then a transaction adds the rows that name
//! them, then somebody is told. Deleting goes the other way: a transaction removes the rows and leaves a note
//! (`media_removals`), and the bytes go once nobody can be reading them any more. What a process leaves between two
//! steps is found by the sweep.
//!
//! Who adds a row that names an object, and who removes one that may be the last, locks the object's row first. So the
//! one finds what the other has done, on whichever node. Nobody waits for a store meanwhile.

#[cfg(test)]
mod tests;

use std::{fmt::Write as _, io, ops::Range, path::Path, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use tokio::time::timeout;

use super::{
    seal::{MasterKeys, SealedKey},
    spool::{Received, Spool, SpoolFile},
};
use crate::{
    db::{Db, Tx},
    edge::{
        metrics::Metrics,
        object_store::{ByteStream, StoreFault, Stores},
    },
    error::{Error, Result},
    ground::{
        clock::{Clock, millis},
        digest::Digest,
        random::Random,
        tasks::Tasks,
    },
    store::{
        media,
        media_object::{self, StoredObject, StoredPlace},
        media_thumbnail,
    },
};

/// For so long whoever has looked up where bytes are can read them there, although nobody else finds them.
pub(super) const STILL_READ: Duration = Duration::from_mins(10);
/// What takes longer to be written is reserved: the sweep might find it old before a row names it.
const QUICK: Duration = Duration::from_mins(1);
/// What was reserved and has no row by then is a leftover. No writing takes so long.
const RESERVED: Duration = Duration::from_hours(7 * 24);
/// How often somebody else may do the opposite in between before the caller is asked to try again.
const ATTEMPTS: usize = 16;

/// All bytes of media. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Objects {
    db: Db,
    stores: Stores,
    spool: Spool,
    keys: MasterKeys,
    clock: Clock,
    random: Random,
    metrics: Metrics,
    tasks: Tasks,
}

/// Bytes, and where they are.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
    pub(crate) place: Place,
    /// What the first bytes look like ([`super::kind::sniff`]).
    pub(crate) sniffed_type: String,
    /// When a scanner has found them harmless, in milliseconds since the Unix epoch.
    pub(crate) scanned_at: Option<i64>,
}

/// Where bytes are: never the place of any others.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The name of a store.
    pub(crate) store: String,
    pub(crate) location: String,
    /// Set where they are encrypted.
    pub(crate) sealed: Option<SealedKey>,
}

impl From<StoredObject> for Object {
    fn from(stored: StoredObject) -> Self {
        let StoredObject { digest, bytes, place, sniffed_type, scanned_at } = stored;
        Self { digest, bytes, place: place.into(), sniffed_type, scanned_at }
    }
}

impl From<StoredPlace> for Place {
    fn from(StoredPlace { store, location, key }: StoredPlace) -> Self {
        Self { store, location, sealed: key.map(|(key_id, sealed)| SealedKey { key_id, sealed }) }
    }
}

impl Place {
    /// As rows have it.
    pub(crate) fn to_stored(&self) -> StoredPlace {
        let key = self.sealed.as_ref().map(|SealedKey { key_id, sealed }| (key_id.clone(), sealed.clone()));
        StoredPlace { store: self.store.clone(), location: self.location.clone(), key }
    }
}

/// What there is of some bytes.
enum Standing {
    Whole,
    /// A row names this place, and there is nothing.
    Lost(StoredPlace),
    Absent,
}

/// An object whose row is locked.
struct Held {
    tx: Tx,
    object: Object,
    /// Set where the bytes of the object are those that were written for this.
    is_new: bool,
}

impl Objects {
    pub(crate) fn new(
        (db, clock, random): (Db, Clock, Random),
        stores: Stores,
        spool: Spool,
        keys: MasterKeys,
        metrics: Metrics,
        tasks: Tasks,
    ) -> Self {
        Self { db, stores, spool, keys, clock, random, metrics, tasks }
    }

    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    pub(crate) fn stores(&self) -> &Stores {
        &self.stores
    }

    pub(crate) fn keys(&self) -> &MasterKeys {
        &self.keys
    }

    /// Writes bytes unless there are such already. Then does `then` in the transaction in which it is certain that they are
    /// there, whose row is locked: it is to add what names them. All or nothing, and durable at the end. It goes on to its
    /// end although the caller goes away: otherwise whoever hangs up in time would leave bytes that count for nobody.
    pub(crate) async fn keep<T: Send + 'static>(
        &self,
        received: Received,
        sniffed_type: &str,
        then: impl for<'t> FnOnce(&'t mut Tx, &'t Object) -> BoxFuture<'t, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (here, sniffed_type) = (self.clone(), sniffed_type.to_owned());
        // It is moved into a task.
        let keeping = async move { Box::pin(here.keep_to_end(&received, &sniffed_type, then)).await };
        let kept = self.tasks.see_through("keeping a file", keeping).await;
        kept.ok_or_else(|| Error::broken("keeping a file has panicked"))?
    }

    async fn keep_to_end<T: Send>(
        &self,
        received: &Received,
        sniffed_type: &str,
        then: impl for<'t> FnOnce(&'t mut Tx, &'t Object) -> BoxFuture<'t, Result<T>> + Send,
    ) -> Result<T> {
        let mut written = None;
        let Held { mut tx, object, is_new } = match self.hold(received, sniffed_type, &mut written).await {
            Ok(held) => held,
            Err(error) => return Err(self.undo(written, error).await),
        };
        let done = then(&mut tx, &object).await;
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                drop(tx);
                return Err(self.undo(written, error).await);
            }
        };
        // Where the connection breaks here, the rows may be there: the sweep finds out.
        tx.commit().await?;
        self.metrics.media_kept(object.bytes, is_new);
        Ok(done)
    }

    /// `written` is where this has written the bytes, if it had to.
    async fn hold(&self, received: &Received, sniffed_type: &str, written: &mut Option<Place>) -> Result<Held> {
        let digest = &received.digest;
        for _ in 0..ATTEMPTS {
            let mut lost = None;
            if written.is_none() {
                match self.look(digest).await? {
                    Standing::Whole => {}
                    Standing::Lost(place) => {
                        lost = Some(place);
                        *written = Some(self.put(received.path()).await?);
                    }
                    Standing::Absent => *written = Some(self.put(received.path()).await?),
                }
            }
            let mut tx = self.db.begin().await?;
            let now = self.now();
            if let Some(place) = written.as_ref() {
                let (sniffed_type, place) = (sniffed_type.to_owned(), place.to_stored());
                let bytes = received.bytes;
                let stored = StoredObject { digest: *digest, bytes, place, sniffed_type, scanned_at: None };
                if media_object::insert(&mut tx, &stored, now).await? {
                    unreserve(&mut tx, &stored.place).await?;
                    return Ok(Held { tx, object: stored.into(), is_new: true });
                }
            }
            // There was one, or it has come meanwhile.
            if let Some(stored) = media_object::lock(&mut tx, digest).await? {
                let (object, is_new) = settle(&mut tx, stored, written.as_ref(), lost.as_ref(), now).await?;
                return Ok(Held { tx, object, is_new });
            }
            // It has gone meanwhile: from the beginning.
        }
        Err(Error::Unavailable("The same file comes and goes too often at this moment: try again".to_owned()))
    }

    /// Whether bytes are where their row says. Not within a transaction, since a store is asked.
    async fn look(&self, digest: &Digest) -> Result<Standing> {
        let found = media_object::find(&mut self.db.read().await?, digest).await?;
        let Some(StoredObject { place, bytes, .. }) = found else { return Ok(Standing::Absent) };
        if !self.stores.has(&place.store) {
            return Ok(Standing::Lost(place));
        }
        match self.stores.size(&place.store, &place.location).await {
            Ok(Some(size)) if place.key.is_some() || size == bytes => Ok(Standing::Whole),
            Ok(size) => {
                let (store, location) = (&place.store, &place.location);
                tracing::warn!(%digest, %store, %location, bytes, ?size, "bytes of media were lost; they come in again");
                Ok(Standing::Lost(place))
            }
            // A store that can't be asked now has them as far as anybody knows.
            Err(fault) => {
                tracing::debug!(%fault, "a store could not be asked for what is to be there");
                Ok(Standing::Whole)
            }
        }
    }

    /// Writes a file to a place of its own, where it is durable then. Nothing names it: whoever adds a row that does calls
    /// [`unreserve`] with it, and whoever does not get round to that calls [`Self::forget`].
    pub(crate) async fn put(&self, path: &Path) -> Result<Place> {
        self.put_in(self.stores.current(), path).await
    }

    /// As [`Self::put`], in this store.
    pub(crate) async fn put_in(&self, store: &str, path: &Path) -> Result<Place> {
        let (file, sealed) = self.keys.seal(&self.spool, path).await?.unzip();
        let place = Place { store: store.to_owned(), location: self.new_location(), sealed };
        if let Err(error) = self.write(&place, file.as_ref().map_or(path, SpoolFile::path)).await {
            // It may have got there all the same.
            self.forget(&place).await;
            return Err(error);
        }
        Ok(place)
    }

    /// Some stores say of what was long on its way that it is as old as the beginning of that, and clocks differ. So what
    /// takes its time does not rely on being young.
    async fn write(&self, place: &Place, file: &Path) -> Result<()> {
        let mut writing = Box::pin(self.stores.put(&place.store, &place.location, file));
        if let Ok(written) = timeout(QUICK, &mut writing).await {
            return Ok(written?);
        }
        let (written, reserved) = tokio::join!(writing, self.reserve(place));
        written?;
        reserved
    }

    /// Keeps the sweep from what no row names yet, until [`unreserve`]. After some days it is deleted.
    pub(super) async fn reserve(&self, place: &Place) -> Result<()> {
        self.remove_later(place, RESERVED).await
    }

    /// Has what is at a place deleted that no row names, nor will. Where that can't be noted, the sweep finds it.
    pub(crate) async fn forget(&self, place: &Place) {
        if let Err(error) = self.remove_later(place, STILL_READ).await {
            let Place { store, location, .. } = place;
            tracing::warn!(%error, %store, %location, "could not note what is to be deleted; the sweep will find it");
        }
    }

    async fn remove_later(&self, place: &Place, after: Duration) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let not_before = self.now().saturating_add(millis(after));
        media_object::insert_removal(&mut tx, &place.store, &place.location, not_before).await?;
        Ok(tx.commit().await?)
    }

    /// Forgets what was written in vain, and passes the error on.
    async fn undo(&self, written: Option<Place>, error: Error) -> Error {
        if let Some(place) = written {
            self.forget(&place).await;
        }
        error
    }

    /// The bytes of a range. `bytes`: how many there are in all. An error if they are not there: whoever has looked their
    /// place up a while ago looks again first, since they may have been moved ([`Self::find_bytes`] says so).
    pub(crate) async fn read(&self, place: &Place, bytes: u64, range: Range<u64>) -> Result<ByteStream> {
        let gone = || Error::broken(format!("nothing is at {} in the store {}", place.location, place.store));
        self.find_bytes(place, bytes, range).await?.ok_or_else(gone)
    }

    /// As [`Self::read`]; None where nothing is at the place.
    pub(crate) async fn find_bytes(&self, place: &Place, bytes: u64, range: Range<u64>) -> Result<Option<ByteStream>> {
        let range = range.start.min(bytes)..range.end.min(bytes);
        // There is no range of nothing that a store could be asked for.
        if range.is_empty() {
            return Ok(Some(stream::empty().boxed()));
        }
        let opener = place.sealed.as_ref().map(|key| self.keys.open(key, bytes)).transpose()?;
        let stored = opener.as_ref().map_or_else(|| range.clone(), |opener| opener.stored_range(range.clone()));
        let stream = match self.stores.get(&place.store, &place.location, stored).await {
            Ok(stream) => stream,
            Err(StoreFault::Missing) => return Ok(None),
            Err(fault) => return Err(fault.into()),
        };
        Ok(Some(match opener {
            Some(opener) => opener.stream(range, stream),
            None => stream,
        }))
    }

    /// Brings an object to a file on this machine, for what works on files. An error where its bytes are not what they
    /// were.
    pub(crate) async fn fetch_to_spool(&self, object: &Object) -> Result<Received> {
        let mut stream = self.read(&object.place, object.bytes, 0..object.bytes).await?;
        let mut incoming = self.spool.begin().await?;
        let broken = |error: io::Error| Error::Unavailable(format!("The file can't be read at this moment: {error}"));
        while let Some(part) = stream.try_next().await.map_err(broken)? {
            incoming.write(&part).await?;
        }
        let received = incoming.finish().await?;
        if received.digest != object.digest {
            return Err(Error::broken(format!("the bytes of {} are others than they were", object.digest)));
        }
        Ok(received)
    }

    /// Within a transaction that has deleted media: with the last that is made of these bytes, the object goes too, and
    /// what was made of it. To be called for one digest in a transaction, or in the order of the digests.
    pub(crate) async fn let_go(tx: &mut Tx, digest: &Digest, now: i64) -> Result<()> {
        let Some(object) = media_object::lock(tx, digest).await? else { return Ok(()) };
        // Looked for once the object is locked, so that whoever added one is seen.
        if media::is_named(tx, digest).await? {
            return Ok(());
        }
        let not_before = now.saturating_add(millis(STILL_READ));
        let thumbnails = media_thumbnail::delete_of(tx, digest).await?;
        for place in thumbnails.iter().chain([&object.place]) {
            media_object::insert_removal(tx, &place.store, &place.location, not_before).await?;
        }
        Ok(media_object::delete(tx, digest).await?)
    }

    /// Folders of a size that every file system can bear, and a name that was never given.
    fn new_location(&self) -> String {
        let mut location = String::with_capacity(38);
        for (index, byte) in self.random.bytes::<18>().into_iter().enumerate() {
            if index == 1 || index == 2 {
                location.push('/');
            }
            // Writing to a `String` can't fail.
            write!(location, "{byte:02x}").unwrap_or_default();
        }
        location
    }

    fn now(&self) -> i64 {
        self.clock.now().get().into()
    }
}

/// With the row that names a place from now on: it may have been reserved while it was written ([`Objects::reserve`]).
pub(super) async fn unreserve(tx: &mut Tx, place: &StoredPlace) -> Result<()> {
    Ok(media_object::delete_removal(tx, &place.store, &place.location).await?)
}

/// Makes sure that a locked row names bytes that are there. `written`: where the same ones were written as well; `lost`:
/// where they were found missing before. Says whether the row names what was written.
async fn settle(
    tx: &mut Tx,
    stored: StoredObject,
    written: Option<&Place>,
    lost: Option<&StoredPlace>,
    now: i64,
) -> Result<(Object, bool)> {
    let Some(written) = written.map(Place::to_stored) else { return Ok((stored.into(), false)) };
    let not_before = now.saturating_add(millis(STILL_READ));
    if lost == Some(&stored.place) {
        media_object::set_place(tx, &stored.digest, &stored.place, &written).await?;
        unreserve(tx, &written).await?;
        // In case that it was not lost after all.
        media_object::insert_removal(tx, &stored.place.store, &stored.place.location, not_before).await?;
        return Ok((StoredObject { place: written, ..stored }.into(), true));
    }
    // Somebody else has written them meanwhile.
    media_object::insert_removal(tx, &written.store, &written.location, not_before).await?;
    Ok((stored.into(), false))
}
