//! The content repository and previews of URLs: where media are kept, how much, how they are looked at and served.

mod checks;
mod day;
mod place;
mod zero_for_none;

use std::path::PathBuf;

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};

use super::{BaseUrl, HttpUrl, IpBlock, Secret};

/// Where media are kept, and what may be kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct MediaConfig {
    /// Of one file, in MiB. From 1 to 100,000.
    pub max_upload_megabytes: u32,
    /// None of them means one of files, called `files`, in the folder `media` of `data_dir`.
    pub stores: Vec<MediaStoreConfig>,
    /// The name of the one that new media go to. None for the first.
    pub store: Option<String>,
    /// How clients get bytes.
    pub redirect: MediaRedirect,
    /// For how long a signed URL is good. From 10 to 86,400.
    pub redirect_seconds: u64,
    /// In front of `/SERVER/MEDIA_ID`: a CDN that asks this server for what it lacks. Only with `redirect = "cdn"`.
    pub cdn_url: Option<BaseUrl>,
    /// Until when media were uploaded that anybody may fetch without a token, in milliseconds since 1970. 0 for none. In
    /// the configuration it is a day, `2026-11-28`, which is not part of that time.
    #[serde(default, with = "day")]
    pub open_until: u64,
    /// In MiB, each: what a user may upload within 24 hours, what a user may have in all, and the same for the whole
    /// server. None for as much as they like, which is 0 in the configuration. Up to 1,000,000,000.
    #[serde(with = "zero_for_none")]
    pub user_megabytes_per_day: Option<u32>,
    #[serde(with = "zero_for_none")]
    pub user_megabytes: Option<u32>,
    #[serde(with = "zero_for_none")]
    pub server_megabytes_per_day: Option<u32>,
    #[serde(with = "zero_for_none")]
    pub server_megabytes: Option<u32>,
    /// How many URIs a user may have that nothing was uploaded to yet. From 1 to 1,000.
    pub pending_uploads: u32,
    /// For how long such a URI is kept. From 1 to 720.
    pub pending_hours: u32,
    /// After how many days media go that nobody has asked for. None for never, which is 0 in the configuration. Up to
    /// 36,500.
    #[serde(with = "zero_for_none")]
    pub local_lifetime_days: Option<u32>,
    #[serde(with = "zero_for_none")]
    pub remote_lifetime_days: Option<u32>,
    /// In MiB: how much of other servers' media is kept. Beyond it goes what was asked for longest ago. From 1 to
    /// 1,000,000,000.
    pub remote_megabytes: u32,
    /// Whose media are neither fetched nor served.
    pub blocked_servers: Vec<OwnedServerName>,
    /// Of a picture of which thumbnails are made, in millions. From 1 to 200.
    pub max_megapixels: u32,
    /// The memory that may be used for making thumbnails at once, in MiB. From 64 to 100,000.
    pub thumbnail_megabytes: u32,
    /// A program and its arguments that writes a picture of the video in the file `{}` to its standard output. Empty for
    /// no pictures of videos.
    pub video_thumbnailer: Vec<String>,
    /// Each `ID:KEY`, the key 32 random bytes in base64. New media are encrypted with the first one. None for plain media.
    pub master_keys: Vec<Secret>,
    pub scanner: ScannerConfig,
}

/// One place where media are kept. Files with a path, S3 with a bucket.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MediaStoreConfig {
    /// Up to 64 letters, digits, `-` and `_`. The database says by it where something is, so it is never given to another
    /// place.
    pub name: String,
    /// A folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// None for Amazon's own of the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<HttpUrl>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// What all names there begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<Secret>,
}

/// From where clients get the bytes of media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaRedirect {
    /// From this server.
    #[default]
    Off,
    /// From the object store, by a URL that is signed for a while.
    Signed,
    /// From a CDN.
    Cdn,
}

/// What looks at media before they are served. One of both, or neither.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ScannerConfig {
    /// A program and its arguments: it exits with 0 for the file `{}` where that is harmless, with 1 where it is not.
    pub command: Vec<String>,
    /// Where clamd listens: `IP:PORT` or `unix:/path`.
    pub clamd: Option<String>,
    /// How long one file may take. From 1 to 3,600.
    pub timeout_seconds: u64,
}

/// Whether the server looks at pages for its clients, and how.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct UrlPreviewsConfig {
    pub enabled: bool,
    /// Hosts, with `*` for any characters. None in `allow` for all but those in `deny`.
    pub allow: Vec<String>,
    pub deny: Vec<String>,
    /// Addresses that may be asked although they are private.
    pub allowed_addresses: Vec<IpBlock>,
    /// What the server calls itself. None for its name and version.
    pub user_agent: Option<String>,
    /// As `Accept-Language` has them.
    pub languages: Vec<String>,
    /// Of a picture that a page shows, in MiB. From 1 to 100.
    pub max_image_megabytes: u32,
    /// For a page with all redirects. From 1 to 60.
    pub timeout_seconds: u64,
    /// For how long a preview is kept. From 1 to 720.
    pub cache_hours: u32,
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self {
            max_upload_megabytes: 50,
            stores: Vec::new(),
            store: None,
            redirect: MediaRedirect::Off,
            redirect_seconds: 300,
            cdn_url: None,
            open_until: 0,
            user_megabytes_per_day: Some(1_024),
            user_megabytes: Some(10_240),
            server_megabytes_per_day: None,
            server_megabytes: None,
            pending_uploads: 5,
            pending_hours: 24,
            local_lifetime_days: None,
            remote_lifetime_days: Some(30),
            remote_megabytes: 10_240,
            blocked_servers: Vec::new(),
            max_megapixels: 50,
            thumbnail_megabytes: 512,
            video_thumbnailer: Vec::new(),
            master_keys: Vec::new(),
            scanner: ScannerConfig { command: Vec::new(), clamd: None, timeout_seconds: 60 },
        }
    }
}

impl Default for UrlPreviewsConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            allow: Vec::new(),
            deny: Vec::new(),
            allowed_addresses: Vec::new(),
            user_agent: None,
            languages: vec!["en".to_owned()],
            max_image_megabytes: 10,
            timeout_seconds: 15,
            cache_hours: 24,
        }
    }
}
