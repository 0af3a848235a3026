//! Caches that weigh what they hold, in bytes and about, and have a limit: however few entries somebody makes large, a
//! cache takes no more memory than that.
//!
//! What each may take is declared in one place ([`super::sizes::CacheSizes`]), and what each takes is in the metrics.

use std::hash::Hash;

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
