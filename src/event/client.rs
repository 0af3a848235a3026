//! An event as clients read it: without hashes, signatures and graph, with `unsigned`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-event-format>

use std::{borrow::Cow, sync::Arc};

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedTransactionId, events::room::member::MembershipState, serde::Raw,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::Pdu;

/// What the reader of an event gets beside the event itself.
#[derive(Clone, Debug, Default)]
pub struct ClientFormat {
    /// Left out in `/sync`, where the room is the key of the map that the event stands in.
    pub with_room_id: bool,
    /// For `age`.
    pub now: Option<MilliSecondsSinceUnixEpoch>,
    /// For the device that sent the event.
    pub transaction_id: Option<OwnedTransactionId>,
    /// For the sender of what was a delayed event.
    pub delay_id: Option<OwnedTransactionId>,
    /// The state event that this one replaced.
    pub replaces: Option<Arc<Pdu>>,
    /// The reader's membership when the event was sent.
    pub membership: Option<MembershipState>,
    /// What relates to the event, as `m.relations`.
    pub relations: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct ClientEvent<'a> {
    content: Cow<'a, RawValue>,
    event_id: &'a EventId,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacts: Option<&'a EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<&'a ruma::RoomId>,
    sender: &'a ruma::UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_key: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'a ruma::events::TimelineEventType,
    #[serde(skip_serializing_if = "Unsigned::is_empty")]
    unsigned: Unsigned<'a>,
}

#[derive(Serialize)]
struct Unsigned<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<u64>,
    #[serde(rename = "m.relations", skip_serializing_if = "Option::is_none")]
    relations: Option<&'a RawValue>,
    /// <https://github.com/matrix-org/matrix-spec-proposals/pull/4140>
    #[serde(rename = "org.matrix.msc4140.delay_id", skip_serializing_if = "Option::is_none")]
    delay_id: Option<&'a ruma::TransactionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_content: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_sender: Option<&'a ruma::UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted_because: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces_state: Option<&'a EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<&'a ruma::TransactionId>,
}

impl Unsigned<'_> {
    fn is_empty(&self) -> bool {
        self.age.is_none()
            && self.delay_id.is_none()
            && self.membership.is_none()
            && self.prev_content.is_none()
            && self.redacted_because.is_none()
            && self.transaction_id.is_none()
            && self.relations.is_none()
    }
}

/// Writes an event for a client.
pub fn client_event<T>(pdu: &Pdu, format: &ClientFormat) -> Raw<T> {
    Raw::from_json(client_json(pdu, format))
}

fn client_json(pdu: &Pdu, format: &ClientFormat) -> Box<RawValue> {
    let redacted_because = pdu
        .redacted_because()
        .map(|because| client_json(because, &ClientFormat { with_room_id: true, ..ClientFormat::default() }));
    let event = ClientEvent {
        content: content(pdu),
        event_id: pdu.event_id(),
        origin_server_ts: pdu.origin_server_ts(),
        // Old clients look for it here, whatever the room version.
        redacts: pdu.redacts(),
        room_id: format.with_room_id.then_some(pdu.room_id()),
        sender: pdu.sender(),
        state_key: pdu.state_key(),
        kind: pdu.kind(),
        unsigned: Unsigned {
            age: format.now.map(|now| u64::from(now.get()).saturating_sub(pdu.origin_server_ts().get().into())),
            relations: format.relations.as_deref(),
            delay_id: format.delay_id.as_deref(),
            membership: format.membership.as_ref().map(MembershipState::as_str),
            prev_content: format.replaces.as_ref().map(|old| old.content()),
            prev_sender: format.replaces.as_ref().map(|old| old.sender()),
            redacted_because,
            replaces_state: format.replaces.as_ref().map(|old| old.event_id()),
            transaction_id: format.transaction_id.as_deref(),
        },
    };
    to_raw_value(&event).expect("an event's fields are strings, integers and JSON that was read before")
}

/// The content. A redaction names there what it redacts, as new clients expect, whatever the room version.
///
/// <https://spec.matrix.org/v1.19/rooms/v11/#moving-the-redacts-property-of-mroomredaction-events-to-a-content-property>
fn content(pdu: &Pdu) -> Cow<'_, RawValue> {
    let Some(redacts) = pdu.redacts().filter(|_| !pdu.rules().redaction.content_field_redacts) else {
        return Cow::Borrowed(pdu.content());
    };
    let mut content: serde_json::Map<String, serde_json::Value> = pdu.content_as().unwrap_or_default();
    content.insert("redacts".to_owned(), redacts.as_str().into());
    to_raw_value(&content).map_or_else(|_| Cow::Borrowed(pdu.content()), Cow::Owned)
}

/// Writes a state event for somebody who is not in the room. It says when it was sent, beside what the specification has:
/// clients date an invitation by that, and a room by its beginning.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>
pub fn stripped_state<T>(pdu: &Pdu) -> Raw<T> {
    #[derive(Serialize)]
    struct StrippedEvent<'a> {
        content: &'a RawValue,
        origin_server_ts: MilliSecondsSinceUnixEpoch,
        sender: &'a ruma::UserId,
        state_key: &'a str,
        #[serde(rename = "type")]
        kind: &'a ruma::events::TimelineEventType,
    }
    let stripped = StrippedEvent {
        content: pdu.content(),
        origin_server_ts: pdu.origin_server_ts(),
        sender: pdu.sender(),
        state_key: pdu.state_key().unwrap_or_default(),
        kind: pdu.kind(),
    };
    let json = to_raw_value(&stripped).expect("an event's fields are strings and JSON that was read before");
    Raw::from_json(json)
}
