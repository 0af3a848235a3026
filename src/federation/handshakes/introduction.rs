//! What comes with an invitation: events that say what the room is.
//!
//! Since version 12 of rooms each must be a whole event of the room, signed as it must be, and the create event must be
//! among them, by whose hash the room is called. In older rooms what can be held against that is, and servers may still
//! send events that are stripped of it.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid>

use ruma::events::TimelineEventType;
use serde_json::value::RawValue;

use super::Handshakes;
use crate::{
    error::{Error, Result},
    event::{Pdu, ReceivedPdu},
    federation::server_keys::VerifyError,
};

/// How many events are looked at. The specification names seven.
const MOST: usize = 20;

/// The events that came along, as far as can be told without keys.
#[derive(Debug, Default)]
struct CameAlong {
    /// Of the room that the invitation is for.
    whole: Vec<ReceivedPdu>,
    /// What is no whole event, of which nothing can be verified.
    stripped: Vec<Box<RawValue>>,
}

impl Handshakes {
    /// Those events that may be shown with an invitation. `M_INVALID_PARAM` where the room's version wants more of them.
    ///
    /// One whose signatures can't be looked at now, because a server does not give its keys, is left out: the invitation is
    /// valid without.
    pub(super) async fn check_introduction(
        &self,
        invite: &Pdu,
        room_state: &[Box<RawValue>],
    ) -> Result<Vec<Box<RawValue>>> {
        let is_strict = wants_whole(invite);
        let CameAlong { whole, stripped } = read(invite, room_state)?;
        let mut shown = stripped;
        for verified in self.server_keys.verify_all(whole).await {
            match verified {
                Ok(pdu) => shown.push(pdu.json().to_owned()),
                Err(VerifyError::Invalid(reason)) if is_strict => {
                    return Err(invalid(format!("has an event that is not valid: {reason}")));
                }
                Err(error) => {
                    tracing::debug!(room_id = %invite.room_id(), %error, "an event of an invitation is left out");
                }
            }
        }
        Ok(shown)
    }
}

/// Whether the version of the room that somebody is invited to wants whole events.
fn wants_whole(invite: &Pdu) -> bool {
    !invite.rules().event_format.require_room_create_room_id
}

fn read(invite: &Pdu, room_state: &[Box<RawValue>]) -> Result<CameAlong> {
    let is_strict = wants_whole(invite);
    let mut came = CameAlong::default();
    for json in room_state.iter().take(MOST) {
        match ReceivedPdu::read(json, invite.rules()) {
            Ok(pdu) if pdu.room_id() == invite.room_id() => came.whole.push(pdu),
            Ok(_) if is_strict => return Err(invalid("has an event of another room")),
            Err(error) if is_strict => {
                return Err(invalid(format!("has something that is no event of the room's version: {error}")));
            }
            Ok(_) => {}
            Err(_) => came.stripped.push(json.clone()),
        }
    }
    let is_create = |pdu: &ReceivedPdu| {
        let pdu = pdu.unverified();
        *pdu.kind() == TimelineEventType::RoomCreate && pdu.state_key() == Some("")
    };
    if is_strict && !came.whole.iter().any(is_create) {
        return Err(invalid("has no m.room.create event"));
    }
    Ok(came)
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::invalid_param(format!("`invite_room_state` {what}"))
}
