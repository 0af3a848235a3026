//! Who is connected, which rooms they are in, and how they are woken: what follows the log. [`super::watchers`] asks it.
//!
//! A connected user's memberships are in memory and follow the log, and every room that somebody watches has
//! a pulse: the place of the last thing that happened there. A `/sync` that has nothing new is answered, or
//! kept waiting, without a look at the database.
//!
//! Entries of the log are read by [`Registry::read`], which brings memberships and pulses up to date, and only when
//! every reader has read the batch does [`Registry::wake`] wake anybody: so whoever is woken finds everything. A pulse
//! is shared by all who are in a room and moved once for each entry, so a message in a large room costs no more than in
//! a small one; only those who wait now are woken one by one.
//!
//! Lock order: `index`, then a watcher's `rooms`, then its `outside`. None is held over an `await`.

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

use super::{
    recent_moves::RecentMoves,
    turns::Turns,
    unconnected::{NeighbourWakeUps, UnconnectedUsers},
    watcher::{Pulse, WatchedMembership, Watcher, membership_bytes, watches},
};
use crate::{
    ephemeral::presence,
    event::{
        Logged,
        fact::{Audience, Batch, News},
    },
    ground::{
        position::Position,
        sizes::CacheSizes,
        weighed::{CacheWeight, Load, Weighed},
    },
    log::Reader,
    store::{self, membership::RoomMembership, outside_membership::OutsideStanding},
};

/// What a room takes beside its name, in bytes.
const ROOM_BYTES: usize = 384;
/// The key of the state that makes a room encrypted.
pub(super) const ENCRYPTION: (&str, &str) = ("m.room.encryption", "");

/// The part that follows the log.
pub(crate) struct Registry {
    pub(super) index: RwLock<Index>,
    /// Read before this: it knows whether somebody's presence is news.
    presence: Arc<presence::PresenceCache>,
    pub(super) errands: NeighbourWakeUps,
}

pub(super) struct Index {
    /// What the connected and their rooms take. Beyond the limit those who are not waiting are dropped.
    load: Load,
    /// Whoever has asked since the node was started, or since they were dropped.
    pub(super) users: HashMap<OwnedUserId, Arc<Watcher>>,
    /// The rooms that these are or were in.
    pub(super) rooms: HashMap<OwnedRoomId, WatchedRoom>,
    /// Of whose presence or devices somebody has to hear.
    pub(super) strangers: UnconnectedUsers,
    /// Wakes those who look at a room from outside. None of them need be in it: whoever may read a room may wait for
    /// what is said there.
    pub(super) onlookers: HashMap<OwnedRoomId, watch::Sender<Position>>,
}

/// A room that somebody who is connected is or was in.
pub(super) struct WatchedRoom {
    pulse: Arc<Pulse>,
    /// Those who are in it, invited or knocking.
    pub(super) users: Vec<Arc<Watcher>>,
    /// Who has come and gone since the room is watched.
    pub(super) moves: RecentMoves,
}

impl WatchedRoom {
    fn new(pulse: Arc<Pulse>) -> Self {
        let moves = RecentMoves::new(pulse.last());
        Self { pulse, users: Vec::new(), moves }
    }
}

impl Index {
    /// Puts a user among the connected. Another request may have been faster: then theirs is the watcher.
    fn register(
        &mut self,
        user_id: &UserId,
        (memberships, outside): (Vec<RoomMembership>, Vec<(OwnedRoomId, OutsideStanding)>),
        position: Position,
    ) -> Arc<Watcher> {
        if let Some(known) = self.users.get(user_id) {
            return Arc::clone(known);
        }
        if self.load.is_due() {
            self.drop_idle();
        }
        let watcher = Arc::new(Watcher {
            user_id: user_id.to_owned(),
            rooms: RwLock::default(),
            outside: RwLock::new(outside.into_iter().collect()),
            wake: watch::Sender::new(position),
            turns: Turns::default(),
            used: AtomicU64::new(position.0.unsigned_abs()),
        });
        self.load.bytes += watcher.bytes();
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
        let bytes = &mut self.load.bytes;
        let room = self.rooms.entry(room_id.to_owned()).or_insert_with(|| {
            *bytes += (ROOM_BYTES + room_id.as_str().len()) as u64;
            WatchedRoom::new(pulse())
        });
        let watching = room.users.iter().position(|user| Arc::ptr_eq(user, watcher));
        match (watches(&membership), watching) {
            (true, None) => room.users.push(Arc::clone(watcher)),
            (false, Some(index)) => drop(room.users.swap_remove(index)),
            _ => {}
        }
        let pulse = Arc::clone(&room.pulse);
        let mut rooms = watcher.rooms.write();
        let same = rooms.get(room_id).filter(|before| before.state == membership);
        let entered = same.map_or(position, |before| before.entered);
        let membership = WatchedMembership { state: membership, position, entered, forgotten, pulse };
        if rooms.insert(room_id.to_owned(), membership).is_none() {
            self.load.bytes += membership_bytes(room_id);
        }
    }

    /// Drops those who asked longest ago and are neither waiting now nor in some request's hand, until a
    /// tenth of the limit is free.
    fn drop_idle(&mut self) {
        let mut idle: Vec<(u64, OwnedUserId)> = self
            .users
            .iter()
            .filter(|(_, watcher)| watcher.wake.receiver_count() == 0 && !watcher.is_held())
            .map(|(user_id, watcher)| (watcher.used.load(Ordering::Relaxed), user_id.clone()))
            .collect();
        idle.sort();
        for (_, user_id) in idle {
            if self.load.has_room() {
                break;
            }
            let dropped = self.users.remove(&user_id).map_or(0, |watcher| watcher.bytes());
            self.load.bytes = self.load.bytes.saturating_sub(dropped);
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
        self.weigh();
    }

    /// Weighs everything anew, and looks again only when there is more to drop.
    fn weigh(&mut self) {
        let rooms =
            self.rooms.iter().map(|(room_id, room)| (ROOM_BYTES + room_id.as_str().len()) as u64 + room.moves.bytes());
        let bytes = rooms.chain(self.users.values().map(|watcher| watcher.bytes())).sum();
        self.load.looked_through(bytes);
    }

    /// Of nobody yet.
    fn new(sizes: &CacheSizes) -> Self {
        Self {
            load: Load::new(sizes.connected),
            users: HashMap::new(),
            rooms: HashMap::new(),
            strangers: UnconnectedUsers::new(sizes.strangers),
            onlookers: HashMap::new(),
        }
    }
}

/// The connected, of whom the registry keeps what it knows.
impl Weighed for Registry {
    fn weight(&self) -> CacheWeight {
        self.index.read().load.weight("connected")
    }
}

/// Those beside them who are not connected.
pub(crate) struct Strangers(pub(crate) Arc<Registry>);

impl Weighed for Strangers {
    fn weight(&self) -> CacheWeight {
        self.0.index.read().strangers.weight()
    }
}

impl Reader for Registry {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            if changes_index(news) {
                self.index.write().follow(news, at);
            } else if let Some(room_id) = news.room_id() {
                self.index.read().touch(room_id, at);
            }
        }
    }

    fn wake(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            match news {
                News::Presence(presence) if self.presence.is_news(at) => self.errands.leave(&presence.user_id, at),
                // What one user alone is shown wakes only them, below.
                News::DeviceList(change) if change.seen_by.is_none() => self.errands.leave(&change.user_id, at),
                _ => {}
            }
        }
        let index = self.index.read();
        let mut woken: HashMap<*const Watcher, (&Arc<Watcher>, Position)> = HashMap::new();
        for (at, news) in batch.entries() {
            for watcher in index.concerned(news) {
                woken.insert(Arc::as_ptr(watcher), (watcher, at));
            }
            if let News::Event(logged) = news {
                index.wake_room_watchers(logged.stored.pdu.room_id(), at);
            }
        }
        for (watcher, at) in woken.into_values() {
            watcher.wake(at);
        }
    }
}

impl Index {
    /// Whom an entry concerns, of those who are connected. What concerns everybody in a room reaches those who are in
    /// it, invited or knocking.
    fn concerned(&self, news: &News) -> Vec<&Arc<Watcher>> {
        let user = |user_id: &UserId| self.users.get(user_id);
        let mut concerned: Vec<_> = match news.audience() {
            Audience::Nobody => Vec::new(),
            Audience::User(user_id) => user(user_id).into_iter().collect(),
            Audience::Room(room_id) => self.rooms.get(room_id).into_iter().flat_map(|room| &room.users).collect(),
        };
        if let News::Event(logged) = news {
            let room_id = logged.stored.pdu.room_id();
            // Whoever has just left is not in the room any more.
            concerned.extend(
                logged.changes.iter().filter_map(|change| {
                    user(store::membership::MembershipRow::of(change, room_id, logged.at)?.user_id)
                }),
            );
        }
        concerned
    }

    /// What an entry says of who is where, and that something has happened.
    fn follow(&mut self, news: &News, at: Position) {
        match news {
            News::Event(logged) => {
                self.follow_memberships(logged, at);
                self.touch(logged.stored.pdu.room_id(), at);
            }
            News::Forgotten(forgotten) => {
                if let Some(watcher) = self.users.get(&forgotten.user_id) {
                    watcher.forget(&forgotten.room_id, at);
                }
            }
            News::OutsideMembership(membership) => {
                if let Some(watcher) = self.users.get(&membership.user_id)
                    && watcher.follow_outside(membership, at)
                {
                    self.load.bytes += membership_bytes(&membership.room_id);
                }
            }
            _ => {
                if let Some(room_id) = news.room_id() {
                    self.touch(room_id, at);
                }
            }
        }
    }

    /// Something has happened in a room.
    fn touch(&self, room_id: &RoomId, at: Position) {
        if let Some(room) = self.rooms.get(room_id) {
            room.pulse.0.fetch_max(at.0, Ordering::AcqRel);
        }
    }

    /// Changes of membership, and of what makes a room encrypted.
    fn follow_memberships(&mut self, logged: &Logged, at: Position) {
        let room_id = logged.stored.pdu.room_id();
        if logged.is_entry() {
            self.strangers.forget_all();
        }
        for change in &logged.changes {
            if (change.kind.as_str(), change.state_key.as_str()) == ENCRYPTION
                && let Some(room) = self.rooms.get_mut(room_id)
            {
                room.moves.follow_encryption(at);
            }
            let Some(row) = store::membership::MembershipRow::of(change, room_id, at) else { continue };
            self.strangers.follow(&row);
            if let Some(room) = self.rooms.get_mut(room_id) {
                let before = room.moves.bytes();
                room.moves.follow(logged, &row);
                self.load.bytes = (self.load.bytes + room.moves.bytes()).saturating_sub(before);
            }
            let Some(watcher) = self.users.get(row.user_id).cloned() else { continue };
            let known = watcher.membership(room_id);
            // One that the watcher was registered with is not news.
            if known.as_ref().is_none_or(|known| known.position < at) {
                let outside = matches!(row.state, MembershipState::Leave | MembershipState::Ban);
                let forgotten = outside && known.is_some_and(|known| known.forgotten);
                self.enter(&watcher, room_id, (row.state, at, forgotten), at);
            }
        }
    }

    /// Wakes whoever looks at a room from outside.
    fn wake_room_watchers(&self, room_id: &RoomId, at: Position) {
        if let Some(onlookers) = self.onlookers.get(room_id) {
            onlookers.send_replace(at);
        }
    }
}

impl Registry {
    /// `presence` has to follow the log before this does.
    pub(crate) fn new(presence: Arc<presence::PresenceCache>, sizes: &CacheSizes) -> Self {
        Self { index: RwLock::new(Index::new(sizes)), presence, errands: NeighbourWakeUps::default() }
    }

    /// A user who was read from the database at a place becomes a watcher, and is seen by others only with what has come
    /// since. Called while the log stands still.
    pub(super) fn register(
        &self,
        user_id: &UserId,
        rows: (Vec<RoomMembership>, Vec<(OwnedRoomId, OutsideStanding)>),
        (position, missed): (Position, &[Arc<Batch>]),
    ) -> Arc<Watcher> {
        let mut index = self.index.write();
        let watcher = index.register(user_id, rows, position);
        for (at, news) in missed.iter().flat_map(|batch| batch.entries()) {
            index.follow(news, at);
        }
        drop(index);
        // Whom these concern was woken before the watcher was there. Who is woken in vain looks once more.
        if let Some(last) = missed.last() {
            watcher.wake(last.last);
        }
        watcher
    }

    /// Users who are not connected to this node were in these rooms at a place, and what has come since is missed. Called
    /// while the log stands still. Nobody becomes known where this server has come into a room since, whose members the
    /// log does not name.
    pub(super) fn introduce(&self, users: HashMap<OwnedUserId, HashSet<OwnedRoomId>>, missed: &[Arc<Batch>]) {
        let is_entry = |news: &News| matches!(news, News::Event(logged) if logged.is_entry());
        if missed.iter().flat_map(|batch| batch.entries()).any(|(_, news)| is_entry(news)) {
            return;
        }
        let mut index = self.index.write();
        for (user_id, rooms) in users {
            if !index.users.contains_key(&user_id) {
                index.strangers.add(user_id, rooms);
            }
        }
        for (at, news) in missed.iter().flat_map(|batch| batch.entries()) {
            let News::Event(logged) = news else { continue };
            for change in &logged.changes {
                if let Some(row) = store::membership::MembershipRow::of(change, logged.stored.pdu.room_id(), at) {
                    index.strangers.follow(&row);
                }
            }
        }
    }
}

/// Whether an entry may change who is where, beside that something has happened in a room.
fn changes_index(news: &News) -> bool {
    match news {
        News::Event(logged) => !logged.changes.is_empty(),
        News::Forgotten(_) | News::OutsideMembership(_) => true,
        _ => false,
    }
}
