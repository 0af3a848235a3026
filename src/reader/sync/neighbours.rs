//! Who is to hear of somebody's presence, devices and keys: everybody who shares a room with them.
//!
//! The rooms of those who are connected to this node are known. Of others, who are connected to another node or have
//! not asked for anything yet, they are read when something is said of them ([`wake_neighbours`]), and follow the log
//! from then on. Many neighbours are woken one group after the other, so that whoever comes online in a room of ten
//! thousand costs the others a moment, and no more than that however many come.
//!
//! A wake-up may come late or twice without harm: whoever is woken looks up what there is for them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use ruma::{OwnedRoomId, OwnedUserId, UserId};

use super::{watch::Registry, watcher::Watcher};
use crate::{
    db::Db,
    error::Result,
    ground::{position::Position, tasks::Shutdown},
    log::Tail,
    store,
};

/// Up to so many neighbours are woken at once.
const FEW: usize = 100;
/// More are woken so many at a time, with a pause in between: five thousand in a second at most.
const GROUP: usize = 50;
/// See [`GROUP`].
const PAUSE: Duration = Duration::from_millis(10);
/// How long to wait until a database that has failed is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// Those who are to be woken, by their address, each with the place up to which they have something to hear.
#[derive(Default)]
struct WakeList {
    watchers: BTreeMap<usize, (Arc<Watcher>, Position)>,
    /// Who was woken last: whoever waits longest comes first.
    last: usize,
}

impl WakeList {
    /// Somebody who is on the list already is woken once, for the latest place.
    fn add(&mut self, watcher: &Arc<Watcher>, at: Position) {
        let known = self.watchers.entry(Arc::as_ptr(watcher).addr()).or_insert_with(|| (Arc::clone(watcher), at));
        known.1 = at.max(known.1);
    }

    /// Puts others on this list.
    fn append(&mut self, others: Self) {
        for (watcher, at) in others.watchers.into_values() {
            self.add(&watcher, at);
        }
    }

    /// Wakes so many of them.
    fn wake(&mut self, most: usize) {
        for _ in 0..most {
            let next =
                self.watchers.range(self.last.saturating_add(1)..).next().or_else(|| self.watchers.iter().next());
            let Some(next) = next.map(|(address, _)| *address) else { return };
            self.last = next;
            // The list holds the watcher, so no other one has had its address meanwhile.
            if let Some((watcher, at)) = self.watchers.remove(&next) {
                watcher.wake(at);
            }
        }
    }
}

/// Wakes whoever is to hear of somebody's presence, devices or keys, until the server stops.
///
/// What somebody leaves here while it works is taken in the next round; nothing is lost if the database fails.
pub(crate) async fn wake_neighbours(db: Db, tail: Arc<Tail>, registry: Arc<Registry>, shutdown: Shutdown) {
    let mut crowd = WakeList::default();
    loop {
        let waits = crowd.watchers.is_empty();
        tokio::select! {
            () = shutdown.started() => return,
            () = registry.errands.rung.notified(), if waits => {}
            () = tokio::time::sleep(PAUSE), if !waits => {}
        }
        let changed = std::mem::take(&mut *registry.errands.changed.lock());
        // Under the lock of the index, and nobody is woken under it.
        let (mut concerned, mut unknown) = registry.find_neighbours(&changed);
        if !unknown.is_empty() {
            match look_up(&db, &tail, &registry, &unknown).await {
                Ok(()) => {
                    let (more, forgotten) = registry.find_neighbours(&unknown);
                    concerned.append(more);
                    unknown = forgotten;
                }
                Err(error) => {
                    tracing::warn!(%error, "could not find out who shares a room with somebody who has changed; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
            // With the database away, or forgotten at once because there were too many: they have their turn again.
            for (user_id, at) in &unknown {
                registry.errands.leave(user_id, *at);
            }
        }
        if concerned.watchers.len() <= FEW {
            concerned.wake(FEW);
        } else {
            crowd.append(concerned);
        }
        crowd.wake(GROUP);
    }
}

/// Makes the rooms known that some users are in.
async fn look_up(db: &Db, tail: &Tail, registry: &Registry, users: &HashMap<OwnedUserId, Position>) -> Result<()> {
    let names: Vec<&UserId> = users.keys().map(|user_id| &**user_id).collect();
    loop {
        let mut snapshot = tail.snapshot(db).await?;
        let joined = store::membership::list_joined_of(&mut snapshot, &names).await?;
        let position = snapshot.close().await;
        let mut rooms: HashMap<OwnedUserId, HashSet<OwnedRoomId>> =
            users.keys().map(|user_id| (user_id.clone(), HashSet::new())).collect();
        for (user_id, room_id) in joined {
            rooms.entry(user_id).or_default().insert(room_id);
        }
        // While the log stands still: what the snapshot does not have comes with the missed batches.
        if tail.catch_up(position, |missed| registry.introduce(rooms, missed)).is_some() {
            return Ok(());
        }
    }
}

impl Registry {
    /// Everybody who shares a room with one of these users, and the users; and those whose rooms are not in memory.
    fn find_neighbours(&self, changed: &HashMap<OwnedUserId, Position>) -> (WakeList, HashMap<OwnedUserId, Position>) {
        let (mut crowd, mut unknown) = (WakeList::default(), HashMap::new());
        // A room that many of them are in is gone through once.
        let mut rooms: HashMap<OwnedRoomId, Position> = HashMap::new();
        let index = self.index.read();
        for (user_id, at) in changed {
            let joined = match index.users.get(user_id) {
                Some(own) => {
                    crowd.add(own, *at);
                    Some(own.joined_rooms())
                }
                None => index.strangers.rooms(user_id).map(|rooms| rooms.iter().cloned().collect()),
            };
            match joined {
                Some(joined) => {
                    for room_id in joined {
                        let place = rooms.entry(room_id).or_insert(*at);
                        *place = (*place).max(*at);
                    }
                }
                None => drop(unknown.insert(user_id.clone(), *at)),
            }
        }
        for (room_id, at) in rooms {
            for watcher in index.rooms.get(&room_id).into_iter().flat_map(|room| &room.users) {
                crowd.add(watcher, at);
            }
        }
        (crowd, unknown)
    }
}
