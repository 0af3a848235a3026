//! Who is to hear of somebody's presence: everybody who shares a room with them.
//!
//! The rooms of those who are connected to this node are known. Of others, who are connected to another node or have not
//! asked for anything yet, they are read when something is said of them ([`wake_for_presence`]), and follow the log from
//! then on. Many neighbours are woken one group after the other, so that whoever comes online in a room of ten thousand
//! costs the others a moment, and no more than that however many come.

use std::{
    collections::{HashMap, HashSet, VecDeque},
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
pub(super) fn was_in(logged: &Logged, user_id: &UserId) -> bool {
    let own = logged.stored.pdu.state_key() == Some(user_id.as_str());
    own && logged.stored.replaces.as_ref().is_some_and(|before| membership_of(before) == MembershipState::Join)
}

/// What is left to do for those whose presence has changed.
#[derive(Default)]
pub(super) struct Errands {
    /// Users whose neighbours are to be found, with the place of what is to be told of them.
    unknown: Mutex<HashMap<OwnedUserId, Position>>,
    /// Who is to be woken one after the other, by their address.
    crowd: Mutex<HashMap<usize, (Arc<Watcher>, Position)>>,
    rung: Notify,
}

impl Errands {
    /// Wakes the neighbours of a user for what was written at a place.
    pub(super) fn wake(&self, neighbours: &[&Arc<Watcher>], at: Position) {
        if neighbours.len() <= FEW {
            for watcher in neighbours {
                watcher.wake(at);
            }
            return;
        }
        let mut crowd = self.crowd.lock();
        for watcher in neighbours {
            let known = crowd.entry(Arc::as_ptr(watcher).addr()).or_insert_with(|| (Arc::clone(watcher), at));
            known.1 = known.1.max(at);
        }
        drop(crowd);
        self.rung.notify_one();
    }

    /// Has the neighbours of a user found and woken.
    pub(super) fn look_up(&self, user_id: &UserId, at: Position) {
        let mut unknown = self.unknown.lock();
        let place = unknown.entry(user_id.to_owned()).or_insert(at);
        *place = at.max(*place);
        drop(unknown);
        self.rung.notify_one();
    }
}

/// Wakes those whom the log's reader leaves to be woken for somebody's presence, until the server stops.
pub(crate) async fn wake_for_presence(db: Db, tail: Arc<Tail>, registry: Arc<Registry>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.started() => return,
            () = registry.errands.rung.notified() => {}
        }
        if let Err(error) = look_up(&db, &tail, &registry).await {
            tracing::warn!(%error, "could not find out whom somebody's presence concerns; trying again");
            tokio::time::sleep(RETRY).await;
            registry.errands.rung.notify_one();
        }
        let crowd: Vec<_> = std::mem::take(&mut *registry.errands.crowd.lock()).into_values().collect();
        for group in crowd.chunks(GROUP) {
            for (watcher, at) in group {
                watcher.wake(*at);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Makes those known whose neighbours are to be found, and wakes these.
async fn look_up(db: &Db, tail: &Tail, registry: &Registry) -> Result<()> {
    loop {
        let unknown = registry.errands.unknown.lock().clone();
        if unknown.is_empty() {
            return Ok(());
        }
        let users: Vec<&UserId> = unknown.keys().map(|user_id| &**user_id).collect();
        let mut snapshot = db.snapshot().await?;
        let position = store::log::last_position(&mut snapshot).await?;
        let joined = store::membership::list_joined_of(&mut snapshot, &users).await?;
        drop(snapshot);
        tail.reach(position).await;
        let mut rooms: HashMap<OwnedUserId, HashSet<OwnedRoomId>> = HashMap::new();
        for (user_id, room_id) in joined {
            rooms.entry(user_id).or_default().insert(room_id);
        }
        let introduced = tail.catch_up(position, |missed| {
            for user_id in unknown.keys() {
                registry.introduce(user_id, rooms.remove(user_id).unwrap_or_default());
            }
            for batch in missed {
                registry.follow_strangers(batch);
            }
        });
        if introduced.is_none() {
            continue;
        }
        // What has come meanwhile is done in another round.
        registry.errands.unknown.lock().retain(|user_id, at| unknown.get(user_id) != Some(at));
        for (user_id, at) in unknown {
            registry.wake_neighbours(&user_id, at);
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

    /// Wakes everybody who shares a room with a user, and the user, for what was written at a place; sooner or later.
    pub(super) fn wake_neighbours(&self, user_id: &UserId, at: Position) {
        let index = self.index.read();
        match index.neighbours(user_id) {
            Some(neighbours) => self.errands.wake(&neighbours, at),
            None => self.errands.look_up(user_id, at),
        }
    }

    /// Who has joined a room after a place. None if that is not remembered.
    pub(super) fn newcomers(&self, room_id: &RoomId, after: Position) -> Option<Vec<OwnedUserId>> {
        self.index.read().rooms.get(room_id)?.newcomers.since(after)
    }
}
