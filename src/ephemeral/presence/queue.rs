//! Those whose presence is still to be written into the log.

use std::collections::HashSet;

use parking_lot::Mutex;
use ruma::OwnedUserId;
use tokio::sync::Notify;

/// Users of whom there may be something to write.
#[derive(Default)]
pub(super) struct PresenceQueue {
    pub(super) users: Mutex<HashSet<OwnedUserId>>,
    pub(super) rung: Notify,
    /// Held by the writing task from when it reads what everybody believes of somebody until what follows from that is
    /// written, and shared by requests in which users say themselves how things are: each writes the whole presence, so
    /// the task would undo what comes in between.
    pub(super) writing: tokio::sync::RwLock<()>,
}

impl PresenceQueue {
    /// There may be something to write about these users.
    pub(super) fn extend(&self, users: impl IntoIterator<Item = OwnedUserId>) {
        self.users.lock().extend(users);
        self.rung.notify_one();
    }
}
