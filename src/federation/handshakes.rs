//! Being asked by other servers to let their users into a room, let them go, let them knock, and invite users of this
//! server.
//!
//! What comes is read by the rules of the room's version, held against the request that it came by, and verified, in this
//! order. Only then is anything taken in, or signed for somebody else to see.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>,
//! <https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms>,
//! <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room> and
//! <https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites>

mod endings;
mod introduction;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ruma::{
    OwnedEventId, OwnedRoomId, RoomVersionId, ServerName, UserId,
    api::error::{ErrorKind, IncompatibleRoomVersionErrorData},
    events::room::member::MembershipState,
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use super::server_keys::{ServerKeys, VerifyError};
use crate::{
    error::{Error, Result},
    event::{Pdu, ReceivedPdu, fact::OutsideEvent},
    ground::room_version,
    room::{FromOutside, Handshake, Joined, Resident, Rooms},
};

/// What other servers ask for in the name of their users. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handshakes {
    rooms: Rooms,
    server_keys: ServerKeys,
}

/// A membership event as a request has it.
#[derive(Debug)]
pub(crate) struct SentEvent {
    /// This and the next are those of the path.
    pub(crate) room_id: OwnedRoomId,
    pub(crate) event_id: OwnedEventId,
    pub(crate) json: Box<RawValue>,
}

/// An invitation as a request has it.
#[derive(Debug)]
pub(crate) struct SentInvite {
    /// That of the room, as its sender says.
    pub(crate) version: RoomVersionId,
    pub(crate) event: SentEvent,
    /// What the room is known by, as events or stripped of what only servers need.
    pub(crate) room_state: Vec<Box<RawValue>>,
}

impl Handshakes {
    pub(crate) fn new(rooms: Rooms, server_keys: ServerKeys) -> Self {
        Self { rooms, server_keys }
    }

    /// Lets a user of another server into a room.
    pub(crate) async fn join(&self, from: &ServerName, sent: &SentEvent, omits_members: bool) -> Result<Joined> {
        let room = self.rooms.get_for_handshake(&sent.room_id, from).await?;
        let rules = rules_of(&room);
        let received = sent.read(from, MembershipState::Join, rules)?;
        // Before it is verified: a room with conditions wants this signature among those that are looked at.
        let signed = self.rooms.vouch_for(&room, received.unverified()).await?;
        let received = ReceivedPdu::read(signed.json(), rules).map_err(|e| Error::bad_json(e.to_string()))?;
        let join = self.verify(received).await?;
        Box::pin(self.rooms.take_join(&room, join, from, omits_members)).await
    }

    /// Lets a user of another server leave a room, turn down an invitation or take back a knock.
    pub(crate) async fn leave(&self, from: &ServerName, sent: &SentEvent) -> Result<()> {
        self.take(from, sent, MembershipState::Leave).await.map(drop)
    }

    /// Lets a user of another server knock, and returns what the room is known by.
    pub(crate) async fn knock(&self, from: &ServerName, sent: &SentEvent) -> Result<Vec<Arc<Pdu>>> {
        let room = self.take(from, sent, MembershipState::Knock).await?;
        Ok(room.state().introduction())
    }

    /// Tells a user of this server that they are invited, and returns the invitation with this server's signature.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid>
    pub(crate) async fn invite(&self, from: &ServerName, sent: SentInvite) -> Result<Pdu> {
        let SentInvite { version, event, room_state } = sent;
        let rules = room_version::rules(&version).ok_or_else(|| unspoken(&version))?;
        let received = event.read(from, MembershipState::Invite, rules)?;
        let invitee = received.unverified().state_key().and_then(|key| <&UserId>::try_from(key).ok());
        let invitee = invitee
            .filter(|invitee| invitee.server_name() == self.rooms.server_name())
            .ok_or_else(|| Error::invalid_param("The event's `state_key` is no user of this server"))?
            .to_owned();
        // Nobody is asked for keys on behalf of who may not invite them.
        self.rooms.check_invitee(&invitee).await?;
        let pdu = self.verify(received).await?;
        let room_state = self.check_introduction(&pdu, &room_state).await?;
        let signed = self.rooms.countersign(&pdu)?;
        let invite = FromOutside {
            user_id: invitee,
            room_id: event.room_id,
            sender: signed.sender().to_owned(),
            event: Some(OutsideEvent { version, pdu: Arc::new(signed.clone()) }),
            room_state,
        };
        self.rooms.receive_invite(invite, from).await?;
        Ok(signed)
    }

    async fn take(&self, from: &ServerName, sent: &SentEvent, membership: MembershipState) -> Result<Resident> {
        let room = self.rooms.get_for_handshake(&sent.room_id, from).await?;
        let received = sent.read(from, membership, rules_of(&room))?;
        let pdu = self.verify(received).await?;
        self.rooms.take_from(&room, pdu, from).await?;
        Ok(room)
    }

    /// Verifies an event that came by itself. One of whose content the hash is not is refused and not taken redacted: who
    /// sends it has made it a moment ago.
    async fn verify(&self, received: ReceivedPdu) -> Result<Pdu> {
        let sent = received.unverified().clone();
        let pdu = self.server_keys.verify(received).await.map_err(|error| match error {
            VerifyError::Invalid(reason) => Error::invalid_param(format!("The event is not valid: {reason}")),
            VerifyError::KeysUnavailable(reason) => Error::Unavailable(reason),
        })?;
        if pdu.json().get() == sent.json().get() {
            return Ok(pdu);
        }
        Err(Error::invalid_param("The event's hash is not that of its content"))
    }
}

impl SentEvent {
    /// Reads the event, if it is one that may come by this request.
    fn read(
        &self,
        from: &ServerName,
        membership: MembershipState,
        rules: &'static RoomVersionRules,
    ) -> Result<ReceivedPdu> {
        let received = ReceivedPdu::read(&self.json, rules)
            .map_err(|e| Error::bad_json(format!("This is no event of the room's version: {e}")))?;
        let handshake = Handshake { room_id: &self.room_id, event_id: &self.event_id, membership, from };
        handshake.check(received.unverified())?;
        Ok(received)
    }
}

fn rules_of(room: &Resident) -> &'static RoomVersionRules {
    room.view(|view| view.rules)
}

/// The answer to an invitation to a room of a version that this server does not speak.
pub(crate) fn unspoken(version: &RoomVersionId) -> Error {
    let data = IncompatibleRoomVersionErrorData::new(version.clone());
    let message = format!("This server does not speak room version {version}: it speaks 6 to 12");
    Error::refused(ErrorKind::IncompatibleRoomVersion(data), message)
}
