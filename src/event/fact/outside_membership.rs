//! Invitations to rooms of which this server holds no history, and knocks on them: other servers have sent them.

use std::sync::Arc;

use ruma::{OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, events::AnyStrippedStateEvent, serde::Raw};

use super::kind::{Audience, Kind, SMALL};
use crate::{event::Pdu, ground::position::Position};

/// What a user is in a room of which this server holds no history.
#[derive(Clone, Debug)]
pub struct OutsideMembership {
    pub user_id: OwnedUserId,
    pub room_id: OwnedRoomId,
    pub state: OutsideState,
    /// Who invited the user, who knocks, or who ended the one or the other.
    pub sender: OwnedUserId,
    /// What came with it about the room, and the membership itself. Nothing once it has ended.
    pub stripped_state: Vec<Raw<AnyStrippedStateEvent>>,
    /// The event that says so, if it is known.
    pub event: Option<OutsideEvent>,
}

/// What becomes of a user outside, on its way into the log.
#[derive(Clone, Debug)]
pub struct NewOutsideMembership {
    pub membership: Arc<OutsideMembership>,
    /// Where that stands which it replaces, without which it is refused: [`Position::START`] for nothing. None for
    /// whatever is there.
    pub replaces: Option<Position>,
}

impl OutsideMembership {
    /// Refused unless what it replaces still stands at `expected`: [`Position::START`] for nothing.
    pub fn replacing(self, expected: Position) -> NewOutsideMembership {
        NewOutsideMembership { membership: Arc::new(self), replaces: Some(expected) }
    }

    /// Replaces whatever is there.
    pub fn replacing_any(self) -> NewOutsideMembership {
        NewOutsideMembership { membership: Arc::new(self), replaces: None }
    }
}

/// An event of a room of which this server holds no history.
#[derive(Clone, Debug)]
pub struct OutsideEvent {
    /// The version of the room.
    pub version: RoomVersionId,
    pub pdu: Arc<Pdu>,
}

/// What becomes of somebody who has not been in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutsideState {
    Invited,
    Knocking,
    /// The invitation was turned down or taken back, or the knock was.
    Ended,
}

impl Kind for OutsideMembership {
    type Fact = NewOutsideMembership;
    type Entry = (OwnedUserId, OwnedRoomId);

    fn of(fact: &NewOutsideMembership) -> Self {
        Self::clone(&fact.membership)
    }

    fn entry(&self) -> Self::Entry {
        (self.user_id.clone(), self.room_id.clone())
    }

    fn room_id(&self) -> Option<&RoomId> {
        Some(&self.room_id)
    }

    fn audience(&self) -> Audience<'_> {
        Audience::User(&self.user_id)
    }

    fn bytes(&self) -> usize {
        let stripped = self.stripped_state.iter().map(|event| 2 * SMALL + event.json().get().len());
        SMALL + stripped.sum::<usize>() + self.event.as_ref().map_or(0, |event| event.pdu.bytes())
    }
}

impl OutsideState {
    /// The membership that the event has which says so.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invited => "invite",
            Self::Knocking => "knock",
            Self::Ended => "leave",
        }
    }

    pub fn of(membership: &str) -> Option<Self> {
        [Self::Invited, Self::Knocking, Self::Ended].into_iter().find(|state| state.as_str() == membership)
    }
}
