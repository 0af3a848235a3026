//! The initial syncs of old: all rooms of a user at once, or one room that they may only look into.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3initialsync> and
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync>

use std::{collections::HashSet, sync::Arc};

use ruma::{
    DeviceId, MilliSecondsSinceUnixEpoch, OwnedRoomId, RoomId, UInt, UserId,
    api::{Direction, client::filter::RoomEventFilter},
    events::{
        AnyGlobalAccountDataEvent, AnyRoomAccountDataEvent, AnyStateEvent, AnyTimelineEvent, TimelineEventType,
        presence::PresenceEvent, room::member::MembershipState,
    },
    serde::Raw,
};
use serde::Serialize;

use super::{
    Request, Syncs,
    gather::{Gathered, StrippedRoom},
    timeline::Timeline,
    v3::account_data,
    watch::Watcher,
};
use crate::{
    error::Result,
    event::{ClientFormat, Pdu, Stored, client_event},
    filter::Definition,
    log::Tokens,
    position::Position,
    room::{state::membership_of, timeline::Walk},
};

/// How many messages are told of one room.
const MESSAGES: usize = 20;

/// Everything that concerns a user.
#[derive(Serialize)]
pub(crate) struct InitialSync {
    end: String,
    presence: Vec<PresenceEvent>,
    rooms: Vec<RoomInfo>,
    account_data: Vec<Raw<AnyGlobalAccountDataEvent>>,
}

/// One room.
#[derive(Serialize)]
pub(crate) struct RoomInfo {
    room_id: OwnedRoomId,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<MembershipState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invite: Option<Raw<AnyTimelineEvent>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Messages>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Vec<Raw<AnyStateEvent>>>,
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
    end: String,
    chunk: Vec<Raw<AnyTimelineEvent>>,
}

/// For whom it is written.
struct Writer<'a> {
    user_id: &'a UserId,
    device_id: &'a DeviceId,
    now: MilliSecondsSinceUnixEpoch,
    published: HashSet<OwnedRoomId>,
    tokens: Tokens,
}

impl Syncs {
    /// All rooms of a user, with up to `limit` messages of each; with `archived` also those that they have left.
    pub(crate) async fn initial(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        limit: Option<UInt>,
        archived: bool,
    ) -> Result<InitialSync> {
        let mut filter = Definition::default();
        filter.events.room.include_leave = archived;
        filter.events.room.timeline.limit = limit;
        let (user, filter) = (user_id.to_owned(), Arc::new(filter));
        let request =
            Request { user_id: user, filter, since: None, begins_anew: false, full_state: false, state_after: true };
        let watcher = self.watcher(user_id).await?;
        let gathered = self.gather(&request, &watcher).await?;
        let joined = gathered.joined.iter().map(|room| &*room.room_id);
        let others = gathered.left.iter().map(|room| &*room.room_id);
        let invited = gathered.invited.iter().map(|room| &*room.room_id);
        let rooms: Vec<&RoomId> = joined.chain(others).chain(invited).collect();
        let published = self.0.rooms.list_published_among(&rooms).await?;
        let places = gathered.left.iter().filter_map(|room| Some(watcher.membership(&room.room_id)?.position));
        let places: Vec<Position> = places.chain(gathered.joined.iter().map(|room| room.timeline.start)).collect();
        let others = gathered.left.iter().map(|room| room.timeline.start).chain([gathered.until]);
        let tokens = self.0.rooms.log().tokens(places.into_iter().chain(others)).await?;
        Writer { user_id, device_id, now: self.0.clock.now(), published, tokens }.initial(gathered, &watcher)
    }

    /// One room, for whoever may read it.
    pub(crate) async fn initial_of_room(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        room_id: &RoomId,
    ) -> Result<RoomInfo> {
        let ignored = self.0.account_data.ignored(user_id).await?;
        let mut reading = self.0.rooms.open(room_id, user_id).await?.ignoring(ignored);
        let filter = RoomEventFilter::default();
        let end = reading.now();
        let walk = Walk::new(&reading, Direction::Backward, (Some(end), None), MESSAGES, &filter);
        let page = self.0.rooms.page(&mut reading, &walk).await?;
        let state = self.0.rooms.readable_state(&reading).await?;
        let published = self.0.rooms.list_published_among(&[room_id]).await?;
        let now = self.0.clock.now();
        let events = page.events.iter().map(|event| &**event);
        let events = self.0.rooms.writer(&reading, events, device_id, now).await?;
        let tokens = self.0.rooms.log().tokens(page.end.into_iter().chain([end])).await?;
        let messages = Messages {
            start: page.end.map(|start| tokens.of(start).to_string()),
            end: tokens.of(end).to_string(),
            chunk: page.events.iter().rev().map(|event| events.write(event)).collect(),
        };
        let data = self.0.account_data.since(user_id, Position::START, Position(i64::MAX)).await?;
        let of_room = data.into_iter().map(|(_, data)| data).filter(|data| data.room_id.as_deref() == Some(room_id));
        let membership = state.member(user_id).map(membership_of);
        let writer = Writer { user_id, device_id, now, published, tokens };
        Ok(RoomInfo {
            // The specification's list of memberships has no knocking.
            membership: membership.filter(|membership| *membership != MembershipState::Knock),
            messages: Some(messages),
            state: Some(writer.state(state.iter())),
            account_data: Some(account_data(&of_room.collect::<Vec<_>>())?),
            ..writer.room(room_id)
        })
    }
}

impl Writer<'_> {
    fn initial(&self, gathered: Gathered, watcher: &Watcher) -> Result<InitialSync> {
        let mut rooms = Vec::with_capacity(gathered.joined.len() + gathered.invited.len() + gathered.left.len());
        for room in &gathered.joined {
            rooms.push(RoomInfo {
                membership: Some(MembershipState::Join),
                messages: Some(self.messages(&room.timeline, gathered.until)),
                state: Some(self.state(room.state.events())),
                account_data: Some(account_data(&room.account_data)?),
                ..self.room(&room.room_id)
            });
        }
        for room in &gathered.invited {
            let (membership, invite) = (Some(MembershipState::Invite), self.invite(room));
            rooms.push(RoomInfo { membership, invite, ..self.room(&room.room_id) });
        }
        for room in &gathered.left {
            let membership = watcher.membership(&room.room_id);
            let left = membership.as_ref().map_or(gathered.until, |membership| membership.position);
            rooms.push(RoomInfo {
                membership: membership.map(|membership| membership.state),
                messages: Some(self.messages(&room.timeline, left)),
                state: Some(self.state(room.state.events())),
                account_data: Some(account_data(&room.account_data)?),
                ..self.room(&room.room_id)
            });
        }
        let account_data = account_data(&gathered.account_data)?;
        Ok(InitialSync {
            end: self.tokens.of(gathered.until).to_string(),
            presence: gathered.presence,
            rooms,
            account_data,
        })
    }

    /// What is told of every room.
    fn room(&self, room_id: &RoomId) -> RoomInfo {
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

    fn messages(&self, timeline: &Timeline, end: Position) -> Messages {
        let write = |event: &Arc<Stored>| {
            let format = timeline.format(event, self.user_id, self.device_id, self.now);
            client_event(&event.pdu, &ClientFormat { with_room_id: true, ..format })
        };
        Messages {
            start: timeline.limited.then(|| self.tokens.of(timeline.start).to_string()),
            end: self.tokens.of(end).to_string(),
            chunk: timeline.events.iter().map(write).collect(),
        }
    }

    fn state<'a>(&self, events: impl Iterator<Item = &'a Arc<Pdu>>) -> Vec<Raw<AnyStateEvent>> {
        events.map(|pdu| client_event(pdu, &self.plain())).collect()
    }

    fn invite(&self, room: &StrippedRoom) -> Option<Raw<AnyTimelineEvent>> {
        let is_own = |pdu: &&Arc<Pdu>| {
            *pdu.kind() == TimelineEventType::RoomMember && pdu.state_key() == Some(self.user_id.as_str())
        };
        room.state.iter().find(is_own).map(|pdu| client_event(pdu, &self.plain()))
    }

    fn plain(&self) -> ClientFormat {
        ClientFormat { with_room_id: true, now: Some(self.now), ..ClientFormat::default() }
    }
}
