//! Rooms on their way from the database into memory: each is read once, however many wait for it.
//!
//! A load is a future that is shared by all who wait for it, and driven by whichever of them is polled; if all of them
//! go away, it is dropped, and whoever comes next begins anew. It is not a task of its own, so nothing is read for
//! nobody.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use ruma::{OwnedRoomId, RoomVersionId};

use super::room::Room;
use crate::error::{Error, Result};

/// How many rooms are read at once. Their events are read by one task, and the database shows it one moment meanwhile.
const AT_ONCE: usize = 100;

/// What became of the rooms that were looked for: those that there are, or the version of which one is that is not
/// supported here.
pub(super) type Loaded = HashMap<OwnedRoomId, Result<Arc<Room>, RoomVersionId>>;
/// Some rooms being read, by whoever waits for any of them. Once nobody waits any more it ends.
pub(super) type Load = Shared<LoadFuture>;
type LoadFuture = BoxFuture<'static, Result<Arc<Loaded>, Arc<Error>>>;

/// The rooms that are being read.
#[derive(Default)]
pub(in crate::room) struct RoomLoads {
    /// Weak, so that being listed here keeps no load alive.
    rooms: HashMap<OwnedRoomId, (u64, WeakShared<LoadFuture>)>,
    /// Counts the loads, so that one that has ended takes nothing of a later one away.
    count: u64,
}

impl RoomLoads {
    /// How many loads there were.
    #[cfg(test)]
    pub(in crate::room) fn count(&self) -> u64 {
        self.count
    }

    /// The loads that bring these rooms: those under way, and new ones for the rest. `load` reads some rooms; it is
    /// given the number of its load, by which to end it. Called under the lock on this; `load` makes a future and must
    /// not run it.
    pub(super) fn join<F>(
        &mut self,
        missing: &HashSet<OwnedRoomId>,
        load: impl Fn(Vec<OwnedRoomId>, u64) -> F,
    ) -> Vec<Load>
    where
        F: Future<Output = Result<Loaded>> + Send + 'static,
    {
        let (mut loads, mut joined, mut unread) = (Vec::new(), HashSet::new(), Vec::new());
        for room_id in missing {
            let under_way = self.rooms.get(room_id).and_then(|(number, load)| Some((*number, load.upgrade()?)));
            match under_way {
                Some((number, load)) => {
                    if joined.insert(number) {
                        loads.push(load);
                    }
                }
                None => unread.push(room_id.clone()),
            }
        }
        for room_ids in unread.chunks(AT_ONCE) {
            self.count += 1;
            let reading = load(room_ids.to_vec(), self.count).map(|loaded| loaded.map(Arc::new).map_err(Arc::new));
            loads.push(self.begin(room_ids, reading.boxed().shared()));
        }
        loads
    }

    /// Weak only where somebody still waits: a load that is over has no weak form, and is not listed.
    fn begin(&mut self, room_ids: &[OwnedRoomId], load: Load) -> Load {
        let number = self.count;
        if let Some(weak) = load.downgrade() {
            self.rooms.extend(room_ids.iter().map(|room_id| (room_id.clone(), (number, weak.clone()))));
        }
        load
    }

    /// Takes the rooms of a load out of those that are being read. Called when the load's future is dropped, finished
    /// or not.
    pub(super) fn end(&mut self, room_ids: &[OwnedRoomId], number: u64) {
        for room_id in room_ids {
            if self.rooms.get(room_id).is_some_and(|(known, _)| *known == number) {
                self.rooms.remove(room_id);
            }
        }
    }
}
