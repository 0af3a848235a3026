//! Thumbnails: made when somebody first asks, once for all nodes and media that have the same bytes, and kept beside the
//! original.
//!
//! Each is an object of its own place, and a row that goes with the row of what it shows. Of what can't be made the row says
//! why, so a file that costs much is tried once. However many ask a node for the same one, it is made once there; of two
//! nodes that make the same one, the first to write its row has made it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#thumbnails>

mod lanes;
#[cfg(test)]
mod tests;
mod video;

use std::{ops::Range, sync::Arc, time::Duration};

use ruma::api::error::ErrorKind;

use self::lanes::{Lanes, Place as LanePlace};
use super::{
    library::{Item, Library, Origin},
    objects::{self, Object, Place},
    thumbnail::{self, Limits, NoThumbnail, Outcome, Picture, Variant},
};
use crate::{
    config::MediaConfig,
    db::{Db, Tx},
    edge::object_store::ByteStream,
    error::{Error, Result},
    ground::{
        clock::Clock,
        digest::Digest,
        flights::{Flights, Landing},
        tasks::Tasks,
    },
    store::{
        media_object::{self, StoredPlace},
        media_thumbnail::{self, StoredThumbnail},
    },
};

/// For making one, beside what it waits for.
const TIME: Duration = Duration::from_secs(20);
/// For the program that makes pictures of videos.
const VIDEO_TIME: Duration = Duration::from_secs(30);
/// Of an animation. What has more stands still.
const MAX_FRAMES: u32 = 500;
/// Of all frames of an animation together.
const MAX_ANIMATED_PIXELS: u64 = 100_000_000;
const MIB: u64 = 1024 * 1024;
/// In `media_thumbnails.failure`. There is no thumbnail, because the original is as good as one.
const AS_IT_IS: &str = "as it is";
const NOT_A_PICTURE: &str = "not a picture";
const TOO_LARGE: &str = "too large";
const TOO_SLOW: &str = "too slow";
const BROKEN: &str = "broken: ";
/// Of what a decoder says, in characters.
const MAX_REASON: usize = 200;

/// All thumbnails. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Thumbnails(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    library: Library,
    tasks: Tasks,
    lanes: Lanes,
    limits: Limits,
    /// A program and its arguments, or nothing.
    video_thumbnailer: Vec<String>,
    /// What is being made on this node.
    making: Flights<(Digest, Variant), Making>,
}

/// A thumbnail, or why there is none, for all who wait for it.
type Making = Result<StoredThumbnail, Arc<Error>>;

/// What to show of a medium.
#[derive(Clone, Debug)]
pub(crate) enum Thumb {
    Made(Made),
    /// The medium itself: it is small, or a picture of a kind that is not read here.
    Original,
}

/// A thumbnail that was made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) place: Place,
    pub(crate) bytes: u64,
    pub(crate) content_type: String,
    /// Of the original. With the variant it names these bytes for ever.
    pub(crate) digest: Digest,
    pub(crate) variant: Variant,
}

/// What is done to show something small of a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Picture,
    /// A picture that moves.
    Animation,
    Video,
    /// A picture of a kind that is not read here.
    Original,
    Nothing,
}

impl Thumbnails {
    pub(crate) fn new(db: Db, clock: Clock, library: Library, config: &MediaConfig, tasks: Tasks) -> Self {
        let limits = Limits {
            max_pixels: u64::from(config.max_megapixels) * 1_000_000,
            max_frames: MAX_FRAMES,
            max_animated_pixels: MAX_ANIMATED_PIXELS,
            time: TIME,
            max_memory: u64::from(config.thumbnail_megabytes) * MIB,
        };
        let (lanes, making) = (Lanes::new(config.thumbnail_megabytes), Flights::default());
        let video_thumbnailer = config.video_thumbnailer.clone();
        Self(Arc::new(Inner { db, clock, library, tasks, lanes, limits, video_thumbnailer, making }))
    }

    /// A thumbnail of what a URI names, which the caller may have.
    ///
    /// `M_UNKNOWN` for what nothing small can be shown of, `M_TOO_LARGE` for what it would cost too much of, with the status
    /// that goes with where the medium is from. `Error::Unavailable` where too many are being made.
    pub(crate) async fn find_or_make(&self, item: &Item, variant: Variant) -> Result<Thumb> {
        let way = way(&item.object.sniffed_type, !self.0.video_thumbnailer.is_empty());
        match way {
            Way::Original => return Ok(Thumb::Original),
            Way::Nothing => return Err(not_a_picture()),
            Way::Picture | Way::Animation | Way::Video => {}
        }
        let variant = Variant { animated: variant.animated && way == Way::Animation, ..variant };
        let digest = item.object.digest;
        let made = match self.find(&digest, variant).await? {
            Some(found) => found,
            None => self.make_once(&item.object, variant, way).await.map_err(Error::of_shared)?,
        };
        match made {
            StoredThumbnail::Made { place, bytes, content_type } => {
                Ok(Thumb::Made(Made { place: place.into(), bytes, content_type, digest, variant }))
            }
            StoredThumbnail::Failed(why) => failed(&why, way, item.origin),
        }
    }

    /// The bytes of a range of a thumbnail, wherever they are by now.
    pub(crate) async fn open(&self, made: &Made, range: Range<u64>) -> Result<ByteStream> {
        let objects = self.0.library.objects();
        if let Some(stream) = objects.find_bytes(&made.place, made.bytes, range.clone()).await? {
            return Ok(stream);
        }
        // They may have been moved since the row was read.
        if let Some(StoredThumbnail::Made { place, bytes, .. }) = self.find(&made.digest, made.variant).await? {
            if bytes == made.bytes
                && let Some(stream) = objects.find_bytes(&place.clone().into(), bytes, range).await?
            {
                return Ok(stream);
            }
            self.drop_lost(made, &place).await?;
        }
        Err(Error::Unavailable("The thumbnail was lost and is made anew: try again".to_owned()))
    }

    /// Forgets a thumbnail whose bytes are not where its row says, so that whoever asks next has it made.
    async fn drop_lost(&self, made: &Made, lost: &StoredPlace) -> Result<()> {
        tracing::warn!(digest = %made.digest, variant = %made.variant, "the bytes of a thumbnail were lost");
        let name = made.variant.name();
        let mut tx = self.0.db.begin().await?;
        if media_object::lock(&mut tx, &made.digest).await?.is_none() {
            return Ok(());
        }
        let there = media_thumbnail::find(&mut tx, &made.digest, &name).await?;
        if matches!(&there, Some(StoredThumbnail::Made { place, .. }) if place == lost) {
            media_thumbnail::delete(&mut tx, &made.digest, &name).await?;
            tx.commit().await?;
            // In case that they were not lost after all.
            self.0.library.objects().forget(&lost.clone().into()).await;
        }
        Ok(())
    }

    async fn find(&self, digest: &Digest, variant: Variant) -> Result<Option<StoredThumbnail>> {
        Ok(media_thumbnail::find(&mut self.0.db.read().await?, digest, &variant.name()).await?)
    }

    /// Makes a thumbnail, or waits for whoever does on this node.
    async fn make_once(&self, object: &Object, variant: Variant, way: Way) -> Making {
        let key = (object.digest, variant);
        self.0.making.join(key, |landing| self.clone().fly(object.clone(), variant, way, landing)).await
    }

    /// Goes on although whoever has asked goes away: the next one finds the row, or tries again.
    async fn fly(
        self,
        object: Object,
        variant: Variant,
        way: Way,
        landing: Landing<(Digest, Variant), Making>,
    ) -> Making {
        let tasks = self.0.tasks.clone();
        let work = async move {
            let made = self.make(&object, variant, way).await;
            drop(landing);
            made
        };
        let made = tasks.see_through("making a thumbnail", work).await;
        made.unwrap_or_else(|| Err(Error::broken("making a thumbnail has panicked"))).map_err(Arc::new)
    }

    async fn make(&self, object: &Object, variant: Variant, way: Way) -> Result<StoredThumbnail> {
        // Somebody may have ended since it was looked for.
        if let Some(found) = self.find(&object.digest, variant).await? {
            return Ok(found);
        }
        let lane = self.0.lanes.enter()?.place().await?;
        let outcome = self.make_of(&lane, object, variant, way).await?;
        let made = match outcome {
            Ok(Outcome::Made(picture)) => self.put(picture).await?,
            Ok(Outcome::AsItIs) => StoredThumbnail::Failed(AS_IT_IS.to_owned()),
            Err(why) => StoredThumbnail::Failed(reason(&why)),
        };
        drop(lane);
        self.note(&object.digest, variant, made).await
    }

    /// Decodes the original, or a picture of it.
    async fn make_of(
        &self,
        lane: &LanePlace,
        object: &Object,
        variant: Variant,
        way: Way,
    ) -> Result<Result<Outcome, NoThumbnail>> {
        let (objects, limits) = (self.0.library.objects(), &self.0.limits);
        // It may have been moved while this waited for its turn.
        let found = media_object::find(&mut self.0.db.read().await?, &object.digest).await?;
        let object = Object::from(found.ok_or_else(|| Error::not_found("This file was deleted"))?);
        let mut original = objects.fetch_to_spool(&object).await?;
        if way == Way::Video {
            let picture = video::picture(&self.0.video_thumbnailer, original.path(), objects.spool(), VIDEO_TIME);
            let Some(picture) = picture.await? else { return Ok(Err(NoThumbnail::NotAPicture)) };
            original = picture;
        }
        let (original, limits) = (Arc::new(original), limits.clone());
        let (file, bounds) = (Arc::clone(&original), limits.clone());
        // What a program has made of a video may be anything.
        let sniffed_type = (way != Way::Video).then_some(object.sniffed_type.as_str());
        let looking = thumbnail::memory_to_look(original.bytes, sniffed_type, &limits);
        let needed = lane.work(looking, move || thumbnail::memory_needed(file.path(), &variant, &bounds)).await?;
        let work = move || match way {
            // A picture of a video is nobody's original.
            Way::Video => thumbnail::make_anew(original.path(), &variant, &limits).map(Outcome::Made),
            _ => thumbnail::make(original.path(), &variant, &limits),
        };
        let made = match needed {
            Ok(bytes) => lane.work(bytes, work).await?,
            Err(why) => Err(why),
        };
        match made {
            // That is no fault of the picture's, and may be another the next time.
            Err(NoThumbnail::Unread(why)) => Err(Error::broken(format!("an original can't be read: {why}"))),
            made => Ok(made),
        }
    }

    /// Writes a thumbnail to a place that no row names yet.
    async fn put(&self, picture: Picture) -> Result<StoredThumbnail> {
        let Picture { bytes, content_type } = picture;
        let objects = self.0.library.objects();
        let mut incoming = objects.spool().begin().await?;
        incoming.write(&bytes).await?;
        let received = incoming.finish().await?;
        let place = objects.put(received.path()).await?.to_stored();
        Ok(StoredThumbnail::Made { place, bytes: received.bytes, content_type: content_type.to_owned() })
    }

    /// Writes the row, and returns what it says: another node may have been faster.
    async fn note(&self, digest: &Digest, variant: Variant, made: StoredThumbnail) -> Result<StoredThumbnail> {
        let tx = match self.begin_to_note(digest, &variant.name(), &made).await {
            Ok(Ok(tx)) => tx,
            Ok(Err(there)) => {
                self.forget(&made).await;
                return Ok(there);
            }
            Err(error) => {
                self.forget(&made).await;
                return Err(error);
            }
        };
        // Where the connection breaks here, the row may be there: the sweep finds out.
        tx.commit().await?;
        Ok(made)
    }

    /// The transaction that writes the row, or what there was before.
    async fn begin_to_note(
        &self,
        digest: &Digest,
        variant: &str,
        made: &StoredThumbnail,
    ) -> Result<Result<Tx, StoredThumbnail>> {
        let mut tx = self.0.db.begin().await?;
        if media_object::lock(&mut tx, digest).await?.is_none() {
            return Err(Error::not_found("This file was deleted"));
        }
        let now = self.0.clock.now().get().into();
        if media_thumbnail::insert(&mut tx, digest, variant, made, now).await? {
            if let StoredThumbnail::Made { place, .. } = made {
                objects::unreserve(&mut tx, place).await?;
            }
            return Ok(Ok(tx));
        }
        let there = media_thumbnail::find(&mut tx, digest, variant).await?;
        there.map(Err).ok_or_else(|| Error::broken("a thumbnail is there and is not"))
    }

    /// Has bytes deleted that no row names.
    async fn forget(&self, made: &StoredThumbnail) {
        if let StoredThumbnail::Made { place, .. } = made {
            self.0.library.objects().forget(&place.clone().into()).await;
        }
    }
}

/// By what the first bytes look like.
fn way(sniffed_type: &str, knows_videos: bool) -> Way {
    match sniffed_type {
        "image/jpeg" | "image/bmp" | "image/tiff" => Way::Picture,
        "image/png" | "image/apng" | "image/gif" | "image/webp" => Way::Animation,
        // It may run scripts, and is no picture before it is drawn.
        "image/svg+xml" => Way::Nothing,
        other if other.starts_with("image/") => Way::Original,
        other if other.starts_with("video/") && knows_videos => Way::Video,
        _ => Way::Nothing,
    }
}

/// As the row has it.
fn reason(why: &NoThumbnail) -> String {
    match why {
        NoThumbnail::NotAPicture => NOT_A_PICTURE.to_owned(),
        NoThumbnail::TooLarge => TOO_LARGE.to_owned(),
        NoThumbnail::TooSlow => TOO_SLOW.to_owned(),
        // NUL is what a database may refuse.
        NoThumbnail::Broken(why) | NoThumbnail::Unread(why) => {
            let why = why.chars().filter(|character| !character.is_control()).take(MAX_REASON);
            format!("{BROKEN}{}", why.collect::<String>())
        }
    }
}

/// What a row that has no thumbnail means to whoever asks.
fn failed(why: &str, way: Way, origin: Origin) -> Result<Thumb> {
    match why {
        AS_IT_IS => Ok(Thumb::Original),
        NOT_A_PICTURE if way != Way::Video => Ok(Thumb::Original),
        TOO_LARGE | TOO_SLOW => {
            let message = "This picture is too large for a thumbnail: download it instead".to_owned();
            Err(match origin {
                Origin::Remote => Error::Relayed { status: 502, errcode: "M_TOO_LARGE".to_owned(), message },
                Origin::Upload | Origin::Preview => Error::refused(ErrorKind::TooLarge, message),
            })
        }
        _ => Err(not_a_picture()),
    }
}

fn not_a_picture() -> Error {
    Error::refused(ErrorKind::Unknown, "There is no thumbnail of this file: it is no picture that can be read")
}
