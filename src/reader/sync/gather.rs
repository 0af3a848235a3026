//! Everything that a user has not seen since a position, whatever shape it will be written in.
//!
//! What is gathered is up to one position, `until`, which becomes the client's next token: whatever is read later than
//! that is cut off there, and whatever is shown comes from at or before it. So a client that goes on from the token
//! has no gap and nothing twice. Rooms in which nothing has happened are not looked at, unless the user ignores others
//! than at that position and something else is unread there because of it.
//!
//! What was sent to the device comes in pages of its own. Where one ends before `until`, the token says so beside the
//! position, and all else goes on from `until` as ever: the rooms are not to wait for ten thousand messages, nor to be
//! gathered as they were when each was sent.
//!
//! All rooms of a user may be more than should be in memory at once, so they are gathered in parts. What holds for all
//! of them comes with the first, and so do the rooms that may be taken out of the answer again.

use std::{collections::HashMap, sync::Arc};

use ruma::{
    OwnedRoomId, RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{
    client::Client,
    device_lists::DeviceLists,
    effort::Effort,
    gathered::{ChangedRoom, Gathered, Group, JoinedRoom, LeftRoom, MemberSummary, Rest, StrippedRoom},
    membership::{ClientView, shows_left_rooms},
    sources::{Sources, SyncRequest},
    state::{self, RoomState},
    timeline::{self, Timeline},
    turns::Turn,
    watcher::{WatchedMembership, Watcher},
};
use crate::{
    error::Result,
    event::{
        Stored,
        fact::{AccountData, Receipt},
    },
    ground::position::{Order, Position},
    people::account_data::{UserData, push_rules_data},
    room::{
        Room,
        read::filter::{EventFilter as _, PduFilter as _, RoomAware as _},
    },
};

/// What `/sync` is made of. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Syncs(pub(super) Arc<Sources>);

/// A request with what holds for all of its rooms.
#[derive(Clone, Copy)]
struct SyncContext<'a> {
    /// What the client asks for.
    request: &'a SyncRequest,
    /// Where everything that is gathered ends.
    until: Position,
    /// The user's account data, as it was at `until` or a little later.
    data: &'a UserData,
}

/// How many rooms are looked at at once: those that are not in memory are read together.
const AT_ONCE: usize = 100;
/// A part ends with the room by which it has so many bytes of events.
const PART: usize = 1024 * 1024;

impl Syncs {
    pub(crate) fn new(sources: Sources) -> Self {
        Self(Arc::new(sources))
    }

    #[cfg(test)]
    pub(crate) fn unread(&self) -> &crate::reader::unread::Unread {
        &self.0.unread
    }

    /// The user as a watcher, to wait for news with.
    pub(crate) async fn watcher(&self, user_id: &UserId) -> Result<Arc<Watcher>> {
        self.0.watchers.watcher(user_id).await
    }

    /// What has happened since `request.since`, which has been checked, up to where this node has read: the first part
    /// of it, which is empty only if there is no other. `turn`: the watcher's.
    pub(crate) async fn gather(&self, request: &SyncRequest, watcher: &Watcher, turn: Turn) -> Result<Gathered> {
        // Fixed before anything is read: what comes later is for the next sync.
        let until = self.0.rooms.log().tail().reached();
        // By the pulses in memory. A room in which nothing has happened costs no more than this look.
        let news = request.since.map_or_else(|| watcher.rooms(), |since| watcher.changed_rooms(since));
        let changed = if request.full_state { watcher.rooms() } else { news.clone() };
        let data = self.0.account_data.of_user(&request.client.user_id).await?;
        let mut rooms: HashMap<OwnedRoomId, (WatchedMembership, bool)> =
            // Beside each membership, whether the counts are news.
            changed.into_iter().map(|(room_id, membership)| (room_id, (membership, false))).collect();
        for (room_id, membership) in self.list_recounted(request, watcher, &data).await? {
            rooms.entry(room_id).or_insert((membership, true)).1 = true;
        }
        // What the filter leaves out is left out before rooms are read.
        rooms.retain(|room_id, (membership, _)| {
            request.wanted.rooms.passes_room(room_id) && may_be_shown(request, membership)
        });
        let outside = self.gather_outside(request, watcher, until).await?;
        let rest = Rest::new(rooms, &outside.iter().map(|membership| membership.room_id.clone()).collect());
        let mut gathered = Gathered { until, rest, _turn: Some(turn), ..Gathered::default() };
        let asked = SyncContext { request, until, data: &data };
        self.gather_part(asked, &mut gathered).await?;
        gathered.add_outside(outside);
        gathered.account_data = asked.global_account_data()?;
        if let Some(since) = request.since {
            (gathered.device_lists, gathered.effort) =
                Box::pin(self.0.device_lists(watcher, &news, (since, until))).await?;
        } else if request.begins_anew {
            // What it knows of devices may be gone, and what it does not know of came while it was away.
            gathered.device_lists = Box::pin(self.0.all_device_lists(watcher, until)).await?;
        }
        let (key_counts, changed) = self.0.key_counts.find(&request.client).await?;
        gathered.has_new_key_counts = request.since.is_some_and(|since| changed > since);
        gathered.key_counts = Some(key_counts);
        gathered.presence = self.presence(request, watcher, news, until).await?;
        if let Some(delivered) = request.delivered {
            let Client { user_id, device_id } = &request.client;
            let page = self.0.to_device.page(user_id, device_id, delivered, until).await?;
            (gathered.to_device, gathered.delivered) = (page.messages, page.until);
        }
        Ok(gathered)
    }

    /// What is said to a client for which there was nothing up to a place.
    pub(crate) async fn gather_nothing(&self, client: &Client, until: Position) -> Result<Gathered> {
        let (key_counts, _) = self.0.key_counts.find(client).await?;
        Ok(Gathered { until, delivered: until, key_counts: Some(key_counts), ..Gathered::default() })
    }

    /// Whose devices and keys are news to a user between two places, and what it took to find out. What a sync says of
    /// them between the same is the same.
    pub(crate) async fn changed_device_lists(
        &self,
        user_id: &UserId,
        (since, until): (Position, Position),
    ) -> Result<(DeviceLists, Effort)> {
        let watcher = self.watcher(user_id).await?;
        let _turn = watcher.turn().await?;
        self.0.device_lists(&watcher, &watcher.changed_rooms(since), (since, until)).await
    }

    /// The next part of what was gathered up to `until`. It may be empty though there are others.
    pub(crate) async fn gather_more(
        &self,
        request: &SyncRequest,
        (until, rest): (Position, Rest),
        turn: Turn,
    ) -> Result<Gathered> {
        let data = self.0.account_data.of_user(&request.client.user_id).await?;
        let mut gathered = Gathered { until, rest, _turn: Some(turn), ..Gathered::default() };
        self.gather_part(SyncContext { request, until, data: &data }, &mut gathered).await?;
        Ok(gathered)
    }

    /// Gathers rooms of the rest until they are enough for a part.
    async fn gather_part(&self, asked: SyncContext<'_>, gathered: &mut Gathered) -> Result<()> {
        let is_over = |gathered: &Gathered, bytes: usize| {
            let next = gathered.rest.0.last();
            next.is_none_or(|next| next.group != Group::Stripped && bytes >= PART)
        };
        let mut bytes = 0;
        while !is_over(gathered, bytes) {
            let rooms = &gathered.rest.0;
            let some = rooms.iter().rev().take(AT_ONCE).map(|room| &*room.room_id).collect::<Vec<_>>();
            let found = self.0.rooms.find_each_held(&some).await?;
            for _ in 0..some.len() {
                if is_over(gathered, bytes) {
                    break;
                }
                let Some(room) = gathered.rest.0.pop() else { break };
                if let Some(known) = found.get(&room.room_id) {
                    bytes += self.gather_room(asked, &room, known, gathered).await?;
                }
            }
        }
        Ok(())
    }

    /// The rooms in which more or less is unread because the user ignores others than when the client last asked.
    async fn list_recounted(
        &self,
        request: &SyncRequest,
        watcher: &Watcher,
        data: &UserData,
    ) -> Result<Vec<(OwnedRoomId, WatchedMembership)>> {
        let (user_id, Some(since)) = (&request.client.user_id, request.since) else { return Ok(Vec::new()) };
        // None where it is not remembered whom they ignored then: any room may count otherwise.
        let (before, now) = (data.ignored_at(since), data.ignored());
        if before.as_ref() == Some(&now) {
            return Ok(Vec::new());
        }
        let mut rooms = watcher.rooms();
        rooms.retain(|(room_id, membership)| {
            membership.state == MembershipState::Join && request.wanted.rooms.passes_room(room_id)
        });
        if let Some(before) = &before {
            // Only where one of those whom it is about is or was can they have said anything.
            let others: Vec<&UserId> = before.symmetric_difference(&now).map(|user_id| &**user_id).collect();
            let theirs = self.0.watchers.look_up_rooms_of(&others).await?;
            rooms.retain(|(room_id, _)| theirs.contains(room_id));
        }
        let mut recounted = Vec::new();
        for (room_id, membership) in rooms {
            if self.0.unread.are_others(user_id, &room_id, before.as_ref(), &now).await? {
                recounted.push((room_id, membership));
            }
        }
        Ok(recounted)
    }

    /// Returns how many bytes the events have that were added.
    async fn gather_room(
        &self,
        asked: SyncContext<'_>,
        changed: &ChangedRoom,
        room: &Arc<Room>,
        gathered: &mut Gathered,
    ) -> Result<usize> {
        let (request, ChangedRoom { room_id, membership, is_recounted, .. }) = (asked.request, changed);
        let since = self.0.membership_since(request, room, membership).await?;
        let mut bytes = 0;
        match membership.state {
            MembershipState::Join => {
                let joined = self.gather_joined(asked, room_id, room, &since).await?;
                // A room that is new to the client is sent even where nothing of it passes the filter.
                if since.is_new() || request.full_state || *is_recounted || !joined.is_empty() {
                    bytes = bytes_of(&joined.timeline, &joined.state);
                    gathered.joined.push(joined);
                }
            }
            MembershipState::Invite if since.is_news() => {
                // As the room was then: what has become of it since is for its members.
                let state = self.0.rooms.state_at(room, Order::at(membership.position)).await?;
                let inviter = state.member(&request.client.user_id).map(|pdu| pdu.sender());
                if self.0.shows_invite(&request.client.user_id, inviter).await? {
                    let mut state = state::stripped(&state, &request.client.user_id);
                    self.0.rooms.withhold_state(room_id, &request.client.user_id, &mut state).await?;
                    gathered.invited.push(StrippedRoom { room_id: room_id.to_owned(), state });
                }
            }
            MembershipState::Knock if since.is_news() => {
                let state = self.0.rooms.state_at(room, Order::at(membership.position)).await?;
                let mut state = state::stripped(&state, &request.client.user_id);
                self.0.rooms.withhold_state(room_id, &request.client.user_id, &mut state).await?;
                gathered.knocked.push(StrippedRoom { room_id: room_id.to_owned(), state });
            }
            MembershipState::Leave | MembershipState::Ban if since.shows_leave(request, membership.forgotten) => {
                let left = self.gather_left(asked, room_id, room, membership, &since).await?;
                bytes = bytes_of(&left.timeline, &left.state);
                gathered.left.push(left);
            }
            _ => {}
        }
        Ok(bytes)
    }

    async fn gather_joined(
        &self,
        asked: SyncContext<'_>,
        room_id: &RoomId,
        room: &Arc<Room>,
        since: &ClientView,
    ) -> Result<JoinedRoom> {
        let SyncContext { request, until, data } = asked;
        // Whom they ignore now: what is sent of a room is never made of two lists.
        let ignored = data.ignored();
        let after = since.timeline_after();
        let span = (Order::at(after), Order::at(until));
        let mut timeline = timeline::gather(&self.0, request, room, &ignored, span).await?;
        let mut state = state::gather(&self.0, request, room, since, &timeline, span.1).await?;
        timeline.limited |= since.has_just_entered() && hides_the_beginning(request, &timeline);
        let summary = state
            .heroes
            .take()
            .map(|heroes| room.view(|view| MemberSummary { heroes, joined: view.joined(), invited: view.invited() }));
        // To a client to which the room is new, old receipts and typing are news.
        let news_after = if since.is_new() { Position::START } else { after };
        let receipts = self.receipts(request, room_id, news_after, until).await?;
        let typing = self.0.typists.since(room_id, news_after, until, self.0.clock.now()).await?;
        let account_data = asked.room_account_data(room_id, news_after, until);
        Ok(JoinedRoom {
            room_id: room_id.to_owned(),
            timeline,
            state,
            summary,
            receipts,
            // That nobody types is no news of a room that the client did not know.
            typing: typing
                .filter(|users| !since.is_new() || !users.is_empty())
                .filter(|_| request.wanted.ephemeral.passes_kind("m.typing")),
            account_data,
            unread: self.0.unread.counts_of(&request.client.user_id, room_id, &ignored).await?,
        })
    }

    /// A room that was left: what was said up to the leaving. What has become of the user since comes alone: a ban or
    /// an invitation opens nothing that came after they left. Of a room that they have forgotten, only that is sent.
    async fn gather_left(
        &self,
        asked: SyncContext<'_>,
        room_id: &RoomId,
        room: &Arc<Room>,
        membership: &WatchedMembership,
        since: &ClientView,
    ) -> Result<LeftRoom> {
        let request = asked.request;
        let (after, until) = (since.timeline_after(), membership.position);
        let (seen, end) = (Order::at(after), Order::at(until));
        let sight = self.0.rooms.sight(room, &request.client.user_id).await?;
        let left = sight.left_at().filter(|_| !membership.forgotten).map(|left| left.min(end));
        let Some(left) = left.filter(|left| *left > seen) else {
            // An invitation, a knock or a ban has ended, or begun. The user has not been inside since.
            let timeline = timeline::only(&self.0, request, room, end).await?;
            let (room_id, state) = (room_id.to_owned(), RoomState::default().with(request, &timeline));
            return Ok(LeftRoom { room_id, timeline, state, account_data: Vec::new() });
        };
        let ignored = asked.data.ignored();
        let mut timeline = timeline::gather(&self.0, request, room, &ignored, (seen, left)).await?;
        let mut state = state::gather(&self.0, request, room, since, &timeline, left).await?;
        // What became of them after they had left.
        if left < end {
            let later = timeline::only(&self.0, request, room, end).await?;
            state = state.with(request, &later);
            timeline.events.extend(later.events);
        }
        let account_data = asked.room_account_data(room_id, after, until);
        Ok(LeftRoom { room_id: room_id.to_owned(), timeline, state, account_data })
    }

    async fn receipts(
        &self,
        request: &SyncRequest,
        room_id: &RoomId,
        after: Position,
        until: Position,
    ) -> Result<Vec<(Position, Arc<Receipt>)>> {
        if !request.wanted.ephemeral.passes_kind("m.receipt") {
            return Ok(Vec::new());
        }
        let mut receipts = self.0.receipts.since(room_id, after, until, &request.client.user_id).await?;
        receipts.retain(|(_, receipt)| request.wanted.ephemeral.passes_sender(&receipt.user_id));
        Ok(receipts)
    }
}

impl SyncContext<'_> {
    /// Global account data since the client's position.
    fn global_account_data(&self) -> Result<Vec<Arc<AccountData>>> {
        let after = self.request.since.unwrap_or_default();
        let mut data = self.data.since(None, after, self.until, self.request.begins_anew);
        // They stand in no table as long as nobody can change them.
        if self.request.since.is_none() {
            data.push(push_rules_data(&self.request.client.user_id)?);
        }
        data.retain(|data| self.request.wanted.account_data.passes_kind(&data.kind));
        Ok(data)
    }

    /// Account data of a room after a place, as far as the filter wants it.
    fn room_account_data(&self, room_id: &RoomId, after: Position, until: Position) -> Vec<Arc<AccountData>> {
        let filter = &self.request.wanted.room_account_data;
        if !filter.passes_room(room_id) {
            return Vec::new();
        }
        let mut data = self.data.since(Some(room_id), after, until, self.request.begins_anew);
        data.retain(|data| filter.passes_kind(&data.kind));
        data
    }
}

/// How many bytes of events are sent of a room.
fn bytes_of(timeline: &Timeline, state: &RoomState) -> usize {
    let events = timeline.events.iter().map(|event| &event.pdu).chain(state.events());
    events.map(|pdu| pdu.json().get().len()).sum()
}

/// Whether anything of a room may be sent. A client that knows nothing gets the rooms that were left only if it asks
/// for them, and then there is no need to look at them.
fn may_be_shown(request: &SyncRequest, membership: &WatchedMembership) -> bool {
    let is_outside = matches!(membership.state, MembershipState::Leave | MembershipState::Ban);
    !is_outside || request.since.is_some() || shows_left_rooms(request)
}

/// Whether a filter may be why the timeline does not begin as the room did. Whoever enters a room and gets all that
/// passes can't know that it is all, and has to look.
fn hides_the_beginning(request: &SyncRequest, timeline: &Timeline) -> bool {
    let begins = |event: &Arc<Stored>| *event.pdu.kind() == TimelineEventType::RoomCreate;
    let filters = !request.wanted.timeline.events.passes_everything() || !request.wanted.timeline.relations.is_any();
    filters && !timeline.events.first().is_some_and(begins)
}
