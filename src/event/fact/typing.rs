//! Typing: who writes a message at the moment.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#typing-notifications>

use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, RoomId};

use super::kind::{Audience, Kind};

/// That somebody begins to type, goes on or has stopped.
#[derive(Clone, Debug)]
pub struct Typing {
    pub room_id: OwnedRoomId,
    pub user_id: OwnedUserId,
    /// Until when; None once the user has stopped.
    pub until: Option<MilliSecondsSinceUnixEpoch>,
}

impl Kind for Typing {
    type Fact = Self;
    type Entry = (OwnedRoomId, OwnedUserId);

    fn of(fact: &Self) -> Self {
        fact.clone()
    }

    fn entry(&self) -> Self::Entry {
        (self.room_id.clone(), self.user_id.clone())
    }

    fn room_id(&self) -> Option<&RoomId> {
        Some(&self.room_id)
    }

    fn audience(&self) -> Audience<'_> {
        Audience::Room(&self.room_id)
    }
}
