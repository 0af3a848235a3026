//! The rooms of those who are not connected to this node, and of whom there is something to say.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, UserId, events::room::member::MembershipState};
use tokio::sync::Notify;

use crate::{ground::position::Position, store::membership::MembershipRow};

/// How many memberships of strangers are remembered.
const KEPT_MEMBERSHIPS: usize = 500_000;

/// The rooms that users are in who are not connected to this node.
#[derive(Default)]
pub(super) struct UnconnectedUsers {
    rooms: HashMap<OwnedUserId, HashSet<OwnedRoomId>>,
    memberships: usize,
}

impl UnconnectedUsers {
    /// The rooms that a user is in, if they are remembered.
    pub(super) fn rooms(&self, user_id: &UserId) -> Option<&HashSet<OwnedRoomId>> {
        self.rooms.get(user_id)
    }

    /// Remembers where somebody is. All others are forgotten where that has become too much.
    pub(super) fn add(&mut self, user_id: OwnedUserId, rooms: HashSet<OwnedRoomId>) {
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
    pub(super) fn follow(&mut self, row: &MembershipRow<'_>) {
        let Some(rooms) = self.rooms.get_mut(row.user_id) else { return };
        if row.state != MembershipState::Join {
            self.memberships = self.memberships.saturating_sub(usize::from(rooms.remove(row.room_id)));
        } else if rooms.insert(row.room_id.to_owned()) {
            self.memberships += 1;
        }
    }
}

/// Whose presence others are to hear of: the log's reader leaves that behind, so that nobody's presence holds the log
/// up.
#[derive(Default)]
pub(super) struct PresenceWakeUps {
    /// Users whose presence has changed, with its place.
    pub(super) changed: Mutex<HashMap<OwnedUserId, Position>>,
    pub(super) rung: Notify,
}

impl PresenceWakeUps {
    /// Has everybody woken who shares a room with a user, and the user, for what was written at a place.
    pub(super) fn leave(&self, user_id: &UserId, at: Position) {
        let mut changed = self.changed.lock();
        let place = changed.entry(user_id.to_owned()).or_insert(at);
        *place = at.max(*place);
        drop(changed);
        self.rung.notify_one();
    }
}
