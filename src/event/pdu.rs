//! One event, one value: the exact JSON, its identifier and the fields that every reader needs.
//!
//! The JSON is canonical and never written anew: hashes and signatures are over exactly these bytes, the database holds
//! them, and other servers get them. The `event_id` does not stand in it, since it follows from its hash.
//!
//! <https://spec.matrix.org/v1.19/rooms/v12/#event-format-1>

use std::{borrow::Cow, sync::Arc};

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId,
    canonical_json::redact,
    events::TimelineEventType,
    room_version_rules::RoomVersionRules,
    serde::Raw,
    signatures::{KeyPair, reference_hash, sign_json},
};
use serde::Deserialize;
use serde_json::value::RawValue;

/// How an event stands after the checks on receipt of a PDU.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Part of the room for everybody.
    Accepted = 0,
    /// Kept for other servers, hidden from clients, never built upon.
    SoftFailed = 1,
    /// Failed authorization: kept so that it need not be fetched again.
    Rejected = 2,
    /// Known as somebody's auth event, its place in the room is not.
    Outlier = 3,
}

impl Standing {
    /// As the database holds it. None for a number that no release has written.
    pub fn from_i64(value: i64) -> Option<Self> {
        [Self::Accepted, Self::SoftFailed, Self::Rejected, Self::Outlier].into_iter().find(|s| *s as i64 == value)
    }
}

/// An immutable event. Two values of one event differ only in whether it has been redacted.
#[derive(Clone, Debug)]
pub struct Pdu {
    event_id: OwnedEventId,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    kind: TimelineEventType,
    state_key: Option<Box<str>>,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    depth: i64,
    prev_events: Box<[OwnedEventId]>,
    auth_events: Box<[OwnedEventId]>,
    /// None but of `m.room.redaction`. Whether it may redact what it names, the rules decide elsewhere.
    redacts: Option<OwnedEventId>,
    /// A copy of that part of `json`, so that it can be read without going through the rest.
    content: Box<RawValue>,
    json: Box<RawValue>,
    /// Not a part of the event itself: it is known here, and clients get it with the event.
    redacted_because: Option<Arc<Pdu>>,
    rules: &'static RoomVersionRules,
}

/// Why some JSON is not an event of the room version.
#[derive(Debug, thiserror::Error)]
pub enum PduError {
    #[error("not an event: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not an event: {0}")]
    Hash(#[from] ruma::signatures::JsonError),
    #[error("not an event: {0}")]
    Redaction(#[from] ruma::canonical_json::CanonicalJsonFieldError),
    #[error("not an event: its identifier {0:?} is malformed")]
    Identifier(String),
}

/// The fields of an event as they stand in its JSON.
#[derive(Deserialize)]
struct Header<'a> {
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    #[serde(rename = "type")]
    kind: TimelineEventType,
    #[serde(borrow)]
    state_key: Option<Cow<'a, str>>,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    depth: i64,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    /// Means something in some versions and kinds of events only. Anything may stand here elsewhere.
    #[serde(borrow)]
    redacts: Option<&'a RawValue>,
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct RedactsContent {
    redacts: Option<OwnedEventId>,
}

impl Pdu {
    /// Reads an event whose identifier is known, as the database holds it.
    pub fn from_stored(
        event_id: OwnedEventId,
        json: String,
        rules: &'static RoomVersionRules,
    ) -> Result<Self, PduError> {
        let json = RawValue::from_string(json)?;
        Self::read(event_id, json, rules)
    }

    /// Reads canonical JSON whose hash gives the identifier.
    pub fn from_canonical(
        object: &ruma::CanonicalJsonObject,
        rules: &'static RoomVersionRules,
    ) -> Result<Self, PduError> {
        let id = format!("${}", reference_hash(object, rules)?);
        let event_id = OwnedEventId::try_from(id).map_err(|e| PduError::Identifier(e.to_string()))?;
        let json = serde_json::value::to_raw_value(object)?;
        Self::read(event_id, json, rules)
    }

    fn read(event_id: OwnedEventId, json: Box<RawValue>, rules: &'static RoomVersionRules) -> Result<Self, PduError> {
        let header: Header<'_> = serde_json::from_str(json.get())?;
        let room_id = match header.room_id {
            Some(room_id) => room_id,
            None => room_id_of_create(&event_id)?,
        };
        let redacts = if header.kind != TimelineEventType::RoomRedaction {
            None
        } else if rules.redaction.content_field_redacts {
            serde_json::from_str::<RedactsContent>(header.content.get()).ok().and_then(|c| c.redacts)
        } else {
            header.redacts.and_then(|redacts| serde_json::from_str(redacts.get()).ok())
        };
        let state_key = header.state_key.map(|key| key.into_owned().into_boxed_str());
        let content = header.content.to_owned();
        Ok(Self {
            event_id,
            room_id,
            sender: header.sender,
            kind: header.kind,
            state_key,
            origin_server_ts: header.origin_server_ts,
            depth: header.depth,
            prev_events: header.prev_events.into(),
            auth_events: header.auth_events.into(),
            redacts,
            content,
            json,
            redacted_because: None,
            rules,
        })
    }

    /// This event as it stands after `because` redacted it.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#redactions>
    pub fn redacted(&self, because: Arc<Pdu>) -> Result<Self, PduError> {
        Ok(self.stripped()?.with_redacted_because(because))
    }

    /// What a redaction would leave of this event, for readers who are not to see more, though nobody has redacted it.
    pub fn stripped(&self) -> Result<Self, PduError> {
        let object = redact(self.to_object()?, &self.rules.redaction, None)?;
        let json = serde_json::value::to_raw_value(&object)?;
        let mut pdu = Self::read(self.event_id.clone(), json, self.rules)?;
        pdu.redacted_because.clone_from(&self.redacted_because);
        Ok(pdu)
    }

    /// This event with a signature of one more server. Its hash and its identifier are what they were.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#signing-events>
    pub fn countersigned(&self, server: &ServerName, key: &impl KeyPair) -> Result<Self, PduError> {
        let mut object = self.to_object()?;
        // A redaction takes away what no signature is of, and leaves those that are there.
        let mut signed = redact(object.clone(), &self.rules.redaction, None)?;
        sign_json(server.as_str(), key, &mut signed)?;
        if let Some(signatures) = signed.remove("signatures") {
            object.insert("signatures".to_owned(), signatures);
        }
        let mut pdu = Self::read(self.event_id.clone(), serde_json::value::to_raw_value(&object)?, self.rules)?;
        pdu.redacted_because.clone_from(&self.redacted_because);
        Ok(pdu)
    }

    /// How many bytes the event takes in memory, about.
    pub fn bytes(&self) -> usize {
        /// What the allocator and a reference take for each piece.
        const PIECE: usize = 32;
        let cited = self.prev_events.iter().chain(self.auth_events.iter()).map(|id| id.as_str().len() + PIECE);
        let texts =
            [self.event_id.as_str(), self.room_id.as_str(), self.sender.as_str(), self.content.get(), self.json.get()];
        let because = self.redacted_because.as_ref().map_or(0, |because| because.bytes());
        size_of::<Self>() + cited.sum::<usize>() + texts.map(|text| text.len() + PIECE).iter().sum::<usize>() + because
    }

    /// The event that redacted this one. Given to an already redacted event as it comes from the database. What redacted
    /// that one in turn is not kept with it.
    pub fn with_redacted_because(mut self, because: Arc<Pdu>) -> Self {
        let alone = || Arc::new(Self { redacted_because: None, ..Self::clone(&because) });
        self.redacted_because = Some(if because.redacted_because.is_some() { alone() } else { because });
        self
    }

    /// What becomes of this event once `redacted` has been redacted: it is that event, or that event had redacted it and
    /// stands with it. None where it has nothing to do with it.
    pub fn after_redaction_of(&self, redacted: &Arc<Pdu>) -> Option<Arc<Pdu>> {
        if self.event_id == redacted.event_id {
            return Some(Arc::clone(redacted));
        }
        let because = self.redacted_because.as_ref().filter(|because| because.event_id == redacted.event_id);
        because.map(|_| Arc::new(self.clone().with_redacted_because(Arc::clone(redacted))))
    }

    /// The JSON as an object, for hashing, redacting and rebuilding.
    pub fn to_object(&self) -> Result<ruma::CanonicalJsonObject, PduError> {
        Ok(serde_json::from_str(self.json.get())?)
    }

    /// Follows from the event's hash, so it is no field of the JSON.
    pub fn event_id(&self) -> &EventId {
        &self.event_id
    }

    /// Also of a create event that names none, since room version 12.
    pub fn room_id(&self) -> &RoomId {
        &self.room_id
    }

    pub fn sender(&self) -> &UserId {
        &self.sender
    }

    pub fn kind(&self) -> &TimelineEventType {
        &self.kind
    }

    /// None of what is not state. The empty key is a key.
    pub fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    pub fn is_state(&self) -> bool {
        self.state_key.is_some()
    }

    /// What the sender's server claims, in milliseconds since the Unix epoch. Nothing is decided by it.
    pub fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    /// One more than the deepest event that it follows, as its server claims.
    pub fn depth(&self) -> i64 {
        self.depth
    }

    /// The events that it follows in its room's graph. Empty for the create event.
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.prev_events
    }

    /// The events that it cites for being allowed.
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.auth_events
    }

    /// The event that this one asks to redact.
    pub fn redacts(&self) -> Option<&EventId> {
        self.redacts.as_deref()
    }

    /// The event that redacted this one, if that has happened: the content is stripped then.
    pub fn redacted_because(&self) -> Option<&Arc<Pdu>> {
        self.redacted_because.as_ref()
    }

    /// Those of the room's version, by which the JSON was read.
    pub fn rules(&self) -> &'static RoomVersionRules {
        self.rules
    }

    /// As it stands in the JSON.
    pub fn content(&self) -> &RawValue {
        &self.content
    }

    /// The content read as `T`; an error where it does not have that shape.
    pub fn content_as<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.content.get())
    }

    /// The whole event as it goes to other servers.
    pub fn json(&self) -> &RawValue {
        &self.json
    }

    /// The whole event for a ruma type that wants it raw.
    pub fn raw<T>(&self) -> Raw<T> {
        Raw::from_json(self.json.clone())
    }
}

/// Since room version 12 a room's identifier is its create event's.
fn room_id_of_create(event_id: &EventId) -> Result<OwnedRoomId, PduError> {
    let id = format!("!{}", event_id.as_str().trim_start_matches('$'));
    OwnedRoomId::try_from(id).map_err(|e| PduError::Identifier(e.to_string()))
}

impl ruma::state_res::Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &Self::Id {
        &self.event_id
    }

    fn room_id(&self) -> Option<&RoomId> {
        let create_without_room =
            self.kind == TimelineEventType::RoomCreate && !self.rules.event_format.require_room_create_room_id;
        (!create_without_room).then_some(&*self.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }

    fn content(&self) -> &RawValue {
        &self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&Self::Id> {
        self.redacts.as_ref()
    }

    /// Only accepted events take part in a room's state; a rejected one is never offered to the rules.
    fn rejected(&self) -> bool {
        false
    }
}
