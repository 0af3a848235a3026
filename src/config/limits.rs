//! What one caller may hold, do and keep: connections, rates and quotas, with their defaults.
//!
//! The defaults are far beyond what people need with the clients that they have, and keep one caller from stopping the
//! others. `docs/operating.md` says what each of them counts.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

/// What one caller may hold of the server: connections, and memory by sending and reading slowly.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ConnectionsConfig {
    /// In all. None for as many as the limit of open files allows. From 1 to 1,000,000.
    pub max: Option<u32>,
    /// Of one IPv4 address or one /64 of IPv6; not of this machine, a unix socket or a trusted proxy. From 1 to
    /// 1,000,000.
    pub max_per_address: u32,
    /// Requests at once on one HTTP/2 connection. From 1 to 10,000.
    pub max_streams: u32,
    /// Within which 16 KiB of a body have to come, or be read of an answer, or what is left of it. From 1 to 3,600.
    pub patience_seconds: u64,
    /// For bodies and answers that are under way, in MiB. From 1 to 1,000,000.
    pub held_megabytes: u32,
    pub held_megabytes_per_caller: u32,
    /// From 1 to 1,000.
    pub waiting_syncs_per_device: u32,
}

/// How often something may be done, each by a bucket of its own: for a user, an address or an e-mail address.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RateLimitsConfig {
    /// Without it no act is counted, whoever does it.
    pub enabled: bool,
    /// Users whose acts are not counted, such as a bot that speaks in many rooms. What is counted for an address is
    /// counted for them too.
    pub exempt_users: Vec<OwnedUserId>,
    /// For an address and for the account that is tried, and for mails that are asked for. Registration is for an
    /// address alone.
    pub login: RateLimitConfig,
    pub registration: RateLimitConfig,
    /// For a user, as everything below is.
    pub message: RateLimitConfig,
    pub join: RateLimitConfig,
    pub membership: RateLimitConfig,
    /// In events that new rooms begin with.
    pub create_room: RateLimitConfig,
    /// In rooms that hear of it, and KiB of what no room hears of.
    pub profile: RateLimitConfig,
    /// In KiB.
    pub account_data: RateLimitConfig,
    /// Receipts, typing and presence.
    pub ephemeral: RateLimitConfig,
    /// In devices that something is sent to.
    pub to_device: RateLimitConfig,
    /// In MiB that are uploaded.
    pub media: RateLimitConfig,
    pub read: RateLimitConfig,
    /// In rooms that are sent whole.
    pub sync: RateLimitConfig,
    pub search: RateLimitConfig,
    /// For the address of whoever is not logged in.
    pub lookup: RateLimitConfig,
    /// For another server.
    pub server: RateLimitConfig,
}

/// A bucket of `burst` units that refills by `per_second` a second. What costs more is owed.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct RateLimitConfig {
    /// Above 0.
    pub per_second: f64,
    /// From 1 to 1,000,000.
    pub burst: u32,
}

/// How much of each thing a user may have here. What is there already is never taken away by these, and can always be
/// replaced by what is no larger, and deleted.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct QuotasConfig {
    /// Users to whom none of these apply, such as a bridge.
    pub exempt_users: Vec<OwnedUserId>,
    /// In MiB, of all rooms together, and how many pieces that may be. From 1 to 1,000, and from 1 to 1,000,000.
    pub account_data_megabytes: u32,
    pub account_data_pieces: u32,
    /// Each from 1 to 1,000,000, here and below.
    pub tags_per_room: u32,
    /// Beyond it a new one takes the place of the oldest, as with authentications and tokens.
    pub filters: u32,
    pub devices: u32,
    /// E-mail addresses on an account.
    pub addresses: u32,
    /// In KiB of JSON. From 1 to 64, which is the specification's limit.
    pub profile_kilobytes: u32,
    pub profile_fields: u32,
    /// Room aliases that somebody has made and that are there.
    pub aliases: u32,
    /// Within 24 hours, upgrades included.
    pub rooms_per_day: u32,
    /// Within 24 hours.
    pub reports_per_day: u32,
    /// User-interactive authentications that are under way.
    pub authentications: u32,
    pub login_tokens: u32,
    pub openid_tokens: u32,
    /// In MiB, of what waits for one device. From 1 to 10,000.
    pub to_device_megabytes: u32,
    /// Backups of keys: how many, and how many keys and MiB all of them together.
    pub key_backups: u32,
    pub key_backup_sessions: u32,
    /// From 1 to 100,000.
    pub key_backup_megabytes: u32,
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self {
            max: None,
            // An office or a mobile network behind one address; a client has one connection or six.
            max_per_address: 512,
            // What RFC 9113 recommends.
            max_streams: 100,
            // A phone at the edge of its network is faster than 16 KiB in so long.
            patience_seconds: 30,
            held_megabytes: 256,
            // Several initial syncs of large accounts.
            held_megabytes_per_caller: 32,
            // A client waits with one, and with a second for a moment after it has lost the connection of the first.
            waiting_syncs_per_device: 8,
        }
    }
}

impl Default for RateLimitsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            exempt_users: Vec::new(),
            // Few guesses at a password in a minute, and enough for a family behind one address.
            login: RateLimitConfig { per_second: 0.2, burst: 10 },
            registration: RateLimitConfig { per_second: 0.1, burst: 5 },
            // More than anybody types; clients that send what they queued while they were offline come in bursts.
            message: RateLimitConfig { per_second: 10.0, burst: 50 },
            join: RateLimitConfig { per_second: 1.0, burst: 20 },
            // Leaving a space with all of its rooms, or inviting a department.
            membership: RateLimitConfig { per_second: 5.0, burst: 100 },
            // A room begins with about eight events: so many rooms of a community at once, and one every two seconds.
            create_room: RateLimitConfig { per_second: 5.0, burst: 200 },
            // A new name and a new picture for somebody who is in 250 rooms.
            profile: RateLimitConfig { per_second: 5.0, burst: 500 },
            account_data: RateLimitConfig { per_second: 20.0, burst: 1_000 },
            // Marking everything as read in a client that does so room by room.
            ephemeral: RateLimitConfig { per_second: 20.0, burst: 500 },
            // A new key for each of twenty thousand devices. Clients make one for every hundred messages of a room.
            to_device: RateLimitConfig { per_second: 200.0, burst: 20_000 },
            // The pictures of a holiday, or a video of a minute; a gigabyte in a quarter of an hour.
            media: RateLimitConfig { per_second: 1.0, burst: 100 },
            // A client asks for about a hundred things at its first start, and a user may have several.
            read: RateLimitConfig { per_second: 100.0, burst: 1_000 },
            sync: RateLimitConfig { per_second: 20.0, burst: 2_000 },
            // Clients search for people while a name is typed.
            search: RateLimitConfig { per_second: 5.0, burst: 50 },
            lookup: RateLimitConfig { per_second: 20.0, burst: 200 },
            // A large server sends a transaction after the other, and whoever joins a room asks for much at once.
            server: RateLimitConfig { per_second: 50.0, burst: 500 },
        }
    }
}

impl Default for QuotasConfig {
    fn default() -> Self {
        Self {
            exempt_users: Vec::new(),
            // A list of direct chats with thousands of people takes half a megabyte, and nothing else comes near that.
            account_data_megabytes: 10,
            // Bots that look after thousands of rooms keep a piece or two for each.
            account_data_pieces: 20_000,
            tags_per_room: 100,
            // Clients store the same two or three at each start.
            filters: 250,
            // Scripts log in each time that they run and forget to log out.
            devices: 500,
            addresses: 50,
            profile_kilobytes: 64,
            profile_fields: 100,
            aliases: 2_000,
            // Whoever moves here from elsewhere makes their rooms in a day.
            rooms_per_day: 500,
            reports_per_day: 100,
            authentications: 50,
            login_tokens: 20,
            // Clients ask for one with each call and each widget, and show it at once.
            openid_tokens: 100,
            // Keys of a hundred thousand sessions, for a device that has been in a drawer for a year.
            to_device_megabytes: 256,
            // A client makes one, and another when its user has lost the key of that.
            key_backups: 50,
            // Somebody in hundreds of busy rooms gets a hundred sessions an hour, and a key takes a kilobyte.
            key_backup_sessions: 500_000,
            key_backup_megabytes: 500,
        }
    }
}
