//! The list of keys: what each may hold, said so that the one who got it wrong can mend it.
//!
//! The sentences are written once, here, and serve the file and the environment alike. A test holds this list against
//! the structs of `config.rs` and against `config.example.toml`. The keys of federation and of media are in files of their own.
//!
//! A check looks at one value alone. What several values make together is looked at afterwards, by
//! `Config::contradictions`.

pub(super) mod federation;
pub(super) mod media;

use std::collections::BTreeSet;

use ruma::{MxcUri, OwnedServerName, OwnedUserId, api::client::rtc::RtcTransport};
use serde::de::DeserializeOwned;
use toml::Value;
use tracing_subscriber::EnvFilter;

use super::{
    BaseUrl, Contact, DatabaseUrl, HostName, HttpUrl, IdentityServerUrl, IpBlock, ListenAddress, ListenEntry,
    LogFormat, MailEncryption, MailFrom, PublicKey, RedisUrl, RegistrationMode, Secret, TermsPolicy, TurnUri,
    is_localpart, room_version, secret::mask_user_info,
};

/// One key of the configuration.
#[derive(Debug)]
pub(super) struct ConfigKey {
    /// As it is written in messages: `database.url`.
    pub(super) path: &'static str,
    pub(super) kind: ValueKind,
    /// Completes the sentence "`database.url` must be …".
    expects: &'static str,
    /// Whether the value can be used; an error says why not, or is empty where `expects` has said so already.
    parse: Parse,
}

/// A function pointer, so that the list is a constant.
type Parse = fn(&Value) -> Result<(), String>;

/// The TOML type of a value, which decides how the text of an environment variable is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    Text,
    /// A text that is not repeated in a message.
    Secret,
    Boolean,
    Integer,
    Number,
    /// In a variable it is written as in TOML with its brackets, or as texts with commas between them.
    List,
    /// A list that is not repeated in a message, nor is what it holds.
    SecretList,
}

use ValueKind::{Boolean, Integer, List, Number, Text};

const fn per_second(path: &'static str) -> ConfigKey {
    ConfigKey { path, kind: Number, expects: "a number above 0, such as 0.5", parse: positive }
}

/// What the check says is what it checks.
macro_rules! whole_number {
    ($path:expr, $from:literal to $to:literal) => {
        ConfigKey {
            path: $path,
            kind: Integer,
            expects: concat!("a whole number from ", $from, " to ", $to),
            parse: between::<$from, $to>,
        }
    };
}

/// One at least, a million at most.
const fn count(path: &'static str) -> ConfigKey {
    whole_number!(path, 1 to 1_000_000)
}

const fn boolean(path: &'static str) -> ConfigKey {
    ConfigKey { path, kind: Boolean, expects: "true or false", parse: parses::<bool> }
}

/// All but those of federation and of media, in the order of `config.example.toml`, section by section, in which `check-config` prints them.
pub(super) static KEYS: &[ConfigKey] = &[
    ConfigKey { path: "server_name", kind: Text, expects: "a server name such as \"example.org\"", parse: server_name },
    ConfigKey { path: "data_dir", kind: Text, expects: "the path of a folder", parse: not_empty },
    ConfigKey {
        path: "listen",
        kind: List,
        expects: "a list of addresses such as \"127.0.0.1:8008\", \"[::1]:8008\", \
                  \"tls:0.0.0.0:8448\" or \"unix:/run/hearth.sock\"",
        parse: parses::<Vec<ListenEntry>>,
    },
    ConfigKey {
        path: "trusted_proxies",
        kind: List,
        expects: "a list of IP addresses or blocks such as \"10.0.0.0/8\"",
        parse: parses::<Vec<IpBlock>>,
    },
    ConfigKey { path: "tls.certificate", kind: Text, expects: "the path of a PEM file", parse: not_empty },
    ConfigKey { path: "tls.key", kind: Text, expects: "the path of a PEM file", parse: not_empty },
    count("connections.max"),
    count("connections.max_per_address"),
    whole_number!("connections.max_streams", 1 to 10_000),
    whole_number!("connections.patience_seconds", 1 to 3_600),
    count("connections.held_megabytes"),
    count("connections.held_megabytes_per_caller"),
    whole_number!("connections.waiting_syncs_per_device", 1 to 1_000),
    ConfigKey {
        path: "database.url",
        kind: ValueKind::Secret,
        expects: "a URL such as \"sqlite:PATH\" or \"postgres://user:password@host/database\"",
        parse: parses::<DatabaseUrl>,
    },
    whole_number!("database.max_connections", 1 to 1_000),
    ConfigKey {
        path: "redis.url",
        kind: ValueKind::Secret,
        expects: "a URL such as \"redis://127.0.0.1:6379\" or \"unix:///run/redis.sock\"",
        parse: parses::<RedisUrl>,
    },
    ConfigKey {
        path: "cluster.advertise",
        kind: Text,
        expects: "a URL such as \"http://10.0.0.5:8008\"",
        parse: parses::<HttpUrl>,
    },
    ConfigKey {
        path: "registration.mode",
        kind: Text,
        expects: "\"open\", \"token\" or \"closed\"",
        parse: is_one_of::<RegistrationMode>,
    },
    boolean("registration.guests"),
    boolean("registration.require_email"),
    ConfigKey {
        path: "registration.shared_secret",
        kind: ValueKind::Secret,
        expects: "a text",
        parse: parses::<Secret>,
    },
    boolean("registration.allow_short_shared_secret"),
    ConfigKey {
        path: "registration.terms",
        kind: List,
        expects: "a list of documents such as { id = \"privacy_policy\", version = \"1.0\", \
                  en = { name = \"Privacy policy\", url = \"https://example.org/privacy\" } }",
        parse: terms,
    },
    whole_number!("passwords.min_length", 1 to 128),
    ConfigKey {
        path: "mail.host",
        kind: Text,
        expects: "the name of a mail server, such as \"mail.example.org\"",
        parse: parses::<HostName>,
    },
    whole_number!("mail.port", 1 to 65_535),
    ConfigKey {
        path: "mail.encryption",
        kind: Text,
        expects: "\"tls\", \"starttls\" or \"none\"",
        parse: is_one_of::<MailEncryption>,
    },
    ConfigKey { path: "mail.username", kind: Text, expects: "a text", parse: not_empty },
    ConfigKey { path: "mail.password", kind: ValueKind::Secret, expects: "a text", parse: parses::<Secret> },
    ConfigKey {
        path: "mail.from",
        kind: Text,
        expects: "an address such as \"Hearth <noreply@example.org>\"",
        parse: parses::<MailFrom>,
    },
    ConfigKey {
        path: "mail.next_link_hosts",
        kind: List,
        expects: "a list of hosts such as \"app.example.org\"",
        parse: parses::<Vec<String>>,
    },
    ConfigKey {
        path: "identity.servers",
        kind: List,
        expects: "a list of identity servers such as \"id.example.org\"",
        parse: parses::<Vec<IdentityServerUrl>>,
    },
    boolean("rate_limits.enabled"),
    ConfigKey {
        path: "rate_limits.exempt_users",
        kind: List,
        expects: "a list of user ids such as \"@bot:example.org\"",
        parse: parses::<Vec<OwnedUserId>>,
    },
    per_second("rate_limits.login.per_second"),
    count("rate_limits.login.burst"),
    per_second("rate_limits.registration.per_second"),
    count("rate_limits.registration.burst"),
    per_second("rate_limits.message.per_second"),
    count("rate_limits.message.burst"),
    per_second("rate_limits.join.per_second"),
    count("rate_limits.join.burst"),
    per_second("rate_limits.membership.per_second"),
    count("rate_limits.membership.burst"),
    per_second("rate_limits.create_room.per_second"),
    count("rate_limits.create_room.burst"),
    per_second("rate_limits.profile.per_second"),
    count("rate_limits.profile.burst"),
    per_second("rate_limits.account_data.per_second"),
    count("rate_limits.account_data.burst"),
    per_second("rate_limits.ephemeral.per_second"),
    count("rate_limits.ephemeral.burst"),
    per_second("rate_limits.to_device.per_second"),
    count("rate_limits.to_device.burst"),
    per_second("rate_limits.media.per_second"),
    count("rate_limits.media.burst"),
    per_second("rate_limits.read.per_second"),
    count("rate_limits.read.burst"),
    per_second("rate_limits.sync.per_second"),
    count("rate_limits.sync.burst"),
    per_second("rate_limits.search.per_second"),
    count("rate_limits.search.burst"),
    per_second("rate_limits.lookup.per_second"),
    count("rate_limits.lookup.burst"),
    per_second("rate_limits.server.per_second"),
    count("rate_limits.server.burst"),
    ConfigKey {
        path: "quotas.exempt_users",
        kind: List,
        expects: "a list of user ids such as \"@bridge:example.org\"",
        parse: parses::<Vec<OwnedUserId>>,
    },
    whole_number!("quotas.account_data_megabytes", 1 to 1_000),
    count("quotas.account_data_pieces"),
    count("quotas.tags_per_room"),
    count("quotas.filters"),
    count("quotas.devices"),
    count("quotas.addresses"),
    whole_number!("quotas.profile_kilobytes", 1 to 64),
    count("quotas.profile_fields"),
    count("quotas.aliases"),
    count("quotas.rooms_per_day"),
    count("quotas.reports_per_day"),
    count("quotas.authentications"),
    count("quotas.login_tokens"),
    count("quotas.openid_tokens"),
    count("quotas.key_backups"),
    count("quotas.key_backup_sessions"),
    whole_number!("quotas.key_backup_megabytes", 1 to 100_000),
    whole_number!("quotas.to_device_megabytes", 1 to 10_000),
    ConfigKey {
        path: "rooms.default_version",
        kind: Text,
        expects: "a room version from \"6\" to \"12\"",
        parse: creatable_version,
    },
    count("rooms.cache_megabytes"),
    boolean("presence.enabled"),
    boolean("user_directory.search_all"),
    ConfigKey {
        path: "turn.uris",
        kind: List,
        expects: "a list of addresses such as \"turn:turn.example.org?transport=udp\"",
        parse: parses::<Vec<TurnUri>>,
    },
    ConfigKey { path: "turn.shared_secret", kind: ValueKind::Secret, expects: "a text", parse: parses::<Secret> },
    whole_number!("turn.lifetime_seconds", 60 to 2_592_000),
    ConfigKey {
        path: "server_notices.localpart",
        kind: Text,
        expects: "the part of a user id between @ and :, such as \"notices\"",
        parse: localpart,
    },
    ConfigKey {
        path: "server_notices.name",
        kind: Text,
        expects: "a name such as \"Server notices\"",
        parse: not_empty,
    },
    ConfigKey {
        path: "server_notices.avatar_url",
        kind: Text,
        expects: "the address of a picture on a Matrix server such as \"mxc://example.org/abc\"",
        parse: mxc_uri,
    },
    ConfigKey {
        path: "rtc.transports",
        kind: List,
        expects: "a list of transports such as \
                  { type = \"livekit\", livekit_service_url = \"https://rtc.example.org\" }",
        parse: transports,
    },
    whole_number!("delayed_events.max_delay_seconds", 1 to 31_536_000),
    whole_number!("delayed_events.max_scheduled", 0 to 10_000),
    ConfigKey {
        path: "well_known.client_base_url",
        kind: Text,
        expects: "a URL such as \"https://matrix.example.org\"",
        parse: parses::<BaseUrl>,
    },
    ConfigKey {
        path: "well_known.server",
        kind: Text,
        expects: "the name of a server such as \"matrix.example.org:443\"",
        parse: parses::<OwnedServerName>,
    },
    ConfigKey {
        path: "well_known.support.page",
        kind: Text,
        expects: "a URL such as \"https://example.org/help\"",
        parse: parses::<HttpUrl>,
    },
    ConfigKey {
        path: "well_known.support.contacts",
        kind: List,
        expects: "a list of contacts such as { role = \"m.role.admin\", matrix_id = \"@me:example.org\" }",
        parse: contacts,
    },
    ConfigKey {
        path: "well_known.policy_server.ed25519",
        kind: Text,
        expects: "a public key in base64, 43 characters without padding",
        parse: parses::<PublicKey>,
    },
    ConfigKey {
        path: "log.level",
        kind: Text,
        expects: "a filter such as \"info\" or \"info,hearth::room=debug\"",
        parse: log_filter,
    },
    ConfigKey { path: "log.format", kind: Text, expects: "\"human\" or \"json\"", parse: is_one_of::<LogFormat> },
    ConfigKey {
        path: "metrics.listen",
        kind: Text,
        expects: "an address such as \"127.0.0.1:8018\" or \"unix:/run/hearth-metrics.sock\"",
        parse: parses::<ListenAddress>,
    },
    whole_number!("timeouts.shutdown_notice_seconds", 0 to 3_600),
    whole_number!("timeouts.shutdown_seconds", 0 to 3_600),
];

impl ConfigKey {
    /// The environment variable that sets this key. `HEARTH_DATABASE__URL` for `database.url`: two underscores are a
    /// dot, since names of keys have one each.
    pub(super) fn variable(path: &str) -> String {
        format!("HEARTH_{}", path.replace('.', "__").to_uppercase())
    }

    /// Whether `value` can be this key's value; if not, a whole sentence.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        // First the type, then the value: a message about the wrong one would lead astray.
        let Self { path, expects, .. } = self;
        if !self.kind.fits(value) {
            return Err(format!("`{path}` must be {expects}; this is {}", self.describe(value)));
        }
        (self.parse)(value).map_err(|reason| {
            if reason.is_empty() {
                format!("`{path}` must be {expects}; {} is not", self.describe(value))
            // A reason in backquotes has named the value, or the part of it that is wrong, by itself.
            } else if self.kind.is_secret() || reason.contains('`') {
                format!("`{path}` must be {expects}; {reason}")
            } else {
                format!("`{path}` must be {expects}; {} is not ({reason})", self.describe(value))
            }
        })
    }

    /// A value as a message may repeat it: not one that is secret.
    fn describe(&self, value: &Value) -> String {
        match value {
            Value::String(_) if self.kind.is_secret() => "a text".to_owned(),
            // A URL that should have none may have a password.
            Value::String(text) => format!("the text \"{}\"", mask_user_info(text)),
            Value::Integer(_) | Value::Float(_) if self.kind.is_secret() => "a number".to_owned(),
            Value::Integer(number) => format!("the number {number}"),
            Value::Float(number) => format!("the number {number}"),
            Value::Boolean(boolean) => format!("the boolean {boolean}"),
            Value::Datetime(_) => "a date".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        }
    }
}

impl ValueKind {
    /// Dates and tables fit nowhere.
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text | Self::Secret => value.is_str(),
            Self::Boolean => value.is_bool(),
            Self::Integer => value.is_integer(),
            Self::Number => value.is_float() || value.is_integer(),
            Self::List | Self::SecretList => value.is_array(),
        }
    }

    /// Whether no message may repeat the value.
    fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::SecretList)
    }
}

/// The error is what is wrong, without the place: the caller knows that better.
fn read<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    T::deserialize(value.clone()).map_err(|error| error.message().to_owned())
}

/// Anything that `T` can be read from.
fn parses<T: DeserializeOwned>(value: &Value) -> Result<(), String> {
    read::<T>(value).map(drop)
}

/// One of a few words, which the key's expectation lists already.
fn is_one_of<T: DeserializeOwned>(value: &Value) -> Result<(), String> {
    parses::<T>(value).or(Err(String::new()))
}

/// Names are compared letter by letter everywhere, so that one in capitals would be another server.
fn server_name(value: &Value) -> Result<(), String> {
    let name: OwnedServerName = read(value)?;
    let small = name.as_str().to_ascii_lowercase();
    if small == name.as_str() { Ok(()) } else { Err(format!("write it in small letters, `{small}`")) }
}

/// Whether there is such a file or folder is found out by whoever opens it.
fn not_empty(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some("") => Err("it is empty".to_owned()),
        _ => Ok(()),
    }
}

/// Both bounds are allowed.
fn between<const MIN: i64, const MAX: i64>(value: &Value) -> Result<(), String> {
    match value.as_integer() {
        Some(number) if number < MIN => Err("too small".to_owned()),
        Some(number) if number > MAX => Err("too large".to_owned()),
        _ => Ok(()),
    }
}

/// A rate of 0 would lock everybody out for good, which nobody means.
fn positive(value: &Value) -> Result<(), String> {
    match value.as_float() {
        Some(number) if number.is_finite() && number > 0.0 => Ok(()),
        None if value.as_integer().is_some_and(|number| number > 0) => Ok(()),
        _ => Err("to stop limiting, set `rate_limits.enabled` to false".to_owned()),
    }
}

/// Reads it as `rooms.default_version` is read in the end.
fn creatable_version(value: &Value) -> Result<(), String> {
    room_version::deserialize(value.clone()).map(drop).map_err(|error| error.message().to_owned())
}

/// Somebody whom nobody can reach would be left out silently.
fn contacts(value: &Value) -> Result<(), String> {
    let contacts: Vec<Contact> = read(value)?;
    let reachable = |contact: &Contact| contact.matrix_id.is_some() || contact.email_address.is_some();
    if contacts.iter().all(reachable) {
        Ok(())
    } else {
        Err("each needs a `matrix_id` or an `email_address`".to_owned())
    }
}

/// What the specification asks of identifiers, and that nothing is listed without a place to read it.
fn terms(value: &Value) -> Result<(), String> {
    let policies: Vec<TermsPolicy> = read(value)?;
    let opaque = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let identifies = |text: &str| (1..=255).contains(&text.len()) && text.bytes().all(opaque);
    let mut ids = BTreeSet::new();
    for TermsPolicy { id, version, translations } in &policies {
        if !identifies(id) || !identifies(version) {
            return Err(format!("`{id}` and its `version` are made of the characters A-Z, a-z, 0-9 and -._~"));
        }
        if !ids.insert(id) {
            return Err(format!("`{id}` is there twice"));
        }
        if translations.is_empty() {
            return Err(format!("`{id}` is there in no language"));
        }
        let is_readable = |url: &str| url.starts_with("https://") || url.starts_with("http://");
        if translations
            .iter()
            .any(|(language, text)| language.is_empty() || text.name.is_empty() || !is_readable(&text.url))
        {
            return Err(format!("`{id}` needs for each language a `name` and a `url` that begins with `https://`"));
        }
    }
    Ok(())
}

/// A transport of a type that is not known here is passed on as it is: clients may know it.
fn transports(value: &Value) -> Result<(), String> {
    let transports: Vec<RtcTransport> = read(value)?;
    for transport in transports.iter().filter(|transport| transport.transport_type() == "livekit") {
        let data = transport.data();
        let url = data.get("livekit_service_url").and_then(|url| url.as_str());
        let url = url.ok_or("one of the type `livekit` needs a `livekit_service_url`")?;
        if HttpUrl::try_from(url.to_owned()).is_err() {
            return Err("a `livekit_service_url` begins with `https://` or `http://` and names a host".to_owned());
        }
    }
    Ok(())
}

/// Whether it makes a user id together with the server's name is seen later, when both are known.
fn localpart(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) if is_localpart(text) => Ok(()),
        _ => Err("it is made of the characters a-z, 0-9 and ._=-/+".to_owned()),
    }
}

/// Whether there is such a picture is not asked.
fn mxc_uri(value: &Value) -> Result<(), String> {
    if <&MxcUri>::from(value.as_str().unwrap_or_default()).is_valid() { Ok(()) } else { Err(String::new()) }
}

/// A bare word that is no level would be taken for the name of a module and switch everything on.
fn log_filter(value: &Value) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let text = value.as_str().unwrap_or_default();
    for directive in text.split(',').map(str::trim) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !LEVELS.contains(&level.to_lowercase().as_str()) {
            return Err(format!("`{level}` is not a level; these are: {}", LEVELS.join(", ")));
        }
    }
    EnvFilter::builder().parse(text).map(|_| ()).map_err(|error| error.to_string())
}
