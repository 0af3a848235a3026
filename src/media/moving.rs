//! Media move from one store to another while servers run, and keys of what is encrypted are sealed anew.
//!
//! What is moved is written to a new place, read back and compared. Only then does its row say where it is, unless the row
//! has changed meanwhile, and what was at the old place goes as everything that nobody names: ten minutes later, or once
//! no signed URL leads there any more, for whoever still reads it. So it can be broken off at any time, and begun again.

#[cfg(test)]
mod tests;

use std::io;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    objects::{self, Place},
    seal::SealedKey,
    spool::Received,
    sweep::MediaUpkeep,
};
use crate::{
    db::Tx,
    edge::object_store::StoreFault,
    error::{Error, Result},
    ground::{
        clock::millis,
        digest::{Digest, Hasher},
    },
    store::{
        media_object::{self, StoredObject, StoredPlace},
        media_thumbnail::{self, PlacedThumbnail},
        media_upkeep,
    },
};

/// How many rows are read at once.
const ROWS: i64 = 100;
/// How many things are moved at once.
const AT_ONCE: usize = 4;
/// A store that gives out nothing of so many things one after the other is out of order. Of fewer the disk may be.
const FAILURES: usize = 20;

/// How far a move has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MoveReport {
    pub(crate) objects: u64,
    pub(crate) thumbnails: u64,
    /// Of both.
    pub(crate) bytes: u64,
    /// What could not be read, or not be opened, and is where it was. The log says which.
    pub(crate) failed: u64,
    /// How many objects there were to move when it began, and their bytes.
    pub(crate) of_objects: u64,
    pub(crate) of_bytes: u64,
}

/// What came of sealing keys anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RotateReport {
    pub(crate) objects: u64,
    pub(crate) thumbnails: u64,
    /// Those whose keys don't open, such as for want of their master key. The log says which.
    pub(crate) failed: u64,
}

/// Called whenever something was moved.
pub(crate) type MoveProgress<'a> = &'a mut (dyn FnMut(&MoveReport) + Send);
/// Called after each step.
pub(crate) type RotateProgress<'a> = &'a mut (dyn FnMut(&RotateReport) + Send);

/// Whatever has a place in a store.
enum Thing {
    Object(StoredObject),
    Thumbnail(PlacedThumbnail),
}

#[derive(Clone, Copy)]
enum Table {
    Objects,
    Thumbnails,
}

/// What became of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    Yes,
    /// It was moved or deleted meanwhile.
    No,
    /// It is damaged, and is where it was.
    Damaged,
    /// Its store does not give it out now.
    Unavailable,
}

/// Why something can't be moved.
enum Unread {
    Damaged(String),
    Unavailable(String),
}

impl Thing {
    fn place(&self) -> &StoredPlace {
        match self {
            Self::Object(object) => &object.place,
            Self::Thumbnail(thumbnail) => &thumbnail.place,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Object(object) => object.bytes,
            Self::Thumbnail(thumbnail) => thumbnail.bytes,
        }
    }

    /// Of the object, or of what the thumbnail shows.
    fn digest(&self) -> &Digest {
        match self {
            Self::Object(object) => &object.digest,
            Self::Thumbnail(thumbnail) => &thumbnail.digest,
        }
    }

    /// By what the rows of its table are ordered.
    fn key(&self) -> (String, String) {
        match self {
            Self::Object(object) => (object.digest.to_string(), String::new()),
            Self::Thumbnail(thumbnail) => (thumbnail.digest.to_string(), thumbnail.variant.clone()),
        }
    }

    /// Writes another place into its row, unless that has changed.
    async fn set_place(&self, tx: &mut Tx, place: &StoredPlace) -> Result<bool> {
        Ok(match self {
            Self::Object(object) => media_object::set_place(tx, &object.digest, &object.place, place).await?,
            Self::Thumbnail(PlacedThumbnail { digest, variant, place: from, .. }) => {
                media_thumbnail::set_place(tx, (digest, variant), from, place).await?
            }
        })
    }
}

impl MediaUpkeep {
    /// Moves all that is in one store to another. What comes in meanwhile goes where the configuration says, so that is to be
    /// the other one. What can't be read whole stays and is counted. Ends with the first error of the database or of the store
    /// that is written to, and where the one that is read gives out nothing any more.
    ///
    /// What is not encrypted yet is afterwards, if there is a master key, and what is under an old one gets a new key.
    pub(crate) async fn move_media(&self, from: &str, to: &str, progress: MoveProgress<'_>) -> Result<MoveReport> {
        let stores = self.library().objects().stores();
        if let Some(unknown) = [from, to].into_iter().find(|store| !stores.has(store)) {
            return Err(Error::invalid_param(StoreFault::UnknownStore(unknown.to_owned()).to_string()));
        }
        if from == to {
            return Err(Error::invalid_param("Media can't be moved to where they are"));
        }
        let mut report = MoveReport::default();
        let usage = media_object::usage(&mut self.db().read().await?).await?;
        if let Some(usage) = usage.iter().find(|usage| usage.store == from) {
            // Sums are never below zero.
            report.of_objects = u64::try_from(usage.objects).unwrap_or(0);
            report.of_bytes = u64::try_from(usage.bytes).unwrap_or(0);
        }
        progress(&report);
        let mut failures = 0;
        for table in [Table::Objects, Table::Thumbnails] {
            let mut after = (String::new(), String::new());
            loop {
                let page = self.page(table, from, &after).await?;
                let Some(last) = page.last() else { break };
                after = last.key();
                let moves = stream::iter(page).map(|thing| async move {
                    // Each holds a file's way through two stores.
                    let moved = Box::pin(self.move_one(&thing, to)).await?;
                    Ok::<_, Error>((moved, thing.bytes()))
                });
                let mut moves = moves.buffer_unordered(AT_ONCE);
                while let Some((moved, bytes)) = moves.try_next().await? {
                    report.note(table, moved, bytes);
                    progress(&report);
                    failures = if moved == Moved::Unavailable { failures + 1 } else { 0 };
                    if failures >= FAILURES {
                        return Err(Error::Unavailable(format!("the store {from} gives out nothing at this moment")));
                    }
                }
            }
        }
        Ok(report)
    }

    /// Seals the keys of all that is encrypted with the first master key of the configuration, after which the others are
    /// needed no more. No bytes are touched, and running servers need not know: they have all keys until then.
    ///
    /// `M_INVALID_PARAM` without a master key.
    pub(crate) async fn rotate(&self, progress: RotateProgress<'_>) -> Result<RotateReport> {
        let Some(current) = self.library().objects().keys().current() else {
            return Err(Error::invalid_param("The configuration has no master key for media"));
        };
        let mut report = RotateReport::default();
        for table in [Table::Objects, Table::Thumbnails] {
            let mut after = (String::new(), String::new());
            loop {
                let page = self.page_of_old(table, current, &after).await?;
                let Some(last) = page.last() else { break };
                after = last.key();
                let mut tx = self.db().begin().await?;
                for thing in &page {
                    match self.reseal(thing.place()) {
                        Ok(Some(place)) => {
                            // Or it was moved or deleted meanwhile: what is written anew has a new key.
                            if thing.set_place(&mut tx, &place).await? {
                                report.note(table);
                            }
                        }
                        Ok(None) => {}
                        Err(error) => {
                            tracing::warn!(digest = %thing.digest(), %error, "a key could not be sealed anew");
                            report.failed += 1;
                        }
                    }
                }
                tx.commit().await?;
                progress(&report);
            }
        }
        Ok(report)
    }

    async fn move_one(&self, thing: &Thing, to: &str) -> Result<Moved> {
        let objects = self.library().objects();
        let received = match self.fetch(thing).await? {
            Ok(received) => received,
            Err(unread) => return self.note_unread(thing, unread).await,
        };
        let place = objects.put_in(to, received.path()).await?;
        // To read it back takes a while, too.
        let is_same = match objects.reserve(&place).await {
            Ok(()) => self.is_same(&place, &received).await,
            Err(error) => Err(error),
        };
        match is_same {
            Ok(true) => {}
            Ok(false) => {
                objects.forget(&place).await;
                return Err(Error::broken(format!("the store {to} does not give back what was written to it")));
            }
            Err(error) => {
                objects.forget(&place).await;
                return Err(error);
            }
        }
        let mut tx = self.db().begin().await?;
        if !thing.set_place(&mut tx, &place.to_stored()).await? {
            drop(tx);
            objects.forget(&place).await;
            return Ok(Moved::No);
        }
        objects::unreserve(&mut tx, &place.to_stored()).await?;
        let (old, not_before) = (thing.place(), self.now().saturating_add(millis(self.still_read())));
        media_object::insert_removal(&mut tx, &old.store, &old.location, not_before).await?;
        // Where the connection breaks here, either may be the place: the sweep finds out.
        tx.commit().await?;
        Ok(Moved::Yes)
    }

    /// Brings a thing to a file on this machine, or returns why it can't be.
    async fn fetch(&self, thing: &Thing) -> Result<Result<Received, Unread>> {
        let (objects, place) = (self.library().objects(), Place::from(thing.place().clone()));
        let damaged = |reason: &str| Ok(Err(Unread::Damaged(reason.to_owned())));
        match self.is_whole(&place, thing.bytes()).await {
            Ok(true) => {}
            Ok(false) => return damaged("it is not there, or not all of it"),
            Err(Error::Unavailable(reason)) => return Ok(Err(Unread::Unavailable(reason))),
            Err(error) => return Err(error),
        }
        let mut bytes = match objects.find_bytes(&place, thing.bytes(), 0..thing.bytes()).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return damaged("it is not there"),
            Err(Error::Broken(reason)) => return damaged(&reason),
            Err(Error::Unavailable(reason)) => return Ok(Err(Unread::Unavailable(reason))),
            Err(error) => return Err(error),
        };
        let mut incoming = objects.spool().begin().await?;
        while let Some(part) = bytes.next().await {
            match part {
                Ok(part) => incoming.write(&part).await?,
                Err(error) if is_damage(&error) => return damaged(&error.to_string()),
                Err(error) => return Ok(Err(Unread::Unavailable(error.to_string()))),
            }
        }
        let received = incoming.finish().await?;
        let is_same = match thing {
            Thing::Object(object) => received.digest == object.digest,
            Thing::Thumbnail(thumbnail) => received.bytes == thumbnail.bytes,
        };
        if is_same { Ok(Ok(received)) } else { damaged("its bytes are others than they were") }
    }

    /// What can't be read may have been moved or deleted since its row was.
    async fn note_unread(&self, thing: &Thing, unread: Unread) -> Result<Moved> {
        let mut tx = self.db().begin().await?;
        // To where it is: says whether that is so, and changes nothing.
        if !thing.set_place(&mut tx, thing.place()).await? {
            return Ok(Moved::No);
        }
        drop(tx);
        let (moved, reason) = match unread {
            Unread::Damaged(reason) => (Moved::Damaged, reason),
            Unread::Unavailable(reason) => (Moved::Unavailable, reason),
        };
        let StoredPlace { store, location, .. } = thing.place();
        tracing::error!(digest = %thing.digest(), %store, %location, %reason, "something of media can't be moved");
        Ok(moved)
    }

    /// Whether what is at a place is what was written there.
    async fn is_same(&self, place: &Place, written: &Received) -> Result<bool> {
        let objects = self.library().objects();
        let Some(mut bytes) = objects.find_bytes(place, written.bytes, 0..written.bytes).await? else {
            return Ok(false);
        };
        let mut hasher = Hasher::new();
        while let Some(part) = bytes.next().await {
            match part {
                Ok(part) => hasher.update(&part),
                Err(error) if is_damage(&error) => return Ok(false),
                Err(error) => return Err(Error::Unavailable(format!("reading has broken off: {error}"))),
            }
        }
        Ok(hasher.finish() == written.digest)
    }

    /// A place with its key sealed with the current master key. None where the key is that already, or there is none.
    fn reseal(&self, place: &StoredPlace) -> Result<Option<StoredPlace>> {
        let Some((key_id, sealed)) = place.key.clone() else { return Ok(None) };
        let resealed = self.library().objects().keys().reseal(&SealedKey { key_id, sealed })?;
        Ok(resealed.map(|key| StoredPlace { key: Some((key.key_id, key.sealed)), ..place.clone() }))
    }

    /// What is in a store, after a thing.
    async fn page(&self, table: Table, store: &str, (digest, variant): &(String, String)) -> Result<Vec<Thing>> {
        let mut conn = self.db().read().await?;
        Ok(match table {
            Table::Objects => {
                let page = media_object::page(&mut conn, store, digest, ROWS).await?;
                page.into_iter().map(Thing::Object).collect()
            }
            Table::Thumbnails => {
                let page = media_thumbnail::page(&mut conn, store, (digest, variant), ROWS).await?;
                page.into_iter().map(Thing::Thumbnail).collect()
            }
        })
    }

    /// What is encrypted under another master key than this one, after a thing.
    async fn page_of_old(&self, table: Table, key_id: &str, after: &(String, String)) -> Result<Vec<Thing>> {
        let (digest, variant) = after;
        let mut conn = self.db().read().await?;
        Ok(match table {
            Table::Objects => {
                let page = media_upkeep::page_of_old_objects(&mut conn, key_id, digest, ROWS).await?;
                page.into_iter().map(Thing::Object).collect()
            }
            Table::Thumbnails => {
                let page = media_upkeep::page_of_old_thumbnails(&mut conn, key_id, (digest, variant), ROWS).await?;
                page.into_iter().map(Thing::Thumbnail).collect()
            }
        })
    }
}

impl MoveReport {
    fn note(&mut self, table: Table, moved: Moved, bytes: u64) {
        match (moved, table) {
            (Moved::Yes, Table::Objects) => self.objects += 1,
            (Moved::Yes, Table::Thumbnails) => self.thumbnails += 1,
            (Moved::Damaged | Moved::Unavailable, _) => self.failed += 1,
            (Moved::No, _) => {}
        }
        if moved == Moved::Yes {
            self.bytes += bytes;
        }
    }
}

impl RotateReport {
    fn note(&mut self, table: Table) {
        match table {
            Table::Objects => self.objects += 1,
            Table::Thumbnails => self.thumbnails += 1,
        }
    }
}

/// Whether bytes are others than were written, or fewer, rather than not to be had now.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}
