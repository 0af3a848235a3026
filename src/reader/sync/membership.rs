//! What a room was to the user when the client last asked.

use ruma::events::room::member::MembershipState;

use super::{
    sources::{Sources, SyncRequest},
    watcher::WatchedMembership,
};
use crate::{
    error::Result,
    ground::position::{Order, Position},
    room::{Room, graph::state::membership_of},
};

/// The room as the client knows it.
#[derive(Clone, Debug)]
pub(super) struct ClientView {
    /// The client's position; none for one that knows nothing.
    after: Option<Position>,
    /// The user's membership at that position.
    before: MembershipState,
    now: MembershipState,
    /// Whether the event that gives them their membership has come since.
    is_news: bool,
    /// Whether that event ended something: the user was inside, invited or knocking just before it.
    is_departure: bool,
}

impl ClientView {
    /// Whether the client has not seen the room in this role, so that it is sent from the start.
    pub(super) fn is_new(&self) -> bool {
        self.after.is_none() || self.before != self.now
    }

    /// Whether the client syncs on and the user has entered the room meanwhile.
    pub(super) fn has_just_entered(&self) -> bool {
        self.after.is_some() && self.is_new()
    }

    /// Whether the user is in the room.
    pub(super) fn is_inside(&self) -> bool {
        self.now == MembershipState::Join
    }

    /// Whether an invitation or a knock is another than the client knows of.
    pub(super) fn is_news(&self) -> bool {
        self.is_news
    }

    /// The timeline begins after this position: from the start for a room that is new to the client, unless the client
    /// knows it from the user's earlier stay and only the newest part is missing.
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
    /// ask for rooms that were left. Of a room that the user has forgotten they hear no more, but those of their
    /// clients that did not know yet hear that they have left it.
    pub(super) fn shows_leave(&self, request: &SyncRequest, forgotten: bool) -> bool {
        let was_anything = !matches!(self.before, MembershipState::Leave | MembershipState::Ban);
        match self.after {
            Some(_) => self.is_news && (!forgotten || was_anything || self.is_departure),
            None => shows_left_rooms(request) && !forgotten,
        }
    }
}

/// Whether a client that knows nothing gets the rooms that its user has left.
pub(super) fn shows_left_rooms(request: &SyncRequest) -> bool {
    request.wanted.left_rooms || request.begins_anew
}

impl Sources {
    /// Looks up what the membership was at the client's position, where it may have been another.
    pub(super) async fn membership_since(
        &self,
        request: &SyncRequest,
        room: &Room,
        membership: &WatchedMembership,
    ) -> Result<ClientView> {
        let now = membership.state.clone();
        let Some(after) = request.since else {
            let before = MembershipState::Leave;
            return Ok(ClientView { after: None, before, now, is_news: true, is_departure: false });
        };
        if membership.position <= after {
            let (after, before) = (Some(after), now.clone());
            return Ok(ClientView { after, before, now, is_news: false, is_departure: false });
        }
        let before = self.membership_at(request, room, after).await?;
        let ended = if membership.forgotten {
            self.membership_at(request, room, membership.position.before()).await?
        } else {
            before.clone()
        };
        let is_departure = !matches!(ended, MembershipState::Leave | MembershipState::Ban);
        Ok(ClientView { after: Some(after), before, now, is_news: true, is_departure })
    }

    async fn membership_at(&self, request: &SyncRequest, room: &Room, at: Position) -> Result<MembershipState> {
        let user_id = request.client.user_id.as_str();
        let event = self.rooms.state_event_at(room, Order::at(at), "m.room.member", user_id).await?;
        Ok(event.as_ref().map_or(MembershipState::Leave, membership_of))
    }
}
