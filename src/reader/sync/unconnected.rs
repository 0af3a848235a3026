//! The rooms of those who are not connected to this node, and of whom there is something to say.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, UserId, events::room::member::MembershipState};
use tokio::sync::Notify;

use crate::{
    ground::{position::Position, weighed::CacheWeight},
    store::membership::MembershipRow,
};

/// What a user or a room takes beside its name, in bytes.
const PIECE_BYTES: usize = 64;

/// The rooms that users are in who are not connected to this node.
pub(super) struct UnconnectedUsers {
    rooms: HashMap<OwnedUserId, HashSet<OwnedRoomId>>,
    /// What they take. Beyond the limit all are forgotten.
    bytes: u64,
    limit: u64,
}

fn piece(name: &str) -> u64 {
    (PIECE_BYTES + name.len()) as u64
}

fn bytes_of(user_id: &UserId, rooms: &HashSet<OwnedRoomId>) -> u64 {
    piece(user_id.as_str()) + rooms.iter().map(|room_id| piece(room_id.as_str())).sum::<u64>()
}

impl UnconnectedUsers {
    pub(super) fn new(limit: u64) -> Self {
        Self { rooms: HashMap::new(), bytes: 0, limit }
    }

    pub(super) fn weight(&self) -> CacheWeight {
        CacheWeight { name: "strangers", bytes: self.bytes, limit: self.limit }
    }

    /// The rooms that a user is in, if they are remembered.
    pub(super) fn rooms(&self, user_id: &UserId) -> Option<&HashSet<OwnedRoomId>> {
        self.rooms.get(user_id)
    }

    /// Remembers where somebody is. All others are forgotten where that has become too much.
    pub(super) fn add(&mut self, user_id: OwnedUserId, rooms: HashSet<OwnedRoomId>) {
        let bytes = bytes_of(&user_id, &rooms);
        if self.bytes + bytes > self.limit {
            self.forget_all();
        }
        self.remove(&user_id);
        self.bytes += bytes;
        self.rooms.insert(user_id, rooms);
    }

    /// Forgets somebody, who is connected now.
    pub(super) fn remove(&mut self, user_id: &UserId) {
        if let Some(old) = self.rooms.remove(user_id) {
            self.bytes -= bytes_of(user_id, &old);
        }
    }

    /// Forgets everybody: of some it may not be known any more where they are.
    pub(super) fn forget_all(&mut self) {
        *self = Self::new(self.limit);
    }

    /// A membership has changed.
    pub(super) fn follow(&mut self, row: &MembershipRow<'_>) {
        let Some(rooms) = self.rooms.get_mut(row.user_id) else { return };
        if row.state != MembershipState::Join {
            if rooms.remove(row.room_id) {
                self.bytes -= piece(row.room_id.as_str());
            }
        } else if rooms.insert(row.room_id.to_owned()) {
            self.bytes += piece(row.room_id.as_str());
        }
    }
}

/// Of whose presence or devices others are to hear: the log's reader leaves that behind, so that nobody's many
/// neighbours hold the log up.
#[derive(Default)]
pub(super) struct NeighbourWakeUps {
    /// Users of whom there is something to hear, with its place.
    pub(super) changed: Mutex<HashMap<OwnedUserId, Position>>,
    pub(super) rung: Notify,
}

impl NeighbourWakeUps {
    /// Has everybody woken who shares a room with a user, and the user, for what was written at a place.
    pub(super) fn leave(&self, user_id: &UserId, at: Position) {
        let mut changed = self.changed.lock();
        let place = changed.entry(user_id.to_owned()).or_insert(at);
        *place = at.max(*place);
        drop(changed);
        self.rung.notify_one();
    }
}
