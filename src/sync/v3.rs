//! Classic `/sync`: what was gathered, as its response.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

use std::sync::Arc;

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedUserId, UInt,
    api::client::{
        filter::{EventFormat, FilterDefinition},
        sync::sync_events::{UnreadNotificationsCount, v3},
    },
    serde::Raw,
};
use serde_json::{json, value::to_raw_value};

use super::{
    gather::{Gathered, JoinedRoom, LeftRoom, StrippedRoom, Summary},
    timeline::Timeline,
};
use crate::{
    error::{Error, Result},
    event::{ClientFormat, Pdu, Stored, client_event, stripped_state},
    fact::AccountData,
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
}

/// A writer at work: the ages of events are counted to one moment.
struct Page<'a> {
    writer: &'a Writer,
    now: MilliSecondsSinceUnixEpoch,
}

impl Writer {
    /// Writes the response.
    pub(crate) fn response(&self, gathered: Gathered, now: MilliSecondsSinceUnixEpoch) -> Result<v3::Response> {
        Page { writer: self, now }.response(gathered)
    }
}

impl Page<'_> {
    fn response(&self, gathered: Gathered) -> Result<v3::Response> {
        let mut response = v3::Response::new(gathered.until.to_string());
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
        joined.state = self.state(room.state.events())?;
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

    fn left(&self, room: &LeftRoom) -> Result<v3::LeftRoom> {
        let mut left = v3::LeftRoom::new();
        left.timeline = self.timeline(&room.timeline)?;
        left.state = self.state(room.state.events())?;
        left.account_data.events = account_data(&room.account_data)?;
        Ok(left)
    }

    fn timeline(&self, timeline: &Timeline) -> Result<v3::Timeline> {
        let mut out = v3::Timeline::new();
        out.limited = timeline.limited;
        out.prev_batch = (!timeline.is_empty()).then(|| prev_batch(timeline).to_string());
        for event in &timeline.events {
            out.events.push(self.timeline_event(event, timeline)?);
        }
        Ok(out)
    }

    fn timeline_event<T>(&self, event: &Stored, timeline: &Timeline) -> Result<Raw<T>> {
        let format = ClientFormat {
            with_room_id: false,
            now: Some(self.now),
            transaction_id: event.transaction_for(&self.writer.user_id, &self.writer.device_id),
            replaces: event.replaces.clone(),
            membership: timeline.membership_at(event),
        };
        self.event(&event.pdu, &format)
    }

    fn state<'a>(&self, events: impl Iterator<Item = &'a Arc<Pdu>>) -> Result<v3::State> {
        let format = ClientFormat { now: Some(self.now), ..ClientFormat::default() };
        let events = events.map(|pdu| self.event(pdu, &format)).collect::<Result<Vec<_>>>()?.into();
        Ok(if self.writer.state_after { v3::State::After(events) } else { v3::State::Before(events) })
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
fn prev_batch(timeline: &Timeline) -> Position {
    timeline.events.first().map_or(timeline.start, |first| first.position.before())
}

fn stripped<T>(room: &StrippedRoom) -> Vec<Raw<T>> {
    room.state.iter().map(|pdu| stripped_state(pdu)).collect()
}

fn account_data<T>(all: &[Arc<AccountData>]) -> Result<Vec<Raw<T>>> {
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
