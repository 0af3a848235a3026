//! Other servers: whether this one talks to them, to which, and how it finds them.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/>

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};

use super::IpBlock;

/// Where name servers listen that name no port.
const DNS_PORT: u16 = 53;

/// Whether the server talks to others, and to which.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct FederationConfig {
    /// Where nobody has set it, it follows from the server's name ([`Self::is_on_by_default`]).
    pub enabled: bool,
    /// Empty for all of them.
    pub allowed_servers: Vec<ServerPattern>,
    /// These count more than `allowed_servers`.
    pub denied_servers: Vec<ServerPattern>,
    /// In which servers may be although they are not on the public internet.
    pub allowed_networks: Vec<IpBlock>,
    /// PEM files with authorities that are believed beside those that the machine knows.
    pub certificate_authorities: Vec<PathBuf>,
    /// Empty for those of the machine.
    pub name_servers: Vec<NameServer>,
    /// Who is asked for the keys of servers that do not answer themselves.
    pub trusted_key_servers: Vec<OwnedServerName>,
}

impl FederationConfig {
    /// Whether a server of this name is one that others could find.
    pub fn is_on_by_default(server_name: &ServerName) -> bool {
        let host = server_name.host();
        !server_name.is_ip_literal() && host != "localhost" && !host.ends_with(".localhost")
    }

    /// Whether this server has to do with that one, by its name. Whether there is federation at all is another question.
    pub fn allows(&self, server: &ServerName) -> bool {
        let is_among = |patterns: &[ServerPattern]| patterns.iter().any(|pattern| pattern.matches(server));
        !is_among(&self.denied_servers) && (self.allowed_servers.is_empty() || is_among(&self.allowed_servers))
    }
}

/// Names of servers: `*` stands for any characters or none, `?` for one. In small letters, as capitals make no difference.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerPattern(String);

impl ServerPattern {
    /// Whether it is this server's name, with its port or without.
    pub fn matches(&self, server: &ServerName) -> bool {
        let name = server.as_str().to_ascii_lowercase();
        matches(self.0.as_bytes(), name.as_bytes())
            || (server.port().is_some() && matches(self.0.as_bytes(), server.host().to_ascii_lowercase().as_bytes()))
    }
}

impl TryFrom<String> for ServerPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]*?".contains(&b);
        if text.is_empty() || !text.bytes().all(fits) {
            return Err(format!("`{text}` is no name of a server, with `*` and `?` or without"));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl From<ServerPattern> for String {
    fn from(pattern: ServerPattern) -> Self {
        pattern.0
    }
}

/// Goes back to the last `*` alone, so it takes as many steps at most as the one is long times the other.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut in_pattern, mut in_text, mut star) = (0, 0, None);
    while let Some(found) = text.get(in_text) {
        match (pattern.get(in_pattern), star) {
            (Some(b'*'), _) => {
                star = Some((in_pattern + 1, in_text));
                in_pattern += 1;
            }
            (Some(wanted), _) if *wanted == b'?' || wanted == found => {
                in_pattern += 1;
                in_text += 1;
            }
            // It has to stand for one character more.
            (_, Some((after, begin))) => {
                star = Some((after, begin + 1));
                (in_pattern, in_text) = (after, begin + 1);
            }
            (_, None) => return false,
        }
    }
    pattern.iter().skip(in_pattern).all(|left| *left == b'*')
}

/// A name server: `192.0.2.1`, `192.0.2.1:5353` or `[2001:db8::1]:53`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct NameServer(SocketAddr);

impl NameServer {
    /// With its port.
    pub fn address(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for NameServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let without_port = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT));
        let address = text.parse::<SocketAddr>().or_else(|_| without_port());
        address.map(Self).or(Err(format!("`{text}` is no IP address, with a port or without")))
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl TryFrom<String> for NameServer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NameServer> for String {
    fn from(server: NameServer) -> Self {
        server.to_string()
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    fn patterns(texts: &[&str]) -> Vec<ServerPattern> {
        texts.iter().map(|text| (*text).to_owned().try_into().unwrap()).collect()
    }

    #[test]
    fn a_pattern_matches_names_without_case_and_with_any_port() {
        for (pattern, name) in [
            ("evil.example", "evil.example"),
            ("Evil.example", "eVIL.example"),
            ("evil.example", "evil.example:8448"),
            ("evil.example:8448", "evil.example:8448"),
            ("*.evil.example", "a.b.evil.example"),
            ("*", "example.org"),
            ("m?trix.*", "matrix.example.org"),
            ("*a*a*b", "aaaaab"),
            ("[2001:db8::1]", "[2001:db8::1]:8448"),
            ("10.*", "10.0.0.1"),
        ] {
            let [pattern] = &patterns(&[pattern])[..] else { panic!("{pattern}") };
            assert!(pattern.matches(<&ServerName>::try_from(name).unwrap()), "{pattern:?} {name}");
        }
        for (pattern, name) in [
            ("evil.example", "not-evil.example"),
            ("*.evil.example", "evil.example"),
            ("evil.example:1", "evil.example"),
            ("evil.example:1", "evil.example:2"),
            ("m?trix", "mtrix"),
            ("*a*a*b", "aaaaac"),
        ] {
            let [pattern] = &patterns(&[pattern])[..] else { panic!("{pattern}") };
            assert!(!pattern.matches(<&ServerName>::try_from(name).unwrap()), "{pattern:?} {name}");
        }
        for text in ["", "a b", "https://example.org", "@a:example.org"] {
            assert!(ServerPattern::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    /// CVE-2023-45129.
    #[test]
    fn a_hostile_name_costs_a_glob_little() {
        let pattern = ServerPattern::try_from(format!("{}b", "*a".repeat(100))).unwrap();
        let name = OwnedServerName::try_from("a".repeat(255)).unwrap();
        assert!(!pattern.matches(&name));
    }

    #[test]
    fn what_is_denied_counts_more_than_what_is_allowed() {
        let mut config = FederationConfig::default();
        assert!(config.allows(server_name!("example.org")));
        config.denied_servers = patterns(&["*.evil.example", "evil.example"]);
        assert!(config.allows(server_name!("example.org")));
        assert!(!config.allows(server_name!("a.EVIL.example:1")));
        config.allowed_servers = patterns(&["*.example"]);
        assert!(!config.allows(server_name!("example.org")));
        assert!(config.allows(server_name!("good.example")));
        assert!(!config.allows(server_name!("evil.example")));
    }

    #[test]
    fn a_server_that_nobody_could_find_does_not_federate_unless_told_to() {
        for name in ["localhost", "localhost:8448", "hs.localhost", "127.0.0.1", "192.0.2.1:8448", "[2001:db8::1]"] {
            assert!(!FederationConfig::is_on_by_default(<&ServerName>::try_from(name).unwrap()), "{name}");
        }
        for name in ["example.org", "example.org:8448", "hs1"] {
            assert!(FederationConfig::is_on_by_default(<&ServerName>::try_from(name).unwrap()), "{name}");
        }
    }

    #[test]
    fn a_name_server_has_a_port_of_its_own_or_the_usual_one() {
        for (text, address) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
        ] {
            assert_eq!(text.parse::<NameServer>().unwrap().to_string(), address);
        }
        for text in ["", "dns.example.org", "192.0.2.1:", "192.0.2.1:99999"] {
            assert!(text.parse::<NameServer>().is_err(), "{text}");
        }
    }
}
