//! A server `there` with a room, and servers that say no, for tests.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, ready},
    stream,
};
use parking_lot::Mutex;
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId,
    ServerName, UInt, UserId,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::RoomVersionRules,
    serde::Base64,
    signatures::{PublicKeyMap, sign_event},
};
use serde_json::{Value, json, value::RawValue};

use super::residents::{Answer, Body, Residents, Template, signatures_of};
use crate::{
    edge::federation_client::RemoteError,
    event::{Content, Draft, GraphPlace, Pdu, ReceivedPdu, SigningKey},
    federation::server_keys::VerifyError,
    ground::room_version,
    room::{OutgoingInvite, State, graph::auth},
};

pub(super) fn user(id: &str) -> OwnedUserId {
    OwnedUserId::try_from(id).unwrap()
}

pub(super) fn server(name: &str) -> OwnedServerName {
    OwnedServerName::try_from(name).unwrap()
}

pub(super) fn refusal(errcode: &str) -> RemoteError {
    RemoteError::Refused { status: 400, errcode: Some(errcode.to_owned()), message: "no".to_owned() }
}

/// The server `there`, and all others that are asked.
pub(super) struct There {
    pub(super) key: SigningKey,
    pub(super) is_on: bool,
    /// What servers say who are asked for a template. What is not listed can't be reached.
    pub(super) refusals: HashMap<OwnedServerName, RemoteError>,
    /// Who was asked for what.
    pub(super) asked: Mutex<Vec<String>>,
    /// Signs another event than the one that it is asked to sign.
    pub(super) signs_another: bool,
}

impl There {
    pub(super) fn new() -> Self {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap();
        Self { key, is_on: true, refusals: HashMap::new(), asked: Mutex::default(), signs_another: false }
    }

    fn keys(&self) -> PublicKeyMap {
        let key = Base64::new(self.key.public_key().to_vec());
        BTreeMap::from([("there".to_owned(), BTreeMap::from([(self.key.id().to_string(), key)]))])
    }

    fn say_no<T: Send + 'static>(&self, what: &str, to: &ServerName) -> Answer<'_, T> {
        self.asked.lock().push(format!("{what} {to}"));
        let silence = || RemoteError::Unreachable("it says nothing".to_owned());
        ready(Err(self.refusals.get(to).cloned().unwrap_or_else(silence))).boxed()
    }

    fn sign(&self, pdu: &Pdu, changes: &Value) -> Box<RawValue> {
        let mut object = pdu.to_object().unwrap();
        object.extend(serde_json::from_value::<CanonicalJsonObject>(changes.clone()).unwrap());
        sign_event("there", &self.key, &mut object, &pdu.rules().redaction).unwrap();
        serde_json::value::to_raw_value(&object).unwrap()
    }

    /// A public room of alice's.
    pub(super) fn room(&self, version: RoomVersionId) -> FarRoom<'_> {
        let mut room = FarRoom { there: self, version, room_id: None, events: Vec::new(), state: State::default() };
        let alice = "@alice:there";
        let privileged = room.rules().authorization.explicitly_privilege_room_creators;
        let create = json!({ "room_version": room.version, "creator": alice });
        room.set(alice, "m.room.create", "", &create);
        room.set(alice, "m.room.member", alice, &json!({ "membership": "join" }));
        let users = if privileged { json!({}) } else { json!({ alice: 100 }) };
        room.set(alice, "m.room.power_levels", "", &json!({ "users": users }));
        room.set(alice, "m.room.join_rules", "", &json!({ "join_rule": "public" }));
        room
    }
}

/// A room on the server `there`.
pub(super) struct FarRoom<'a> {
    there: &'a There,
    pub(super) version: RoomVersionId,
    room_id: Option<OwnedRoomId>,
    pub(super) events: Vec<Arc<Pdu>>,
    state: State,
}

impl FarRoom<'_> {
    pub(super) fn rules(&self) -> &'static RoomVersionRules {
        room_version::rules(&self.version).unwrap()
    }

    pub(super) fn room_id(&self) -> &RoomId {
        self.room_id.as_deref().unwrap()
    }

    /// Adds an event to the room, whether the rules allow it or not.
    pub(super) fn set(&mut self, sender: &str, kind: &str, state_key: &str, content: &Value) -> Arc<Pdu> {
        let pdu = Arc::new(self.build("there", sender, kind, state_key, content));
        self.room_id = Some(pdu.room_id().to_owned());
        self.state.insert(Arc::clone(&pdu));
        self.events.push(Arc::clone(&pdu));
        pdu
    }

    /// The join of a user of this server, signed by it.
    pub(super) fn join(&self, user_id: &str) -> Pdu {
        self.build("here", user_id, "m.room.member", user_id, &json!({ "membership": "join" }))
    }

    fn build(&self, signer: &str, sender: &str, kind: &str, state_key: &str, content: &Value) -> Pdu {
        let (content, rules): (Content, _) = (serde_json::from_value(content.clone()).unwrap(), self.rules());
        let raw = serde_json::value::to_raw_value(&content).unwrap();
        let (kind, sender) = (TimelineEventType::from(kind), user(sender));
        let auth_events = auth::auth_events(&self.state, &kind, &sender, Some(state_key), &raw, rules).unwrap();
        let has_name = self.room_id.is_none() && rules.event_format.require_room_create_room_id;
        let room_id = if has_name { Some(OwnedRoomId::try_from("!room:there").unwrap()) } else { self.room_id.clone() };
        let prev_events = self.events.last().map(|pdu| pdu.event_id().to_owned()).into_iter().collect();
        let depth = i64::try_from(self.events.len()).unwrap() + 1;
        let place = GraphPlace { room_id, depth, prev_events, auth_events };
        let now = MilliSecondsSinceUnixEpoch(UInt::from(1_800_000_u32));
        Draft::state(sender, kind, state_key, content)
            .sign(&place, now, &server(signer), &self.there.key, rules)
            .unwrap()
    }
}

/// An event as JSON.
pub(super) fn value(pdu: &Pdu) -> Value {
    serde_json::from_str(pdu.json().get()).unwrap()
}

/// A body that comes in pieces.
pub(super) fn body(answer: &Value) -> Body {
    let pieces: Vec<_> =
        answer.to_string().as_bytes().chunks(100).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces).boxed()
}

impl Residents for There {
    fn is_on(&self) -> bool {
        self.is_on
    }

    fn may_ask(&self, _server: &ServerName) -> Result<(), RemoteError> {
        if self.is_on { Ok(()) } else { Err(RemoteError::Off) }
    }

    fn make<'a>(
        &'a self,
        to: &'a ServerName,
        membership: &'a MembershipState,
        _room_id: &'a RoomId,
        _user_id: &'a UserId,
    ) -> Answer<'a, Template> {
        self.say_no(membership.as_str(), to)
    }

    fn send_join<'a>(&'a self, to: &'a ServerName, _join: &'a Pdu) -> Answer<'a, Body> {
        self.say_no("send_join", to)
    }

    fn send_leave<'a>(&'a self, to: &'a ServerName, _leave: &'a Pdu) -> Answer<'a, ()> {
        self.say_no("send_leave", to)
    }

    fn send_knock<'a>(&'a self, to: &'a ServerName, _knock: &'a Pdu) -> Answer<'a, Vec<Box<RawValue>>> {
        self.say_no("send_knock", to)
    }

    fn invite<'a>(&'a self, to: &'a ServerName, outgoing: &'a OutgoingInvite) -> Answer<'a, Box<RawValue>> {
        if to.as_str() != "there" {
            return self.say_no("invite", to);
        }
        self.asked.lock().push(format!("invite {to} {}", outgoing.room_state.len()));
        let changes = if self.signs_another { json!({ "depth": 1 }) } else { json!({}) };
        ready(Ok(self.sign(&outgoing.invite, &changes))).boxed()
    }

    fn exchange<'a>(
        &'a self,
        _room_id: &'a RoomId,
        sender: &'a UserId,
        _user_id: &'a UserId,
        _content: &'a Content,
    ) -> Answer<'a, ()> {
        self.say_no("exchange", sender.server_name())
    }

    fn verify_all(&self, events: Vec<ReceivedPdu>) -> BoxFuture<'_, Vec<Result<Pdu, VerifyError>>> {
        let keys = self.keys();
        let verify =
            |received: ReceivedPdu| received.verify(&keys).map_err(|error| VerifyError::Invalid(error.to_string()));
        ready(events.into_iter().map(verify).collect()).boxed()
    }

    fn verify_signature<'a>(&'a self, server: &'a ServerName, pdu: &'a Pdu) -> BoxFuture<'a, Result<(), VerifyError>> {
        let is_signed = !signatures_of(&pdu.to_object().unwrap(), server).is_empty();
        ready(if is_signed { Ok(()) } else { Err(VerifyError::Invalid("it is not signed".to_owned())) }).boxed()
    }
}
