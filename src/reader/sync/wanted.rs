//! What a client wants to get. Each shape of sync has its own way to say that, and turns it into this.

use crate::{
    event::RelationFilter,
    room::read::filter::{EventSelection, RoomSelection},
};

/// What is wanted: everything, unless something else is said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Of other rooms nothing is wanted at all.
    pub(crate) rooms: RoomSelection,
    /// Whether a client that knows nothing gets the rooms that its user has left.
    pub(crate) left_rooms: bool,
    pub(crate) timeline: WantedTimeline,
    pub(crate) state: WantedState,
    /// By type, receipts also by whose they are.
    pub(crate) ephemeral: EventSelection,
    /// By room and type.
    pub(crate) room_account_data: EventSelection,
    /// By type.
    pub(crate) account_data: EventSelection,
    /// By type, which is one for all of them, and user.
    pub(crate) presence: EventSelection,
}

/// What is wanted of what was said in a room.
#[derive(Clone, Debug, Default)]
pub(crate) struct WantedTimeline {
    /// How many events. None for as many as are usual.
    pub(crate) limit: Option<usize>,
    pub(crate) events: EventSelection,
    pub(crate) relations: RelationFilter,
}

/// What is wanted of a room's state.
#[derive(Clone, Debug, Default)]
pub(crate) struct WantedState {
    pub(crate) events: EventSelection,
    pub(crate) members: Members,
}

/// Which members of a room are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Members {
    #[default]
    All,
    /// Those whom the timeline is by and those by whom a room without a name is called.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members>
    Needed,
}
