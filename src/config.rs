//! The configuration: typed, with every default in this file, in `config/limits.rs` and in `config/media.rs`, documented
//! for its reader in `config.example.toml`.
//!
//! Each key is written down three times, and tests hold the three together: the structs here (what the
//! code reads, and the defaults), the list in `config/key.rs` and the files beside it (what a value must look like), and the
//! example file (why one would change it).
//!
//! Units are part of a key's name where its value has one: `…_seconds`, `…_megabytes`, `per_second`. Whatever a section
//! holds is decided at start; nothing is read again while the server runs but the files that `[tls]` names.
//!
//! A change of the configuration takes a restart, and nodes of one database may differ in it: what has to be the same
//! on all of them (the server's name, its key) is in the database.

mod address;
pub mod cli;
pub(crate) mod discovery;
mod federation;
mod injected;
mod key;
mod key_list;
mod limits;
mod mail;
mod media;
mod problem;
mod public_key;
mod room_version;
mod secret;
mod shown;
mod similar;
mod source;
pub(crate) mod terms;
pub(crate) mod turn;
mod url;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf, time::Duration};

use ruma::{
    OwnedServerName, OwnedUserId, RoomVersionId,
    api::client::{discovery::discover_support::ContactRole, rtc::RtcTransport},
    owned_server_name,
};
use serde::{Deserialize, Serialize};

pub use self::{
    address::{IpBlock, ListenAddress, ListenEntry, ServedApis},
    federation::{FederationConfig, NameServer, ServerPattern},
    injected::is_injected,
    limits::{ConnectionsConfig, QuotasConfig, RateLimitConfig, RateLimitsConfig},
    mail::{HostName, MailEncryption, MailFrom},
    media::{MediaConfig, MediaRedirect, MediaStoreConfig, ScannerConfig, UrlPreviewsConfig},
    problem::{ConfigError, Problem},
    public_key::PublicKey,
    secret::{Secret, SecretUrl},
    shown::ValueSources,
    source::environment,
    url::{BaseUrl, DatabaseUrl, HttpUrl, IdentityServerUrl, RedisUrl, TurnUri},
};

/// In characters: what is random cannot be found by trying then.
const MIN_SECRET_LENGTH: usize = 16;

/// Everything that can be set.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Config {
    /// In small letters. It is part of every user id and is written down by the first start: another one is refused
    /// later.
    pub server_name: OwnedServerName,
    /// Relative to the folder in which the process is started. Made if it is missing.
    pub data_dir: PathBuf,
    /// At least one, and no two that overlap with each other or with `metrics.listen`.
    pub listen: Vec<ListenEntry>,
    /// From which `X-Forwarded-For` is believed. Empty by default: anybody can write that header.
    pub trusted_proxies: Vec<IpBlock>,
    pub tls: TlsConfig,
    pub connections: ConnectionsConfig,
    pub database: DatabaseConfig,
    pub redis: RedisConfig,
    pub cluster: ClusterConfig,
    pub registration: RegistrationConfig,
    pub passwords: PasswordsConfig,
    pub mail: MailConfig,
    pub identity: IdentityConfig,
    pub rate_limits: RateLimitsConfig,
    pub quotas: QuotasConfig,
    pub rooms: RoomsConfig,
    pub media: MediaConfig,
    pub url_previews: UrlPreviewsConfig,
    pub presence: PresenceConfig,
    pub user_directory: UserDirectoryConfig,
    pub turn: TurnConfig,
    pub server_notices: ServerNoticesConfig,
    pub rtc: RtcConfig,
    pub delayed_events: DelayedEventsConfig,
    pub federation: FederationConfig,
    pub well_known: WellKnownConfig,
    pub log: LogConfig,
    pub metrics: MetricsConfig,
    pub timeouts: TimeoutsConfig,
}

/// The certificate of the `tls:` listeners: PEM files.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct TlsConfig {
    /// The whole chain, the server's own certificate first. Both files or neither.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// Where everything is kept. Without a URL it is a file in `data_dir`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DatabaseConfig {
    pub url: Option<DatabaseUrl>,
    /// Connections to PostgreSQL of this node at most, beside the one that is kept for heartbeats: all nodes together
    /// have to stay below the server's own limit. SQLite has one connection that writes and four that read, whatever is
    /// said here. From 1 to 1,000.
    pub max_connections: u32,
}

/// What several nodes may have in common beside the database. Nothing correct depends on it: without it, nodes look for
/// each other's batches in the database instead of being woken.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct RedisConfig {
    pub url: Option<RedisUrl>,
}

/// How the nodes of one database reach each other.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ClusterConfig {
    /// The URL under which the other nodes forward requests to this one. Where it is not set, it is found out from the
    /// listeners at start.
    pub advertise: Option<HttpUrl>,
}

/// Who may register, and what they have to show.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct RegistrationConfig {
    pub mode: RegistrationMode,
    /// Whether anybody may have an account without a password, which can do little.
    pub guests: bool,
    /// Whether an account needs an e-mail address that was proved, which takes a mail server.
    pub require_email: bool,
    /// Whoever knows it may register accounts, administrators included, whatever `mode` says.
    pub shared_secret: Option<Secret>,
    /// Whether that may be one that is easily guessed.
    pub allow_short_shared_secret: bool,
    pub terms: Vec<TermsPolicy>,
}

/// A document that whoever registers has to accept
/// (<https://spec.matrix.org/v1.19/client-server-api/#terms-of-service-at-registration>).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TermsPolicy {
    /// Letters, digits and `-._~`, at most 255 of them, as the version. Each identifier is there once.
    pub id: String,
    /// Whoever has accepted another version is not asked again: only who registers is.
    pub version: String,
    /// By language, such as `en` or `pt-BR`.
    #[serde(flatten)]
    pub translations: BTreeMap<String, Translation>,
}

/// A document in one language.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Translation {
    pub name: String,
    /// `https://` or `http://`, for people to open.
    pub url: String,
}

/// What a password has to be like, where somebody sets one. Those that are there already stay.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PasswordsConfig {
    /// In characters. From 1 to 128.
    pub min_length: u32,
}

/// Who may make an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistrationMode {
    /// Everybody.
    Open,
    /// Who holds a registration token.
    Token,
    /// Nobody; accounts are made by `hearth admin create-user` or with the shared secret.
    #[default]
    Closed,
}

/// The mail server that takes this server's mails. Without one there are none.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct MailConfig {
    pub host: Option<HostName>,
    /// None for the usual port of the encryption.
    pub port: Option<u16>,
    pub encryption: MailEncryption,
    /// With a password or not at all.
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub from: Option<MailFrom>,
    /// Hosts, with their port where it is not the usual one, to which a client may have people sent on who have
    /// confirmed an address. Any other page could pretend to be a login.
    pub next_link_hosts: Vec<String>,
}

/// The identity servers that may be asked
/// (<https://spec.matrix.org/v1.19/client-server-api/#third-party-invites>).
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct IdentityConfig {
    pub servers: Vec<IdentityServerUrl>,
}

/// What new rooms are, and how much of the rooms in use is kept at hand.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RoomsConfig {
    /// One of those that this server can create, 6 to 12.
    #[serde(with = "room_version")]
    pub default_version: RoomVersionId,
    /// How much memory the rooms in use may take, in MiB and about: rooms that a request holds are kept beyond that.
    pub cache_megabytes: u32,
}

/// Whether users see who of the others is there. Without it everybody is offline to everybody.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PresenceConfig {
    pub enabled: bool,
}

/// Whom users find when they search for people. By default those with whom they share a room, or who are in a room that
/// anybody can enter or read.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct UserDirectoryConfig {
    /// Whether everybody finds all users of this server.
    pub search_all: bool,
}

/// The TURN server through which calls go that find no direct way.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TurnConfig {
    /// Handed to clients as they are. Without a secret none are.
    pub uris: Vec<TurnUri>,
    pub shared_secret: Option<Secret>,
    /// For how long credentials for it are good. A call that lasts longer needs new ones. From 60 to 2,592,000, which
    /// is 30 days.
    pub lifetime_seconds: u64,
}

/// The user in whose name the server speaks to its users
/// (<https://spec.matrix.org/v1.19/client-server-api/#server-notices>).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ServerNoticesConfig {
    /// None for a server that sends no notices. Of [`is_localpart`]'s characters.
    pub localpart: Option<String>,
    pub name: String,
    /// `mxc://…`.
    pub avatar_url: Option<String>,
}

/// Whether a user of this server may be called so: what historical user ids were allowed besides is refused
/// (<https://spec.matrix.org/v1.19/appendices/#user-identifiers>).
pub fn is_localpart(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._=-/+".contains(&b);
    !text.is_empty() && text.bytes().all(allowed)
}

/// What carries the calls of many.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct RtcConfig {
    /// Best first, handed to clients as they are.
    pub transports: Vec<RtcTransport>,
}

/// Events that users have sent later: how much later at most, and how many each of them may have scheduled; 0 switches
/// them off.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DelayedEventsConfig {
    /// From 1 to 31,536,000, which is a year.
    pub max_delay_seconds: u64,
    /// From 0 to 10,000.
    pub max_scheduled: u32,
}

/// What `/.well-known/matrix/…` answers
/// (<https://spec.matrix.org/v1.19/client-server-api/#well-known-uris>).
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct WellKnownConfig {
    /// Where clients find the API, and the base of links in mails. None for `https://` and the server's name.
    pub client_base_url: Option<BaseUrl>,
    /// Where other servers find this one. None where they go by its name and the name's SRV records.
    pub server: Option<OwnedServerName>,
    pub support: SupportConfig,
    pub policy_server: PolicyServer,
}

/// Whom users turn to who need help with this server.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct SupportConfig {
    pub page: Option<HttpUrl>,
    pub contacts: Vec<Contact>,
}

/// The policy server that rooms may name
/// (<https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixpolicy_server>).
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct PolicyServer {
    /// With which others check what that server has signed. None where there is none at this name.
    pub ed25519: Option<PublicKey>,
}

/// Somebody to turn to
/// (<https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport>).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    pub role: ContactRole,
    /// This or an e-mail address, or both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrix_id: Option<OwnedUserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_address: Option<String>,
}

/// What of the log is written, and how.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LogConfig {
    /// A filter as `tracing` knows it: `info`, or `info,hearth::room=debug`.
    pub level: String,
    pub format: LogFormat,
}

/// How a line of the log is written: for people, or as a JSON object for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Human,
    Json,
}

/// Where Prometheus reads the metrics, on a listener of its own: clients have no business there.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct MetricsConfig {
    /// None for no metrics. Whoever reaches it may read them.
    pub listen: Option<ListenAddress>,
}

/// How the server stops: for so long it is still served but reports that it is leaving, then requests in flight have so
/// long to finish.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TimeoutsConfig {
    /// Both from 0 to 3,600. With 0 nothing is waited for.
    pub shutdown_notice_seconds: u64,
    pub shutdown_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server_name: owned_server_name!("localhost"),
            data_dir: PathBuf::from("./hearth-data"),
            listen: vec![ListenAddress::Tcp((Ipv4Addr::LOCALHOST, 8008).into()).into()],
            trusted_proxies: Vec::new(),
            tls: TlsConfig::default(),
            connections: ConnectionsConfig::default(),
            // Statements are short: more connections than the database has processors mostly wait there.
            database: DatabaseConfig { url: None, max_connections: 16 },
            redis: RedisConfig::default(),
            cluster: ClusterConfig::default(),
            registration: RegistrationConfig::default(),
            passwords: PasswordsConfig { min_length: 8 },
            mail: MailConfig::default(),
            identity: IdentityConfig::default(),
            rate_limits: RateLimitsConfig::default(),
            quotas: QuotasConfig::default(),
            media: MediaConfig::default(),
            url_previews: UrlPreviewsConfig::default(),
            rooms: RoomsConfig { default_version: RoomVersionId::V12, cache_megabytes: 256 },
            presence: PresenceConfig { enabled: true },
            user_directory: UserDirectoryConfig::default(),
            turn: TurnConfig { uris: Vec::new(), shared_secret: None, lifetime_seconds: 86_400 },
            server_notices: ServerNoticesConfig {
                localpart: None,
                name: "Server notices".to_owned(),
                avatar_url: None,
            },
            rtc: RtcConfig::default(),
            delayed_events: DelayedEventsConfig { max_delay_seconds: 86_400, max_scheduled: 100 },
            federation: FederationConfig {
                trusted_key_servers: vec![owned_server_name!("matrix.org")],
                ..FederationConfig::default()
            },
            well_known: WellKnownConfig::default(),
            log: LogConfig { level: "info".to_owned(), format: LogFormat::Human },
            metrics: MetricsConfig::default(),
            timeouts: TimeoutsConfig { shutdown_notice_seconds: 0, shutdown_seconds: 10 },
        }
    }
}

impl Config {
    /// Where the database is: as configured, else a file in the data folder.
    pub fn database_url(&self) -> DatabaseUrl {
        let embedded = || DatabaseUrl::Sqlite(self.data_dir.join("hearth.sqlite3"));
        self.database.url.clone().unwrap_or_else(embedded)
    }

    /// The user in whose name the server speaks to its users. None where no notices are sent. The name was checked when
    /// the configuration was read.
    pub fn notices_sender(&self) -> Option<OwnedUserId> {
        let localpart = self.server_notices.localpart.as_ref()?;
        OwnedUserId::try_from(format!("@{localpart}:{}", self.server_name)).ok()
    }

    /// Where clients and their users reach this server. Without a trailing slash.
    pub fn public_base_url(&self) -> String {
        let configured = self.well_known.client_base_url.as_ref().map(|url| url.as_str().to_owned());
        configured.unwrap_or_else(|| format!("https://{}", self.server_name))
    }

    /// How long a body or an answer may rest while it is under way.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.connections.patience_seconds)
    }

    /// How long load balancers are given to notice that this node is about to stop.
    pub fn shutdown_notice(&self) -> Duration {
        Duration::from_secs(self.timeouts.shutdown_notice_seconds)
    }

    /// How long requests in flight may take to finish once shutdown has started.
    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_secs(self.timeouts.shutdown_seconds)
    }

    /// The effective configuration as a file, its secrets masked. It can't be used as it is where something in it was
    /// masked.
    pub fn to_masked_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(&self.with_database_url())
    }

    /// With the URL that is in effect, so that whoever reads it finds the file too that nobody has set.
    fn with_database_url(&self) -> Self {
        let mut effective = self.clone();
        effective.database.url = Some(self.database_url());
        effective
    }

    /// What is allowed but probably not meant. Logged at start, printed by `hearth check-config`.
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if self.federation.enabled && !self.listen.iter().any(|entry| entry.apis != ServedApis::Client) {
            warnings.push(
                "`federation.enabled` is true, but all addresses in `listen` are for clients alone: no other server \
                 reaches this one",
            );
        }
        if !self.federation.enabled && self.well_known.server.is_some() {
            warnings.push("`well_known.server` is set, but `federation.enabled` is false: no other server is answered");
        }
        if self.turn.uris.is_empty() != self.turn.shared_secret.is_none() {
            warnings
                .push("of `turn.uris` and `turn.shared_secret` only one is set: clients are told of no TURN server");
        }
        if !self.rtc.transports.is_empty() && self.delayed_events.max_scheduled == 0 {
            warnings.push(
                "`rtc.transports` lists transports for calls, but `delayed_events.max_scheduled` is 0: whoever loses \
                 the connection stays in the call for others to see",
            );
        }
        if self.mail.encryption == MailEncryption::None && self.mail.password.is_some() {
            warnings.push("`mail.encryption` is `none`, so `mail.password` goes over the network as it is");
        }
        if self.registration.mode == RegistrationMode::Open {
            warnings.push(
                "`registration.mode` is `open`: whoever reaches this server can make an account; \
                 `token` lets in only those you have given a token",
            );
        }
        if self.redis.url.is_some() && matches!(self.database_url(), DatabaseUrl::Sqlite(_)) {
            warnings.push(
                "`redis.url` is set, but the database is SQLite, which one process has to itself: Redis is for several \
                 nodes over one PostgreSQL, so nothing is gained by it here",
            );
        }
        if self.tls.certificate.is_some() && !self.speaks_tls() {
            warnings.push(
                "`tls.certificate` is set, but no address in `listen` starts with `tls:`, so nothing \
                 uses it",
            );
        }
        let shares_a_database = self.redis.url.is_some() && matches!(self.database_url(), DatabaseUrl::Postgres(_));
        warnings.extend(self.media.warnings(shares_a_database));
        warnings
    }

    /// What each key allows but their combination does not. Here and not in [`Self::warnings`] is what would fail, or
    /// do something else than is written.
    fn contradictions(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let complete = self.tls.certificate.is_some() && self.tls.key.is_some();
        if self.speaks_tls() && !complete {
            problems.push(Problem::anywhere(
                "an address in `listen` starts with `tls:`, which needs both `tls.certificate` and \
                 `tls.key` (paths of PEM files)",
            ));
        } else if self.tls.certificate.is_some() != self.tls.key.is_some() {
            problems.push(Problem::anywhere(
                "`tls.certificate` and `tls.key` come together: one is set and the other is not",
            ));
        }
        if self.server_notices.localpart.is_some() && self.notices_sender().is_none() {
            problems.push(Problem::anywhere(
                "`server_notices.localpart` makes no user id together with `server_name`: choose a shorter one",
            ));
        }
        if self.mail.host.is_some() != self.mail.from.is_some() {
            problems
                .push(Problem::anywhere("`mail.host` and `mail.from` come together: one is set and the other is not"));
        }
        if self.mail.username.is_some() != self.mail.password.is_some() {
            problems.push(Problem::anywhere(
                "`mail.username` and `mail.password` come together: one is set and the other is not",
            ));
        }
        if self.registration.require_email && self.mail.host.is_none() {
            problems.push(Problem::anywhere(
                "`registration.require_email` is true, but without `mail.host` nobody could confirm an address",
            ));
        }
        problems.extend(self.media.contradictions(&self.data_dir));
        problems.extend(self.short_secrets());
        problems.extend(self.overlapping_listeners());
        if self.listen.is_empty() {
            problems.push(Problem::anywhere(
                "`listen` is empty, so nobody could reach the server: give at least one address, such \
                 as `127.0.0.1:8008`",
            ));
        }
        problems
    }

    /// Secrets that somebody could find by trying: whoever has one is an administrator here, or relays through the TURN
    /// server.
    fn short_secrets(&self) -> Vec<Problem> {
        let register =
            self.registration.shared_secret.as_ref().filter(|_| !self.registration.allow_short_shared_secret);
        let secrets = [
            ("registration.shared_secret", register, ""),
            ("turn.shared_secret", self.turn.shared_secret.as_ref(), " and give the TURN server the same"),
        ];
        let is_short = |secret: &Secret| secret.expose().chars().count() < MIN_SECRET_LENGTH;
        let short = secrets.into_iter().filter(|(_, secret, _)| secret.is_some_and(is_short));
        let problem = |(key, _, also): (&str, _, &str)| {
            Problem::anywhere(format!(
                "`{key}` is shorter than {MIN_SECRET_LENGTH} characters and could be guessed: choose a random one, with \
                 `openssl rand -base64 32` for instance{also}"
            ))
        };
        short.map(problem).collect()
    }

    /// Addresses that no two listeners can have, those of `listen` and that of `metrics.listen` together.
    fn overlapping_listeners(&self) -> Vec<Problem> {
        let all: Vec<_> = self.listen_addresses().collect();
        let mut problems = Vec::new();
        for (count, one) in all.iter().enumerate() {
            if let Some(other) = all.iter().skip(count + 1).find(|other| one.overlaps(other)) {
                let message = if one.place() == other.place() {
                    format!("two listeners have the address `{}`: each needs its own", one.place())
                } else {
                    format!("the addresses `{one}` and `{other}` of two listeners overlap: one of them takes both")
                };
                problems.push(Problem::anywhere(message + " (`listen`, `metrics.listen`)"));
            }
        }
        problems
    }

    /// Whether any listener needs the certificate.
    pub fn speaks_tls(&self) -> bool {
        self.listen_addresses().any(|listen| matches!(listen, ListenAddress::Tls(_)))
    }

    /// Those of all listeners.
    fn listen_addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        self.listen.iter().map(|entry| &entry.address).chain(&self.metrics.listen)
    }
}
