//! The end of the log, as this node knows it: how far it has read, and whom it hands batches to.
//!
//! A batch is applied when everything before it has been. One that comes early, because another node wrote
//! in between, waits while [`super::replay`] reads what is missing.
//!
//! Lock order: `applying`, then `state`. `state` is held only for a look or a change of a few fields, never while a
//! reader is called. Under `applying` the readers take their own locks; so nobody may call [`Tail::publish`] or
//! [`Tail::catch_up`] with a reader's lock held, and no reader may call either.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, OnceLock},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use super::marks::Recent;
use crate::{
    event::fact::Batch,
    ground::{
        position::{Mark, Position},
        sizes::CacheSizes,
        weighed::{CacheWeight, Weighed},
    },
};

/// Somebody who follows the log. Called with every batch, in order, from one caller at a time; it must be quick. It
/// runs on the committer's or the follower's task and can't wait: neither for a lock that is held across an await, nor
/// for the database.
pub trait Reader: Send + Sync {
    /// Takes what concerns this reader. [`Tail::reached`] is not at the batch yet.
    fn read(&self, batch: &Batch);

    /// Called once every reader has read the batch: whoever is woken now finds all of it. [`Tail::reached`] is at the
    /// end of the batch by then, so a request that is woken does not wait for it again.
    fn wake(&self, _batch: &Batch) {}
}

/// How many entries are kept for readers that load while the log moves on, unless they take too many bytes. A load that
/// takes longer than that many entries has to begin anew.
const KEPT_ENTRIES: usize = 4_096;
/// So many are kept whatever they take, or no load would ever end while something large is written.
const KEPT_BATCHES: usize = 2;

/// The followed end of the log.
pub struct Tail {
    /// How many bytes the newest entries may take.
    limit: u64,
    /// In the order in which they are called. A later one may rely on what earlier ones have read of the same batch.
    readers: OnceLock<Vec<Arc<dyn Reader>>>,
    state: RwLock<TailState>,
    /// Held while a batch is applied, so that readers see one at a time.
    applying: Mutex<()>,
    /// As `state.reached`, for those who wait. It is moved after `state`, still under `applying`.
    reached: watch::Sender<Position>,
    /// Rung when something is missing before a batch that is there.
    gap: Notify,
}

#[derive(Default)]
struct TailState {
    /// The last entry that every reader has been handed.
    reached: Position,
    /// The readers have been handed everything after this.
    began: Position,
    /// The newest batches that were applied, oldest first and without a hole, up to [`KEPT_ENTRIES`] entries in all. Each
    /// with its bytes.
    recent: VecDeque<(u64, Arc<Batch>)>,
    recent_entries: usize,
    recent_bytes: u64,
    /// Batches that came before their turn, by their first place. They are few: the follower reads what is missing at
    /// once.
    early: BTreeMap<Position, Arc<Batch>>,
    marks: Recent,
}

impl Default for Tail {
    fn default() -> Self {
        Self::new(&CacheSizes::default())
    }
}

impl Weighed for Tail {
    fn weight(&self) -> CacheWeight {
        CacheWeight { name: "log", bytes: self.state.read().recent_bytes, limit: self.limit }
    }
}

impl Tail {
    pub(crate) fn new(sizes: &CacheSizes) -> Self {
        let (readers, state, applying) = (OnceLock::new(), RwLock::default(), Mutex::default());
        let (reached, gap) = (watch::Sender::default(), Notify::default());
        Self { limit: sizes.log, readers, state, applying, reached, gap }
    }

    /// Names the readers, once, before anything is written.
    pub fn follow_with(&self, readers: Vec<Arc<dyn Reader>>) {
        let _no_step = self.applying.lock();
        if self.readers.set(readers).is_err() {
            tracing::error!("the log's readers were named twice; the first ones stay");
            return;
        }
        // Another node may have written between the two beginnings.
        let mut state = self.state.write();
        state.began = state.reached;
    }

    /// Begins at `position`: what lies before was read from the database. Called once, before the committer and the
    /// follower run.
    pub(super) fn start_at(&self, position: Position, marks: Recent) {
        let mut state = self.state.write();
        state.marks = marks;
        (state.reached, state.began) = (position, position);
        self.reached.send_replace(position);
    }

    /// Where this node's readers began to read: they have been handed everything after this.
    pub fn began(&self) -> Position {
        self.state.read().began
    }

    /// Up to where this node has read.
    pub fn reached(&self) -> Position {
        self.state.read().reached
    }

    /// The mark of the batch that holds a place, if that is remembered.
    pub(super) fn mark(&self, at: Position) -> Option<Mark> {
        self.state.read().marks.find(at)
    }

    /// Waits until this node has read up to `position`. There is no limit in time: whoever must not wait for ever sets
    /// one.
    pub async fn wait_for(&self, position: Position) {
        let mut reached = self.reached.subscribe();
        // An error means that the sender is gone, which cannot be while `self` is here.
        if reached.wait_for(|at| *at >= position).await.is_err() {
            tracing::error!("the log's tail is gone");
        }
    }

    /// Waits until this node has read up to a place that was read in the database. Whoever puts what they have read
    /// there beside what follows the log needs both to be of one time.
    ///
    /// No connection may be held meanwhile: the follower needs one.
    pub async fn reach(&self, position: Position) {
        if self.reached() < position {
            self.look();
            self.wait_for(position).await;
        }
    }

    /// Notified of every step that this node makes.
    pub fn watch(&self) -> watch::Receiver<Position> {
        self.reached.subscribe()
    }

    /// Asks for a look into the database: somebody knows of batches that have not come yet.
    pub fn look(&self) {
        self.gap.notify_one();
    }

    /// Rung when batches are missing. One notice is remembered if nobody waits at that moment, so none is lost between
    /// two rounds of the follower.
    pub(super) async fn gap(&self) {
        self.gap.notified().await;
    }

    /// Takes a committed batch: applies it and whatever waited for it, or keeps it until its turn. Called by the
    /// committer, by transactions of [`super::Log::commit`] and by the follower, in any order and with the same batch
    /// more than once.
    pub(super) fn publish(&self, batch: Arc<Batch>) {
        let _one_at_a_time = self.applying.lock();
        self.state.write().early.insert(batch.first, batch);
        while let Some(next) = self.next_in_turn() {
            for reader in self.readers.get().into_iter().flatten() {
                reader.read(&next);
            }
            // Kept only once it was read: a reader that catches up under `applying` sees each batch either here or in
            // `read`.
            self.keep(&next);
            self.reached.send_replace(next.last);
            for reader in self.readers.get().into_iter().flatten() {
                reader.wake(&next);
            }
        }
        // Something before it is missing: another node has written it, or a transaction beside the committer has
        // committed first and comes here last. The follower looks; what comes twice is dropped.
        if !self.state.read().early.is_empty() {
            self.gap.notify_one();
        }
    }

    fn next_in_turn(&self) -> Option<Arc<Batch>> {
        let mut state = self.state.write();
        loop {
            let early = state.early.first_entry()?;
            if early.get().last <= *self.reached.borrow() {
                // Came twice: once from here, once from the database.
                early.remove();
            } else if early.get().first == self.reached.borrow().next() {
                return Some(early.remove());
            } else {
                return None;
            }
        }
    }

    fn keep(&self, batch: &Arc<Batch>) {
        let mut state = self.state.write();
        state.reached = batch.last;
        state.marks.push(batch.last, batch.mark);
        let bytes = u64::try_from(batch.bytes()).unwrap_or(u64::MAX);
        state.recent_entries += batch.news.len();
        state.recent_bytes += bytes;
        state.recent.push_back((bytes, Arc::clone(batch)));
        while state.recent_entries > KEPT_ENTRIES
            || (state.recent_bytes > self.limit && state.recent.len() > KEPT_BATCHES)
        {
            let Some((bytes, oldest)) = state.recent.pop_front() else { break };
            state.recent_entries -= oldest.news.len();
            state.recent_bytes -= bytes;
        }
    }

    /// The batches after `position`, oldest first, or None if they are not all remembered.
    ///
    /// `then` runs while no further batch can be applied, so that a value that was read from the database
    /// at `position` can be brought up to date and registered without missing one.
    pub fn catch_up<T>(&self, position: Position, then: impl FnOnce(&[Arc<Batch>]) -> T) -> Option<T> {
        let _no_step = self.applying.lock();
        let state = self.state.read();
        if position < state.reached {
            let oldest = state.recent.front().map(|(_, batch)| batch.first)?;
            // A batch that begins in time is not enough: the one after `position` has to be here as well.
            if oldest > position.next() {
                return None;
            }
        }
        let recent = state.recent.iter().map(|(_, batch)| batch);
        let missed: Vec<_> = recent.filter(|batch| batch.last > position).cloned().collect();
        drop(state);
        Some(then(&missed))
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::{json, value::to_raw_value};

    use super::*;
    use crate::event::fact::{AccountData, News};

    fn batch(at: i64, bytes: usize) -> Arc<Batch> {
        let content = to_raw_value(&json!({ "text": "x".repeat(bytes) })).unwrap();
        let data = AccountData {
            user_id: user_id!("@alice:here").to_owned(),
            room_id: None,
            kind: "large".to_owned(),
            content: content.into(),
        };
        let (at, news) = (Position(at), vec![News::AccountData(Arc::new(data))]);
        Arc::new(Batch { first: at, last: at, mark: Mark::of("batch"), news })
    }

    #[test]
    fn large_batches_are_not_kept_by_the_thousand() {
        let tail = Tail::new(&CacheSizes { log: 100 * 1024, ..CacheSizes::default() });
        tail.start_at(Position::START, Recent::default());
        for at in 1..=50 {
            tail.publish(batch(at, 30_000));
            assert!(tail.weight().bytes <= tail.weight().limit, "{:?}", tail.weight());
        }
        assert_eq!(tail.catch_up(Position(47), <[_]>::len), Some(3));
        assert_eq!(tail.catch_up(Position(40), <[_]>::len), None, "whoever began so early begins anew");
        for at in 51..=60 {
            tail.publish(batch(at, 200_000));
        }
        assert_eq!(tail.catch_up(Position(58), <[_]>::len), Some(2), "or nobody could load while this goes on");
        assert_eq!(tail.catch_up(Position(57), <[_]>::len), None);
    }
}
