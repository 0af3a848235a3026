//! What is asked of servers that are in a room, and who asks them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerSigningKeyId, RoomId, RoomVersionId, ServerName, UserId,
    api::federation::{
        membership::{
            RawStrippedState, create_invite, create_join_event, create_knock_event, create_leave_event,
            prepare_join_event, prepare_knock_event, prepare_leave_event,
        },
        thirdparty::exchange_invite,
    },
    canonical_json::redact,
    events::room::member::MembershipState,
    serde::Raw,
    signatures::{PublicKeyMap, PublicKeySet, verify_json},
};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    config::FederationConfig,
    edge::federation_client::{Bounds, RemoteError},
    event::{Content, Pdu, ReceivedPdu},
    federation::{
        remote::Remote,
        server_keys::{ServerKeys, VerifyError},
    },
    ground::room_version,
    room::OutgoingInvite,
};

/// By how many keys of one server an event is looked at.
const MOST_KEYS: usize = 4;

/// Servers that are in rooms. Nothing of an answer is verified but where a function says so.
pub(crate) trait Residents: Send + Sync {
    /// Whether this server asks others at all.
    fn is_on(&self) -> bool;

    /// Whether this server has anything to do with that one.
    fn may_ask(&self, server: &ServerName) -> Result<(), RemoteError>;

    /// A template for a membership event of a user of this server: to join, to knock, else to leave.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid>
    fn make<'a>(
        &'a self,
        to: &'a ServerName,
        membership: &'a MembershipState,
        room_id: &'a RoomId,
        user_id: &'a UserId,
    ) -> Answer<'a, Template>;

    /// What comes back is the body of the answer.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid>
    fn send_join<'a>(&'a self, to: &'a ServerName, join: &'a Pdu) -> Answer<'a, Body>;

    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_leaveroomideventid>
    fn send_leave<'a>(&'a self, to: &'a ServerName, leave: &'a Pdu) -> Answer<'a, ()>;

    /// Returns some of the room's state, as whole events or stripped ones.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_knockroomideventid>
    fn send_knock<'a>(&'a self, to: &'a ServerName, knock: &'a Pdu) -> Answer<'a, Vec<Box<RawValue>>>;

    /// Returns the event as the other server has signed it.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid>
    fn invite<'a>(&'a self, to: &'a ServerName, invite: &'a OutgoingInvite) -> Answer<'a, Box<RawValue>>;

    /// Has a server invite a user of this one, whom somebody of that one has invited by an address.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid>
    fn exchange<'a>(
        &'a self,
        room_id: &'a RoomId,
        sender: &'a UserId,
        user_id: &'a UserId,
        content: &'a Content,
    ) -> Answer<'a, ()>;

    /// Looks at signatures and hashes of events, of each by itself. In the order given.
    fn verify_all(&self, events: Vec<ReceivedPdu>) -> BoxFuture<'_, Vec<Result<Pdu, VerifyError>>>;

    /// Whether a server has signed an event with a key that it has now.
    fn verify_signature<'a>(&'a self, server: &'a ServerName, pdu: &'a Pdu) -> BoxFuture<'a, Result<(), VerifyError>>;
}

/// What another server says.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, RemoteError>>;

/// The body of an answer, as it comes.
pub(crate) type Body = BoxStream<'static, Result<Bytes, RemoteError>>;

/// A membership event as another server proposes it.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) version: Option<RoomVersionId>,
    pub(crate) event: Box<RawValue>,
}

/// The other servers, over the network.
pub(crate) struct OtherResidents {
    remote: Remote,
    server_keys: ServerKeys,
    config: FederationConfig,
}

impl OtherResidents {
    /// As an entrance takes them.
    pub(crate) fn over(remote: Remote, server_keys: ServerKeys, config: FederationConfig) -> Arc<dyn Residents> {
        Arc::new(Self { remote, server_keys, config })
    }

    async fn make_template(
        &self,
        to: &ServerName,
        membership: &MembershipState,
        room_id: &RoomId,
        user_id: &UserId,
    ) -> Result<Template, RemoteError> {
        let (room_id, user_id) = (room_id.to_owned(), user_id.to_owned());
        Ok(match membership {
            MembershipState::Join => {
                let mut request = prepare_join_event::v1::Request::new(room_id, user_id);
                request.ver = versions();
                let answer = self.remote.call(to, request, Bounds::ANSWER).await?;
                Template { version: answer.room_version, event: answer.event }
            }
            MembershipState::Knock => {
                let mut request = prepare_knock_event::v1::Request::new(room_id, user_id);
                request.ver = versions();
                let answer = self.remote.call(to, request, Bounds::ANSWER).await?;
                Template { version: Some(answer.room_version), event: answer.event }
            }
            _ => {
                let request = prepare_leave_event::v1::Request::new(room_id, user_id);
                let answer = self.remote.call(to, request, Bounds::ANSWER).await?;
                Template { version: answer.room_version, event: answer.event }
            }
        })
    }

    async fn verify_signature_of(&self, server: &ServerName, pdu: &Pdu) -> Result<(), VerifyError> {
        let invalid = |error: &dyn std::fmt::Display| VerifyError::Invalid(error.to_string());
        let object = pdu.to_object().map_err(|error| invalid(&error))?;
        let mut object = redact(object, &pdu.rules().redaction, None).map_err(|error| invalid(&error))?;
        let signatures = signatures_of(&object, server);
        // Whoever else has signed it is of no interest.
        let alone = CanonicalJsonObject::from([(server.to_string(), CanonicalJsonValue::Object(signatures.clone()))]);
        object.insert("signatures".to_owned(), CanonicalJsonValue::Object(alone));
        let key_ids = signatures.keys().filter_map(|id| OwnedServerSigningKeyId::try_from(id.as_str()).ok());
        let mut reason = format!("{server} has not signed it");
        for key_id in key_ids.take(MOST_KEYS) {
            let key = self.server_keys.request_key(server, &key_id).await?;
            let keys = PublicKeyMap::from([(server.to_string(), PublicKeySet::from([(key_id.to_string(), key)]))]);
            match verify_json(&keys, &object) {
                Ok(()) => return Ok(()),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(VerifyError::Invalid(reason))
    }
}

impl Residents for OtherResidents {
    fn is_on(&self) -> bool {
        self.config.enabled
    }

    fn may_ask(&self, server: &ServerName) -> Result<(), RemoteError> {
        match (self.config.enabled, self.config.allows(server)) {
            (false, _) => Err(RemoteError::Off),
            (true, false) => Err(RemoteError::NotAllowed),
            (true, true) => Ok(()),
        }
    }

    fn make<'a>(
        &'a self,
        to: &'a ServerName,
        membership: &'a MembershipState,
        room_id: &'a RoomId,
        user_id: &'a UserId,
    ) -> Answer<'a, Template> {
        self.make_template(to, membership, room_id, user_id).boxed()
    }

    fn send_join<'a>(&'a self, to: &'a ServerName, join: &'a Pdu) -> Answer<'a, Body> {
        async move {
            let (room_id, event_id) = (join.room_id().to_owned(), join.event_id().to_owned());
            let request = create_join_event::v2::Request::new(room_id, event_id, join.json().to_owned());
            let body = self.remote.open(to, request, Bounds::JOIN).await?;
            let pieces = stream::try_unfold(body, |mut body| async move {
                Ok::<_, RemoteError>(body.chunk().await?.map(|chunk| (chunk, body)))
            });
            Ok(pieces.boxed())
        }
        .boxed()
    }

    fn send_leave<'a>(&'a self, to: &'a ServerName, leave: &'a Pdu) -> Answer<'a, ()> {
        async move {
            let (room_id, event_id) = (leave.room_id().to_owned(), leave.event_id().to_owned());
            let request = create_leave_event::v2::Request::new(room_id, event_id, leave.json().to_owned());
            self.remote.call(to, request, Bounds::ANSWER).await.map(drop)
        }
        .boxed()
    }

    fn send_knock<'a>(&'a self, to: &'a ServerName, knock: &'a Pdu) -> Answer<'a, Vec<Box<RawValue>>> {
        async move {
            let (room_id, event_id) = (knock.room_id().to_owned(), knock.event_id().to_owned());
            let request = create_knock_event::v1::Request::new(room_id, event_id, knock.json().to_owned());
            let answer = self.remote.call(to, request, Bounds::ANSWER).await?;
            // Each as it came, in whichever form.
            Ok(answer.knock_room_state.iter().filter_map(|event| to_raw_value(event).ok()).collect())
        }
        .boxed()
    }

    /// The first version of the endpoint is for rooms of versions 1 and 2, which are not spoken here.
    fn invite<'a>(&'a self, to: &'a ServerName, invite: &'a OutgoingInvite) -> Answer<'a, Box<RawValue>> {
        async move {
            let OutgoingInvite { invite, version, room_state } = invite;
            let state = room_state.iter().map(|pdu| RawStrippedState::Pdu(pdu.json().to_owned())).collect();
            let request = create_invite::v2::Request::new(
                invite.room_id().to_owned(),
                invite.event_id().to_owned(),
                version.clone(),
                invite.json().to_owned(),
                state,
            );
            Ok(self.remote.call(to, request, Bounds::ANSWER).await?.event)
        }
        .boxed()
    }

    fn exchange<'a>(
        &'a self,
        room_id: &'a RoomId,
        sender: &'a UserId,
        user_id: &'a UserId,
        content: &'a Content,
    ) -> Answer<'a, ()> {
        async move {
            let unwritable = |_| RemoteError::Malformed("the invitation can't be written".to_owned());
            let content = to_raw_value(content).map(Raw::from_json).map_err(unwritable)?;
            let (room, user) = (room_id.to_owned(), user_id.to_owned());
            let request = exchange_invite::v1::Request::new(room, sender.to_owned(), user, content);
            self.remote.call(sender.server_name(), request, Bounds::ANSWER).await.map(drop)
        }
        .boxed()
    }

    fn verify_all(&self, events: Vec<ReceivedPdu>) -> BoxFuture<'_, Vec<Result<Pdu, VerifyError>>> {
        self.server_keys.verify_all(events).boxed()
    }

    fn verify_signature<'a>(&'a self, server: &'a ServerName, pdu: &'a Pdu) -> BoxFuture<'a, Result<(), VerifyError>> {
        self.verify_signature_of(server, pdu).boxed()
    }
}

/// What an event has of signatures of a server, by key. Empty where there is none.
pub(super) fn signatures_of(object: &CanonicalJsonObject, server: &ServerName) -> CanonicalJsonObject {
    let all = object.get("signatures").and_then(CanonicalJsonValue::as_object);
    let own = all.and_then(|all| all.get(server.as_str())).and_then(CanonicalJsonValue::as_object);
    own.cloned().unwrap_or_default()
}

/// The room versions that this server can join.
fn versions() -> Vec<RoomVersionId> {
    let unstable = room_version::UNSTABLE.iter().filter_map(|version| RoomVersionId::try_from(*version).ok());
    room_version::STABLE.iter().cloned().chain(unstable).collect()
}
