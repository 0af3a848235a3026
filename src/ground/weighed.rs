//! Caches that weigh what they hold, in bytes and about, and have a limit: however few entries somebody makes large, a
//! cache takes no more memory than that.
//!
//! What each may take is declared in one place ([`super::sizes::CacheSizes`]), and what each takes is in the metrics.

use std::{
    hash::Hash,
    time::{Duration, Instant},
};

use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync::Cache, sync::DefaultLifecycle};

/// A cache that can be asked what it takes.
pub trait Weighed: Send + Sync {
    /// Quick, as it is called whenever the metrics are read.
    fn weight(&self) -> CacheWeight;
}

/// What a cache takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheWeight {
    /// As the metrics call it.
    pub name: &'static str,
    pub bytes: u64,
    /// Beyond this it forgets.
    pub limit: u64,
}

/// How long to wait before a cache that holds too much is looked through again although it has not grown: what is in use
/// stays, and may be in use no longer.
const PAUSE: Duration = Duration::from_secs(10);

/// What a cache takes that forgets by looking through all of it, and when it is to do so.
#[derive(Debug)]
pub(crate) struct Load {
    /// In bytes.
    pub(crate) bytes: u64,
    limit: u64,
    /// At how many bytes to look for something to forget: the limit, or more where nearly all was in use.
    alarm: u64,
    looked: Instant,
}

impl Load {
    pub(crate) fn new(limit: u64) -> Self {
        Self { bytes: 0, limit, alarm: limit, looked: Instant::now() }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether to look for something to forget.
    pub(crate) fn is_due(&self) -> bool {
        self.bytes > self.alarm || (self.bytes > self.limit && self.looked.elapsed() > PAUSE)
    }

    /// Whether enough is forgotten: a tenth more than needed, so that not everything that comes makes somebody look.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes <= self.limit - self.limit / 10
    }

    /// All of it was looked through. It takes so many bytes now.
    pub(crate) fn looked_through(&mut self, bytes: u64) {
        self.bytes = bytes;
        self.alarm = self.limit.max(bytes.saturating_add(bytes / 16));
        self.looked = Instant::now();
    }

    pub(crate) fn weight(&self, name: &'static str) -> CacheWeight {
        CacheWeight { name, bytes: self.bytes, limit: self.limit }
    }
}

/// A cache of about so many entries and at most so many bytes. It is split among `shards`, each with a lock and its part
/// of the bytes of its own: an entry that is larger than that part is not kept at all.
pub(crate) fn by_bytes<K, V, W>(entries: usize, bytes: u64, shards: usize, weighter: W) -> Cache<K, V, W>
where
    K: Eq + Hash,
    V: Clone,
    W: Weighter<K, V> + Clone,
{
    let mut options = OptionsBuilder::new();
    options.estimated_items_capacity(entries).weight_capacity(bytes).shards(shards);
    match options.build() {
        Ok(options) => {
            Cache::with_options(options, weighter, DefaultHashBuilder::default(), DefaultLifecycle::default())
        }
        // It says so where a capacity is missing, and both are there.
        Err(_) => Cache::with_weighter(entries, bytes, weighter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_looked_through_where_that_may_help() {
        let mut load = Load::new(100);
        load.bytes = 100;
        assert!(!load.is_due());
        load.bytes = 101;
        assert!(load.is_due());
        load.looked_through(90);
        assert!(load.has_room() && !load.is_due());
        // Nearly all is in use.
        load.looked_through(160);
        load.bytes = 170;
        assert!(!load.has_room() && !load.is_due(), "not at once again");
        load.looked = load.looked.checked_sub(2 * PAUSE).unwrap();
        assert!(load.is_due(), "what was in use may be in use no longer");
        load.bytes = 171;
        load.looked = Instant::now();
        assert!(load.is_due(), "it has grown");
    }
}
