//! Who is typing, in memory: everybody who has not stopped, in every room.
//!
//! Who types in a room is small, so each room is kept whole, with the position of its last change: a client whose token
//! is before that gets all of it.

use std::collections::{BTreeMap, HashMap};

use parking_lot::RwLock;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState,
};
use tokio::sync::Notify;

use crate::{
    event::{
        Logged,
        fact::{Batch, News, Typing},
    },
    ground::{
        position::Position,
        sizes::CacheSizes,
        weighed::{CacheWeight, Load, Weighed},
    },
    log::Reader,
    store::membership::MembershipRow,
};

/// What a room takes beside its identifier and its typists, and one of these beside their name, in bytes.
const ROOM_BYTES: usize = 256;
const TYPIST_BYTES: usize = 64;

/// Who is typing where. It follows the log.
pub struct TypingCache {
    cached: RwLock<CachedTypists>,
    /// Rung when somebody begins to type.
    begun: Notify,
}

struct CachedTypists {
    rooms: HashMap<OwnedRoomId, RoomTypists>,
    /// What they take.
    load: Load,
    /// Everything up to here was part of what was read from the database.
    loaded: Position,
    /// Where a room is not here, nobody has typed in it after this, as long as this node has followed the log.
    blank_after: Position,
}

/// The typists of one room, each until when.
#[derive(Default)]
struct RoomTypists {
    typists: BTreeMap<OwnedUserId, MilliSecondsSinceUnixEpoch>,
    /// When somebody last began or stopped.
    changed: Position,
}

/// What the cache knows of a room since some place in the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TypingSince {
    Unchanged,
    /// These have begun and not stopped.
    Changed(Vec<OwnedUserId>),
    /// That was before this node began to follow the log. Nobody is typing now.
    Unknown,
}

impl Weighed for TypingCache {
    fn weight(&self) -> CacheWeight {
        self.cached.read().load.weight("typing")
    }
}

/// What a room takes in which nobody types, in bytes.
fn bytes_of(room_id: &RoomId) -> u64 {
    (ROOM_BYTES + room_id.as_str().len()) as u64
}

impl RoomTypists {
    /// What they take, in bytes.
    fn bytes(&self) -> u64 {
        self.typists.keys().map(|user_id| (TYPIST_BYTES + user_id.as_str().len()) as u64).sum()
    }

    fn apply(&mut self, at: Position, typing: &Typing) {
        let changed = match typing.until {
            // Somebody who goes on typing is no news.
            Some(until) => self.typists.insert(typing.user_id.clone(), until).is_none(),
            None => self.typists.remove(&typing.user_id).is_some(),
        };
        if changed {
            self.changed = at;
        }
    }
}

impl CachedTypists {
    /// What was read from the database holds these entries already.
    fn apply(&mut self, at: Position, typing: &Typing) {
        if at <= self.loaded {
            return;
        }
        match self.rooms.get_mut(&typing.room_id) {
            Some(in_room) => {
                let before = in_room.bytes();
                in_room.apply(at, typing);
                self.load.bytes = self.load.bytes + in_room.bytes() - before;
            }
            None if typing.until.is_some() => {
                let mut in_room = RoomTypists::default();
                in_room.apply(at, typing);
                self.load.bytes += bytes_of(&typing.room_id) + in_room.bytes();
                self.rooms.insert(typing.room_id.clone(), in_room);
                self.keep_few(at);
            }
            // A room in which nobody types need not be remembered for somebody who stops.
            None => {}
        }
    }

    /// Whoever is in a room no more does not type there, either.
    fn follow(&mut self, at: Position, logged: &Logged) {
        let room_id = logged.stored.pdu.room_id();
        for membership in logged.changes.iter().filter_map(|change| MembershipRow::of(change, room_id, at)) {
            if membership.state != MembershipState::Join {
                let (room_id, user_id) = (room_id.to_owned(), membership.user_id.to_owned());
                self.apply(at, &Typing { room_id, user_id, until: None });
            }
        }
    }

    /// Takes an entry of the log.
    fn read(&mut self, at: Position, news: &News) {
        match news {
            News::Typing(typing) => self.apply(at, typing),
            News::Event(logged) => self.follow(at, logged),
            _ => {}
        }
    }

    /// Forgets rooms where they take too much. Those in which somebody types stay: nobody goes on doing so for long.
    fn keep_few(&mut self, at: Position) {
        if self.load.is_due() {
            self.rooms.retain(|_, in_room| !in_room.typists.is_empty());
            let left = self.rooms.iter().map(|(room_id, in_room)| bytes_of(room_id) + in_room.bytes());
            self.load.looked_through(left.sum());
            self.blank_after = at;
        }
    }

    fn new(limit: u64) -> Self {
        Self {
            rooms: HashMap::new(),
            load: Load::new(limit),
            loaded: Position::default(),
            blank_after: Position::default(),
        }
    }
}

impl Reader for TypingCache {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            let concerns = match news {
                News::Typing(_) => true,
                News::Event(logged) => !logged.changes.is_empty(),
                _ => false,
            };
            if !concerns {
                continue;
            }
            self.cached.write().read(at, news);
            // The task that ends it sleeps as long as nobody types.
            if matches!(news, News::Typing(typing) if typing.until.is_some()) {
                self.begun.notify_one();
            }
        }
    }
}

impl TypingCache {
    pub(in crate::ephemeral) fn new(sizes: &CacheSizes) -> Self {
        let cached = RwLock::new(CachedTypists::new(sizes.typing));
        Self { cached, begun: Notify::default() }
    }

    /// Takes those who were typing at `position`, as the database had it, and what has happened since.
    pub(super) fn load(&self, position: Position, typists: &[(Position, Typing)], missed: &[std::sync::Arc<Batch>]) {
        // What is forgotten stays forgotten, also where this replaces it.
        let (blank_after, limit) = {
            let cached = self.cached.read();
            (cached.blank_after, cached.load.limit())
        };
        let mut cached = CachedTypists { blank_after, ..CachedTypists::new(limit) };
        for (at, typing) in typists {
            cached.apply(*at, typing);
        }
        cached.loaded = position;
        for (at, news) in missed.iter().flat_map(|batch| batch.entries()) {
            cached.read(at, news);
        }
        *self.cached.write() = cached;
        self.begun.notify_one();
    }

    /// Who types in a room, if that has changed after `after`, up to `until`. Those whose time is up by `now` have
    /// stopped, though the log does not say so yet. This node has followed the log since `began`.
    pub(super) fn since(
        &self,
        room_id: &RoomId,
        (after, until): (Position, Position),
        now: MilliSecondsSinceUnixEpoch,
        began: Position,
    ) -> TypingSince {
        let cached = self.cached.read();
        // Before this node began, somebody may have stopped of whom there is no trace here.
        let is_recent = after >= began.max(cached.blank_after);
        let Some(in_room) = cached.rooms.get(room_id) else {
            return if is_recent || after == Position::START { TypingSince::Unchanged } else { TypingSince::Unknown };
        };
        if in_room.changed > until || (is_recent && in_room.changed <= after) {
            return TypingSince::Unchanged;
        }
        let typists: Vec<_> =
            in_room.typists.iter().filter(|(_, until)| **until > now).map(|(user, _)| user.clone()).collect();
        if typists.is_empty() && after == Position::START {
            TypingSince::Unchanged
        } else {
            TypingSince::Changed(typists)
        }
    }

    /// Until when somebody types in a room, as the log has it.
    pub(super) fn find(&self, room_id: &RoomId, user_id: &UserId) -> Option<MilliSecondsSinceUnixEpoch> {
        self.cached.read().rooms.get(room_id)?.typists.get(user_id).copied()
    }

    /// Those whose time is up by then.
    pub(super) fn list_due(&self, by: MilliSecondsSinceUnixEpoch) -> Vec<Typing> {
        let cached = self.cached.read();
        let typists =
            cached.rooms.iter().flat_map(|(room, in_room)| in_room.typists.iter().map(move |entry| (room, entry)));
        let due = typists.filter(|(_, (_, until))| **until <= by).map(|(room_id, (user_id, until))| Typing {
            room_id: room_id.clone(),
            user_id: user_id.clone(),
            until: Some(*until),
        });
        due.collect()
    }

    /// When the next one's time is up, if anybody is typing.
    pub(super) fn find_next_expiry(&self) -> Option<MilliSecondsSinceUnixEpoch> {
        self.cached.read().rooms.values().flat_map(|in_room| in_room.typists.values()).min().copied()
    }

    /// Returns when somebody has begun to type.
    pub(super) async fn begun(&self) {
        self.begun.notified().await;
    }
}
