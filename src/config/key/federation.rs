//! The keys of `[federation]`.

use std::path::PathBuf;

use ruma::OwnedServerName;
use toml::Value;

use super::{ConfigKey, ValueKind::List, boolean, parses, read};
use crate::config::{IpBlock, NameServer, ServerPattern};

const fn list(path: &'static str, expects: &'static str, parse: super::Parse) -> ConfigKey {
    ConfigKey { path, kind: List, expects, parse }
}

/// In the order of `config.example.toml`, between all others and those of media.
pub(in crate::config) static KEYS: &[ConfigKey] = &[
    boolean("federation.enabled"),
    list(
        "federation.allowed_servers",
        "a list of server names such as \"example.org\" or \"*.example.org\"",
        parses::<Vec<ServerPattern>>,
    ),
    list(
        "federation.denied_servers",
        "a list of server names such as \"example.org\" or \"*.example.org\"",
        parses::<Vec<ServerPattern>>,
    ),
    list(
        "federation.allowed_networks",
        "a list of IP addresses or blocks such as \"10.0.0.0/8\"",
        parses::<Vec<IpBlock>>,
    ),
    list("federation.certificate_authorities", "a list of paths of PEM files", paths),
    list(
        "federation.name_servers",
        "a list of addresses such as \"192.0.2.53\" or \"127.0.0.1:5353\"",
        parses::<Vec<NameServer>>,
    ),
    list(
        "federation.trusted_key_servers",
        "a list of server names such as \"matrix.org\"",
        parses::<Vec<OwnedServerName>>,
    ),
];

/// Whether there are such files is found out by whoever opens them.
fn paths(value: &Value) -> Result<(), String> {
    let paths: Vec<PathBuf> = read(value)?;
    if paths.iter().any(|path| path.as_os_str().is_empty()) { Err("one of them is empty".to_owned()) } else { Ok(()) }
}
