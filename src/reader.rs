//! What is made of the log for those who ask: `/sync`, unread counts, search, the directories.
//!
//! Nothing here is true by itself: each could be made anew from the log and the tables that follow from it. What is
//! kept in memory or in tables of its own is there to be quick.

pub(crate) mod directory;
pub(crate) mod search;
pub(crate) mod sync;
pub mod unread;
pub(crate) mod user_directory;

use std::{ops::Deref, sync::Arc};

use self::{
    directory::Directory,
    search::Searches,
    sync::{
        DeviceChangeCache, KeyCountCache, KeyCountsOfDevices, Registry, Sources, Strangers, Syncs, Waits, Watchers,
        wake_neighbours,
    },
    unread::Unread,
    user_directory::UserDirectory,
};
use crate::{
    ephemeral::{Ephemeral, presence},
    error::Result,
    ground::{sizes::Sizes, weighed::Weighed},
    log::Reader,
};

/// The modules of this layer at work, on those below.
pub struct Readers {
    ephemeral: Ephemeral,
    pub(crate) directory: Directory,
    pub(crate) searches: Searches,
    pub(crate) syncs: Syncs,
    #[cfg(test)]
    pub(crate) unread: Unread,
    pub(crate) user_directory: UserDirectory,
}

impl Deref for Readers {
    type Target = Ephemeral;

    fn deref(&self) -> &Ephemeral {
        &self.ephemeral
    }
}

/// What this layer keeps in memory and follows the log.
///
/// They have to be among the log's readers before it reads anything.
#[derive(Clone)]
pub(crate) struct Caches {
    unread: Arc<unread::UnreadCache>,
    directory: Arc<directory::RoomCardCache>,
    device_changes: Arc<DeviceChangeCache>,
    key_counts: Arc<KeyCountCache>,
    watchers: Arc<Registry>,
}

impl Caches {
    pub(crate) fn new(presence: Arc<presence::PresenceCache>, sizes: &Sizes) -> Self {
        Self {
            unread: Arc::new(unread::UnreadCache::new(sizes.unread, sizes.caches.unread)),
            directory: Arc::new(directory::RoomCardCache::new(&sizes.caches)),
            device_changes: Arc::new(DeviceChangeCache::new(&sizes.caches)),
            key_counts: Arc::new(KeyCountCache::new(&sizes.caches)),
            watchers: Arc::new(Registry::new(presence, &sizes.caches)),
        }
    }

    pub(crate) fn weighed(&self) -> Vec<Arc<dyn Weighed>> {
        vec![
            Arc::clone(&self.unread) as _,
            Arc::clone(&self.directory) as _,
            Arc::clone(&self.device_changes) as _,
            Arc::clone(&self.key_counts) as _,
            Arc::clone(&self.watchers) as _,
            Arc::new(Strangers(Arc::clone(&self.watchers))) as _,
        ]
    }

    /// To be called after those of the layers below: who is woken finds everything.
    pub(crate) fn readers(&self) -> Vec<Arc<dyn Reader>> {
        vec![
            Arc::clone(&self.unread) as _,
            Arc::clone(&self.directory) as _,
            Arc::clone(&self.device_changes) as _,
            Arc::clone(&self.key_counts) as _,
            Arc::clone(&self.watchers) as _,
        ]
    }
}

impl Readers {
    pub(crate) async fn start(ephemeral: Ephemeral, caches: Caches) -> Result<Self> {
        let (db, log, rooms) = (ephemeral.db.clone(), ephemeral.log.clone(), ephemeral.rooms.clone());
        let (tasks, tail) = (&ephemeral.tasks, Arc::clone(log.tail()));
        let (receipts, account_data) = (ephemeral.receipts.clone(), ephemeral.account_data.clone());
        let unread = Unread::new(db.clone(), rooms.clone(), receipts.clone(), account_data.clone(), caches.unread);
        let registry = Arc::clone(&caches.watchers);
        // A task of its own, so that nobody's many neighbours hold up the log or a request.
        let waking = wake_neighbours(db.clone(), Arc::clone(&tail), registry, tasks.shutdown().clone());
        tasks.spawn("neighbour wakes", waking);
        caches.device_changes.load(&db, &tail).await?;
        let key_counts = KeyCountsOfDevices::new(db.clone(), Arc::clone(&tail), caches.key_counts);
        let sources = Sources {
            rooms: rooms.clone(),
            watchers: Watchers::new(db.clone(), tail, caches.watchers),
            waits: Waits::new(ephemeral.config.connections.waiting_syncs_per_device, ephemeral.metrics.clone()),
            receipts,
            typists: ephemeral.typists.clone(),
            presence: ephemeral.presence.clone(),
            unread: unread.clone(),
            account_data,
            device_changes: caches.device_changes,
            key_counts,
            to_device: ephemeral.to_device.clone(),
            clock: ephemeral.clock.clone(),
        };
        // Two duties, so that two nodes may share them.
        let (sizes, duty) = (ephemeral.sizes, ephemeral.nodes.duty("search index").await?);
        let searches = Searches::start(db.clone(), rooms, sizes.search, duty, tasks);
        let (search_all, duty) =
            (ephemeral.config.user_directory.search_all, ephemeral.nodes.duty("user directory").await?);
        let (server_name, reach) = (ephemeral.server_name.clone(), ephemeral.reach.clone());
        let parts = (db.clone(), log.clone(), server_name.clone());
        Ok(Self {
            directory: Directory::new((db, log), caches.directory, server_name, reach),
            searches,
            syncs: Syncs::new(sources),
            #[cfg(test)]
            unread,
            user_directory: UserDirectory::start(parts, search_all, duty, tasks),
            ephemeral,
        })
    }
}
