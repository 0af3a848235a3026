//! The rooms that a batch adds to.
//!
//! Events of one room in one batch are written with one row of the room: what the first found and what the last left.

use std::collections::HashMap;

use ruma::{OwnedRoomId, RoomId};

use crate::{
    event::fact::{NewEvent, RoomEntry, RoomHead, SenderToOthers},
    ground::position::{Lineage, Position},
    store::{
        moment::Moment,
        room::{RoomAccess, RoomStanding},
    },
};

/// A room that a batch adds to, as it stands afterwards.
pub(super) struct TouchedRoom<'a> {
    /// Whether it begins with this batch.
    pub(super) is_new: bool,
    pub(super) standing: RoomStanding,
    /// After the newest event so far.
    pub(super) head: &'a RoomHead,
}

pub(super) type TouchedRooms<'a> = HashMap<&'a RoomId, TouchedRoom<'a>>;

impl<'a> TouchedRoom<'a> {
    /// A room that the database does not know begins here: its trunk is named by the position of its first event, unless
    /// it has begun elsewhere and was written beforehand.
    pub(super) fn new(
        position: Position,
        event: &'a NewEvent,
        known: &HashMap<OwnedRoomId, RoomStanding>,
        entry: Option<&RoomEntry>,
    ) -> Self {
        let known = known.get(event.pdu.room_id());
        let trunk = entry.map_or(Lineage(position.0), |entry| entry.trunk);
        let new = RoomStanding { trunk, access: RoomAccess::default(), newest_ts: 0, sent_at: Position::START };
        Self { is_new: known.is_none(), standing: known.copied().unwrap_or(new), head: &event.head }
    }

    /// Takes the next event of the room and returns how late it is with it. `newest_ts`, in milliseconds since the Unix
    /// epoch, never falls. An accepted event that does not raise it is late, and is found by its own timestamp in an
    /// index (`room/read/moment.rs`).
    pub(super) fn follow(&mut self, position: Position, event: &'a NewEvent) -> Moment {
        let moment = Moment::then(self.standing.newest_ts, &event.pdu, event.standing);
        self.standing.newest_ts = moment.newest_ts;
        for change in &event.changes {
            self.standing.access.follow(change);
        }
        if event.sender_to_others == SenderToOthers::ThisServer {
            self.standing.sent_at = position;
        }
        self.head = &event.head;
        moment
    }
}
