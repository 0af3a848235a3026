//! Who is connected, which rooms they are in, and how they are woken.
//!
//! A connected user's memberships are in memory and follow the log, and every room that somebody watches has
//! a pulse: the place of the last thing that happened there. A `/sync` that has nothing new is answered, or
//! kept waiting, without a look at the database.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};
use tokio::sync::watch;

use super::neighbours::{Errands, Newcomers, Strangers};
use crate::{
    db::Db,
    error::Result,
    event::Logged,
    fact::{Batch, News},
    log::{Reader, Tail},
    position::Position,
    presence,
    store::{self, membership::RoomMembership},
};

/// How many users are remembered; beyond it those that are not waiting are dropped.
const KEPT_USERS: usize = 50_000;

/// Everybody who is connected to this node.
pub(crate) struct Watchers {
    db: Db,
    tail: Arc<Tail>,
    registry: Arc<Registry>,
}

/// The part that follows the log.
pub(crate) struct Registry {
    pub(super) index: RwLock<Index>,
    /// Read before this: it knows whether somebody's presence is news.
    presence: Arc<presence::Book>,
    pub(super) errands: Errands,
}

#[derive(Default)]
pub(super) struct Index {
    pub(super) users: HashMap<OwnedUserId, Arc<Watcher>>,
    pub(super) rooms: HashMap<OwnedRoomId, WatchedRoom>,
    pub(super) strangers: Strangers,
    /// Wakes those who look at a room from outside.
    onlookers: HashMap<OwnedRoomId, watch::Sender<Position>>,
}

pub(super) struct WatchedRoom {
    pulse: Arc<Pulse>,
    pub(super) users: Vec<Arc<Watcher>>,
    pub(super) newcomers: Newcomers,
}

/// When something last happened in a room.
#[derive(Debug)]
pub(crate) struct Pulse(AtomicI64);

impl Pulse {
    pub(crate) fn last(&self) -> Position {
        Position(self.0.load(Ordering::Acquire))
    }
}

/// A connected user.
pub(crate) struct Watcher {
    user_id: OwnedUserId,
    rooms: RwLock<HashMap<OwnedRoomId, Membership>>,
    /// The place of the last thing that concerns the user.
    wake: watch::Sender<Position>,
    /// When a `/sync` last asked, as a count of lookups, for dropping the least recent.
    used: AtomicU64,
}

/// A user's membership of a room, with the room's pulse.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    pub(crate) state: MembershipState,
    /// Where the trunk got it.
    pub(crate) position: Position,
    /// Where the user has come to be what they are: not after `position`, which follows their profile as well.
    pub(crate) entered: Position,
    pub(crate) forgotten: bool,
    pub(crate) pulse: Arc<Pulse>,
}

impl WatchedRoom {
    fn new(pulse: Arc<Pulse>) -> Self {
        let newcomers = Newcomers::new(pulse.last());
        Self { pulse, users: Vec::new(), newcomers }
    }
}

impl Watcher {
    /// Every room that the user is or was in.
    pub(crate) fn rooms(&self) -> Vec<(OwnedRoomId, Membership)> {
        self.rooms.read().iter().map(|(room_id, membership)| (room_id.clone(), membership.clone())).collect()
    }

    /// The user's membership of one room.
    pub(crate) fn membership(&self, room_id: &RoomId) -> Option<Membership> {
        self.rooms.read().get(room_id).cloned()
    }

    /// The rooms that the user is in.
    pub(super) fn joined_rooms(&self) -> Vec<OwnedRoomId> {
        let rooms = self.rooms.read();
        let joined = rooms.iter().filter(|(_, membership)| membership.state == MembershipState::Join);
        joined.map(|(room_id, _)| room_id.clone()).collect()
    }

    /// The rooms that may hold something after `since`: where something happened, or the membership changed.
    pub(crate) fn changed_rooms(&self, since: Position) -> Vec<(OwnedRoomId, Membership)> {
        self.rooms
            .read()
            .iter()
            .filter(|(_, membership)| membership.pulse.last() > since || membership.position > since)
            .map(|(room_id, membership)| (room_id.clone(), membership.clone()))
            .collect()
    }

    /// The place of the last thing that concerns the user, and a notice of every later one.
    pub(crate) fn wakes(&self) -> watch::Receiver<Position> {
        self.wake.subscribe()
    }

    pub(super) fn wake(&self, at: Position) {
        self.wake.send_if_modified(|last| {
            let later = at > *last;
            if later {
                *last = at;
            }
            later
        });
    }
}

impl Watchers {
    pub(crate) fn new(db: Db, tail: Arc<Tail>, registry: Arc<Registry>) -> Self {
        Self { db, tail, registry }
    }

    /// The user as a watcher: remembered, or read from the database and from then on following the log.
    pub(crate) async fn watcher(&self, user_id: &UserId) -> Result<Arc<Watcher>> {
        loop {
            let known = self.registry.index.read().users.get(user_id).cloned();
            if let Some(watcher) = known {
                watcher.used.store(self.tail.reached().0.unsigned_abs(), Ordering::Relaxed);
                return Ok(watcher);
            }
            let mut snapshot = self.db.snapshot().await?;
            let position = store::log::last_position(&mut snapshot).await?;
            let memberships = store::membership::list_of_user(&mut snapshot, user_id).await?;
            drop(snapshot);
            self.tail.reach(position).await;
            let registered = self.tail.catch_up(position, |missed| {
                let watcher = self.registry.index.write().register(user_id, memberships, position);
                for batch in missed {
                    self.registry.read(batch);
                }
                watcher
            });
            if let Some(watcher) = registered {
                return Ok(watcher);
            }
        }
    }

    /// A notice of every later event in a room, for somebody who need not be in it. What came before is what the node
    /// has read by then: it reads first and wakes afterwards.
    pub(crate) fn onlook(&self, room_id: &RoomId) -> watch::Receiver<Position> {
        let mut index = self.registry.index.write();
        index.onlookers.retain(|_, onlookers| onlookers.receiver_count() > 0);
        index.onlookers.entry(room_id.to_owned()).or_default().subscribe()
    }

    /// Whether a watcher shares a room with a user. None where that is not in memory.
    pub(crate) fn share_room(&self, watcher: &Watcher, user_id: &UserId) -> Option<bool> {
        if watcher.user_id == user_id {
            return Some(true);
        }
        let index = self.registry.index.read();
        let joined = |membership: &Membership| membership.state == MembershipState::Join;
        let mine = watcher.rooms.read();
        let mut mine = mine.iter().filter(|(_, own)| joined(own)).map(|(room_id, _)| room_id);
        if let Some(other) = index.users.get(user_id) {
            let theirs = other.rooms.read();
            return Some(mine.any(|room_id| theirs.get(room_id).is_some_and(joined)));
        }
        let theirs = index.strangers.rooms(user_id)?;
        Some(mine.any(|room_id| theirs.contains(room_id)))
    }

    /// Those of some users who share a room with a watcher, from the database.
    pub(crate) async fn look_up_sharing(
        &self,
        watcher: &Watcher,
        users: &[OwnedUserId],
    ) -> Result<HashSet<OwnedUserId>> {
        let users: Vec<&UserId> = users.iter().map(|user_id| &**user_id).collect();
        let mut conn = self.db.read().await?;
        Ok(store::membership::list_sharing(&mut conn, &watcher.user_id, &users).await?.into_iter().collect())
    }

    /// Who has joined a room after a place. None if that is not remembered.
    pub(crate) fn newcomers(&self, room_id: &RoomId, after: Position) -> Option<Vec<OwnedUserId>> {
        self.registry.newcomers(room_id, after)
    }
}

impl Index {
    fn register(&mut self, user_id: &UserId, memberships: Vec<RoomMembership>, position: Position) -> Arc<Watcher> {
        if let Some(known) = self.users.get(user_id) {
            return Arc::clone(known);
        }
        if self.users.len() >= KEPT_USERS {
            self.drop_idle();
        }
        let watcher = Arc::new(Watcher {
            user_id: user_id.to_owned(),
            rooms: RwLock::default(),
            wake: watch::Sender::new(position),
            used: AtomicU64::new(position.0.unsigned_abs()),
        });
        self.users.insert(user_id.to_owned(), Arc::clone(&watcher));
        self.strangers.remove(user_id);
        for row in memberships {
            let membership = (row.membership, row.position, row.forgotten);
            self.enter(&watcher, &row.room_id, membership, position);
        }
        watcher
    }

    /// Records a membership. A room's pulse starts at `now`: it may have changed at any time before.
    fn enter(
        &mut self,
        watcher: &Arc<Watcher>,
        room_id: &RoomId,
        (membership, position, forgotten): (MembershipState, Position, bool),
        now: Position,
    ) {
        let pulse = || Arc::new(Pulse(AtomicI64::new(now.0)));
        let room = self.rooms.entry(room_id.to_owned()).or_insert_with(|| WatchedRoom::new(pulse()));
        let watches = matches!(membership, MembershipState::Join | MembershipState::Invite | MembershipState::Knock);
        let watching = room.users.iter().position(|user| Arc::ptr_eq(user, watcher));
        match (watches, watching) {
            (true, None) => room.users.push(Arc::clone(watcher)),
            (false, Some(index)) => drop(room.users.swap_remove(index)),
            _ => {}
        }
        let pulse = Arc::clone(&room.pulse);
        let mut rooms = watcher.rooms.write();
        let same = rooms.get(room_id).filter(|before| before.state == membership);
        let entered = same.map_or(position, |before| before.entered);
        let membership = Membership { state: membership, position, entered, forgotten, pulse };
        rooms.insert(room_id.to_owned(), membership);
    }

    /// Drops the tenth of the users who asked longest ago and are not waiting now.
    fn drop_idle(&mut self) {
        let mut idle: Vec<(u64, OwnedUserId)> = self
            .users
            .iter()
            .filter(|(_, watcher)| watcher.wake.receiver_count() == 0)
            .map(|(user_id, watcher)| (watcher.used.load(Ordering::Relaxed), user_id.clone()))
            .collect();
        idle.sort();
        for (_, user_id) in idle.into_iter().take(KEPT_USERS / 10) {
            self.users.remove(&user_id);
        }
        let users = &self.users;
        self.rooms.retain(|_, room| {
            room.users.retain(|user| users.contains_key(&user.user_id));
            !room.users.is_empty()
        });
        // Whoever stays keeps the pulse that the index keeps; others' rooms get a new one when they return.
        for watcher in self.users.values() {
            for (room_id, membership) in watcher.rooms.read().iter() {
                let pulse = || Arc::clone(&membership.pulse);
                self.rooms.entry(room_id.clone()).or_insert_with(|| WatchedRoom::new(pulse()));
            }
        }
    }
}

impl Reader for Registry {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            match news {
                News::Event(logged) => {
                    self.follow_memberships(logged, at);
                    self.stir(logged.stored.pdu.room_id(), at);
                }
                News::Forgotten { user_id, room_id } => {
                    let index = self.index.read();
                    if let Some(watcher) = index.users.get(user_id)
                        && let Some(membership) = watcher.rooms.write().get_mut(room_id)
                    {
                        membership.forgotten = true;
                    }
                }
                News::Receipt(_) | News::Typing(_) | News::AccountData(_) => {
                    if let Some(room_id) = news.room_id() {
                        self.stir(room_id, at);
                    }
                }
                News::Presence(_)
                | News::Devices { .. }
                | News::Erased { .. }
                | News::Listing { .. }
                | News::Superseded => {}
            }
        }
    }

    fn wake(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            if let News::Presence(presence) = news
                && self.presence.is_news(at)
            {
                self.errands.leave(&presence.user_id, at);
            }
        }
        let index = self.index.read();
        let mut woken: HashMap<*const Watcher, (&Arc<Watcher>, Position)> = HashMap::new();
        for (at, news) in batch.entries() {
            for watcher in index.concerned(news) {
                woken.insert(Arc::as_ptr(watcher), (watcher, at));
            }
            if let News::Event(logged) = news {
                index.wake_onlookers(logged.stored.pdu.room_id(), at);
            }
        }
        for (watcher, at) in woken.into_values() {
            watcher.wake(at);
        }
    }
}

impl Index {
    /// Whom an entry concerns, of those who are connected.
    fn concerned(&self, news: &News) -> Vec<&Arc<Watcher>> {
        let user = |user_id: &UserId| self.users.get(user_id);
        let room = |room_id: &RoomId| self.rooms.get(room_id).into_iter().flat_map(|room| &room.users);
        match news {
            News::Event(logged) => {
                let room_id = logged.stored.pdu.room_id();
                // Whoever has just left is not in the room any more.
                let members = logged.changes.iter().filter_map(|change| {
                    user(store::membership::Membership::of(change, room_id, logged.stored.position)?.user_id)
                });
                room(room_id).chain(members).collect()
            }
            News::Receipt(receipt) if receipt.receipt_type == "m.read.private" => {
                user(&receipt.user_id).into_iter().collect()
            }
            News::Receipt(receipt) => room(&receipt.room_id).collect(),
            News::Typing(typing) => room(&typing.room_id).collect(),
            News::AccountData(data) => user(&data.user_id).into_iter().collect(),
            // Whoever waits on a device that was logged out is to learn of it.
            News::Devices { user_id } => user(user_id).into_iter().collect(),
            News::Presence(_)
            | News::Forgotten { .. }
            | News::Erased { .. }
            | News::Listing { .. }
            | News::Superseded => Vec::new(),
        }
    }

    /// Wakes whoever looks at a room from outside.
    fn wake_onlookers(&self, room_id: &RoomId, at: Position) {
        if let Some(onlookers) = self.onlookers.get(room_id) {
            onlookers.send_replace(at);
        }
    }
}

impl Registry {
    /// `presence` has to follow the log before this does.
    pub(crate) fn new(presence: Arc<presence::Book>) -> Self {
        Self { index: RwLock::default(), presence, errands: Errands::default() }
    }

    /// Something has happened in a room.
    fn stir(&self, room_id: &RoomId, at: Position) {
        if let Some(room) = self.index.read().rooms.get(room_id) {
            room.pulse.0.fetch_max(at.0, Ordering::AcqRel);
        }
    }

    /// Changes of membership.
    fn follow_memberships(&self, logged: &Logged, at: Position) {
        let room_id = logged.stored.pdu.room_id();
        for change in &logged.changes {
            let Some(row) = store::membership::Membership::of(change, room_id, at) else { continue };
            let mut index = self.index.write();
            index.strangers.follow(&row);
            if let Some(room) = index.rooms.get_mut(room_id) {
                room.newcomers.follow(logged, &row);
            }
            let Some(watcher) = index.users.get(row.user_id).cloned() else { continue };
            let known = watcher.membership(room_id);
            // One that the watcher was registered with is not news.
            if known.as_ref().is_none_or(|known| known.position < at) {
                let outside = matches!(row.state, MembershipState::Leave | MembershipState::Ban);
                let forgotten = outside && known.is_some_and(|known| known.forgotten);
                index.enter(&watcher, room_id, (row.state, at, forgotten), at);
            }
        }
    }

    /// Changes of membership of those who are not connected, in a batch that the others have been told of.
    pub(super) fn follow_strangers(&self, batch: &Batch) {
        let mut index = self.index.write();
        for (at, news) in batch.entries() {
            let News::Event(logged) = news else { continue };
            for change in &logged.changes {
                if let Some(row) = store::membership::Membership::of(change, logged.stored.pdu.room_id(), at) {
                    index.strangers.follow(&row);
                }
            }
        }
    }
}
