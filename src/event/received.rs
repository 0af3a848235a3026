//! An event as another server sent it, until its signatures and its hash have been checked.
//!
//! The first three checks on receipt of a PDU, each a function: [`ReceivedPdu::read`] has it comply with the event format
//! of its room's version, [`ReceivedPdu::verify`] checks the signatures and then the hash. Whose keys that takes,
//! [`ReceivedPdu::signers`] says.
//!
//! What stands in `unsigned` is left out: nobody vouches for it.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedServerName,
    OwnedServerSigningKeyId, RoomId, SigningKeyAlgorithm, UserId,
    canonical_json::CanonicalJsonType,
    events::TimelineEventType,
    int,
    room_version_rules::{RoomVersionRules, SignaturesRules},
    signatures::{PublicKeyMap, VerificationError, Verified, required_server_signatures_to_verify_event, verify_event},
};
use serde_json::value::RawValue;

use super::{
    DraftError, Pdu, PduError,
    draft::{MAX_EVENT_BYTES, MAX_FIELD_BYTES, check_field, max_key_bytes},
    strict_json,
};

/// Before it is read: characters may be escaped, which takes up to six times as much, and there may be `unsigned`.
const MAX_RAW_BYTES: usize = 8 * MAX_EVENT_BYTES;
const MAX_PREV_EVENTS: usize = 20;
const MAX_AUTH_EVENTS: usize = 10;

/// An event that another server has sent, of which nothing is believed yet.
#[derive(Clone, Debug)]
pub struct ReceivedPdu {
    /// With its signatures and hashes.
    object: CanonicalJsonObject,
    pdu: Pdu,
}

/// Why something that another server sent is no event, or not that of whom it says.
#[derive(Debug, thiserror::Error)]
pub enum ReceivedError {
    #[error("it is not canonical JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it is {bytes} bytes long, 65536 are allowed")]
    TooLarge { bytes: usize },
    #[error(transparent)]
    Field(#[from] DraftError),
    #[error("its `{0}` is not what the room version has there")]
    Format(&'static str),
    #[error(transparent)]
    Pdu(#[from] PduError),
    #[error("it has no signature of {0}")]
    Unsigned(OwnedServerName),
    #[error("it is not signed as it must be: {0}")]
    Signature(#[from] VerificationError),
}

impl ReceivedPdu {
    /// Check 1: the event complies with the format of the room version. Nothing else is known of it after that.
    pub fn read(json: &RawValue, rules: &'static RoomVersionRules) -> Result<Self, ReceivedError> {
        let bytes = json.get().len();
        if bytes > MAX_RAW_BYTES {
            return Err(ReceivedError::TooLarge { bytes });
        }
        let mut object = strict_json::read(json.get())?;
        object.remove("unsigned");
        check_format(&object, rules)?;
        let pdu = Pdu::from_canonical(&object, rules)?;
        let bytes = pdu.json().get().len();
        if bytes > MAX_EVENT_BYTES {
            return Err(ReceivedError::TooLarge { bytes });
        }
        check_field("type", &pdu.kind().to_string(), MAX_FIELD_BYTES)?;
        check_field("state_key", pdu.state_key().unwrap_or_default(), max_key_bytes(rules))?;
        check_field("sender", pdu.sender().as_str(), MAX_FIELD_BYTES)?;
        check_field("room_id", pdu.room_id().as_str(), MAX_FIELD_BYTES)?;
        for cited in pdu.prev_events().iter().chain(pdu.auth_events()) {
            check_field("an event id", cited.as_str(), MAX_FIELD_BYTES)?;
        }
        Ok(Self { object, pdu })
    }

    /// Follows from the event's hash, whoever it is of.
    pub fn event_id(&self) -> &EventId {
        self.pdu.event_id()
    }

    pub fn room_id(&self) -> &RoomId {
        self.pdu.room_id()
    }

    pub fn sender(&self) -> &UserId {
        self.pdu.sender()
    }

    /// What the sender's server claims, in milliseconds since the Unix epoch. Its keys must have been good then.
    pub fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.pdu.origin_server_ts()
    }

    pub fn prev_events(&self) -> &[OwnedEventId] {
        self.pdu.prev_events()
    }

    pub fn auth_events(&self) -> &[OwnedEventId] {
        self.pdu.auth_events()
    }

    /// The event as it claims to be, for whoever has to look at it before anything is verified. It must not be stored.
    pub fn unverified(&self) -> &Pdu {
        &self.pdu
    }

    /// Which servers must have signed it, each with the keys by which it says that they have: that of the sender unless
    /// it was invited by a third party, and that of the user who let somebody into a restricted room.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events>
    pub fn signers(&self) -> Result<BTreeMap<OwnedServerName, Vec<OwnedServerSigningKeyId>>, ReceivedError> {
        let servers = required_server_signatures_to_verify_event(&self.object, &self.signature_rules())?;
        let signatures = self.object.get("signatures").and_then(CanonicalJsonValue::as_object);
        let key_ids_of = |server: OwnedServerName| {
            let signed = signatures.and_then(|all| all.get(server.as_str())).and_then(CanonicalJsonValue::as_object);
            let key_ids = signed.into_iter().flat_map(CanonicalJsonObject::keys);
            let key_ids: Vec<_> = key_ids
                .filter_map(|id| OwnedServerSigningKeyId::try_from(id.as_str()).ok())
                .filter(|id| id.algorithm() == SigningKeyAlgorithm::Ed25519)
                .collect();
            if key_ids.is_empty() { Err(ReceivedError::Unsigned(server)) } else { Ok((server, key_ids)) }
        };
        servers.into_iter().map(key_ids_of).collect()
    }

    /// Checks 2 and 3: the signatures, then the hash. Where only the hash is wrong, what was sent may have been redacted,
    /// so the event comes as a redaction leaves it.
    ///
    /// `keys` has an entry for each of [`Self::signers`], with those of its keys that were good when the event was sent.
    /// Signatures by other keys are ignored, and each server needs one that is not.
    pub fn verify(&self, keys: &PublicKeyMap) -> Result<Pdu, ReceivedError> {
        let mut rules = self.pdu.rules().clone();
        rules.signatures = self.signature_rules();
        Ok(match verify_event(keys, &self.object, &rules)? {
            Verified::All => self.pdu.clone(),
            Verified::Signatures => self.pdu.stripped()?,
        })
    }

    /// Only a membership is authorised by somebody. In what else has such a field of its own, it means nothing.
    fn signature_rules(&self) -> SignaturesRules {
        let mut rules = self.pdu.rules().signatures.clone();
        rules.check_join_authorised_via_users_server &= *self.pdu.kind() == TimelineEventType::RoomMember;
        rules
    }
}

/// What every event has, and how many events it may cite. Identifiers are read with the rest ([`Pdu`]).
///
/// <https://spec.matrix.org/v1.19/rooms/v12/#event-format-1>
fn check_format(object: &CanonicalJsonObject, rules: &RoomVersionRules) -> Result<(), ReceivedError> {
    let required = [
        ("auth_events", CanonicalJsonType::Array),
        ("content", CanonicalJsonType::Object),
        ("depth", CanonicalJsonType::Integer),
        ("hashes", CanonicalJsonType::Object),
        ("origin_server_ts", CanonicalJsonType::Integer),
        ("prev_events", CanonicalJsonType::Array),
        ("sender", CanonicalJsonType::String),
        ("signatures", CanonicalJsonType::Object),
        ("type", CanonicalJsonType::String),
    ];
    for (field, kind) in required {
        if !object.get(field).is_some_and(|value| is_a(value, &kind)) {
            return Err(ReceivedError::Format(field));
        }
    }
    if object.get("state_key").is_some_and(|value| !is_a(value, &CanonicalJsonType::String)) {
        return Err(ReceivedError::Format("state_key"));
    }
    let is_create = object.get("type").and_then(CanonicalJsonValue::as_str) == Some("m.room.create");
    // Since version 12 the room is named by this very event.
    let names_room = !is_create || rules.event_format.require_room_create_room_id;
    let room_id = object.get("room_id");
    if names_room != room_id.is_some() || room_id.is_some_and(|value| !is_a(value, &CanonicalJsonType::String)) {
        return Err(ReceivedError::Format("room_id"));
    }
    let count = |field: &str| object.get(field).and_then(CanonicalJsonValue::as_array).map_or(0, <[_]>::len);
    if count("prev_events") > MAX_PREV_EVENTS {
        return Err(ReceivedError::Format("prev_events"));
    }
    if count("auth_events") > MAX_AUTH_EVENTS {
        return Err(ReceivedError::Format("auth_events"));
    }
    if object.get("depth").and_then(CanonicalJsonValue::as_integer).is_some_and(|depth| depth < int!(0)) {
        return Err(ReceivedError::Format("depth"));
    }
    Ok(())
}

fn is_a(value: &CanonicalJsonValue, kind: &CanonicalJsonType) -> bool {
    std::mem::discriminant(&value.json_type()) == std::mem::discriminant(kind)
}
