//! All keys of the configuration together.

use super::key::{ConfigKey, KEYS, federation, media};

impl ConfigKey {
    /// In the order of `config.example.toml`.
    pub(super) fn all() -> impl Iterator<Item = &'static Self> {
        KEYS.iter().chain(federation::KEYS).chain(media::KEYS)
    }

    /// None of a section, and of what is no key.
    pub(super) fn find(path: &str) -> Option<&'static Self> {
        Self::all().find(|key| key.path == path)
    }

    /// The keys of the section `path`; none if there is no such section.
    pub(super) fn list_in_section(path: &str) -> Vec<&'static str> {
        let in_section = |key: &&Self| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        Self::all().filter(in_section).map(|key| key.path).collect()
    }
}
