//! The keys of `[media]` and `[url_previews]`.
//!
//! Stores and master keys hold secrets within lists, so nothing of them is repeated but names: not even by an error of
//! whoever reads them.

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use ruma::OwnedServerName;
use toml::Value;

use super::{
    ConfigKey,
    ValueKind::{self, Integer, List, SecretList, Text},
    between, boolean, is_one_of, not_empty, parses, read,
};
use crate::config::{BaseUrl, IpBlock, MediaRedirect, MediaStoreConfig};

/// Of the name of a store or of a master key, in characters.
const MAX_NAME: usize = 64;
/// Of a master key, in bytes.
const KEY_LENGTH: usize = 32;

const fn whole<const MIN: i64, const MAX: i64>(path: &'static str, expects: &'static str) -> ConfigKey {
    ConfigKey { path, kind: Integer, expects, parse: between::<MIN, MAX> }
}

/// 0 for none.
const fn megabytes(path: &'static str) -> ConfigKey {
    whole::<0, 1_000_000_000>(path, "a whole number from 0 to 1000000000, 0 for as much as there is")
}

/// 0 for never.
const fn days(path: &'static str) -> ConfigKey {
    whole::<0, 36_500>(path, "a whole number from 0 to 36500, 0 for never")
}

const fn other(path: &'static str, kind: ValueKind, expects: &'static str, parse: super::Parse) -> ConfigKey {
    ConfigKey { path, kind, expects, parse }
}

/// In the order of `config.example.toml`, after all others.
pub(in crate::config) static KEYS: &[ConfigKey] = &[
    whole::<1, 100_000>("media.max_upload_megabytes", "a whole number from 1 to 100000"),
    other(
        "media.stores",
        SecretList,
        "a list of places such as { name = \"files\", path = \"/srv/media\" } or { name = \"s3\", bucket = \"media\", \
         endpoint = \"https://s3.example.org\", access_key_id = \"…\", secret_access_key = \"…\" }",
        stores,
    ),
    other("media.store", Text, "the name of one of `media.stores`", name),
    other("media.redirect", Text, "\"off\", \"signed\" or \"cdn\"", is_one_of::<MediaRedirect>),
    whole::<10, 86_400>("media.redirect_seconds", "a whole number from 10 to 86400"),
    other("media.cdn_url", Text, "a URL such as \"https://cdn.example.org/media\"", parses::<BaseUrl>),
    other("media.open_until", Text, "a day such as \"2026-11-28\"", day),
    megabytes("media.user_megabytes_per_day"),
    megabytes("media.user_megabytes"),
    megabytes("media.server_megabytes_per_day"),
    megabytes("media.server_megabytes"),
    whole::<1, 1_000>("media.pending_uploads", "a whole number from 1 to 1000"),
    whole::<1, 720>("media.pending_hours", "a whole number from 1 to 720"),
    days("media.local_lifetime_days"),
    days("media.remote_lifetime_days"),
    whole::<1, 1_000_000_000>("media.remote_megabytes", "a whole number from 1 to 1000000000"),
    other("media.blocked_servers", List, "a list of servers such as \"example.com\"", servers),
    whole::<1, 200>("media.max_megapixels", "a whole number from 1 to 200"),
    whole::<64, 100_000>("media.thumbnail_megabytes", "a whole number from 64 to 100000"),
    other(
        "media.video_thumbnailer",
        List,
        "a list of a program and its arguments, one of which has `{}` for the file",
        command,
    ),
    other(
        "media.master_keys",
        SecretList,
        "a list of keys such as \"2026:KEY\", each with 32 random bytes in base64 behind its name \
         (`openssl rand -base64 32`)",
        master_keys,
    ),
    other(
        "media.scanner.command",
        List,
        "a list of a program and its arguments, one of which has `{}` for the file",
        command,
    ),
    other(
        "media.scanner.clamd",
        Text,
        "an address such as \"127.0.0.1:3310\" or \"unix:/run/clamav/clamd.ctl\"",
        clamd,
    ),
    whole::<1, 3_600>("media.scanner.timeout_seconds", "a whole number from 1 to 3600"),
    boolean("url_previews.enabled"),
    other("url_previews.allow", List, "a list of hosts such as \"*.example.org\"", hosts),
    other("url_previews.deny", List, "a list of hosts such as \"*.example.org\"", hosts),
    other(
        "url_previews.allowed_addresses",
        List,
        "a list of IP addresses or blocks such as \"10.0.0.0/8\"",
        parses::<Vec<IpBlock>>,
    ),
    other("url_previews.user_agent", Text, "a name such as \"Example/1.0\"", user_agent),
    other("url_previews.languages", List, "a list of languages such as \"en\" or \"pt-BR\"", languages),
    whole::<1, 100>("url_previews.max_image_megabytes", "a whole number from 1 to 100"),
    whole::<1, 60>("url_previews.timeout_seconds", "a whole number from 1 to 60"),
    whole::<1, 720>("url_previews.cache_hours", "a whole number from 1 to 720"),
];

/// Whether the list has each name once is seen here, whether one place is in another when all are known.
fn stores(value: &Value) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for store in value.as_array().into_iter().flatten() {
        let table = store.as_table().ok_or("each of them is written in braces")?;
        // Before it is read: an error of that would repeat the value, which may be a secret.
        if let Some((key, _)) = table.iter().find(|(_, value)| !value.is_str()) {
            return Err(format!("`{key}` of a store is a text"));
        }
        let store: MediaStoreConfig = read(store)?;
        check_store(&store)?;
        if !names.insert(store.name.clone()) {
            return Err(format!("there are two of the name `{}`", store.name));
        }
    }
    Ok(())
}

fn check_store(store: &MediaStoreConfig) -> Result<(), String> {
    let MediaStoreConfig { name, path, bucket, endpoint, region, prefix, access_key_id, secret_access_key } = store;
    if !is_name(name) {
        return Err(format!("`name` is made of up to {MAX_NAME} of the characters A-Z, a-z, 0-9 and -_"));
    }
    let of_bucket = [endpoint.is_some(), region.is_some(), prefix.is_some(), access_key_id.is_some()];
    match (path, bucket) {
        (Some(_), Some(_)) => return Err(format!("`{name}` has a `path` and a `bucket`, and can have only one")),
        (None, None) => return Err(format!("`{name}` has neither a `path`, for a folder, nor a `bucket`, for S3")),
        (Some(path), None) if path.as_os_str().is_empty() => return Err(format!("the `path` of `{name}` is empty")),
        (Some(_), None) if of_bucket.contains(&true) || secret_access_key.is_some() => {
            return Err(format!("`{name}` is a folder, so it has nothing but a `path`"));
        }
        _ => {}
    }
    if access_key_id.is_some() != secret_access_key.is_some() {
        return Err(format!("of `access_key_id` and `secret_access_key`, `{name}` needs both or neither"));
    }
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    if bucket.as_deref().is_some_and(|bucket| !is_word(bucket)) {
        return Err(format!("the `bucket` of `{name}` is its name alone"));
    }
    if region.as_deref().is_some_and(|region| !is_word(region)) {
        return Err(format!("the `region` of `{name}` is a word such as `eu-central-1`"));
    }
    if prefix.as_deref().is_some_and(|prefix| !is_prefix(prefix)) {
        return Err(format!(
            "the `prefix` of `{name}` is made of names with slashes in between, such as `matrix/media`"
        ));
    }
    // It would be shown, and nobody reads it.
    if endpoint.as_ref().is_some_and(|endpoint| endpoint.as_str().contains(['@', '?', '#'])) {
        return Err(format!("the `endpoint` of `{name}` has no keys in it, and nothing behind the path"));
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(allowed)
}

/// With or without slashes around it.
fn is_prefix(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(allowed);
    let inner = text.trim_matches('/');
    !inner.is_empty() && inner.split('/').all(is_part)
}

/// Whether there is such a store is seen later.
fn name(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) if is_name(text) => Ok(()),
        _ => Err("it is made of the characters A-Z, a-z, 0-9 and -_".to_owned()),
    }
}

fn day(value: &Value) -> Result<(), String> {
    let is_day = value.as_str().and_then(crate::ground::date::parse_day).is_some_and(|day| day > 0);
    if is_day { Ok(()) } else { Err("write year, month and day, of a day after 1970-01-01".to_owned()) }
}

/// Which of them is wrong is said by its number: what stands before the colon may be the key itself, by mistake.
fn master_keys(value: &Value) -> Result<(), String> {
    let mut ids = BTreeSet::new();
    for (count, key) in value.as_array().into_iter().flatten().enumerate() {
        let number = count + 1;
        let (id, key) = key
            .as_str()
            .and_then(|key| key.split_once(':'))
            .ok_or_else(|| format!("number {number} of them is no text with a name, a colon and a key"))?;
        if !is_name(id) {
            return Err(format!("the name of number {number} is made of the characters A-Z, a-z, 0-9 and -_"));
        }
        let bytes = STANDARD_NO_PAD.decode(key.trim_end_matches('=')).ok();
        match bytes.map(|bytes| bytes.len()) {
            Some(KEY_LENGTH) => {}
            Some(length) => {
                return Err(format!("the key of number {number} has {length} bytes instead of {KEY_LENGTH}"));
            }
            None => return Err(format!("the key of number {number} is no base64")),
        }
        if !ids.insert(id) {
            return Err(format!("number {number} has the name of another one"));
        }
    }
    Ok(())
}

/// Names are compared letter by letter, so that one in capitals would never be met.
fn servers(value: &Value) -> Result<(), String> {
    let servers: Vec<OwnedServerName> = read(value)?;
    match servers.iter().find(|server| server.as_str().bytes().any(|b| b.is_ascii_uppercase())) {
        Some(server) => Err(format!("write `{server}` in small letters")),
        None => Ok(()),
    }
}

/// Empty for none. Whether there is such a program shows when it is called.
fn command(value: &Value) -> Result<(), String> {
    let words: Vec<String> = read(value)?;
    match words.split_first() {
        None => Ok(()),
        Some((program, _)) if program.is_empty() => Err("the program has no name".to_owned()),
        Some((_, arguments)) if arguments.iter().any(|argument| argument.contains("{}")) => Ok(()),
        Some(_) => Err("no argument has `{}`".to_owned()),
    }
}

/// Host names are not looked up: what one resolves to may change.
fn clamd(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    let fits = match text.strip_prefix("unix:") {
        Some(path) => Path::new(path).is_absolute(),
        None => text.parse::<SocketAddr>().is_ok(),
    };
    if fits { Ok(()) } else { Err("it is an IP address with a port, or a whole path behind `unix:`".to_owned()) }
}

/// Only what can't be part of a host is refused.
fn hosts(value: &Value) -> Result<(), String> {
    let hosts: Vec<String> = read(value)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._*:[]".contains(&b);
    match hosts.iter().find(|host| host.is_empty() || !host.bytes().all(allowed)) {
        Some(host) => Err(format!(
            "`{host}` is no host, which is written without scheme and path, other letters than ours as in `xn--…`"
        )),
        None => Ok(()),
    }
}

/// It becomes a header.
fn user_agent(value: &Value) -> Result<(), String> {
    not_empty(value)?;
    let text = value.as_str().unwrap_or_default();
    let fits = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if fits { Ok(()) } else { Err("it is made of ASCII".to_owned()) }
}

/// They become a header.
fn languages(value: &Value) -> Result<(), String> {
    let languages: Vec<String> = read(value)?;
    let fits =
        |text: &String| (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match languages.iter().find(|language| !fits(language)) {
        Some(language) => Err(format!("`{language}` is none")),
        None if languages.is_empty() => Err("name at least one".to_owned()),
        None => Ok(()),
    }
}
