//! Invitations that are taken back, and knocks that are denied, while nobody of this server is in the room: the event comes
//! with others that a server sends, though there is no room here to take it into.
//!
//! Whether its sender may do that, the state of the room would say, which is not known. So a server is believed that was
//! believed before: that of who has invited, or one whose users have set what is shown of the room.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>

use ruma::{OwnedRoomId, OwnedUserId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Handshakes;
use crate::{
    error::{Error, Result},
    event::{
        ReceivedPdu,
        fact::{OutsideEvent, OutsideMembership, OutsideState},
    },
    ground::room_version,
    room::Ending,
};

/// What is read of an event before it is known by the rules of which version.
#[derive(Deserialize)]
struct SaidMembership {
    room_id: OwnedRoomId,
    #[serde(rename = "type")]
    kind: String,
    state_key: OwnedUserId,
    sender: OwnedUserId,
    content: SaidContent,
}

#[derive(Deserialize)]
struct SaidContent {
    membership: String,
}

impl Handshakes {
    /// Ends what these events say is over, of users of this server in rooms that nobody of it is in. All other events, and
    /// those that are not valid, are passed over.
    pub(crate) async fn take_endings(&self, from: &ServerName, pdus: &[Box<RawValue>]) -> Result<()> {
        for json in pdus {
            let Ok(said) = serde_json::from_str::<SaidMembership>(json.get()) else { continue };
            let ends = said.kind == "m.room.member" && ["leave", "ban"].contains(&said.content.membership.as_str());
            let is_ours = said.state_key.server_name() == self.rooms.server_name();
            if !ends || !is_ours || said.sender.server_name() != from {
                continue;
            }
            match self.take_ending(from, &said, json).await {
                Err(error @ Error::Refused { .. }) => {
                    tracing::debug!(%from, room_id = %said.room_id, %error, "an invitation is not taken back");
                }
                taken => taken?,
            }
        }
        Ok(())
    }

    async fn take_ending(&self, from: &ServerName, said: &SaidMembership, json: &RawValue) -> Result<()> {
        let known = self.rooms.find_outside_membership(&said.room_id, &said.state_key).await?;
        let Some(known) = known.filter(|known| known.state != OutsideState::Ended && is_believed(from, known)) else {
            return Ok(());
        };
        let Some(OutsideEvent { version, pdu: begun }) = known.event else { return Ok(()) };
        let rules = room_version::rules(&version).ok_or_else(|| super::unspoken(&version))?;
        let received = ReceivedPdu::read(json, rules).map_err(|e| Error::bad_json(e.to_string()))?;
        // One that was sent before, and comes again, ends nothing that has begun since.
        if received.unverified().depth() <= begun.depth() {
            return Ok(());
        }
        let pdu = self.verify(received).await?;
        let event = Some(OutsideEvent { version, pdu: pdu.into() });
        let ending = Ending { sender: said.sender.clone(), event };
        self.rooms.end_outside(&said.room_id, &said.state_key, ending).await
    }
}

fn is_believed(from: &ServerName, known: &OutsideMembership) -> bool {
    let senders =
        known.stripped_state.iter().filter_map(|event| event.get_field::<OwnedUserId>("sender").ok().flatten());
    senders.chain([known.sender.clone()]).any(|sender| sender.server_name() == from)
}
