//! Somebody who is connected: their memberships, each with its room's pulse, and how they are woken.
//!
//! The memberships follow the log ([`super::watch`]). Lock order: `rooms`, then `outside`.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};
use tokio::sync::watch;

use super::turns::{Turn, Turns};
use crate::{
    error::Result,
    event::fact::{OutsideMembership, OutsideState},
    ground::position::Position,
    store::outside_membership::OutsideStanding,
};

/// What a user and a membership take beside their names, in bytes.
const USER_BYTES: usize = 512;
const MEMBERSHIP_BYTES: usize = 192;

/// When something last happened in a room.
#[derive(Debug)]
pub(crate) struct Pulse(pub(super) AtomicI64);

impl Pulse {
    /// Only grows.
    pub(crate) fn last(&self) -> Position {
        Position(self.0.load(Ordering::Acquire))
    }
}

/// A connected user.
pub(crate) struct Watcher {
    pub(super) user_id: OwnedUserId,
    pub(super) rooms: RwLock<HashMap<OwnedRoomId, WatchedMembership>>,
    /// What ever came from outside of rooms that this server holds no history of, or held none of then.
    pub(super) outside: RwLock<HashMap<OwnedRoomId, OutsideStanding>>,
    /// The place of the last thing that concerns the user.
    pub(super) wake: watch::Sender<Position>,
    pub(super) turns: Turns,
    /// When a `/sync` last asked, by the end of the log at that time, for dropping the least recent.
    pub(super) used: AtomicU64,
}

/// A user's membership of a room, with the room's pulse.
#[derive(Clone, Debug)]
pub(crate) struct WatchedMembership {
    pub(crate) state: MembershipState,
    /// Where the trunk got it.
    pub(crate) position: Position,
    /// Where the user has come to be what they are: not after `position`, which follows their profile as well.
    pub(crate) entered: Position,
    pub(crate) forgotten: bool,
    pub(crate) pulse: Arc<Pulse>,
}

impl Watcher {
    /// How many bytes the user takes with their memberships.
    pub(super) fn bytes(&self) -> u64 {
        let (rooms, outside) = (self.rooms.read(), self.outside.read());
        let memberships = rooms.keys().chain(outside.keys()).map(|room_id| membership_bytes(room_id));
        user_bytes(&self.user_id) + memberships.sum::<u64>()
    }

    /// Whether a request has the user in hand: the index has one reference, and each room that they watch. Asked under
    /// the index's lock, so nobody gets it from there meanwhile.
    pub(super) fn is_held(self: &Arc<Self>) -> bool {
        let watched = self.rooms.read().values().filter(|membership| watches(&membership.state)).count();
        Arc::strong_count(self) > 1 + watched
    }

    /// Every room that the user is or was in.
    pub(crate) fn rooms(&self) -> Vec<(OwnedRoomId, WatchedMembership)> {
        self.rooms.read().iter().map(|(room_id, membership)| (room_id.clone(), membership.clone())).collect()
    }

    /// How many rooms the user is in.
    pub(crate) fn count_joined_rooms(&self) -> usize {
        self.rooms.read().values().filter(|membership| membership.state == MembershipState::Join).count()
    }

    /// The user's membership of one room.
    pub(crate) fn membership(&self, room_id: &RoomId) -> Option<WatchedMembership> {
        self.rooms.read().get(room_id).cloned()
    }

    /// The rooms that the user is in.
    pub(super) fn joined_rooms(&self) -> Vec<OwnedRoomId> {
        let rooms = self.rooms.read();
        let joined = rooms.iter().filter(|(_, membership)| membership.state == MembershipState::Join);
        joined.map(|(room_id, _)| room_id.clone()).collect()
    }

    /// The rooms that may hold something after `since`: where something happened, or the membership changed.
    pub(crate) fn changed_rooms(&self, since: Position) -> Vec<(OwnedRoomId, WatchedMembership)> {
        self.rooms
            .read()
            .iter()
            .filter(|(_, membership)| membership.pulse.last() > since || membership.position > since)
            .map(|(room_id, membership)| (room_id.clone(), membership.clone()))
            .collect()
    }

    /// What came from outside after `since` and holds, of rooms of which nothing is known that came later.
    pub(super) fn outside_after(&self, since: Position) -> Vec<(OwnedRoomId, OutsideStanding)> {
        let rooms = self.rooms.read();
        let outside = self.outside.read();
        let news = outside.iter().filter(|(_, standing)| standing.position > since);
        let held = news.filter(|(room_id, standing)| holds(**standing, rooms.get(*room_id)));
        held.map(|(room_id, standing)| (room_id.clone(), *standing)).collect()
    }

    /// Something came from outside. What a watcher was registered with is not news. Returns whether it is of a room of
    /// which nothing had come.
    pub(super) fn follow_outside(&self, membership: &OutsideMembership, at: Position) -> bool {
        let mut outside = self.outside.write();
        let known = outside.get(&membership.room_id);
        if known.is_some_and(|known| known.position >= at) {
            return false;
        }
        // Whoever has forgotten a room hears of it again with the next invitation, and not with its end.
        let forgotten = membership.state == OutsideState::Ended && known.is_some_and(|known| known.forgotten);
        let standing = OutsideStanding { state: membership.state, position: at, forgotten };
        outside.insert(membership.room_id.clone(), standing).is_none()
    }

    /// Hides a room that the user had left, or was not in, when they forgot it. Whoever has come back since has not
    /// forgotten it.
    pub(super) fn forget(&self, room_id: &RoomId, at: Position) {
        if let Some(membership) = self.rooms.write().get_mut(room_id)
            && matches!(membership.state, MembershipState::Leave | MembershipState::Ban)
            && membership.position < at
        {
            membership.forgotten = true;
        }
        if let Some(standing) = self.outside.write().get_mut(room_id)
            && standing.state == OutsideState::Ended
            && standing.position < at
        {
            standing.forgotten = true;
        }
    }

    /// Waits for a turn to gather what is new.
    pub(crate) async fn turn(&self) -> Result<Turn> {
        self.turns.take().await
    }

    /// The place of the last thing that concerns the user, and a notice of every later one.
    pub(crate) fn wakes(&self) -> watch::Receiver<Position> {
        self.wake.subscribe()
    }

    /// Wakes whoever waits, for the last thing that concerns them. Earlier places than the last change nothing.
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

pub(super) fn user_bytes(user_id: &UserId) -> u64 {
    (USER_BYTES + 2 * user_id.as_str().len()) as u64
}

pub(super) fn membership_bytes(room_id: &RoomId) -> u64 {
    (MEMBERSHIP_BYTES + room_id.as_str().len()) as u64
}

/// Whether a room is watched by whoever has this membership of it.
pub(super) fn watches(state: &MembershipState) -> bool {
    matches!(state, MembershipState::Join | MembershipState::Invite | MembershipState::Knock)
}

/// Whether what came of a room from outside is what the user is now, beside what the room's own history says of them.
fn holds(outside: OutsideStanding, own: Option<&WatchedMembership>) -> bool {
    own.is_none_or(|own| own.state != MembershipState::Join && own.position < outside.position)
}
