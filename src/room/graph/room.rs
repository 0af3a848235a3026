//! A room in memory: as it was committed last, following the log, and as it will be.

use std::sync::atomic::{AtomicU64, AtomicUsize};

use parking_lot::RwLock;

use super::{
    head::{Head, PendingHead},
    state::State,
    view::View,
};

/// A room in memory: as it is, and as it will be once what is under way has been committed.
pub struct Room {
    /// Written by the log's reader alone, for as long as applying one event takes. Never held over an `await`.
    pub(super) view: RwLock<View>,
    /// The room's lock. Whoever holds it builds events and queues them, and waits for nothing meanwhile, neither for
    /// the database nor for the log. It is asynchronous because those who want it may be many.
    pub(in crate::room) pending: tokio::sync::Mutex<PendingHead>,
    /// When somebody last asked for it, as the cache counts.
    pub(super) asked: AtomicU64,
    /// How many bytes the cache counts for it.
    pub(super) bytes: AtomicUsize,
}

impl Room {
    pub(super) fn new(view: View) -> Self {
        Self {
            view: RwLock::new(view),
            pending: tokio::sync::Mutex::default(),
            asked: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Reads from the view. Quick things only: the log waits. `read` must take no other lock.
    pub fn view<T>(&self, read: impl FnOnce(&View) -> T) -> T {
        read(&self.view.read())
    }

    /// What the next event is built on, while the lock is held: the pending head where it is ahead of what has been
    /// committed, else that, because another node may have written.
    pub(in crate::room) fn head(&self, pending: &PendingHead) -> Head {
        self.view(|view| match &pending.head {
            Some(head) if head.room.head > view.head.head => head.clone(),
            _ => Head::of(view),
        })
    }

    /// Drops the pending head, unless that has been done since `generation`. Called once a write has failed. Several
    /// writes that were built on one another fail together; the first drops the head for all of them.
    pub(in crate::room) async fn forget_pending(&self, generation: u64) {
        let mut pending = self.pending.lock().await;
        if pending.generation == generation {
            pending.forget();
        }
    }

    /// The state at this moment. A copy that shares everything with the room's own.
    pub fn state(&self) -> State {
        self.view.read().state.clone()
    }
}
