//! Classic `/sync`: what was gathered, as its response.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedRoomId, OwnedUserId, UInt,
    api::client::{
        filter::{EventFormat, FilterDefinition},
        sync::sync_events::{UnreadNotificationsCount, v3},
    },
    events::AnySyncStateEvent,
    serde::Raw,
};
use serde::Serialize;
use serde_json::{json, value::to_raw_value};

use super::{
    Syncs,
    gather::{Gathered, JoinedRoom, LeftRoom, StrippedRoom, Summary},
    timeline::Timeline,
};
use crate::{
    error::{Error, Result},
    event::{ClientFormat, Pdu, Stored, client_event, stripped_state},
    fact::AccountData,
    log::Tokens,
    position::Position,
    receipt::receipt_events,
    room::fields::only_fields,
    typing::typing_event,
    unread::Count,
};

/// For whom the response is written.
pub(crate) struct Writer {
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
    pub(crate) filter: Arc<FilterDefinition>,
    pub(crate) state_after: bool,
    /// Whether the client goes on from a log that a restored backup has replaced.
    pub(crate) begins_anew: bool,
}

/// The response, in which a room that was left always has its `state`: matrix-nio reads none without.
#[derive(Serialize)]
pub(crate) struct Response {
    next_batch: String,
    #[serde(skip_serializing_if = "Rooms::is_empty")]
    rooms: Rooms,
    #[serde(skip_serializing_if = "v3::Presence::is_empty")]
    presence: v3::Presence,
    #[serde(skip_serializing_if = "v3::GlobalAccountData::is_empty")]
    account_data: v3::GlobalAccountData,
}

#[derive(Default, Serialize)]
struct Rooms {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    join: BTreeMap<OwnedRoomId, v3::JoinedRoom>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    invite: BTreeMap<OwnedRoomId, v3::InvitedRoom>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    knock: BTreeMap<OwnedRoomId, v3::KnockedRoom>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    leave: BTreeMap<OwnedRoomId, Left>,
}

#[derive(Serialize)]
struct Left {
    timeline: v3::Timeline,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Events>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_after: Option<Events>,
    #[serde(skip_serializing_if = "v3::RoomAccountData::is_empty")]
    account_data: v3::RoomAccountData,
}

#[derive(Serialize)]
struct Events {
    events: Vec<Raw<AnySyncStateEvent>>,
}

impl Rooms {
    fn is_empty(&self) -> bool {
        self.join.is_empty() && self.invite.is_empty() && self.knock.is_empty() && self.leave.is_empty()
    }
}

/// A writer at work: the ages of events are counted to one moment.
struct Page<'a> {
    writer: &'a Writer,
    tokens: &'a Tokens,
    now: MilliSecondsSinceUnixEpoch,
}

impl Writer {
    /// Writes the response, with the tokens of the places in it.
    pub(crate) fn response(
        &self,
        gathered: Gathered,
        tokens: &Tokens,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<Response> {
        Page { writer: self, tokens, now }.response(gathered)
    }
}

impl Syncs {
    /// The tokens of the places that a response names.
    pub(crate) async fn tokens(&self, gathered: &Gathered) -> Result<Tokens> {
        let joined = gathered.joined.iter().map(|room| &room.timeline);
        let timelines = joined.chain(gathered.left.iter().map(|room| &room.timeline));
        self.0.rooms.log().tokens(timelines.map(prev_batch).chain([gathered.until])).await
    }
}

impl Page<'_> {
    fn response(&self, gathered: Gathered) -> Result<Response> {
        let mut response = Response {
            next_batch: self.tokens.of(gathered.until).to_string(),
            rooms: Rooms::default(),
            presence: v3::Presence::default(),
            account_data: v3::GlobalAccountData::default(),
        };
        for room in gathered.joined {
            let room_id = room.room_id.clone();
            response.rooms.join.insert(room_id, self.joined(room)?);
        }
        for room in gathered.left {
            let room_id = room.room_id.clone();
            response.rooms.leave.insert(room_id, self.left(&room)?);
        }
        for room in gathered.invited {
            let mut invited = v3::InvitedRoom::new();
            invited.invite_state.events = stripped(&room);
            response.rooms.invite.insert(room.room_id, invited);
        }
        for room in gathered.knocked {
            let mut knocked = v3::KnockedRoom::new();
            knocked.knock_state.events = stripped(&room);
            response.rooms.knock.insert(room.room_id, knocked);
        }
        response.account_data.events = account_data(&gathered.account_data)?;
        response.presence.events =
            gathered.presence.iter().map(Raw::new).collect::<Result<_, _>>().map_err(Error::broken)?;
        Ok(response)
    }

    fn joined(&self, room: JoinedRoom) -> Result<v3::JoinedRoom> {
        let mut joined = v3::JoinedRoom::new();
        joined.timeline = self.timeline(&room.timeline)?;
        let state = self.state(room.state.events())?.into();
        joined.state = if self.writer.state_after { v3::State::After(state) } else { v3::State::Before(state) };
        joined.summary = room.summary.map(summary).unwrap_or_default();
        joined.account_data.events = account_data(&room.account_data)?;
        joined.ephemeral.events.extend(receipt_events(&room.receipts));
        joined.ephemeral.events.extend(room.typing.and_then(typing_event));
        let per_thread = self.writer.filter.room.timeline.unread_thread_notifications;
        joined.unread_notifications = count(if per_thread { room.unread.main } else { room.unread.total() });
        if per_thread {
            joined.unread_thread_notifications =
                room.unread.threads.into_iter().map(|(root, unread)| (root, count(unread))).collect();
        }
        Ok(joined)
    }

    fn left(&self, room: &LeftRoom) -> Result<Left> {
        let events = Events { events: self.state(room.state.events())? };
        let (state, state_after) = if self.writer.state_after { (None, Some(events)) } else { (Some(events), None) };
        let mut account_data_of_room = v3::RoomAccountData::default();
        account_data_of_room.events = account_data(&room.account_data)?;
        Ok(Left { timeline: self.timeline(&room.timeline)?, state, state_after, account_data: account_data_of_room })
    }

    fn timeline(&self, timeline: &Timeline) -> Result<v3::Timeline> {
        let mut out = v3::Timeline::new();
        out.limited = timeline.limited || self.writer.begins_anew;
        let has_prev_batch = out.limited || !timeline.is_empty();
        out.prev_batch = has_prev_batch.then(|| self.tokens.of(prev_batch(timeline)).to_string());
        for event in &timeline.events {
            out.events.push(self.timeline_event(event, timeline)?);
        }
        Ok(out)
    }

    fn timeline_event<T>(&self, event: &Stored, timeline: &Timeline) -> Result<Raw<T>> {
        let format = timeline.format(event, &self.writer.user_id, &self.writer.device_id, self.now);
        self.event(&event.pdu, &format)
    }

    fn state<'a>(&self, events: impl Iterator<Item = &'a Arc<Pdu>>) -> Result<Vec<Raw<AnySyncStateEvent>>> {
        let format = ClientFormat { now: Some(self.now), ..ClientFormat::default() };
        events.map(|pdu| self.event(pdu, &format)).collect()
    }

    fn event<T>(&self, pdu: &Pdu, format: &ClientFormat) -> Result<Raw<T>> {
        let event = match self.writer.filter.event_format {
            EventFormat::Federation => pdu.raw(),
            _ => client_event(pdu, format),
        };
        match &self.writer.filter.event_fields {
            Some(fields) => only_fields(&event, fields).map_err(Error::broken),
            None => Ok(event),
        }
    }
}

/// Where somebody who pages back begins: just before the first event.
pub(super) fn prev_batch(timeline: &Timeline) -> Position {
    timeline.events.first().map_or(timeline.start, |first| first.position.before())
}

fn stripped<T>(room: &StrippedRoom) -> Vec<Raw<T>> {
    room.state.iter().map(|pdu| stripped_state(pdu)).collect()
}

/// Account data as events.
pub(super) fn account_data<T>(all: &[Arc<AccountData>]) -> Result<Vec<Raw<T>>> {
    all.iter().map(|data| raw(&json!({ "type": data.kind, "content": &*data.content }))).collect()
}

fn raw<T>(value: &serde_json::Value) -> Result<Raw<T>> {
    to_raw_value(value).map(Raw::from_json).map_err(Error::broken)
}

fn summary(summary: Summary) -> v3::RoomSummary {
    let mut out = v3::RoomSummary::new();
    out.heroes = summary.heroes;
    out.joined_member_count = Some(uint(summary.joined));
    out.invited_member_count = Some(uint(summary.invited));
    out
}

fn uint(value: usize) -> UInt {
    UInt::try_from(value).unwrap_or(UInt::MAX)
}

fn count(unread: Count) -> UnreadNotificationsCount {
    let mut out = UnreadNotificationsCount::new();
    out.notification_count = UInt::try_from(unread.notifications).ok();
    out.highlight_count = UInt::try_from(unread.highlights).ok();
    out
}
