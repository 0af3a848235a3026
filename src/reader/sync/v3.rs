//! Classic `/sync`: what was gathered, as its response.
//!
//! It decides nothing: what is in the answer was gathered, and only names and places of fields are this file's. Types
//! of our own stand where ruma's leave out what clients look for. The response is text from the beginning, so that of
//! all rooms of a user only one at a time is there twice.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

mod filter;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, RoomId, UInt, UserId,
    api::client::{
        filter::EventFormat,
        sync::sync_events::{UnreadNotificationsCount, v3},
    },
    events::{AnyRoomAccountDataEvent, AnySyncStateEvent, AnySyncTimelineEvent},
    serde::Raw,
};
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Syncs,
    client::Client,
    device_lists::DeviceLists,
    gathered::{Gathered, JoinedRoom, LeftRoom, MemberSummary, StrippedRoom},
    key_counts::WrittenKeyCounts,
    state::RoomState,
    timeline::Timeline,
};
use crate::{
    ephemeral::{receipt::receipt_events, typing::typing_event},
    error::{Error, Result},
    event::{
        ClientFormat, Pdu, client_event,
        fact::{AccountData, OutsideEvent, OutsideMembership, OutsideState},
        stripped_state,
    },
    ground::position::Token,
    log::Tokens,
    people::{filter::StoredFilter, to_device::WaitingMessage},
    reader::unread::Count,
    room::read::fields::only_fields,
};

/// For whom the response is written.
pub(crate) struct SyncWriter {
    /// Who gets transaction ids of their own device.
    pub(crate) client: Client,
    /// For the fields and the format of events, and how threads are counted.
    pub(crate) filter: Arc<StoredFilter>,
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

/// The response while it is written, part by part. A room always has its `state` and its account data, and a timeline
/// says whether it is limited: there are clients that read nothing without.
pub(crate) struct SyncBody {
    text: Vec<u8>,
    next_batch: String,
    /// The list of rooms that is being written.
    open: Option<List>,
}

/// Rooms by what the user is in them, in the order in which they are written. Empty lists are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Invite,
    Knock,
    Leave,
    Join,
}

/// A room that the user is in.
#[derive(Serialize)]
struct JoinedRoomBody {
    #[serde(skip_serializing_if = "v3::RoomSummary::is_empty")]
    summary: v3::RoomSummary,
    timeline: TimelineBody,
    #[serde(flatten)]
    state: RoomStateBody,
    #[serde(skip_serializing_if = "v3::Ephemeral::is_empty")]
    ephemeral: v3::Ephemeral,
    account_data: EventsBody<AnyRoomAccountDataEvent>,
    unread_notifications: UnreadNotificationsCount,
    /// Only for clients that count threads apart.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unread_thread_notifications: BTreeMap<OwnedEventId, UnreadNotificationsCount>,
}

/// A room that the user is in no longer.
#[derive(Serialize)]
struct LeftRoomBody {
    timeline: TimelineBody,
    #[serde(flatten)]
    state: RoomStateBody,
    account_data: EventsBody<AnyRoomAccountDataEvent>,
}

/// A stretch of a room's history, oldest first.
#[derive(Serialize)]
struct TimelineBody {
    events: Vec<Raw<AnySyncTimelineEvent>>,
    /// Whether something was left out before it.
    limited: bool,
    /// Where to page back from.
    prev_batch: String,
}

/// The state of a room, under the name that the client wants it by.
#[derive(Serialize)]
enum RoomStateBody {
    #[serde(rename = "state")]
    Before(EventsBody<AnySyncStateEvent>),
    #[serde(rename = "state_after")]
    After(EventsBody<AnySyncStateEvent>),
    #[serde(rename = "org.matrix.msc4222.state_after")]
    UnstableAfter(EventsBody<AnySyncStateEvent>),
}

/// Whose devices are news. Both lists are there, even if they are empty.
#[derive(Serialize)]
struct DeviceListsBody<'a> {
    changed: &'a BTreeSet<OwnedUserId>,
    left: &'a BTreeSet<OwnedUserId>,
}

/// A list that is there even if it is empty.
#[derive(Serialize)]
#[serde(bound = "")]
struct EventsBody<T> {
    events: Vec<Raw<T>>,
}

impl<T> From<Vec<Raw<T>>> for EventsBody<T> {
    fn from(events: Vec<Raw<T>>) -> Self {
        Self { events }
    }
}

impl SyncBody {
    /// `next`: with what the client goes on.
    pub(crate) fn new(next: Token) -> Self {
        let next_batch = next.to_string();
        let text = format!(r#"{{"next_batch":"{next_batch}""#).into_bytes();
        Self { text, next_batch, open: None }
    }

    /// What has been written since this was last called.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }

    /// The last of it.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.text.extend(if self.open.is_some() { b"}}}".as_slice() } else { b"}" });
        self.text
    }

    /// What is not of a room. It comes before all rooms.
    fn part(&mut self, name: &str, part: &impl Serialize) -> Result<()> {
        self.text.extend(format!(r#","{name}":"#).into_bytes());
        serde_json::to_writer(&mut self.text, part).map_err(Error::broken)
    }

    /// A room. A list that another has followed is never come back to.
    fn room(&mut self, list: List, room_id: &RoomId, room: &impl Serialize) -> Result<()> {
        match self.open {
            Some(open) if open == list => self.text.push(b','),
            Some(_) => self.text.extend(format!(r#"}},"{}":{{"#, list.name()).into_bytes()),
            None => self.text.extend(format!(r#","rooms":{{"{}":{{"#, list.name()).into_bytes()),
        }
        self.open = Some(list);
        serde_json::to_writer(&mut self.text, room_id).map_err(Error::broken)?;
        self.text.push(b':');
        serde_json::to_writer(&mut self.text, room).map_err(Error::broken)
    }
}

impl List {
    const fn name(self) -> &'static str {
        match self {
            Self::Invite => "invite",
            Self::Knock => "knock",
            Self::Leave => "leave",
            Self::Join => "join",
        }
    }
}

/// A writer at work: the ages of events are counted to one moment.
struct SyncWriterAt<'a> {
    writer: &'a SyncWriter,
    tokens: &'a Tokens,
    now: MilliSecondsSinceUnixEpoch,
}

impl SyncWriter {
    /// Writes what was gathered, with the tokens of the places in it. The parts of a response are written in the order
    /// in which they were gathered.
    pub(crate) fn write(
        &self,
        body: &mut SyncBody,
        gathered: Gathered,
        tokens: &Tokens,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<()> {
        SyncWriterAt { writer: self, tokens, now }.write(body, gathered)
    }
}

// Here and not with the writer, because tokens need a look into the log.
impl Syncs {
    /// The tokens of the places that a response names.
    ///
    /// All at once, by their floors: a place between two positions has the mark of the one below.
    pub(crate) async fn tokens(&self, gathered: &Gathered) -> Result<Tokens> {
        let joined = gathered.joined.iter().map(|room| &room.timeline);
        let timelines = joined.chain(gathered.left.iter().map(|room| &room.timeline));
        self.0.rooms.log().tokens(timelines.map(|timeline| timeline.start.floor()).chain([gathered.until])).await
    }
}

impl SyncWriterAt<'_> {
    fn write(&self, body: &mut SyncBody, gathered: Gathered) -> Result<()> {
        if !gathered.account_data.is_empty() {
            body.part("account_data", &AccountDataEvents { events: &gathered.account_data })?;
        }
        if !gathered.presence.is_empty() {
            let events = gathered.presence.iter().map(Raw::new).collect::<Result<Vec<_>, _>>();
            body.part("presence", &EventsBody::from(events.map_err(Error::broken)?))?;
        }
        if !gathered.device_lists.is_empty() {
            let DeviceLists { changed, left } = &gathered.device_lists;
            body.part("device_lists", &DeviceListsBody { changed, left })?;
        }
        if let Some(key_counts) = &gathered.key_counts {
            let WrittenKeyCounts { one_time, unused_fallback } = &**key_counts;
            body.part("device_one_time_keys_count", one_time)?;
            // By the one clients see that there are fallback keys; those from before it was specified by the other.
            body.part("device_unused_fallback_key_types", unused_fallback)?;
            body.part("org.matrix.msc2732.device_unused_fallback_key_types", unused_fallback)?;
        }
        if !gathered.to_device.is_empty() {
            let events = gathered.to_device.iter().map(ToDeviceEvent::of).collect();
            body.part("to_device", &ToDeviceBody { events })?;
        }
        for room in &gathered.invited {
            let mut invited = v3::InvitedRoom::new();
            invited.invite_state.events = stripped(room);
            body.room(List::Invite, &room.room_id, &invited)?;
        }
        let outside = |state| gathered.outside.iter().filter(move |membership| membership.state == state);
        for membership in outside(OutsideState::Invited) {
            let mut invited = v3::InvitedRoom::new();
            invited.invite_state.events.clone_from(&membership.stripped_state);
            body.room(List::Invite, &membership.room_id, &invited)?;
        }
        for room in &gathered.knocked {
            let mut knocked = v3::KnockedRoom::new();
            knocked.knock_state.events = stripped(room);
            body.room(List::Knock, &room.room_id, &knocked)?;
        }
        for membership in outside(OutsideState::Knocking) {
            let mut knocked = v3::KnockedRoom::new();
            knocked.knock_state.events.clone_from(&membership.stripped_state);
            body.room(List::Knock, &membership.room_id, &knocked)?;
        }
        for membership in outside(OutsideState::Ended) {
            let left = self.left_outside(membership, &body.next_batch)?;
            body.room(List::Leave, &membership.room_id, &left)?;
        }
        for room in &gathered.left {
            body.room(List::Leave, &room.room_id, &self.left(room)?)?;
        }
        for room in gathered.joined {
            let room_id = room.room_id.clone();
            body.room(List::Join, &room_id, &self.joined(room)?)?;
        }
        Ok(())
    }

    /// A room that the user is in, with everything that was gathered of it.
    fn joined(&self, room: JoinedRoom) -> Result<JoinedRoomBody> {
        let account_data = account_data(&room.account_data)?.into();
        let mut ephemeral = v3::Ephemeral::default();
        ephemeral.events.extend(receipt_events(&room.receipts));
        ephemeral.events.extend(room.typing.and_then(typing_event));
        // A client that knows no threads gets one count for all.
        let per_thread = self.writer.filter.room.timeline.unread_thread_notifications;
        let unread = count(if per_thread { room.unread.main } else { room.unread.total() });
        let threads = room.unread.threads.into_iter().filter(|_| per_thread);
        Ok(JoinedRoomBody {
            summary: room.summary.map(summary).unwrap_or_default(),
            timeline: self.timeline(&room.timeline)?,
            state: self.state(&room.state)?,
            ephemeral,
            account_data,
            unread_notifications: unread,
            unread_thread_notifications: threads.map(|(root, unread)| (root, count(unread))).collect(),
        })
    }

    /// A room that the user has left or is banned from.
    fn left(&self, room: &LeftRoom) -> Result<LeftRoomBody> {
        let account_data = account_data(&room.account_data)?.into();
        let (timeline, state) = (self.timeline(&room.timeline)?, self.state(&room.state)?);
        Ok(LeftRoomBody { timeline, state, account_data })
    }

    /// A room that this server holds no history of, and that it is over: by the event, if that is known.
    fn left_outside(&self, membership: &OutsideMembership, next_batch: &str) -> Result<LeftRoomBody> {
        let event = membership.event.as_ref();
        // There is nothing before it that could be paged to.
        let (limited, prev_batch) = (self.writer.begins_anew, next_batch.to_owned());
        let timeline = TimelineBody { events: self.outside_events(event)?, limited, prev_batch };
        // The state at the end of the timeline has what the timeline says.
        let changed = event.filter(|_| self.writer.state_after.is_some());
        let state = self.state_body(self.outside_events(changed)?.into());
        Ok(LeftRoomBody { timeline, state, account_data: Vec::new().into() })
    }

    /// The event of a room that this server holds no history of, if it is known.
    fn outside_events<T>(&self, event: Option<&OutsideEvent>) -> Result<Vec<Raw<T>>> {
        let format = ClientFormat { now: Some(self.now), ..ClientFormat::default() };
        event.map(|event| self.event(&event.pdu, &format)).into_iter().collect()
    }

    /// To a client that begins anew, every timeline is limited: it has to throw away what it knows.
    fn timeline(&self, timeline: &Timeline) -> Result<TimelineBody> {
        let events = timeline.events.iter().map(|event| {
            let format = timeline.format(event, &self.writer.client, self.now);
            self.event(&event.pdu, &format)
        });
        let events = events.collect::<Result<_>>()?;
        let limited = timeline.limited || self.writer.begins_anew;
        let prev_batch = self.tokens.of_page(timeline.start).to_string();
        Ok(TimelineBody { events, limited, prev_batch })
    }

    /// State events, none of which has a transaction or bundles.
    fn state(&self, state: &RoomState) -> Result<RoomStateBody> {
        let format = ClientFormat { now: Some(self.now), ..ClientFormat::default() };
        let events = state.events().map(|pdu| self.event(pdu, &format)).collect::<Result<Vec<_>>>()?;
        Ok(self.state_body(events.into()))
    }

    /// Under the name that the client asked for.
    fn state_body(&self, events: EventsBody<AnySyncStateEvent>) -> RoomStateBody {
        match self.writer.state_after {
            None => RoomStateBody::Before(events),
            Some(StateAfter::Stable) => RoomStateBody::After(events),
            Some(StateAfter::Unstable) => RoomStateBody::UnstableAfter(events),
        }
    }

    /// An event in the format and with the fields that the filter asks for.
    ///
    /// In the federation format it is the event as servers send it to each other, with nothing that is the reader's
    /// own.
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

/// What is shown outside: type, content, sender and state key.
fn stripped<T>(room: &StrippedRoom) -> Vec<Raw<T>> {
    room.state.iter().map(|pdu| stripped_state(pdu)).collect()
}

/// Account data as an event.
#[derive(Serialize)]
struct AccountDataBody<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    content: &'a RawValue,
}

/// Messages to the device.
#[derive(Serialize)]
struct ToDeviceBody<'a> {
    events: Vec<ToDeviceEvent<'a>>,
}

/// A message to the device.
#[derive(Serialize)]
struct ToDeviceEvent<'a> {
    sender: &'a UserId,
    #[serde(rename = "type")]
    kind: &'a str,
    content: &'a RawValue,
}

impl<'a> ToDeviceEvent<'a> {
    fn of(message: &'a WaitingMessage) -> Self {
        Self { sender: &message.sender, kind: &message.kind, content: &message.content }
    }
}

/// Account data that is written where it goes, rather than first into pieces: all of a user's may be much.
#[derive(Serialize)]
struct AccountDataEvents<'a> {
    #[serde(serialize_with = "write_account_data")]
    events: &'a [Arc<AccountData>],
}

fn write_account_data<S: Serializer>(all: &&[Arc<AccountData>], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(all.iter().map(|data| AccountDataBody { kind: &data.kind, content: &data.content }))
}

/// Account data as events. Contents may be large and are copied once, without being read.
pub(super) fn account_data<T>(all: &[Arc<AccountData>]) -> Result<Vec<Raw<T>>> {
    let event = |data: &Arc<AccountData>| {
        let body = AccountDataBody { kind: &data.kind, content: &data.content };
        to_raw_value(&body).map(Raw::from_json).map_err(Error::broken)
    };
    all.iter().map(event).collect()
}

/// Both counts come along wherever heroes may be news.
fn summary(summary: MemberSummary) -> v3::RoomSummary {
    let mut out = v3::RoomSummary::new();
    out.heroes = summary.heroes;
    out.joined_member_count = Some(uint(summary.joined));
    out.invited_member_count = Some(uint(summary.invited));
    out
}

fn uint(value: usize) -> UInt {
    UInt::try_from(value).unwrap_or(UInt::MAX)
}

/// Zeros are said out loud: clients take an absent count for one that has not changed.
fn count(unread: Count) -> UnreadNotificationsCount {
    let mut out = UnreadNotificationsCount::new();
    out.notification_count = UInt::try_from(unread.notifications).ok();
    out.highlight_count = UInt::try_from(unread.highlights).ok();
    out
}
