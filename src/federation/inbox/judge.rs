//! What is looked at of an event before it is taken: nothing that takes a query for each or another server's answer.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>

use std::collections::{BTreeSet, HashMap};

use ruma::{OwnedEventId, OwnedRoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Inbox,
    intake::{ArrivedPdu, Results},
};
use crate::{
    error::{Error, Result},
    event::ReceivedPdu,
    room::Held,
};

/// The room of an event that can't be read otherwise yet: how, its room says.
#[derive(Deserialize)]
struct InRoom {
    room_id: OwnedRoomId,
}

/// What is thought of an event at first sight.
enum Verdict {
    /// It is not even known what it is called, so its server is not told.
    Unreadable(String),
    Refused(OwnedEventId, &'static str),
    Taken(ArrivedPdu),
}

impl Inbox {
    /// Which events of a transaction are to be taken in, and what its server is told of each.
    pub(super) async fn judge(
        &self,
        origin: &ServerName,
        pdus: &[Box<RawValue>],
    ) -> Result<(Results, Vec<ArrivedPdu>)> {
        let (mut rooms, mut results, mut taken) = (HashMap::new(), Results::new(), Vec::with_capacity(pdus.len()));
        for json in pdus {
            match self.look_at(origin, json, &mut rooms).await? {
                Verdict::Unreadable(reason) => {
                    tracing::debug!(%origin, reason, "an event is dropped");
                    self.0.metrics.pdu_received("dropped");
                }
                Verdict::Refused(event_id, reason) => {
                    tracing::debug!(%origin, %event_id, reason, "an event is refused");
                    self.0.metrics.pdu_received("dropped");
                    results.insert(event_id, Err(reason.to_owned()));
                }
                Verdict::Taken(pdu) => {
                    // Twice in one transaction is once.
                    if results.insert(pdu.event_id.clone(), Ok(())).is_none() {
                        taken.push(pdu);
                    }
                }
            }
        }
        let ids: Vec<OwnedEventId> = taken.iter().map(|pdu| pdu.event_id.clone()).collect();
        let unplaced = self.0.fetcher.list_unplaced(&ids).await?;
        let unplaced: BTreeSet<OwnedEventId> = unplaced.into_iter().collect();
        // What stands in its room already has come from somebody else.
        taken.retain(|pdu| unplaced.contains(&pdu.event_id));
        Ok((results, taken))
    }

    async fn look_at(
        &self,
        origin: &ServerName,
        json: &RawValue,
        rooms: &mut HashMap<OwnedRoomId, Option<Held>>,
    ) -> Result<Verdict> {
        let room_id = match serde_json::from_str::<InRoom>(json.get()) {
            Ok(InRoom { room_id }) => room_id,
            Err(error) => return Ok(Verdict::Unreadable(format!("it names no room: {error}"))),
        };
        let held = match rooms.get(&room_id) {
            Some(held) => held.clone(),
            None => self.find_held(&room_id, rooms).await?,
        };
        let Some(held) = held else {
            return Ok(Verdict::Unreadable(format!("nobody here was ever in its room {room_id}")));
        };
        let pdu = match ReceivedPdu::read(json, held.view(|view| view.rules)) {
            Ok(pdu) => pdu,
            Err(error) => return Ok(Verdict::Unreadable(error.to_string())),
        };
        let event_id = pdu.event_id().to_owned();
        let Held::Resident(room) = held else {
            return Ok(Verdict::Refused(event_id, "Nobody of this server is in the room any more"));
        };
        if !room.view(|view| view.allows(origin)) {
            return Ok(Verdict::Refused(event_id, "The room's access control list does not admit your server"));
        }
        // Without what nobody has signed, which may be long.
        let json = pdu.unverified().json().get().to_owned();
        Ok(Verdict::Taken(ArrivedPdu { event_id, room_id, json }))
    }

    /// A room that this server is or was in. None of one of whose version nothing is known here.
    async fn find_held(
        &self,
        room_id: &OwnedRoomId,
        rooms: &mut HashMap<OwnedRoomId, Option<Held>>,
    ) -> Result<Option<Held>> {
        let held = match self.0.rooms.find_held(room_id).await {
            Err(Error::Refused { .. }) => None,
            held => held?,
        };
        rooms.insert(room_id.clone(), held.clone());
        Ok(held)
    }
}
