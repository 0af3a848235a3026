//! For which devices something waits, in memory: a look at it tells that a sync need not look into the database.
//!
//! What is remembered of a user is where the oldest and the newest message of each of their inboxes stand; of a device
//! that is not there nothing waits. It follows the log, so it never says that nothing waits where something does. It may
//! say that something waits which another node has given out and deleted since: whoever looks finds nothing, and corrects
//! it.
//!
//! Two change it: the log's reader, and whoever has deleted what was confirmed. Each takes `changing`, so that neither
//! writes over what the other has just written.

use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};
use rpds::HashTrieMapSync;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::{
    event::fact::{Batch, News, ToDevice},
    ground::{
        position::Position,
        sizes::CacheSizes,
        weighed::{self, CacheWeight, Weighed},
    },
    log::Reader,
    store::to_device::WaitingSpan,
};

/// How many users that is, if nothing waits for most.
const KEPT_USERS: usize = 16_384;
/// What a user and a device take beside their names, in bytes.
const USER_BYTES: u64 = 192;
const DEVICE_BYTES: u64 = 128;
const SHARDS: usize = 4;

/// The inboxes that this node remembers. It follows the log.
pub(crate) struct InboxCache {
    users: Cache<OwnedUserId, Arc<UserInboxes>, ByBytes>,
    limit: u64,
    changing: Mutex<()>,
}

/// The inboxes of one user in which something waits. A copy shares what it has in common with the original.
#[derive(Clone)]
pub(crate) struct UserInboxes {
    waiting: HashTrieMapSync<OwnedDeviceId, WaitingSpan>,
    /// Everything up to here is part of it.
    position: Position,
    bytes: u64,
}

/// Weighs what a user's inboxes take here, for the cache's limit.
#[derive(Clone)]
struct ByBytes;

impl Weighter<OwnedUserId, Arc<UserInboxes>> for ByBytes {
    fn weight(&self, user_id: &OwnedUserId, inboxes: &Arc<UserInboxes>) -> u64 {
        USER_BYTES + user_id.as_str().len() as u64 + inboxes.bytes
    }
}

impl Weighed for InboxCache {
    fn weight(&self) -> CacheWeight {
        CacheWeight { name: "inboxes", bytes: self.users.weight(), limit: self.limit }
    }
}

impl Reader for InboxCache {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            let News::ToDevice(to_device) = news else { continue };
            // Peeked at: what the log writes is no sign that anybody asks for it.
            self.change(&to_device.user_id, |inboxes| inboxes.follow(at, to_device));
        }
    }
}

impl InboxCache {
    pub(in crate::people) fn new(sizes: &CacheSizes) -> Self {
        let limit = sizes.inboxes;
        Self { users: weighed::by_bytes(KEPT_USERS, limit, SHARDS, ByBytes), limit, changing: Mutex::default() }
    }

    /// What waits for a user's devices, as of the node's log. None where it has to be read first.
    pub(super) fn find(&self, user_id: &UserId) -> Option<Arc<UserInboxes>> {
        self.users.get(user_id)
    }

    /// Takes what waited for a user's devices as the database had it at `position`, and brings it up to date. Called
    /// while the log stands still.
    pub(super) fn remember(
        &self,
        user_id: &UserId,
        position: Position,
        waiting: &[(OwnedDeviceId, WaitingSpan)],
        missed: &[Arc<Batch>],
    ) -> Arc<UserInboxes> {
        let mut inboxes = UserInboxes { waiting: HashTrieMapSync::default(), position, bytes: 0 };
        for (device_id, span) in waiting {
            inboxes.set(device_id.clone(), *span);
        }
        for (at, news) in missed.iter().flat_map(|batch| batch.entries()) {
            if let News::ToDevice(to_device) = news
                && to_device.user_id == user_id
            {
                inboxes.follow(at, to_device);
            }
        }
        let inboxes = Arc::new(inboxes);
        let _alone = self.changing.lock();
        self.users.insert(user_id.to_owned(), Arc::clone(&inboxes));
        inboxes
    }

    /// Nothing waits for a device any more that stands at `until` or before.
    pub(super) fn confirm(&self, user_id: &UserId, device_id: &DeviceId, until: Position) {
        self.change(user_id, |inboxes| inboxes.confirm(device_id, until));
    }

    /// Puts another value in place of a user's, if they are remembered.
    fn change(&self, user_id: &UserId, change: impl FnOnce(&mut UserInboxes)) {
        let _alone = self.changing.lock();
        let Some(known) = self.users.peek(user_id) else { return };
        let mut inboxes = UserInboxes::clone(&known);
        change(&mut inboxes);
        self.users.insert(user_id.to_owned(), Arc::new(inboxes));
    }
}

impl UserInboxes {
    /// What waits for a device, if anything does.
    pub(super) fn find(&self, device_id: &DeviceId) -> Option<WaitingSpan> {
        self.waiting.get(device_id).copied()
    }

    fn follow(&mut self, at: Position, to_device: &ToDevice) {
        if at <= self.position {
            return;
        }
        for device_id in &to_device.device_ids {
            let oldest = self.find(device_id).map_or(at, |span| span.oldest);
            self.set(device_id.clone(), WaitingSpan { oldest, newest: at });
        }
        self.position = at;
    }

    fn set(&mut self, device_id: OwnedDeviceId, span: WaitingSpan) {
        let bytes = device_bytes(&device_id);
        if !self.waiting.contains_key(&device_id) {
            self.bytes += bytes;
        }
        self.waiting.insert_mut(device_id, span);
    }

    fn confirm(&mut self, device_id: &DeviceId, until: Position) {
        match self.find(device_id) {
            Some(span) if span.newest <= until => {
                self.waiting.remove_mut(device_id);
                self.bytes = self.bytes.saturating_sub(device_bytes(device_id));
            }
            Some(span) if span.oldest <= until => {
                self.set(device_id.to_owned(), WaitingSpan { oldest: until.next(), ..span });
            }
            _ => {}
        }
    }
}

fn device_bytes(device_id: &DeviceId) -> u64 {
    DEVICE_BYTES + device_id.as_str().len() as u64
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, user_id};

    use super::*;
    use crate::ground::position::Mark;

    fn batch(at: i64, user_id: &UserId, device_id: &DeviceId) -> Batch {
        let news = ToDevice { user_id: user_id.to_owned(), device_ids: vec![device_id.to_owned()] };
        let at = Position(at);
        Batch { first: at, last: at, mark: Mark::of("batch"), news: vec![News::ToDevice(Arc::new(news))] }
    }

    fn cache() -> InboxCache {
        InboxCache::new(&CacheSizes { inboxes: 64 * 1024, ..CacheSizes::default() })
    }

    fn span(oldest: i64, newest: i64) -> WaitingSpan {
        WaitingSpan { oldest: Position(oldest), newest: Position(newest) }
    }

    #[test]
    fn what_is_remembered_follows_the_log_and_what_is_confirmed() {
        let (alice, phone, laptop) = (user_id!("@alice:here"), device_id!("PHONE"), device_id!("LAPTOP"));
        let cache = cache();
        cache.read(&batch(1, alice, phone));
        assert!(cache.find(alice).is_none(), "nobody has asked");
        let missed = [Arc::new(batch(2, alice, phone)), Arc::new(batch(3, alice, laptop))];
        let known = [(phone.to_owned(), WaitingSpan { oldest: Position(1), newest: Position(2) })];
        cache.remember(alice, Position(2), &known, &missed);
        let of = |device_id| cache.find(alice).unwrap().find(device_id);
        assert_eq!((of(phone), of(laptop), of(device_id!("OTHER"))), (Some(span(1, 2)), Some(span(3, 3)), None));
        cache.read(&batch(4, alice, phone));
        cache.confirm(alice, phone, Position(2));
        assert_eq!(
            (of(phone), of(laptop)),
            (Some(span(3, 4)), Some(span(3, 3))),
            "nothing is confirmed that came later"
        );
        cache.confirm(alice, phone, Position(1));
        assert_eq!(of(phone), Some(span(3, 4)));
        cache.confirm(alice, phone, Position(4));
        cache.confirm(alice, device_id!("OTHER"), Position(4));
        assert_eq!((of(phone), of(laptop)), (None, Some(span(3, 3))));
        cache.read(&batch(5, alice, phone));
        assert_eq!(of(phone), Some(span(5, 5)));
    }

    #[test]
    fn the_budget_holds_however_it_is_filled() {
        let cache = cache();
        for n in 0..2_000 {
            let user_id = OwnedUserId::try_from(format!("@{n}:here")).unwrap();
            cache.remember(&user_id, Position(1), &[], &[]);
            cache.read(&batch(n + 2, &user_id, device_id!("PHONE")));
            assert!(cache.weight().bytes <= cache.weight().limit);
            if let Some(known) = cache.find(&user_id) {
                assert_eq!(
                    known.find(device_id!("PHONE")),
                    Some(span(n + 2, n + 2)),
                    "what is remembered is up to date"
                );
            }
        }
        assert!(cache.weight().bytes > 16 * 1024, "it is used");
    }
}
