//! The rooms in memory: a cache of views that follow the log. It weighs bytes; where they become too many, the rooms
//! that nobody has asked for longest are forgotten, and read again when somebody does. A room stays while somebody
//! holds it or a write is on its way into it.
//!
//! Lock order: `loading`, then `rooms`, then a room's view. None is held over an `await`. A room's pending head is
//! never waited for here, only tried: its holder may be waiting for a view.
//!
//! That a room in the cache misses nothing rests on two things: it is inserted while the log's tail stands still
//! ([`crate::log::Tail::catch_up`]), and it is only taken out by the reader of the log or with the tail standing still.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use ruma::{OwnedRoomId, RoomId, events::TimelineEventType};

use super::{erasures::Erasures, loads::RoomLoads, room::Room, state::State, view::View};
use crate::{
    event::{
        Pdu,
        fact::{AccountChange, Batch, News, RoomHead},
    },
    ground::{
        position::{Order, Position},
        weighed::{CacheWeight, Load, Weighed},
    },
    log::Reader,
    store::room::Lineage,
};

/// How many bytes the rooms in memory may take, unless somebody says otherwise.
const USUAL_BYTES: u64 = 256 * 1024 * 1024;

/// The rooms in memory, and whose words are redacted for whoever joins them later. They follow the log.
pub struct RoomCache {
    /// A room is taken out only while nobody holds it. So no room is ever in memory twice, with two locks.
    rooms: RwLock<HashMap<OwnedRoomId, Arc<Room>>>,
    /// How many bytes they take, about. Those in use stay, even beyond the limit.
    load: Mutex<Load>,
    /// Counts how often a room was asked for, to know which was asked for last.
    asked: AtomicU64,
    /// Which rooms are being read at this moment, and by whom.
    pub(in crate::room) loading: Mutex<RoomLoads>,
    /// Of all users, whatever rooms are in memory.
    pub(in crate::room) erasures: Erasures,
}

impl Default for RoomCache {
    fn default() -> Self {
        Self::with_limit(USUAL_BYTES)
    }
}

impl Reader for RoomCache {
    /// Rooms that are not in memory are passed over: they are read with everything in them once somebody asks. Only a
    /// room that begins is taken in, since whoever made it asks next.
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            if let News::AccountChange(change) = news
                && let AccountChange::Erased(user_id) = &**change
            {
                self.erasures.note(user_id, at);
            }
            if let News::LateRedaction(late) = news {
                self.redact(&late.redacted);
            }
            let News::Event(logged) = news else { continue };
            let pdu = &logged.stored.pdu;
            // Not through `find`: news of a room do not mean that somebody has asked for it.
            let known = self.rooms.read().get(pdu.room_id()).cloned();
            let room = match known {
                Some(room) => room,
                None if *pdu.kind() == TimelineEventType::RoomCreate && pdu.prev_events().is_empty() => {
                    let Some(room) = new_room(pdu, at) else { continue };
                    self.insert(pdu.room_id(), room)
                }
                None => continue,
            };
            let bytes = {
                let mut view = room.view.write();
                view.apply(logged);
                view.bytes()
            };
            self.weigh(&room, bytes);
        }
        self.make_space();
    }
}

impl Weighed for RoomCache {
    fn weight(&self) -> CacheWeight {
        self.load.lock().weight("rooms")
    }
}

impl RoomCache {
    /// A cache that holds about so many bytes.
    pub fn with_limit(limit: u64) -> Self {
        Self {
            rooms: RwLock::default(),
            load: Mutex::new(Load::new(limit)),
            asked: AtomicU64::new(0),
            loading: Mutex::default(),
            erasures: Erasures::default(),
        }
    }

    /// An event was redacted that may be part of what a room in memory remembers.
    fn redact(&self, redacted: &Arc<Pdu>) {
        let known = self.rooms.read().get(redacted.room_id()).cloned();
        if let Some(room) = known {
            let bytes = {
                let mut view = room.view.write();
                view.redact(redacted);
                view.bytes()
            };
            self.weigh(&room, bytes);
        }
    }

    /// A room, if it is in memory. Counts as being asked for.
    pub(super) fn find(&self, room_id: &RoomId) -> Option<Arc<Room>> {
        let room = Arc::clone(self.rooms.read().get(room_id)?);
        self.touch(&room);
        Some(room)
    }

    /// Whether a room is in memory.
    #[cfg(test)]
    pub(in crate::room) fn has(&self, room_id: &RoomId) -> bool {
        self.rooms.read().contains_key(room_id)
    }

    /// Takes a room in, unless it is there: that one is returned then. Called while the log's tail stands still.
    pub(super) fn insert(&self, room_id: &RoomId, room: Room) -> Arc<Room> {
        let room = Arc::clone(self.rooms.write().entry(room_id.to_owned()).or_insert_with(|| Arc::new(room)));
        self.touch(&room);
        self.weigh(&room, room.view(View::bytes));
        self.make_space();
        room
    }

    fn touch(&self, room: &Room) {
        room.asked.store(self.asked.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Notes how much a room takes. Only where the log is read or stands still, so that nobody else does at that time.
    fn weigh(&self, room: &Room, bytes: usize) {
        let before = room.bytes.swap(bytes, Ordering::Relaxed);
        let mut load = self.load.lock();
        load.bytes = (load.bytes + bytes as u64).saturating_sub(before as u64);
    }

    /// Forgets the rooms that were asked for longest ago, if all together take too much.
    fn make_space(&self) {
        if !self.load.lock().is_due() {
            return;
        }
        let mut rooms = self.rooms.write();
        let mut idle: Vec<(u64, OwnedRoomId)> = rooms
            .iter()
            .filter(|(_, room)| is_idle(room))
            .map(|(room_id, room)| (room.asked.load(Ordering::Relaxed), room_id.clone()))
            .collect();
        idle.sort_unstable();
        let mut load = self.load.lock();
        for (_, room_id) in idle {
            if load.has_room() {
                break;
            }
            if let Some(room) = rooms.remove(&room_id) {
                load.bytes = load.bytes.saturating_sub(room.bytes.load(Ordering::Relaxed) as u64);
            }
        }
        // Whoever holds so many rooms that little can be forgotten does not have them all looked through each time.
        let left = load.bytes;
        load.looked_through(left);
    }

    /// How many rooms are in memory.
    pub fn len(&self) -> usize {
        self.rooms.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.rooms.read().is_empty()
    }

    /// How many bytes the rooms in memory take, about.
    #[cfg(test)]
    pub(in crate::room) fn bytes(&self) -> u64 {
        self.load.lock().bytes
    }
}

/// Whether nobody holds a room and nothing is on its way into it. The caller holds `rooms` for writing, so nobody can
/// take hold of it meanwhile.
fn is_idle(room: &Arc<Room>) -> bool {
    let is_settled = || {
        let Ok(pending) = room.pending.try_lock() else { return false };
        pending.head.as_ref().is_none_or(|head| head.room.head <= room.view(|view| view.head.head))
    };
    Arc::strong_count(room) == 1 && is_settled()
}

/// A room that begins with this create event. None where its version can't be read, which the authorization rules have
/// refused before.
fn new_room(create: &Pdu, at: Position) -> Option<Room> {
    #[derive(serde::Deserialize)]
    struct CreateContent {
        #[serde(default = "first_version")]
        room_version: ruma::RoomVersionId,
    }
    fn first_version() -> ruma::RoomVersionId {
        ruma::RoomVersionId::V1
    }
    let version = create.content_as::<CreateContent>().ok()?.room_version;
    let head = (RoomHead::new(version), Lineage(at.0));
    let state = State::default();
    Some(Room::new(View::new(
        create.room_id().to_owned(),
        create.rules(),
        head,
        at.before(),
        state,
        Vec::new(),
        Order::START,
    )))
}
