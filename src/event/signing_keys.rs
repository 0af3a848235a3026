//! Every key that this server has signed with, and which of them signs now.
//!
//! A new key is published before it is used, and used by every node from the same moment on: a while after it was made,
//! within which each node has noticed it. The one before it is good for a moment longer, for what was signed just then and
//! is still on its way; after that it is published as an old one, so that what it has signed can be verified for good.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#publishing-keys>

use std::{iter, sync::Arc};

use parking_lot::RwLock;

use super::SigningKey;
use crate::ground::clock::Clock;

/// So many milliseconds after it was made a key begins to sign. Nodes look for new ones three times as often.
const LEAD: i64 = 60_000;
/// For so many milliseconds after its successor has begun to sign, a key is still good.
const OVERLAP: i64 = 60_000;

/// The keys of this server, on one node. Clones see the same.
#[derive(Clone, Debug)]
pub struct SigningKeys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    first: DatedKey,
    /// In the order in which they were made.
    later: RwLock<Vec<DatedKey>>,
}

/// A key, and when it was made.
#[derive(Clone, Debug)]
pub struct DatedKey {
    pub key: Arc<SigningKey>,
    /// In milliseconds since the Unix epoch.
    pub created_ts: i64,
}

/// A key as other servers are shown it.
#[derive(Clone, Debug)]
pub struct PublishedKey {
    pub key: Arc<SigningKey>,
    /// Since when it is not good for signing any more, in milliseconds since the Unix epoch. None where it is.
    pub expired_ts: Option<i64>,
}

impl DatedKey {
    /// From when on a key that is not the first one signs, in milliseconds since the Unix epoch.
    pub fn signs_from(&self) -> i64 {
        self.created_ts.saturating_add(LEAD)
    }
}

impl SigningKeys {
    /// `later`: in the order in which they were made.
    pub fn new(clock: Clock, first: DatedKey, later: Vec<DatedKey>) -> Self {
        Self(Arc::new(Inner { clock, first, later: RwLock::new(later) }))
    }

    /// One key that signs for ever.
    #[cfg(test)]
    pub(crate) fn of(key: SigningKey) -> Self {
        Self::new(Clock::system(), DatedKey { key: Arc::new(key), created_ts: 0 }, Vec::new())
    }

    /// The key to sign with now.
    pub fn current(&self) -> Arc<SigningKey> {
        let (now, later) = (self.now(), self.0.later.read());
        let newest = later.iter().rev().find(|dated| dated.signs_from() <= now);
        Arc::clone(&newest.unwrap_or(&self.0.first).key)
    }

    /// The first key of the server. It never changes, so what nodes have in common is named by it and derived from it.
    pub fn first(&self) -> &Arc<SigningKey> {
        &self.0.first.key
    }

    /// All keys, with those that are not used yet, in the order in which they were made.
    pub fn published(&self) -> Vec<PublishedKey> {
        let (now, later) = (self.now(), self.0.later.read());
        let keys = iter::once(&self.0.first).chain(later.iter());
        let ends = later.iter().map(|successor| Some(successor.signs_from().saturating_add(OVERLAP)));
        let publish = |(dated, end): (&DatedKey, Option<i64>)| PublishedKey {
            key: Arc::clone(&dated.key),
            expired_ts: end.filter(|end| *end <= now),
        };
        keys.zip(ends.chain(iter::once(None))).map(publish).collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.later.read().len() + 1
    }

    /// Takes over all keys but the first, in the order in which they were made.
    pub(crate) fn replace_later(&self, later: Vec<DatedKey>) {
        *self.0.later.write() = later;
    }

    fn now(&self) -> i64 {
        self.0.clock.now().get().into()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(name: &str, created_ts: i64) -> DatedKey {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), &format!("ed25519:{name}")).unwrap();
        DatedKey { key: Arc::new(key), created_ts }
    }

    fn shown(keys: &SigningKeys) -> Vec<(String, Option<i64>)> {
        keys.published().iter().map(|published| (published.key.id().to_string(), published.expired_ts)).collect()
    }

    #[test]
    fn a_key_is_published_before_it_signs_and_after_it_has_signed() {
        let clock = Clock::manual(1_000_000);
        let keys = SigningKeys::new(clock.clone(), key("a", 0), Vec::new());
        assert_eq!(keys.current().id().as_str(), "ed25519:a");
        let (a, b) = ("ed25519:a".to_owned(), "ed25519:b".to_owned());

        keys.replace_later(vec![key("b", 1_000_000)]);
        assert_eq!(keys.current().id().as_str(), "ed25519:a", "other nodes may not know of it");
        assert_eq!(shown(&keys), [(a.clone(), None), (b.clone(), None)]);

        clock.advance(Duration::from_mins(1));
        assert_eq!(keys.current().id().as_str(), "ed25519:b");
        assert_eq!(shown(&keys), [(a.clone(), None), (b.clone(), None)], "what it signed may be on its way");

        clock.advance(Duration::from_mins(1));
        assert_eq!(shown(&keys), [(a, Some(1_120_000)), (b, None)]);
        assert_eq!(keys.first().id().as_str(), "ed25519:a");
        assert_eq!(keys.count(), 2);
    }
}
