//! From what a user wants to say to a signed event at a place in the room.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#signing-events>

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    OwnedUserId, ServerName, events::TimelineEventType, room_version_rules::RoomVersionRules,
    signatures::hash_and_sign_event,
};

use super::{Content, Pdu, PduError, SigningKey};
use crate::ground::room_version::has_owned_state;

/// What somebody wants to put into a room, before it has a place there.
#[derive(Clone, Debug)]
pub struct Draft {
    pub sender: OwnedUserId,
    pub kind: TimelineEventType,
    pub state_key: Option<String>,
    pub content: Content,
    /// The event to redact. It goes where the room version wants it.
    pub redacts: Option<OwnedEventId>,
    /// A time other than now, which only appservices may choose.
    pub origin_server_ts: Option<MilliSecondsSinceUnixEpoch>,
}

/// Where in the room an event goes: what it follows and what authorizes it.
#[derive(Clone, Debug)]
pub struct GraphPlace {
    /// None for the create event of a room whose identifier is that event's.
    pub room_id: Option<OwnedRoomId>,
    pub depth: i64,
    pub prev_events: Vec<OwnedEventId>,
    pub auth_events: Vec<OwnedEventId>,
}

/// Why a draft can't become an event.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    #[error("the event is {bytes} bytes long, 65536 are allowed")]
    TooLarge { bytes: usize },
    #[error("{field} is {bytes} bytes long, {allowed} are allowed")]
    FieldTooLong { field: &'static str, bytes: usize, allowed: usize },
    /// `PostgreSQL` can't store it, and no client needs it.
    #[error("{field} contains the character U+0000, which is not allowed")]
    Nul { field: &'static str },
    #[error(transparent)]
    Pdu(#[from] PduError),
}

/// <https://spec.matrix.org/v1.19/client-server-api/#size-limits>
pub(super) const MAX_EVENT_BYTES: usize = 65_536;
pub(super) const MAX_FIELD_BYTES: usize = 255;
/// Where state can belong to a user, their identifier may stand in front of its key, with an underscore between.
const MAX_OWNED_KEY_BYTES: usize = 2 * MAX_FIELD_BYTES + 1;

impl Draft {
    /// A message of `sender`, neither state nor redaction.
    pub fn message(sender: OwnedUserId, kind: TimelineEventType, content: Content) -> Self {
        Self { sender, kind, state_key: None, content, redacts: None, origin_server_ts: None }
    }

    /// A piece of room state.
    pub fn state(sender: OwnedUserId, kind: TimelineEventType, state_key: impl Into<String>, content: Content) -> Self {
        Self { sender, kind, state_key: Some(state_key.into()), content, redacts: None, origin_server_ts: None }
    }

    /// Hashes and signs the event for its place, and checks the size limits.
    pub fn sign(
        self,
        place: &GraphPlace,
        now: MilliSecondsSinceUnixEpoch,
        server: &ServerName,
        key: &SigningKey,
        rules: &'static RoomVersionRules,
    ) -> Result<Pdu, DraftError> {
        check_field("type", &self.kind.to_string(), MAX_FIELD_BYTES)?;
        check_field("state_key", self.state_key.as_deref().unwrap_or_default(), max_key_bytes(rules))?;
        check_field("sender", self.sender.as_str(), MAX_FIELD_BYTES)?;
        let mut object = self.unsigned(place, now, rules);
        hash_and_sign_event(server.as_str(), key, &mut object, &rules.redaction).map_err(|e| match e {
            ruma::signatures::JsonError::PduTooLarge => DraftError::TooLarge { bytes: encoded_length(&object) },
            other => DraftError::Pdu(other.into()),
        })?;
        let pdu = Pdu::from_canonical(&object, rules)?;
        let bytes = pdu.json().get().len();
        if bytes > MAX_EVENT_BYTES {
            return Err(DraftError::TooLarge { bytes });
        }
        Ok(pdu)
    }

    /// The event at its place without a hash and signatures, as another server gets it that is to complete it.
    pub fn unsigned(
        mut self,
        place: &GraphPlace,
        now: MilliSecondsSinceUnixEpoch,
        rules: &RoomVersionRules,
    ) -> CanonicalJsonObject {
        let ts = self.origin_server_ts.unwrap_or(now);
        let mut object = CanonicalJsonObject::new();
        if let Some(redacts) = self.redacts {
            let redacts = CanonicalJsonValue::String(redacts.into());
            if rules.redaction.content_field_redacts {
                self.content.insert("redacts".to_owned(), redacts);
            } else {
                object.insert("redacts".to_owned(), redacts);
            }
        }
        object.insert("auth_events".to_owned(), ids(&place.auth_events));
        object.insert("content".to_owned(), CanonicalJsonValue::Object(self.content));
        object.insert("depth".to_owned(), integer(place.depth));
        object.insert("origin_server_ts".to_owned(), CanonicalJsonValue::Integer(ts.get().into()));
        object.insert("prev_events".to_owned(), ids(&place.prev_events));
        object.insert("sender".to_owned(), CanonicalJsonValue::String(self.sender.into()));
        object.insert("type".to_owned(), CanonicalJsonValue::String(self.kind.to_string()));
        if let Some(room_id) = &place.room_id {
            object.insert("room_id".to_owned(), CanonicalJsonValue::String(room_id.to_string()));
        }
        if let Some(state_key) = self.state_key {
            object.insert("state_key".to_owned(), CanonicalJsonValue::String(state_key));
        }
        object
    }
}

/// How long a state key may be.
pub(super) fn max_key_bytes(rules: &RoomVersionRules) -> usize {
    if has_owned_state(rules) { MAX_OWNED_KEY_BYTES } else { MAX_FIELD_BYTES }
}

pub(super) fn check_field(field: &'static str, value: &str, allowed: usize) -> Result<(), DraftError> {
    if value.len() > allowed {
        return Err(DraftError::FieldTooLong { field, bytes: value.len(), allowed });
    }
    if value.contains('\0') {
        return Err(DraftError::Nul { field });
    }
    Ok(())
}

fn encoded_length(object: &CanonicalJsonObject) -> usize {
    serde_json::to_vec(object).map_or(0, |json| json.len())
}

fn ids(ids: &[impl AsRef<EventId>]) -> CanonicalJsonValue {
    CanonicalJsonValue::Array(ids.iter().map(|id| CanonicalJsonValue::String(id.as_ref().to_string())).collect())
}

/// Depths stay far below 2^53; one that does not is cut there, as the specification says.
fn integer(value: i64) -> CanonicalJsonValue {
    CanonicalJsonValue::Integer(ruma::Int::new_saturating(value))
}
