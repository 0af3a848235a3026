//! URLs in the configuration, checked for what can be known before anything is opened.
//!
//! What a scheme leads to is decided here, so that whoever opens a connection need not guess. Messages never repeat
//! more of a URL than its scheme where it may hold a password.

use std::{fmt, net::IpAddr, path::PathBuf};

use reqwest::Url;
use ruma::ServerName;
use serde::{Deserialize, Serialize, Serializer};

use super::SecretUrl;

/// Which engine keeps the data, and where.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub enum DatabaseUrl {
    /// The embedded engine, in this file.
    Sqlite(PathBuf),
    /// A server, or a cluster that speaks its protocol.
    Postgres(SecretUrl),
}

impl TryFrom<String> for DatabaseUrl {
    type Error = String;

    /// The rest of a server's URL is read by the driver when it connects: it knows more parameters than this program.
    fn try_from(url: String) -> Result<Self, Self::Error> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err("it names no file".to_owned()),
                ":memory:" => Err("a database in memory would forget everything".to_owned()),
                _ => Ok(Self::Sqlite(PathBuf::from(path))),
            };
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(SecretUrl::new(url)));
        }
        Err(unknown_scheme(&url))
    }
}

impl DatabaseUrl {
    /// The whole URL, password included: only for opening the connection. In the form that `db` takes.
    pub fn to_connect(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(url) => url.expose().to_owned(),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(formatter, "sqlite:{}", path.display()),
            Self::Postgres(url) => url.fmt(formatter),
        }
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where Redis is. Shown with its password masked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "SecretUrl")]
pub struct RedisUrl(SecretUrl);

impl RedisUrl {
    /// The whole URL, password included: only for opening the connection.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl TryFrom<String> for RedisUrl {
    type Error = String;

    fn try_from(url: String) -> Result<Self, Self::Error> {
        if ["redis://", "redis+unix://", "unix://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Ok(Self(SecretUrl::new(url)));
        }
        if url.starts_with("rediss://") {
            return Err("TLS to Redis is not built in; reach it through a private network".to_owned());
        }
        Err(unknown_scheme(&url))
    }
}

impl From<RedisUrl> for SecretUrl {
    fn from(url: RedisUrl) -> Self {
        url.0
    }
}

/// A URL for a client to open, without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct HttpUrl(String);

impl HttpUrl {
    /// With its scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HttpUrl {
    type Error = String;

    fn try_from(url: String) -> Result<Self, Self::Error> {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let host = rest.ok_or_else(|| unknown_scheme(&url))?;
        if host.is_empty() || host.starts_with('/') {
            return Err(format!("`{url}` names no host"));
        }
        Ok(Self(url.trim_end_matches('/').to_owned()))
    }
}

/// The base of URLs that clients make by adding a path, without a trailing slash: nothing may stand behind the path,
/// and no name and password before the host, which would be published.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseUrl(String);

impl BaseUrl {
    /// With its scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BaseUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let HttpUrl(base) = HttpUrl::try_from(text)?;
        let url = Url::parse(&base).map_err(|error| format!("clients can't read it: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("everybody would read the name and password in it: leave them out".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("clients add a path to it, so `{base}` may have no `?` and no `#`"));
        }
        // Whatever the parser would read over is not what the operator meant.
        if base.contains(|character: char| character.is_whitespace() || character == '\\') {
            return Err("there is a space or a backslash in it".to_owned());
        }
        Ok(Self(base))
    }
}

impl From<BaseUrl> for String {
    fn from(url: BaseUrl) -> Self {
        url.0
    }
}

/// Names the scheme only: the rest may hold a password.
fn unknown_scheme(url: &str) -> String {
    match url.split_once(':') {
        Some((scheme, _)) => format!("`{scheme}:` is not among them"),
        None => "it has no scheme".to_owned(),
    }
}

/// Where a TURN server is: `turn:HOST[:PORT][?transport=udp]`, or `turns:…` over TLS. Only what would certainly be
/// wrong is refused: clients read the rest.
///
/// <https://www.rfc-editor.org/rfc/rfc7065>
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct TurnUri(String);

impl TryFrom<String> for TurnUri {
    type Error = String;

    fn try_from(uri: String) -> Result<Self, Self::Error> {
        let Some(host) = uri.strip_prefix("turn:").or_else(|| uri.strip_prefix("turns:")) else {
            return Err(format!("{uri} does not begin with `turn:` or `turns:`"));
        };
        if host.is_empty() || host.starts_with("//") || host.contains(char::is_whitespace) {
            return Err(format!("{uri} names no host after the colon"));
        }
        Ok(Self(uri))
    }
}

impl From<TurnUri> for String {
    fn from(uri: TurnUri) -> Self {
        uri.0
    }
}

impl fmt::Display for TurnUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An identity server: `HOST[:PORT]`, reached over HTTPS. One on this machine may be `http://127.0.0.1:PORT`. In small
/// letters, since clients name it in any.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdentityServerUrl(String);

impl IdentityServerUrl {
    /// With its scheme, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As clients call it: host and port.
    pub fn name(&self) -> &str {
        self.0.split_once("://").map_or(&*self.0, |(_, name)| name)
    }
}

impl TryFrom<String> for IdentityServerUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (scheme, name) = text.split_once("://").unwrap_or(("https", &text));
        let name = name.trim_end_matches('/').to_ascii_lowercase();
        let named = ServerName::parse(&*name);
        let named = named.or(Err(format!("`{text}` is not a host, with a port or without")))?;
        match scheme {
            "https" => {}
            "http" if is_loopback(named.host()) => {}
            "http" => return Err(format!("`{text}` is not on this machine and has to be reached by https")),
            _ => return Err(unknown_scheme(&text)),
        }
        Ok(Self(format!("{scheme}://{name}")))
    }
}

impl From<IdentityServerUrl> for String {
    fn from(url: IdentityServerUrl) -> Self {
        url.0
    }
}

/// By name or address. Other names are not looked up.
fn is_loopback(host: &str) -> bool {
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_a_file_or_a_server() {
        for (url, shown) in [
            ("sqlite:data/a.sqlite3", "sqlite:data/a.sqlite3"),
            ("sqlite:///var/lib/a.sqlite3", "sqlite:/var/lib/a.sqlite3"),
            ("postgres://me:pw@db/hearth", "postgres://me:[secret]@db/hearth"),
            ("postgresql:///hearth?host=/run/postgresql", "postgresql:///hearth?host=/run/postgresql"),
        ] {
            assert_eq!(DatabaseUrl::try_from(url.to_owned()).unwrap().to_string(), shown);
        }
        for url in ["", "sqlite:", "sqlite::memory:", "mysql://me:hunter2@db/hearth", "hearth.sqlite3"] {
            let refusal = DatabaseUrl::try_from(url.to_owned()).unwrap_err();
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }

    #[test]
    fn a_base_url_has_a_host_and_no_trailing_slash() {
        let url = HttpUrl::try_from("https://matrix.example.org/".to_owned()).unwrap();
        assert_eq!(url.as_str(), "https://matrix.example.org");
        for url in ["", "matrix.example.org", "https://", "http:///x", "ftp://example.org"] {
            assert!(HttpUrl::try_from(url.to_owned()).is_err(), "{url}");
        }
    }

    #[test]
    fn clients_can_add_a_path_to_a_base_url() {
        for (text, url) in [
            ("https://matrix.example.org", "https://matrix.example.org"),
            ("https://example.org:8448/matrix//", "https://example.org:8448/matrix"),
            ("http://[::1]:8008/", "http://[::1]:8008"),
        ] {
            assert_eq!(BaseUrl::try_from(text.to_owned()).unwrap().as_str(), url);
        }
        for text in [
            "",
            "matrix.example.org",
            "ftp://example.org",
            "https://",
            "https://:8448",
            "https://example.org:99999",
            "https://me:hunter2@example.org",
            "https://me@example.org",
            "https://example.org?x=1",
            "https://example.org/#/login",
            "https://exa mple.org",
            "https://example.org/a b",
            "https://example.org\\evil",
            "https://[::1",
        ] {
            let refusal = BaseUrl::try_from(text.to_owned()).unwrap_err();
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }

    #[test]
    fn an_identity_server_is_reached_over_https_unless_it_is_here() {
        for (text, url, name) in [
            ("id.example.org", "https://id.example.org", "id.example.org"),
            ("https://ID.example.org:8090/", "https://id.example.org:8090", "id.example.org:8090"),
            ("http://127.0.0.1:8090", "http://127.0.0.1:8090", "127.0.0.1:8090"),
            ("http://[::1]:8090", "http://[::1]:8090", "[::1]:8090"),
        ] {
            let server = IdentityServerUrl::try_from(text.to_owned()).unwrap();
            assert_eq!((server.as_str(), server.name()), (url, name));
        }
        for text in ["", "http://id.example.org", "ftp://id.example.org", "id.example.org/path", "https://a@b", "a b"] {
            assert!(IdentityServerUrl::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
