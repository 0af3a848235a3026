//! Takes in the picture that a page shows, so that nobody who is shown a preview asks the page's server for it: it would
//! learn who they are.

use std::path::Path;

use futures_util::FutureExt as _;
use image::ImageReader;
use ruma::OwnedServerName;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::look::Looker;
use crate::{
    db::Db,
    edge::outside_client::OutsideResponse,
    error::{Error, Result},
    ground::{clock::Clock, digest::Digest, random::Random},
    media::{
        kind,
        objects::{Object, Objects},
        spool::Received,
    },
    store::{
        media::{self, NewMedia, Origin},
        media_quarantine::{self, QuarantineKind},
    },
};

/// What a picture is by its bytes, whatever its server calls it. None of these can run anything.
const TYPES: &[&str] = &["image/apng", "image/avif", "image/gif", "image/jpeg", "image/png", "image/webp"];
/// Of a media id, in characters.
const ID_LENGTH: usize = 24;

/// Where pictures go.
pub(super) struct Pictures {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) server_name: OwnedServerName,
    pub(super) objects: Objects,
    /// In bytes.
    pub(super) max_bytes: u64,
}

impl Pictures {
    /// Keeps a picture, and returns what a preview says of it. None where it is too large, no picture, not to be had or
    /// not to be shown. An error where it could not be kept although it may be.
    pub(super) async fn keep(&self, looker: &Looker, response: OutsideResponse) -> Result<Option<Map<String, Value>>> {
        let receiving = timeout(looker.time(), self.receive(response));
        let Some(received) = receiving.await.unwrap_or(Ok(None))? else { return Ok(None) };
        let content_type = kind::sniff(&received.head);
        if !TYPES.contains(&content_type) || self.is_quarantined(&received.digest).await? {
            return Ok(None);
        }
        let path = received.path().to_owned();
        let dimensions = looker.work(move || dimensions(&path)).await.flatten();
        let bytes = received.bytes;
        let Some(uri) = self.store(received, content_type).await? else { return Ok(None) };
        let mut shown = Map::new();
        shown.insert("og:image".to_owned(), json!(uri));
        shown.insert("og:image:type".to_owned(), json!(content_type));
        shown.insert("matrix:image:size".to_owned(), json!(bytes));
        if let Some((width, height)) = dimensions {
            shown.insert("og:image:width".to_owned(), json!(width));
            shown.insert("og:image:height".to_owned(), json!(height));
        }
        Ok(Some(shown))
    }

    /// None where it does not come whole, or is too large.
    async fn receive(&self, mut response: OutsideResponse) -> Result<Option<Received>> {
        let mut incoming = self.objects.spool().begin().await?;
        loop {
            match response.chunk().await {
                Ok(Some(part)) => {
                    let bytes = incoming.bytes().saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
                    if bytes > self.max_bytes {
                        return Ok(None);
                    }
                    incoming.write(&part).await?;
                }
                Ok(None) => return Ok(Some(incoming.finish().await?)),
                Err(reason) => {
                    tracing::debug!(%reason, "a page's picture did not come whole");
                    return Ok(None);
                }
            }
        }
    }

    async fn is_quarantined(&self, digest: &Digest) -> Result<bool> {
        let mut conn = self.db.read().await?;
        Ok(media_quarantine::is_quarantined(&mut conn, QuarantineKind::Digest, &digest.to_string()).await?)
    }

    /// Its URI. None where it has been quarantined meanwhile.
    async fn store(&self, received: Received, content_type: &'static str) -> Result<Option<String>> {
        let (server_name, media_id) = (self.server_name.clone(), self.random.token(ID_LENGTH));
        let (uri, now) = (format!("mxc://{server_name}/{media_id}"), self.clock.now().get().into());
        let kept = self.objects.keep(received, content_type, move |tx, object| {
            async move {
                let Object { digest, bytes, .. } = object;
                let name = digest.to_string();
                if media_quarantine::is_quarantined(tx, QuarantineKind::Digest, &name).await? {
                    return Err(Error::forbidden("This picture is quarantined"));
                }
                let new = NewMedia {
                    server_name: server_name.as_str(),
                    media_id: &media_id,
                    origin: Origin::Preview,
                    // It is nobody's: whoever asked for the preview only named the page.
                    user_id: None,
                    digest,
                    bytes: *bytes,
                    content_type: Some(content_type),
                    file_name: None,
                    now,
                };
                media::insert(tx, &new).await.map_err(Error::from)
            }
            .boxed()
        });
        match kept.await {
            Ok(true) => Ok(Some(uri)),
            Ok(false) => Err(Error::broken("a media id was drawn twice")),
            Err(Error::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// None where only others can read it. Reads no more than a picture's head, but for a JPEG.
fn dimensions(path: &Path) -> Option<(u32, u32)> {
    ImageReader::open(path).ok()?.with_guessed_format().ok()?.into_dimensions().ok()
}
