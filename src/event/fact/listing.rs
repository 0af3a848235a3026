//! How rooms are found: by their aliases and in the directory.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-aliases> and
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>

use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId};

use super::kind::{Audience, Kind};

/// The aliases of a room have changed, or whether the directory shows it.
#[derive(Clone, Debug)]
pub struct Listing {
    pub room_id: OwnedRoomId,
}

/// What changes.
#[derive(Clone, Debug)]
pub enum ListingChange {
    /// Refused if the alias names a room.
    AliasAdded {
        alias: OwnedRoomAliasId,
        room_id: OwnedRoomId,
        creator: OwnedUserId,
    },
    /// Refused unless the alias names the room.
    AliasRemoved {
        alias: OwnedRoomAliasId,
        room_id: OwnedRoomId,
    },
    Published {
        room_id: OwnedRoomId,
        listed: bool,
    },
}

impl ListingChange {
    /// The alias that it adds or removes.
    pub fn alias(&self) -> Option<&RoomAliasId> {
        match self {
            Self::AliasAdded { alias, .. } | Self::AliasRemoved { alias, .. } => Some(alias),
            Self::Published { .. } => None,
        }
    }
}

impl Kind for Listing {
    type Fact = ListingChange;
    type Entry = OwnedRoomId;

    fn of(fact: &ListingChange) -> Self {
        let (ListingChange::AliasAdded { room_id, .. }
        | ListingChange::AliasRemoved { room_id, .. }
        | ListingChange::Published { room_id, .. }) = fact;
        Self { room_id: room_id.clone() }
    }

    fn entry(&self) -> OwnedRoomId {
        self.room_id.clone()
    }

    /// Nothing comes of it in the room.
    fn room_id(&self) -> Option<&RoomId> {
        None
    }

    fn audience(&self) -> Audience<'_> {
        Audience::Nobody
    }
}
