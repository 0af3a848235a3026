//! Whose devices and keys have changed lately, in memory.
//!
//! A sync asks this each time and the database only where it does not reach back far enough: for clients that have been
//! away for longer than the newest few thousand changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Included},
};

use parking_lot::RwLock;
use ruma::{OwnedUserId, UserId};

use crate::{
    db::Db,
    error::Result,
    event::fact::{Batch, News},
    ground::{
        position::Position,
        sizes::CacheSizes,
        weighed::{CacheWeight, Weighed},
    },
    log::{Reader, Tail},
    store,
};

/// How many changes are read when a node starts.
const LOADED: i64 = 5_000;
/// What a change takes beside the names of its users, in bytes.
const CHANGE_BYTES: usize = 112;

/// The newest changes of devices and keys. It follows the log.
pub(crate) struct DeviceChangeCache {
    recent: RwLock<RecentChanges>,
    limit: u64,
}

struct RecentChanges {
    by_position: BTreeMap<Position, RecentChange>,
    /// What they take, in bytes.
    bytes: u64,
    /// All that was after this is remembered. None until the changes from before this node's start were read.
    after: Option<Position>,
}

struct RecentChange {
    user_id: OwnedUserId,
    /// The only user who is shown it, if it is not everybody.
    seen_by: Option<OwnedUserId>,
}

impl RecentChange {
    fn bytes(&self) -> u64 {
        let seen_by = self.seen_by.as_ref().map_or(0, |user_id| user_id.as_str().len());
        (CHANGE_BYTES + self.user_id.as_str().len() + seen_by) as u64
    }

    fn is_seen_by(&self, reader: &UserId) -> bool {
        self.seen_by.as_ref().is_none_or(|user_id| **user_id == *reader)
    }
}

impl DeviceChangeCache {
    pub(crate) fn new(sizes: &CacheSizes) -> Self {
        let recent = RecentChanges { by_position: BTreeMap::new(), bytes: 0, after: None };
        Self { recent: RwLock::new(recent), limit: sizes.device_lists }
    }

    /// Reads the newest changes. The log is followed already, so what comes meanwhile is not missed.
    pub(crate) async fn load(&self, db: &Db, tail: &Tail) -> Result<()> {
        let mut snapshot = tail.snapshot(db).await?;
        let rows = store::device_list::list_newest(&mut snapshot, LOADED).await?;
        snapshot.close().await;
        let is_all = i64::try_from(rows.len()).unwrap_or(i64::MAX) < LOADED;
        let oldest = rows.last().map_or(Position::START, |(at, ..)| at.before());
        let mut recent = self.recent.write();
        // What was forgotten while it was read stays forgotten.
        let after = if is_all { Position::START } else { oldest };
        recent.after = Some(recent.after.map_or(after, |forgotten| forgotten.max(after)));
        for (at, user_id, seen_by) in rows {
            recent.insert(at, RecentChange { user_id, seen_by });
        }
        recent.keep_few(self.limit);
        Ok(())
    }

    /// Who has changed after a place, up to another, as far as a user is shown it. None if that is not remembered.
    pub(super) fn between(
        &self,
        reader: &UserId,
        (after, until): (Position, Position),
    ) -> Option<BTreeSet<OwnedUserId>> {
        let recent = self.recent.read();
        if recent.after.is_none_or(|known| after < known) {
            return None;
        }
        if after >= until {
            return Some(BTreeSet::new());
        }
        let changes = recent.by_position.range((Excluded(after), Included(until))).map(|(_, change)| change);
        Some(changes.filter(|change| change.is_seen_by(reader)).map(|change| change.user_id.clone()).collect())
    }
}

impl RecentChanges {
    fn insert(&mut self, at: Position, change: RecentChange) {
        let bytes = change.bytes();
        if self.by_position.insert(at, change).is_none() {
            self.bytes += bytes;
        }
    }

    /// Forgets the oldest where all take too much.
    fn keep_few(&mut self, limit: u64) {
        while self.bytes > limit
            && let Some((at, change)) = self.by_position.pop_first()
        {
            self.bytes -= change.bytes();
            // A change from before this node's start may be read later and is forgotten then.
            self.after = Some(self.after.map_or(at, |known| known.max(at)));
        }
    }
}

impl Weighed for DeviceChangeCache {
    fn weight(&self) -> CacheWeight {
        CacheWeight { name: "device_lists", bytes: self.recent.read().bytes, limit: self.limit }
    }
}

impl Reader for DeviceChangeCache {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            if let News::DeviceList(change) = news {
                let mut recent = self.recent.write();
                let (user_id, seen_by) = (change.user_id.clone(), change.seen_by.clone());
                recent.insert(at, RecentChange { user_id, seen_by });
                recent.keep_few(self.limit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{event::fact::DeviceListChange, ground::position::Mark, testing::user};

    fn batch(at: i64, name: &str, seen_by: Option<&str>) -> Batch {
        let change = DeviceListChange { user_id: user(name), device_id: None, seen_by: seen_by.map(user) };
        let news = vec![News::DeviceList(Arc::new(change))];
        Batch { first: Position(at), last: Position(at), mark: Mark::of("batch"), news }
    }

    fn between(cache: &DeviceChangeCache, after: i64, until: i64) -> Option<BTreeSet<OwnedUserId>> {
        cache.between(&user("reader"), (Position(after), Position(until)))
    }

    #[test]
    fn only_what_is_all_remembered_is_answered_from_memory() {
        let cache = DeviceChangeCache::new(&CacheSizes { device_lists: 1_000, ..CacheSizes::default() });
        assert_eq!(between(&cache, 1, 2), None, "nothing was read from the database yet");
        cache.recent.write().after = Some(Position(3));
        for at in 4..100 {
            cache.read(&batch(at, &format!("user{at}"), None));
            assert!(cache.weight().bytes <= 1_000);
        }
        assert_eq!(between(&cache, 97, 99).unwrap(), BTreeSet::from([user("user98"), user("user99")]));
        assert_eq!(between(&cache, 98, 98), Some(BTreeSet::new()));
        assert_eq!(between(&cache, 50, 99), None);
        let after = cache.recent.read().after.unwrap();
        assert_eq!(between(&cache, after.0, 99).unwrap().len(), cache.recent.read().by_position.len());
        assert_eq!(between(&cache, after.before().0, 99), None);
    }

    #[test]
    fn what_one_user_alone_is_shown_has_changed_for_nobody_else() {
        let cache = DeviceChangeCache::new(&CacheSizes { device_lists: 500, ..CacheSizes::default() });
        cache.recent.write().after = Some(Position(0));
        cache.read(&batch(1, "alice", None));
        cache.read(&batch(2, "bob", Some("reader")));
        cache.read(&batch(3, "carol", Some("alice")));
        assert_eq!(between(&cache, 0, 3).unwrap(), BTreeSet::from([user("alice"), user("bob")]));
        let of_alice = cache.between(&user("alice"), (Position(0), Position(3))).unwrap();
        assert_eq!(of_alice, BTreeSet::from([user("alice"), user("carol")]));
        for at in 4..10 {
            cache.read(&batch(at, "dave", Some("alice")));
            assert!(cache.weight().bytes <= 500);
        }
        assert_eq!(between(&cache, 9, 9), Some(BTreeSet::new()));
    }
}
