//! What passes: who has read how far, who types, who is there.
//!
//! All three are facts in the log like messages, so they are durable and every node shows them alike. Their rows hold
//! only the newest of each; what was before is gone.

pub mod presence;
pub mod receipt;
pub mod typing;

use std::{ops::Deref, sync::Arc};

use self::{presence::PresenceOfUsers, receipt::Receipts, typing::Typists};
use crate::{
    error::Result,
    ground::{sizes::CacheSizes, weighed::Weighed},
    log::Reader,
    media::Media,
};

/// The modules of this layer at work, on those below.
pub struct Ephemeral {
    media: Media,
    pub(crate) presence: PresenceOfUsers,
    pub(crate) receipts: Receipts,
    pub(crate) typists: Typists,
}

impl Deref for Ephemeral {
    type Target = Media;

    fn deref(&self) -> &Media {
        &self.media
    }
}

/// What this layer keeps in memory and follows the log.
#[derive(Clone)]
pub(crate) struct Caches {
    receipts: Arc<receipt::ReceiptCache>,
    typing: Arc<typing::TypingCache>,
    pub(crate) presence: Arc<presence::PresenceCache>,
}

impl Caches {
    pub(crate) fn new(sizes: &CacheSizes) -> Self {
        Self {
            receipts: Arc::new(receipt::ReceiptCache::new(sizes)),
            typing: Arc::new(typing::TypingCache::new(sizes)),
            presence: Arc::new(presence::PresenceCache::new(sizes)),
        }
    }

    pub(crate) fn weighed(&self) -> Vec<Arc<dyn Weighed>> {
        vec![Arc::clone(&self.receipts) as _, Arc::clone(&self.typing) as _, Arc::clone(&self.presence) as _]
    }

    /// Behind those of people and before those of the readers: see [`crate::app`].
    pub(crate) fn readers(&self) -> Vec<Arc<dyn Reader>> {
        vec![Arc::clone(&self.receipts) as _, Arc::clone(&self.typing) as _, Arc::clone(&self.presence) as _]
    }
}

impl Ephemeral {
    /// Reads what was true when the server stopped, and starts the tasks that end it.
    pub(crate) async fn start(media: Media, caches: Caches) -> Result<Self> {
        let (db, rooms, clock) = (media.db.clone(), media.rooms.clone(), media.clock.clone());
        let (nodes, shared_values, tasks) = (&media.nodes, media.shared_values.clone(), &media.tasks);
        let parts = (db.clone(), media.log.clone(), clock.clone());
        let enabled = media.config.presence.enabled;
        Ok(Self {
            presence: PresenceOfUsers::start(
                parts,
                enabled,
                caches.presence,
                nodes.clone(),
                shared_values.clone(),
                tasks,
            )
            .await?,
            receipts: Receipts::new(db.clone(), rooms.clone(), clock.clone(), caches.receipts),
            typists: Typists::start((db, rooms, clock), caches.typing, nodes, shared_values, tasks).await?,
            media,
        })
    }
}
