//! What others are shown of a user's keys, in memory: a look at it spares the database the question, and the texts are
//! written once for all who ask.
//!
//! Every change of what is shown is an entry of the log in the transaction that makes it, by which clients hear of it;
//! where an operator makes it beside running nodes, the entry follows before the command says that it is done. By that
//! entry what was remembered of the user is thrown away, on every node. That somebody has no account is not remembered:
//! no entry says that they have one now.

use std::{collections::BTreeSet, sync::Arc};

use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedUserId, UserId};

use super::shown::ShownKeys;
use crate::{
    event::fact::{Batch, News},
    ground::{
        sizes::CacheSizes,
        weighed::{self, CacheWeight, Weighed},
    },
    log::Reader,
};

/// About how many users are remembered who have three devices each.
const KEPT_USERS: usize = 16_384;
/// What a user takes beside their name and keys, in bytes.
const USER_BYTES: usize = 256;
/// Few, so that each has room for whoever has many devices.
const SHARDS: usize = 4;

/// The keys that this node remembers. It follows the log.
pub(crate) struct KeyCache {
    users: Cache<OwnedUserId, Arc<ShownKeys>, ByBytes>,
    limit: u64,
}

/// Weighs what a user's keys take, for the cache's limit.
#[derive(Clone)]
struct ByBytes;

impl Weighter<OwnedUserId, Arc<ShownKeys>> for ByBytes {
    fn weight(&self, user_id: &OwnedUserId, shown: &Arc<ShownKeys>) -> u64 {
        (USER_BYTES + user_id.as_str().len() + shown.bytes) as u64
    }
}

impl KeyCache {
    pub(in crate::people) fn new(sizes: &CacheSizes) -> Self {
        let limit = sizes.device_keys;
        Self { users: weighed::by_bytes(KEPT_USERS, limit, SHARDS, ByBytes), limit }
    }

    /// What is shown of a user, as of the node's log. None where it has to be read first.
    pub(super) fn find(&self, user_id: &UserId) -> Option<Arc<ShownKeys>> {
        self.users.get(user_id)
    }

    /// Takes what the database had of users, but for those who have changed in the batches that came meanwhile. Called
    /// while the log stands still.
    pub(super) fn remember(&self, loaded: &[(OwnedUserId, Arc<ShownKeys>)], missed: &[Arc<Batch>]) {
        let missed = missed.iter().flat_map(|batch| batch.entries());
        let changed: BTreeSet<&UserId> = missed.filter_map(|(_, news)| changed_by(news)).collect();
        for (user_id, shown) in loaded {
            if !changed.contains(&**user_id) {
                self.users.insert(user_id.clone(), Arc::clone(shown));
            }
        }
    }

    #[cfg(test)]
    pub(super) fn forget_all(&self) {
        self.users.clear();
    }
}

/// Of whom everybody is shown something else from here on. What only one user is shown is not remembered.
fn changed_by(news: &News) -> Option<&UserId> {
    match news {
        News::DeviceList(change) if change.seen_by.is_none() => Some(&change.user_id),
        _ => None,
    }
}

impl Weighed for KeyCache {
    fn weight(&self) -> CacheWeight {
        CacheWeight { name: "device_keys", bytes: self.users.weight(), limit: self.limit }
    }
}

impl Reader for KeyCache {
    fn read(&self, batch: &Batch) {
        for (_, news) in batch.entries() {
            if let Some(user_id) = changed_by(news) {
                self.users.remove(user_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::fact::DeviceListChange,
        ground::position::{Mark, Position},
        people::keys::shown::{ShownCrossSigning, ShownDevice},
        testing::user,
    };

    fn keys(bytes: usize) -> Arc<ShownKeys> {
        let text = "x".repeat(bytes).into_bytes().into_boxed_slice();
        let devices = vec![ShownDevice { id: "PHONE".into(), text }];
        Arc::new(ShownKeys::new(devices, ShownCrossSigning::default()))
    }

    fn changed(at: i64, user_id: &UserId, seen_by: Option<&UserId>) -> Arc<Batch> {
        let (user_id, seen_by) = (user_id.to_owned(), seen_by.map(ToOwned::to_owned));
        let news = vec![News::DeviceList(Arc::new(DeviceListChange { user_id, device_id: None, seen_by }))];
        Arc::new(Batch { first: Position(at), last: Position(at), mark: Mark::of("batch"), news })
    }

    #[test]
    fn what_has_changed_is_forgotten_also_while_it_is_read() {
        let cache = KeyCache::new(&CacheSizes::default());
        let (alice, bob) = (user("alice"), user("bob"));
        cache.remember(&[(alice.clone(), keys(1)), (bob.clone(), keys(1))], &[]);
        cache.read(&changed(1, &alice, Some(&bob)));
        assert!(cache.find(&alice).is_some(), "only Bob is shown that");
        cache.read(&changed(2, &alice, None));
        assert!(cache.find(&alice).is_none() && cache.find(&bob).is_some());
        let missed = changed(3, &alice, None);
        cache.read(&missed);
        cache.remember(&[(alice.clone(), keys(2)), (bob.clone(), keys(2))], &[missed]);
        assert!(cache.find(&alice).is_none(), "what was read is from before the change");
        assert_eq!(cache.find(&bob).unwrap().bytes, keys(2).bytes);
    }

    #[test]
    fn the_budget_holds_however_many_devices_there_are() {
        let cache = KeyCache::new(&CacheSizes { device_keys: 64 * 1024, ..CacheSizes::default() });
        for n in 0..500 {
            cache.remember(&[(user(&format!("user{n}")), keys(20 * n))], &[]);
            assert!(cache.weight().bytes <= cache.weight().limit, "{:?}", cache.weight());
        }
        assert!(cache.weight().bytes > 16 * 1024, "it is used");
        cache.remember(&[(user("large"), keys(100_000))], &[]);
        assert!(cache.find(&user("large")).is_none());
    }
}
