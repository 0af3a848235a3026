//! Everything that a user has not seen since a position, whatever shape it will be written in.

use std::sync::Arc;

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::{TimelineEventType, presence::PresenceEvent, room::member::MembershipState},
};

use super::{
    membership::Since,
    state::{self, RoomState},
    timeline::{self, Timeline},
    watch::{Membership, Watcher, Watchers},
};
use crate::{
    account_data::{AccountDataBook, push_rules_data},
    clock::Clock,
    error::Result,
    event::{Pdu, Stored},
    fact::{AccountData, Receipt},
    filter::Definition,
    position::Position,
    presence::PresenceBook,
    receipt::Receipts,
    room::{
        Room, Rooms,
        filter::{EventFilter as _, PduFilter as _, RoomAware as _},
    },
    typing::Typists,
    unread::{Counts, Unread},
};

/// What `/sync` is made of. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Syncs(pub(super) Arc<Sources>);

/// Where the parts of a `/sync` come from.
pub(crate) struct Sources {
    pub(crate) rooms: Rooms,
    pub(crate) watchers: Watchers,
    pub(crate) receipts: Receipts,
    pub(crate) typists: Typists,
    pub(crate) presence: PresenceBook,
    pub(crate) unread: Unread,
    pub(crate) account_data: AccountDataBook,
    pub(crate) clock: Clock,
}

/// Whose sync this is and what it asks for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) user_id: OwnedUserId,
    pub(crate) filter: Arc<Definition>,
    /// None for everything.
    pub(crate) since: Option<Position>,
    /// Whether the client knows something all the same, of a log that a restored backup has replaced: what it knows may
    /// be gone, and what it does not know of is told as if it had been away.
    pub(crate) begins_anew: bool,
    /// Whether to tell all state of all joined rooms.
    pub(crate) full_state: bool,
    /// Whether state is told as it is after the timeline rather than before it.
    pub(crate) state_after: bool,
}

/// What has happened.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// Up to here.
    pub(crate) until: Position,
    pub(crate) joined: Vec<JoinedRoom>,
    pub(crate) invited: Vec<StrippedRoom>,
    pub(crate) knocked: Vec<StrippedRoom>,
    pub(crate) left: Vec<LeftRoom>,
    pub(crate) account_data: Vec<Arc<AccountData>>,
    pub(crate) presence: Vec<PresenceEvent>,
}

/// What happened in a room that the user is in.
#[derive(Debug)]
pub(crate) struct JoinedRoom {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) timeline: Timeline,
    pub(crate) state: RoomState,
    pub(crate) summary: Option<Summary>,
    pub(crate) receipts: Vec<(Position, Arc<Receipt>)>,
    /// Who types now, if that has changed.
    pub(crate) typing: Option<Vec<OwnedUserId>>,
    pub(crate) account_data: Vec<Arc<AccountData>>,
    pub(crate) unread: Counts,
}

/// A room that the user is no longer in.
#[derive(Debug)]
pub(crate) struct LeftRoom {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) timeline: Timeline,
    pub(crate) state: RoomState,
    pub(crate) account_data: Vec<Arc<AccountData>>,
}

/// A room that the user may enter, or has asked to: what can be told of it from outside.
#[derive(Debug)]
pub(crate) struct StrippedRoom {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) state: Vec<Arc<Pdu>>,
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary>
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Five others at most, for naming a room that has no name.
    pub(crate) heroes: Vec<OwnedUserId>,
    pub(crate) joined: usize,
    pub(crate) invited: usize,
}

impl Sources {
    /// Whether a user wants to know of invitations, and of those that this inviter sends.
    pub(super) async fn shows_invite(&self, user_id: &UserId, inviter: Option<&UserId>) -> Result<bool> {
        let ignored = self.account_data.ignored(user_id).await?;
        let is_welcome = inviter.is_none_or(|inviter| !ignored.contains(inviter));
        Ok(is_welcome && !self.account_data.blocks_invites(user_id).await?)
    }
}

impl Gathered {
    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        self.joined.is_empty()
            && self.invited.is_empty()
            && self.knocked.is_empty()
            && self.left.is_empty()
            && self.account_data.is_empty()
            && self.presence.is_empty()
    }
}

impl JoinedRoom {
    fn is_empty(&self) -> bool {
        self.timeline.is_empty()
            && self.state.is_empty()
            && self.summary.is_none()
            && self.receipts.is_empty()
            && self.typing.is_none()
            && self.account_data.is_empty()
    }
}

impl Syncs {
    pub(crate) fn new(sources: Sources) -> Self {
        Self(Arc::new(sources))
    }

    #[cfg(test)]
    pub(crate) fn unread(&self) -> &Unread {
        &self.0.unread
    }

    /// The user as a watcher, to wait for news with.
    pub(crate) async fn watcher(&self, user_id: &UserId) -> Result<Arc<Watcher>> {
        self.0.watchers.watcher(user_id).await
    }

    /// What has happened since `request.since`, which has been checked, up to where this node has read.
    pub(crate) async fn gather(&self, request: &Request, watcher: &Watcher) -> Result<Gathered> {
        let until = self.0.rooms.log().tail().reached();
        let mut gathered = Gathered { until, ..Gathered::default() };
        let changed = match request.since {
            Some(since) if !request.full_state => watcher.changed_rooms(since),
            _ => watcher.rooms(),
        };
        for (room_id, membership) in changed {
            if request.filter.room.passes_room(&room_id) {
                self.gather_room(request, until, &room_id, &membership, &mut gathered).await?;
            }
        }
        gathered.account_data = self.global_account_data(request, until).await?;
        gathered.presence = self.presence(request, watcher, until).await?;
        Ok(gathered)
    }

    async fn gather_room(
        &self,
        request: &Request,
        until: Position,
        room_id: &RoomId,
        membership: &Membership,
        gathered: &mut Gathered,
    ) -> Result<()> {
        let Some(room) = self.0.rooms.find(room_id).await? else { return Ok(()) };
        let since = self.0.membership_since(request, &room, membership).await?;
        match membership.state {
            MembershipState::Join => {
                let joined = self.gather_joined(request, until, room_id, &room, &since).await?;
                // A room that is new to the client is told even where nothing of it passes the filter.
                if since.is_new() || request.full_state || !joined.is_empty() {
                    gathered.joined.push(joined);
                }
            }
            MembershipState::Invite if since.is_news() => {
                let state = room.state();
                let inviter = state.member(&request.user_id).map(|pdu| pdu.sender());
                if self.0.shows_invite(&request.user_id, inviter).await? {
                    let mut state = state::stripped(&state, &request.user_id);
                    self.0.rooms.withhold_state(room_id, &request.user_id, &mut state).await?;
                    gathered.invited.push(StrippedRoom { room_id: room_id.to_owned(), state });
                }
            }
            MembershipState::Knock if since.is_news() => {
                let mut state = state::stripped(&room.state(), &request.user_id);
                self.0.rooms.withhold_state(room_id, &request.user_id, &mut state).await?;
                gathered.knocked.push(StrippedRoom { room_id: room_id.to_owned(), state });
            }
            MembershipState::Leave | MembershipState::Ban if since.tells_leave(request, membership.forgotten) => {
                gathered.left.push(self.gather_left(request, room_id, &room, membership, &since).await?);
            }
            _ => {}
        }
        Ok(())
    }

    async fn gather_joined(
        &self,
        request: &Request,
        until: Position,
        room_id: &RoomId,
        room: &Arc<Room>,
        since: &Since,
    ) -> Result<JoinedRoom> {
        let after = since.timeline_after();
        let mut timeline = timeline::gather(&self.0, request, room, after, until).await?;
        let mut state = state::gather(&self.0, request, room, since, &timeline, until).await?;
        timeline.limited |= since.has_just_entered() && hides_the_beginning(request, &timeline);
        let summary = state
            .heroes
            .take()
            .map(|heroes| room.view(|view| Summary { heroes, joined: view.joined(), invited: view.invited() }));
        let news_after = if since.is_new() { Position::START } else { after };
        let receipts = self.receipts(request, room_id, news_after, until).await?;
        let typing = self.0.typists.since(room_id, news_after, until, self.0.clock.now()).await?;
        let account_data = self.room_account_data(request, room_id, news_after, until).await?;
        Ok(JoinedRoom {
            room_id: room_id.to_owned(),
            timeline,
            state,
            summary,
            receipts,
            typing: typing
                .filter(|users| !since.is_new() || !users.is_empty())
                .filter(|_| request.filter.room.ephemeral.passes_kind("m.typing")),
            account_data,
            unread: self.0.unread.counts(&request.user_id, room_id).await?,
        })
    }

    /// A room that was left: what was said up to the leaving. What has become of the user since is told alone: a ban or
    /// an invitation opens nothing that came after they left. Of a room that they have forgotten, only that is told.
    async fn gather_left(
        &self,
        request: &Request,
        room_id: &RoomId,
        room: &Arc<Room>,
        membership: &Membership,
        since: &Since,
    ) -> Result<LeftRoom> {
        let (after, until) = (since.timeline_after(), membership.position);
        let sight = self.0.rooms.sight(room, &request.user_id).await?;
        let left = sight.left_at().filter(|_| !membership.forgotten).map(|left| left.min(until));
        let Some(left) = left.filter(|left| *left > after) else {
            // An invitation, a knock or a ban has ended, or begun. The user has not been inside since.
            let timeline = timeline::only(&self.0, request, room, until).await?;
            let (room_id, state) = (room_id.to_owned(), RoomState::default().with(request, &timeline));
            return Ok(LeftRoom { room_id, timeline, state, account_data: Vec::new() });
        };
        let mut timeline = timeline::gather(&self.0, request, room, after, left).await?;
        let mut state = state::gather(&self.0, request, room, since, &timeline, left).await?;
        if left < until {
            let later = timeline::only(&self.0, request, room, until).await?;
            state = state.with(request, &later);
            timeline.events.extend(later.events);
        }
        let account_data = self.room_account_data(request, room_id, after, until).await?;
        Ok(LeftRoom { room_id: room_id.to_owned(), timeline, state, account_data })
    }

    async fn receipts(
        &self,
        request: &Request,
        room_id: &RoomId,
        after: Position,
        until: Position,
    ) -> Result<Vec<(Position, Arc<Receipt>)>> {
        if !request.filter.room.ephemeral.passes_kind("m.receipt") {
            return Ok(Vec::new());
        }
        let mut receipts = self.0.receipts.since(room_id, after, until, &request.user_id).await?;
        receipts.retain(|(_, receipt)| request.filter.room.ephemeral.passes_sender(&receipt.user_id));
        Ok(receipts)
    }

    /// Global account data since the client's position.
    async fn global_account_data(&self, request: &Request, until: Position) -> Result<Vec<Arc<AccountData>>> {
        let after = request.since.unwrap_or_default();
        let mut data = self.0.account_data.since(&request.user_id, after, until).await?;
        if request.since.is_none() {
            data.push((Position::START, push_rules_data(&request.user_id)?));
        }
        let global = data.into_iter().map(|(_, data)| data).filter(|data| data.room_id.is_none());
        Ok(global.filter(|data| request.filter.account_data.passes_kind(&data.kind)).collect())
    }

    async fn room_account_data(
        &self,
        request: &Request,
        room_id: &RoomId,
        after: Position,
        until: Position,
    ) -> Result<Vec<Arc<AccountData>>> {
        let filter = &request.filter.room.account_data;
        let data = self.0.account_data.since(&request.user_id, after, until).await?;
        let of_room = data.into_iter().map(|(_, data)| data).filter(|data| data.room_id.as_deref() == Some(room_id));
        Ok(of_room.filter(|data| filter.passes_kind(&data.kind) && filter.passes_room(room_id)).collect())
    }
}

/// Whether a filter may be why the timeline does not begin as the room did. Whoever enters a room and is told all that
/// passes can't know that it is all, and has to look.
fn hides_the_beginning(request: &Request, timeline: &Timeline) -> bool {
    let begins = |event: &Arc<Stored>| *event.pdu.kind() == TimelineEventType::RoomCreate;
    let filters = !request.filter.room.timeline.passes_everything() || !request.filter.relations.is_any();
    filters && !timeline.events.first().is_some_and(begins)
}
