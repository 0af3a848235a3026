//! Media as their operator sees them. Names of fields are what scripts go by.

use ruma::OwnedUserId;
use serde::Serialize;

use crate::store::media::ListedMedia;

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
    pub(super) place: (String, String),
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
