//! What `mxc:` URIs name, and whether it may be had.
//!
//! Each look reads the row: what is deleted or quarantined is so at once, on every node, and nothing is remembered here
//! but who was asked for lately.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#matrix-content-mxc-uris>

use std::{collections::BTreeSet, fmt, mem, ops::Range, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ruma::{MxcUri, OwnedServerName};
use tokio::{
    sync::broadcast,
    time::{Instant, sleep_until},
};

use super::objects::{Object, Objects};
use crate::{
    db::{Db, Tx},
    edge::object_store::ByteStream,
    error::{Error, Result},
    ground::clock::{Clock, millis},
    store::media::{self, DeletedMedia},
};

pub(crate) use crate::store::media::Origin;

/// Of a media id, in bytes.
const MAX_MEDIA_ID: usize = 255;
/// How long anybody waits for an upload.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// How often it is looked whether another node has received it.
const LOOKS: Duration = Duration::from_millis(500);
/// To so much the row says when media were last used.
const USE: Duration = Duration::from_hours(24);
/// How many uses are remembered until they are written. Whatever is beyond is noted when it is used next.
const USES: usize = 20_000;
/// How many of them are written at once.
const USES_AT_ONCE: usize = 200;
/// How many uploads may end while somebody is on the way to look. Who has missed some just looks.
const UPLOADS_HEARD: usize = 256;

/// The part of an `mxc:` URI that is its server's own: 1 to 255 of the characters `A-Za-z0-9_-`, so it can't lead
/// anywhere else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MediaId(String);

impl MediaId {
    /// None for what can't be one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let is_id = (1..=MAX_MEDIA_ID).contains(&text.len()) && text.bytes().all(is_valid);
        is_id.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An `mxc:` URI.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MediaUri {
    pub(crate) server_name: OwnedServerName,
    pub(crate) media_id: MediaId,
}

impl MediaUri {
    /// None for what is no such URI.
    pub(crate) fn parse(uri: &MxcUri) -> Option<Self> {
        let (server_name, media_id) = uri.parts().ok()?;
        Some(Self { server_name: server_name.to_owned(), media_id: MediaId::parse(media_id)? })
    }

    /// The key of its row: the server's name and the media id.
    pub(crate) fn columns(&self) -> (&str, &str) {
        (self.server_name.as_str(), self.media_id.as_str())
    }
}

impl fmt::Display for MediaUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mxc://{}/{}", self.server_name, self.media_id.0)
    }
}

/// What a URI names.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) uri: MediaUri,
    pub(crate) origin: Origin,
    pub(crate) object: Object,
    /// As whoever brought it says. [`super::kind::served_type`] says what is made of it.
    pub(crate) content_type: Option<String>,
    pub(crate) file_name: Option<String>,
    /// In milliseconds since the Unix epoch.
    pub(crate) created_at: i64,
}

/// What comes of looking for a URI.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Item(Box<Item>),
    /// Something may still be uploaded.
    NotYet,
    Absent,
    /// Nobody may have it.
    Quarantined,
}

/// All media. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Library {
    db: Db,
    objects: Objects,
    clock: Clock,
    /// What was used and is to be noted.
    used: Arc<Mutex<BTreeSet<MediaUri>>>,
    /// What was uploaded here to a URI that was there before.
    filled: broadcast::Sender<MediaUri>,
}

impl Library {
    pub(crate) fn new(db: Db, objects: Objects, clock: Clock) -> Self {
        Self { db, objects, clock, used: Arc::default(), filled: broadcast::Sender::new(UPLOADS_HEARD) }
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// What a URI names now.
    pub(crate) async fn find(&self, uri: &MediaUri) -> Result<Found> {
        let (server_name, media_id) = uri.columns();
        let found = media::find(&mut self.db.read().await?, server_name, media_id).await?;
        let Some(row) = found else { return Ok(Found::Absent) };
        if row.quarantined {
            return Ok(Found::Quarantined);
        }
        let now = self.now();
        let Some(object) = row.object else {
            let is_open = row.expires_at.is_some_and(|until| until > now);
            return Ok(if is_open { Found::NotYet } else { Found::Absent });
        };
        if now.saturating_sub(row.used_at) >= millis(USE) {
            self.note_use(uri);
        }
        Ok(Found::Item(Box::new(Item {
            uri: uri.clone(),
            origin: row.origin,
            object: object.into(),
            content_type: row.content_type,
            file_name: row.file_name,
            created_at: row.created_at,
        })))
    }

    /// As [`Self::find`], but waits where nothing has been uploaded yet, for a minute at most.
    pub(crate) async fn wait_for(&self, uri: &MediaUri, timeout: Duration) -> Result<Found> {
        // Before the first look, so that nothing is missed after it.
        let mut filled = self.filled.subscribe();
        let deadline = Instant::now() + timeout.min(LONGEST_WAIT);
        loop {
            let found = self.find(uri).await?;
            let now = Instant::now();
            if !matches!(found, Found::NotYet) || now >= deadline {
                return Ok(found);
            }
            let next_look = sleep_until(deadline.min(now + LOOKS));
            tokio::select! {
                () = next_look => {}
                () = hear_of(&mut filled, uri) => {}
            }
        }
    }

    /// Has whoever waits for a URI on this node look at it.
    pub(crate) fn note_filled(&self, uri: &MediaUri) {
        // Without anybody who listens it is an error, and nobody has to know.
        self.filled.send(uri.clone()).unwrap_or_default();
    }

    /// As [`delete`], unless it was used after a time or has been quarantined.
    pub(crate) async fn delete_unused(&self, uri: &MediaUri, used_at: i64) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        let deleted = media::delete_unused(&mut tx, uri.columns(), used_at).await?;
        end_deletion(tx, deleted, self.now()).await
    }

    /// The bytes of a range, wherever they are by now.
    pub(crate) async fn open(&self, item: &Item, range: Range<u64>) -> Result<ByteStream> {
        let Object { place, bytes, .. } = &item.object;
        if let Some(stream) = self.objects.find_bytes(place, *bytes, range.clone()).await? {
            return Ok(stream);
        }
        // They may have been moved since the row was read.
        if let Found::Item(again) = self.find(&item.uri).await?
            && let Some(stream) = self.objects.find_bytes(&again.object.place, *bytes, range).await?
        {
            return Ok(stream);
        }
        Err(Error::broken(format!("the bytes of {} are gone from the store {}", item.uri, place.store)))
    }

    /// Writes what was used on this node. To be called now and then; what is lost is noted at the next use.
    pub(crate) async fn flush_uses(&self) -> Result<()> {
        let used = mem::take(&mut *self.used.lock());
        let used: Vec<(&str, &str)> = used.iter().map(MediaUri::columns).collect();
        for some in used.chunks(USES_AT_ONCE) {
            let mut tx = self.db.begin().await?;
            media::set_used(&mut tx, some, self.now()).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    fn note_use(&self, uri: &MediaUri) {
        let mut used = self.used.lock();
        if used.len() < USES {
            used.insert(uri.clone());
        }
    }

    fn now(&self) -> i64 {
        self.clock.now().get().into()
    }
}

/// Deletes what a URI names, with the bytes if nothing else has the same. Says false where there is nothing.
pub(crate) async fn delete(db: &Db, uri: &MediaUri, now: i64) -> Result<bool> {
    let mut tx = db.begin().await?;
    let (server_name, media_id) = uri.columns();
    let deleted = media::delete(&mut tx, server_name, media_id).await?;
    end_deletion(tx, deleted, now).await
}

/// Lets the bytes go if they were the last of these. Says false where nothing was deleted.
async fn end_deletion(mut tx: Tx, deleted: Option<DeletedMedia>, now: i64) -> Result<bool> {
    let Some(deleted) = deleted else { return Ok(false) };
    if let Some(digest) = deleted.digest {
        Objects::let_go(&mut tx, &digest, now).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Returns when a URI may have been uploaded to.
async fn hear_of(filled: &mut broadcast::Receiver<MediaUri>, uri: &MediaUri) {
    loop {
        match filled.recv().await {
            Ok(other) if other != *uri => {}
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            // Not as long as the library is there, whose sender it is.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Option<String> {
        MediaUri::parse(<&MxcUri>::from(uri)).map(|uri| uri.to_string())
    }

    /// CVE-2021-41281: a media id that leads out of its folder.
    #[test]
    fn a_media_id_leads_nowhere() {
        let (longest, longer) = ("a".repeat(255), "a".repeat(256));
        for id in ["a", "AZaz09_-", &longest] {
            assert_eq!(MediaId::parse(id).as_ref().map(MediaId::as_str), Some(id));
        }
        for id in ["", ".", "..", "../a", "a/b", r"a\b", "a%2fb", "a.png", "a b", "a\0", "é", &longer] {
            assert_eq!(MediaId::parse(id), None, "{id:?}");
        }
    }

    #[test]
    fn a_uri_names_a_server_and_something_of_its() {
        for uri in ["mxc://example.org/abc", "mxc://127.0.0.1:8448/a-b_c", "mxc://[::1]/A"] {
            assert_eq!(parse(uri).as_deref(), Some(uri));
        }
        for uri in [
            "",
            "mxc://",
            "mxc://example.org",
            "mxc://example.org/",
            "mxc:///abc",
            "mxc://example.org/a/b",
            "mxc://127.0.0.1/../../../some_service/etc/passwd",
            "mxc://example.org/abc?x=y",
            "https://example.org/abc",
        ] {
            assert_eq!(parse(uri), None, "{uri}");
        }
    }
}
