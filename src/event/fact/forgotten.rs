//! Rooms that somebody has left and does not want to see any more.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#leaving-rooms>

use ruma::{OwnedRoomId, OwnedUserId, RoomId};

use super::kind::{Audience, Kind};

/// From here on the room is not among those that the user has left. Joining it again shows it again.
#[derive(Clone, Debug)]
pub struct Forgotten {
    pub user_id: OwnedUserId,
    pub room_id: OwnedRoomId,
}

impl Kind for Forgotten {
    type Fact = Self;
    type Entry = (OwnedUserId, OwnedRoomId);

    fn of(fact: &Self) -> Self {
        fact.clone()
    }

    fn entry(&self) -> Self::Entry {
        (self.user_id.clone(), self.room_id.clone())
    }

    /// Nothing comes of it in the room.
    fn room_id(&self) -> Option<&RoomId> {
        None
    }

    fn audience(&self) -> Audience<'_> {
        Audience::Nobody
    }
}
