//! The initial syncs of old: all rooms of a user at once, or one room that they may only look into.
//!
//! Both answer with what `/sync` is made of, in the shape of that time; pages of history and the event stream lead on
//! from the tokens in them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3initialsync> and
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync>

use std::{collections::HashSet, mem, sync::Arc};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomId, RoomId,
    api::Direction,
    events::{
        AnyGlobalAccountDataEvent, AnyRoomAccountDataEvent, AnyStateEvent, AnyTimelineEvent, TimelineEventType,
        presence::PresenceEvent, room::member::MembershipState,
    },
    serde::Raw,
};
use serde::Serialize;

use super::{
    SyncRequest, Syncs,
    client::Client,
    gathered::{Gathered, StrippedRoom},
    timeline::Timeline,
    v3::account_data,
    wanted::{Wanted, WantedTimeline},
    watcher::Watcher,
};
use crate::{
    error::{Error, Result},
    event::{
        ClientFormat, Pdu, Stored, client_event,
        fact::{OutsideMembership, OutsideState},
    },
    ground::position::Position,
    log::Tokens,
    room::{graph::state::membership_of, read::timeline::Walk},
};

/// How many messages of one room are sent.
const MESSAGES: usize = 20;

/// Everything that concerns a user, while it is written.
pub(crate) struct InitialSyncBody {
    syncs: Syncs,
    client: Client,
    text: Vec<u8>,
    begun: Begun,
}

/// How much has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    Nothing,
    /// All but the rooms.
    Rooms,
    /// One room at least.
    List,
}

/// What is not of a room.
#[derive(Serialize)]
struct InitialSyncHead {
    /// With this the client goes on, on the event stream.
    end: String,
    presence: Vec<PresenceEvent>,
    account_data: Vec<Raw<AnyGlobalAccountDataEvent>>,
}

/// One room.
#[derive(Serialize)]
pub(crate) struct RoomInfo {
    room_id: OwnedRoomId,
    /// None for whoever looks in from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<MembershipState>,
    /// The event that invites the user, where they are invited.
    #[serde(skip_serializing_if = "Option::is_none")]
    invite: Option<Raw<AnyTimelineEvent>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Messages>,
    /// The state now, or when the user left.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Vec<Raw<AnyStateEvent>>>,
    /// Whether the directory shows the room.
    visibility: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_data: Option<Vec<Raw<AnyRoomAccountDataEvent>>>,
}

/// The newest messages of a room, oldest first.
#[derive(Serialize)]
struct Messages {
    /// Left out where there are no older ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    /// Where the event stream goes on.
    end: String,
    chunk: Vec<Raw<AnyTimelineEvent>>,
}

/// For whom it is written.
struct InitialSyncWriter<'a> {
    client: &'a Client,
    /// The ages of events are counted to this moment.
    now: MilliSecondsSinceUnixEpoch,
    /// Those of the rooms that the directory shows.
    published: HashSet<OwnedRoomId>,
    tokens: Tokens,
}

impl Syncs {
    /// All rooms of a user, with up to `limit` messages of each; with `archived` also those that they have left: what to
    /// write them to, and what to gather.
    pub(crate) fn initial(
        &self,
        client: Client,
        limit: Option<usize>,
        archived: bool,
    ) -> (InitialSyncBody, SyncRequest) {
        let timeline = WantedTimeline { limit, ..WantedTimeline::default() };
        let wanted = Wanted { left_rooms: archived, timeline, ..Wanted::default() };
        let (syncs, text) = (self.clone(), Vec::new());
        let body = InitialSyncBody { syncs, client: client.clone(), text, begun: Begun::Nothing };
        // The messages are not to be applied to the state: it is as it is after them.
        let request = SyncRequest {
            client,
            wanted,
            since: None,
            // Whoever goes on with `/sync` gets them there.
            delivered: None,
            begins_anew: false,
            full_state: false,
            state_after: true,
        };
        (body, request)
    }

    /// One room, for whoever may read it.
    pub(crate) async fn initial_of_room(&self, client: &Client, room_id: &RoomId) -> Result<RoomInfo> {
        let Client { user_id, device_id } = client;
        let ignored = self.0.account_data.ignored(user_id).await?;
        let mut reading = self.0.rooms.open(room_id, user_id).await?.ignoring(ignored);
        // For whoever has left, the present is the moment at which they did.
        let end = reading.now();
        let walk = Walk::over_everything(&reading, Direction::Backward, (Some(end), None), MESSAGES);
        let page = self.0.rooms.page(&mut reading, &walk).await?;
        let state = self.0.rooms.readable_state(&reading).await?;
        let published = self.0.rooms.list_published_among(&[room_id]).await?;
        let now = self.0.clock.now();
        let events = page.events.iter().map(|event| &**event);
        let events = self.0.rooms.writer(&reading, events, device_id, now).await?;
        let tokens = self.0.rooms.log().page_tokens(page.end.into_iter().chain([end])).await?;
        let messages = Messages {
            start: page.end.map(|start| tokens.of_page(start).to_string()),
            end: tokens.of(end.floor()).to_string(),
            chunk: page.events.iter().rev().map(|event| events.write(event)).collect(),
        };
        let data = self.0.account_data.of_user(user_id).await?;
        // Whatever was set, up to now.
        let data = data.since(Some(room_id), Position::START, Position(i64::MAX), false);
        let membership = state.member(user_id).map(membership_of);
        let writer = InitialSyncWriter { client, now, published, tokens };
        Ok(RoomInfo {
            // The specification's list of memberships has no knocking.
            membership: membership.filter(|membership| *membership != MembershipState::Knock),
            messages: Some(messages),
            state: Some(writer.state(state.iter().collect::<Vec<_>>().iter())),
            account_data: Some(account_data(&data)?),
            ..writer.about(room_id)
        })
    }
}

impl InitialSyncBody {
    /// Writes the next part of what was gathered.
    pub(crate) async fn write_part(&mut self, gathered: Gathered) -> Result<()> {
        let Syncs(sources) = &self.syncs;
        let watcher = self.syncs.watcher(&self.client.user_id).await?;
        let joined = gathered.joined.iter().map(|room| &*room.room_id);
        let others = gathered.left.iter().map(|room| &*room.room_id);
        let invited = gathered.invited.iter().map(|room| &*room.room_id);
        // Rooms outside are not on this server's list.
        let rooms: Vec<&RoomId> = joined.chain(others).chain(invited).collect();
        let published = sources.rooms.list_published_among(&rooms).await?;
        let places = gathered.left.iter().filter_map(|room| Some(watcher.membership(&room.room_id)?.position));
        let places: Vec<Position> =
            places.chain(gathered.joined.iter().map(|room| room.timeline.start.floor())).collect();
        let others = gathered.left.iter().map(|room| room.timeline.start.floor()).chain([gathered.until]);
        // All at once: each place has the mark of its batch looked up.
        let tokens = sources.rooms.log().tokens(places.into_iter().chain(others)).await?;
        let (client, now) = (self.client.clone(), sources.clock.now());
        InitialSyncWriter { client: &client, now, published, tokens }.write(self, gathered, &watcher)
    }

    /// What has been written since this was last called.
    pub(crate) fn take_text(&mut self) -> Vec<u8> {
        mem::take(&mut self.text)
    }

    /// The last of it.
    pub(crate) fn into_text(mut self) -> Vec<u8> {
        self.text.extend(b"]}");
        self.text
    }

    fn head(&mut self, head: &InitialSyncHead) -> Result<()> {
        serde_json::to_writer(&mut self.text, head).map_err(Error::broken)?;
        // The rooms come in the same object.
        self.text.pop();
        self.text.extend(br#","rooms":["#);
        self.begun = Begun::Rooms;
        Ok(())
    }

    fn room(&mut self, room: &RoomInfo) -> Result<()> {
        if self.begun == Begun::List {
            self.text.push(b',');
        }
        self.begun = Begun::List;
        serde_json::to_writer(&mut self.text, room).map_err(Error::broken)
    }
}

impl InitialSyncWriter<'_> {
    fn write(&self, body: &mut InitialSyncBody, gathered: Gathered, watcher: &Watcher) -> Result<()> {
        if body.begun == Begun::Nothing {
            let (end, presence) = (self.tokens.of(gathered.until).to_string(), gathered.presence);
            body.head(&InitialSyncHead { end, presence, account_data: account_data(&gathered.account_data)? })?;
        }
        for room in &gathered.joined {
            body.room(&RoomInfo {
                membership: Some(MembershipState::Join),
                messages: Some(self.messages(&room.timeline, gathered.until)),
                state: Some(self.state(room.state.events())),
                account_data: Some(account_data(&room.account_data)?),
                ..self.about(&room.room_id)
            })?;
        }
        for room in &gathered.invited {
            let (membership, invite) = (Some(MembershipState::Invite), self.invite(room));
            body.room(&RoomInfo { membership, invite, ..self.about(&room.room_id) })?;
        }
        for room in &gathered.left {
            let membership = watcher.membership(&room.room_id);
            let left = membership.as_ref().map_or(gathered.until, |membership| membership.position);
            body.room(&RoomInfo {
                membership: membership.map(|membership| membership.state),
                messages: Some(self.messages(&room.timeline, left)),
                state: Some(self.state(room.state.events())),
                account_data: Some(account_data(&room.account_data)?),
                ..self.about(&room.room_id)
            })?;
        }
        for room in gathered.outside.iter().filter_map(|membership| self.outside(membership)) {
            body.room(&room)?;
        }
        Ok(())
    }

    /// What is sent of every room.
    ///
    /// The rest is for whoever has more to say of it.
    fn about(&self, room_id: &RoomId) -> RoomInfo {
        RoomInfo {
            room_id: room_id.to_owned(),
            membership: None,
            invite: None,
            messages: None,
            state: None,
            visibility: if self.published.contains(room_id) { "public" } else { "private" },
            account_data: None,
        }
    }

    /// Pages of history lead on from `start`, and the stream from `end`.
    fn messages(&self, timeline: &Timeline, end: Position) -> Messages {
        let write = |event: &Arc<Stored>| {
            let format = timeline.format(event, self.client, self.now);
            client_event(&event.pdu, &ClientFormat { with_room_id: true, ..format })
        };
        Messages {
            start: timeline.limited.then(|| self.tokens.of_page(timeline.start).to_string()),
            end: self.tokens.of(end).to_string(),
            chunk: timeline.events.iter().map(write).collect(),
        }
    }

    /// State events with their room, as that time had them.
    fn state<'a>(&self, events: impl Iterator<Item = &'a Arc<Pdu>>) -> Vec<Raw<AnyStateEvent>> {
        events.map(|pdu| client_event(pdu, &self.plain())).collect()
    }

    /// The user's own membership, of what is shown of a room outside.
    fn invite(&self, room: &StrippedRoom) -> Option<Raw<AnyTimelineEvent>> {
        let is_own = |pdu: &&Arc<Pdu>| {
            *pdu.kind() == TimelineEventType::RoomMember && pdu.state_key() == Some(self.client.user_id.as_str())
        };
        room.state.iter().find(is_own).map(|pdu| client_event(pdu, &self.plain()))
    }

    /// A room that this server holds no history of. The specification knows of no knocks here.
    fn outside(&self, told: &OutsideMembership) -> Option<RoomInfo> {
        let membership = Some(match told.state {
            OutsideState::Invited => MembershipState::Invite,
            OutsideState::Ended => MembershipState::Leave,
            OutsideState::Knocking => return None,
        });
        let event = told.event.as_ref().filter(|_| told.state == OutsideState::Invited);
        let invite = event.map(|event| client_event(&event.pdu, &self.plain()));
        Some(RoomInfo { membership, invite, ..self.about(&told.room_id) })
    }

    /// Without transaction ids and bundles, which are for messages.
    fn plain(&self) -> ClientFormat {
        ClientFormat { with_room_id: true, now: Some(self.now), ..ClientFormat::default() }
    }
}
