//! Another server is asked for something, and what it sends is kept.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Fetched, OriginError, OriginServers, Outcome, RemoteMedia};
use crate::{
    db::Tx,
    error::{Error, Result},
    media::{
        file_name, kind,
        library::{Found, MediaUri},
        objects::Object,
        spool::Received,
    },
    store::{
        media::{self, NewMedia, Origin},
        media_quarantine::{self, QuarantineKind},
        media_upkeep,
    },
};

/// What is said of bytes that have come.
struct Entry {
    uri: MediaUri,
    content_type: Option<String>,
    file_name: Option<String>,
}

impl RemoteMedia {
    /// `wait`: for an upload to the other server. An error is one of this server's.
    pub(super) async fn fetch(&self, origin: &dyn OriginServers, uri: &MediaUri, wait: Duration) -> Result<Outcome> {
        // Whoever was faster may have ended since the caller looked.
        if !matches!(self.0.library.find(uri).await?, Found::Absent) {
            return Ok(Outcome::Done);
        }
        let Ok(_queue) = self.0.queue.try_acquire() else { return Ok(Outcome::Busy) };
        let of_server = self.places_of(&uri.server_name);
        let _of_server = of_server.acquire().await.map_err(Error::broken)?;
        let _place = self.0.places.acquire().await.map_err(Error::broken)?;
        let patience = self.0.patience;
        let fetched = match timeout(wait + patience.answer, origin.fetch(uri, wait)).await {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(OriginError::Absent)) => return Ok(Outcome::Absent),
            Ok(Err(OriginError::NotYet)) => return Ok(Outcome::NotYet),
            Ok(Err(error @ OriginError::Unavailable(_))) => return Ok(failed(uri, &error.to_string())),
            Err(_elapsed) => return Ok(failed(uri, "its server has not answered in time")),
        };
        let Fetched { content_type, file_name, declared_bytes, mut bytes } = fetched;
        let too_large = |bytes: u64| bytes > self.0.max_bytes;
        if declared_bytes.is_some_and(too_large) {
            return Ok(Outcome::TooLarge);
        }
        let mut incoming = self.0.library.objects().spool().begin().await?;
        let deadline = Instant::now() + patience.whole;
        loop {
            let next = timeout_at(deadline.min(Instant::now() + patience.stall), bytes.next()).await;
            let part = match next {
                Ok(Some(Ok(part))) => part,
                Ok(None) => break,
                Ok(Some(Err(error))) => return Ok(failed(uri, &format!("it has broken off: {error}"))),
                Err(_elapsed) => return Ok(failed(uri, "it comes too slowly")),
            };
            if too_large(incoming.bytes().saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX))) {
                return Ok(Outcome::TooLarge);
            }
            incoming.write(&part).await?;
        }
        if declared_bytes.is_some_and(|declared| declared != incoming.bytes()) {
            return Ok(failed(uri, "it has broken off, or is longer than was said"));
        }
        // The connection is not needed any more.
        drop(bytes);
        let content_type = content_type.as_deref().and_then(kind::clean);
        let file_name = file_name.as_deref().and_then(file_name::sanitise);
        self.keep(incoming.finish().await?, Entry { uri: uri.clone(), content_type, file_name }).await
    }

    /// Nothing stays of bytes that nobody may have: a row says so from then on, and they are not fetched again.
    async fn keep(&self, received: Received, entry: Entry) -> Result<Outcome> {
        let (uri, digest) = (entry.uri.clone(), received.digest.to_string());
        if !self.is_quarantined(QuarantineKind::Digest, &digest).await? {
            let (sniffed, here) = (kind::sniff(&received.head), self.clone());
            let kept = self.0.library.objects().keep(received, sniffed, move |tx, object| {
                Box::pin(async move { here.enter(tx, object, &entry).await })
            });
            match kept.await {
                Ok(()) => return Ok(Outcome::Done),
                // Another node was faster, or they have been quarantined meanwhile.
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        if self.is_quarantined(QuarantineKind::Digest, &digest).await? {
            let mut tx = self.0.db.begin().await?;
            media_upkeep::quarantine(&mut tx, uri.columns(), &digest, false, self.now()).await?;
            tx.commit().await?;
        }
        Ok(Outcome::Done)
    }

    /// In the transaction that makes sure of the bytes. [`Error::Conflict`] where they are not to be kept.
    async fn enter(&self, tx: &mut Tx, object: &Object, entry: &Entry) -> Result<()> {
        let Entry { uri, content_type, file_name } = entry;
        if media_quarantine::is_quarantined(tx, QuarantineKind::Digest, &object.digest.to_string()).await? {
            return Err(Error::Conflict);
        }
        let (server_name, media_id) = uri.columns();
        let new = NewMedia {
            server_name,
            media_id,
            origin: Origin::Remote,
            user_id: None,
            digest: &object.digest,
            bytes: object.bytes,
            content_type: content_type.as_deref(),
            file_name: file_name.as_deref(),
            now: self.now(),
        };
        if media::insert(tx, &new).await? { Ok(()) } else { Err(Error::Conflict) }
    }
}

fn failed(uri: &MediaUri, reason: &str) -> Outcome {
    tracing::info!(%uri, %reason, "media of another server did not come");
    Outcome::Failed
}
