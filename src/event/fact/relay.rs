//! Events that another server has handed to this one for all of their room: a join, a leave or a knock that was sent
//! here because this server is in the room and the sender's is not. This server passes them on.
//!
//! The event itself is an entry of the log as any other. This one follows it in the same write, so that whoever sends
//! events to other servers finds it, however late.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId};

use super::kind::{Audience, Kind};

/// An event that this server passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    pub room_id: OwnedRoomId,
    pub event_id: OwnedEventId,
    /// Who has handed it over, and has it.
    pub from: OwnedServerName,
}

impl Kind for Relay {
    type Fact = Self;
    type Entry = (OwnedRoomId, OwnedEventId, OwnedServerName);

    fn of(fact: &Self) -> Self {
        fact.clone()
    }

    fn entry(&self) -> Self::Entry {
        (self.room_id.clone(), self.event_id.clone(), self.from.clone())
    }

    /// Clients find the event, and nothing else.
    fn room_id(&self) -> Option<&RoomId> {
        None
    }

    fn audience(&self) -> Audience<'_> {
        Audience::Nobody
    }
}
