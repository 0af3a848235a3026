//! Who is to hear of somebody's presence: everybody who shares a room with them.
//!
//! The rooms of those who are connected to this node are known. Of others, who are connected to another node or have not
//! asked for anything yet, they are read when something is said of them ([`wake_for_presence`]), and follow the log from
//! then on. Many neighbours are woken one group after the other, so that whoever comes online in a room of ten thousand
//! costs the others a moment, and no more than that however many come.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};
use tokio::sync::Notify;

use super::watch::{Registry, Watcher};
use crate::{
    db::Db,
    error::Result,
    event::Logged,
    log::Tail,
    position::Position,
    room::state::membership_of,
    store::{self, membership::Membership},
    tasks::Shutdown,
};

/// Up to so many neighbours are woken at once.
const FEW: usize = 100;
/// More are woken so many at a time, with a pause in between: five thousand in a second at most.
const GROUP: usize = 50;
const PAUSE: Duration = Duration::from_millis(10);
/// How long to wait until a database that has failed is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// How many memberships of strangers are remembered.
const KEPT_MEMBERSHIPS: usize = 500_000;
/// How many who have joined a room are remembered.
const KEPT_NEWCOMERS: usize = 200;

/// The rooms that users are in who are not connected to this node.
#[derive(Default)]
pub(super) struct Strangers {
    rooms: HashMap<OwnedUserId, HashSet<OwnedRoomId>>,
    memberships: usize,
}

impl Strangers {
    /// The rooms that a user is in, if they are remembered.
    pub(super) fn rooms(&self, user_id: &UserId) -> Option<&HashSet<OwnedRoomId>> {
        self.rooms.get(user_id)
    }

    fn add(&mut self, user_id: OwnedUserId, rooms: HashSet<OwnedRoomId>) {
        if self.memberships > KEPT_MEMBERSHIPS {
            *self = Self::default();
        }
        self.memberships += rooms.len();
        if let Some(old) = self.rooms.insert(user_id, rooms) {
            self.memberships = self.memberships.saturating_sub(old.len());
        }
    }

    /// Forgets somebody, who is connected now.
    pub(super) fn remove(&mut self, user_id: &UserId) {
        if let Some(old) = self.rooms.remove(user_id) {
            self.memberships = self.memberships.saturating_sub(old.len());
        }
    }

    /// A membership has changed.
    pub(super) fn follow(&mut self, row: &Membership<'_>) {
        let Some(rooms) = self.rooms.get_mut(row.user_id) else { return };
        if row.state != MembershipState::Join {
            self.memberships = self.memberships.saturating_sub(usize::from(rooms.remove(row.room_id)));
        } else if rooms.insert(row.room_id.to_owned()) {
            self.memberships += 1;
        }
    }
}

/// Those who have joined a room lately.
pub(super) struct Newcomers {
    /// All who have joined after this are remembered.
    after: Position,
    joins: VecDeque<(Position, OwnedUserId)>,
}

impl Newcomers {
    pub(super) fn new(after: Position) -> Self {
        Self { after, joins: VecDeque::new() }
    }

    /// An event has changed a membership.
    pub(super) fn follow(&mut self, logged: &Logged, row: &Membership<'_>) {
        let is_told = self.joins.back().is_some_and(|(at, _)| *at > row.position) || row.position <= self.after;
        if row.state != MembershipState::Join || was_in(logged, row.user_id) || is_told {
            return;
        }
        self.joins.push_back((row.position, row.user_id.to_owned()));
        if self.joins.len() > KEPT_NEWCOMERS
            && let Some((oldest, _)) = self.joins.pop_front()
        {
            self.after = oldest;
        }
    }

    /// Who has joined after a place. None if that is not remembered.
    pub(super) fn since(&self, after: Position) -> Option<Vec<OwnedUserId>> {
        let joined = self.joins.iter().filter(|(at, _)| *at > after).map(|(_, user_id)| user_id.clone());
        (after >= self.after).then(|| joined.collect())
    }
}

/// Whether a user only changes their profile in a room that they are in.
fn was_in(logged: &Logged, user_id: &UserId) -> bool {
    let own = logged.stored.pdu.state_key() == Some(user_id.as_str());
    own && logged.stored.replaces.as_ref().is_some_and(|before| membership_of(before) == MembershipState::Join)
}

/// Who is to be told of: the log's reader leaves that behind, so that nobody's presence holds the log up.
#[derive(Default)]
pub(super) struct Errands {
    /// Users whose presence has changed, with its place.
    changed: Mutex<HashMap<OwnedUserId, Position>>,
    rung: Notify,
}

impl Errands {
    /// Has everybody woken who shares a room with a user, and the user, for what was written at a place.
    pub(super) fn leave(&self, user_id: &UserId, at: Position) {
        let mut changed = self.changed.lock();
        let place = changed.entry(user_id.to_owned()).or_insert(at);
        *place = at.max(*place);
        drop(changed);
        self.rung.notify_one();
    }
}

/// Those who are to be woken, by their address, each with the place up to which they have something to hear.
#[derive(Default)]
struct Crowd {
    watchers: BTreeMap<usize, (Arc<Watcher>, Position)>,
    /// Who was woken last: whoever waits longest comes first.
    last: usize,
}

impl Crowd {
    fn add(&mut self, watcher: &Arc<Watcher>, at: Position) {
        let known = self.watchers.entry(Arc::as_ptr(watcher).addr()).or_insert_with(|| (Arc::clone(watcher), at));
        known.1 = at.max(known.1);
    }

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
            if let Some((watcher, at)) = self.watchers.remove(&next) {
                watcher.wake(at);
            }
        }
    }
}

/// Wakes whoever is to hear of somebody's presence, until the server stops.
pub(crate) async fn wake_for_presence(db: Db, tail: Arc<Tail>, registry: Arc<Registry>, shutdown: Shutdown) {
    let mut crowd = Crowd::default();
    loop {
        let waits = crowd.watchers.is_empty();
        tokio::select! {
            () = shutdown.started() => return,
            () = registry.errands.rung.notified(), if waits => {}
            () = tokio::time::sleep(PAUSE), if !waits => {}
        }
        let changed = std::mem::take(&mut *registry.errands.changed.lock());
        let (mut concerned, mut unknown) = registry.find_neighbours(&changed);
        if !unknown.is_empty() {
            match look_up(&db, &tail, &registry, &unknown).await {
                Ok(()) => {
                    let (more, forgotten) = registry.find_neighbours(&unknown);
                    concerned.append(more);
                    unknown = forgotten;
                }
                Err(error) => {
                    tracing::warn!(%error, "could not find out whom somebody's presence concerns; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
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
        let mut snapshot = db.snapshot().await?;
        let position = store::log::last_position(&mut snapshot).await?;
        let joined = store::membership::list_joined_of(&mut snapshot, &names).await?;
        drop(snapshot);
        tail.reach(position).await;
        let mut rooms: HashMap<OwnedUserId, HashSet<OwnedRoomId>> = HashMap::new();
        for (user_id, room_id) in joined {
            rooms.entry(user_id).or_default().insert(room_id);
        }
        let introduced = tail.catch_up(position, |missed| {
            for user_id in users.keys() {
                registry.introduce(user_id, rooms.remove(user_id).unwrap_or_default());
            }
            for batch in missed {
                registry.follow_strangers(batch);
            }
        });
        if introduced.is_some() {
            return Ok(());
        }
    }
}

impl Registry {
    /// A user who is not connected to this node is in these rooms.
    fn introduce(&self, user_id: &UserId, rooms: HashSet<OwnedRoomId>) {
        let mut index = self.index.write();
        if !index.users.contains_key(user_id) {
            index.strangers.add(user_id.to_owned(), rooms);
        }
    }

    /// Everybody who shares a room with one of these users, and the users; and those whose rooms are not in memory.
    fn find_neighbours(&self, changed: &HashMap<OwnedUserId, Position>) -> (Crowd, HashMap<OwnedUserId, Position>) {
        let (mut crowd, mut unknown) = (Crowd::default(), HashMap::new());
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

    /// Who has joined a room after a place. None if that is not remembered.
    pub(super) fn newcomers(&self, room_id: &RoomId, after: Position) -> Option<Vec<OwnedUserId>> {
        self.index.read().rooms.get(room_id)?.newcomers.since(after)
    }
}
