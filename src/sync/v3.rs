//! Classic `/sync`: what was gathered, as its response.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId, UInt,
    api::client::{
        filter::EventFormat,
        sync::sync_events::{UnreadNotificationsCount, v3},
    },
    events::{AnyRoomAccountDataEvent, AnySyncStateEvent, AnySyncTimelineEvent},
    serde::Raw,
};
use serde::Serialize;
use serde_json::{json, value::to_raw_value};

use super::{
    Syncs,
    gather::{Gathered, JoinedRoom, LeftRoom, StrippedRoom, Summary},
    state::RoomState,
    timeline::Timeline,
};
use crate::{
    error::{Error, Result},
    event::{ClientFormat, Pdu, client_event, stripped_state},
    fact::AccountData,
    filter::Definition,
    log::Tokens,
    position::Token,
    receipt::receipt_events,
    room::fields::only_fields,
    typing::typing_event,
    unread::Count,
};

/// For whom the response is written.
pub(crate) struct Writer {
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
    pub(crate) filter: Arc<Definition>,
    /// None for clients that want the state before the timeline.
    pub(crate) state_after: Option<StateAfter>,
    /// Whether the client goes on from a log that a restored backup has replaced.
    pub(crate) begins_anew: bool,
}

/// How the state after the timeline is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateAfter {
    Stable,
    /// As it was called before it was specified, for clients that ask for no other.
    ///
    /// <https://github.com/matrix-org/matrix-spec-proposals/pull/4222>
    Unstable,
}

/// The response, in which a room always has its `state` and its account data, and a timeline says whether it is limited:
/// there are clients that read nothing without.
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
    join: BTreeMap<OwnedRoomId, Joined>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    invite: BTreeMap<OwnedRoomId, v3::InvitedRoom>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    knock: BTreeMap<OwnedRoomId, v3::KnockedRoom>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    leave: BTreeMap<OwnedRoomId, Left>,
}

#[derive(Serialize)]
struct Joined {
    #[serde(skip_serializing_if = "v3::RoomSummary::is_empty")]
    summary: v3::RoomSummary,
    timeline: WrittenTimeline,
    #[serde(flatten)]
    state: State,
    #[serde(skip_serializing_if = "v3::Ephemeral::is_empty")]
    ephemeral: v3::Ephemeral,
    account_data: Events<AnyRoomAccountDataEvent>,
    unread_notifications: UnreadNotificationsCount,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unread_thread_notifications: BTreeMap<OwnedEventId, UnreadNotificationsCount>,
}

#[derive(Serialize)]
struct Left {
    timeline: WrittenTimeline,
    #[serde(flatten)]
    state: State,
    account_data: Events<AnyRoomAccountDataEvent>,
}

#[derive(Serialize)]
struct WrittenTimeline {
    events: Vec<Raw<AnySyncTimelineEvent>>,
    limited: bool,
    prev_batch: String,
}

/// The state of a room, under the name that the client wants it by.
#[derive(Serialize)]
enum State {
    #[serde(rename = "state")]
    Before(Events<AnySyncStateEvent>),
    #[serde(rename = "state_after")]
    After(Events<AnySyncStateEvent>),
    #[serde(rename = "org.matrix.msc4222.state_after")]
    UnstableAfter(Events<AnySyncStateEvent>),
}

#[derive(Serialize)]
#[serde(bound = "")]
struct Events<T> {
    events: Vec<Raw<T>>,
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
    /// Writes the response, with the tokens of the places in it and the client's next one.
    pub(crate) fn response(
        &self,
        gathered: Gathered,
        tokens: &Tokens,
        next: Token,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<Response> {
        Page { writer: self, tokens, now }.response(gathered, next)
    }
}

impl Syncs {
    /// The tokens of the places that a response names.
    pub(crate) async fn tokens(&self, gathered: &Gathered) -> Result<Tokens> {
        let joined = gathered.joined.iter().map(|room| &room.timeline);
        let timelines = joined.chain(gathered.left.iter().map(|room| &room.timeline));
        self.0.rooms.log().tokens(timelines.map(|timeline| timeline.start).chain([gathered.until])).await
    }
}

impl Page<'_> {
    fn response(&self, gathered: Gathered, next: Token) -> Result<Response> {
        let mut response = Response {
            next_batch: next.to_string(),
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

    fn joined(&self, room: JoinedRoom) -> Result<Joined> {
        let account_data = Events { events: account_data(&room.account_data)? };
        let mut ephemeral = v3::Ephemeral::default();
        ephemeral.events.extend(receipt_events(&room.receipts));
        ephemeral.events.extend(room.typing.and_then(typing_event));
        let per_thread = self.writer.filter.room.timeline.unread_thread_notifications;
        let unread = count(if per_thread { room.unread.main } else { room.unread.total() });
        let threads = room.unread.threads.into_iter().filter(|_| per_thread);
        Ok(Joined {
            summary: room.summary.map(summary).unwrap_or_default(),
            timeline: self.timeline(&room.timeline)?,
            state: self.state(&room.state)?,
            ephemeral,
            account_data,
            unread_notifications: unread,
            unread_thread_notifications: threads.map(|(root, unread)| (root, count(unread))).collect(),
        })
    }

    fn left(&self, room: &LeftRoom) -> Result<Left> {
        let account_data = Events { events: account_data(&room.account_data)? };
        let (timeline, state) = (self.timeline(&room.timeline)?, self.state(&room.state)?);
        Ok(Left { timeline, state, account_data })
    }

    fn timeline(&self, timeline: &Timeline) -> Result<WrittenTimeline> {
        let events = timeline.events.iter().map(|event| {
            let format = timeline.format(event, &self.writer.user_id, &self.writer.device_id, self.now);
            self.event(&event.pdu, &format)
        });
        let events = events.collect::<Result<_>>()?;
        let limited = timeline.limited || self.writer.begins_anew;
        let prev_batch = self.tokens.of(timeline.start).to_string();
        Ok(WrittenTimeline { events, limited, prev_batch })
    }

    fn state(&self, state: &RoomState) -> Result<State> {
        let format = ClientFormat { now: Some(self.now), ..ClientFormat::default() };
        let events = state.events().map(|pdu| self.event(pdu, &format)).collect::<Result<_>>()?;
        let events = Events { events };
        Ok(match self.writer.state_after {
            None => State::Before(events),
            Some(StateAfter::Stable) => State::After(events),
            Some(StateAfter::Unstable) => State::UnstableAfter(events),
        })
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
