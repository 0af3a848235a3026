//! What a room was to the user when the client last asked.

use ruma::events::room::member::MembershipState;

use super::{Request, gather::Sources, watch::Membership};
use crate::{
    error::Result,
    position::Position,
    room::{Room, state::membership_of},
};

/// The room as the client knows it.
#[derive(Clone, Debug)]
pub(super) struct Since {
    /// The client's position; none for one that knows nothing.
    after: Option<Position>,
    /// The user's membership at that position.
    before: MembershipState,
    now: MembershipState,
}

impl Since {
    /// Whether the client has not seen the room in this role, so that it is told from the start.
    pub(super) fn is_new(&self) -> bool {
        self.after.is_none() || self.before != self.now
    }

    /// The timeline is told after this position: from the start for a room that is new to the client,
    /// unless the client knows it from the user's earlier stay and only the newest part is missing.
    pub(super) fn timeline_after(&self) -> Position {
        match self.after {
            Some(after) if !self.is_new() || self.now != MembershipState::Join => after,
            _ => Position::START,
        }
    }

    /// Where the client's knowledge of the state ends; none if it has none.
    pub(super) fn known_state(&self) -> Option<Position> {
        self.after.filter(|_| self.before == MembershipState::Join)
    }

    /// Whether it is news that the user is outside, or banned, or no longer banned. A client that knows nothing has to
    /// ask for rooms that were left.
    pub(super) fn tells_leave(&self, request: &Request) -> bool {
        match self.after {
            Some(_) => self.before != self.now,
            None => request.filter.room.include_leave || request.begins_anew,
        }
    }
}

impl Sources {
    /// Looks up what the membership was at the client's position, where it may have been another.
    pub(super) async fn membership_since(
        &self,
        request: &Request,
        room: &Room,
        membership: &Membership,
    ) -> Result<Since> {
        let now = membership.state.clone();
        let Some(after) = request.since else {
            return Ok(Since { after: None, before: MembershipState::Leave, now });
        };
        if membership.position <= after {
            return Ok(Since { after: Some(after), before: now.clone(), now });
        }
        let before = self.rooms.state_event_at(room, after, "m.room.member", request.user_id.as_str()).await?;
        Ok(Since { after: Some(after), before: before.as_ref().map_or(MembershipState::Leave, membership_of), now })
    }
}
