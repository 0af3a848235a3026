//! How many one-time keys a device has on the server, as every sync tells it: from memory, brought up to date by the
//! log.
//!
//! What is remembered is the text of the answer. It is thrown away when the log says that keys were uploaded or claimed,
//! and read again when the device next syncs. The counts may be a little newer than the rest of a sync; the next one
//! says so again.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync>

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache};
use serde_json::value::{RawValue, to_raw_value};

use super::client::Client;
use crate::{
    db::Db,
    error::{Error, Result},
    event::fact::{Batch, KeyCountChange, News},
    ground::{
        position::Position,
        sizes::CacheSizes,
        weighed::{self, CacheWeight, Weighed},
    },
    log::{Reader, Tail},
    store::{self, one_time_key::KeyCounts},
};

/// How many devices that is, about.
const KEPT_DEVICES: usize = 16_384;
/// What a device takes beside its names and texts, in bytes.
const DEVICE_BYTES: usize = 200;
/// Few, so that each has room for many devices.
const SHARDS: usize = 4;

/// The counts of the devices of this node's clients. Cheap to share.
pub(crate) struct KeyCountsOfDevices {
    db: Db,
    tail: Arc<Tail>,
    cache: Arc<KeyCountCache>,
}

/// The counts that this node remembers. It follows the log.
pub(crate) struct KeyCountCache {
    devices: Cache<Client, DeviceCounts, ByBytes>,
    limit: u64,
}

/// What is remembered of a device.
#[derive(Clone)]
struct DeviceCounts {
    /// None where they have changed since they were read.
    written: Option<Arc<WrittenKeyCounts>>,
    /// Where they last changed, as far as is remembered: else [`Position::START`].
    changed: Position,
}

/// The counts as clients read them, in JSON.
#[derive(Debug)]
pub(crate) struct WrittenKeyCounts {
    /// How many one-time keys nobody has claimed, by algorithm.
    pub(crate) one_time: Box<RawValue>,
    /// The algorithms of the fallback keys that nobody has been given.
    pub(crate) unused_fallback: Box<RawValue>,
}

impl WrittenKeyCounts {
    fn of(counts: &KeyCounts) -> Result<Self> {
        let one_time = to_raw_value(&counts.one_time).map_err(Error::broken)?;
        let unused_fallback = to_raw_value(&counts.unused_fallback).map_err(Error::broken)?;
        Ok(Self { one_time, unused_fallback })
    }
}

/// Weighs what a device takes, for the cache's limit.
#[derive(Clone)]
struct ByBytes;

impl Weighter<Client, DeviceCounts> for ByBytes {
    fn weight(&self, client: &Client, counts: &DeviceCounts) -> u64 {
        let names = client.user_id.as_str().len() + client.device_id.as_str().len();
        let texts = counts
            .written
            .as_ref()
            .map_or(0, |written| written.one_time.get().len() + written.unused_fallback.get().len());
        (DEVICE_BYTES + names + texts) as u64
    }
}

impl KeyCountsOfDevices {
    /// `cache` has to follow the log.
    pub(crate) fn new(db: Db, tail: Arc<Tail>, cache: Arc<KeyCountCache>) -> Self {
        Self { db, tail, cache }
    }

    /// The counts of a device and where they last changed, as far as is remembered: else [`Position::START`]. One look
    /// into the database after each change, and no other.
    pub(super) async fn find(&self, client: &Client) -> Result<(Arc<WrittenKeyCounts>, Position)> {
        loop {
            if let Some(known) = self.cache.find(client) {
                return Ok(known);
            }
            let mut snapshot = self.tail.snapshot(&self.db).await?;
            let counts = store::one_time_key::count(&mut snapshot, &client.user_id, &client.device_id).await?;
            let position = snapshot.close().await;
            let written = Arc::new(WrittenKeyCounts::of(&counts)?);
            if let Some(found) = self.tail.catch_up(position, |missed| self.cache.remember(client, written, missed)) {
                return Ok(found);
            }
        }
    }
}

impl KeyCountCache {
    pub(crate) fn new(sizes: &CacheSizes) -> Self {
        let limit = sizes.key_counts;
        Self { devices: weighed::by_bytes(KEPT_DEVICES, limit, SHARDS, ByBytes), limit }
    }

    fn find(&self, client: &Client) -> Option<(Arc<WrittenKeyCounts>, Position)> {
        let counts = self.devices.get(client)?;
        Some((counts.written?, counts.changed))
    }

    /// Takes what the database had of a device, unless it has changed in the batches that came meanwhile. What was read
    /// is returned all the same: it was true when the client asked.
    fn remember(
        &self,
        client: &Client,
        written: Arc<WrittenKeyCounts>,
        missed: &[Arc<Batch>],
    ) -> (Arc<WrittenKeyCounts>, Position) {
        let changed = self.devices.peek(client).map_or(Position::START, |known| known.changed);
        let is_outdated = missed
            .iter()
            .flat_map(|batch| batch.entries())
            .any(|(_, news)| matches!(news, News::KeyCount(change) if is_of(change, client)));
        if !is_outdated {
            self.devices.insert(client.clone(), DeviceCounts { written: Some(Arc::clone(&written)), changed });
        }
        (written, changed)
    }
}

fn is_of(change: &KeyCountChange, client: &Client) -> bool {
    change.user_id == client.user_id && change.device_id == client.device_id
}

impl Weighed for KeyCountCache {
    fn weight(&self) -> CacheWeight {
        CacheWeight { name: "key_counts", bytes: self.devices.weight(), limit: self.limit }
    }
}

impl Reader for KeyCountCache {
    /// Noted of every device, also of those that nobody has asked for: a client that waits is to be answered.
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            if let News::KeyCount(change) = news {
                let client = Client { user_id: change.user_id.clone(), device_id: change.device_id.clone() };
                self.devices.insert(client, DeviceCounts { written: None, changed: at });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{ground::position::Mark, testing::user};

    fn client(name: &str) -> Client {
        Client { user_id: user(name), device_id: "PHONE".into() }
    }

    fn counts(keys: i64) -> Arc<WrittenKeyCounts> {
        let one_time = BTreeMap::from([("signed_curve25519".to_owned(), keys)]);
        let unused_fallback = vec!["signed_curve25519".to_owned()];
        Arc::new(WrittenKeyCounts::of(&KeyCounts { one_time, unused_fallback }).unwrap())
    }

    fn changed(at: i64, client: &Client) -> Arc<Batch> {
        let Client { user_id, device_id } = client.clone();
        let news = vec![News::KeyCount(Arc::new(KeyCountChange { user_id, device_id }))];
        Arc::new(Batch { first: Position(at), last: Position(at), mark: Mark::of("batch"), news })
    }

    #[test]
    fn what_has_changed_is_read_again_and_is_news() {
        let cache = KeyCountCache::new(&CacheSizes::default());
        let (alice, bob) = (client("alice"), client("bob"));
        assert_eq!(cache.remember(&alice, counts(50), &[]).1, Position::START);
        let (written, _) = cache.find(&alice).unwrap();
        assert_eq!(written.one_time.get(), r#"{"signed_curve25519":50}"#);
        assert_eq!(written.unused_fallback.get(), r#"["signed_curve25519"]"#);
        cache.read(&changed(7, &bob));
        assert!(cache.find(&alice).is_some() && cache.find(&bob).is_none());
        cache.read(&changed(8, &alice));
        assert!(cache.find(&alice).is_none());
        // Another key is claimed while they are read.
        let missed = changed(9, &alice);
        cache.read(&missed);
        assert_eq!(cache.remember(&alice, counts(49), &[missed]).1, Position(9));
        assert!(cache.find(&alice).is_none());
        cache.remember(&alice, counts(48), &[]);
        assert_eq!(cache.find(&alice).unwrap().1, Position(9));
    }

    #[test]
    fn the_budget_holds_however_many_devices_there_are() {
        let cache = KeyCountCache::new(&CacheSizes { key_counts: 16 * 1024, ..CacheSizes::default() });
        for n in 0..500 {
            let client = client(&format!("user{n}"));
            cache.remember(&client, counts(n), &[]);
            cache.read(&changed(n, &client));
            assert!(cache.weight().bytes <= cache.weight().limit, "{:?}", cache.weight());
        }
    }
}
