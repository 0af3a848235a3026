//! What is known of the keys of a server, and the servers whose keys are in memory.
//!
//! Several nodes may fetch keys, each for itself: what one remembers may be outdated. It is read again, and then asked for
//! again, where it is not enough. A key that its server gave up before its time is found out when the server's keys are
//! next fetched here, after a week at the latest.

use std::{collections::BTreeMap, sync::Arc};

use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedServerName, ServerName, serde::Base64};

use crate::{
    event::SigningKeys,
    ground::{
        sizes::CacheSizes,
        weighed::{self, CacheWeight, Weighed},
    },
};

/// About how many servers are remembered.
const KEPT_SERVERS: usize = 4_096;
/// What a server takes beside its name, and a key beside its identifier, in bytes.
const SERVER_BYTES: usize = 160;
const KEY_BYTES: usize = 128;
const SHARDS: usize = 4;

/// The keys of one server, good and old ones.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownKeys(BTreeMap<String, KnownKey>);

#[derive(Clone, Debug)]
struct KnownKey {
    public_key: Base64,
    /// The latest time at which it may have signed something, in milliseconds since the Unix epoch.
    valid_until: i64,
}

impl KnownKeys {
    /// The keys that this server signs and has signed with, and what others know of keys that it had before.
    pub(super) fn of_this_server(own: &SigningKeys, remembered: &Self) -> Self {
        let mut keys = remembered.clone();
        for published in own.published() {
            let public_key = Base64::new(published.key.public_key().to_vec());
            let valid_until = published.expired_ts.unwrap_or(i64::MAX);
            keys.0.insert(published.key.id().to_string(), KnownKey { public_key, valid_until });
        }
        keys
    }

    /// Adds what the database has. What can't be read there is no key.
    pub(super) fn insert(&mut self, key_id: String, public_key: &str, valid_until: i64) {
        if let Ok(public_key) = Base64::parse(public_key) {
            self.0.insert(key_id, KnownKey { public_key, valid_until });
        }
    }

    /// A key, if it may have signed something at this time (milliseconds since the Unix epoch).
    pub(super) fn find(&self, key_id: &str, at: i64) -> Option<&Base64> {
        self.0.get(key_id).filter(|key| key.valid_until >= at).map(|key| &key.public_key)
    }

    fn bytes(&self) -> usize {
        self.0.keys().map(|key_id| key_id.len() + KEY_BYTES).sum()
    }
}

/// The servers whose keys are in memory.
pub(super) struct KeyCache {
    servers: Cache<OwnedServerName, Arc<KnownKeys>, ByBytes>,
    limit: u64,
}

/// Weighs what a server's keys take, for the cache's limit.
#[derive(Clone)]
struct ByBytes;

impl Weighter<OwnedServerName, Arc<KnownKeys>> for ByBytes {
    fn weight(&self, server: &OwnedServerName, keys: &Arc<KnownKeys>) -> u64 {
        (SERVER_BYTES + server.as_str().len() + keys.bytes()) as u64
    }
}

impl KeyCache {
    pub(super) fn new(sizes: &CacheSizes) -> Self {
        let limit = sizes.server_keys;
        Self { servers: weighed::by_bytes(KEPT_SERVERS, limit, SHARDS, ByBytes), limit }
    }

    /// None where they have to be read first.
    pub(super) fn find(&self, server: &ServerName) -> Option<Arc<KnownKeys>> {
        self.servers.get(server)
    }

    pub(super) fn remember(&self, server: &ServerName, keys: &Arc<KnownKeys>) {
        self.servers.insert(server.to_owned(), Arc::clone(keys));
    }
}

impl Weighed for KeyCache {
    fn weight(&self) -> CacheWeight {
        CacheWeight { name: "server_keys", bytes: self.servers.weight(), limit: self.limit }
    }
}
