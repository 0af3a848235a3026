//! Media whose time is over, and what a crash has left.
//!
//! What is done now and then ([`MediaUpkeep::tidy`]) goes in steps, each of which stays done. The sweep compares all that a
//! store has with all that the database knows, both ways: it takes as long as there is much, so an operator begins it.

#[cfg(test)]
mod tests;
mod tidy;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;

use super::{
    library::Library,
    objects::{Place, STILL_READ},
};
use crate::{
    config::{MediaConfig, MediaRedirect, UrlPreviewsConfig},
    db::Db,
    edge::object_store::{Listed, StoreFault},
    error::{Error, Result},
    ground::{
        clock::{Clock, millis},
        digest::Digest,
    },
    store::{media_object, media_thumbnail, media_upkeep},
};

/// However young the operator lets it be: what is younger may be on its way to a row.
const YOUNGEST: Duration = Duration::from_hours(1);
/// How long nobody has asked for the picture of a page that no preview shows any more: clients remember those a while.
const PREVIEW_PICTURES: Duration = Duration::from_hours(7 * 24);
/// How many things of a store are compared with the database at once.
const LISTED: usize = 500;
/// How many rows are compared with a store at once.
const ROWS: i64 = 500;
/// How many requests a store gets at once.
const REQUESTS: usize = 16;
/// How many losses are named in a report. All are counted and logged.
const NAMED: usize = 100;

/// Tidies media. Cheap to clone.
#[derive(Clone)]
pub(crate) struct MediaUpkeep(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    library: Library,
    config: MediaConfig,
    /// How long nobody may have asked for a page's picture before it goes.
    preview_lifetime: Duration,
    /// When the bytes of other servers' media were counted last.
    counted_at: Mutex<Option<i64>>,
}

/// What a sweep has found, and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SweepReport {
    /// What the store has.
    pub(crate) stored: u64,
    pub(crate) stored_bytes: u64,
    /// What of it no row names.
    pub(crate) unnamed: u64,
    pub(crate) unnamed_bytes: u64,
    /// What of that was deleted: the rest is young, or was only to be counted.
    pub(crate) deleted: u64,
    pub(crate) deleted_bytes: u64,
    /// What has not the form of a location, and is not ours therefore. It is left alone.
    pub(crate) foreign: u64,
    /// How many rows name something in the store.
    pub(crate) rows: u64,
    /// How many objects are not there, or not whole.
    pub(crate) lost: u64,
    /// How many thumbnails are not there, or not whole. They are made anew when somebody asks.
    pub(crate) lost_thumbnails: u64,
    /// Some of those that are lost.
    pub(crate) losses: Vec<Loss>,
}

/// An object whose bytes are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) digest: Digest,
    pub(crate) location: String,
    /// Some media that are made of it.
    pub(crate) uri: Option<String>,
}

/// For how long nobody may have asked for a page's picture.
fn preview_lifetime(config: &UrlPreviewsConfig) -> Duration {
    Duration::from_hours(u64::from(config.cache_hours)) + PREVIEW_PICTURES
}

/// Called after each step with what there is so far.
pub(crate) type SweepProgress<'a> = &'a mut (dyn FnMut(&SweepReport) + Send);

impl MediaUpkeep {
    pub(crate) fn new(
        (db, clock): (Db, Clock),
        library: Library,
        (config, previews): (&MediaConfig, &UrlPreviewsConfig),
    ) -> Self {
        let preview_lifetime = preview_lifetime(previews);
        let counted_at = Mutex::default();
        Self(Arc::new(Inner { db, clock, library, config: config.clone(), preview_lifetime, counted_at }))
    }

    pub(super) fn db(&self) -> &Db {
        &self.0.db
    }

    pub(super) fn library(&self) -> &Library {
        &self.0.library
    }

    /// For how long somebody may go by where something was before it moved: clients may have a URL that leads there.
    pub(super) fn still_read(&self) -> Duration {
        let config = &self.0.config;
        match config.redirect {
            MediaRedirect::Signed => STILL_READ.max(Duration::from_secs(config.redirect_seconds)),
            MediaRedirect::Off | MediaRedirect::Cdn => STILL_READ,
        }
    }

    pub(super) fn now(&self) -> i64 {
        self.0.clock.now().get().into()
    }

    /// Compares a store with the database. What no row names and is older than that (an hour at least, by the store's
    /// clock) is deleted where `delete` is set. Running servers are not disturbed. A store is never to be another server's,
    /// too, but for what lies beneath another prefix: its media would be taken for leftovers.
    pub(crate) async fn sweep(
        &self,
        store: &str,
        older_than: Duration,
        delete: bool,
        progress: SweepProgress<'_>,
    ) -> Result<SweepReport> {
        let mut report = SweepReport::default();
        let before = self.now().saturating_sub(millis(older_than.max(YOUNGEST)));
        let mut listed = self.library().objects().stores().list(store)?.chunks(LISTED);
        while let Some(some) = listed.next().await {
            let some: Vec<Listed> = some.into_iter().collect::<Result<_, StoreFault>>()?;
            self.sweep_listed(store, &some, delete.then_some(before), &mut report).await?;
            progress(&report);
        }
        self.look_for_objects(store, &mut report, progress).await?;
        self.look_for_thumbnails(store, &mut report, progress).await?;
        Ok(report)
    }

    /// `before`: what is older than this is deleted.
    async fn sweep_listed(
        &self,
        store: &str,
        listed: &[Listed],
        before: Option<i64>,
        report: &mut SweepReport,
    ) -> Result<()> {
        let (ours, foreign): (Vec<&Listed>, Vec<&Listed>) =
            listed.iter().partition(|listed| is_location(&listed.location));
        report.foreign += count(foreign.len());
        report.stored += count(ours.len());
        report.stored_bytes += ours.iter().map(|listed| listed.bytes).sum::<u64>();
        let locations: Vec<&str> = ours.iter().map(|listed| listed.location.as_str()).collect();
        let named = media_object::list_named(&mut self.db().read().await?, store, &locations).await?;
        let named: BTreeSet<&str> = named.iter().map(String::as_str).collect();
        let mut old = Vec::new();
        for listed in ours.into_iter().filter(|listed| !named.contains(listed.location.as_str())) {
            report.unnamed += 1;
            report.unnamed_bytes += listed.bytes;
            if before.is_some_and(|before| listed.modified < before) {
                old.push((listed.location.clone(), listed.bytes));
            }
        }
        let stores = self.library().objects().stores();
        let deleting = stream::iter(old).map(|(location, bytes)| async move {
            stores.delete(store, &location).await?;
            tracing::info!(%store, %location, "deleted what no media are made of");
            Ok::<_, StoreFault>(bytes)
        });
        let mut deleted = deleting.buffer_unordered(REQUESTS);
        while let Some(bytes) = deleted.try_next().await? {
            report.deleted += 1;
            report.deleted_bytes += bytes;
        }
        Ok(())
    }

    async fn look_for_objects(&self, store: &str, report: &mut SweepReport, progress: SweepProgress<'_>) -> Result<()> {
        let mut after = String::new();
        loop {
            let page = media_object::page(&mut self.db().read().await?, store, &after, ROWS).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.digest.to_string();
            report.rows += count(page.len());
            let looks = stream::iter(page).map(|object| async move {
                let place: Place = object.place.clone().into();
                Ok::<_, Error>((self.is_whole(&place, object.bytes).await?, object))
            });
            let mut looks = looks.buffer_unordered(REQUESTS);
            while let Some((is_whole, object)) = looks.try_next().await? {
                if is_whole {
                    continue;
                }
                let mut conn = self.db().read().await?;
                // Its row may be another by now, or gone.
                let now = media_object::find(&mut conn, &object.digest).await?;
                if now.is_none_or(|now| now.place != object.place) {
                    continue;
                }
                let media = media_upkeep::find_of_digest(&mut conn, &object.digest).await?;
                let uri = media.map(|(server_name, media_id)| format!("mxc://{server_name}/{media_id}"));
                let (digest, location) = (object.digest, object.place.location);
                tracing::error!(%digest, %store, %location, uri, "the bytes of media are lost");
                report.lost += 1;
                if report.losses.len() < NAMED {
                    report.losses.push(Loss { digest, location, uri });
                }
            }
            progress(report);
        }
    }

    async fn look_for_thumbnails(
        &self,
        store: &str,
        report: &mut SweepReport,
        progress: SweepProgress<'_>,
    ) -> Result<()> {
        let mut after = (String::new(), String::new());
        loop {
            let (digest, variant) = (after.0.as_str(), after.1.as_str());
            let page = media_thumbnail::page(&mut self.db().read().await?, store, (digest, variant), ROWS).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = (last.digest.to_string(), last.variant.clone());
            report.rows += count(page.len());
            let looks = stream::iter(page).map(|thumbnail| async move {
                let place: Place = thumbnail.place.into();
                self.is_whole(&place, thumbnail.bytes).await
            });
            let mut looks = looks.buffer_unordered(REQUESTS);
            while let Some(is_whole) = looks.try_next().await? {
                report.lost_thumbnails += u64::from(!is_whole);
            }
            progress(report);
        }
    }

    /// Whether a store has as many bytes at a place as there are to be. What can't be opened for want of a master key is
    /// compared in nothing.
    pub(super) async fn is_whole(&self, place: &Place, bytes: u64) -> Result<bool> {
        let objects = self.library().objects();
        let size = objects.stores().size(&place.store, &place.location).await?;
        let Some(size) = size else { return Ok(false) };
        Ok(match &place.sealed {
            Some(key) => objects.keys().open(key, bytes).map_or(true, |opener| opener.stored_bytes() == size),
            None => size == bytes,
        })
    }
}

/// Whether [`super::objects::Objects`] makes such: two folders and a name, in hexadecimal digits.
fn is_location(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let lengths = text.split('/').map(str::len);
    lengths.eq([2, 2, 32]) && text.split('/').all(is_hex)
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
