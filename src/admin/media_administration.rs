//! What an operator does about media from the command line, beside servers that may be running: rows are changed in their
//! database, and what is in stores is looked at only where that is the matter.
//!
//! It is what the commands of [`super`] and the tests call; nothing here prints.

use ruma::{MxcUri, OwnedServerName, OwnedUserId, UserId};
use serde::Serialize;

use super::media_stores::MediaStores;
use crate::{
    config::Config,
    db::Db,
    error::{Error, Result},
    ground::{clock::Clock, digest::Digest, random::Random},
    media::{
        library::MediaUri,
        objects::Objects,
        quarantine::{Quarantine, QuarantineReport, QuarantineTarget},
    },
    store::{
        media::{self, ListedMedia, MediaRow, MediaSelection},
        media_object,
        media_quarantine::{self, QuarantineKind},
        media_thumbnail,
    },
};

/// How many media are read at once.
const PAGE: i64 = 1_000;
/// How many equal ones are shown of a file.
const EQUALS: i64 = 100;
/// In milliseconds.
const DAY: i64 = 24 * 60 * 60 * 1_000;

/// What the operator can do about media. Cheap to make.
pub struct MediaAdministration {
    db: Db,
    clock: Clock,
    server_name: OwnedServerName,
    quarantine: Quarantine,
}

/// Which media are listed: those for which all holds that is set.
#[derive(Clone, Debug, Default)]
pub struct MediaFilter {
    pub user_id: Option<OwnedUserId>,
    pub server_name: Option<String>,
    /// In hexadecimal digits.
    pub digest: Option<String>,
    /// By their address or because of a room.
    pub quarantined: bool,
}

/// Media in a list. Times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug, Serialize)]
pub struct MediaSummary {
    pub mxc: String,
    /// `upload`, `preview` or `remote`.
    pub origin: &'static str,
    pub user_id: Option<OwnedUserId>,
    /// None where nothing was uploaded yet.
    pub digest: Option<String>,
    pub bytes: i64,
    pub content_type: Option<String>,
    pub file_name: Option<String>,
    pub created_ts: i64,
    /// To a day.
    pub last_used_ts: i64,
    /// `uri`, a room, or what kept it away when it came. Quarantines of a digest, a user or a server as such are none of its
    /// own.
    pub quarantined_by: Option<String>,
    /// Where the list goes on.
    #[serde(skip)]
    place: (String, String),
}

/// Everything about a file. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Serialize)]
pub struct MediaDetails {
    pub mxc: String,
    pub origin: &'static str,
    pub user_id: Option<OwnedUserId>,
    pub content_type: Option<String>,
    pub file_name: Option<String>,
    pub created_ts: i64,
    pub last_used_ts: i64,
    /// Until when something can be uploaded to it, as long as nothing was.
    pub unused_expires_ts: Option<i64>,
    /// Whether nobody may have it, for whatever reason.
    pub quarantined: bool,
    /// The reasons that are not its own: `digest`, `user`, `server`.
    pub quarantined_with: Vec<&'static str>,
    /// None as long as nothing was uploaded.
    #[serde(flatten)]
    pub object: Option<ObjectDetails>,
}

/// Everything about the bytes of a file.
#[derive(Debug, Serialize)]
pub struct ObjectDetails {
    pub digest: String,
    pub bytes: u64,
    /// What the bytes look like.
    pub sniffed_type: String,
    pub store: String,
    pub location: String,
    /// The name of the master key, where they are encrypted.
    pub master_key: Option<String>,
    /// When a scanner has found them harmless.
    pub scanned_ts: Option<i64>,
    /// Media that have the same bytes, at most a hundred.
    pub equals: Vec<String>,
}

/// How much there is.
#[derive(Debug, Serialize)]
pub struct UsageSummary {
    pub stores: Vec<StoreSummary>,
    pub origins: Vec<OriginSummary>,
    /// In all stores.
    pub thumbnails: i64,
    pub thumbnail_bytes: i64,
    /// Those who have most.
    pub users: Vec<UserSummary>,
}

/// What a store has, thumbnails left out.
#[derive(Debug, Serialize)]
pub struct StoreSummary {
    pub store: String,
    pub files: i64,
    pub bytes: i64,
}

/// What there is of an origin. Equal files count each time.
#[derive(Debug, Serialize)]
pub struct OriginSummary {
    pub origin: &'static str,
    pub files: i64,
    pub bytes: i64,
}

/// What a user has. Equal files count each time.
#[derive(Debug, Serialize)]
pub struct UserSummary {
    pub user_id: OwnedUserId,
    pub files: i64,
    pub bytes: i64,
    /// Of the last 24 hours. None where nobody has asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_of_last_day: Option<i64>,
}

/// Something that is under quarantine.
#[derive(Debug, Serialize)]
pub struct QuarantineSummary {
    /// `digest`, `user`, `server` or `media`.
    pub kind: &'static str,
    /// What `quarantine-media` takes.
    pub name: String,
    /// What media are quarantined by: `uri`, a room, or what kept them away when they came.
    pub by: Option<String>,
    /// In milliseconds since the Unix epoch. None of media.
    pub since_ts: Option<i64>,
}

/// What came of putting something under quarantine, or of lifting that.
#[derive(Debug)]
pub struct QuarantineChange {
    /// Whether anything is other than before.
    pub changed: bool,
    pub files: u64,
    /// Where that is known.
    pub bytes: u64,
    /// Set for a room: how many events were looked through.
    pub events: Option<u64>,
}

/// Media that were deleted, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaCount {
    pub files: u64,
    /// Equal files count each time.
    pub bytes: u64,
}

impl MediaAdministration {
    /// On a database that has been found to be this server's.
    pub fn new(config: &Config, db: Db, clock: Clock) -> Self {
        let server_name = config.server_name.clone();
        let quarantine = Quarantine::new(db.clone(), clock.clone(), server_name.clone());
        Self { db, clock, server_name, quarantine }
    }

    /// For what looks into stores: their folders are made if they are missing.
    pub async fn open_stores(&self, config: &Config, random: &Random) -> Result<MediaStores> {
        MediaStores::open(config, (self.db.clone(), self.clock.clone(), random.clone())).await
    }

    /// Media after one, in the order of their addresses, from the first where there is none. None are left after a page
    /// that is empty.
    pub async fn list(&self, filter: &MediaFilter, after: Option<&MediaSummary>) -> Result<Vec<MediaSummary>> {
        let digest = filter.digest.as_deref().map(parse_digest).transpose()?.map(|digest| digest.to_string());
        let which = MediaSelection {
            server_name: filter.server_name.as_deref(),
            user_id: filter.user_id.as_deref().map(UserId::as_str),
            digest: digest.as_deref(),
            quarantined: filter.quarantined,
        };
        let after = after.map_or(("", ""), |after| (after.place.0.as_str(), after.place.1.as_str()));
        let page = media::page(&mut self.db.read().await?, which, after, PAGE).await?;
        Ok(page.into_iter().map(MediaSummary::from).collect())
    }

    /// What there is to know of a file.
    pub async fn show(&self, uri: &str) -> Result<MediaDetails> {
        let uri = parse_uri(uri)?;
        let (server_name, media_id) = (uri.server_name.as_str(), uri.media_id.as_str());
        let mut conn = self.db.read().await?;
        let found = media::find(&mut conn, server_name, media_id).await?;
        let MediaRow { origin, user_id, content_type, file_name, created_at, expires_at, used_at, quarantined, object } =
            found.ok_or_else(|| nothing_at(&uri))?;
        let digest = object.as_ref().map(|object| object.digest.to_string());
        let reasons = [
            ("digest", QuarantineKind::Digest, digest.as_deref()),
            ("user", QuarantineKind::User, user_id.as_deref().map(UserId::as_str)),
            ("server", QuarantineKind::Server, Some(server_name)),
        ];
        let mut quarantined_with = Vec::new();
        for (reason, kind, name) in reasons {
            if let Some(name) = name
                && media_quarantine::is_quarantined(&mut conn, kind, name).await?
            {
                quarantined_with.push(reason);
            }
        }
        let mut equals = Vec::new();
        if let Some(digest) = &digest {
            let which = MediaSelection { digest: Some(digest), ..MediaSelection::default() };
            let page = media::page(&mut conn, which, ("", ""), EQUALS + 1).await?;
            equals.extend(page.into_iter().map(|listed| MediaSummary::from(listed).mxc));
            equals.retain(|equal| *equal != uri.to_string());
        }
        let object = object.map(|object| ObjectDetails {
            digest: object.digest.to_string(),
            bytes: object.bytes,
            sniffed_type: object.sniffed_type,
            store: object.place.store,
            location: object.place.location,
            master_key: object.place.key.map(|(key_id, _)| key_id),
            scanned_ts: object.scanned_at,
            equals,
        });
        Ok(MediaDetails {
            mxc: uri.to_string(),
            origin: origin.as_str(),
            user_id,
            content_type,
            file_name,
            created_ts: created_at,
            last_used_ts: used_at,
            unused_expires_ts: expires_at,
            quarantined,
            quarantined_with,
            object,
        })
    }

    /// How much there is, with so many of the users who have most. Reads all rows, so it takes as long as there are many.
    pub async fn usage(&self, users: u32) -> Result<UsageSummary> {
        let mut conn = self.db.read().await?;
        let stores = media_object::usage(&mut conn).await?.into_iter();
        let origins = media::usage_by_origin(&mut conn).await?.into_iter();
        let (thumbnails, thumbnail_bytes) = media_thumbnail::usage(&mut conn).await?;
        let users = media::usage_by_user(&mut conn, users.into()).await?.into_iter();
        Ok(UsageSummary {
            stores: stores.map(|it| StoreSummary { store: it.store, files: it.objects, bytes: it.bytes }).collect(),
            origins: origins
                .map(|(origin, files, bytes)| OriginSummary { origin: origin.as_str(), files, bytes })
                .collect(),
            thumbnails,
            thumbnail_bytes,
            users: users
                .map(|(user_id, files, bytes)| UserSummary { user_id, files, bytes, bytes_of_last_day: None })
                .collect(),
        })
    }

    /// How much a user has.
    pub async fn usage_of(&self, user_id: OwnedUserId) -> Result<UserSummary> {
        let since = self.now().saturating_sub(DAY);
        let usage = media::usage_of_user(&mut self.db.read().await?, &user_id, since).await?;
        let bytes_of_last_day = Some(usage.recent_bytes);
        Ok(UserSummary { user_id, files: usage.count, bytes: usage.bytes, bytes_of_last_day })
    }

    /// From now on nobody gets what is meant: an address, a SHA-256, a user, a room or another server.
    pub async fn put_under_quarantine(&self, target: &str) -> Result<QuarantineChange> {
        let target = parse_target(target)?;
        let report = self.quarantine.put(&target).await?;
        if let (QuarantineTarget::Media(uri), false) = (&target, report.changed) {
            let found =
                media::find(&mut self.db.read().await?, uri.server_name.as_str(), uri.media_id.as_str()).await?;
            found.ok_or_else(|| nothing_at(uri))?;
        }
        Ok(change(&target, report))
    }

    /// Whoever asks gets it again, unless it is under quarantine for another reason.
    pub async fn lift_quarantine(&self, target: &str) -> Result<QuarantineChange> {
        let target = parse_target(target)?;
        Ok(change(&target, self.quarantine.lift(&target).await?))
    }

    /// Everything that is under quarantine.
    pub async fn list_quarantined(&self) -> Result<Vec<QuarantineSummary>> {
        let mut conn = self.db.read().await?;
        let mut all = Vec::new();
        let (mut kind, mut name) = ("", String::new());
        loop {
            let page = media_quarantine::page(&mut conn, (kind, name.as_str()), PAGE).await?;
            let Some((last_kind, last_name, _)) = page.last() else { break };
            (kind, name) = (last_kind.as_str(), last_name.clone());
            all.extend(page.into_iter().map(|(kind, name, at)| QuarantineSummary {
                kind: kind.as_str(),
                name,
                by: None,
                since_ts: Some(at),
            }));
        }
        drop(conn);
        let filter = MediaFilter { quarantined: true, ..MediaFilter::default() };
        let mut last: Option<MediaSummary> = None;
        loop {
            let page = self.list(&filter, last.as_ref()).await?;
            let Some(end) = page.last() else { return Ok(all) };
            last = Some(end.clone());
            all.extend(page.into_iter().map(|media| QuarantineSummary {
                kind: "media",
                name: media.mxc,
                by: media.quarantined_by,
                since_ts: None,
            }));
        }
    }

    /// What [`Self::delete`] would delete.
    pub async fn look_at_deletion(&self, target: &str) -> Result<MediaCount> {
        self.each(&self.parse_deletable(target)?, false, &mut |_| {}).await
    }

    /// Deletes a file, or all media of a SHA-256, a user or another server. Says after each what it has come to. Bytes that
    /// nothing else has are deleted later by a running server.
    pub async fn delete(&self, target: &str, progress: &mut (dyn FnMut(MediaCount) + Send)) -> Result<MediaCount> {
        self.each(&self.parse_deletable(target)?, true, progress).await
    }

    /// Counts all media that are meant, and deletes them, too, where that is to be.
    async fn each(
        &self,
        target: &QuarantineTarget,
        delete: bool,
        progress: &mut (dyn FnMut(MediaCount) + Send),
    ) -> Result<MediaCount> {
        let mut count = MediaCount::default();
        let mut filter = MediaFilter::default();
        match target {
            QuarantineTarget::Media(uri) => {
                let named = (uri.server_name.as_str(), uri.media_id.as_str());
                let found = media::find(&mut self.db.read().await?, named.0, named.1).await?;
                let found = found.ok_or_else(|| nothing_at(uri))?;
                if delete {
                    self.delete_one(uri).await?;
                }
                return Ok(MediaCount { files: 1, bytes: found.object.map_or(0, |object| object.bytes) });
            }
            QuarantineTarget::Digest(digest) => filter.digest = Some(digest.to_string()),
            QuarantineTarget::User(user_id) => filter.user_id = Some(user_id.clone()),
            QuarantineTarget::Server(server_name) => filter.server_name = Some(server_name.to_string()),
            QuarantineTarget::Room(_) => {}
        }
        let mut last: Option<MediaSummary> = None;
        loop {
            let page = self.list(&filter, last.as_ref()).await?;
            for media in &page {
                // What is no URI by now was none when it came in.
                let Ok(uri) = parse_uri(&media.mxc) else { continue };
                if !delete || self.delete_one(&uri).await? {
                    count.files += 1;
                    count.bytes += u64::try_from(media.bytes).unwrap_or(0);
                }
                progress(count);
            }
            let Some(end) = page.into_iter().next_back() else { return Ok(count) };
            last = Some(end);
        }
    }

    async fn delete_one(&self, uri: &MediaUri) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        let deleted = media::delete(&mut tx, uri.server_name.as_str(), uri.media_id.as_str()).await?;
        let Some(deleted) = deleted else { return Ok(false) };
        if let Some(digest) = deleted.digest {
            Objects::let_go(&mut tx, &digest, self.now()).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    fn parse_deletable(&self, target: &str) -> Result<QuarantineTarget> {
        let target = parse_target(target)?;
        match &target {
            QuarantineTarget::Room(_) => Err(Error::invalid_param(
                "What a room's events name may be shown elsewhere too, so it is deleted file by file: quarantine-media takes \
                 a room",
            )),
            QuarantineTarget::Server(name) if *name == self.server_name => {
                Err(Error::invalid_param("This is the server's own name: all media of its users would be deleted"))
            }
            _ => Ok(target),
        }
    }

    /// Milliseconds since the Unix epoch.
    fn now(&self) -> i64 {
        self.clock.now().get().into()
    }
}

impl From<ListedMedia> for MediaSummary {
    fn from(listed: ListedMedia) -> Self {
        Self {
            mxc: format!("mxc://{}/{}", listed.server_name, listed.media_id),
            origin: listed.origin.as_str(),
            user_id: listed.user_id,
            digest: listed.digest,
            bytes: listed.bytes,
            content_type: listed.content_type,
            file_name: listed.file_name,
            created_ts: listed.created_at,
            last_used_ts: listed.used_at,
            quarantined_by: listed.quarantined_by,
            place: (listed.server_name.to_string(), listed.media_id),
        }
    }
}

fn change(target: &QuarantineTarget, report: QuarantineReport) -> QuarantineChange {
    let QuarantineReport { changed, media, bytes, events } = report;
    let events = matches!(target, QuarantineTarget::Room(_)).then_some(events);
    QuarantineChange { changed, files: media, bytes, events }
}

fn parse_target(text: &str) -> Result<QuarantineTarget> {
    let message = || {
        format!(
            "{text} is none of these: an address (mxc://example.org/abc), a SHA-256 in hexadecimal digits, a user \
             (@alice:example.org), a room (!abc:example.org), another server (example.org)"
        )
    };
    QuarantineTarget::parse(text).ok_or_else(|| Error::invalid_param(message()))
}

fn parse_uri(text: &str) -> Result<MediaUri> {
    let uri = MediaUri::parse(<&MxcUri>::from(text));
    uri.ok_or_else(|| Error::invalid_param(format!("{text} is no address of media, such as mxc://example.org/abc")))
}

fn parse_digest(text: &str) -> Result<Digest> {
    let message = || format!("{text} is no SHA-256, which has 64 hexadecimal digits");
    Digest::from_hex(text).ok_or_else(|| Error::invalid_param(message()))
}

fn nothing_at(uri: &MediaUri) -> Error {
    Error::not_found(format!("There is nothing at {uri}: `hearth admin list-media` shows what there is"))
}
