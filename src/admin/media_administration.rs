//! What an operator does about media from the command line, beside servers that may be running: rows are changed in their
//! database, and what is in stores is looked at only where that is the matter.
//!
//! It is what the commands of [`super`] and the tests call; nothing here prints.

use ruma::{MxcUri, OwnedServerName, OwnedUserId, UserId};

use super::{
    media_stores::MediaStores,
    media_summary::{
        MediaCount, MediaDetails, MediaFilter, MediaSummary, ObjectDetails, OriginSummary, QuarantineChange,
        QuarantineSummary, StoreSummary, UsageSummary, UserSummary,
    },
};
use crate::{
    config::Config,
    db::Db,
    error::{Error, Result},
    ground::{clock::Clock, digest::Digest, random::Random},
    media::{
        library::{self, MediaUri},
        quarantine::{Quarantine, QuarantineReport, QuarantineTarget},
    },
    store::{
        media::{self, MediaRow, MediaSelection},
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
                    library::delete(&self.db, uri, self.now()).await?;
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
                if !delete || library::delete(&self.db, &uri, self.now()).await? {
                    count.files += 1;
                    count.bytes += u64::try_from(media.bytes).unwrap_or(0);
                }
                progress(count);
            }
            let Some(end) = page.into_iter().next_back() else { return Ok(count) };
            last = Some(end);
        }
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
