//! Media that nobody may have: they stay where they are and are served to nobody, until that is lifted.
//!
//! What is quarantined by digest, user or server is a row that each look at media reads, so it holds for what comes later,
//! too. What is quarantined by its URI, or because it was in a room, is marked in its own row; media of other servers that
//! are not here get a row that keeps them away. Nothing is told to whoever asks but that there is nothing.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use ruma::{OwnedMxcUri, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId};
use serde_json::Value;

use super::library::MediaUri;
use crate::{
    db::Db,
    error::{Error, Result},
    ground::{clock::Clock, digest::Digest},
    store::{
        media_quarantine::{self, QuarantineKind},
        media_upkeep::{self, MediaSum},
    },
};

/// In `media.quarantined_by`: by its URI.
const BY_URI: &str = "uri";
/// How many events are looked through at once.
const EVENTS: i64 = 500;
/// How many media are marked in one transaction, or lifted.
const AT_ONCE: usize = 200;
/// Of a URI, in bytes: what is longer is none.
const MAX_URI: usize = 6 + 255 + 1 + 255;
const SCHEME: &str = "mxc://";

/// Puts media under quarantine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Quarantine {
    db: Db,
    clock: Clock,
    server_name: OwnedServerName,
}

/// What is quarantined, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum QuarantineTarget {
    Media(MediaUri),
    /// Whatever has these bytes, or will.
    Digest(Digest),
    /// Whatever a user of this server has uploaded, or will.
    User(OwnedUserId),
    /// What the events of a room name that are here now. What is encrypted says nothing of media.
    Room(OwnedRoomId),
    /// Whatever comes from another server, or will.
    Server(OwnedServerName),
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QuarantineReport {
    /// Whether anything is other than before.
    pub(crate) changed: bool,
    /// How many media that are or may be here it concerns.
    pub(crate) media: u64,
    /// What those take, where that is known: equal ones count each time.
    pub(crate) bytes: u64,
    /// How many events of a room were looked through.
    pub(crate) events: u64,
}

impl QuarantineTarget {
    /// From what an operator writes: `mxc://…`, 64 hexadecimal digits, `@user:server`, `!room`, or the name of a server.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.starts_with(SCHEME) {
            return MediaUri::parse(&OwnedMxcUri::from(text)).map(Self::Media);
        }
        if let Some(digest) = Digest::from_hex(text) {
            return Some(Self::Digest(digest));
        }
        match text.chars().next()? {
            '@' => OwnedUserId::try_from(text).ok().map(Self::User),
            '!' => OwnedRoomId::try_from(text).ok().map(Self::Room),
            _ => OwnedServerName::try_from(text).ok().map(Self::Server),
        }
    }
}

impl Quarantine {
    pub(crate) fn new(db: Db, clock: Clock, server_name: OwnedServerName) -> Self {
        Self { db, clock, server_name }
    }

    /// From now on nobody gets it. `M_INVALID_PARAM` for what can't be quarantined: users of other servers, since nobody
    /// says which media are theirs, and this server as a whole.
    pub(crate) async fn put(&self, target: &QuarantineTarget) -> Result<QuarantineReport> {
        self.check(target)?;
        match target {
            QuarantineTarget::Media(uri) => {
                let marked = self.mark(&BTreeSet::from([uri.clone()]), BY_URI).await?;
                Ok(QuarantineReport { changed: marked > 0, media: marked, ..QuarantineReport::default() })
            }
            QuarantineTarget::Room(room_id) => self.put_room(room_id).await,
            other => {
                let mut tx = self.db.begin().await?;
                let changed = match name_of(other) {
                    Some((kind, name)) => media_quarantine::insert(&mut tx, kind, &name, self.now()).await?,
                    None => false,
                };
                tx.commit().await?;
                self.report(other, changed).await
            }
        }
    }

    /// Whoever asks gets it again, unless it is quarantined for another reason.
    pub(crate) async fn lift(&self, target: &QuarantineTarget) -> Result<QuarantineReport> {
        self.check(target)?;
        match target {
            QuarantineTarget::Media(uri) => {
                let mut tx = self.db.begin().await?;
                let lifted = media_upkeep::lift(&mut tx, uri.columns()).await?;
                tx.commit().await?;
                Ok(QuarantineReport { changed: lifted, media: lifted.into(), ..QuarantineReport::default() })
            }
            QuarantineTarget::Room(room_id) => {
                let media = self.lift_by(room_id.as_str()).await?;
                Ok(QuarantineReport { changed: media > 0, media, ..QuarantineReport::default() })
            }
            other => {
                let Some((kind, name)) = name_of(other) else { return Ok(QuarantineReport::default()) };
                let mut tx = self.db.begin().await?;
                let changed = media_quarantine::delete(&mut tx, kind, &name).await?;
                tx.commit().await?;
                // What was kept away when it came in with these bytes.
                self.lift_by(&name).await?;
                self.report(other, changed).await
            }
        }
    }

    fn check(&self, target: &QuarantineTarget) -> Result<()> {
        match target {
            QuarantineTarget::User(user_id) if user_id.server_name() != self.server_name => {
                let message =
                    "Other servers don't say who has uploaded something: quarantine it by itself, or its server";
                Err(Error::invalid_param(message))
            }
            QuarantineTarget::Server(name) if *name == self.server_name => {
                Err(Error::invalid_param("This is the server's own name: all media of its users would be quarantined"))
            }
            _ => Ok(()),
        }
    }

    /// Everything that the room's events name.
    async fn put_room(&self, room_id: &RoomId) -> Result<QuarantineReport> {
        let mut report = QuarantineReport::default();
        let mut after = (i64::MIN, i64::MIN);
        loop {
            let page = media_upkeep::walk(&mut self.db.read().await?, room_id, after, EVENTS).await?;
            let Some(last) = page.last() else { return Ok(report) };
            after = last.place;
            report.events += u64::try_from(page.len()).map_err(Error::broken)?;
            let mut uris = BTreeSet::new();
            for json in page.iter().filter_map(|event| event.json.as_deref()) {
                collect_of_event(json, &mut uris);
            }
            report.media += self.mark(&uris, room_id.as_str()).await?;
            report.changed = report.media > 0;
        }
    }

    /// Marks media that are not marked yet, and returns how many those were.
    async fn mark(&self, uris: &BTreeSet<MediaUri>, by: &str) -> Result<u64> {
        let uris: Vec<&MediaUri> = uris.iter().collect();
        let mut marked = 0;
        for some in uris.chunks(AT_ONCE) {
            let mut tx = self.db.begin().await?;
            // In one order, so that two don't wait for each other.
            for uri in some {
                let new = media_upkeep::quarantine(&mut tx, uri.columns(), by, self.is_ours(uri), self.now()).await?;
                marked += u64::from(new);
            }
            tx.commit().await?;
        }
        Ok(marked)
    }

    /// Lifts what is marked for one reason, and returns how many those were.
    async fn lift_by(&self, by: &str) -> Result<u64> {
        let limit = i64::try_from(AT_ONCE).map_err(Error::broken)?;
        let mut lifted = 0;
        loop {
            let mut tx = self.db.begin().await?;
            let some = media_upkeep::lift_some(&mut tx, by, limit).await?;
            tx.commit().await?;
            if some == 0 {
                return Ok(lifted);
            }
            lifted += some;
        }
    }

    async fn report(&self, target: &QuarantineTarget, changed: bool) -> Result<QuarantineReport> {
        let mut conn = self.db.read().await?;
        let MediaSum { media, bytes } = match target {
            QuarantineTarget::Digest(digest) => media_upkeep::sum_of_digest(&mut conn, digest).await?,
            QuarantineTarget::User(user_id) => media_upkeep::sum_of_user(&mut conn, user_id).await?,
            QuarantineTarget::Server(name) => media_upkeep::sum_of_server(&mut conn, name).await?,
            QuarantineTarget::Media(_) | QuarantineTarget::Room(_) => MediaSum::default(),
        };
        // Sums are never below zero.
        let unsigned = |sum: i64| u64::try_from(sum).unwrap_or(0);
        Ok(QuarantineReport { changed, media: unsigned(media), bytes: unsigned(bytes), events: 0 })
    }

    fn is_ours(&self, uri: &MediaUri) -> bool {
        uri.server_name == self.server_name
    }

    fn now(&self) -> i64 {
        self.clock.now().get().into()
    }
}

/// As a row of `media_quarantines` has it. None for what has no such row.
fn name_of(target: &QuarantineTarget) -> Option<(QuarantineKind, String)> {
    match target {
        QuarantineTarget::Digest(digest) => Some((QuarantineKind::Digest, digest.to_string())),
        QuarantineTarget::User(user_id) => Some((QuarantineKind::User, user_id.to_string())),
        QuarantineTarget::Server(name) => Some((QuarantineKind::Server, name.to_string())),
        QuarantineTarget::Media(_) | QuarantineTarget::Room(_) => None,
    }
}

/// Whatever the content of an event names, wherever in it: clients show media from many fields, also of their own making,
/// and from HTML.
fn collect_of_event(json: &str, uris: &mut BTreeSet<MediaUri>) {
    // A row that can't be read is no reason not to look at the others.
    let Ok(event) = serde_json::from_str::<Value>(json) else { return };
    if let Some(content) = event.get("content") {
        collect(content, uris);
    }
}

/// Events are no deeper than the JSON parser lets them be.
fn collect(value: &Value, uris: &mut BTreeSet<MediaUri>) {
    match value {
        Value::String(text) => uris.extend(text.split(SCHEME).skip(1).filter_map(uri_at)),
        Value::Array(values) => values.iter().for_each(|value| collect(value, uris)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, uris)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The URI whose server's name and media id a text begins with.
fn uri_at(text: &str) -> Option<MediaUri> {
    let (server_name, rest) = text.split_once('/')?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let media_id = rest.split(|c| !is_part(c)).next()?;
    let uri = format!("{SCHEME}{server_name}/{media_id}");
    if uri.len() > MAX_URI {
        return None;
    }
    MediaUri::parse(&OwnedMxcUri::from(uri))
}
