//! Which pages may be looked at, and in which languages they are asked for.

use reqwest::Url;

use crate::error::{Error, Result};

/// The longest address that is looked at, in bytes. It is part of a key in the database.
const MAX_URL: usize = 2_048;
/// How many languages count of those that a client likes, and how long one may be.
const MAX_LANGUAGES: usize = 3;
const MAX_LANGUAGE: usize = 16;

/// An address as a client names it, without what only its browser would look at.
pub(super) fn parse(text: &str) -> Result<Url> {
    let unfit = || Error::invalid_param("`url` is not an address of a page that begins with https: or http:");
    if text.len() > MAX_URL {
        return Err(Error::invalid_param(format!("`url` is longer than {MAX_URL} bytes")));
    }
    let mut url = Url::parse(text.trim()).or(Err(unfit()))?;
    let has_password = !url.username().is_empty() || url.password().is_some();
    if !matches!(url.scheme(), "http" | "https") || has_password || url.host_str().is_none() {
        return Err(unfit());
    }
    url.set_fragment(None);
    // What is written in other letters grows when it is encoded.
    if url.as_str().len() > MAX_URL { Err(unfit()) } else { Ok(url) }
}

/// The hosts of the configuration, in small letters.
pub(super) struct Hosts {
    allow: Vec<String>,
    deny: Vec<String>,
}

impl Hosts {
    pub(super) fn new(allow: &[String], deny: &[String]) -> Self {
        let fold = |hosts: &[String]| hosts.iter().map(|host| fold(host)).collect();
        Self { allow: fold(allow), deny: fold(deny) }
    }

    /// Whether a page of this host may be looked at. What is denied counts more.
    pub(super) fn lets(&self, url: &Url) -> bool {
        let Some(host) = url.host_str().map(fold) else { return false };
        let is_among = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, &host));
        !is_among(&self.deny) && (self.allow.is_empty() || is_among(&self.allow))
    }
}

fn fold(host: &str) -> String {
    host.trim().trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()
}

/// `*` stands for any characters, or none.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    // Each where it comes first: what is left is longest then.
    for part in parts {
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    text.ends_with(last)
}

/// The languages that a client asks for, or those of the configuration, as `Accept-Language` has them.
pub(super) fn languages(accept_language: Option<&str>, configured: &[String]) -> String {
    let wanted: Vec<&str> =
        accept_language.map(|header| header.split(',').filter_map(language).collect()).unwrap_or_default();
    let wanted = if wanted.is_empty() { configured.iter().map(String::as_str).collect() } else { wanted };
    let weighed = wanted.iter().take(MAX_LANGUAGES).zip(["", ";q=0.8", ";q=0.6"]);
    let weighed: Vec<String> =
        weighed.map(|(language, weight)| format!("{}{weight}", language.to_lowercase())).collect();
    weighed.join(", ")
}

/// Without its weight: what comes first is liked best nearly always.
fn language(wanted: &str) -> Option<&str> {
    let language = wanted.split(';').next()?.trim();
    let of_language = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_one = (2..=MAX_LANGUAGE).contains(&language.len()) && language.bytes().all(of_language);
    is_one.then_some(language)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_named_by_its_address() {
        let read = |text: &str| parse(text).unwrap().to_string();
        assert_eq!(read(" https://EXAMPLE.org:443/a b#c "), "https://example.org/a%20b");
        assert_eq!(read("http://exämple.org"), "http://xn--exmple-cua.org/");
        let (long, foreign) = (format!("https://a/{}", "b".repeat(MAX_URL)), format!("https://a/{}", "é".repeat(900)));
        for text in [
            "",
            "example.org",
            "/a",
            "file:///etc/passwd",
            "ftp://a/",
            "data:,a",
            "mxc://a/b",
            "javascript:a",
            "https://",
            "http://me@a/",
            "http://:pw@a/",
            &long,
            &foreign,
        ] {
            assert!(matches!(parse(text), Err(Error::Refused { .. })), "{text}");
        }
    }

    #[test]
    fn hosts_are_allowed_and_denied() {
        let hosts = |allow: &[&str], deny: &[&str]| {
            let own = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>();
            Hosts::new(&own(allow), &own(deny))
        };
        let lets = |hosts: &Hosts, host: &str| hosts.lets(&Url::parse(&format!("https://{host}/")).unwrap());
        let all = hosts(&[], &[]);
        assert!(lets(&all, "example.org") && lets(&all, "[2606::1]"));
        let denied = hosts(&[], &["Evil.example", "*.evil.example", "10.*", "2606::*"]);
        for host in ["evil.example", "EVIL.example.", "a.b.evil.example", "10.0.0.1", "0xa.1", "[2606::1]"] {
            assert!(!lets(&denied, host), "{host}");
        }
        for host in ["notevil.example", "evil.example.org", "11.0.0.1", "[2607::1]"] {
            assert!(lets(&denied, host), "{host}");
        }
        let allowed = hosts(&["*.example.org", "example.org", "w*w.*.net"], &["secret.example.org"]);
        for host in ["example.org", "a.example.org", "www.a.net", "ww.a.net", "www.a.b.net"] {
            assert!(lets(&allowed, host), "{host}");
        }
        for host in ["secret.example.org", "example.com", "aexample.org", "www.net", "w.a.net"] {
            assert!(!lets(&allowed, host), "{host}");
        }
    }

    #[test]
    fn a_star_is_any_characters() {
        for (pattern, text) in [("*", ""), ("*", "a"), ("a*", "a"), ("*a", "a"), ("a**b", "ab"), ("*a*a*", "aba")] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("a*a", "a"), ("*ab*b", "ab"), ("a", ""), ("*a*a*", "ab")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        assert!(!matches(&"*a".repeat(1_000), &"a".repeat(999)));
    }

    #[test]
    fn a_client_is_asked_for_its_languages_first() {
        let configured = ["en".to_owned(), "fr".to_owned()];
        assert_eq!(languages(None, &configured), "en, fr;q=0.8");
        assert_eq!(languages(Some("de-AT,de;q=0.9, it ; q=0.1, es"), &configured), "de-at, de;q=0.8, it;q=0.6");
        assert_eq!(languages(Some("*, \u{e9}\u{e9}, a, aaaaaaaaaaaaaaaaaaaa, b c"), &configured), "en, fr;q=0.8");
        assert_eq!(languages(Some(""), &[]), "");
    }
}
