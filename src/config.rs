//! The configuration: typed, with every default in this file, documented for its reader in
//! `config.example.toml`.
//!
//! Each key is written down three times, and tests hold the three together: the structs here (what the
//! code reads, and the defaults), the list in `config/key.rs` (what a value must look like), and the
//! example file (why one would change it).

mod address;
mod injected;
mod key;
mod mail;
mod problem;
mod public_key;
mod room_version;
mod secret;
mod shown;
mod similar;
mod source;
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
    address::{Listen, Network},
    injected::is_injected,
    mail::{HostName, MailEncryption, MailFrom},
    problem::{ConfigError, Problem},
    public_key::PublicKey,
    secret::{Secret, SecretUrl},
    shown::Origins,
    source::environment,
    url::{DatabaseUrl, HttpUrl, IdentityServerUrl, RedisUrl, TurnUri},
};

/// Everything that can be set.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Config {
    pub server_name: OwnedServerName,
    pub data_dir: PathBuf,
    pub listen: Vec<Listen>,
    pub trusted_proxies: Vec<Network>,
    pub tls: Tls,
    pub database: Database,
    pub redis: Redis,
    pub cluster: Cluster,
    pub registration: Registration,
    pub passwords: Passwords,
    pub mail: Mail,
    pub identity: Identity,
    pub rate_limits: RateLimits,
    pub rooms: Rooms,
    pub presence: Presence,
    pub user_directory: UserDirectory,
    pub turn: Turn,
    pub server_notices: ServerNotices,
    pub rtc: Rtc,
    pub delayed_events: DelayedEvents,
    pub federation: Federation,
    pub well_known: WellKnown,
    pub log: Log,
    pub metrics: Metrics,
    pub timeouts: Timeouts,
}

/// The certificate of the `tls:` listeners: PEM files.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Tls {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Database {
    pub url: Option<DatabaseUrl>,
    pub max_connections: u32,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Redis {
    pub url: Option<RedisUrl>,
}

/// What the nodes of one database tell each other.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Cluster {
    pub advertise: Option<HttpUrl>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Registration {
    pub mode: RegistrationMode,
    pub guests: bool,
    pub require_email: bool,
    pub shared_secret: Option<Secret>,
    pub terms: Vec<Policy>,
}

/// A document that whoever registers has to accept
/// (<https://spec.matrix.org/v1.19/client-server-api/#terms-of-service-at-registration>).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Policy {
    pub id: String,
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
    pub url: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Passwords {
    /// In characters.
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
pub struct Mail {
    pub host: Option<HostName>,
    pub port: Option<u16>,
    pub encryption: MailEncryption,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub from: Option<MailFrom>,
    pub next_link_hosts: Vec<String>,
}

/// The identity servers that may be asked
/// (<https://spec.matrix.org/v1.19/client-server-api/#third-party-invites>).
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Identity {
    pub servers: Vec<IdentityServerUrl>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RateLimits {
    pub enabled: bool,
    pub exempt_users: Vec<OwnedUserId>,
    pub login: RateLimit,
    pub registration: RateLimit,
    pub message: RateLimit,
    pub join: RateLimit,
}

/// A bucket of `burst` acts that refills by `per_second` a second.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct RateLimit {
    pub per_second: f64,
    pub burst: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Rooms {
    #[serde(with = "room_version")]
    pub default_version: RoomVersionId,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Presence {
    pub enabled: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct UserDirectory {
    /// Whether everybody finds all users of this server.
    pub search_all: bool,
}

/// The TURN server through which calls go that find no direct way.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Turn {
    pub uris: Vec<TurnUri>,
    pub shared_secret: Option<Secret>,
    pub lifetime_seconds: u64,
}

/// The user in whose name the server speaks to its users
/// (<https://spec.matrix.org/v1.19/client-server-api/#server-notices>).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ServerNotices {
    pub localpart: Option<String>,
    pub name: String,
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
pub struct Rtc {
    pub transports: Vec<RtcTransport>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DelayedEvents {
    pub max_delay_seconds: u64,
    pub max_scheduled: u32,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Federation {
    pub enabled: bool,
}

/// What `/.well-known/matrix/…` answers
/// (<https://spec.matrix.org/v1.19/client-server-api/#well-known-uris>).
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct WellKnown {
    pub client_base_url: Option<HttpUrl>,
    pub support: Support,
    pub policy_server: PolicyServer,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Support {
    pub page: Option<HttpUrl>,
    pub contacts: Vec<Contact>,
}

/// The policy server that rooms may name
/// (<https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixpolicy_server>).
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct PolicyServer {
    pub ed25519: Option<PublicKey>,
}

/// Somebody to turn to
/// (<https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport>).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    pub role: ContactRole,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrix_id: Option<OwnedUserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_address: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Human,
    Json,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Metrics {
    pub listen: Option<Listen>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Timeouts {
    pub shutdown_notice_seconds: u64,
    pub shutdown_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server_name: owned_server_name!("localhost"),
            data_dir: PathBuf::from("./hearth-data"),
            listen: vec![Listen::Tcp((Ipv4Addr::LOCALHOST, 8008).into())],
            trusted_proxies: Vec::new(),
            tls: Tls::default(),
            database: Database { url: None, max_connections: 16 },
            redis: Redis::default(),
            cluster: Cluster::default(),
            registration: Registration::default(),
            passwords: Passwords { min_length: 8 },
            mail: Mail::default(),
            identity: Identity::default(),
            rate_limits: RateLimits::default(),
            rooms: Rooms { default_version: RoomVersionId::V12 },
            presence: Presence { enabled: true },
            user_directory: UserDirectory::default(),
            turn: Turn { uris: Vec::new(), shared_secret: None, lifetime_seconds: 86_400 },
            server_notices: ServerNotices { localpart: None, name: "Server notices".to_owned(), avatar_url: None },
            rtc: Rtc::default(),
            delayed_events: DelayedEvents { max_delay_seconds: 86_400, max_scheduled: 100 },
            federation: Federation { enabled: false },
            well_known: WellKnown::default(),
            log: Log { level: "info".to_owned(), format: LogFormat::Human },
            metrics: Metrics::default(),
            timeouts: Timeouts { shutdown_notice_seconds: 0, shutdown_seconds: 10 },
        }
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            enabled: true,
            exempt_users: Vec::new(),
            login: RateLimit { per_second: 0.2, burst: 10 },
            registration: RateLimit { per_second: 0.1, burst: 5 },
            message: RateLimit { per_second: 10.0, burst: 50 },
            join: RateLimit { per_second: 1.0, burst: 20 },
        }
    }
}

impl Config {
    /// Where the database is: as configured, else a file in the data folder.
    pub fn database_url(&self) -> DatabaseUrl {
        let embedded = || DatabaseUrl::Sqlite(self.data_dir.join("hearth.sqlite3"));
        self.database.url.clone().unwrap_or_else(embedded)
    }

    /// The user in whose name the server speaks to its users.
    pub fn notices_sender(&self) -> Option<OwnedUserId> {
        let localpart = self.server_notices.localpart.as_ref()?;
        OwnedUserId::try_from(format!("@{localpart}:{}", self.server_name)).ok()
    }

    /// Where clients and their users reach this server.
    pub fn public_base_url(&self) -> String {
        let configured = self.well_known.client_base_url.as_ref().map(|url| url.as_str().to_owned());
        configured.unwrap_or_else(|| format!("https://{}", self.server_name))
    }

    /// How long load balancers are given to notice that this node is about to stop.
    pub fn shutdown_notice(&self) -> Duration {
        Duration::from_secs(self.timeouts.shutdown_notice_seconds)
    }

    /// How long requests in flight may take to finish once shutdown has started.
    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_secs(self.timeouts.shutdown_seconds)
    }

    /// The effective configuration as a file, its secrets masked.
    pub fn to_masked_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(&self.with_database_url())
    }

    fn with_database_url(&self) -> Self {
        let mut effective = self.clone();
        effective.database.url = Some(self.database_url());
        effective
    }

    /// What is allowed but probably not meant. Logged at start, printed by `hearth check-config`.
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if self.federation.enabled {
            warnings.push(
                "`federation.enabled` is true, but this version of Hearth does not federate yet: it \
                 talks to no other server",
            );
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
        warnings
    }

    /// What each key allows but their combination does not.
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
        problems.extend(self.overlapping_listeners());
        if self.listen.is_empty() {
            problems.push(Problem::anywhere(
                "`listen` is empty, so nobody could reach the server: give at least one address, such \
                 as `127.0.0.1:8008`",
            ));
        }
        problems
    }

    /// Addresses that no two listeners can have, those of `listen` and that of `metrics.listen` together.
    fn overlapping_listeners(&self) -> Vec<Problem> {
        let all: Vec<_> = self.listen.iter().chain(&self.metrics.listen).collect();
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
        self.listen.iter().chain(&self.metrics.listen).any(|listen| matches!(listen, Listen::Tls(_)))
    }
}
