//! Addresses in the configuration: where to listen, and which networks' proxies to believe.
//!
//! Each is checked when the configuration is read, down to two listeners that would overlap: a start that fails later
//! would fail for a reason that is harder to understand.

use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// One entry of `listen`: an address, and for whom it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenEntry {
    pub address: ListenAddress,
    pub apis: ServedApis,
}

/// Which APIs are served at an address. What belongs to neither is served at all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServedApis {
    #[default]
    All,
    /// That of clients alone: `127.0.0.1:8008 client`.
    Client,
    /// That of other servers alone: `tls:0.0.0.0:8448 federation`.
    Federation,
}

impl ServedApis {
    /// As it is written behind an address. Those that are written, that is.
    fn word(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::Client => Some("client"),
            Self::Federation => Some("federation"),
        }
    }
}

impl From<ListenAddress> for ListenEntry {
    fn from(address: ListenAddress) -> Self {
        Self { address, apis: ServedApis::All }
    }
}

impl FromStr for ListenEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        for apis in [ServedApis::Client, ServedApis::Federation] {
            let address = apis.word().and_then(|word| text.strip_suffix(word)?.strip_suffix(' '));
            if let Some(address) = address {
                return Ok(Self { address: address.trim_end().parse()?, apis });
            }
        }
        text.parse::<ListenAddress>().map(Self::from)
    }
}

impl fmt::Display for ListenEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.apis.word() {
            Some(word) => write!(formatter, "{} {word}", self.address),
            None => self.address.fmt(formatter),
        }
    }
}

impl TryFrom<String> for ListenEntry {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ListenEntry> for String {
    fn from(entry: ListenEntry) -> Self {
        entry.to_string()
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum ListenAddress {
    /// `127.0.0.1:8008` or `[::1]:8008`: plain HTTP.
    Tcp(SocketAddr),
    /// `tls:0.0.0.0:8448`: HTTPS with the certificate of `[tls]`.
    Tls(SocketAddr),
    /// `unix:/run/hearth/hearth.sock`: plain HTTP on a unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The address without what is spoken there. Two listeners of one place are refused with a clearer message than two
    /// that merely overlap.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Tcp(address) | Self::Tls(address) => address.to_string(),
            Self::Unix(_) => self.to_string(),
        }
    }

    /// Whether no two listeners can have both addresses: they are one, or one is that of all interfaces. Port 0 is a
    /// free one each time.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(other)) => one == other,
            (Self::Tcp(one) | Self::Tls(one), Self::Tcp(other) | Self::Tls(other)) => {
                let both = covers(one.ip(), other.ip()) || covers(other.ip(), one.ip());
                one.port() == other.port() && one.port() != 0 && both
            }
            _ => false,
        }
    }
}

/// Whether who listens at `one` hears what is sent to `other`. `::` is all of IPv4 as well, unless the system is set to
/// keep them apart.
fn covers(one: IpAddr, other: IpAddr) -> bool {
    if one == other {
        return true;
    }
    match one {
        IpAddr::V4(one) => one.is_unspecified() && other.is_ipv4(),
        IpAddr::V6(one) => one.is_unspecified() && (other.is_ipv6() || !is_ipv6_alone()),
    }
}

/// Whether sockets of IPv6 leave IPv4 alone. Only Linux has this file; elsewhere nothing is known of it. An unreadable
/// file counts as yes, so that no configuration is refused that may work.
fn is_ipv6_alone() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/bindv6only").map_or(true, |text| text.trim() == "1")
}

impl FromStr for ListenAddress {
    type Err = String;

    /// Host names are not looked up: what one resolves to may change between two starts.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(format!("`{text}` names no file")),
                _ => Ok(Self::Unix(PathBuf::from(path))),
            };
        }
        let (address, listen): (_, fn(SocketAddr) -> Self) = match text.strip_prefix("tls:") {
            Some(address) => (address, Self::Tls),
            None => (text, Self::Tcp),
        };
        address.parse().map(listen).or(Err(format!("`{text}` is not an address with a port")))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "{address}"),
            Self::Tls(address) => write!(formatter, "tls:{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ListenAddress> for String {
    fn from(listen: ListenAddress) -> Self {
        listen.to_string()
    }
}

/// An address, or a block of them: `10.0.0.0/8`, `fd00::/8`, `192.0.2.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpBlock {
    address: IpAddr,
    /// In bits, up to 32 or 128. Those of the address after it do not matter.
    prefix: u32,
}

impl IpBlock {
    /// Whether `address` lies in this block. An IPv4 address inside IPv6 counts as the former.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let host_bits = 32 - self.prefix;
                let differing = network.to_bits() ^ address.to_bits();
                // A prefix of 0 would shift by the whole width: everything lies in that block.
                differing.checked_shr(host_bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let host_bits = 128 - self.prefix;
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(host_bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for IpBlock {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().or(Err(format!("`{text}` is no IP address or block")))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|prefix| *prefix <= longest)
                .ok_or_else(|| format!("the prefix of `{text}` is not a number from 0 to {longest}"))?,
        };
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for IpBlock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl TryFrom<String> for IpBlock {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<IpBlock> for String {
    fn from(network: IpBlock) -> Self {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_entries_come_back_as_they_were_written() {
        for text in ["127.0.0.1:8008", "[::1]:8008", "unix:/run/hearth.sock", "tls:0.0.0.0:8448"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["", "8008", "localhost:8008", "127.0.0.1", "unix:", "tls:unix:/a", "::1:8008x"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_entry_may_say_for_whom_it_is() {
        for (text, address, apis) in [
            ("127.0.0.1:8008", "127.0.0.1:8008", ServedApis::All),
            ("127.0.0.1:8008 client", "127.0.0.1:8008", ServedApis::Client),
            ("tls:0.0.0.0:8448 federation", "tls:0.0.0.0:8448", ServedApis::Federation),
            ("unix:/run/my hearth.sock client", "unix:/run/my hearth.sock", ServedApis::Client),
            ("unix:/run/client", "unix:/run/client", ServedApis::All),
        ] {
            let entry: ListenEntry = text.parse().unwrap();
            assert_eq!((entry.address.to_string(), entry.apis), (address.to_owned(), apis));
            assert_eq!(entry.to_string(), text);
        }
        for text in ["client", " federation", "127.0.0.1:8008 federations", "127.0.0.1:8008 client federation"] {
            assert!(text.parse::<ListenEntry>().is_err(), "{text}");
        }
    }

    #[test]
    fn listeners_need_addresses_of_their_own() {
        let overlap = |one: &str, other: &str| {
            let (one, other): (ListenAddress, ListenAddress) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        for (one, other) in [
            ("127.0.0.1:8008", "127.0.0.1:8008"),
            ("127.0.0.1:8008", "tls:127.0.0.1:8008"),
            ("0.0.0.0:8008", "127.0.0.1:8008"),
            ("[::]:8008", "[::1]:8008"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert!(overlap(one, other), "{one} {other}");
        }
        assert_eq!(overlap("[::]:8008", "127.0.0.1:8008"), !is_ipv6_alone());
        for (one, other) in [
            ("127.0.0.1:8008", "127.0.0.1:8009"),
            ("127.0.0.1:8008", "127.0.0.2:8008"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("0.0.0.0:8008", "[::1]:8008"),
            ("unix:/run/a.sock", "unix:/run/b.sock"),
            ("unix:/run/a.sock", "127.0.0.1:8008"),
        ] {
            assert!(!overlap(one, other), "{one} {other}");
        }
    }

    #[test]
    fn networks_contain_what_their_prefix_says() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.128/25", "192.0.2.200", "192.0.2.100"),
            ("fd00::/8", "fdab::1", "fe80::1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
        ] {
            let network: IpBlock = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network} {outside}");
        }
        for text in ["10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/", "proxy.example.org"] {
            assert!(text.parse::<IpBlock>().is_err(), "{text}");
        }
    }
}
